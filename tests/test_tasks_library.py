"""Evaluation sets: one example of each is read, asked, answered and judged; and what is wrong with a row is said."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from prmkit.config import MathConfig, TaskConfig, VerifierConfig
from prmkit.data.types import Group, Prompt, Rollout, SamplingParams
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.config import EvalConfig
from prmkit.evaluate.questions import load_questions
from prmkit.evaluate.run import EvaluationResult, evaluate_questions
from prmkit.protocols import Verifier
from prmkit.tasks.actions import ACTIONS, SHORT_PROMPT
from prmkit.tasks.library import LIBRARY, TEMPLATES, find_task, load_template, own_task, read_set
from prmkit.tasks.library.answers import after_hashes, boxed, joined, plain, yes_no
from prmkit.tasks.library.programs import livecodebench_prompt
from prmkit.tasks.task import load_task
from prmkit.verify import make_verifier

DATA = Path(__file__).parent / "data" / "tasks"
EXAMPLES: dict[str, list[tuple[str, str, str, dict[str, str]]]] = {
    # right answer, wrong answer, id, categories of each row
    "gsm8k": [
        ("so 70,000 in all.\n#### 70000", "#### 195000", "gsm8k/d3c6224db7dd", {}),
    ],
    "math500": [
        (
            r"\boxed{\left(3, \frac{\pi}{2}\right)}",
            r"\boxed{\left(\frac{\pi}{2}, 3\right)}",
            "math500/test/precalculus/807.json",
            {"subject": "Precalculus", "level": "Level 2"},
        ),
    ],
    "aime2024": [(r"\boxed{21}", r"\boxed{12}", "aime2024/60", {})],
    "amc": [(r"\boxed{71}", r"\boxed{142}", "amc/0", {})],
    "minerva": [(r"\boxed{120}", r"\boxed{30}", "minerva/0", {"subject": "Introduction to Physics (made up)"})],
    "mgsm:de": [("Die Antwort ist 70000.", "Die Antwort ist 65000.", "mgsm/de/2", {"language": "German"})],
    "msvamp:sw": [(r"\boxed{8}", r"\boxed{28}", "msvamp/sw/0", {"language": "Swahili"})],
    "svamp": [(r"\boxed{51}", r"\boxed{101}", "svamp/chal-1", {"operation": "Subtraction"})],
    "hotpotqa": [("They were.\nAnswer: Yes", "Answer: no", "hotpotqa/5dda555f7bbd", {"kind": "comparison"})],
    "strategyqa": [("Answer: no", "Answer: yes", "strategyqa/c91eafafed5a8f80bb5a", {})],
    "bamboogle": [("Answer: the David Dinkins.", "Answer: John Lindsay", "bamboogle/4", {})],
    "humaneval": [
        (
            "```python\ndef has_close_elements(numbers, threshold):\n    s = sorted(numbers)\n"
            "    return any(b - a < threshold for a, b in zip(s, s[1:]))\n```",
            "```python\ndef has_close_elements(numbers, threshold):\n    return True\n```",
            "humaneval/HumanEval/0",
            {},
        ),
    ],
    "mbpp": [
        (
            "```python\ndef heap_queue_largest(nums, n):\n    return sorted(nums, reverse=True)[:n]\n```",
            "```python\ndef heap_queue_largest(nums, n):\n    return nums[:n]\n```",
            "mbpp/4",
            {},
        ),
    ],
    "leetcode": [
        (
            "```python\nclass Solution:\n    def sumOfTwo(self, a, b):\n        return a + b\n```",
            "```python\nclass Solution:\n    def sumOfTwo(self, a, b):\n        return 3\n```",
            "leetcode/weekly-contest-0-sum-of-two",
            {"difficulty": "Easy"},
        ),
    ],
    "livecodebench": [
        (
            "```python\nprint(int(input()) + int(input()))\n```",
            "```python\nprint(3)\n```",
            "livecodebench/made_up_a",
            {"difficulty": "easy", "platform": "atcoder"},
        ),
        (
            "```python\nclass Solution:\n    def largest(self, nums):\n        return max(nums)\n```",
            "```python\nclass Solution:\n    def largest(self, nums):\n        return 5\n```",
            "livecodebench/made_up_b",
            {"difficulty": "medium", "platform": "leetcode"},
        ),
    ],
}


class Scripted:
    """Says the right answer, then the wrong one."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self.texts = texts

    def sample(self, prompts: Any, *, n: int, params: SamplingParams, seed: int) -> list[Group[Rollout]]:
        return [Group(prompt=p, members=[self._rollout(p, text) for text in self.texts[p.id][:n]]) for p in prompts]

    def _rollout(self, prompt: Prompt, text: str) -> Rollout:
        ids = tuple(map(ord, text))
        return Rollout(
            prompt_id=prompt.id,
            prompt_token_ids=(1,),
            token_ids=ids,
            logprobs=(0.0,) * len(ids),
            token_ends=tuple(range(1, len(ids) + 1)),
            text=text,
            finish="stop",
        )


def ask(name: str, verifier: Verifier) -> EvaluationResult:
    """The committed example of a task, answered once rightly and once wrongly."""
    file = DATA / f"{name.partition(':')[0]}.jsonl"
    asked = load_questions(EvalConfig(task=TaskConfig(name=name, test=str(file)), prompts=len(EXAMPLES[name])))
    texts = {example[2]: [example[0], example[1]] for example in EXAMPLES[name]}
    return evaluate_questions(
        Scripted(texts),
        verifier,
        asked.prompts,
        samples=2,
        params=SamplingParams(),
        seed=0,
        greedy=False,
        batch_size=4,
        answer_of=asked.answer_of,
    )


def check(name: str, result: EvaluationResult) -> None:
    for question, (_, _, own_id, categories) in zip(result.questions, EXAMPLES[name], strict=True):
        assert question.prompt.id == own_id
        assert question.categories == categories
        details = [member.verdict.detail for member in question.sampled]
        assert [member.reward for member in question.sampled] == [1.0, 0.0], (name, details)


@pytest.mark.parametrize("name", EXAMPLES)
def test_one_example_of_each_task_really_runs(name: str) -> None:
    # Programs run in bubblewrap: without it this fails, and does not skip.
    with make_verifier(VerifierConfig()) as verifier:
        check(name, ask(name, verifier))


def test_votes_are_counted_by_the_answers_that_the_verifier_reads(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "How many?", "answer": "5"}\n{"question": "Which?", "answer": "B"}\n')
    for last_number, number in ((True, "5"), (False, None)):
        config = EvalConfig(
            task=TaskConfig(name="math", test=str(path)),
            verifier=VerifierConfig(math=MathConfig(last_number=last_number)),
        )
        asked = load_questions(config)
        assert asked.answer_of is not None
        texts = ("I get 5 apples in the end", "So it must be B")
        assert [asked.answer_of(*pair) for pair in zip(asked.prompts, texts, strict=True)] == [number, "B"]


def test_every_task_has_an_example() -> None:
    tried = {name.partition(":")[0] for name in EXAMPLES}
    assert set(LIBRARY) - tried == {"math", "olympiadbench", "code", "verl"}, "these have tests of their own"


def prompts(name: str, file: str = "", **options: Any) -> list[Prompt]:
    spec, part = find_task(name)
    path = DATA / (file or f"{spec.name}.jsonl")
    return read_set(spec, str(path), load_template(spec.template), part=part, **options).prompts


def test_olympiadbench_joins_several_answers() -> None:
    single, several = prompts("olympiadbench")
    assert single.meta["categories"]["answer"] == "Numerical"
    rows = [json.loads(line) for line in (DATA / "olympiadbench.jsonl").read_text().splitlines()]
    assert several.answer == ", ".join(rows[1]["final_answer"])
    with make_verifier(VerifierConfig()) as verifier:
        verdicts = verifier.verify([(several, rf"\boxed{{{several.answer.strip('$')}}}"), (several, r"\boxed{7}")])
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0]


def test_a_context_comes_before_its_question() -> None:
    spec, _ = find_task("olympiadbench")
    from prmkit.tasks.library.spec import question_text
    from prmkit.tasks.rows import Row

    def text(**fields: Any) -> str:
        return question_text(Row(fields, "x.jsonl:1", "x.jsonl:1"), spec)

    assert text(context="Let $n = 3$.", question="What is $n^2$?") == "Let $n = 3$. What is $n^2$?"
    assert text(context=None, question="What is $3^2$?") == "What is $3^2$?"
    with pytest.raises(
        DataError, match=r"x\.jsonl:1: no question: looked for the fields context\?, question; the row has"
    ):
        text(context="Let $n = 3$.")
    with pytest.raises(DataError, match=r"x\.jsonl:1: the question \(context\?\+question\) is blank or no text"):
        text(question=" ")


def test_aime_takes_the_year_2024_alone() -> None:
    assert [prompt.id for prompt in prompts("aime2024")] == ["aime2024/60"]


def test_languages_are_chosen_by_name() -> None:
    assert [p.id for p in prompts("mgsm")] == ["mgsm/en/2", "mgsm/de/2", "mgsm/bn/2"]
    assert [p.id for p in prompts("mgsm:bn")] == ["mgsm/bn/2"]
    assert [p.meta["categories"]["language"] for p in prompts("msvamp")] == ["English", "Swahili"]
    with pytest.raises(ConfigError, match=r'"mgsm:dee": MGSM has no part "dee"; did you mean "de"\?'):
        find_task("mgsm:dee")
    with pytest.raises(ConfigError, match='"svamp:en": SVAMP has no part "en"; it has no parts'):
        find_task("svamp:en")
    with pytest.raises(DataError, match='no row is of the part "fr"; its rows are of bn, de, en'):
        prompts("mgsm:fr")


def test_a_null_reference_is_called_null(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": 1, "question": "2 + 2?", "answer": null}\n')
    spec, _ = find_task("math500")
    with pytest.raises(
        DataError, match=r"x\.jsonl:1: no reference: the field 'answer' is null; mend it or remove the row"
    ):
        read_set(spec, str(path), load_template("plain"))


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        (
            "mgsm",
            (
                "the first 1 questions have the language English alone and leave out German, Bengali: a name such as "
                '"mgsm:bn" takes one',
            ),
        ),
        ("mgsm:de", ()),
    ],
)
def test_languages_that_a_limit_leaves_out_are_named(name: str, notes: tuple[str, ...]) -> None:
    task = TaskConfig(name=name, test=str(DATA / "mgsm.jsonl"))
    assert load_questions(EvalConfig(task=task, prompts=1)).notes == notes
    assert load_questions(EvalConfig(task=task)).notes == ()


def test_a_file_of_one_language_needs_no_column_for_it(tmp_path: Path) -> None:
    path = tmp_path / "de.jsonl"
    path.write_text('{"question": "Wie viel ist 2 + 2?", "answer": null, "answer_number": 4}\n')
    spec, part = find_task("mgsm:de")
    (prompt,) = read_set(spec, str(path), load_template("plain"), part=part).prompts
    assert (prompt.answer, prompt.meta["categories"]) == ("4", {"language": "German"})
    assert prompt.id.startswith("mgsm/")


def test_ids_survive_a_shuffle_and_tell_repeats_apart(tmp_path: Path) -> None:
    def ids(*questions: str) -> list[str]:
        path = tmp_path / "r.jsonl"
        path.write_text("\n".join(json.dumps({"question": text, "answer": "#### 1"}) for text in questions))
        spec, _ = find_task("gsm8k")
        return [p.id for p in read_set(spec, str(path), load_template("plain")).prompts]

    one, two, again = ids("one?", "two?", "one?")
    assert again == f"{one}-2"
    assert ids("two?", "one?", "one?") == [two, one, again]


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"idx": 4, "question": "a?", "answer": "b"}\n' * 2)
    spec, _ = find_task("bamboogle")
    with pytest.raises(DataError, match=r"r\.jsonl:2: a second row with the id 'bamboogle/4'"):
        read_set(spec, str(path), load_template("plain"))


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (plain, 142.0, "142"),
        (plain, "8.0", "8"),
        (plain, "-3.00", "-3"),
        (plain, "0.50", "0.50"),
        (plain, "1.6", "1.6"),
        (plain, 2.5, "2.5"),
        (plain, 10**400, "1" + "0" * 400),
        (plain, "St. 0", "St. 0"),
        (after_hashes, "2*3=<<2*3=6>>6\n#### 1,234", "1,234"),
        (boxed, "First \\boxed{1}.\n\nThe half of it is \\boxed{\\frac{1}{2}}.", r"\frac{1}{2}"),
        (boxed, "p - q", "p - q"),
        (joined, ["$1$", "$2$"], "$1$, $2$"),
        (joined, ["7"], "7"),
        (yes_no, True, "yes"),
        (yes_no, "False", "no"),
    ],
)
def test_references_are_read_as_each_set_writes_them(read: Any, value: Any, expected: str) -> None:
    assert read(value, "f:1") == expected


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (plain, None, r"f:1: the reference is None, expected a text or a finite number"),
        (plain, math.nan, r"f:1: the reference is nan, expected a text or a finite number"),
        (plain, -math.inf, r"f:1: the reference is -inf"),
        (joined, ["7", math.nan], r"f:1: the reference is nan"),
        (plain, " ", r"f:1: the reference is ' '"),
        (plain, True, r"f:1: the reference is True"),
        (boxed, "no box " * 40, r"f:1: the solution has no \\boxed"),
        (joined, [], r"f:1: the reference is None"),
        (yes_no, "maybe", r"f:1: the reference is 'maybe', expected true or false"),
    ],
)
def test_references_that_cannot_be_read_are_named(read: Any, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(value, "f:1")


def test_a_reference_that_is_no_number_is_named_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": 2}\n{"question": "0 / 0?", "answer": NaN}\n')
    spec, _ = find_task("math")
    with pytest.raises(DataError, match=r"r\.jsonl:2: field 'answer': the reference is nan, expected"):
        read_set(spec, str(path), load_template("plain"))


# ------------------------------------------------------------------------------------------------------- where rows are


@pytest.mark.parametrize(
    ("name", "test", "error", "message"),
    [
        ("math500", "", ConfigError, r'task\.test is empty: set it to a file .* or "hub" for HuggingFaceH4/MATH-500'),
        ("mgsm", "hub", ConfigError, r'the hub has one data set for each of .*; choose one, such as "mgsm:bn"'),
        ("leetcode", "hub", ConfigError, r'task\.test = "hub", but LeetCode .* has no data set there'),
        ("math50", "x", ConfigError, r'task\.name = "math50" is no task; did you mean "math500"\?'),
        ("math500", "none.jsonl", DataError, r"none\.jsonl: no such file"),
        (
            "math500",
            str(DATA / "svamp.jsonl"),
            DataError,
            r"svamp\.jsonl:1: no question: looked for the fields problem, quest",
        ),
        ("aime2024", str(DATA / "own.jsonl"), DataError, r"own\.jsonl:1: no question"),
        (
            "humaneval",
            str(DATA / "mbpp.jsonl"),
            DataError,
            r"mbpp\.jsonl:1: no row of HumanEval: the row has no 'prompt'",
        ),
    ],
)
def test_what_is_wrong_with_a_source_is_said(name: str, test: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_questions(EvalConfig(task=TaskConfig(name=name, test=test)))


def test_a_training_run_can_be_tested_on_a_set_of_the_library() -> None:
    task = load_task(TaskConfig(name="math500", test=str(DATA / "math500.jsonl"), format="actions"), seed=0)
    assert [m.role for m in task.test[0].messages] == ["system", "user"]
    assert task.test[0].messages[0].content == SHORT_PROMPT
    assert (task.train, task.demonstrations) == ([], [])
    with pytest.raises(ConfigError, match=r"task\.test is empty"):
        load_task(TaskConfig(name="math500"), seed=0)


# ------------------------------------------------------------------------------------------------------------- templates


def test_templates_ask_as_they_say() -> None:
    system, user = TEMPLATES["qwen-boxed"].messages(r"Is $\{1\}$ a set?")
    assert (system.role, system.content) == (
        "system",
        r"Please reason step by step, and put your final answer within \boxed{}.",
    )
    assert (user.role, user.content) == ("user", r"Is $\{1\}$ a set?")
    assert TEMPLATES["eurus"].messages("q")[0].content == SHORT_PROMPT
    assert all(f"[{tag}]" in SHORT_PROMPT for tag in ACTIONS)
    (only,) = TEMPLATES["plain"].messages("q {question}")
    assert only.content == "q {question}"
    assert len({template.sha256 for template in TEMPLATES.values()}) == len(TEMPLATES)


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    toml = tmp_path / "t.toml"
    toml.write_text('system = "Be brief."\nuser = "Q: {question}\\nA:"\n')
    found = load_template(str(toml))
    assert [m.content for m in found.messages("2 + 2?")] == ["Be brief.", "Q: 2 + 2?\nA:"]
    text = tmp_path / "t.txt"
    text.write_text("{question} Go.")
    assert [m.content for m in load_template(str(text)).messages("2?")] == ["2? Go."]
    toml.write_text('system = "Be short."\nuser = "Q: {question}\\nA:"\n')
    assert load_template(str(toml)).sha256 != found.sha256


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("qwen-boxd", None, r'template = "qwen-boxd" is neither a template \(did you mean "qwen-boxed"\?\) nor a file'),
        ("t.txt", "no place", r"t\.txt: the user turn has no \{question\}"),
        ("t.toml", "sytem = 'x'\nuser = '{question}'", r"t\.toml: 'sytem' has no place here"),
        ("t.md", None, r"t\.md: the template cannot be read"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_template(str(path) if "." in name else name)


def test_the_format_of_the_task_is_a_template_too() -> None:
    def first(**options: Any) -> list[str]:
        task = TaskConfig(name="gsm8k", test=str(DATA / "gsm8k.jsonl"), **options)
        return [message.content for message in load_questions(EvalConfig(task=task)).prompts[0].messages]

    (question,) = first()
    assert question.startswith("Josh decides to try flipping a house.")
    assert first(format="boxed") == [question + "\n\nGive your final answer in \\boxed{}."]
    assert first(format="actions") == [SHORT_PROMPT, question + "\n\nGive your final answer in \\boxed{}."]


def test_the_questions_say_what_made_them() -> None:
    task = TaskConfig(name="mgsm:de", test=str(DATA / "mgsm.jsonl"))
    about = load_questions(EvalConfig(task=task, template="boxed")).about
    assert (about["name"], about["part"], about["version"], about["judge"]) == ("mgsm", "de", "1", "math")
    assert about["template"] == {
        "name": "boxed",
        "system": "",
        "user": TEMPLATES["boxed"].user,
        "sha256": TEMPLATES["boxed"].sha256,
    }
    with pytest.raises(ConfigError, match="arithmetic has only its own form; leave template out"):
        load_questions(EvalConfig(template="boxed"))


# ------------------------------------------------------------------------------------------------------- one's own task

OWN = """
name = "school"
question = ["frage"]
answer = ["loesung"]
id = ["nr"]
template = "boxed"
categories = { subject = "fach" }
"""


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "school.toml"
    path.write_text(OWN)
    asked = load_questions(EvalConfig(task=TaskConfig(name=str(path), test=str(DATA / "own.jsonl"))))
    first, second = asked.prompts
    assert (first.id, first.answer, first.meta["categories"]) == ("school/7", "4", {"subject": "sums"})
    assert second.messages[0].content.startswith("How much is 1/2 + 1/4?\n\nGive your final answer")
    with make_verifier(VerifierConfig()) as verifier:
        verdicts = verifier.verify([(second, r"\boxed{0.75}"), (second, r"\boxed{2/6}")])
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('questions = ["x"]\n', r'school\.toml: unknown key "questions"; did you mean "question"\?'),
        ('judge = "maths"\n', r'judge = "maths", but it must be one of math, qa, code'),
        ("version = 2\n", r"version = 2, but it must be a text"),
        ('read = "box"\n', r'read = "box", but it must be one of text, hashes, boxed, list, yes_no'),
    ],
)
def test_what_is_wrong_with_ones_own_task_is_said(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "school.toml"
    path.write_text(change + OWN)
    with pytest.raises(ConfigError, match=message):
        own_task(path)


def test_a_task_of_ones_own_says_where_question_and_answer_are(tmp_path: Path) -> None:
    path = tmp_path / "school.toml"
    path.write_text('name = "school"\nquestion = ["frage"]\n')
    with pytest.raises(ConfigError, match=r'school\.toml: missing key "answer"'):
        own_task(path)
    path.write_text('name = "school"\nquestion = "frage"\nanswer = ["a"]\n')
    with pytest.raises(ConfigError, match="question = 'frage', but it must be a list of fields"):
        own_task(path)


def test_the_page_has_every_task_and_every_template() -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    for spec in LIBRARY.values():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{spec.name}`"))
        cells = [cell.strip() for cell in line.split("|")]
        template = "plain" if spec.name in ("gsm8k", "math") else spec.template
        assert cells[3:7] == [spec.version, spec.judge, f"`{template}`", f"`{spec.hub}`" if spec.hub else "none"], (
            spec.name
        )
    for template_name, found in TEMPLATES.items():
        assert f"| `{template_name}` | {found.about} |" in page


# -------------------------------------------------------------------------------------------------------- LiveCodeBench


class Trap:
    """A pickle that would run code when it is read."""

    def __reduce__(self) -> Any:
        return print, ("owned",)


def test_packed_tests_are_read_without_running_anything(capsys: pytest.CaptureFixture[str]) -> None:
    import base64
    import zlib

    row = json.loads((DATA / "livecodebench.jsonl").read_text().splitlines()[0])
    tests = livecodebench_prompt(row).meta["tests"]
    assert (tests["inputs"], tests["preamble"]) == (["1\n2\n", "3\n4\n"], "livecodebench")
    row["private_test_cases"] = base64.b64encode(zlib.compress(pickle.dumps(Trap()))).decode()
    with pytest.raises(DataError, match=r"private tests cannot be unpacked \(it names builtins\.print\)"):
        livecodebench_prompt(row)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "preamble"),
    [("livecodebench", ["livecodebench"]), ("leetcode", ["deepseek-leetcode"]), ("humaneval", None)],
)
def test_a_result_names_what_stands_before_programs(name: str, preamble: list[str] | None) -> None:
    asked = load_questions(EvalConfig(task=TaskConfig(name=name, test=str(DATA / f"{name}.jsonl")), prompts=1))
    assert asked.about.get("preamble") == preamble


def test_functional_tests_become_calls() -> None:
    row = json.loads((DATA / "livecodebench.jsonl").read_text().splitlines()[1])
    tests = livecodebench_prompt(row).meta["tests"]
    assert (tests["format"], tests["fn_name"], tests["preamble"]) == ("calls", "largest", "livecodebench")
    assert (tests["inputs"], tests["outputs"]) == ([[[1, 5, 2]], [[-3]]], [5, -3])
    row["metadata"] = "{}"
    with pytest.raises(DataError, match=r"metadata\.func_name does not name it"):
        livecodebench_prompt(row)
    with pytest.raises(DataError, match="it needs question_content"):
        livecodebench_prompt({"question_content": "x"})
