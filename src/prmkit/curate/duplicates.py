"""Step `duplicates`: questions that are there twice. Exact, so no pair is missed; the order of the source decides who stays.

Near duplicates are pairs whose sets of word n-grams have a Jaccard similarity |A & B| / |A | B| of at least t. Two such sets
share one of their first |A| - ceil(t |A|) + 1 n-grams in any common order, so only those are indexed, the rarest first (prefix
filter: Chaudhuri et al. 2006; Bayardo et al. 2007). Unlike MinHash it needs no luck, no seed and no package.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from prmkit.curate.answers import RIGHT, boxed, solution_answer
from prmkit.curate.config import AnswerConfig, DuplicatesConfig
from prmkit.curate.record import Dropped, Outcome, Record
from prmkit.curate.words import asked_words, ngrams, numbers
from prmkit.data.types import Verdict
from prmkit.protocols import Verifier
from prmkit.verify.spelling import normalise, same_text

_ROUNDING = 1e-9


def duplicates_step(
    config: DuplicatesConfig, verifier: Verifier, answers: AnswerConfig | None = None
) -> Callable[[Sequence[Record]], Outcome]:
    """The step. `answers`: how a solution marks its answer, for rows that have no other; rows with neither are kept."""

    def run(records: Sequence[Record]) -> Outcome:
        given = [_with_answer(record, answers or AnswerConfig()) for record in records]
        compared = [i for i, record in enumerate(given) if record.answer]
        split = [asked_words(record.question, record.messages) for record in given]
        notes = Counter({"without an answer, not compared": len(records) - len(compared)})
        dropped = _equal(given, {i: " ".join(split[i]) for i in compared}, config, verifier)
        left = [i for i in compared if i not in dropped]
        if config.near:
            pairs = _near([split[i] for i in left], config)
            numbered = [(left[a], left[b], similarity) for a, b, similarity in pairs]
            verdicts = _same_answers(given, [(a, b) for a, b, _ in numbered], verifier)
            for (first, second, similarity), verdict in zip(numbered, verdicts, strict=True):
                if second in dropped or first in dropped:
                    continue
                if verdict.reward is None:
                    notes["near duplicates whose answers could not be compared, kept"] += 1
                elif verdict.reward != RIGHT:
                    notes["near duplicates with another answer, kept"] += 1
                else:
                    detail = f"similarity {similarity:.3f}"
                    dropped[second] = _of(given[second], given[first], "near_duplicate", detail)
        return Outcome(
            kept=[record for i, record in enumerate(records) if i not in dropped],
            dropped=[replace(dropped[i], record=records[i]) for i in sorted(dropped)],
            notes=notes,
        )

    return run


def _with_answer(record: Record, config: AnswerConfig) -> Record:
    """With its solution's answer where it has none; empty where that has none either."""
    answer = record.answer.strip() or solution_answer(record.solution or "", config) or ""
    return replace(record, answer=answer)


def _equal(
    records: Sequence[Record], keys: Mapping[int, str], config: DuplicatesConfig, verifier: Verifier
) -> dict[int, Dropped]:
    """Index -> why it goes, among questions with one key."""
    by_key: dict[str, list[int]] = {}
    for i, key in keys.items():
        by_key.setdefault(key, []).append(i)
    dropped: dict[int, Dropped] = {}
    groups = list(by_key.values())
    while groups := [group for group in groups if len(group) > 1]:
        pairs = [(group[0], other) for group in groups for other in group[1:]]
        verdicts = dict(zip(pairs, _same_answers(records, pairs, verifier), strict=True))
        groups = [_settle(records, group, verdicts, config, dropped) for group in groups]
    return dropped


def _settle(
    records: Sequence[Record],
    group: Sequence[int],
    verdicts: Mapping[tuple[int, int], Verdict],
    config: DuplicatesConfig,
    dropped: dict[int, Dropped],
) -> list[int]:
    """Compare a group with its first. What has another answer under another system turn is left for a group of its own."""
    first, *others = group
    rewards = {i: verdicts[first, i].reward for i in others}
    same = [i for i in others if rewards[i] == RIGHT]
    apart = [i for i in others if i not in same and _system(records[i]) != _system(records[first])]
    undecided = [i for i in others if rewards[i] is None and i not in apart]
    rivals = [i for i in others if i not in (*same, *apart, *undecided)]
    for i in same:
        dropped[i] = _of(records[i], records[first], "duplicate")
    if config.conflicts == "keep":
        return apart
    for i in undecided:
        verdict = verdicts[first, i]
        detail = (
            f"as {records[first].where}; whether {records[i].answer!r} is its answer {records[first].answer!r} could not be "
            f"decided: {verdict.status}: {verdict.detail}"
        )
        dropped[i] = _of(records[i], records[first], "duplicate_undecided", detail)
    if rivals:
        answers = ", ".join(f"{records[i].answer!r} ({records[i].where})" for i in (first, *rivals))
        for i in rivals if config.conflicts == "first" else (first, *same, *undecided, *rivals):
            dropped[i] = _of(records[i], records[first], "conflict", f"one question, different answers: {answers}")
    return apart


def _system(record: Record) -> list[str]:
    return [turn.content for turn in record.messages or () if turn.role == "system"]


def _of(record: Record, first: Record, reason: str, detail: str = "") -> Dropped:
    same = {"id": first.id, "source": first.where}
    return Dropped(record=record, reason=reason, detail=detail or f"as {first.where}", more={"same_as": same})


def _same_answers(records: Sequence[Record], pairs: Sequence[tuple[int, int]], verifier: Verifier) -> list[Verdict]:
    """Whether the answers of each pair are equal: as text, else by the verifier, which may not be able to say."""
    equal = Verdict(status="ok", reward=RIGHT)
    found: list[Verdict | None] = [
        equal if same_text(normalise(records[a].answer), normalise(records[b].answer)) else None for a, b in pairs
    ]
    asked = [
        (records[a].prompt(), boxed(records[b].answer))
        for (a, b), verdict in zip(pairs, found, strict=True)
        if not verdict
    ]
    judged = iter(verifier.verify(asked) if asked else [])
    return [verdict or next(judged) for verdict in found]


def _near(split: Sequence[Sequence[str]], config: DuplicatesConfig) -> list[tuple[int, int, float]]:
    """The near pairs, ordered by the second, then the first. Where numbers must be the same, only those are compared at all.

    Otherwise a thousand variants of one template would be a million pairs.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, found in enumerate(split):
        groups.setdefault(tuple(numbers(found)) if config.same_numbers else (), []).append(i)
    pairs = [
        (group[a], group[b], similarity)
        for group in groups.values()
        if len(group) > 1
        for a, b, similarity in similar_pairs([split[i] for i in group], n=config.n, least=config.near)
    ]
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def similar_pairs(split: Sequence[Sequence[str]], *, n: int, least: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity) with i < j for every pair of word lists whose n-grams overlap by at least `least`, ordered by j, i.

    A list of fewer than n words counts as one n-gram.
    """
    ids: dict[str, int] = {}
    sets = [_gram_ids(found, n, ids) for found in split]
    counts = Counter(gram for grams in sets for gram in grams)
    index: dict[int, list[int]] = {}
    for j, grams in enumerate(sets):
        ordered = sorted(grams, key=lambda gram: (counts[gram], gram))
        prefix = ordered[: len(grams) - math.ceil(least * len(grams) - _ROUNDING) + 1]
        near = {i for gram in prefix for i in index.get(gram, ())}
        for i in sorted(near):
            shared = len(sets[i] & grams)
            similarity = shared / (len(sets[i]) + len(grams) - shared)
            if similarity >= least - _ROUNDING:
                yield i, j, similarity
        for gram in prefix:
            index.setdefault(gram, []).append(j)


def _gram_ids(found: Sequence[str], n: int, ids: dict[str, int]) -> frozenset[int]:
    """Numbers of the n-grams, in the order in which they are first met."""
    grams = ngrams(found, n) if len(found) >= n else iter([" ".join(found)])
    return frozenset(ids.setdefault(gram, len(ids)) for gram in grams)
