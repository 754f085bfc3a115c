"""A run is a folder: configuration, one line of metrics a step, rollouts, checkpoints. Nothing in it is ever half written."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from prmkit.errors import CheckpointError, ConfigError, DataError
from prmkit.models.folders import weights_digest

MAY_CHANGE = (
    "run_dir",
    "steps",
    "save_every",
    "keep_checkpoints",
    "record_rollouts_every",
    "keep_rollouts",
    "report_to",
)
"""Top-level keys that a run may be continued with at another value. More steps make a run longer."""
LEARNS_OTHERWISE = "algorithm.filter."
"""What may change, too, for a run whose filter lets nothing pass has no other way on. The folder keeps both configurations."""
MODELS = "models.json"
LOGS = ("metrics.jsonl", "timings.jsonl", "eval.jsonl")
_held: dict[tuple[int, int, int], int] = {}
"""Locks of this process: descriptors by process, device and inode of the run's folder."""


class RunFolder:
    """Paths and writes of one run. Log files hold exactly the steps up to the last checkpoint when a run goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def open(self, resolved: str, frozen: Mapping[str, Path] | None = None) -> None:
        """Make the folder with its configuration, or check that it is the same run. `resolved` is TOML; `frozen`: folders of
        the models whose weights no checkpoint holds, by the keys that name them.

        The folder is this process's until `close`, or its end. Raises ConfigError when another process has it, and when it
        holds a run of another configuration or with other frozen weights, naming what differs.
        """
        with self._writing("the run folder"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock()
            (self.path / "rollouts").mkdir(exist_ok=True)
            for leftover in (*self.checkpoints.glob(".writing-*"), *self.checkpoints.glob(".removing-*")):
                shutil.rmtree(leftover)
            for leftover in self.path.glob(".writing-*"):
                leftover.unlink()
        config = self.path / "config.toml"
        if not config.exists():
            self._check_frozen(frozen or {})
            self.write_text("config.toml", resolved)
            return
        old, new = tomllib.loads(config.read_text(encoding="utf-8")), tomllib.loads(resolved)
        changed = sorted(_differences(old, new))
        refused = [difference for difference in changed if not difference.startswith(LEARNS_OTHERWISE)]
        if refused:
            raise ConfigError(
                f"{self.path} holds a run with another configuration; it differs in {', '.join(refused)}. "
                "Give the run another run_dir, or delete the folder"
            )
        self._check_frozen(frozen or {})
        if changed:
            before = f"config_until_step_{max(self.saved_steps(), default=0):06d}.toml"
            if not (self.path / before).exists():  # else the last one has not made a step
                self.write_text(before, config.read_text(encoding="utf-8"))
            self.write_text("config.toml", resolved)

    def close(self) -> None:
        """Let other processes have the folder."""
        with suppress(FileNotFoundError):
            handle = _held.pop(self._key(), None)
            if handle is not None:
                os.close(handle)

    def _key(self) -> tuple[int, int, int]:
        found = self.path.stat()
        return os.getpid(), found.st_dev, found.st_ino

    def _lock(self) -> None:
        """Of the kernel, which frees it when the process ends in whatever way."""
        if self._key() in _held:
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise ConfigError(
                f"{self.path} is in use: another process runs there, and two would delete each other's files. Wait for it, "
                "stop it, or give this run another run_dir"
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            return
        _held[self._key()] = handle

    def _check_frozen(self, frozen: Mapping[str, Path]) -> None:
        """Raises ConfigError where a run would go on with other frozen weights than it began with."""
        file = self.path / MODELS
        known = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() and self.saved_steps() else {}
        )  # older runs have no such file
        now = {key: {"folder": str(path), "weights": weights_digest(path)} for key, path in frozen.items()}
        for key, model in now.items():
            if key in known and known[key]["weights"] != model["weights"]:
                raise ConfigError(
                    f"{self.path} began with {key} = {known[key]['folder']}, and its weights are others than those of "
                    f"{model['folder']} now. Of a run's folder the last checkpoint is taken. Put the old weights back, or give "
                    "the run another run_dir"
                )
        if now and not known:
            self.write_text(MODELS, json.dumps(now, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """A small file, whole or not at all."""
        with self._writing(name):
            aside = self.path / f".writing-{name.replace('/', '-')}"
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, self.path / name)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One more line of a JSONL log."""
        with self._writing(name), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def has_row(self, name: str, step: int) -> bool:
        """Whether a JSONL log has a line of this step."""
        file = self.path / name
        return file.exists() and any(json.loads(line)["step"] == step for line in _whole_lines(file))

    def write_rollouts(self, step: int, rows: Iterable[Mapping[str, Any]], *, every: int, keep: int) -> None:
        """The recorded rollouts of a step: of step 1 and of every `every`-th.

        Beyond `keep` files only every second one stays, then every fourth and so on, with the first and the newest. What
        stays follows from `step` alone, so a run that was killed and goes on ends with the same files.
        """
        self.write_text(f"rollouts/step_{step:06d}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        stride = every
        while step // stride + 2 > keep and stride <= step:
            stride *= 2
        for file in (self.path / "rollouts").glob("step_*.jsonl"):
            recorded = int(file.stem.removeprefix("step_"))
            if recorded % stride and recorded not in (1, step):
                file.unlink()

    def save_checkpoint(
        self, step: int, state: Mapping[str, Any], models: Mapping[str, Callable[[Path], None]], keep: int
    ) -> Path:
        """Write aside, then rename; older checkpoints go only after that. Raises CheckpointError when it can't be written."""
        aside, final = self.checkpoints / f".writing-step_{step:06d}", self.checkpoints / f"step_{step:06d}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            for name, save in models.items():
                save(aside / name)
            torch.save(_canonical(state), aside / "trainer.pt")
            _flush(aside)
            for log in filter(Path.exists, (self.path / name for name in LOGS)):
                _flush_one(log)  # the checkpoint says that these steps are done
            if final.exists():
                self._remove(step)
            os.replace(aside, final)
            _flush_one(self.checkpoints)
        except (OSError, SafetensorError, RuntimeError) as error:
            size = sum(f.stat().st_size for f in aside.rglob("*") if f.is_file())
            free = shutil.disk_usage(self.checkpoints).free  # torch does not say that a disk is full
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written under {self.checkpoints}: {error} "
                f"(after {size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free). Earlier checkpoints are whole. "
                "Free some space and run the same command again"
            ) from error
        self.prune(keep)
        return final

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the newest `keep`. Each is renamed first: half of one never looks like a whole one."""
        for old in self.saved_steps()[:-keep]:
            self._remove(old)

    def _remove(self, step: int) -> None:
        doomed = self.checkpoints / f".removing-step_{step:06d}"
        os.replace(self.checkpoints / f"step_{step:06d}", doomed)
        shutil.rmtree(doomed)

    def saved_steps(self) -> list[int]:
        """Steps of the whole checkpoints, in order. What somebody has put beside them, such as `step_000040.old`, is none."""
        names = [path.name.removeprefix("step_") for path in self.checkpoints.glob("step_*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def load_checkpoint(self, step: int) -> dict[str, Any]:
        """The trainer's state. Raises CheckpointError for a file that cannot be read."""
        file = self.checkpoints / f"step_{step:06d}" / "trainer.pt"
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]  # torch goes on about trusting the file
            raise CheckpointError(
                f"{file} cannot be read: {reason}. Delete the folder {file.parent} to go on from the one before"
            ) from error
        return state

    def rewind(self, step: int) -> None:
        """Cut the logs back to `step`, the last one that a checkpoint knows of; later rollouts go as well."""
        for name in LOGS:
            file = self.path / name
            if file.exists():
                kept = [line for line in _whole_lines(file) if json.loads(line)["step"] <= step]
                self.write_text(name, "".join(kept))
        for file in (self.path / "rollouts").glob("step_*.jsonl"):
            if int(file.stem.removeprefix("step_")) > step:
                file.unlink()

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{name} could not be written in {self.path}: {error}. Free some space or check the permissions, "
                "and run the same command again: the run goes on from its last checkpoint"
            ) from error


def _canonical(value: Any) -> Any:
    """The same value in new containers and with interned strings.

    Pickle writes an object that it meets again as a reference, so the bytes of a checkpoint would depend on which equal
    strings and tuples are one object: in a run that goes on they are others than in one that was never stopped.
    """
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_canonical(item) for item in value)
    return sys.intern(value) if isinstance(value, str) else value


def _whole_lines(file: Path) -> Iterator[str]:
    """Lines of a log; a last line that a kill cut off is left out, a broken one elsewhere is an error."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith("\n"):
            return
        try:
            json.loads(line)["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}:{number}: not a line of this log ({error}); mend or delete the file") from error
        yield line


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(set(old) | set(new)):
        name = f"{prefix}{key}"
        if name == "run" or (not prefix and key in MAY_CHANGE):
            continue
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{name}.")
        elif a != b:
            yield f"{name} ({a!r} there, {b!r} now)"


def _flush(folder: Path) -> None:
    """Bytes on the disk before the rename, so that a power cut cannot leave a whole name on half a file."""
    for file in folder.rglob("*"):
        if file.is_file():
            _flush_one(file)
    _flush_one(folder)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
