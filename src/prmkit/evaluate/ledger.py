"""What long runs write and go on from: JSON lines that are appended, and a sidecar that says what made them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prmkit.data.jsonl import json_line, place
from prmkit.errors import CheckpointError, ConfigError, DataError
from prmkit.evaluate.run import write_result

_held: dict[tuple[int, str], int] = {}
"""Descriptors of what stands for the files that are written, by process and file."""
PLACES = ("from_question", "judged_again", "from_row")
"""Keys that say what a writer wrote; the others say which one it is."""


def hold(path: Path) -> None:
    """Have this file written by this process alone, until the process ends in whatever way: lines of two would be mixed.

    Raises ConfigError where another process of this machine has it. A name in the kernel stands for the file, so that nothing
    is left beside it.
    """
    place = os.path.realpath(path)
    if (os.getpid(), place) in _held:
        return
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(b"\0prmkit " + hashlib.sha256(os.fsencode(place)).hexdigest().encode())
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"{path} is in use: another process writes it. Wait for that one, stop it, or set out to another file"
            ) from None
        return  # a system without such names
    _held[os.getpid(), place] = holder.detach()


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add whole lines, and see them to the disk. Raises CheckpointError when it is full."""
    data = b"".join(_line(row) for row in rows)
    if not data:
        return
    try:
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(
            f"{path}: could not be written: {error}. Free some space; the same command then goes on"
        ) from error


def rewrite(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put these lines in place of the file: it is the old one or, at a rename, the new one. Raises CheckpointError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with aside.open("wb") as file:
                file.writelines(_line(row) for row in rows)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: could not be written: {error}. Free some space; the same command then goes on"
        ) from error


def has_lines(path: Path) -> bool:
    """Whether the file has a whole line."""
    try:
        with path.open("rb") as file:
            return file.readline().endswith(b"\n")
    except FileNotFoundError:
        return False


def whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and object of each line, after cutting off a last line without its end. Raises DataError."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        whole = 0
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise DataError(f"{place(path, number)}: not a JSON object; remove the line")
            yield place(path, number), row
        file.truncate(whole)


def read_sidecar(path: Path, of: Path) -> dict[str, Any] | None:
    """The sidecar of the lines in `of`; None where there is none. Raises ConfigError for one that cannot be read."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or not meta.get("written_by"):
            raise ValueError("no record of what wrote it")
        return meta
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}), so nothing says what made {of.name}; remove both to start again"
        ) from error


def refuse_unexplained(path: Path, sidecar: Path) -> None:
    """Raises ConfigError where lines are there and the sidecar is not: they may be anybody's."""
    if path.exists() and path.stat().st_size:
        raise ConfigError(
            f"{path} exists, but {sidecar.name} is not beside it, so nothing says what made it; set out to another file, or "
            "move this one away"
        )


def refuse_other_settings(
    out: Path, lines: Path, sidecar: Path, then: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raises ConfigError naming what of `now` the lines were begun without."""
    differing = list(differences(then, now))
    if differing:
        raise ConfigError(
            f"{out} was begun with other settings ({'; '.join(differing)}); repeat those, set out to another file, or remove "
            f"{lines.name} and {sidecar.name} to start again"
        )


def note_writer(sidecar: Path, meta: dict[str, Any], written_by: Mapping[str, Any], **first: int) -> None:
    """Note which other versions write from now on, where they are others than before.

    `first` says what they write: from which line on, or how many lines anew.
    """
    last = {name: value for name, value in meta["written_by"][-1].items() if name not in (*first, *PLACES)}
    if last != dict(written_by):
        meta["written_by"].append({**first, **written_by})
        write_result(sidecar, meta)


def differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`key: then, now` for each value of `now` that `then` has not."""
    for key, value in now.items():
        before = then.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            yield from differences(before, value, f"{prefix}{key}.")
        elif before != json.loads(json.dumps(value)):  # a tuple is a list once it was written
            yield f"{prefix}{key}: {json.dumps(before)} then, {json.dumps(value)} now"


def _line(row: Mapping[str, Any]) -> bytes:
    return json_line(row, allow_nan=False).encode()
