"""Folders that are made once and then only read, and where they are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from prmkit.data.prm_spec import base_folder
from prmkit.errors import ConfigError

WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
NUM_SAMPLES, SAMPLE_BYTES = 64, 16384


def work_dir() -> Path:
    """Where models that prmkit makes or unpacks are kept: $PRMKIT_CACHE, by default ~/.cache/prmkit.

    Raises ConfigError for a user without a home folder, as in some containers.
    """
    try:
        return Path(os.environ.get("PRMKIT_CACHE") or Path.home() / ".cache" / "prmkit")
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder; set the environment variable PRMKIT_CACHE to a folder for models"
        ) from None


def saved_models(run: Path, name: str) -> list[Path]:
    """Folders of that name in the checkpoints of a run, the last step's last. Copies that somebody has put beside them, such as
    `step_000040.old`, are none."""
    found = {path.parent.name.removeprefix("step_"): path for path in run.glob(f"checkpoints/step_*/{name}")}
    return [found[step] for step in sorted(filter(str.isdecimal, found), key=int)]


def weights_digest(folder: Path) -> str:
    """SHA-256 of the names, sizes and samples of a model's weight files, of an adapter with its base's.

    Samples, since a run asks at each start: weights that were trained on differ everywhere.
    """
    total = hashlib.sha256()
    for file in sorted(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        size = file.stat().st_size
        total.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            for k in range(NUM_SAMPLES):
                opened.seek(k * size // NUM_SAMPLES)
                total.update(opened.read(SAMPLE_BYTES))
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        total.update(weights_digest(base_folder(folder)).encode())
    return total.hexdigest()


def write_folder_once(folder: Path, write: Callable[[Path], object]) -> Path:
    """`folder`, filled by `write` unless it is already there.

    It is written aside and renamed, so a folder that exists is complete; of two writers at once, the first wins.
    """
    if folder.is_dir():
        return folder
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write(aside)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
