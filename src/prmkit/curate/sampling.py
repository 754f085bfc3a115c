"""Sampled responses that are kept on disk, so that a run that was cut off asks nothing twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from prmkit.curate.record import Dropped, Record
from prmkit.data.types import FinishReason, Prompt, Rollout, SamplingParams
from prmkit.errors import CheckpointError, ConfigError, DataError, SamplingError
from prmkit.evaluate.run import SeededSampler, question_seed
from prmkit.protocols import Sampler

FORMAT = 1
"""Of the file and of its keys; another number finds nothing of this one's."""


_KEYS_PER_QUERY = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One response."""

    text: str
    finish: FinishReason
    failure: str = ""
    """Why there is none; empty unless finish is `error`."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What answers, and what makes its answers this model's."""

    sampler: Sampler
    identity: Mapping[str, Any]
    """Fingerprint of its weights, or address and name at a server."""
    name: str
    """For samples.jsonl."""


OnProgress = Callable[[int, int], None]
"""Told how many questions of how many are done."""


class ResponseCache:
    """An SQLite file of responses. The key is the SHA-256 of the model, the turns, the sampling and the seed.

    Responses that could not be had are not kept, so they are asked for again. A kill leaves the file whole.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file that is no such cache."""
        self.path = path.expanduser()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, found TEXT NOT NULL) WITHOUT ROWID"
                )
                database.execute("SELECT key, found FROM responses LIMIT 1")
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"cache = {str(path)!r} cannot be used: {error}; name another file") from error

    def read(self, keys: Sequence[str]) -> dict[str, list[Sampled]]:
        """The responses under those of the keys that are there."""
        found: dict[str, list[Sampled]] = {}
        with self._failing(), self._open() as database:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                query = f"SELECT key, found FROM responses WHERE key IN ({','.join('?' * len(part))})"
                for key, members in database.execute(query, part):
                    found[key] = [Sampled(text=text, finish=finish) for text, finish in json.loads(members)]
        return found

    def write(self, found: Mapping[str, Sequence[Sampled]]) -> None:
        """Keep these, less those of which a response is missing. Raises CheckpointError when the disk is full."""
        whole = {key: members for key, members in found.items() if all(m.finish != "error" for m in members)}
        rows = [(key, json.dumps([[m.text, m.finish] for m in members])) for key, members in whole.items()]
        with self._failing(), self._open() as database:
            database.executemany("INSERT OR IGNORE INTO responses VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=60.0)) as database, database:
            yield database

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CheckpointError(
                f"{self.path}: the cache of responses failed: {error}. Free some space or delete the file"
            ) from error


def sample_all(
    model: Model,
    cache: ResponseCache,
    prompts: Sequence[Prompt],
    *,
    n: int,
    params: SamplingParams,
    seed: int,
    batch_size: int,
    failures: Literal["stop", "drop"] = "stop",
    on_progress: OnProgress = lambda done, total: None,
) -> list[list[Sampled]]:
    """n responses to each prompt, in order; from the cache where they are there.

    A question's seed follows from `seed` and its content, so neither its place nor its company decides its luck. Where a
    model works in batches, one of which some questions are missing is sampled as a whole: the rounding of a forward pass
    depends a little on what shares it. A prompt that the model cannot read fails alone. Raises SamplingError when a server gives
    nothing at all to a batch, unless `failures` is drop.
    """
    identity = {"format": FORMAT, "model": dict(model.identity), "params": asdict(params), "n": n, "seed": seed}
    keys = [_key(identity, prompt) for prompt in prompts]
    unique = dict(zip(keys, prompts, strict=True))
    found = cache.read(list(unique))
    num_known = len(found)
    on_progress(num_known, len(unique))
    together = isinstance(model.sampler, SeededSampler) and not getattr(model.sampler, "remote", False)
    ordered = list(unique)
    for start in range(0, len(ordered), batch_size):
        part = ordered[start : start + batch_size]
        missing = [key for key in part if key not in found]
        if not missing:
            continue
        asked = {key: unique[key] for key in (part if together else missing)}
        try:
            fresh = _sampled(model.sampler, asked, n, params, seed)
        except SamplingError as error:
            if failures == "stop":
                raise
            fresh = {key: [Sampled(text="", finish="error", failure=str(error))] * n for key in asked}
        new = {key: fresh[key] for key in missing}
        cache.write(new)
        found |= new
        num_known += len(new)
        on_progress(num_known, len(unique))
    return [found[key] for key in keys]


def _key(identity: Mapping[str, Any], prompt: Prompt) -> str:
    turns = [[message.role, message.content] for message in prompt.messages]
    return hashlib.sha256(json.dumps([identity, turns], sort_keys=True).encode()).hexdigest()


def _sampled(
    sampler: Sampler, prompts: Mapping[str, Prompt], n: int, params: SamplingParams, seed: int
) -> dict[str, list[Sampled]]:
    """Responses by key. What the sampler refuses beforehand is a failure of that question."""
    found: dict[str, list[Sampled]] = {}
    check = getattr(sampler, "check", _nothing)
    for key, prompt in prompts.items():
        try:
            check([prompt], params)
        except (SamplingError, DataError) as error:
            found[key] = [Sampled(text="", finish="error", failure=str(error))] * n
    keys = [key for key in prompts if key not in found]
    if not keys:
        return found
    asked, seeds = [prompts[key] for key in keys], [question_seed(seed, key) for key in keys]
    if isinstance(sampler, SeededSampler):
        groups = sampler.sample_each(asked, n=n, params=params, seeds=seeds)
    else:
        groups = [sampler.sample([p], n=n, params=params, seed=s)[0] for p, s in zip(asked, seeds, strict=True)]
    return found | {key: [_plain(member) for member in group.members] for key, group in zip(keys, groups, strict=True)}


def _nothing(prompts: Sequence[Prompt], params: SamplingParams) -> None:
    """A server says no when it is asked."""


def _plain(rollout: Rollout) -> Sampled:
    failure = (rollout.failure or "the sampler failed") if rollout.finish == "error" else ""
    # half a surrogate pair, which a model may well write, has no UTF-8
    text = rollout.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Sampled(text=text, finish=rollout.finish, failure=failure)


def failed(record: Record, responses: Sequence[Sampled]) -> Dropped | None:
    """The drop of a record of which a response is missing; None where all are there."""
    reasons = [response.failure for response in responses if response.finish == "error"]
    if not reasons:
        return None
    detail = f"{len(reasons)} of {len(responses)} responses could not be sampled: {reasons[0]}"
    return Dropped(record=record, reason="not_sampled", detail=detail)


def refuse_failures(step: str, policy: str, failures: Sequence[Dropped], total: int) -> None:
    """Raises SamplingError where questions were not sampled and the step is to stop then."""
    if failures and policy == "stop":
        first = failures[0]
        raise SamplingError(
            f'step "{step}": {len(failures)} of {total} questions were not sampled. The first, {first.record.where}: '
            f'{first.detail}. What was sampled is kept, and the same command asks for the rest; {step}.failures = "drop" '
            "goes on without these questions"
        )
