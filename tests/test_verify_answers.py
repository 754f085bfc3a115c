"""Finding the final answer in a response, and reading plain numbers."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from prmkit.verify.answers import extract_answer, normalise, read_number, same_text

EXTRACTION = [
    (r"so \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{1}, no: \boxed{2}.", "2"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed {7}", "7"),
    (r"\fbox{8}", "8"),
    (r"\boxed{3} and then \boxed{4", "3"),  # cut off: the box that is closed
    (r"a } and { b \boxed{9}", "9"),
    (r"\boxed{}", None),
    (r"\boxed{} The answer is 5.", "5"),
    (r"So there are 4. The answer is \boxed{}.", None),  # no answer, and not one that cannot be read
    (r"#### 624" + "\n" + r"The answer is $\boxed{ }$.", "624"),
    (r"$\boxed{}$", None),
    ("#### 42\n\n## 2 Check the result\nfine", "42"),
    ("The answer is 42.\n\n### 3 Notes", "42"),
    ("# 7", "7"),
    (r"The answer is \frac{1}{2}.", r"\frac{1}{2}"),
    (r"**Answer:** \sqrt{2}", r"\sqrt{2}"),
    ("The answer is $30 + $20.", "$30 + $20"),
    ("#### 7\n" + r"\boxed{6}", "6"),  # the box wins
    ("5 + 5 = 10\n#### 10", "10"),
    ("#### 1,234", "1,234"),
    ("#### -3.5", "-3.5"),
    ("#### 12 apples", "12 apples"),
    ("#### 4\n\nQuestion: ...\n#### 5", "5"),
    (r"#### $\frac12$", r"$\frac12$"),
    ("3+8=11;11+5=16#16", "16"),
    ("3+8=11#11;11+5=16#16", "16"),
    ("3+8=11;11+5=16", None),
    ("#", None),
    ("##16", "16"),
    ("#3+8+5", None),  # the question again is not its answer
    ("#16+", None),
    ("# Plan\n## 1. Add\n### Sum\n5", None),  # headings
    ("#### Step 2\nThe answer is 5.", "5"),
    ("The answer is 5.\n#### 6", "6"),  # whichever comes last
    ("#### 6\nThe answer is 5.", "5"),
    ("The answer is 3.5.", "3.5"),
    ("The final answer is: 12 apples. I hope it is correct", "12 apples"),
    ("The answers are 1 and 2.", "1 and 2"),
    ("The answer to the question is **7**.", "7"),
    ("**Final Answer:** $5$", "5"),
    ("**Answer**: 5", "5"),
    ("Answer:\n$$\n42\n$$\nDone.", "42"),
    (r"the answer is \(x + 1\), so", "x + 1"),
    ("the answer is $x=1$ or $x=2$.", "$x=1$ or $x=2$"),
    ("The answer is 5 because 2+3=5.", "5"),
    ("The answer is $5.", "$5"),
    ("The answer is", None),
    ("I answered 5", None),
    ("It takes 42 days", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), EXTRACTION)
def test_final_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It takes 42 days, not 41.", "41"),
        ("12% of 1,200 is 144 h", "144"),
        ("x2 is no number, -3/4 is", "-3/4"),
        ("none", None),
        (r"\boxed{1} 2", "1"),
    ],
)
def test_last_number_counts_when_asked(text: str, answer: str | None) -> None:
    assert extract_answer(text, last_number=True) == answer


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (r"$\dfrac{1}{2}$.", r"\frac{1}{2}"),
        (r"\(\tfrac12\)", r"\frac12"),
        (r"$$ 5 $$", "5"),
        (r"**5**", "5"),
        (r"1\,000", "1000"),
        (r"1,\!000", "1,000"),
        (r"1{,}000", "1,000"),
        ("12 000 000", "12000000"),
        ("1 2", "1 2"),
        ("2 1/3", r"2\frac{1}{3}"),  # 21/3 would be another number
        (r"\left( 1, 2 \right)", "( 1, 2 )"),
        (r"\leftarrow", r"\leftarrow"),
        ("\u22125", "-5"),
        (r"50\%", "50%"),
        (r"1 \\ 2", r"1 \\ 2"),  # a new row of a matrix
        (".", ""),
        ("5!", "5!"),
        ("Even", "Even"),
    ],
)
def test_spelling(answer: str, plain: str) -> None:
    assert normalise(answer) == plain
    assert normalise(plain) == plain


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (r"\text{Evelyn}", "Evelyn", True),
        ("x + 1", "x+1", True),
        ("x y", "xy", False),
        ("1, 2", "1,2", False),  # left to math-verify: 1,234 is a number, 1, 234 is a pair
        ("even", "Even", False),
        (r"\text{13}", "13", False),
    ],
)
def test_same_text(a: str, b: str, same: bool) -> None:
    assert same_text(a, b) is same


NUMBERS = [
    ("5", Fraction(5)), ("-5", Fraction(-5)), ("- 5", Fraction(-5)), ("+5", Fraction(5)), ("007", Fraction(7)),
    ("1,234,567", Fraction(1234567)), ("1,234.50", Fraction(2469, 2)), (".5", Fraction(1, 2)), ("-0.25", Fraction(-1, 4)),
    ("1/2", Fraction(1, 2)), ("-3/4", Fraction(-3, 4)), (r"\frac{1}{2}", Fraction(1, 2)), (r"\frac12", Fraction(1, 2)),
    (r"-\frac{-1}{2}", Fraction(1, 2)), ("$5", Fraction(5)), ("-$5", Fraction(-5)), ("$-5", Fraction(-5)),
    ("\u20ac5", Fraction(5)), ("5 $", Fraction(5)), ("9%", Fraction(9)), ("9 percent", Fraction(9)),
    ("42 apples", Fraction(42)), ("3 square feet", Fraction(3)), (r"3 \text{ cm}", Fraction(3)),
    (r"3\mathrm{~cm}^2", Fraction(3)), (r"3 \text{cm}^{3}", Fraction(3)), ("5 cm^2", Fraction(5)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_plain_number(text: str, value: Fraction) -> None:
    number = read_number(text)
    assert number is not None
    assert number.value == value
    assert number.percent is ("%" in text or "percent" in text)


@pytest.mark.parametrize(
    "text",
    ["", "-", "$", "%", "apples", "1/0", r"\frac{1}{0}", "5 x", "5x", "5^2", "2^{3}",
     "5 million", "5 hundred", "2 pi", "3 halves", r"5 \text{ million}", "--5", "-$-5", "1.2.3", "1e5", "3+8", "12 and 13",
     "1/2/3", "0.1234567890123456", "1" * 5000, "\u0663", "5m", "3h", "5\u03c0", "5 mil", "5\u4e07",
     r"3\frac{5}{2}", "5 more", "1.234.56", "1'23"],
)  # fmt: skip
def test_not_a_plain_number(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    "text",
    [" " * 100_000, "answer" + " " * 100_000, "answer is " * 10_000 + "\\(", "\\boxed{" * 20_000, "#" * 100_000,
     "# " * 20_000, "the answer is " + "$" * 100_000, "the answer is " + "\\(" * 50_000, "answer to " + "a " * 50_000,
     "\\boxed{" + "{" * 50_000 + "}" * 50_001, "\\boxed{" + "`" * 20_000 + "}", "1," * 50_000, "answer: " + "* " * 50_000],
    ids=lambda text: text[:14],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    normalise(extract_answer(text, last_number=True) or "")
    assert time.process_time() - start < 1.0
