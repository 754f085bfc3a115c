"""The run folder: what is kept, what is cut back, what is refused; and the polite way to stop."""

from __future__ import annotations

import locale
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from prmkit.errors import CheckpointError, ConfigError, DataError
from prmkit.train.run_folder import RunFolder
from prmkit.train.stop import stop_on_signals


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.open('seed = 0\nsteps = 3\n[algorithm]\nclip = 0.2\n[run]\ncommit = "a"\n')
    return made


def record(folder: RunFolder, steps: range, *, every: int, keep: int) -> list[int]:
    for step in steps:
        if step == 1 or step % every == 0:
            folder.write_rollouts(step, [{"step": step}], every=every, keep=keep)
    return sorted(int(p.stem.removeprefix("step_")) for p in (folder.path / "rollouts").iterdir())


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (20, [1, 10, 20]),
        # 1 and every 10th would be 5 at step 40: every 20th stays, then every 40th, with the first and the newest
        (30, [1, 20, 30]),
        (40, [1, 20, 40]),
        (50, [1, 20, 40, 50]),
        (60, [1, 40, 60]),
        (80, [1, 40, 80]),
        (120, [1, 80, 120]),
    ],
)
def test_rollouts_are_thinned_by_halves(folder: RunFolder, last: int, expected: list[int]) -> None:
    assert record(folder, range(1, last + 1), every=10, keep=4) == expected


def test_no_more_rollouts_than_asked_for_are_kept(folder: RunFolder) -> None:
    for step in range(1, 200):
        kept = record(folder, range(step, step + 1), every=3, keep=5)
        assert len(kept) <= 5
        assert 1 in kept


@pytest.mark.parametrize("killed_at", [3, 17, 24, 40])
@pytest.mark.parametrize("back_to", [0, 2, 12, 16])
def test_thinning_again_after_a_kill_keeps_the_same_files(folder: RunFolder, killed_at: int, back_to: int) -> None:
    other = RunFolder(folder.path.parent / "other")
    other.open("")
    record(other, range(1, killed_at + 1), every=2, keep=4)
    other.rewind(min(back_to, killed_at))
    assert record(other, range(min(back_to, killed_at) + 1, 45), every=2, keep=4) == record(
        folder, range(1, 45), every=2, keep=4
    )


def checkpoint(folder: RunFolder, step: int, *, keep: int = 2, **state: Any) -> Path:
    return folder.save_checkpoint(step, {"step": step, **state}, {"policy": lambda path: path.mkdir()}, keep)


def test_only_the_newest_checkpoints_stay(folder: RunFolder) -> None:
    for step in (2, 10, 9, 100):
        checkpoint(folder, step)
    assert folder.saved_steps() == [10, 100]
    assert [p.name for p in sorted(folder.checkpoints.iterdir())] == ["step_000010", "step_000100"]
    assert folder.load_checkpoint(100) == {"step": 100}


def test_what_a_kill_left_behind_is_removed_on_opening(folder: RunFolder) -> None:
    checkpoint(folder, 1)
    (folder.checkpoints / ".writing-step_000002" / "policy").mkdir(parents=True)
    (folder.checkpoints / ".removing-step_000000").mkdir()
    (folder.path / ".writing-metrics.jsonl").write_text("{")
    folder.open('seed = 0\nsteps = 9\n[algorithm]\nclip = 0.2\n[run]\ncommit = "b"\n')
    assert [p.name for p in folder.checkpoints.iterdir()] == ["step_000001"]
    assert sorted(p.name for p in folder.path.iterdir()) == ["checkpoints", "config.toml", "rollouts"]
    assert folder.saved_steps() == [1]


def test_what_somebody_has_put_beside_the_checkpoints_is_none(folder: RunFolder) -> None:
    for step in (1, 2, 3):
        checkpoint(folder, step)
        (folder.checkpoints / f"step_{step:06d}.old").mkdir()
    assert folder.saved_steps() == [2, 3]
    assert (folder.checkpoints / "step_000001.old").is_dir()


def test_files_are_utf8_in_every_locale(folder: RunFolder) -> None:
    before = locale.setlocale(locale.LC_CTYPE)
    config = 'run_dir = "runs/\u03c0"\n'
    try:
        locale.setlocale(locale.LC_CTYPE, "C")
        other = RunFolder(folder.path.parent / "other")
        other.open(config)
        other.open(config)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert (other.path / "config.toml").read_text(encoding="utf-8") == config


def test_equal_states_are_equal_bytes_whatever_objects_they_are_made_of(folder: RunFolder) -> None:
    """A loaded state has strings and tuples of its own, where a state made here shares them."""
    shared, pair = "momentum", (0.9, 0.999)
    state = {"a": {shared: torch.ones(2), "pair": pair}, "b": {shared: torch.zeros(2), "pair": pair}}
    first = checkpoint(folder, 1, **state)
    loaded = folder.load_checkpoint(1)
    del loaded["step"]
    second = checkpoint(folder, 1, **loaded)
    assert (first / "trainer.pt").read_bytes() == (second / "trainer.pt").read_bytes()
    apart = {"a": {"".join(["momen", "tum"]): torch.ones(2), "pair": (0.9, 0.999)}, "b": state["b"]}
    third = checkpoint(folder, 1, **apart)
    assert (third / "trainer.pt").read_bytes() == (second / "trainer.pt").read_bytes()


def test_a_checkpoint_that_cannot_be_written_leaves_the_others_whole(folder: RunFolder) -> None:
    checkpoint(folder, 1)

    def full(path: Path) -> None:
        path.mkdir()
        (path / "half").write_bytes(bytes(100_000))
        raise OSError(28, "No space left on device")

    with pytest.raises(
        CheckpointError, match=r"step 2 could not be written .* No space left on device \(after 0\.1 MB, "
    ):
        folder.save_checkpoint(2, {}, {"policy": full}, 2)
    assert [p.name for p in folder.checkpoints.iterdir()] == ["step_000001"]


def test_logs_are_cut_back_to_a_step(folder: RunFolder) -> None:
    for step in range(1, 6):
        folder.append("metrics.jsonl", {"step": step})
        folder.append("eval.jsonl", {"step": step})
    with (folder.path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 6, "loss"')  # cut off by a kill
    folder.rewind(3)
    for name in ("metrics.jsonl", "eval.jsonl"):
        assert (folder.path / name).read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    folder.rewind(-1)
    assert (folder.path / "metrics.jsonl").read_text() == ""


def test_a_broken_line_inside_a_log_is_an_error(folder: RunFolder) -> None:
    (folder.path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not a line of this log .* mend or delete the file"):
        folder.rewind(3)


def test_another_configuration_names_every_key_that_differs(folder: RunFolder) -> None:
    with pytest.raises(ConfigError) as caught:
        folder.open("seed = 1\nsteps = 3\nextra = true\n[algorithm]\nclip = 0.3\n")
    assert (
        "it differs in algorithm.clip (0.2 there, 0.3 now), extra (None there, True now), seed (0 there, 1 now). "
        in str(caught.value)
    )


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"the run folder could not be written in .*file: .*Not a directory"):
        RunFolder(tmp_path / "file").open("")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
