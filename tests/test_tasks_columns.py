"""Columns of a row reach the verifier, from the file to the verdict, in `eval` and in `rl` alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prmkit.config import TaskConfig, VerifierConfig
from prmkit.config_io import from_dict
from prmkit.data.types import Prompt, Verdict
from prmkit.errors import ConfigError
from prmkit.evaluate.config import EvalConfig
from prmkit.evaluate.questions import load_questions
from prmkit.tasks.task import load_task
from prmkit.verify import ComposedVerifier, make_verifier
from prmkit.verify.user_function import adapt

QA = 'name = "words"\njudge = "qa"\nquestion = ["question"]\nanswer = ["answer"]\n'


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def asked(name: str, file: str) -> list[Prompt]:
    return load_questions(EvalConfig(task=TaskConfig(name=name, test=file))).prompts


def trained(name: str, file: str) -> list[Prompt]:
    return load_task(TaskConfig(name=name, train=file), seed=0).train


def judged(prompt: Prompt, *texts: str, **verifier: Any) -> list[Verdict]:
    with make_verifier(from_dict(VerifierConfig, verifier, "verifier")) as made:
        return made.verify([(prompt, text) for text in texts])


Read = Callable[[str, str], list[Prompt]]
ROW = {
    "question": "2+2?",
    "answer": "4",
    "id": "a",
    "data_source": "gsm8k_aug",
    "difficulty": "easy",
    "extra_info": {"index": 7},
}


@pytest.mark.parametrize("read", [asked, trained])
@pytest.mark.parametrize("task", ["math", "gsm8k", "own"])
def test_columns_reach_functions_in_the_form_of_trl_and_verl(tmp_path: Path, read: Read, task: str) -> None:
    (tmp_path / "own.toml").write_text('name = "own"\nquestion = ["question"]\nanswer = ["answer"]\n')
    row = ROW | ({"answer": "#### 4"} if task == "gsm8k" else {})
    (prompt,) = read(str(tmp_path / "own.toml") if task == "own" else task, write(tmp_path / "d.jsonl", row))

    def trl(completions: Any, data_source: Any, difficulty: Any, extra_info: Any, answer: Any) -> list[float]:
        assert (data_source, difficulty, extra_info, answer) == (["gsm8k_aug"], ["easy"], [{"index": 7}], ["4"])
        return [1.0]

    def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
        assert (data_source, ground_truth, extra_info) == ("gsm8k_aug", "4", {"index": 7})
        return 1.0

    assert adapt(trl)(prompt, "4") == 1.0
    assert adapt(compute_score)(prompt, "4") == 1.0


@pytest.mark.parametrize("read", [asked, trained])
def test_without_extra_info_a_verl_function_gets_the_further_columns(tmp_path: Path, read: Read) -> None:
    row = {"question": "2+2?", "answer": "4", "difficulty": "easy"}
    (prompt,) = read("math", write(tmp_path / "d.jsonl", row))
    found = adapt(lambda solution_str, data_source, extra_info: (data_source, extra_info))
    assert found(prompt, "4") == ("math", {"difficulty": "easy"})


@pytest.mark.parametrize("read", [asked, trained])
def test_parts_are_chosen_by_a_rows_own_data_source(tmp_path: Path, read: Read) -> None:
    hamlet = {"question": "Who wrote Hamlet?", "answer": "William Shakespeare", "data_source": "hotpotqa"}
    prompts = read("math", write(tmp_path / "d.jsonl", ROW, hamlet, {"question": "1+1?", "answer": "2"}))
    parts = {"parts": [{"use": "math", "sources": ["gsm8k*"]}, {"use": "qa", "sources": ["hotpotqa"]}]}
    with make_verifier(from_dict(VerifierConfig, parts, "verifier")) as verifier:
        assert isinstance(verifier, ComposedVerifier)
        verifier.check(prompts[:2])
        with pytest.raises(ConfigError, match="no part of the verifier is for the data source 'math'"):
            verifier.check(prompts)
        verdicts = verifier.verify([(prompts[0], "#### 4.0"), (prompts[1], "Answer: william shakespeare!")])
    assert [verdict.reward for verdict in verdicts] == [1.0, 1.0]


def test_a_sets_own_judge_and_source_stand_whatever_columns_a_row_has(tmp_path: Path) -> None:
    stray = {
        "verifier": "code",
        "categories": "none",
        "data_source": "x",
        "tests": 1,
        "choices": ["0"],
        "answers": ["1"],
    }
    row = {"ID": "s", "Body": "Two.", "Question": "And two?", "Answer": 4, "Type": "Addition"}
    (plain,), (prompt,) = (asked("svamp", write(tmp_path / "s.jsonl", one)) for one in (row, row | stray))
    assert prompt == plain
    (own,) = asked("math", write(tmp_path / "m.jsonl", ROW | {"verifier": "code", "categories": "none"}))
    assert (own.meta["verifier"], own.meta["categories"]) == ("math", {})
    assert [verdict.reward for verdict in judged(own, "#### 4", "#### 5")] == [1.0, 0.0]


@pytest.mark.parametrize("read", [asked, trained])
def test_what_a_task_reads_itself_and_what_json_cannot_hold_is_no_column(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"problem": "2+2?", "answer": "4", "solution": r"\boxed{4}", "prepare": {"source": "f:1"}, "level": 3}
    path = write(tmp_path / "d.jsonl", row)
    from prmkit.tasks import rows

    whole = rows.read_jsonl
    monkeypatch.setattr(rows, "read_jsonl", lambda file: [one | {"image": b"..."} for one in whole(file)])
    (prompt,) = read("math", path)
    ours = {"question", "categories", "verifier", "data_source"}
    assert {name: value for name, value in prompt.meta.items() if name not in ours} == {"level": 3}


@pytest.mark.parametrize("read", [asked, trained])
@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        ({"answer": "Washington, D.C.", "answers": ["Washington", "Washington DC"]}, "Washington", "Boston"),
        ({"answer": "D.C.", "answers": {"text": ["Washington"], "answer_start": [3]}}, "Washington", "text"),
        ({"answer": "D.C.", "answers": "Washington"}, "Washington", "W"),
        ({"answer": "D.C.", "answers": ["Washington", None, {"a": 1}]}, "Washington", "None"),
        ({"answer": "B", "choices": ["x", "y"]}, "y", "x"),
        ({"answer": "B", "choices": {"A": "x", "B": "y"}}, "y", "(A)"),
        ({"answer": "2", "choices": {"text": ["x", "y"], "label": ["1", "2"]}}, "y", "x"),
        ({"answer": "B", "choices": "xy"}, "B", "y"),
        ({"answer": "B", "choices": [{"message": "B"}]}, "B", "A"),
    ],
)
def test_aliases_and_options_of_a_row_are_judged_by(
    tmp_path: Path, read: Read, row: dict[str, Any], right: str, wrong: str
) -> None:
    (tmp_path / "qa.toml").write_text(QA)
    path = write(tmp_path / "d.jsonl", {"question": "Which?"} | row)
    (prompt,) = read(str(tmp_path / "qa.toml"), path)
    verdicts = judged(prompt, f"Answer: {right}", f"Answer: {wrong}")
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0], verdicts
