"""What exact arithmetic decides, math-verify decides as well: on real answers, on the cases of its tests, and on any numbers."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.config import MathConfig
from prmkit.data.types import Verdict
from prmkit.verify.answers import extract_answer
from prmkit.verify.exact import is_arithmetic
from prmkit.verify.math import Comparison, fast_equal, fast_verdict, judge, math_verify_verdict
from prmkit.verify.plain_numbers import read_list
from prmkit.verify.spelling import normalise

DATA = Path(__file__).parent / "data" / "answers"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def agree(reference: str, answer: str) -> bool:
    """Whether the exact path decides; it must then say what math-verify says, where that says anything."""
    fast = fast_equal(reference, answer)
    if fast is None:
        return False
    slow = math_verify_verdict(Comparison(reference=reference, answer=answer))
    assert slow.reward in (None, float(fast)), (reference, answer, fast, slow)
    return True


def test_real_answers() -> None:
    pairs = {
        (normalise(row["reference"]), normalise(extract_answer(row["response"]) or "")) for row in rows("outputs.jsonl")
    }
    decided = [agree(reference, answer) for reference, answer in sorted(pairs) if answer]
    assert sum(decided) > 0.85 * len(decided) > 50


def test_cases_of_math_verify() -> None:
    wrong = []
    for row in rows("equivalence.jsonl"):
        special = (
            row.get("options", {}).items() - {"precision": 6, "strict": True, "allow_set_relation_comp": False}.items()
        )
        if special:
            continue
        answer = normalise(extract_answer(row["prediction"], last_number=True) or "")
        agree(normalise(row["gold"]), answer)
        verdict = judge(row["gold"], row["prediction"], options=MathConfig(last_number=True))
        if (verdict.reward == 1.0) != row["expected"]:
            wrong.append((row["id"], verdict))
    assert wrong == []


number = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.integers(0, 10**12).map("{:,}".format),
    st.tuples(st.integers(-999, 999), st.integers(1, 999)).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(st.integers(-999, 999), st.integers(1, 6)).map(lambda pair: f"{pair[0] / 10 ** pair[1]:.{pair[1]}f}"),
    st.tuples(st.integers(1, 20), st.integers(1, 8)).map(lambda pair: rf"{pair[0]}\frac{{{pair[1]}}}{{9}}"),
)
unit = st.sampled_from(["", "", "%", r"\%", " apples", r"\text{ cm}", "^\\circ"])
plain = st.tuples(st.sampled_from(["", "", "$", r"\$"]), number, unit).map("".join)
item = st.one_of(
    st.integers(-9, 9).map(str), st.sampled_from(["0.5", "1/2", r"\frac{1}{2}", "1.25", "-0.5", "0.500001", "2.0"])
)
brackets = st.sampled_from([("(", ")"), ("[", "]"), ("(", "]"), (r"\{", r"\}"), ("", "")])


@st.composite
def lists(draw: st.DrawFn) -> str:
    begin, end = draw(brackets)
    return begin + draw(st.sampled_from([", ", ","])).join(draw(st.lists(item, min_size=2, max_size=4))) + end


@settings(max_examples=80)
@given(plain, plain)
def test_any_two_numbers(a: str, b: str) -> None:
    agree(normalise(a), normalise(b))
    assert fast_equal(normalise(a), normalise(a)) is True


@settings(max_examples=80)
@given(lists(), lists())
def test_any_two_lists(a: str, b: str) -> None:
    agree(normalise(a), normalise(b))


@settings(max_examples=40)
@given(lists(), item)
def test_a_list_and_a_number(a: str, b: str) -> None:
    agree(normalise(b), normalise(a))


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("(1, 2)", "(1,2.0)", True),
        ("(1, 2)", "(2,1)", False),
        ("(1,2)", "[1,2]", None),  # an interval with its ends is another one: left to math-verify
        (r"\{1,2\}", "2, 1", True),
        ("1,2,3", "3,2,1", True),
        ("1,2,3", "1,2", False),
        ("[2,1]", "[1,2]", False),
        ("5", "5,6", False),
        ("5", "5,5", False),  # with a decimal comma
        ("5", "5, 5", None),
        ("(0.333333, 1)", "(1/3, 1)", None),
        ("(1,234)", "(1,2)", None),  # 1,234 may be one number
        ("1.5", "1,5", True),
        ("1,5", "1.5", None),
        ("5,1", "1,5", True),
    ],
)
def test_lists(reference: str, answer: str, same: bool | None) -> None:
    assert fast_equal(reference, answer) is same


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("6.02e23", r"6.02 \times 10^{23}", True),
        ("6.02e23", r"602\cdot 10^{21}", True),
        ("6.02e23", r"6.02 \times 10^{22}", False),
        ("1e-7", "0.0000001", True),
        ("1e-7", "2e-7", False),
        ("1e-7", "0", False),
        ("-1.5E3", "-1,500", True),
        ("1000000", "1e6", True),
        ("3e8", r"3e8 \text{ m/s}", True),
        ("3e8", "3e", None),
        ("2e", "2e1", None),  # Euler's number
        (r"10^{6}", "1000000", None),  # math-verify reads these
        ("1e6", "1e6%", None),
        ("1e9999", "1e9998", False),
        ("1011_2", "1011_{2}", True),
        ("1011_2", "1011_3", False),
        ("0b_16", "B_{16}", None),  # B_16 may be a name
        ("00ff_{16}", "0FF_{16}", True),
        ("1011_2", "11_{10}", False),
        ("12_5", "12", None),
        ("12_2", "12_3", None),  # no digits of base 2
    ],
)
def test_powers_of_ten_and_bases(reference: str, answer: str, same: bool | None) -> None:
    assert fast_equal(reference, answer) is same


def test_list_items() -> None:
    found = read_list(r"(1, \frac{1}{2}, -0.5)")
    assert found is not None
    assert found.brackets == "()"
    assert [one.value for one in found.items] == [1, Fraction(1, 2), Fraction(-1, 2)]
    assert read_list("(x, 1)") is read_list("5") is read_list("(1; 2)") is None


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("53", "The entire game lasted 53 minutes", True),
        ("5", "she has at least 5 apples", None),
        ("5", "she has 5 or 6 apples", None),
        ("50", r"43 (Dad's age) + 7 (brother's age) = 50", True),
        ("50", "x = 1, y = 50", None),
        ("7", "No solution", False),
        ("7", "seven", None),
        ("0", "None", None),
        ("12", "twelve apples", None),
    ],
)
def test_sentences(reference: str, answer: str, same: bool | None) -> None:
    assert fast_equal(reference, answer) is same


PERCENT = [("9", "9%", 1.0), ("12.5", r"12.5\%", 1.0), ("0.125", "12.5%", 1.0), ("1/8", "12.5%", 1.0), ("12.5%", "12.5", 1.0),
           ("12.5%", "0.125", 1.0), ("0.125", "12.5", 0.0), ("12.5", "0.125", 0.0), ("12.5", "1250%", 1.0), ("12.5", "1.25", 0.0),
           ("12.5%", "0.125%", 0.0)]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer", "reward"), PERCENT)
def test_a_per_cent_sign_is_a_unit_or_a_hundredth_and_is_never_guessed(
    reference: str, answer: str, reward: float
) -> None:
    assert judge(reference, rf"\boxed{{{answer}}}") == Verdict(status="ok", reward=reward)
    slow = math_verify_verdict(Comparison(reference=normalise(reference), answer=normalise(answer)))
    assert slow.reward == reward


def test_a_factor_of_a_hundred_only_when_asked_for() -> None:
    options = MathConfig(times_hundred=True)
    for reference, answer in (("0.5", "50"), ("50", "0.5"), ("1/4", "25%"), ("20", "2000")):
        assert judge(reference, rf"\boxed{{{answer}}}", options=options).reward == 1.0
    assert judge("20", r"\boxed{200}", options=options).reward == 0.0
    assert judge("0.5", r"\boxed{50}").reward == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "2+2",
            "8-4",
            r"2 \times 2",
            "(150 * 2) - 296",
            "2^2",
            r"\sqrt{16}",
            r"\binom{4}{1}",
            "x = 2+2",
            "2+2 apples",
            "[2+2]",
        ),
        *(r"\text{total} = 2 \times 2", r"2 \cdot 2 \text{ m}", r"\displaystyle 2 \cdot 2", r"\sqrt[3]{64}", "$2 + $2"),
        *(r"{4 \choose 3}", "2 + 2 + x - x", "|-4|", r"\frac{8}{1+1}"),
    ],
)
def test_arithmetic_that_was_not_worked_out(answer: str) -> None:
    assert is_arithmetic(answer)
    assert judge("4", rf"\boxed{{{answer}}}").reward == 1.0
    verdict = judge("4", rf"\boxed{{{answer}}}", options=MathConfig(unevaluated=False))
    assert verdict == Verdict(status="ok", reward=0.0, detail="arithmetic that was not worked out")


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("6000", r"6 \times 10^3"), ("1000000", "10^6"), ("6000", r"6 \cdot 10^{3} \text{ m}"), ("5", "(5)"), ("5", "2+3 = 5"),
        ("5", r"5^\circ"), ("5", r"5 \text{ m}^2"), ("5", "5 km/h"), ("1/2", r"The probability is \frac{1}{2}"), ("-5", "-5"),
        ("5", r"\{5\}"), ("5", "She has 5 apples left"),
    ],
)  # fmt: skip
def test_what_is_no_arithmetic(reference: str, answer: str) -> None:
    assert not is_arithmetic(normalise(answer))
    assert judge(reference, rf"\boxed{{{answer}}}", options=MathConfig(unevaluated=False)).reward == 1.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("3", r"\sum_{i=1}^{2} i"), ("1", r"\int_0^1 2x dx"), ("3", r"\log_2 8"), ("6", r"\prod_{i=1}^{3} i"), ("3", r"\gcd(6,9)"),
     ("1", r"\lim_{x\to 0} (x+1)"), ("1", r"\sin(\frac{\pi}{2})")],
)  # fmt: skip
def test_the_question_again_is_a_calculation_too(reference: str, answer: str) -> None:
    assert judge(reference, rf"\boxed{{{answer}}}").reward == 1.0
    assert judge(reference, rf"\boxed{{{answer}}}", options=MathConfig(unevaluated=False)).reward == 0.0


@pytest.mark.parametrize("answer", [r"\neq 5", r"\ne 5", "\u2260 5", r"x \neq 5", "!= 5", r"\not= 5"])
def test_unequal_is_not_equal(answer: str) -> None:
    assert judge("5", rf"\boxed{{{answer}}}").reward == 0.0
    assert judge(r"x \neq 5", r"\boxed{x \neq 5}").reward == 1.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("4", "4"), ("4", "2+2 = 4"), ("1/2", r"\frac{2}{4}"), (r"2\sqrt{2}", r"\sqrt{8}"), ("2^{10}", "2^{10}")],
)
def test_what_is_worked_out_stays_right(reference: str, answer: str) -> None:
    assert judge(reference, rf"\boxed{{{answer}}}", options=MathConfig(unevaluated=False)).reward == 1.0


def test_an_answer_without_end_is_not_read() -> None:
    verdict = fast_verdict("5", r"\boxed{" + "(" * 3000 + "}")
    assert isinstance(verdict, Verdict)
    assert verdict.status == "unparsed"
    assert "has 3000 characters, more than 2000 are not read" in verdict.detail
