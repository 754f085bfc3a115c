"""Own rows of programming problems and rows in verl's form: read, asked, judged and trained on from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rl_setup import commands, micro_model

from prmkit.config import TaskConfig, VerifierConfig
from prmkit.data.types import Message, Prompt
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.config import EvalConfig
from prmkit.evaluate.questions import Asked, load_questions
from prmkit.tasks.task import load_task
from prmkit.verify import make_verifier
from prmkit.verify.code.rows import apps_prompt
from prmkit.verify.user_function import adapt

STDIO = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
CALLS = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}
ADD = "```python\nprint(sum(map(int, input().split())))\n```"
DEF_ADD = "```python\ndef add(a, b):\n    return a + b\n```"
TURNS = [{"role": "system", "content": "Think."}, {"role": "user", "content": "Add two numbers."}]


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def asked(name: str, path: Path, *rows: object) -> Asked:
    return load_questions(EvalConfig(task=TaskConfig(name=name, test=write(path, *rows))))


def rewards(prompts: list[Prompt], *texts: str) -> list[float | None]:
    with make_verifier(
        VerifierConfig()
    ) as verifier:  # programs run in bubblewrap: without it this fails, and does not skip
        verdicts = verifier.verify([(prompt, text) for prompt in prompts for text in texts])
    assert all(verdict.status == "ok" for verdict in verdicts), verdicts
    return [verdict.reward for verdict in verdicts]


def verl(truth: object, **more: Any) -> dict[str, Any]:
    return {"data_source": "taco", "prompt": TURNS, "reward_model": {"style": "rule", "ground_truth": truth}} | more


@pytest.mark.parametrize(
    ("row", "right", "says"),
    [
        ({"question": "Add.", "tests": STDIO}, ADD, "It reads standard input"),
        ({"problem": "Add.", "tests": json.dumps(STDIO)}, ADD, "It reads standard input"),  # CodeContests
        ({"question": "Add.", "tests": CALLS}, DEF_ADD, "Its function is add."),
        ({"question": "Add.", "tests": {"tests": ["assert add(1, 2) == 3"]}}, DEF_ADD, "Write Python code"),
        ({"question": "Add.", "input_output": json.dumps(STDIO), "solutions": "[]"}, ADD, "It reads"),  # APPS, TACO
        (
            {
                "description": "Add.",
                "public_tests": {"input": ["1 2"], "output": ["3"]},
                "private_tests": {"input": [], "output": []},
                "generated_tests": {"input": ["2 2"], "output": ["4"]},
            },
            ADD,
            "It reads",
        ),  # CodeContests as DeepMind writes it
    ],
)
def test_problems_in_each_form_are_asked_and_judged(tmp_path: Path, row: dict[str, Any], right: str, says: str) -> None:
    found = asked("code", tmp_path / "c.jsonl", row | {"difficulty": "easy"})
    (prompt,) = found.prompts
    (message,) = prompt.messages
    assert says in message.content
    assert message.content.endswith("\n\nAdd.")
    assert found.answer_of is None
    assert set(prompt.meta) == {"question", "categories", "verifier", "data_source", "difficulty", "tests"}
    assert rewards([prompt], right, "```python\nprint(5)\n```") == [1.0, 0.0]
    (train,) = load_task(TaskConfig(name="code", train=str(tmp_path / "c.jsonl")), seed=0).train
    assert (train.messages, train.meta) == (prompt.messages, prompt.meta)


def test_official_imports_stand_before_a_program_where_the_row_is_of_such_a_set(tmp_path: Path) -> None:
    rows = [
        {"question": "Add.", "tests": STDIO},
        {"question": "Add up.", "input_output": json.dumps(STDIO)},
        {"prompt": TURNS, "reward_model": {"ground_truth": json.dumps(STDIO)}},
        {"question": "Sum.", "tests": STDIO | {"preamble": "import math"}},
    ]
    prompts = asked("code", tmp_path / "c.jsonl", *rows).prompts
    expected = [apps_prompt(row).meta["tests"].get("preamble", "") for row in rows[1:3]]
    assert [prompt.meta["tests"].get("preamble", "") for prompt in prompts] == ["", *expected, "import math"]


def test_own_turns_are_asked_as_they_are(tmp_path: Path) -> None:
    (prompt,) = asked("code", tmp_path / "c.jsonl", {"messages": TURNS, "tests": STDIO, "id": 3}).prompts
    assert [message.content for message in prompt.messages] == ["Think.", "Add two numbers."]
    assert (prompt.id, prompt.meta["question"]) == ("code/3", "Add two numbers.")


def test_rows_of_verl_hold_maths_and_programs(tmp_path: Path) -> None:
    rows = [
        verl("5", data_source="numina", ability="math", extra_info={"index": 0}),
        verl(json.dumps(STDIO), ability="code", extra_info={"index": 1}),
        verl(0.5, prompt="Half?"),
    ]
    found = asked("verl", tmp_path / "v.jsonl", *rows)
    maths, program, half = found.prompts
    assert maths.messages == (
        Message(role="system", content="Think."),
        Message(role="user", content="Add two numbers."),
    )
    assert half.messages == (Message(role="user", content="Half?"),)
    assert [prompt.meta["verifier"] for prompt in found.prompts] == ["math", "code", "math"]
    assert [prompt.meta["data_source"] for prompt in found.prompts] == ["numina", "taco", "taco"]
    assert found.answer_of is None, "a program has no answer to vote on"
    assert rewards([maths], r"\boxed{5}", r"\boxed{6}") == [1.0, 0.0]
    assert rewards([program], ADD, "```python\nprint(5)\n```") == [1.0, 0.0]
    assert load_task(TaskConfig(name="verl", train=str(tmp_path / "v.jsonl")), seed=0).train == found.prompts

    def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
        truth = json.loads(ground_truth)
        assert (data_source, truth["inputs"], truth["outputs"]) == ("taco", STDIO["inputs"], STDIO["outputs"])
        assert extra_info == {"index": 1}
        return 1.0

    assert adapt(compute_score)(program, "x") == 1.0


def test_maths_alone_in_verls_form_are_voted_on(tmp_path: Path) -> None:
    found = asked("verl", tmp_path / "v.jsonl", verl("5"))
    assert found.answer_of is not None
    assert found.answer_of(found.prompts[0], r"so \boxed{5}") == "5"


def test_a_task_of_ones_own_may_be_judged_by_programs(tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text('name = "mine"\njudge = "code"\nquestion = ["task"]\nanswer = ["checks.io"]\n')
    (prompt,) = asked(str(toml), tmp_path / "c.jsonl", {"task": "Add.", "checks": {"io": STDIO}, "level": 1}).prompts
    assert (prompt.meta["tests"]["inputs"], prompt.meta["level"]) == (STDIO["inputs"], 1)
    assert rewards([prompt], ADD) == [1.0]
    toml.write_text(toml.read_text() + 'read = "text"\n')
    with pytest.raises(ConfigError, match=r'mine\.toml: read = "text", but tests have forms of their own'):
        asked(str(toml), tmp_path / "c.jsonl", {})


def test_the_example_of_the_page_is_read_and_judged(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "code_verifier.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```json\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    prompts = asked("code", tmp_path / "adding.jsonl", *map(json.loads, lines.splitlines())).prompts
    assert rewards(prompts[:1], ADD) + rewards(prompts[1:], DEF_ADD) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("code", {"question": "Add."}, r"r\.jsonl:1: no tests: looked for the fields tests, input_output"),
        ("code", {"tests": STDIO}, r"r\.jsonl:1: no question: looked for the fields question, problem"),
        (
            "code",
            {"question": "Add.", "tests": {"inputs": ["1"], "outputs": []}},
            r"r\.jsonl:1: field 'tests': tests with",
        ),
        ("code", {"question": "Add.", "tests": "{"}, r"r\.jsonl:1: field 'tests': .*has the formats"),
        (
            "code",
            {"question": "Add.", "tests": ["assert f()"]},
            r"field 'tests': the tests must be an object, not a list",
        ),
        ("code", {"question": "Add.", "public_tests": {"input": ["1"]}}, r"r\.jsonl:1: field 'public_tests': "),
        ("verl", verl(None), r"r\.jsonl:1: no reference: looked for the fields reward_model\.ground_truth"),
        ("verl", verl({"target": ["a"]}), r"field 'reward_model\.ground_truth': the reference is \{'target'"),
        ("math", verl("5"), r'verl and PRIME, with prompt and reward_model, are read by task\.name = "verl"'),
        ("math", {"problem": "Add.", "tests": STDIO}, r'problems with tests are read by task\.name = "code"'),
    ],
)
def test_rows_that_do_not_fit_name_their_place_and_the_task_that_they_fit(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        asked(name, tmp_path / "r.jsonl", row)
    with pytest.raises(DataError, match=message):
        load_task(TaskConfig(name=name, train=str(tmp_path / "r.jsonl")), seed=0)


# ---------------------------------------------------------------------------------------------------- as commands

SMALL = ("--model.device=cpu", "--model.threads=1", "--sampling.max-tokens=4")
SUM = {"messages": [{"role": "user", "content": "1+2=?"}], "id": "sum"}
PROGRAM = SUM | {"tests": {"inputs": [""], "outputs": ["nothing that digits could print"]}}


def test_eval_asks_and_judges_programs(tmp_path: Path) -> None:
    path, out = write(tmp_path / "c.jsonl", PROGRAM), tmp_path / "r.json"
    done = commands().run(
        *("eval", "--task=code", f"--task.test={path}", f"--model.path={micro_model()}", *SMALL),
        *("--samples=2", f"--out={out}"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    (question,) = json.loads(out.read_text())["questions"]
    assert [member["status"] for member in question["sampled"]] == ["ok", "ok"]
    assert "nothing that digits" not in (tmp_path / "r.items.jsonl").read_text()


def test_rl_trains_on_maths_and_programs_of_one_file(tmp_path: Path) -> None:
    turns = SUM["messages"]
    rows = [verl("3", prompt=turns), verl(json.dumps(PROGRAM["tests"]), prompt=turns)]
    done = commands().run(
        *("rl", "--preset=rloo", "--task=verl", f"--task.train={write(tmp_path / 'v.jsonl', *rows)}", *SMALL),
        *("--steps=1", "--prompts-per-step=2", "--algorithm.filter.low=0", f"--model.path={micro_model()}"),
        f"--run-dir={tmp_path / 'run'}",
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    (step,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert (step["verdict/ok"], step["verdict/error"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([PROGRAM], ("--task=code", "--verifier.code.sandbox=fusion", "--verifier.code.url="), "url"),
        ([SUM | {"answer": "3"}], ("--task=math", "--verifier.use=code"), "none of 1 prompts has any (field"),
    ],
)
def test_rl_says_before_it_samples_that_no_program_can_be_judged(
    tmp_path: Path, rows: list[object], flags: tuple[str, ...], message: str
) -> None:
    path = write(tmp_path / "c.jsonl", *rows)
    run = tmp_path / "run"
    done = commands().run(
        *("rl", "--preset=rloo", f"--task.train={path}", "--model.path=nowhere", *SMALL, f"--run-dir={run}", *flags),
        cwd=tmp_path,
    )
    assert done.code != 0
    assert message in done.err.replace("\n", " ")
    assert not run.exists()
