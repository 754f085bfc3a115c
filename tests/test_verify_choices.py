"""Letters of multiple choice, in their many forms."""

from __future__ import annotations

import pytest

from prmkit.config import MathConfig
from prmkit.data.types import Verdict
from prmkit.verify.choices import Choice, read_choice
from prmkit.verify.math import judge


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("B", Choice(letter="B")),
        ("(B)", Choice(letter="B")),
        ("(b)", Choice(letter="B")),
        ("B.", Choice(letter="B")),
        (r"\text{B}", Choice(letter="B")),
        (r"\textbf{(B)}", Choice(letter="B")),
        (r"(\mathrm{B})", Choice(letter="B")),
        ("(C) Cecile", Choice(letter="C", text="Cecile")),
        ("C. 15 km", Choice(letter="C", text="15 km")),
        (r"\textbf{(C)}\ 15", Choice(letter="C", text=r"15")),
        ("C Cecile", Choice(letter="C", text="Cecile")),
        ("A dog", None),
        ("A:B=1", None),
        ("E = mc^2", None),
        ("x", None),
        ("b", None),  # a variable
        ("BC", None),
        ("K", None),
        (r"(A) \cup (B)", None),
        ("(A)(B)", None),
        ("5", None),
        ("A: 5, B: 6", None),
        ("(A) 5, (B) 6", None),
        ("(D) both (A) and (B)", Choice(letter="D", text="both (A) and (B)")),
        ("(D) Smith, J. and Lee", Choice(letter="D", text="Smith, J. and Lee")),
    ],
)
def test_which_option_an_answer_is(answer: str, choice: Choice | None) -> None:
    found = read_choice(answer)
    assert (found and (found.letter, found.text.lstrip("\\ "))) == (choice and (choice.letter, choice.text))


RIGHT = [
    r"\boxed{B}", r"\boxed{\text{(B)}}", r"\boxed{\textbf{(B)}\ 15}", "The answer is B.", "The answer is (B).", "Answer: B",
    "**Answer: B**", "The correct answer is option B.", "The answer is B because it fits.", "#### B", "B", "(B)", "b", "B) 15",
    "It's not A because it makes no sense, therefore I think it's B", "So the correct option is B.", "I choose B.",
    "The answer: B, it makes no sense for it to be A or C", '{"answer": "B"}', "答案是B\u3002", "La réponse est B",
    "Die Antwort ist B.", "The answer is **B**.", "answer is 'B'",
]  # fmt: skip


@pytest.mark.parametrize("response", RIGHT)
def test_the_letter_is_found(response: str) -> None:
    assert judge("B", response) == Verdict(status="ok", reward=1.0)
    assert judge("(C)", response) == Verdict(status="ok", reward=0.0)


LISTS = [
    r"\boxed{A, B, C, D}", r"\boxed{A}, \boxed{B}", r"\boxed{(A)(B)(C)(D)}", r"\boxed{A \text{ or } B}", r"\boxed{A\ B}",
    r"\boxed{\text{A} \quad \text{B}}", "The answer is A/B/C/D.", "The answer is A, B, C or D.", "The answer is A or B",
    "Answer: A; B; C", "Answer: **A** | **B**", "#### A, B", "Die Antwort ist A oder B.", r"\boxed{(A) 5, (B) 6}",
    "So it is A or B.", "I think it must be (A), (B).",
]  # fmt: skip


@pytest.mark.parametrize("response", LISTS)
def test_a_list_of_options_chooses_none(response: str) -> None:
    for reference in ("A", "B", "(A) 5"):
        assert judge(reference, response).reward == 0.0


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("B", "The answer is B, C and D are wrong."),
        ("A", "The answer is A, I believe."),
        ("B", "The answer is B. A is wrong."),
        ("B", r"\boxed{B}, \boxed{B}"),
        ("D", "The answer is (D) Both (A) and (B)."),
        ("(D) Both (A) and (B)", r"\boxed{(D)}"),
        ("(C) A and B", r"\boxed{A and B}"),  # by the option's text
        ("A, C", r"\boxed{C, A}"),  # two are asked for
    ],
)
def test_other_letters_beside_the_chosen_one_are_no_list(reference: str, response: str) -> None:
    assert judge(reference, response).reward == 1.0


@pytest.mark.parametrize(
    ("reference", "response", "reward"),
    [
        ("(C) Cecile", r"\boxed{Cecile}", 1.0),  # by the option's text
        ("(C) Cecile", r"\boxed{C}", 1.0),
        ("(C) Cecile", r"\boxed{B}", 0.0),
        ("Alina and the answer is\n(C) Cecile", "C", 1.0),
        ("B", "A dog and B are here", 0.0),
        ("B", r"\boxed{5}", 0.0),
        ("A", r"\boxed{A dog}", 0.0),
        ("B", "I answered nothing", 0.0),
        ("B", "<think>so it is B</think>The answer is C.", 0.0),
        ("B", "<think>so it is C</think> So it is B.", 1.0),
    ],
)
def test_options_with_texts(reference: str, response: str, reward: float) -> None:
    assert judge(reference, response).reward == reward


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("So the answer cannot be B.", ""),
        ("Therefore the correct choice is definitely not B.", ""),
        ("So it isn't B.", ""),
        ("Thus we eliminate B.", ""),
        ("We rule out A. So not B.", ""),
        ("The correct choice is C. So it isn't B.", "C"),
        ("I pick C rather than B.", "C"),
        ("So it must be C instead of B.", "C"),
        ("I choose A over B.", "A"),
        ("The correct option is C, not B.", "C"),
    ],
)
def test_a_letter_that_is_ruled_out_is_not_chosen(response: str, letter: str) -> None:
    assert [one for one in "ABC" if judge(one, response).reward == 1.0] == list(letter)


def test_the_last_letter_counts_when_asked() -> None:
    assert judge("B", "Not C, more like B") == Verdict(status="ok", reward=0.0, detail="no answer")
    assert judge("B", "Not C, more like B", options=MathConfig(last_number=True)).reward == 1.0
    assert judge("A", "B is wrong. A man came.", options=MathConfig(last_number=True)).reward == 0.0
