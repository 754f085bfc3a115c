"""Folders that are made once and then only read, and where they are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def work_dir() -> Path:
    """Where models that prmkit makes or unpacks are kept: $PRMKIT_CACHE, by default ~/.cache/prmkit."""
    return Path(os.environ.get("PRMKIT_CACHE") or Path.home() / ".cache" / "prmkit")


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
