"""Verdicts that are kept on disk, by the content of what was judged and of what judged it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import prmkit
from prmkit.data.types import Prompt, Verdict
from prmkit.errors import ConfigError, VerifierError

_FORMAT = 2
"""Of the file and of the keys; another number finds nothing of this one's."""
_KEPT = ("ok", "unparsed")
_BUSY_S = 60.0
"""How long to wait while another process writes."""
_AGAIN_S = 0.02
_KEYS_PER_QUERY = 500


class _Inner(Protocol):
    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]: ...

    def close(self) -> None: ...


def identity(use: str, settings: Mapping[str, Any], function: str = "") -> str:
    """What a verdict depends on beside the response: the verifier, its settings, and the versions or source behind it.

    For a user's function that is the file it stands in, not what that file imports.
    """
    named: dict[str, Any] = {"format": _FORMAT, "use": use, "settings": dict(settings), "prmkit": prmkit.__version__}
    return json.dumps(named | behind(use, function), sort_keys=True)


def behind(use: str, function: str = "") -> dict[str, str]:
    """The versions or the source that make a verifier's verdicts, beside its settings and prmkit's own version."""
    named: dict[str, str] = {}
    if use == "math":
        for package in ("math-verify", "sympy", "latex2sympy2-extended"):
            named[package] = _version(package)
    if use == "code":  # programs run under this interpreter
        named["python"] = platform.python_version()
    if function:
        named |= {"function": function, "source": _source_hash(function.partition(":")[0])}
    return named


class CachedVerifier:
    """A verifier whose decided verdicts are kept in an SQLite file.

    The key is the SHA-256 of the verifier's identity, the prompt (turns, answer, task, meta; with `by_id` also its id) and
    the response. `ok` and `unparsed` are kept, errors and timeouts are not. Equal responses within a call are judged once.
    Many processes and threads may share a file, and a kill leaves it whole.
    """

    def __init__(self, inner: _Inner, path: str | Path, identity: str, *, by_id: bool = False) -> None:
        """`identity` names the verifier and its settings. `by_id`: for a verifier that may judge by the prompt's id.

        Raises ConfigError for a file that is no such cache.
        """
        self._by_id = by_id
        self._inner, self._path, self._identity = inner, Path(path).expanduser(), identity
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                _write_ahead(database)
                database.execute(
                    "CREATE TABLE IF NOT EXISTS verdicts "
                    "(key TEXT PRIMARY KEY, status TEXT NOT NULL, reward REAL, detail TEXT NOT NULL) WITHOUT ROWID"
                )
                database.execute("SELECT key, status, reward, detail FROM verdicts LIMIT 1")
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"verifier.cache = {str(path)!r} cannot be used: {error}. Name another file, or leave it empty for no cache"
            ) from error

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """One verdict per (prompt, response text), in order. Raises VerifierError when the file fails."""
        keys = [self._key(prompt, text) for prompt, text in responses]
        known = self._read([key for key in keys if key is not None])
        open_items: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key is None or key not in known:
                open_items.setdefault(key or f"{i}", i)
        judged = self._inner.verify([responses[i] for i in open_items.values()]) if open_items else []
        fresh = dict(zip(open_items, judged, strict=True))
        self._write({key: fresh[key] for key in open_items if key in keys and fresh[key].status in _KEPT})
        known |= fresh
        return [known[key or f"{i}"] for i, key in enumerate(keys)]

    def close(self) -> None:
        """Close the verifier behind the cache."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _key(self, prompt: Prompt, text: str) -> str | None:
        """None for a prompt whose meta has no JSON form: such an item is judged each time."""
        turns = [[message.role, message.content] for message in prompt.messages]
        asked = [turns, prompt.answer, prompt.task, dict(prompt.meta), *([prompt.id] if self._by_id else [])]
        try:
            content = json.dumps([self._identity, asked, text], sort_keys=True)
        except (TypeError, ValueError):
            return None
        return hashlib.sha256(content.encode()).hexdigest()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call, so that no thread or forked process ever holds another's."""
        with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as database, database:
            yield database

    def _read(self, keys: Sequence[str]) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        unique = list(dict.fromkeys(keys))
        with self._failing(), self._open() as database:
            for start in range(0, len(unique), _KEYS_PER_QUERY):
                part = unique[start : start + _KEYS_PER_QUERY]
                query = f"SELECT key, status, reward, detail FROM verdicts WHERE key IN ({','.join('?' * len(part))})"
                for key, status, reward, detail in database.execute(query, part):
                    found[key] = Verdict(status=status, reward=reward, detail=detail)
        return found

    def _write(self, verdicts: Mapping[str, Verdict]) -> None:
        if not verdicts:
            return
        # Half a surrogate pair, which a model may well write, has no UTF-8.
        rows = [(k, v.status, v.reward, v.detail.encode(errors="replace").decode()) for k, v in verdicts.items()]
        with self._failing(), self._open() as database:
            database.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise VerifierError(
                f"{self._path}: the cache of verdicts failed: {error}. Free some space, delete the file, or run without "
                "verifier.cache"
            ) from error


def _write_ahead(database: sqlite3.Connection) -> None:
    """So that no reader waits for a writer. Where several processes ask for this at once, SQLite does not wait its turn as it
    does elsewhere, since they could wait for each other."""
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_AGAIN_S)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _source_hash(module: str) -> str:
    """SHA-256 of a module's file, looked for as a worker would; empty where it has none."""
    folder, *inner = module.split(".")
    for place in (os.getcwd(), *sys.path):
        for path in (Path(place, folder, *inner).with_suffix(".py"), Path(place, folder, *inner, "__init__.py")):
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""
