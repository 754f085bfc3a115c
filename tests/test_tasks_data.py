from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from prmkit.config import TaskConfig
from prmkit.data.steps import split_lines
from prmkit.data.types import Message, Prompt
from prmkit.errors import ConfigError, DataError
from prmkit.tasks.actions import SHORT_PROMPT, parse_actions, split_actions
from prmkit.tasks.arithmetic import SPLIT, first_error_step
from prmkit.tasks.asking import ASK_FOR_BOX
from prmkit.tasks.rows import import_datasets, read_rows
from prmkit.tasks.task import NUM_TEST, NUM_TRAIN, load_task

needs_datasets = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs the extra hub")

CLIPS = {
    "question": "Nina sold 48 clips in April and half as many in May. How many in all?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72 clips.\n#### 72",
}
MONEY = {"question": "How much?", "answer": "It is $<<1000*2=2000>>2,000.\n#### 2,000", "id": 9}


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def test_gsm8k_rows(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", CLIPS, MONEY), write(tmp_path / "test.jsonl", MONEY)
    task = load_task(TaskConfig(name="gsm8k", train=train, test=test), seed=0)
    clips = Prompt(id="train.jsonl:1", messages=(user(CLIPS["question"]),), answer="72", task="gsm8k")
    money = Prompt(id="9", messages=(user("How much?"),), answer="2,000", task="gsm8k")
    assert (task.name, task.train, task.test, task.first_error) == ("gsm8k", [clips, money], [money], None)
    assert task.demonstrations == [
        (clips, "She sold 48/2 = 24 clips in May.\nIn all 48+24 = 72 clips.\n#### 72"),
        (money, "It is $2,000.\n#### 2,000"),
    ]
    assert task.splitter is split_lines


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", CLIPS, MONEY), write(tmp_path / "test.jsonl", MONEY, CLIPS)
    task = load_task(TaskConfig(name="gsm8k", train=train, test=test, limit=1), seed=0)
    assert [p.answer for p in task.train] == ["72"]
    assert [p.answer for p in task.test] == ["2,000"]
    assert len(task.demonstrations) == 1


def test_the_boxed_format_asks_for_a_box_and_shows_one(tmp_path: Path) -> None:
    task = load_task(TaskConfig(name="gsm8k", train=write(tmp_path / "t.jsonl", CLIPS), format="boxed"), seed=0)
    assert task.train[0].messages == (user(CLIPS["question"] + ASK_FOR_BOX),)
    assert task.demonstrations[0][1].endswith("In all 48+24 = 72 clips.\nThe answer is \\boxed{72}.")
    assert task.test == []


def test_the_actions_format(tmp_path: Path) -> None:
    task = load_task(TaskConfig(name="gsm8k", train=write(tmp_path / "t.jsonl", CLIPS), format="actions"), seed=0)
    prompt, text = task.demonstrations[0]
    assert prompt.messages == (Message(role="system", content=SHORT_PROMPT), user(CLIPS["question"] + ASK_FOR_BOX))
    assert [a.tag for a in parse_actions(text)] == ["ASSESS", "ADVANCE", "ADVANCE", "OUTPUT"]
    assert task.splitter is split_actions
    assert len(task.splitter(text)) == 4


def test_a_solution_that_breaks_the_actions_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", CLIPS, CLIPS | {"answer": "a\nNext action: [PIVOT]\n#### 1"})
    with pytest.raises(DataError, match=r"t\.jsonl:2: the solution cannot be written as actions: line \d+"):
        load_task(TaskConfig(name="gsm8k", train=path, format="actions"), seed=0)


def test_math_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.jsonl",
        {"problem": "Half of 3?", "answer": "\\frac{3}{2}", "level": 1},
        {"question": "2+3?", "answer": 5, "solution": "Add them: 5."},
        {"problem": "A root of $x^2=4$?", "solution": "Then $x = \\boxed{2}$."},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}], "answer": "2"},
    )
    task = load_task(TaskConfig(name="math", train=path, format="boxed"), seed=0)
    assert [p.answer for p in task.train] == ["\\frac{3}{2}", "5", "2", "2"]
    assert [p.messages[-1].content for p in task.train[:2]] == ["Half of 3?" + ASK_FOR_BOX, "2+3?" + ASK_FOR_BOX]
    assert task.train[3].messages == (Message(role="system", content="Be brief."), user("1+1?"))
    assert [(p.id, text) for p, text in task.demonstrations] == [
        ("m.jsonl:2", "Add them: 5.\nThe answer is \\boxed{5}."),
        ("m.jsonl:3", "Then $x = \\boxed{2}$."),
    ]
    plain = load_task(TaskConfig(name="math", train=path), seed=0)
    assert plain.train[1].messages == (user("2+3?"),)
    assert [text for _, text in plain.demonstrations] == [text for _, text in task.demonstrations]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        (
            "gsm8k",
            {"question": "q", "answer": "5"},
            "field 'answer' must end in a line such as '#### 5'; for bare answers",
        ),
        ("gsm8k", {"question": "q", "answer": "a\n#### "}, "field 'answer' must end in a line"),
        ("gsm8k", {"question": "q", "answer": "a\n#### 5\nand more"}, "field 'answer' must end in a line"),
        ("gsm8k", {"question": "q", "answer": 5}, "field 'answer' is a number, expected a string"),
        ("gsm8k", {"answer": "a\n#### 5"}, "no field 'question'"),
        ("gsm8k", {"question": "q", "answer": "#### 5", "id": 2.5}, "field 'id' is a number"),
        ("math", {"answer": "5"}, "no field 'question'"),
        ("math", {"problem": " ", "answer": "5"}, "field 'problem' is blank"),
        ("math", {"problem": "q"}, "field 'answer' is missing or null"),
        ("math", {"problem": "q", "solution": "it is 5"}, "field 'answer' is missing or null"),
        ("math", {"problem": "q", "answer": None}, "field 'answer' is missing or null"),
        ("math", {"problem": "q", "answer": True}, "field 'answer' is a boolean"),
        ("math", {"messages": [{"role": "tool", "content": "x"}], "answer": "5"}, "has role 'tool'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, row: object, message: str) -> None:
    good = {"question": "q", "answer": "a\n#### 5"}
    path = write(tmp_path / "rows.jsonl", good, row)
    with pytest.raises(DataError) as error:
        load_task(TaskConfig(name=name, train=path), seed=0)
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)


def test_ids_must_be_unique(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", MONEY, MONEY)
    with pytest.raises(DataError, match=r"rows\.jsonl: two rows have the id '9'"):
        load_task(TaskConfig(name="gsm8k", test=path), seed=0)


def test_arithmetic_is_made_here() -> None:
    task = load_task(TaskConfig(chain=4, demonstrations=30), seed=2)
    assert (len(task.train), len(task.test), len(task.demonstrations)) == (NUM_TRAIN, NUM_TEST, 30)
    assert task == load_task(TaskConfig(chain=4, demonstrations=30), seed=2)
    assert task.train != load_task(TaskConfig(chain=4, demonstrations=30), seed=3).train
    assert (task.splitter, task.first_error) == (SPLIT, first_error_step)
    few = load_task(TaskConfig(chain=4, demonstrations=1, limit=7), seed=2)
    assert few.train == task.train[:7]
    assert few.test == task.test[:7]
    # chain 1: 81 problems, a quarter of them to train on, and 81 // 32 to test
    short = load_task(TaskConfig(chain=1, demonstrations=1), seed=2)
    assert (len(short.train), len(short.test)) == (20, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TaskConfig(name="gsm8"), 'task.name = "gsm8" is no task;'),
        (TaskConfig(name="gsm8k"), "task.train and task.test are empty"),
        (TaskConfig(format="boxed"), 'task.format = "boxed", but arithmetic has only its own form'),
        (TaskConfig(train="a.jsonl"), 'task.train = "a.jsonl", but arithmetic makes its own prompts'),
        (TaskConfig(chain=0), "task.chain = 0"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(config: TaskConfig, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_task(config, seed=0)
    assert message in str(error.value)


def test_a_missing_file_is_not_taken_for_a_hub_name() -> None:
    with pytest.raises(DataError, match=r"data/train\.jsonl: no such file; .* owner/name or owner/name:config"):
        read_rows("data/train.jsonl", split="train")
    with pytest.raises(DataError, match="gsm8k: no such file"):
        read_rows("gsm8k", split="train")


def test_without_the_extra_the_fix_is_named() -> None:
    with pytest.raises(ConfigError, match=r'need the package no_such_library: pip install "prmkit\[hub\]"'):
        import_datasets("no_such_library")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@needs_datasets
@pytest.mark.usefixtures("cache")
def test_a_folder_and_a_parquet_file_give_the_rows_of_their_split(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", CLIPS, CLIPS | {"id": "mine"})
    write(folder / "test.jsonl", {k: v for k, v in MONEY.items() if k != "id"})
    task = load_task(TaskConfig(name="gsm8k", train=str(folder), test=str(folder)), seed=0)
    assert [(p.id, p.answer) for p in task.train] == [(f"{folder}:train:0", "72"), ("mine", "72")]
    assert [(p.id, p.answer) for p in task.test] == [(f"{folder}:test:0", "2,000")]
    datasets.Dataset.from_list([CLIPS]).to_parquet(tmp_path / "rows.parquet")
    (row,) = read_rows(str(tmp_path / "rows.parquet"), split="test")
    assert dict(row.fields) == CLIPS


@needs_datasets
@pytest.mark.usefixtures("cache")
def test_a_data_set_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    write(tmp_path / "bad" / "train.jsonl", CLIPS)
    with pytest.raises(DataError, match="bad: has no split 'test', only train"):
        read_rows(str(tmp_path / "bad"), split="test")
    (tmp_path / "worse").mkdir()
    (tmp_path / "worse" / "train.jsonl").write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(DataError, match=r"worse: neither a path nor a data set .*: .*JSON"):
        read_rows(str(tmp_path / "worse"), split="train")
    with pytest.raises(DataError, match="no-owner/no-name:main: neither a path nor a data set"):
        read_rows("no-owner/no-name:main", split="train")
