"""`prmkit data prepare` from files to the folder that `prmkit rl` reads: nothing lost, killed and gone on with, bad inputs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_api import Asked, Say, chat_api
from prepare_setup import prepare, read, write
from rl_setup import CPU, micro_model

from prmkit.cli.main import main
from prmkit.config import TaskConfig
from prmkit.tasks.arithmetic import arithmetic_prompts
from prmkit.tasks.task import load_task

ROWS: list[dict[str, Any]] = [
    {"id": "keep", "question": "What is $2+3$?", "answer": "5", "level": 1, "solution": "so \\boxed{5}"},
    {"problem": "In the figure, what is $x$?", "answer": "4"},
    {"question": "what is 2 + 3?", "answer": 5.0},
    {"question": "What is $7-3$? (A) 3 (B) 4 (C) 5", "answer": "B"},
    {"question": "Prove that $1<2$.", "answer": None},
    {"question": "Name a mammal with four legs that people keep.", "answer": "a dog or a cat, whichever"},
    {"prompt": [{"role": "system", "content": "Box it."}, {"role": "user", "content": "Compute $6 \\cdot 7$."}],
     "reward_model": {"style": "rule", "ground_truth": "42"}},
]  # fmt: skip


READABLE = [row for row in ROWS if "mammal" not in row.get("question", "")]
"""Rows that need no worker of the verifier."""


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a result, but for where it stands."""
    place = str(folder).encode()
    return {path.name: path.read_bytes().replace(place, b"OUT") for path in sorted(folder.iterdir())}


def test_every_row_is_kept_or_dropped_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "q.jsonl", ROWS)
    assert prepare(tmp_path, f"--source={source}") == 0, capsys.readouterr().err
    out = tmp_path / "out"
    prompts, dropped, counts = (
        read(out / "prompts.jsonl"),
        read(out / "dropped.jsonl"),
        json.loads((out / "counts.json").read_text()),
    )
    assert [row["id"] for row in prompts] == ["keep", "q.jsonl:4", "q.jsonl:7"]
    assert {row["source"]: (row["step"], row["reason"]) for row in dropped} == {
        f"{source}:2": ("rules", "figure"),
        f"{source}:5": ("rules", "empty_answer"),
        f"{source}:6": ("answer", "answer_unreadable"),
        f"{source}:3": ("duplicates", "duplicate"),
    }
    assert [row["row"] for row in dropped] == [ROWS[int(row["source"].rpartition(":")[2]) - 1] for row in dropped]
    assert prompts[0] == {**ROWS[0], "prepare": {"source": f"{source}:1"}}
    assert (prompts[1]["question"], prompts[1]["answer"]) == ("What is $7-3$?", "4")
    assert counts["rows"] == len(prompts) + len(dropped) == 7
    for step, following in zip(counts["steps"], [*counts["steps"][1:], {"in": counts["prompts"]}], strict=True):
        assert step["in"] == step["kept"] + sum(step["dropped"].values())
        assert step["kept"] == following["in"]
    assert [step["name"] for step in counts["steps"]] == ["rules", "answer", "choices", "duplicates", "contamination"]
    printed = capsys.readouterr().out
    assert "nothing was compared" in printed
    assert f"--task.train {out / 'prompts.jsonl'}" in printed


def test_rl_reads_the_prompts(tmp_path: Path) -> None:
    prepare(tmp_path, f"--source={write(tmp_path / 'q.jsonl', READABLE)}")
    task = load_task(TaskConfig(name="math", train=str(tmp_path / "out" / "prompts.jsonl"), format="boxed"), seed=0)
    assert [(prompt.id, prompt.answer) for prompt in task.train] == [
        ("keep", "5"),
        ("q.jsonl:4", "4"),
        ("q.jsonl:6", "42"),
    ]
    assert [message.content for message in task.train[2].messages] == ["Box it.", "Compute $6 \\cdot 7$."]
    assert "7-3" in task.train[1].messages[0].content
    assert "(A)" not in task.train[1].messages[0].content
    assert [prompt.id for prompt, _ in task.demonstrations] == ["keep"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "q.jsonl", READABLE)
    for name in ("a", "b"):
        assert prepare(tmp_path / name, f"--source={source}") == 0
    assert folder_bytes(tmp_path / "a" / "out").keys() == {
        "prompts.jsonl",
        "dropped.jsonl",
        "counts.json",
        "config.toml",
    }
    first, second = (
        {
            name: data.replace(str(tmp_path / run).encode(), b"RUN")
            for name, data in folder_bytes(tmp_path / run / "out").items()
        }
        for run in ("a", "b")
    )
    assert first == second


def test_named_tasks_bring_their_fields(tmp_path: Path) -> None:
    gsm8k = write(tmp_path / "g.jsonl", [{"question": "How many?", "answer": "2 * 3 = <<2*3=6>>6\n#### 6"}])
    svamp = write(
        tmp_path / "s.jsonl", [{"ID": "chal-1", "Body": "Ann has 3.", "Question": "How many?", "Answer": 3.0}]
    )
    assert prepare(tmp_path, "--source", f"gsm8k={gsm8k}", f"svamp={svamp}") == 0
    first, second = read(tmp_path / "out" / "prompts.jsonl")
    assert (first["answer"], first["solution"]) == ("6", "2 * 3 = 6\n#### 6")
    assert (second["id"], second["question"], second["answer"]) == ("chal-1", "Ann has 3. How many?", "3")


def test_answers_in_words_are_read_by_a_task_of_their_own(tmp_path: Path) -> None:
    rows = [{"question": "Who wrote it, and where?", "answer": "Ada Lovelace", "id": 1}]
    name = write(tmp_path / "h.jsonl", rows)
    assert (
        prepare(tmp_path, f"--source=hotpotqa={name}", "--steps", "rules", "answer", "duplicates", "--verifier.use=qa")
        == 0
    )
    out = tmp_path / "out"
    task = load_task(TaskConfig(name=str(out / "task.toml"), train=str(out / "prompts.jsonl")), seed=0)
    (prompt,) = task.train
    assert (prompt.answer, prompt.meta["verifier"]) == ("Ada Lovelace", "qa")


def test_equal_ids_are_numbered_and_an_earlier_preparation_is_kept(tmp_path: Path) -> None:
    row = {"id": 7, "question": "Q one?", "answer": "1", "prepare": {"source": "old.jsonl:1"}}
    source = write(tmp_path / "q.jsonl", [row, {"id": 7, "question": "Q two?", "answer": "2"}])
    assert prepare(tmp_path, f"--source={source}") == 0
    first, second = read(tmp_path / "out" / "prompts.jsonl")
    assert (first["id"], second["id"]) == ("7", "7-2")
    assert first["prepare"] == {"source": f"{source}:1", "earlier": {"source": "old.jsonl:1"}}


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert prepare(folder, *args) == 2
    assert not (folder / "out").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"question": "a", "answer": "1"}\n{"question": "b", \n', ":2: not JSON"),
        ('{"question": "a", "answer": "1"}\n\n{"question": "b", "answer": "1"}\n', ":2: blank line"),
        (
            '{"question": "a", "answer": "1"}\n{"text": "b", "answer": "1"}\n',
            ":2: no question: looked for the fields question, problem",
        ),
        ('{"question": "a", "answer": {"x": 1}}\n', ":1: the reference is {'x': 1}"),
        ('{"question": "a \\ud800", "answer": "1"}\n', ":1: half of a surrogate pair"),
        ("", ": the file is empty"),
    ],
)
def test_rows_that_cannot_be_read_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, message: str
) -> None:
    source = tmp_path / "q.jsonl"
    source.write_text(lines)
    assert f"{source}{message}" in refused(tmp_path, capsys, f"--source={source}")


def test_rows_that_cannot_be_read_can_be_skipped_and_are_not_lost(tmp_path: Path) -> None:
    source = tmp_path / "q.jsonl"
    lines = [
        '{"question": "a", "answer": "1"}',
        "{broken",
        '{"text": "b"}',
        "",
        '{"question": "c \\ud800", "answer": "1"}',
    ]
    source.write_text("\n".join([*lines, '{"question": "d", "answer": "2"}']) + "\n")
    assert prepare(tmp_path, f"--source={source}", "--on-bad=skip") == 0
    assert [row["question"] for row in read(tmp_path / "out" / "prompts.jsonl")] == ["a", "d"]
    dropped = read(tmp_path / "out" / "dropped.jsonl")
    places = [(row["step"], row["source"].rpartition(":")[2]) for row in dropped]
    assert places == [("read", "2"), ("read", "3"), ("read", "4"), ("read", "5")]
    assert dropped[0]["row"] == "{broken"
    assert json.loads(dropped[1]["row"]) == {"text": "b"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--steps", "rules", "duplicate"], 'steps: "duplicate" is no step; did you mean "duplicates"?'),
        (["--rules.use", "figures"], 'rules.use: "figures" is no rule; did you mean "figure"?'),
        (["--contamination.against", "nowhere.jsonl"], "contamination.against: nowhere.jsonl: no such file"),
        (["--contamination.agains", "x"], "--contamination.against"),
        (["--difficulty.bounds", "0.8", "0.2"], "bounds = [0.8, 0.2] is no range"),
        (["--limit=-1"], "limit = -1 is out of range"),
    ],
)
def test_settings_that_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert message in refused(tmp_path, capsys, f"--source={write(tmp_path / 'q.jsonl', ROWS)}", *args)


def test_a_source_is_needed_and_programs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "source is empty" in refused(tmp_path, capsys)
    source = write(tmp_path / "q.jsonl", ROWS)
    assert "not programs" in refused(tmp_path, capsys, "--source", f"humaneval={source}")
    assert '"gsm8" in' in refused(tmp_path, capsys, f"--source=gsm8={source}")
    other = write(tmp_path / "m.jsonl", [{"lang": "en", "id": 1, "question": "One?", "answer": "1"}])
    assert "has no row of mgsm:de" in refused(tmp_path, capsys, f"--source=mgsm:de={other}")


EURUS: list[dict[str, Any]] = [
    {"prompt": [{"role": "user", "content": "What is $2+3$?"}], "ability": "math",
     "reward_model": {"style": "rule", "ground_truth": "5"}},
    {"prompt": [{"role": "user", "content": "Add two numbers."}], "ability": "code",
     "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1 2\\n"], "outputs": ["3\\n"]}'}},
    {"question": "Double it.", "answer": '{"fn_name": "f", "inputs": [[1]], "outputs": [2]}'},
    {"question": "Which set of \\{1, 2\\} is larger than $2$?", "answer": "\\{1, 2\\}"},
]  # fmt: skip


@pytest.mark.parametrize("steps", [["rules"], ["rules", "answer", "choices", "duplicates"]])
def test_programs_among_the_questions_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: list[str]
) -> None:
    source = write(tmp_path / "q.jsonl", EURUS)
    assert prepare(tmp_path, f"--source={source}", "--steps", *steps) == 0, capsys.readouterr().err
    assert "read: 2 of 4" in capsys.readouterr().out
    out = tmp_path / "out"
    assert [row["answer"] for row in read(out / "prompts.jsonl")] == ["5", "\\{1, 2\\}"]
    dropped = [(row["source"], row["step"], row["reason"], row["row"]) for row in read(out / "dropped.jsonl")]
    assert dropped == [(f"{source}:{n + 1}", "read", "program", EURUS[n]) for n in (1, 2)]
    first, second = json.loads((out / "counts.json").read_text())["steps"][:2]
    assert first == {"name": "read", "in": 4, "kept": 2, "dropped": {"program": 2}}
    assert (second["name"], second["in"]) == ("rules", 2)


def test_a_file_of_programs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "q.jsonl", EURUS[1:3])
    message = refused(tmp_path, capsys, f"--source={source}")
    assert "all 2 questions are programs" in message
    assert f"{source}:1: its ability is 'code'" in message


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "q.jsonl", QUESTIONS)
    assert (
        prepare(tmp_path, f"--source={source}", "--steps", "difficulty", "--difficulty.model.path=no/such/folder") == 1
    )
    assert "no/such/folder: no such model folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "q.jsonl", READABLE)
    assert prepare(tmp_path, f"--source={source}") == 0
    before = folder_bytes(tmp_path / "out")
    assert prepare(tmp_path, f"--source={source}") == 2
    assert "exists already, and nothing is overwritten" in capsys.readouterr().err
    assert folder_bytes(tmp_path / "out") == before


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["data", "prepare", "--source=nowhere.jsonl", f"--out={tmp_path / 'file' / 'out'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_empty_result_says_which_step_emptied_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "q.jsonl", [ROWS[1], ROWS[4], ROWS[5]])
    message = refused(tmp_path, capsys, f"--source={source}")
    assert 'step "answer" dropped all 1 questions that came to it (answer_unreadable 1)' in message
    assert f"{source}:3" in message
    assert "rules kept 1 of 3" in message
    assert "[answer]" in message


@pytest.mark.parametrize("words", [["--help"], ["--dry-run"]])
def test_help_and_dry_run_load_no_torch(words: list[str]) -> None:
    code = f"import sys; from prmkit.cli.main import main; main(['data', 'prepare', *{words}]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "steps" in done.stdout


QUESTIONS = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(6)]


def half_right(asked: Asked) -> str:
    """By its seed, an answer that is right or not: the same for the same request."""
    number = int(asked.text.split()[2])
    return rf"\boxed{{{number + 1 + asked.body['seed'] % 2}}}"


def url_args(source: Path, url: str, *more: str) -> list[str]:
    model = [
        f"--difficulty.model.url={url}",
        "--difficulty.model.server.concurrency=1",
        "--difficulty.model.server.attempts=1",
    ]
    sampling = ["--difficulty.samples=4", "--difficulty.batch-size=2", "--difficulty.bounds", "0.1", "0.9"]
    return [f"--source={source}", "--steps", "rules", "difficulty", *model, *sampling, *more]


def test_killed_while_it_samples_it_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL from within the server's answer, in the middle of the second batch."""
    source = write(tmp_path / "q.jsonl", QUESTIONS)
    child: list[subprocess.Popen[bytes]] = []
    started = threading.Event()
    kill_at = [10**9]

    def answer(asked: Asked) -> str:
        if len(api.seen) == kill_at[0]:
            started.wait()
            child[0].send_signal(signal.SIGKILL)
        return half_right(asked)

    with chat_api(answer) as api:
        common = url_args(source, api.url)
        assert prepare(tmp_path / "whole", *common) == 0
        assert len(api.seen) == 24
        api.seen.clear()
        kill_at[0] = 11
        command = ["data", "prepare", f"--out={tmp_path / 'cut' / 'out'}", *common]
        run = f"import sys; from prmkit.cli.main import main; sys.exit(main({command!r}))"
        child.append(subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.DEVNULL, env={**os.environ}))
        started.set()
        assert child[0].wait() == -signal.SIGKILL
        assert not (tmp_path / "cut" / "out").exists()
        api.seen.clear()
        kill_at[0] = 10**9
        assert prepare(tmp_path / "cut", *common) == 0
        assert len(api.seen) == 16, "the first batch of two questions is not asked again"
    whole, cut = (
        {
            name: data.replace(str(tmp_path / run).encode(), b"RUN")
            for name, data in folder_bytes(tmp_path / run / "out").items()
        }
        for run in ("whole", "cut")
    )
    assert whole == cut
    kept = read(tmp_path / "cut" / "out" / "prompts.jsonl")
    by_id: dict[str, list[float]] = {}
    for line in read(tmp_path / "cut" / "out" / "samples.jsonl"):
        by_id.setdefault(line["id"], []).append(line["reward"])
    assert {row["id"]: row["prepare"]["difficulty"]["accuracy"] for row in kept} == {
        name: sum(rewards) / 4 for name, rewards in by_id.items() if 0 < sum(rewards) < 4
    }


def test_a_server_that_fails_stops_the_run_and_nothing_is_dropped_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "q.jsonl", QUESTIONS)
    with chat_api(lambda asked: Say("away", 500) if "3 + 1" in asked.text else half_right(asked)) as api:
        assert prepare(tmp_path, *url_args(source, api.url)) == 1
        message = capsys.readouterr().err
        assert "1 of 6 questions were not sampled" in message
        assert f"{source}:4" in message
        assert not (tmp_path / "out").exists()
        assert prepare(tmp_path, *url_args(source, api.url, "--difficulty.failures=drop")) == 0
    assert [
        (row["id"], row["reason"]) for row in read(tmp_path / "out" / "dropped.jsonl") if row["reason"] == "not_sampled"
    ] == [("q.jsonl:4", "not_sampled")]


def test_a_local_model_gives_the_same_bytes_whatever_of_a_batch_is_known(tmp_path: Path) -> None:
    rows = [{"question": p.messages[0].content, "answer": p.answer} for p in arithmetic_prompts(9, chain=2, seed=3)]
    source = write(tmp_path / "q.jsonl", [*rows, {"question": "three plus four", "answer": "7"}])
    args = [
        f"--source={source}",
        "--steps",
        "difficulty",
        f"--difficulty.model.path={micro_model()}",
        f"--difficulty.model.device={CPU.device}",
        "--difficulty.model.threads=1",
        "--difficulty.template=plain",
        "--difficulty.samples=4",
        "--difficulty.sampling.max-tokens=24",
        "--difficulty.batch-size=4",
        "--difficulty.failures=drop",
        "--difficulty.bounds",
        "0",
        "1",
        f"--cache={tmp_path / 'cache.sqlite'}",
    ]
    assert prepare(tmp_path / "a", *args) == 0
    with sqlite3.connect(tmp_path / "cache.sqlite") as database:
        before = dict(database.execute("SELECT key, found FROM responses"))
        for key in sorted(before)[::2]:
            database.execute("DELETE FROM responses WHERE key = ?", (key,))
    database.close()
    assert prepare(tmp_path / "b", *args) == 0
    first, second = (
        {
            name: data.replace(str(tmp_path / run).encode(), b"RUN")
            for name, data in folder_bytes(tmp_path / run / "out").items()
        }
        for run in ("a", "b")
    )
    assert first == second
    with sqlite3.connect(tmp_path / "cache.sqlite") as database:
        assert dict(database.execute("SELECT key, found FROM responses")) == before
    database.close()
    dropped = {row["id"]: row["reason"] for row in read(tmp_path / "a" / "out" / "dropped.jsonl")}
    assert dropped == {"q.jsonl:10": "not_sampled"}, "its letters are not in the tokenizer"
    responses = [line["response"] for line in read(tmp_path / "a" / "out" / "samples.jsonl")]
    assert len(responses) == 9 * 4
    assert len(set(responses)) > 30, "an untrained model writes noise"


def test_the_verb_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "data prepare" in capsys.readouterr().out
