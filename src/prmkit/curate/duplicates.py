"""Step `duplicates`: questions that are there twice. Exact, so no pair is missed; the order of the source decides who stays.

Near duplicates are pairs whose sets of word n-grams have a Jaccard similarity |A & B| / |A | B| of at least t. Two such sets
share one of their first |A| - ceil(t |A|) + 1 n-grams in any common order, so only those are indexed, the rarest first (prefix
filter: Chaudhuri et al. 2006; Bayardo et al. 2007). Unlike MinHash it needs no luck, no seed and no package.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prmkit.curate.answers import RIGHT, boxed
from prmkit.curate.config import DuplicatesConfig
from prmkit.curate.record import Dropped, Outcome, Record
from prmkit.curate.words import ngrams, numbers, words
from prmkit.protocols import Verifier
from prmkit.verify.spelling import normalise, same_text

_ROUNDING = 1e-9


def duplicates_step(config: DuplicatesConfig, verifier: Verifier) -> Callable[[Sequence[Record]], Outcome]:
    """The step."""

    def run(records: Sequence[Record]) -> Outcome:
        split = [words(record.question) for record in records]
        dropped = _equal(records, [" ".join(found) for found in split], config, verifier)
        left = [i for i in range(len(records)) if i not in dropped]
        notes: Counter[str] = Counter()
        if config.near:
            pairs = _near([split[i] for i in left], config)
            numbered = [(left[a], left[b], similarity) for a, b, similarity in pairs]
            same = _same_answers(records, [(a, b) for a, b, _ in numbered], verifier)
            for (first, second, similarity), equal in zip(numbered, same, strict=True):
                if second in dropped or first in dropped:
                    continue
                if not equal:
                    notes["near duplicates with another answer, kept"] += 1
                    continue
                dropped[second] = _of(records[second], records[first], "near_duplicate", f"similarity {similarity:.3f}")
        return Outcome(
            kept=[record for i, record in enumerate(records) if i not in dropped],
            dropped=[dropped[i] for i in sorted(dropped)],
            notes=notes,
        )

    return run


def _equal(
    records: Sequence[Record], keys: Sequence[str], config: DuplicatesConfig, verifier: Verifier
) -> dict[int, Dropped]:
    """Index -> why it goes, among questions with one key."""
    groups: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    several = [group for group in groups.values() if len(group) > 1]
    pairs = [(group[0], other) for group in several for other in group[1:]]
    same = dict(zip(pairs, _same_answers(records, pairs, verifier), strict=True))
    dropped: dict[int, Dropped] = {}
    for group in several:
        first, *others = group
        rivals = [i for i in others if not same[first, i]]
        for i in others:
            if same[first, i]:
                dropped[i] = _of(records[i], records[first], "duplicate")
        if not rivals or config.conflicts == "keep":
            continue
        answers = ", ".join(f"{records[i].answer!r} ({records[i].where})" for i in (first, *rivals))
        for i in rivals if config.conflicts == "first" else group:
            dropped[i] = _of(records[i], records[first], "conflict", f"one question, different answers: {answers}")
    return dropped


def _of(record: Record, first: Record, reason: str, detail: str = "") -> Dropped:
    same = {"id": first.id, "source": first.where}
    return Dropped(record=record, reason=reason, detail=detail or f"as {first.where}", more={"same_as": same})


def _same_answers(records: Sequence[Record], pairs: Sequence[tuple[int, int]], verifier: Verifier) -> list[bool]:
    """Whether the answers of each pair are equal: as text, else by the verifier. What it cannot decide is not equal."""
    same = [same_text(normalise(records[a].answer), normalise(records[b].answer)) for a, b in pairs]
    todo = [k for k, equal in enumerate(same) if not equal]
    asked = [(records[pairs[k][0]].prompt(), boxed(records[pairs[k][1]].answer)) for k in todo]
    for k, verdict in zip(todo, verifier.verify(asked) if asked else [], strict=True):
        same[k] = verdict.reward == RIGHT
    return same


def _near(split: Sequence[Sequence[str]], config: DuplicatesConfig) -> Iterator[tuple[int, int, float]]:
    """The near pairs, less those with other numbers where these must be the same."""
    for first, second, similarity in similar_pairs(split, n=config.n, least=config.near):
        if not config.same_numbers or numbers(split[first]) == numbers(split[second]):
            yield first, second, similarity


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
