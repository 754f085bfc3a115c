"""Scoring a file: numbers, order, what fails, and going on after a kill."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from score_setup import WRITTEN_BY, LengthScorer, lines, many, run, solution

from prmkit.data.formats import BadRow
from prmkit.data.types import Solution, StepRewards
from prmkit.errors import CheckpointError, ConfigError, DataError, ModelError
from prmkit.evaluate.ledger import append
from prmkit.evaluate.score_config import PRMOverrides, ScoreConfig
from prmkit.evaluate.score_files import ScoreFiles, file_hash, first_failure, model_fingerprint, note_writer, read_done
from prmkit.evaluate.scoring import Tally, scored_row, survey
from prmkit.protocols import Unscored


@pytest.fixture
def files(tmp_path: Path) -> ScoreFiles:
    return ScoreFiles(out=tmp_path / "scores.jsonl")


def test_a_line_holds_rewards_prefix_sums_and_aggregates() -> None:
    known = solution(7, steps=("a", "b", "c"), labels=(1.0, 0.0, None), outcome=0.0, answer="8", language="en")
    row = scored_row(known, StepRewards(values=(0.5, -2.0, 1.0), kind="log_ratio"), model="m")
    assert row["rewards"] == [0.5, -2.0, 1.0]
    assert row["cumulative"] == [0.5, -1.5, -0.5]
    assert row["kind"] == "log_ratio"
    product = row["aggregates"].pop("prod")
    assert row["aggregates"] == {"min": -2.0, "last": 1.0, "mean": -0.5 / 3, "sum": -0.5}
    assert product == pytest.approx(0.6224593312 * 0.1192029220 * 0.7310585786, rel=1e-9)  # sigmoids of the three
    assert row["steps"] == ["a", "b", "c"]
    assert row["labels"] == [1.0, 0.0, None]
    assert (row["id"], row["outcome"], row["answer"], row["language"]) == ("s7", 0.0, "8", "en")
    assert row["prompt"]["messages"] == [{"role": "user", "content": "What is 7?"}]


def test_a_line_says_which_prompt_and_steps_it_is_about() -> None:
    known = Solution(id="a", prompt=solution(7).prompt, steps=("x \u00b7 7", "y"))
    row = scored_row(known, StepRewards(values=(0.5, 0.5), kind="probability"), model="m")
    text = '{"messages":[["user","What is 7?"]],"steps":["x \u00b7 7","y"]}'
    assert row["solution_sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_without_texts_a_line_is_id_and_numbers() -> None:
    row = scored_row(solution(1), StepRewards(values=(0.5, 0.25), kind="probability"), model="m", texts=False)
    assert set(row) == {"id", "solution_sha256", "model", "kind", "rewards", "cumulative", "aggregates"}


def test_three_bad_rows_of_ten_thousand_do_not_stop_the_others(files: ScoreFiles) -> None:
    tally = run(files, many(10_000, bad=(17, 4_444), long=(9_999,)), LengthScorer(), window=1000)
    assert tally == Tally(scored=9_997, failed=3)
    assert lines(files.errors) == [
        {"line": 17, "id": None, "reason": "not JSON"},
        {"line": 4_444, "id": None, "reason": "not JSON"},
        {"line": 9_999, "id": "s9999", "reason": "20000 characters, the context holds 10000"},
    ]
    ids = [row["id"] for row in lines(files.out)]
    assert ids == [f"s{n}" for n in range(1, 10_001) if n not in (17, 4_444, 9_999)]
    assert not any(value == 0 for row in lines(files.out) for value in row["rewards"])


def test_rewards_stand_with_their_own_solution(files: ScoreFiles) -> None:
    run(files, many(50), LengthScorer(), window=50)
    for number, row in enumerate(lines(files.out), 1):
        assert row["rewards"] == pytest.approx([-1 / len(step) for step in solution(number).steps], abs=1e-6)


def test_one_window_is_in_memory_at_a_time(files: ScoreFiles) -> None:
    taken: list[int] = []

    class Counting(LengthScorer):
        def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
            sizes.append((len(solutions), len(taken)))
            return super().score_all(solutions)

    def rows():  # type: ignore[no-untyped-def]
        for row in many(100):
            taken.append(1)
            yield row

    sizes: list[tuple[int, int]] = []
    run(files, rows(), Counting(), window=32)
    assert sizes == [(32, 32), (32, 64), (32, 96), (4, 100)]


def test_an_id_that_stands_twice_names_both_lines() -> None:
    bad = BadRow(where="in.jsonl:2", reason="not JSON")
    rows = [(1, solution(1)), (2, bad), (3, solution(3)), (4, solution(1))]
    with pytest.raises(DataError, match=r"in\.jsonl:4: the id 's1' stands on line 1 already"):
        survey(rows, "in.jsonl")
    assert survey(rows[:3], "in.jsonl") == 3


@pytest.mark.parametrize("keep", ["nothing", "half a line", "three lines", "a window and a half", "all but the last"])
def test_a_run_that_goes_on_ends_in_the_same_bytes(files: ScoreFiles, tmp_path: Path, keep: str) -> None:
    rows = {"bad": (5,), "long": (11,)}
    run(files, many(30, **rows), LengthScorer(), window=8)
    whole, errors = files.out.read_bytes(), files.errors.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    size = {
        "nothing": 0,
        "half a line": ends[0] // 2,
        "three lines": ends[2],
        "a window and a half": ends[11] + 20,
        "all but the last": ends[-2],
    }[keep]
    files.out.write_bytes(whole[:size])
    files.errors.write_bytes(errors if size > ends[3] else b"")
    assert run(files, many(30, **rows), LengthScorer(), window=8) == Tally(scored=28, failed=2)
    assert files.out.read_bytes() == whole
    assert files.errors.read_bytes() == errors


def test_the_batches_of_a_window_matter_to_the_last_digit(files: ScoreFiles, tmp_path: Path) -> None:
    """Else the test above could not fail: the scorer's numbers depend on their batch."""
    other = ScoreFiles(out=tmp_path / "other.jsonl")
    run(files, many(30), LengthScorer(), window=8)
    run(other, many(30), LengthScorer(), window=5)
    assert files.out.read_bytes() != other.out.read_bytes()


def test_windows_that_are_done_are_not_scored_again(files: ScoreFiles) -> None:
    first = LengthScorer()
    run(files, many(24), first, window=8)
    again = LengthScorer()
    before = files.out.read_bytes()
    assert run(files, many(24), again, window=8) == Tally(scored=24, failed=0)
    assert (first.calls, again.calls) == (3, 0)
    assert files.out.read_bytes() == before


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("score_setup.py"))]
    unbroken = ScoreFiles(out=tmp_path / "unbroken.jsonl")
    assert subprocess.run([*command, str(unbroken.out)], check=False).returncode == 0
    broken = ScoreFiles(out=tmp_path / "broken.jsonl")
    draw, kills = random.Random(0), 0
    while True:
        size = broken.out.stat().st_size if broken.out.exists() else 0
        started = subprocess.Popen([*command, str(broken.out)])
        while started.poll() is None and (broken.out.stat().st_size if broken.out.exists() else 0) <= size:
            time.sleep(0.001)  # until it has added something, else it might never get on
        with suppress(subprocess.TimeoutExpired):
            started.wait(timeout=0.03 * draw.random())
        started.kill()
        if (code := started.wait()) == 0:  # it may have ended just before
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert broken.out.read_bytes() == unbroken.out.read_bytes()
    assert broken.errors.read_bytes() == unbroken.errors.read_bytes()


def test_two_processes_do_not_write_one_file(files: ScoreFiles, tmp_path: Path) -> None:
    """By another name of its folder, too: what stands for a file is where it lies."""
    (tmp_path / "link").symlink_to(tmp_path)
    code = (
        "import sys; from prmkit.evaluate.ledger import *; hold(Path(sys.argv[1])); print('held', flush=True); input()"
    )
    holding = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "link" / files.out.name)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holding as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"scores\.jsonl is in use: another process writes it"):
            run(files, many(24), LengthScorer(), window=8)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link"]
        other.kill()
    assert run(files, many(24), LengthScorer(), window=8) == Tally(scored=24, failed=0)
    assert run(files, many(24), LengthScorer(), window=8) == Tally(scored=24, failed=0)  # one process may go on


def test_another_model_or_other_data_is_refused_with_what_differs(files: ScoreFiles) -> None:
    run(files, many(4), LengthScorer(), window=8)
    with pytest.raises(ConfigError) as error:
        run(files, many(4), LengthScorer(), window=8, spec={"family": "log_prob", "beta": 0.5}, source_sha256="bb")
    assert 'spec.beta: 1.0 then, 0.5 now; source_sha256: "aa" then, "bb" now' in str(error.value)
    assert "model" not in str(error.value).split("(")[1].split(")")[0]


def test_a_file_that_nothing_explains_is_left_alone(files: ScoreFiles) -> None:
    files.out.write_text('{"mine": 1}\n')
    with pytest.raises(ConfigError, match=r"scores\.jsonl\.meta\.json is not beside it"):
        run(files, many(4), LengthScorer(), window=8)
    assert files.out.read_text() == '{"mine": 1}\n'


def test_new_versions_may_go_on_and_are_noted(files: ScoreFiles) -> None:
    run(files, many(4), LengthScorer(), window=8)
    for commit in ("c0ffee", "decaf", "decaf"):
        note_writer(files, read_done(files), {**WRITTEN_BY, "commit": commit})
    meta = json.loads(files.meta.read_text())
    assert meta["written_by"] == [{"from_row": 1, **WRITTEN_BY}, {"from_row": 5, "prmkit": "0.1.0", "commit": "decaf"}]
    assert meta["model"] == "lengths"


def test_errors_of_scores_that_were_removed_are_forgotten(files: ScoreFiles) -> None:
    run(files, many(4, bad=(2,)), LengthScorer(), window=8)
    files.out.unlink()
    files.meta.unlink()
    assert run(files, many(4), LengthScorer(), window=8) == Tally(scored=4, failed=0)
    assert not files.errors.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [("no JSON", "not a JSON object"), ('{"id": 3}', "no score of prmkit"), ('{"id": "s1"}', "second one of one id")],
)
def test_damage_that_a_kill_cannot_make_is_named_by_line(files: ScoreFiles, line: str, message: str) -> None:
    files.out.write_text('{"id": "s1"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"scores\.jsonl:2: .*{message}"):
        read_done(files)


def test_a_scorer_that_gives_too_few_results_is_at_fault(files: ScoreFiles) -> None:
    class Forgetful(LengthScorer):
        def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
            return super().score_all(solutions)[1:]

    with pytest.raises(ModelError, match="lengths: 3 results for 4 solutions"):
        run(files, many(4), Forgetful(), window=8)


def test_rewards_that_are_not_one_a_step_are_an_error_of_that_row(files: ScoreFiles) -> None:
    class Short(LengthScorer):
        def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
            return [StepRewards(values=(0.5, 0.5), kind="probability") for _ in solutions]

    assert run(files, many(3), Short(), window=8) == Tally(scored=1, failed=2)
    assert [row["reason"] for row in lines(files.errors)] == [
        "lengths gave 2 rewards for 3 steps; a PRM gives one for each",
        "lengths gave 2 rewards for 4 steps; a PRM gives one for each",
    ]


def test_half_of_a_surrogate_pair_is_written_as_json_states_it(files: ScoreFiles) -> None:
    append(files.out, [{"id": "a", "steps": ["\ud83d"]}, {"id": "b", "steps": ["é"]}])
    assert files.out.read_bytes() == b'{"id": "a", "steps": ["\\ud83d"]}\n{"id": "b", "steps": ["\xc3\xa9"]}\n'


def test_a_full_disk_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r"Free some space; the same command then goes on"):
        append(Path("/dev/full"), [{"id": "a"}])


def test_a_models_fingerprint_follows_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = bytearray(random.Random(0).randbytes(6 * 2**20))  # larger than what is read whole
    (folder / "model.safetensors").write_bytes(weights)
    before = model_fingerprint(folder)
    assert model_fingerprint(folder) == before
    (folder / "README.md").write_text("notes are not weights")
    assert model_fingerprint(folder) == before
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(folder) != before


def test_the_hash_of_a_missing_source_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        file_hash(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 0}, "window = 0"),
        ({"limit": -1}, "limit = -1"),
        ({"out": "scores.json"}, r"set out = \"scores.json.jsonl\""),
        ({"html": "page.pdf"}, "the page is an HTML file"),
        ({"html": "page.html", "texts": False}, "texts = false leaves no steps"),
        ({"source": "a.jsonl", "out": "a.jsonl"}, "is the source itself"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoreConfig(**values)  # type: ignore[arg-type]


def test_beta_is_a_positive_number() -> None:
    for beta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="beta = "):
            PRMOverrides(beta=beta)


def test_a_row_that_cannot_be_read_may_have_the_id_of_another(files: ScoreFiles) -> None:
    """Its id is noted, and the sound row of that id is scored all the same, also by a run that goes on."""
    rows = [*many(4), (5, BadRow(where="in.jsonl:5", reason="in.jsonl:5: no steps", id="s6")), (6, solution(6))]
    run(files, iter(rows[:5]), LengthScorer(), window=2)
    assert run(files, iter(rows), LengthScorer(), window=2) == Tally(scored=5, failed=1)
    assert [row["id"] for row in lines(files.out)] == ["s1", "s2", "s3", "s4", "s6"]
    assert lines(files.errors) == [{"line": 5, "id": "s6", "reason": "in.jsonl:5: no steps"}]
    assert run(files, iter(rows), LengthScorer(), window=2) == Tally(scored=5, failed=1)
    assert first_failure(files, "in.jsonl") == "in.jsonl:5: no steps"
