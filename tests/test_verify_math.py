"""Equality of answers: the fast path alone, and against math-verify."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from math_verify import parse, verify

from prmkit.config import MathConfig
from prmkit.data.types import Verdict
from prmkit.verify.answers import normalise, read_number
from prmkit.verify.math import Comparison, fast_equal, fast_verdict, judge, math_verify_verdict


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("16", "16", True),
        ("16", "17", False),
        ("1234", "1,234", True),
        ("1234", "$1,234.00", True),
        ("18", "18 dollars", True),
        ("0.5", r"\frac{1}{2}", True),
        ("2/4", r"\dfrac12", True),
        ("1/3", "0.33", False),
        ("1/3", "0.333333", None),  # equal once rounded to 6 places: math-verify has to say
        ("0.1", "0.10000001", None),
        ("1000000000000000000001", "1000000000000000000000", False),
        ("20", "20%", True),
        ("20%", "20%", True),
        ("20%", "30%", False),
        ("0.2", "20%", True),  # its value
        ("12.5", "12.5%", True),  # the sign as a unit
        ("12.5%", "12.5", True),
        ("1/2", "0.5%", True),
        ("0.005", "1/2 %", True),
        ("20", "0.2%", False),
        ("20", "0.2", False),  # no factor of 100
        ("20", "2000", False),
        ("0.5", "50", False),
        ("x+1", "x + 1", True),
        ("x+1", "1+x", None),
        ("16", "x", None),
        (r"\text{Evelyn}", "Evelyn", True),
        ("1000", "1 000", True),
        ("5 million", "5", None),
        ("70", "50 + 20 = 70 dollars", True),
        ("70", "50 + 20 = 80", False),
        ("5", "2x = 5", True),
        ("5", "x <= 5", None),
        ("5", "x = 1, y = 5", None),
        ("x = 5", "5", True),
        ("x = 5", "x = 5.0", True),
        ("x = 5", "y = 5", None),
    ],
)
def test_fast_path(reference: str, answer: str, same: bool | None) -> None:
    assert fast_equal(normalise(reference), normalise(answer)) is same


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (r"\boxed{\$10 + \$2}", "12"),
        (r"\boxed{\$20, \$30}", "20, 30"),
        ("The answer is between $20 and $30.", ""),
        (r"\boxed{\$5 million}", ""),
        ("The answer is $30 - $20.", "10"),
        ("The answer is $5$.", "5"),
        (r"\boxed{A cow is 2 * $5 = $10. So he spent $10 + $2 = $12 in total.}", "12"),
    ],
)
def test_prices_are_no_formulas(answer: str, right: str) -> None:
    references = ("2", "5", "10", "12", "20", "30", "20, 30")
    assert [one for one in references if judge(one, answer).reward == 1.0] == ([right] if right else [])


@pytest.mark.parametrize(
    "answer",
    [
        "5 xy",
        "5 alpha",
        "5 dx",
        "5 sinx",
        "5 factorial",
        "5 choose two",
        "5 bn",
        "5 lakh",
        "5 ninths",
        r"5 \text{ sevenths}",
    ],
)
def test_what_is_no_unit_is_not_dropped(answer: str) -> None:
    assert read_number(answer) is None
    assert judge("5", rf"\boxed{{{answer}}}").reward == 0.0


def test_short_units_are_dropped() -> None:
    for unit in ("kWh", "lbs", "ft", "mph", "tbsp", "KSH", "sq ft", "km/h", "lb"):
        assert judge("5", rf"\boxed{{5 {unit}}}").reward == 1.0, unit


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is that x is negative 25.",
        "The answer is the square root of 25.",
        "The answer is the reciprocal of 25.",
        "The answer is one out of 25.",
        r"\boxed{a multiple of 25}",
        r"\boxed{\text{all numbers except } 25}",
    ],
)
def test_words_that_make_it_another_number(answer: str) -> None:
    """Stricter than math-verify, which takes the number."""
    assert judge("25", answer).reward == 0.0


def test_negative_in_words_is_a_sign() -> None:
    for answer in (r"\boxed{\text{negative } 5}", "The answer is negative 5.", "#### negative 5"):
        assert [judge(reference, answer).reward for reference in ("-5", "5")] == [1.0, 0.0], answer
    assert judge("5", "The answer is 5 negative integers.").reward == 1.0


SPELLINGS = [
    "0", "-0", "5", "+5", "- 5", "007", "7", "5.", "5.0", "5.00", ".5", "0.5", "1/2", "2/4", r"\frac12", r"\dfrac{1}{2}",
    r"-\frac{1}{2}", r"\frac{-1}{2}", "-0.5", "1,000", "1000", "1{,}000", r"1,\!000", "1000.0", r"\$5", "$5$", "1,234.50",
    "1234.5", "9", r"9\%", "9%", "0.09", r"9.0\%", "9.5", r"9.5\%", "28 percent", "28", "0.28", "1/3", "0.333333", "0.3333",
    "0.33", "1/128", "0.0078125", "0.007812", r"5\text{ cm}", "5 km", "3 hours", "3", "100000000000000000001",
    "100000000000000000000", "1e5", "5 1/2", r"5\frac12", "11/2", "x = 5", "2+3 = 5", "10/2 = 5.0", "(x+1)^2 = 9",
]  # fmt: skip


def one_percent(a: str, b: str) -> bool:
    return ("%" in a or "percent" in a) != ("%" in b or "percent" in b)


def test_fast_path_never_contradicts_math_verify() -> None:
    """Every third pair of spellings: where exact arithmetic decides, so does math-verify, on the raw text and on ours."""
    decided = 0
    raw = {text: parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in SPELLINGS}
    for a, b in itertools.islice(itertools.product(SPELLINGS, SPELLINGS), 0, None, 3):
        fast = fast_equal(normalise(a), normalise(b))
        if fast is None:
            continue
        decided += 1
        slow = math_verify_verdict(Comparison(reference=normalise(a), answer=normalise(b)))
        assert slow.reward == float(fast), (a, b, slow)
        if not {"5.", "5 1/2"} & {a, b} and not one_percent(
            a, b
        ):  # it misreads the two; one sign is decided on purpose
            assert verify(raw[a], raw[b], timeout_seconds=None) is fast, (a, b)
    assert decided > 700


# cases from Math-Verify tests, Apache-2.0
MATH_VERIFY_CASES = [
    ("-5", "-5", True),
    ("1000.99", "$1,000.99", True),
    ("1000.99", "1,000.99$", True),
    ("0.4", ".4", True),
    ("0,111", "0.111", True),
    ("1000", "1 000", True),
    ("$10$", r"\( (9+1) \)", True),
    ("$1/3$", r"$\frac13 $", True),
    ("$1/3$", r"$\cfrac{1}{3} $", True),
    ("$1/3$", r"$\left( \frac{1}{3} \right)$", True),
    ("$1/3$", r"$\frac{1}{3} \textbf{meters}$", True),
    (r"$28\%$", "28 percent", True),
    (r"$28\%$", "28 pct", True),
    (r"$\frac{9}{4}\pi$", r"\frac94\pi", True),
    ("$x > 5$", "$x < 5$", False),
    (r"$x \leq 5$", r"$5 \geq x$", True),
    ("$1/3$", r"$x=1/3\approx1.3$", True),
    ("$x < 1$", "$-x > -1$", True),
    ("$a +3z = 0$", "$0$", False),
    (r"$\frac{1}{12}$", "$0.0833333333333333$", True),
    (r"$(1,\frac{9}{2})$", "$(1,4.5)$", True),
    ("$34x+45y-20z+100=0$", "$-34x-45y+20z-100=0$", True),
    ("$(a+5)(b+2)$", "$(+5)(b+2)$", False),
    ("$2$", r"$\frac{1+\sqrt{5}}{2}$", False),
    ("$x+2n+1$", "$x+1$", False),
    (r"$4$", r"$4\sqrt{2}$", False),
    ("$(p,q)=(3,2)$", "$(3,2)$", True),
    (r"$-12;-11;-10;-8;-7;-6$", r"\{-12, -11, -10, -8, -7, -6\}", True),
    ("$AB=4,CD=5$", "4, 5", True),
    (r"\boxed{x = -5,\ p = \frac{14}{3}}", r"-5, \frac{14}{3}", True),
    ("$0<f(x)<1$", "$(0,1)$", True),
    (r"\(\boxed{6 \text{ and } 8}\)", "6,8", True),
    (r"$\text{Even}$", "$Even$", True),
    ("$d$", r"$\text{E}$", False),
    (r"$$(1, +\infty)$$", r"$$(1, +\infty)$$", True),
    (r"$\{1\pm\sqrt{5},-2\}$", r"\{1\pm\sqrt{5},-2\}", True),
]


@pytest.mark.parametrize(("reference", "answer", "equal"), MATH_VERIFY_CASES)
def test_cases_of_math_verify(reference: str, answer: str, equal: bool) -> None:
    assert judge(reference, rf"So it is \boxed{{{answer}}}.").reward == float(equal)


@pytest.mark.parametrize(("reference", "answer", "equal"), MATH_VERIFY_CASES)
def test_both_paths_agree_on_the_cases_of_math_verify(reference: str, answer: str, equal: bool) -> None:
    a, b = normalise(reference), normalise(answer)
    fast, slow = fast_equal(a, b), math_verify_verdict(Comparison(reference=a, answer=b))
    assert fast is None or slow.reward == float(fast)


@pytest.mark.parametrize(
    ("reference", "response", "reward"),
    [
        ("5 + 5 = <<5+5=10>>10\n#### 10", "She has 10.\n#### 10", 1.0),  # GSM8K's reference is a worked solution
        (r"We get \boxed{14{,}916}.", "The answer is 14916.", 1.0),
        ("16", "3+8=11;11+5=16#16", 1.0),
        ("16", "3+8=1;1+5=6#6", 0.0),
        ("5", "The answer is 5, which is 2+3.", 1.0),
        ("x=5", r"\boxed{5}", 1.0),
        ("90^\\circ", r"\boxed{90}", 1.0),
        ("1/2", "The answer is the sum 1/2", 1.0),
    ],
)
def test_judges_responses(reference: str, response: str, reward: float) -> None:
    assert judge(reference, response) == Verdict(status="ok", reward=reward)


def test_a_response_without_answer_is_decided() -> None:
    assert judge("5", "2+3 makes 5") == Verdict(status="ok", reward=0.0, detail="no answer")
    assert judge("5", r"\boxed{.}") == Verdict(status="ok", reward=0.0, detail="no answer")
    assert fast_verdict("5", "2+3 makes 5", options=MathConfig(last_number=True)) == Verdict(status="ok", reward=1.0)


EMPTY = ["", " ", "$$", ".", "?", "-", "{}", r"\text{}", r"\text{ }", r"\boxed{}", r"\mathrm{?}", "___"]


@pytest.mark.parametrize(
    ("reference", "response", "reward"),
    [(r"\{\}", r"\boxed{\{\}}", 1.0), (r"\emptyset", r"\boxed{\emptyset}", 1.0), ("-x", r"\boxed{-x}", 1.0),
     (r"\infty", r"\boxed{5}", 0.0), ("-.5", r"\boxed{-1/2}", 1.0)],
)  # fmt: skip
def test_what_only_looks_empty_is_a_reference(reference: str, response: str, reward: float) -> None:
    assert judge(reference, response).reward == reward


@pytest.mark.parametrize(
    ("reference", "response", "detail"),
    [
        *((nothing, rf"\boxed{{{nothing}}}", "the reference answer is empty") for nothing in EMPTY),
        ("((((", r"\boxed{5}", "the reference '((((' cannot be read"),
        ("5", r"\boxed{16+}", "the answer '16+' cannot be read"),
        ("x+1", "The answer is quite unclear", "the answer 'quite unclear' cannot be read"),
        ("5", "\\boxed{\u65e5\u672c}", "the answer '\u65e5\u672c' cannot be read"),
    ],
)
def test_what_cannot_be_read_is_unparsed(reference: str, response: str, detail: str) -> None:
    assert judge(reference, response) == Verdict(status="unparsed", reward=None, detail=detail)


def test_math_verify_gets_the_number_that_was_read() -> None:
    """As LaTeX, `5 dollars` would be a product of variables."""
    assert read_number("5 dollars") is not None
    assert math_verify_verdict(Comparison(reference="5", answer="5 dollars")).reward == 1.0
    assert math_verify_verdict(Comparison(reference="0.333333", answer="1/3 miles")).reward == 1.0


def test_importing_the_verifiers_is_light() -> None:
    code = "import sys, prmkit.verify; print(sorted({'torch', 'sympy', 'math_verify', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# The ends of published outputs, with the verdict of their file and who is wrong, as benchmarks/labels_by_hand.json says.
PUBLISHED = [
    ("130", "He earned 10 * 8 = 80 dollars. The answer is 50 + 80 = 130 dollars.", False, "the file"),
    (
        "3",
        "He sells 25 ears of corn for$3 each. So he has 25 x$3 = $75. He has 25 ears of corn. So he",
        True,
        "the file",
    ),
    (r"10{,}000", r"Therefore, the value is \(\boxed{10000}\).", False, "the file"),
    ("9500", r"This is $9 500 above the budget. \boxed{$9 500}", False, "the file"),
    ("106", r"The sum is 106. \boxed{128 - 24 + 2 = 106}", False, "the file"),
    ("0", r"\boxed{-2 + 5 - 3 = -0}", False, "the file"),
    ("4", r"This week she bought 4 more boxes. \boxed{8-4}", False, "a convention"),
    ("65,960", r"\boxed{490 * 194 - 150 * 194}", False, "a convention"),
]


@pytest.mark.parametrize(("reference", "response", "label", "wrong"), PUBLISHED)
def test_where_a_published_verdict_is_wrong(reference: str, response: str, label: bool, wrong: str) -> None:
    assert judge(reference, response).reward == float(not label)
    strict = judge(reference, response, options=MathConfig(unevaluated=False)).reward
    assert strict == (float(label) if wrong == "a convention" else float(not label))


VALUES = [
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4.0 \end{bmatrix}", True),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", False),
    (r"(-\infty, 2] \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2]", True),
    (r"(-\infty, 2] \cup (3, \infty)", r"(-\infty, 2) \cup (3, \infty)", False),
    ("[1, 2)", "[1, 2]", False),
    (r"x \in [1, 2)", "[1,2)", True),
    (r"\{1, 2, 3\}", r"\{3, 2, 1\}", True),
    (r"\{1, 2, 3\}", r"\{1, 2\}", False),
    (r"1, -3", r"x = 1 \text{ or } x = -3", True),
    ("5", r"5 \text{ cm}^2", True),
    (r"12.5\%", r"12.5\text{ percent}", True),
    ("0.125", r"12.5\text{%}", True),
    ("0.125", r"12.5 \mathrm{per cent}", True),
    (r"12.5\text{ percent}", "12.6%", False),
    ("0.125", r"12.5\text{ percent points}", False),
]


@pytest.mark.parametrize(("reference", "answer", "equal"), VALUES)
def test_matrices_intervals_sets_and_several_answers(reference: str, answer: str, equal: bool) -> None:
    assert judge(reference, rf"So it is \boxed{{{answer}}}.").reward == float(equal)
