"""Step `contamination`: questions that an evaluation set has too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from prmkit.curate.config import ContaminationConfig
from prmkit.curate.read import named_source, read_questions
from prmkit.curate.record import Dropped, Outcome, Record
from prmkit.curate.words import TURN, asked_words, ngrams, spoken

SHORT_WORDS = 5
"""Words and signs of an evaluation question that is looked for as a whole where it has no n words."""
COMMON_SHARE = 0.5
"""Common phrases that make up this share of an evaluation question, or more, are that question and no phrase."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of an evaluation set."""

    set: str
    id: str
    where: str
    spoken: tuple[str, ...]
    """Its words, less signs and commands."""
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationItems:
    """What may not be trained on: whole questions, and runs of words."""

    whole: dict[str, Item]
    grams: dict[str, list[Item]]
    """n-gram -> the questions that have it."""
    short: dict[str, list[Item]]
    """First words -> the questions that begin with them and are too short for an n-gram."""
    num_items: int


def read_items(config: ContaminationConfig) -> EvaluationItems:
    """The questions of all sets. Raises ConfigError and DataError for one that cannot be read."""
    whole: dict[str, Item] = {}
    grams: dict[str, list[Item]] = {}
    short: dict[str, list[Item]] = {}
    count = 0
    for text in config.against:
        source = named_source(text, "contamination.against")
        for asked in read_questions(source, "contamination.against"):
            count += 1
            found = asked_words(asked.question, asked.messages)
            item = Item(
                set=source.name, id=asked.id, where=asked.where, spoken=tuple(spoken(found)), words=tuple(found)
            )
            whole.setdefault(" ".join(found), item)
            for gram in dict.fromkeys(ngrams(item.spoken, config.n)):
                grams.setdefault(gram, []).append(item)
            if len(item.spoken) < config.n and len(found) >= SHORT_WORDS:
                short.setdefault(" ".join(found[:SHORT_WORDS]), []).append(item)
    return EvaluationItems(whole=whole, grams=grams, short=short, num_items=count)


def contained(found: Sequence[str], short: Mapping[str, Sequence[Item]]) -> Item | None:
    """A short evaluation question all of whose words stand in a row in these, not as a part of a longer formula.

    Not in a chat, whose earlier turns make another question of it.
    """
    if TURN in found:
        return None
    for start, gram in enumerate(ngrams(found, SHORT_WORDS)):
        for item in short.get(gram, ()):
            end = start + len(item.words)
            if tuple(found[start:end]) == item.words and not (_joined(found, start) or _joined(found, end)):
                return item
    return None


def _joined(found: Sequence[str], place: int) -> bool:
    """Whether a formula goes on from the word before this place to the one at it."""
    around = found[place - 1 : place + 1] if place else []
    return len(around) == 2 and not any(len(word) > 1 and word[0].isalpha() for word in around)


def covered(item: Item, grams: Collection[str], n: int) -> float:
    """The share of an evaluation question's words that stand in one of these n-grams."""
    inside, end = 0, 0
    for start, gram in enumerate(ngrams(item.spoken, n)):
        if gram in grams:
            inside += start + n - max(start, end)
            end = start + n
    return inside / len(item.spoken)


def contamination_step(config: ContaminationConfig) -> Callable[[Sequence[Record]], Outcome]:
    """The step; the evaluation sets are read at once, so that one that is missing stops the run before it begins."""
    if not config.against:
        warning = (
            "contamination.against names no evaluation set, so nothing was compared; set it, or leave the step out"
        )
        return lambda records: Outcome(kept=list(records), warning=warning)
    items = read_items(config)

    @cache
    def mostly(grams: frozenset[str]) -> Item | None:
        """An evaluation question that these n-grams make up for the most part; many records share the same phrases."""
        candidates = {id(item): item for gram in sorted(grams) for item in items.grams[gram]}
        return next((i for i in candidates.values() if covered(i, grams, config.n) >= COMMON_SHARE), None)

    def run(records: Sequence[Record]) -> Outcome:
        split = [_asked(record) for record in records]
        shared = [
            list(dict.fromkeys(g for found in each for g in ngrams(spoken(found), config.n) if g in items.grams))
            for each in split
        ]
        counts = Counter(gram for found in shared for gram in found)
        kept, dropped = [], []
        notes = Counter({"evaluation questions compared with": items.num_items})
        for record, each, grams in zip(records, split, shared, strict=True):
            equal = next((found for found in each if " ".join(found) in items.whole), None)
            rare = [gram for gram in grams if not config.common or counts[gram] <= config.common]
            if equal is not None:
                dropped.append(_match(record, items.whole[" ".join(equal)], "same_question", " ".join(equal)))
            elif rare:
                dropped.append(_match(record, items.grams[rare[0]][0], "overlap", rare[0]))
            elif copied := mostly(frozenset(grams)):
                shown = next(gram for gram in grams if copied in items.grams[gram])
                dropped.append(_match(record, copied, "overlap", shown))
            elif short := next((i for found in each if (i := contained(found, items.short))), None):
                dropped.append(_match(record, short, "overlap", " ".join(short.words)))
            else:
                notes["share only common phrases, kept"] += bool(grams)
                kept.append(record)
        return Outcome(kept=kept, dropped=dropped, notes=notes)

    return run


def _asked(record: Record) -> list[list[str]]:
    """What a row asks: its question and, where that is another text, its last turn."""
    last = record.messages[-1].content if record.messages else record.question
    return [asked_words(text, record.messages) for text in dict.fromkeys((record.question, last))]


def _match(record: Record, item: Item, reason: str, text: str) -> Dropped:
    return Dropped(
        record=record,
        reason=reason,
        detail=f"{item.set}: {item.where} has the words {text[:200]!r}",
        more={"evaluation": {"set": item.set, "id": item.id, "source": item.where, "words": text}},
    )
