"""Responses that are made to hang a verifier: finding an answer is linear, and nothing raises or is accepted."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_setup import is_linear

from prmkit.config import MathConfig
from prmkit.data.types import Prompt, Verdict
from prmkit.verify import MathVerifier
from prmkit.verify.math import Comparison, fast_verdict

LENIENT = MathConfig(last_number=True, unevaluated=False)
REPEATED = [
    " ", "\n", "1", "9,", "1 000 ", "1,000", "0.", "#", "#### ", "# 1", "$", "$1$ and ", "$x", "\\(", "\\[", "\\(1\\)", "{", "}",
    "\\boxed{", "\\boxed{1},", "\\boxed{1} ", "\\boxed 1", "\\\\boxed{", "\\fbox{}", "\\text{", "\\frac{", "\\frac{1}{", "answer",
    "answer ", "answer is ", "answer is\n", "answer to ", "answer: ", "the answer is $", "is the answer ", "5 is the answer ",
    '"answer": "', '"answer": ', 'answer"', '"answer": "\\', "final answer ", "final answer is ", "so ", "Therefore, ", "Thus 1",
    ". So 1", "I hope it is correct", "<|im_end|>", "<think>", "</think>", "(A) ", "option A ", "A", "so B", "\\text{(",
    "solution ", "result: ", "Die Antwort ist ", "La respuesta ", "答えは", "答案是", "答", "คำตอบ", "คำตอบ ", "উত্তর ", "సమాధానం ",
    "Jibu ni ", "Ответ ", "\u0130", "\u0661", "=", "x=", "1=", "2+", "a b ", "'", '"', "`", "*", "**", "\\", "\\\\", "\\left",
    "%", "\\%", "-", "+", "/", "1/", "^", "_{", "|", "\x00", "\U0001f600",
]  # fmt: skip
"""Each is repeated to 20,000 characters; a quadratic search would take many seconds."""


@pytest.mark.parametrize("reference", ["7", "(B)"])
@pytest.mark.parametrize("frame", ["{}", "\\boxed{{{}}}", "The answer is {}", "So ({}."])
def test_finding_an_answer_is_linear(reference: str, frame: str) -> None:
    slow = []
    for piece in REPEATED:

        def find(count: int, piece: str = piece) -> None:
            fast_verdict(reference, frame.format(piece * count), options=LENIENT)

        count = 20_000 // len(piece)
        start = time.process_time()
        find(count)
        took = time.process_time() - start
        if took > 0.5 and not is_linear(find, count // 4):  # a slow machine is no quadratic search
            slow.append((piece, took))
    assert slow == []


pieces = st.sampled_from(
    [*REPEATED, "7", "x", "\\infty", "!", "10^{10^{10}}", "\\begin{pmatrix}", "&", "\\end{pmatrix}"]
)
responses = st.one_of(st.lists(pieces, max_size=30).map("".join), st.text(max_size=80))


@settings(max_examples=150)
@given(responses, st.sampled_from(["7", "x+1", "(B)", "(1,2)", r"\{1,2\}", "50%"]))
def test_any_text_gets_a_verdict_or_is_left_to_math_verify(text: str, reference: str) -> None:
    for options in (MathConfig(), LENIENT):
        found = fast_verdict(reference, text, options=options)
        assert isinstance(found, Verdict | Comparison)
        if isinstance(found, Comparison):
            assert 0 < len(found.answer) <= 2000


NASTY = [
    "9^{9^{9^{9}}}", "10000000!", r"\binom{10^{9}}{10^{8}}", "(" * 900 + "1" + ")" * 900, r"\sqrt{" * 200 + "}" * 200, "1/0",
    "^".join(["2"] * 30), r"\boxed{" * 200 + "}" * 200, "\u0663!" * 9, "9" * 1900,
]  # fmt: skip


@pytest.mark.slow
def test_nothing_hangs_the_pool() -> None:
    with MathVerifier(workers=2, timeout_s=1.0, options=LENIENT) as verifier:
        texts = [rf"\boxed{{{answer}}}" for answer in NASTY]
        verdicts = verifier.verify([(Prompt(id="h", messages=(), answer="x+1"), text) for text in texts])
    assert len(verdicts) == len(NASTY)
    assert [text for text, verdict in zip(texts, verdicts, strict=True) if verdict.reward == 1.0] == []
    assert {verdict.status for verdict in verdicts} <= {"ok", "unparsed", "timeout", "error"}
