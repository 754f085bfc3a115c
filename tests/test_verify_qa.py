"""Short answers: normalisation, exact match, F1, yes or no, multiple choice, and where a response gives its answer."""

from __future__ import annotations

import time
from typing import Any

import pytest

from prmkit.config import QAConfig
from prmkit.data.types import Message, Prompt, Verdict
from prmkit.errors import ConfigError
from prmkit.verify.qa import QAVerifier, exact_match, f1, judge_answer, normalise
from prmkit.verify.qa_answers import find_answer

PLACES = QAConfig().extract


def prompt(answer: str, **meta: Any) -> Prompt:
    return Prompt(id="p", messages=(Message(role="user", content="?"),), answer=answer, meta=meta)


def reward(answer: str, response: str, config: QAConfig | None = None, **meta: Any) -> float | None:
    return judge_answer(prompt(answer, **meta), response, config or QAConfig()).reward


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The  Eiffel\tTower!", "eiffel tower"),
        ("a cat and an owl", "cat and owl"),
        ("Theatre", "theatre"),  # articles are words
        ("rock-n-roll", "rocknroll"),  # as SQuAD's script: punctuation goes without a space
        ("A", "a"),  # nothing but an article: the option, not nothing
        ("?", "?"),
        ("\uff21\uff22\uff23\u3000\uff11", "abc 1"),  # full width
        ("\u0663\u0664", "34"),  # Arabic-Indic digits
        ("\u0967\u0968", "12"),  # Devanagari digits
        ("\u00bfQu\u00e9?", "qu\u00e9"),
        ("\u201cyes\u201d", "yes"),
        ("", ""),
    ],
)
def test_normalisation(text: str, plain: str) -> None:
    assert normalise(text) == plain
    assert normalise(plain) == plain


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Barack Obama", "barack obama.", 1.0),
        ("Obama", "Barack Obama", 0.0),
        ("3.5", "35", 0.0),
        ("-5", "5", 0.0),
        ("1,000", "1000.0", 1.0),
        ("5", "5.", 1.0),
        ("\u0665", "5", 1.0),
        ("\u0663\u066b\u0665", "3.5", 1.0),  # Arabic decimal separator
        ("\u22125", "-5", 1.0),
        ("1,00", "100", 1.0),  # no plain number: as text
        ("1/2", "12", 0.0),
        ("1/2", "0.5", 1.0),
        ("1/0", "10", 1.0),  # no number: as text
        ("9/11", "9-11", 1.0),  # a date
        ("9" * 5000, "9" * 5000, 1.0),
    ],
)
def test_exact_match(a: str, b: str, same: float) -> None:
    assert exact_match(a, b) == exact_match(b, a) == same


def test_numbers_as_in_the_published_script() -> None:
    assert exact_match("3.5", "35", numbers=False) == 1.0
    assert exact_match("5.0", "5", numbers=False) == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "value"),
    [
        # words in common 2 of 3 and 2: P = 2/2, R = 2/3, F1 = 2 * 1 * 2/3 / (5/3) = 4/5
        ("new york city", "New York", 0.8),
        # counted with repetition: gold {to 1, be 1}, answer {to 2, be 2}: common 2; 2 * 2 / (2 + 4) = 2/3
        ("to be", "to be to be", 2 / 3),
        ("paris", "london", 0.0),
        ("the cat", "a cat", 1.0),
        ("yes", "yes it is", 0.0),  # HotpotQA: yes and no are right or wrong as a whole
        ("12 men", "12", 2 / 3),
        ("12", "13", 0.0),
        # ideographs are words: common 2, 2 * 2 / (2 + 3) = 4/5
        ("\u5317\u4eac", "\u5317\u4eac\u5e02", 0.8),
    ],
)
def test_f1(gold: str, answer: str, value: float) -> None:
    assert f1(gold, answer) == pytest.approx(value)
    assert f1(answer, gold) == pytest.approx(value)


def test_the_best_alias_counts() -> None:
    aliases = {"answers": ["U.S.A.", "United States"]}
    assert reward("America", "Answer: united states", **aliases) == 1.0
    assert reward("America", "Answer: America", **aliases) == 1.0
    assert reward("", "Answer: usa", **aliases) == 1.0
    assert reward("America", "Answer: Canada", **aliases) == 0.0
    # "united states today" against "united states": 2 * 2 / (3 + 2) = 4/5; against the others 0
    assert reward("America", "Answer: United States today", QAConfig(metric="f1"), **aliases) == pytest.approx(0.8)


def test_no_reference_is_unparsed_and_no_answer_is_wrong() -> None:
    assert judge_answer(prompt(" "), "Answer: 5", QAConfig()) == Verdict(
        status="unparsed", reward=None, detail="prompt 'p' has no reference answer"
    )
    assert judge_answer(prompt("5"), "  ", QAConfig()) == Verdict(status="ok", reward=0.0, detail="no answer")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("I think.\n<answer> Paris </answer> done", "Paris"),
        ("<answer>Rome</answer> no, <ANSWER>Paris</ANSWER>", "Paris"),
        ("<answer>Rome <answer>Paris</answer>", "Paris"),
        ("<answer></answer>\nAnswer: Paris", "Paris"),
        (r"so \boxed{\text{New York}}.", "New York"),
        (r"\boxed{a} then \boxed{{b} c}", "{b} c"),
        (r"\boxed{a} and \boxed{b", "a"),
        ("Answer: Rome\nThe final answer is: **Paris**.", "Paris"),
        ("The answer is St. Louis. It lies on a river.", "St. Louis"),
        ("The answer is 3.5. That is all.", "3.5"),
        ("Answer: U.S. Army. It was founded", "U.S. Army. It was founded"),  # a colon gives the line
        ("Answer:\nParis\nbye", "Paris"),
        ("Answer: ", None),
        ("Respuesta: Par\u00eds", "Par\u00eds"),
        ("La r\u00e9ponse est Paris.", "Paris"),
        ("Die Antwort lautet: Paris", "Paris"),
        ("\u041e\u0442\u0432\u0435\u0442: \u041f\u0430\u0440\u0438\u0436", "\u041f\u0430\u0440\u0438\u0436"),
        ("\u7b54\u6848\u662f\u5df4\u9ece\u3002\u5b8c", "\u5df4\u9ece"),
        ("\u7b54\u6848\uff1a\u5df4\u9ece", "\u5df4\u9ece"),
        ("It is in France.\n\nParis\n", "Paris"),
        ("<think>Answer: Rome</think>\nParis", "Paris"),
        ("<think>Answer: Rome", None),  # cut off while thinking
    ],
)
def test_where_the_answer_is(text: str, answer: str | None) -> None:
    expected = "Answer:" if text == "Answer: " else answer  # a phrase without an answer: its line is the last line
    assert find_answer(text, PLACES) == expected


def test_places_are_a_choice() -> None:
    text = "Answer: Rome\n<answer>Paris</answer>"
    assert find_answer(text, ("phrase", "tags")) == "Rome"
    assert find_answer("Rome is old.\nIt is Rome", ("phrase",)) is None
    assert find_answer("Rome is\nold", ("whole",)) == "Rome is\nold"
    with pytest.raises(ConfigError, match="extract is empty"):
        QAConfig(extract=())


@pytest.mark.parametrize(
    ("gold", "response", "value"),
    [
        ("yes", "Answer: Yes, because there is no doubt.", 1.0),
        ("no", "Answer: Yes, because there is no doubt.", 0.0),
        ("True", "Answer: yes", 1.0),
        ("false", "Answer: No.", 1.0),
        ("no", "It is, I believe, no", 1.0),
        ("yes", "Answer: \u0434\u0430", 1.0),
        ("no", "Respuesta: s\u00ed", 0.0),
        ("yes", "\u7b54\u6848\u662f\uff1a\u662f", 1.0),
        ("yes", "\u7b54\u6848\uff1a\u662f\u7684\uff0c\u56e0\u4e3a", 1.0),
        ("yes", "\u306f\u3044\u3001\u305d\u3046\u3067\u3059", 1.0),
        ("no", "\u4e0d\u662f\u7684", 1.0),
        ("yes", "\u662f\u5426", 0.0),  # "whether"
        ("no", "Answer: perhaps", 0.0),  # it says neither: not what was asked
        ("yes", "Answer: it is yes and no", None),
        ("yes", "Answer: yes or no", None),
        ("no", "Answer: No and yes.", None),
        ("yes", "Answer: yes or so", 1.0),
        ("yes", "Answer: Not true.", 0.0),
        ("no", "The claim isn't true.", 1.0),
        ("yes", "Answer: It is not really false", 1.0),
        ("no", "Answer: No, that is not true.", 1.0),
    ],
)
def test_yes_or_no(gold: str, response: str, value: float | None) -> None:
    verdict = judge_answer(prompt(gold), response, QAConfig())
    assert verdict.reward == value
    assert verdict.status == ("unparsed" if value is None else "ok")


def test_a_reference_that_is_neither_yes_nor_no() -> None:
    verdict = judge_answer(prompt("Paris"), "Answer: yes", QAConfig(kind="yes_no"))
    assert verdict.detail == "the reference 'Paris' is neither yes nor no"
    assert reward("yes", "Answer: yes it is", QAConfig(kind="span")) == 0.0


CITIES = ["Rome", "Paris", "New York", "The Hague"]


@pytest.mark.parametrize(
    ("gold", "response", "value"),
    [
        ("B", "Answer: B", 1.0),
        ("B", "Answer: (B) Paris", 1.0),
        ("B", "The answer is b.", 1.0),
        ("B", "Answer: option B", 1.0),
        ("B", r"\boxed{\text{(B)}}", 1.0),
        ("B", "Answer: Paris", 1.0),
        ("Paris", "Answer: B", 1.0),
        ("B", "Answer: \uff22", 1.0),
        ("B", "Answer: C", 0.0),
        ("B", "Answer: Rome", 0.0),
        ("D", "Answer: Hague", 1.0),
        ("A", "Answer: A", 1.0),
        ("B", "Answer: B and C", 0.0),
        ("A", "Answer: A or B or C or D", 0.0),
        ("A", "Answer: A, B, C, or D", 0.0),
        ("A", "Answer: A; B", 0.0),
        ("B, C", "Answer: C and B", 1.0),
        ("B, C", "Answer: B", 0.0),
        ("B", "Answer: London", None),
        ("B", "Answer: E", None),  # there is no such option
        ("Z", "Answer: B", None),
    ],
)
def test_multiple_choice(gold: str, response: str, value: float | None) -> None:
    assert reward(gold, response, choices=CITIES) == value
    assert reward(gold, response, choices=dict(zip("ABCD", CITIES, strict=True))) == value


def test_choice_without_a_list_of_options() -> None:
    assert reward("C", "Answer: (C)", QAConfig(kind="choice")) == 1.0
    assert reward("C", "Answer: D", QAConfig(kind="choice")) == 0.0


def test_the_verifier_keeps_order() -> None:
    with QAVerifier() as verifier:
        verdicts = verifier.verify([(prompt(str(i)), f"Answer: {i % 2}") for i in range(4)])
    assert [verdict.reward for verdict in verdicts] == [1.0, 1.0, 0.0, 0.0]
    assert verdicts[2].detail == "answer: '0'"


@pytest.mark.parametrize(
    "text",
    ["<answer>" * 20_000,
     "\\boxed{" * 20_000, "{" * 50_000 + "}" * 50_000, "answer is " * 20_000, "answer:" * 20_000,
     "A, " * 50_000,
     "the " * 50_000, " " * 200_000, "1," * 100_000, "yes no " * 30_000, "\n" * 200_000, "answer" + " " * 200_000],
    ids=lambda text: repr(text[:10]),
)  # fmt: skip
@pytest.mark.parametrize("kind", ["span", "yes_no", "choice"])
def test_no_text_takes_long(text: str, kind: Any) -> None:
    start = time.process_time()
    judge_answer(prompt("yes"), text, QAConfig(kind=kind, metric="f1"))
    assert time.process_time() - start < 1.0
