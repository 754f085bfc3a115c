"""A long evaluation: killed at its writes and gone on with, it ends in the same bytes; other settings are refused."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from rl_setup import At, Commands, Done, scratch, taught_model

from prmkit.cli.main import main
from prmkit.config import JudgeConfig, VerifierConfig, VerifierPart
from prmkit.data.types import FinishReason, Message, Prompt, Verdict, VerdictStatus
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.again import judge_again
from prmkit.evaluate.ledger import differences, rewrite
from prmkit.evaluate.record import Record
from prmkit.evaluate.responses import Question, Response
from prmkit.verify import verifier_identity

ARGS = (
    "--model.device=cpu",
    "--model.threads=1",
    "--task.chain=2",
    "--prompts=10",
    "--batch-size=3",
    "--samples=3",
    "--sampling.max-tokens=24",
)


@functools.cache
def shell() -> Commands:
    """Commands for which there is no git: somebody may commit while these tests run, and a result names the commit."""
    before = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = os.devnull
    try:
        made = Commands()
    finally:
        os.environ.pop("GIT_DIR")
        if before is not None:
            os.environ["GIT_DIR"] = before
    atexit.register(made.close)
    return made


def evaluate(folder: Path, *more: str, at: At | None = None) -> Done:
    """`prmkit eval` into the folder."""
    args = ("eval", f"--model.path={taught_model()}", *ARGS, f"--out={folder / 'r.json'}", *more)
    return shell().run(*args, watch=folder, at=at)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file, but for the folder's own name, which the result repeats from the configuration."""
    place = str(folder).encode()
    return {path.name: path.read_bytes().replace(place, b"FOLDER") for path in sorted(folder.iterdir())}


def copy_of_the_whole(folder: Path) -> None:
    for name, data in never_killed()[1].items():
        (folder / name).write_bytes(data.replace(b"FOLDER", str(folder).encode()))


@functools.cache
def never_killed() -> tuple[Done, dict[str, bytes]]:
    folder = scratch() / "eval-never-killed"
    folder.mkdir()
    done = evaluate(folder)
    assert done.code == 0, done.err
    return done, bytes_of(folder)


def test_a_run_writes_its_record_and_its_result() -> None:
    files = never_killed()[1]
    assert list(files) == ["r.items.jsonl", "r.json", "r.meta.json"]
    result = json.loads(files["r.json"])
    items = [json.loads(line) for line in files["r.items.jsonl"].splitlines()]
    assert [item["id"] for item in items] == [question["prompt_id"] for question in result["questions"]]
    assert len(items) == 10
    assert 0 < result["accuracy"]["sampled"]["mean"] < 1, "the taught model is right part of the time"
    assert result["model"]["weights_sha256"] == json.loads(files["r.meta.json"])["model"]["weights_sha256"]
    (writer,) = result["written_by"]
    assert (writer["from_question"], writer["torch"]) == (1, result["versions"]["torch"])


@pytest.mark.slow
def test_killed_at_every_write_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    writes = never_killed()[0].writes
    appended = [i for i, write in enumerate(writes) if "items" in write]
    assert len(appended) >= 4, writes
    for write in range(1, len(writes)):
        folder = tmp_path / str(write)
        folder.mkdir()
        killed = evaluate(folder, at=At(write=write))
        assert killed.code == -9, (write, writes[write], killed.err)
        done = evaluate(folder)
        assert done.code == 0, (write, writes[write], done.err)
        left = {name: data for name, data in bytes_of(folder).items() if not name.endswith(".part")}
        assert left == never_killed()[1], (write, writes[write])


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Half of a line stays behind each time; what is judged already is not asked again."""
    seen = 0
    for attempt in range(3):
        assert evaluate(tmp_path, at=At(matching="items", write=1)).code == -9
        items = tmp_path / "r.items.jsonl"
        lines = items.read_bytes().splitlines(keepends=True) if items.exists() else []
        assert len(lines) >= seen, attempt
        seen = len(lines)
        if lines:
            items.write_bytes(b"".join(lines) + lines[0][: len(lines[0]) // 2])
    done = evaluate(tmp_path)
    assert done.code == 0, done.err
    assert f"{seen} of 10 questions are judged already" in done.out
    assert bytes_of(tmp_path) == never_killed()[1]


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    copy_of_the_whole(tmp_path)
    (tmp_path / "r.json").unlink()
    done = evaluate(tmp_path)
    assert "10 of 10 questions are judged already" in done.out
    assert [write for write in done.writes if "items" in write] == [], "nothing is appended"
    assert bytes_of(tmp_path) == never_killed()[1]


def test_other_settings_are_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    copy_of_the_whole(tmp_path)
    changed = evaluate(tmp_path, "--sampling.temperature=0.5", "--seed=3")
    assert changed.code == 2
    complaint = changed.complaint()
    assert "r.json was begun with other settings (config.seed: 0 then, 3 now; " in complaint
    assert "config.sampling.temperature: 1.0 then, 0.5 now" in complaint
    assert bytes_of(tmp_path) == never_killed()[1]
    page = tmp_path / "page.html"
    again = evaluate(tmp_path, "--verifier.workers=2", f"--html={page}")
    assert again.code == 0, "neither the number of processes nor a page changes a number"
    assert again.out.strip().endswith(f"page: {page}")
    assert "arithmetic version 1" in page.read_text()


def test_a_question_has_the_same_answers_wherever_it_stands(tmp_path: Path) -> None:
    rows = [{"id": i, "question": f"{i}+{i + 1}=?", "answer": str(2 * i + 1)} for i in range(1, 7)]

    def answers(name: str, order: list[dict[str, object]]) -> dict[str, list[str]]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "q.jsonl").write_text("\n".join(map(json.dumps, order)))
        done = shell().run(
            "eval", f"--model.path={taught_model()}", "--model.device=cpu", "--model.threads=1", "--task.name=math",
            "--task.test=q.jsonl", "--samples=3", "--sampling.max-tokens=12", "--out=r.json", cwd=folder,
        )  # fmt: skip
        assert done.code == 0, done.err
        questions = json.loads((folder / "r.json").read_text())["questions"]
        return {q["prompt_id"]: [member["text"] for member in q["sampled"]] for q in questions}

    forwards = answers("a", rows)
    assert answers("b", rows[::-1]) == forwards
    assert answers("c", rows[3:5]) == {key: value for key, value in forwards.items() if key in ("math/4", "math/5")}


def with_own_reward(folder: Path) -> Done:
    return shell().run(
        "eval", f"--model.path={taught_model()}", *ARGS, "--verifier.function=own_reward:score", "--out=r.json", cwd=folder
    )  # fmt: skip


def test_verdicts_of_a_reward_function_are_not_kept_when_it_was_edited(tmp_path: Path) -> None:
    source = tmp_path / "own_reward.py"
    source.write_text("def score(data_source, solution_str, ground_truth, extra_info=None):\n    return 0.25\n")
    first = with_own_reward(tmp_path)
    assert first.code == 0, first.err
    assert with_own_reward(tmp_path).code == 0
    before = bytes_of(tmp_path)
    source.write_text(source.read_text().replace("0.25", "0.75"))
    edited = with_own_reward(tmp_path)
    assert edited.code == 2
    assert re.search(
        r'r\.json was begun with other settings \(verifier\.function\.source: "[0-9a-f]{64}" then, ', edited.complaint()
    )
    assert {**bytes_of(tmp_path), "own_reward.py": b""} == {**before, "own_reward.py": b""}


SHAKY = """
from pathlib import Path

def score(data_source, solution_str, ground_truth, extra_info=None):
    if sum(map(ord, solution_str)) % 2 and (Path(__file__).parent / "down").exists():
        raise RuntimeError("the judge is down")
    return 0.25 + len(solution_str) % 3 / 4
"""


def test_what_the_verifier_broke_on_is_judged_again_from_the_record(tmp_path: Path) -> None:
    calm, shaky = tmp_path / "calm", tmp_path / "shaky"
    for folder in (calm, shaky):
        folder.mkdir()
        (folder / "own_reward.py").write_text(SHAKY)
    assert with_own_reward(calm).code == 0
    (shaky / "down").touch()
    assert with_own_reward(shaky).code == 0
    before = (shaky / "r.items.jsonl").read_bytes()
    assert b"the judge is down" in before
    assert b'"status": "ok"' in before
    assert with_own_reward(shaky).code == 0, "still down: the same errors"
    assert (shaky / "r.items.jsonl").read_bytes() == before
    (shaky / "down").unlink()
    done = with_own_reward(shaky)
    assert done.code == 0, done.err
    assert re.search(r"\d+ questions on record are judged again: a verdict was an error or a timeout", done.out)
    for name in ("r.items.jsonl", "r.json", "r.meta.json"):
        assert (shaky / name).read_bytes() == (calm / name).read_bytes(), name


def test_only_open_verdicts_are_asked_for_again() -> None:
    def member(text: str, status: VerdictStatus, finish: FinishReason = "stop") -> Response:
        verdict = Verdict(status=status, reward=1.0 if status == "ok" else None)
        return Response(text=text, num_tokens=1, finish=finish, verdict=verdict)

    asked: list[str] = []

    class Zero:
        def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
            asked.extend(text for _, text in responses)
            return [Verdict(status="ok", reward=0.0) for _ in responses]

    sampled = (member("a", "ok"), member("b", "error"), member("c", "unparsed"), member("d", "error", "error"))
    (found,) = judge_again(Zero(), [Question(prompt=PROMPTS[0], sampled=sampled, greedy=member("e", "timeout"))])
    assert asked == ["b", "e"]
    assert [r.reward for r in found.sampled] == [1.0, 0.0, None, None]
    assert found.greedy is not None
    assert found.greedy.reward == 0.0


def test_a_record_that_cannot_be_written_anew_is_the_old_one(tmp_path: Path) -> None:
    record = Record(out=tmp_path / "r.json")
    done = record.open(PROMPTS, IDENTITY, {"commit": "1"})
    record.add([question(prompt) for prompt in PROMPTS])
    before = bytes_of(tmp_path)

    def stopped() -> Iterator[dict[str, int]]:
        yield {"id": 1}
        assert record.items.read_bytes() == before["r.items.jsonl"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(record.items, stopped())
    assert bytes_of(tmp_path) == before
    assert done == {}


def test_a_run_without_a_first_answer_binds_nobody(tmp_path: Path) -> None:
    record = Record(out=tmp_path / "r.json")
    record.open(PROMPTS, IDENTITY, {"commit": "1"})
    record.items.write_text('{"id": "a", "samp')  # killed in its first line
    other = {"config": {"seed": 7}}
    assert record.open(PROMPTS, other, {"commit": "2"}) == {}
    assert not record.items.exists()
    meta = json.loads(record.meta.read_text())
    assert meta == {"config": {"seed": 7}, "written_by": [{"from_question": 1, "commit": "2"}]}
    record.add([question(PROMPTS[0])])
    with pytest.raises(ConfigError, match=r"begun with other settings \(config\.seed: 7 then, 0 now"):
        record.open(PROMPTS, {"config": {"seed": 0}}, {"commit": "2"})


def test_other_versions_that_judge_again_are_noted(tmp_path: Path) -> None:
    record = Record(out=tmp_path / "r.json")
    record.open(PROMPTS, IDENTITY, {"commit": "1"})
    record.add([question(prompt) for prompt in PROMPTS])
    done = record.open(PROMPTS, IDENTITY, {"commit": "2"})
    for _ in range(2):
        record.replace(done, [question(PROMPTS[1])], {"commit": "2"}, judged_again=2)
    assert record.written_by() == [{"from_question": 1, "commit": "1"}, {"judged_again": 2, "commit": "2"}]
    assert list(record.open(PROMPTS, IDENTITY, {"commit": "2"})) == ["a", "b", "c"]


def test_what_verdicts_depend_on_is_named_by_part(tmp_path: Path) -> None:
    maths, words = (Prompt(id=use, messages=(), answer="1", meta={"verifier": use}) for use in ("math", "qa"))
    auto = VerifierConfig()
    assert list(verifier_identity(auto, [maths, words])) == ["math", "qa"]
    assert verifier_identity(auto, [words]) == {"qa": {}}, "nothing but prmkit itself"
    assert verifier_identity(auto, [maths])["math"]["math-verify"] == version("math-verify")
    template = tmp_path / "judge.txt"
    judge = VerifierConfig(
        parts=(
            VerifierPart(use="judge", judge=JudgeConfig(url="http://localhost:1", name="j", template=str(template))),
        )
    )
    found = []
    for text in ("{question} {response} is it?", "{question} {response} is it right?"):
        template.write_text(text)
        found.append(verifier_identity(judge, [maths])["0.judge"])
    assert [one["model"] for one in found] == ["j", "j"]
    assert found[0]["template_sha256"] == hashlib.sha256(b"{question} {response} is it?").hexdigest()
    assert found[1]["template_sha256"] != found[0]["template_sha256"]


# ------------------------------------------------------------------------------------------------------------- the record

PROMPTS = [Prompt(id=name, messages=(Message(role="user", content=name),), answer="1") for name in "abc"]
IDENTITY = {"config": {"seed": 0, "task": {"name": "x"}, "stop": ("a",)}}


def question(prompt: Prompt) -> Question:
    member = Response(text="\u00bd", num_tokens=1, finish="stop", verdict=Verdict(status="ok", reward=1.0), answer="1")
    return Question(prompt=prompt, sampled=(member,), greedy=None)


def test_the_record_gives_back_what_it_was_given(tmp_path: Path) -> None:
    record = Record(out=tmp_path / "new" / "r.json")
    assert record.open(PROMPTS, IDENTITY, {"commit": "1"}) == {}
    record.add([question(PROMPTS[0]), question(PROMPTS[1])])
    with record.items.open("ab") as file:
        file.write(b'{"id": "c", "samp')
    again = record.open(PROMPTS, IDENTITY, {"commit": "2"})
    assert again == {"a": question(PROMPTS[0]), "b": question(PROMPTS[1])}
    assert record.items.read_bytes().endswith(b"\n")
    assert record.written_by() == [{"from_question": 1, "commit": "1"}, {"from_question": 3, "commit": "2"}]


def test_damage_is_named(tmp_path: Path) -> None:
    record = Record(out=tmp_path / "r.json")
    record.open(PROMPTS, IDENTITY, {"commit": "1"})
    for text, message in (
        ('{"id": "z", "sampled": [], "greedy": null}\n', r"r\.items\.jsonl:1: no question of this run"),
        ('{"id": "a", "sampled": [{}], "greedy": null}\n', r"r\.items\.jsonl:1: no line of an evaluation's record"),
        ('{"id": "a"\n', r"r\.items\.jsonl:1: not a JSON object; remove the line"),
    ):
        record.items.write_text(text)
        with pytest.raises(DataError, match=message):
            record.open(PROMPTS, IDENTITY, {"commit": "1"})
    record.meta.write_text("{}")
    with pytest.raises(ConfigError, match=r"r\.meta\.json: cannot be read"):
        record.open(PROMPTS, IDENTITY, {"commit": "1"})
    record.meta.unlink()
    with pytest.raises(ConfigError, match=r"r\.meta\.json is not beside it, so nothing says what made it"):
        record.open(PROMPTS, IDENTITY, {"commit": "1"})


def test_differences_are_named_by_key() -> None:
    then = {"config": {"seed": 0, "task": {"name": "x"}, "stop": ["a"]}, "written_by": []}
    assert list(differences(then, IDENTITY)) == []
    now = {"config": {"seed": 1, "task": {"name": "y"}, "stop": ("a",)}}
    assert list(differences(then, now)) == ["config.seed: 0 then, 1 now", 'config.task.name: "x" then, "y" now']


def test_tiny_says_that_it_knows_arithmetic_only(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": 1, "question": "Two and 2?", "answer": "4"}\n')
    words = (
        "eval",
        "--model.path=tiny",
        "--model.device=cpu",
        "--task.name=math",
        "--task.test=q.jsonl",
        "--out=r.json",
    )
    done = shell().run(*words, cwd=tmp_path)
    assert done.code == 2
    assert "`tiny` knows the characters of the task `arithmetic` only" in done.complaint()
    assert "the question 'math/1' has 'T'; set model.path to a model with a tokenizer for text" in done.complaint()
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"], "nothing is begun"


def test_programs_without_tests_are_refused_before_sampling(tmp_path: Path) -> None:
    done = evaluate(tmp_path, "--verifier.use=code")
    assert (done.code, done.writes) == (2, [])
    assert 'verifier.use = "code" runs programs against tests, and none of 10 prompts has any' in done.complaint()


def test_a_wrong_task_is_one_line_of_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--task.name=math500"]) == 2
    assert capsys.readouterr().err.startswith("error: task.test is empty: set it to a file with the rows of MATH-500")
