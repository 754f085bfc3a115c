"""The files of a scoring run: scores, errors, what made them; and where a run that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prmkit.data.types import Solution
from prmkit.errors import DataError
from prmkit.evaluate import ledger
from prmkit.evaluate.ledger import hold, read_sidecar, refuse_other_settings, refuse_unexplained, whole_lines
from prmkit.evaluate.run import write_result

WEIGHT_BLOCKS = 64
BLOCK_BYTES = 2**16
"""What is read of a large file for its fingerprint: so many blocks, evenly spread, of so many bytes."""
WITHOUT = {"token_rewards": False}
"""What files were begun with whose sidecar lacks the key, for it is younger than they are."""
MODEL_FILES = (".json", ".jinja", ".model", ".safetensors", ".bin", ".txt")


@dataclass(frozen=True, kw_only=True)
class ScoreFiles:
    """Where a run writes. All three lie side by side."""

    out: Path

    @property
    def errors(self) -> Path:
        """One line for each row that has no score: line of the source, id, reason."""
        return self._beside("errors.jsonl")

    @property
    def meta(self) -> Path:
        """What made the scores, and at the end how many there are."""
        return self._beside("meta.json")

    def _beside(self, ending: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{ending}")


@dataclass(frozen=True, kw_only=True)
class Done:
    """What earlier runs have written."""

    ids: frozenset[str] = frozenset()
    """Of the solutions that have scores."""
    failures: frozenset[tuple[int, str | None]] = frozenset()
    """Line of the source, from 1, and id of each row that has none. A line that cannot be read may lack an id, or have one
    that another row has too."""

    @property
    def failed(self) -> int:
        """Rows without scores."""
        return len(self.failures)

    def __len__(self) -> int:
        return len(self.ids) + self.failed

    def knows(self, line: int, solution_id: str) -> bool:
        """Whether the solution on this line has its scores, or its reason for having none."""
        return solution_id in self.ids or (line, solution_id) in self.failures

    def knows_line(self, line: int) -> bool:
        """Whether a line that cannot be read has its reason."""
        return line in self._failed_lines

    @cached_property
    def _failed_lines(self) -> frozenset[int]:
        return frozenset(line for line, _ in self.failures)


def open_files(files: ScoreFiles, identity: Mapping[str, Any], written_by: Mapping[str, Any]) -> Done:
    """What is done already, after half-written last lines are cut off; new files are begun where there are none.

    `identity` is what may not change between the runs that write one file; `written_by` (versions, commit) may, see
    `note_writer`. The files are this process's from then on. Raises ConfigError when another process has them, naming the keys
    that differ, or when `out` is another file's.
    """
    hold(files.out)
    meta = read_meta(files)
    if meta is None:
        refuse_unexplained(files.out, files.meta)
        _begin(files, {**identity, "written_by": [{"from_row": 1, **written_by}]})
        return Done()
    refuse_other_settings(files.out, files.out, files.meta, {**WITHOUT, **meta}, identity)
    return read_done(files)


def note_writer(files: ScoreFiles, done: Done, written_by: Mapping[str, Any]) -> None:
    """Note the row from which on other versions write, where they are others than before."""
    meta = read_meta(files)
    assert meta is not None, "open_files comes first"
    ledger.note_writer(files.meta, meta, written_by, from_row=len(done) + 1)


def note_counts(files: ScoreFiles, **counts: int) -> None:
    """Note how many rows there are, where it is not noted yet."""
    meta = read_meta(files)
    assert meta is not None, "open_files comes first"
    if any(meta.get(key) != value for key, value in counts.items()):
        write_result(files.meta, {**meta, **counts})


def read_meta(files: ScoreFiles) -> dict[str, Any] | None:
    """The sidecar's content; None where there is none. Raises ConfigError for one that cannot be read."""
    return read_sidecar(files.meta, files.out)


def read_done(files: ScoreFiles) -> Done:
    """What has been written. Cuts a half-written last line off. Raises DataError for other damage."""
    ids: set[str] = set()
    for where, row in whole_lines(files.out):
        if not isinstance(row.get("id"), str) or row["id"] in ids:
            raise DataError(f"{where}: no score of prmkit, or a second one of one id; remove the line")
        ids.add(row["id"])
    failures: set[tuple[int, str | None]] = set()
    for where, row in whole_lines(files.errors):
        line, name = row.get("line"), row.get("id")
        if type(line) is not int or not isinstance(name, str | None):
            raise DataError(f"{where}: no error of a scoring run; remove the line")
        failures.add((line, name))
    return Done(ids=frozenset(ids), failures=frozenset(failures))


def first_failure(files: ScoreFiles, source: str) -> str:
    """The first row without scores, in words: line, id and reason."""
    for _, row in whole_lines(files.errors):
        reason = str(row.get("reason"))
        if reason.startswith(f"{source}:"):
            return reason
        who = "" if repr(row.get("id")) in reason else f"solution {row.get('id')!r}: "
        return f"{source}:{row.get('line')}: {who}{reason}"
    return ""


def solution_hash(solution: Solution) -> str:
    """SHA-256 of what a PRM reads of a solution, the turns of the prompt and the steps: ids say nothing of the content.

    Over `{"messages": [[role, content], ...], "steps": [...]}` as JSON without blanks, in UTF-8.
    """
    turns = [[message.role, message.content] for message in solution.prompt.messages]
    content = {"messages": turns, "steps": list(solution.steps)}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises DataError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path, it is read relative to {Path.cwd()}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def model_fingerprint(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of a model's files.

    Of large files, 64 blocks spread evenly are read: training moves all weights, so that tells two checkpoints apart
    without reading all of a large model. It is no proof against a change made on purpose.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in MODEL_FILES and p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= WEIGHT_BLOCKS * BLOCK_BYTES:
                digest.update(file.read())
                continue
            for block in range(WEIGHT_BLOCKS):
                file.seek(block * (size - BLOCK_BYTES) // (WEIGHT_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def _begin(files: ScoreFiles, meta: Mapping[str, Any]) -> None:
    files.out.parent.mkdir(parents=True, exist_ok=True)
    files.errors.unlink(missing_ok=True)  # of a run whose scores were removed
    write_result(files.meta, meta)
