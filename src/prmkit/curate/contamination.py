"""Step `contamination`: questions that an evaluation set has too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prmkit.curate.config import ContaminationConfig
from prmkit.curate.read import named_source, read_questions
from prmkit.curate.record import Dropped, Outcome, Record
from prmkit.curate.words import ngrams, spoken, words


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of an evaluation set."""

    set: str
    id: str
    where: str


@dataclass(frozen=True, kw_only=True)
class EvaluationItems:
    """What may not be trained on: whole questions, and runs of words."""

    whole: dict[str, Item]
    grams: dict[str, Item]
    num_items: int


def read_items(config: ContaminationConfig) -> EvaluationItems:
    """The questions of all sets. Raises ConfigError and DataError for one that cannot be read."""
    whole: dict[str, Item] = {}
    grams: dict[str, Item] = {}
    count = 0
    for text in config.against:
        source = named_source(text, "contamination.against")
        for name, where, question in read_questions(source, "contamination.against"):
            count += 1
            item, found = Item(set=source.name, id=name, where=where), words(question)
            whole.setdefault(" ".join(found), item)
            for gram in ngrams(spoken(found), config.n):
                grams.setdefault(gram, item)
    return EvaluationItems(whole=whole, grams=grams, num_items=count)


def contamination_step(config: ContaminationConfig) -> Callable[[Sequence[Record]], Outcome]:
    """The step; the evaluation sets are read at once, so that one that is missing stops the run before it begins."""
    if not config.against:
        warning = (
            "contamination.against names no evaluation set, so nothing was compared; set it, or leave the step out"
        )
        return lambda records: Outcome(kept=list(records), warning=warning)
    items = read_items(config)

    def run(records: Sequence[Record]) -> Outcome:
        split = [words(record.question) for record in records]
        shared = [
            list(dict.fromkeys(g for g in ngrams(spoken(found), config.n) if g in items.grams)) for found in split
        ]
        counts = Counter(gram for found in shared for gram in found)
        kept, dropped = [], []
        notes = Counter({"evaluation questions compared with": items.num_items})
        for record, found, grams in zip(records, split, shared, strict=True):
            rare = [gram for gram in grams if not config.common or counts[gram] <= config.common]
            if equal := items.whole.get(" ".join(found)):
                dropped.append(_match(record, equal, "same_question", " ".join(found)))
            elif rare:
                dropped.append(_match(record, items.grams[rare[0]], "overlap", rare[0]))
            else:
                notes["share only common phrases, kept"] += bool(grams)
                kept.append(record)
        return Outcome(kept=kept, dropped=dropped, notes=notes)

    return run


def _match(record: Record, item: Item, reason: str, text: str) -> Dropped:
    return Dropped(
        record=record,
        reason=reason,
        detail=f"{item.set}: {item.where} has the words {text[:200]!r}",
        more={"evaluation": {"set": item.set, "id": item.id, "source": item.where, "words": text}},
    )
