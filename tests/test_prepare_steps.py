"""Steps of `prmkit data prepare` that look at one record: wording, answers, multiple choice, and one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prepare_setup import is_linear, kept, reasons, record, verifier

from prmkit.config import ModelConfig
from prmkit.curate.answers import answer_step, check_answers
from prmkit.curate.choices import choices_step, find_options
from prmkit.curate.config import AnswerConfig, ChoicesConfig, DifficultyConfig, PrepareConfig, RulesConfig
from prmkit.curate.record import Outcome, Record
from prmkit.curate.rules import rules_step
from prmkit.curate.steps import own_step
from prmkit.data.types import Message, Verdict
from prmkit.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("question", "ours", "prime"),
    [
        ("In the figure, what is $x$?", "figure", "prime_figure"),
        ("What is the area of the shaded figure?", "figure", "prime_figure"),
        ("The points in figure 3 are joined. How many lines are there?", "figure", "prime_figure"),
        ("Ann figures out how tall Bo is. How tall?", None, "prime_figure"),
        ("Jo has 8 action figures and sells 3. How many are left?", None, "prime_figure"),
        ("Round to three significant figures: 3.14159", None, "prime_figure"),
        ("Its graph is shown below. What is $f(2)$?", "diagram", None),
        ("In the diagram, $ABC$ is a triangle. Find its area.", "diagram", None),
        ("How many students are there in the picture?", None, None),
        ("What are the coordinates of the image of the point $A$?", None, None),
        ("The first rows are shown below. What is next? \\begin{array}{c} 1 \\\\ 2 \\end{array}", None, None),
        ("The graph of $y=f(x)$ is a line. What is its slope?", None, None),
        ("What is $AB$? [asy] draw((0,0)--(1,1)); [/asy]", "image", None),
        ("Prove that $n^2 \\ge n$.", "proof", "prime_proof"),
        ("Sales improve by 5% a year. By how much in two years?", None, "prime_proof"),
        ("$2 + 3 =$ \\underline{\\hspace{1cm}}.", "blank", "prime_blank"),
        ("$2 + 3 =$ \\underline{\\quad\\quad}.", "blank", "prime_blank"),
        ("The number \\underline{1} \\underline{A} is prime. Find A.", None, "prime_blank"),
        ("The capital of France is ____.", "blank", None),
    ],
)
def test_rules_mean_what_the_papers_rules_spell(question: str, ours: str | None, prime: str | None) -> None:
    found = reasons(rules_step(RulesConfig())([record(question)])).get(question)
    assert found == ours
    use = ("prime_figure", "prime_proof", "prime_blank")
    assert reasons(rules_step(RulesConfig(use=use))([record(question)])).get(question) == prime


@pytest.mark.parametrize("part", ["a ", "shown ", "the ", " ", "(", "table is "])
def test_rules_take_linear_time(part: str) -> None:
    assert is_linear(lambda count: rules_step(RulesConfig())([record(part * count)]), 4_000)


@pytest.mark.parametrize(
    "question",
    [
        "a{}b",
        "(A) 1 (B) 2 (C) q{}q",
        "(A) x (B) y{} (C) z",
        "(A) 1{}(B) 2 (C) 3",
        "A. 1\n{}B. 2\nC. 3",
    ],
)
@pytest.mark.parametrize("part", [" ", "\n", "\t ", ",", "\\quad", "\\quad ", "A) ", "(", "$"])
def test_finding_options_takes_linear_time(question: str, part: str) -> None:
    assert is_linear(lambda count: find_options(question.format(part * count)), 2_000)


@pytest.mark.parametrize(
    ("question", "dropped"),
    [
        ("The table shown below has two rows.", None),
        ("The shape shown below has a name.", "diagram"),
        ("Given are the numbers drawn below: \\begin{array}{c} 1 \\end{array}", None),
        ("\\begin{array}{c} 1 \\end{array} What is pictured here?", "diagram"),
    ],
)
def test_what_is_shown_may_be_text(question: str, dropped: str | None) -> None:
    assert reasons(rules_step(RulesConfig())([record(question)])).get(question) == dropped


def test_blank_questions_and_rows_without_any_answer_go_whatever_the_rules() -> None:
    rows = [record(" ", name="a"), record("Q?", "", name="b"), record("Q?", "", name="c", solution=r"\boxed{2}")]
    outcome = rules_step(RulesConfig(use=()))(rows)
    assert reasons(outcome) == {"a": "empty_question", "b": "empty_answer"}
    assert kept(outcome) == ["c"]


def test_own_rules() -> None:
    outcome = rules_step(RulesConfig(own=("money=dollars?|\\$\\d",)))([record("It costs $5.", name="a"), record("5?")])
    assert reasons(outcome) == {"a": "money"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (RulesConfig(use=("figur",)), 'rules.use: "figur" is no rule; did you mean "figure"'),
        (RulesConfig(own=("dollars",)), "write it as name=regex"),
        (RulesConfig(own=("open=(",)), "'(' is no regular expression"),
    ],
)
def test_rules_that_cannot_be_used(rules: RulesConfig, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules_step(rules)
    assert message in str(caught.value)


ANSWERS = [
    record("a", "5"),
    record("b", r"\frac{1}{2}"),
    record("c", "the set of all primes"),
    record("d", "x" * 201),
    record("e", r"\frac{1}{"),
    record("f", "B"),
]


def test_answers_that_no_response_could_match_are_dropped() -> None:
    outcome = answer_step(AnswerConfig(), verifier())(ANSWERS)
    assert kept(outcome) == ["a", "b", "f"]
    assert reasons(outcome) == {"c": "answer_unreadable", "d": "long_answer", "e": "answer_not_itself"}
    assert kept(answer_step(AnswerConfig(probe=False, most_characters=0), verifier())(ANSWERS)) == [
        "a",
        "b",
        "c",
        "d",
        "f",
    ]


def test_an_answer_that_the_verifier_cannot_decide_is_not_called_wrong() -> None:
    class Broken:
        def verify(self, responses: Any) -> list[Verdict]:
            return [Verdict(status="timeout", reward=None, detail="5 s") for _ in responses]

    (found,) = check_answers([record("a", "5")], AnswerConfig(), Broken())
    assert not isinstance(found, Record)
    assert (found.reason, "timeout: 5 s" in found.detail) == ("answer_undecided", True)


def solved(name: str, answer: str, solution: str, **more: Any) -> Record:
    return record(more.pop("question", f"{name}?"), answer, name, solution=solution, **more)


SOLVED = [
    solved("agrees", "0.5", r"so \boxed{\frac{1}{2}}"),
    solved("hashes", "7", "3 + 4 = 7\n#### 7"),
    solved("differs", "5", r"so \boxed{6}"),
    solved("unmarked", "5", "clearly five"),
    solved("phrase", "5", "The answer is 6."),
    solved("taken", "", r"so \boxed{12}"),
    solved("nothing", "", "clearly five"),
    solved("unread", "5", r"so \boxed{\min \{-m,-n}"),
]


@pytest.mark.parametrize(
    ("config", "dropped"),
    [
        (AnswerConfig(), {"differs": "solution_disagrees"}),
        (
            AnswerConfig(solution="require"),
            {"differs": "solution_disagrees", "unmarked": "no_answer_in_solution", "phrase": "no_answer_in_solution"},
        ),
        (AnswerConfig(solution="ignore"), {}),
        (AnswerConfig(phrases=True), {"differs": "solution_disagrees", "phrase": "solution_disagrees"}),
    ],
)
def test_solutions_and_answers(config: AnswerConfig, dropped: dict[str, str]) -> None:
    outcome = answer_step(config, verifier())(SOLVED)
    always = {"nothing": "no_answer_in_solution"}
    if config.solution != "ignore":
        found = reasons(outcome).pop("unread")
        assert found in ("solution_undecided", "solution_disagrees")
        always["unread"] = found
    assert reasons(outcome) == {**always, **dropped}
    assert [r.answer for r in outcome.kept if r.id == "taken"] == ["12"]
    assert outcome.notes["answers taken from the solution"] == 1


CHOICE = "What is $2+3$? (A) 4 (B) 5 (C) 6"


@pytest.mark.parametrize(
    ("answer", "solution", "agrees"),
    [
        ("B", r"\boxed{5}", True),
        ("5", r"\boxed{\textbf{(B)}}", True),
        ("B", r"\boxed{4}", False),
        ("B", r"\boxed{C}", False),
    ],
)
def test_a_solution_may_give_letter_or_content_of_the_rows_option(answer: str, solution: str, agrees: bool) -> None:
    outcome = answer_step(AnswerConfig(), verifier())([solved("q", answer, solution, question=CHOICE)])
    assert bool(outcome.kept) == agrees


@pytest.mark.parametrize(
    ("question", "stem", "options"),
    [
        (CHOICE, "What is $2+3$?", ["4", "5", "6"]),
        (
            r"Find $x$. $\textbf{(A)}\ 1 \qquad\textbf{(B)}\ \frac{1}{2} \qquad\textbf{(C)}\ 3$",
            "Find $x$.",
            ["1", r"\frac{1}{2}", "3"],
        ),
        (
            r"Find $x$." + "\n" + r"$\mathrm{(A) \ 7 } \qquad \mathrm{(B) \ 8 } \qquad \mathrm{(C) \ 9 }$",
            "Find $x$.",
            ["7", "8", "9"],
        ),
        ("Which?\nA. cat\nB. dog\nC. a large bird", "Which?", ["cat", "dog", "a large bird"]),
        ("Which? A) 10 m B) 12 m C) 14 m D) 16 m", "Which?", ["10 m", "12 m", "14 m", "16 m"]),
        ("Points (A) and (B) are 5 apart. Find the midpoint.", None, []),
        ("Let $f(A)=1$, $f(B)=2$. Find $f(C)$.", None, []),
        ("Let (a) x = 1 (b) y = 2 (c) z = 3. Find x+y+z.", None, []),
    ],
)
def test_options_are_found(question: str, stem: str | None, options: list[str]) -> None:
    found = find_options(question)
    assert (found and found.stem, list(found.texts.values()) if found else []) == (stem, options)


def test_options_of_a_field() -> None:
    row = {"choices": {"text": ["cat", "dog"], "label": ["A", "B"]}}
    assert find_options("Which?", row) is not None
    found = find_options("Which?", {"options": ["A)cat", "B)dog"]})
    assert found is not None
    assert dict(found.texts) == {"A": "cat", "B": "dog"}


def opened(*records: Record, **options: Any) -> Outcome:
    step = choices_step(ChoicesConfig(**options), lambda some: check_answers(some, AnswerConfig(), verifier()))
    return step(records)


def test_a_question_that_stands_by_itself_is_opened() -> None:
    (found,) = opened(record(CHOICE, "B", name="q", solution="It is B.")).kept
    assert (found.question, found.answer, found.solution) == ("What is $2+3$?", "5", None)
    assert found.found["choices"]["was"] == {"question": CHOICE, "answer": "B", "solution": "It is B."}


def test_a_rows_own_turns_lose_the_options_too() -> None:
    turns = (Message(role="system", content="Be brief."), Message(role="user", content=f"{CHOICE}\nUse a box."))
    (found,) = opened(record(CHOICE, "(B)", messages=turns)).kept
    assert found.messages is not None
    assert [m.content for m in found.messages] == ["Be brief.", "What is $2+3$?\nUse a box."]


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Which of the following is prime? (A) 4 (B) 5 (C) 6", "B", "needs_options"),
        ("Which statement is true? (A) 4>5 (B) 5>4 (C) 6<5", "B", "needs_options"),
        ("The value of $2+3$ is (A) 4 (B) 5 (C) 6", "B", "needs_options"),
        ("What is $x$? (A) 4 (B) 5 (C) none of these", "C", "option_is_no_answer"),
        ("What is $x$? (A) 4 (B) 5 (C) 6", "7", "answer_is_no_option"),
        ("What is $x$? (A) 4 (B) 5 (C) 6", "E", "answer_is_no_option"),
        ("What kind is it? (A) the set of all primes (B) not any prime (C) other", "A", "answer_unreadable"),
        ("What is $x$?", "(C)", "letter_without_options"),
    ],
)
def test_a_question_that_needs_its_options_is_dropped(question: str, answer: str, reason: str) -> None:
    assert reasons(opened(record(question, answer, name="q"))) == {"q": reason}


def test_choices_can_be_dropped_or_kept() -> None:
    rows = [record(CHOICE, "B", name="q"), record("What is $2+3$?", "5", name="open")]
    assert reasons(opened(*rows, mode="drop")) == {"q": "multiple_choice"}
    assert kept(opened(*rows, mode="keep")) == ["q", "open"]


OWN = """
from dataclasses import replace

def short(record):
    if len(record.question) > 5:
        return "too_long"
    return replace(record, answer=record.answer + "0")

def broken(record):
    raise KeyError("level")

def nothing(record):
    return None

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_prepare_steps.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own")
def test_own_steps() -> None:
    outcome = own_step("my_prepare_steps:short")([record("long question", name="a"), record("Q?", "5", name="b")])
    assert reasons(outcome) == {"a": "too_long"}
    assert [r.answer for r in outcome.kept] == ["50"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [("broken", "q.jsonl:a: step my_prepare_steps:broken failed: KeyError: 'level'"), ("nothing", "returned NoneType")],
)
def test_own_steps_that_fail_name_the_row(name: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        own_step(f"my_prepare_steps:{name}")([record("Q?", name="a")])
    assert message in str(caught.value)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["my_prepare_steps:missing", "no_such_module:f", "my_prepare_steps:number"])
def test_own_steps_that_are_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match="steps: "):
        own_step(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": ("rule",)}, 'steps: "rule" is no step; did you mean "rules"?'),
        ({"steps": ()}, "steps is empty"),
        ({"steps": ("difficulty",)}, "difficulty.model.path"),
        (
            {"steps": ("difficulty",), "difficulty": DifficultyConfig(model=ModelConfig(device="cpu"))},
            "difficulty.model.path",
        ),
        ({"steps": ("verifiability",)}, "[[verifiability.models]]"),
        ({"choices": ChoicesConfig(by="model")}, "choices.model.path"),
    ],
)
def test_configurations_that_cannot_run(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PrepareConfig(**options)
    assert message in str(caught.value)
