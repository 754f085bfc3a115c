r"""Step `choices`: multiple choice is found, and asked as an open question where that is possible.

Options are runs of letters from A on in one style: `(A) 5 (B) 6 (C) 7`, `\textbf{(A)}`, or `A.`, `A)`, `A:` at the beginning of
lines; a field `choices` or `options` counts too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from prmkit.curate.config import ChoicesConfig
from prmkit.curate.record import OPTIONS, Dropped, Outcome, Record
from prmkit.verify.choices import read_choice
from prmkit.verify.spelling import normalise, same_text

LETTERS = "ABCDEFGHIJ"
LEAST_OPTIONS = 3
"""Two letters in brackets may be two points."""
INLINE_CHARS = 80
"""Options within a line are no longer; sentences that happen to end in A, B and C are."""
_WRAP = r"(?:\\(?:text|textbf|textrm|mathbf|mathrm|bf|mbox)\s*\{\s*)"
_STYLES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"(?:\$\s*|(?<!\s)\s*)"
        rf"(?:{_WRAP}+|(?<=quad)|(?<![A-Za-z0-9)\]}}])(?<!\b[A-Za-z] ))\(\s*{_WRAP}*([A-J])\s*\}}*\)\s*\}}*\s*[:.]?"
        r"(?:\\ |~)*\s*\$?",  # not P(A), f(A)
        r"^[^\S\n]*([A-J])[^\S\n]*[.):]\s+",
        r"(?:(?<=\s)|^)([A-J])[.)]\s+",
    )
)
_EDGES = re.compile(
    r"^(?:\s|\\q?quad|\\\\|\\ |~|[,;])+|(?<![\s,;~])(?<!\\quad)(?<!\\qquad)(?:\s|\\q?quad|\\\\|\\ |~|[,;]|\\hspace\{[^{}]*\})+$"
)
_ASKS = re.compile(
    r"\?|\b(?:find|compute|calculate|determine|evaluate|solve|simplify|what|how|which|who|when|where|express|factor|give)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.?!:\u3002\uff1f]\s*\$*\s*$|\$\s*$|\\\]\s*$")
_OF_OTHERS = re.compile(
    r"\b(?:(?:all|none|both|any|neither|some) of (?:the |these|them|above|those)|cannot be (?:determined|found)|"
    r"not enough information|impossible to (?:tell|say))",
    re.IGNORECASE,
)
"""An option that says something of the other options, or of the asking."""
_CLOSES = re.compile(r"(?:\s|[$}.]|\\[\])]|\\end\{\w+\*?\})*")
"""What may stand on the lines below the last option: ends of formulas and environments."""
_OF_OPTIONS = re.compile(r"\b(?:options?|choices?|choose|letters?|alternatives?|select|pick)\b", re.IGNORECASE)
_LETTERED = re.compile(r"\([A-J]\)|^[^\S\n]*[A-J][.):]\s", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Options:
    """A question taken apart."""

    stem: str
    """The question without its options."""
    texts: Mapping[str, str]
    """Letter -> option."""
    rest: str = ""
    """What follows the last option, from the next line on."""
    shown: bool = True
    """Whether the options stand in the question's text; else in a field of the row."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Label -> letter, where a field has labels that are no letters."""


def find_options(question: str, row: Mapping[str, Any] | None = None) -> Options | None:
    """The options of a question, from its text or from the row's field; None where it has none."""
    for style in _STYLES:
        if found := _run(question, style):
            return found
    for name in OPTIONS:
        if found := _of_field(question, (row or {}).get(name)):
            return found
    return None


def option_at(index: int, row: Mapping[str, Any]) -> str:
    """The letter of a row's option, counted from 0 (its content past J); empty where the row has no list with that place."""
    for name in OPTIONS:
        value = row.get(name)
        if isinstance(value, list) and 0 <= index < len(value) and _of_field("", value):
            return LETTERS[index] if index < len(LETTERS) else str(value[index])
    return ""


def _of_field(question: str, value: object) -> Options | None:
    """A list of options, an object of letters (or other labels) and options, or an object of the lists `label` and `text`."""
    labels: list[object] | None = None
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        labels, value = value.get("label"), value["text"]
    elif isinstance(value, Mapping):
        there = {key: item for key, item in value.items() if item is not None}
        labels, value = list(there), list(there.values())
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(item, str | int | float) for item in value):
        return None
    names = list(map(str, labels)) if isinstance(labels, list) and len(labels) == len(value) else []
    letters = [name.strip(" ().:").upper() for name in names]
    lettered = len(set(letters)) == len(value) and all(letter in tuple(LETTERS) for letter in letters)
    texts = dict(zip(letters if lettered else LETTERS, map(str, value), strict=lettered))
    own = {letter: re.compile(rf"\s*\(?{letter}[).:]\s*") for letter in texts}
    if all(own[letter].match(text) for letter, text in texts.items()):
        texts = {letter: own[letter].sub("", text, count=1) for letter, text in texts.items()}
    return Options(
        stem=question.strip(),
        texts={letter: texts[letter].strip() for letter in sorted(texts)},
        shown=False,
        labels={} if lettered else dict(zip(names, LETTERS, strict=False)),
    )


def _run(question: str, style: re.Pattern[str]) -> Options | None:
    """The last run A, B, C, ... of one style; its last option ends with the line."""
    marks = list(style.finditer(question))
    following: dict[str, re.Match[str]] = {}
    after: dict[int, re.Match[str] | None] = {}  # place of a mark -> the first of the next letter that follows it
    for first in reversed(marks):
        letter = first.group(1)
        after[first.start()] = following.get(LETTERS[LETTERS.index(letter) + 1 :][:1])
        following[letter] = first
        if letter != "A":
            continue
        run = [first]
        while (mark := after[run[-1].start()]) is not None:
            run.append(mark)
        if len(run) >= LEAST_OPTIONS:
            if style is _STYLES[-1] and any(b.start() - a.end() > INLINE_CHARS for a, b in pairwise(run)):
                continue
            last, _, rest = question[run[-1].end() :].partition("\n")
            ends = [mark.start() for mark in run[1:]] + [run[-1].end() + len(last)]
            texts = {m.group(1): _trimmed(question[m.end() : end]) for m, end in zip(run, ends, strict=True)}
            rest = "" if _CLOSES.fullmatch(rest) else rest.strip()
            return Options(stem=question[: run[0].start()].rstrip(), texts=texts, rest=rest)
    return None


def _trimmed(text: str) -> str:
    """An option without spacing, and without what closes a formula or command that went round more than this option."""
    before = None
    while text != before:
        before, text = text, _EDGES.sub("", text)
        if text.count("$") % 2:
            text = text.removesuffix("$") if text.endswith("$") else text.removeprefix("$")
        if text.endswith("}") and text.count("}") > text.count("{"):
            text = text[:-1]
    return text.rstrip(".").strip()


def chosen(record: Record, options: Options) -> str | None:
    """The letter that the record's answer names, by letter or by the option's own text; None where it names none."""
    if letter := options.labels.get(record.answer.strip()):
        return letter
    answer = normalise(record.answer)
    choice = read_choice(answer) or read_choice(answer.upper() if len(answer) == 1 else "")
    if choice is not None and choice.letter in options.texts:
        return choice.letter
    same = [letter for letter, text in options.texts.items() if same_text(normalise(text), answer)]
    return same[0] if len(same) == 1 else None


def opened(record: Record, options: Options, config: ChoicesConfig) -> Record | Dropped:
    """The question without its options, by rule; or why it needs them."""
    letter = chosen(record, options)
    if letter is None:
        detail = f"the answer {record.answer!r} is none of the options"
        return Dropped(record=record, reason="answer_is_no_option", detail=detail)
    content, stem = options.texts[letter], options.stem
    if word := refers(stem, config):
        return Dropped(record=record, reason="needs_options", detail=f"the question has {word!r}")
    if not stem or not _ASKS.search(stem) or not (_SENTENCE_END.search(stem) or _ASKS.match(stem)):
        return Dropped(record=record, reason="needs_options", detail="without its options it is no whole question")
    if options.rest:
        detail = f"text follows the options, and may belong to the question: {options.rest[:200]!r}"
        return Dropped(record=record, reason="needs_options", detail=detail)
    if not content or _OF_OTHERS.search(content):
        return Dropped(record=record, reason="option_is_no_answer", detail=f"option {letter} is {content!r}")
    return reworded(record, options, question=stem, answer=content, solution=None)


def reworded(record: Record, options: Options, *, question: str, answer: str, solution: str | None) -> Record | Dropped:
    """The record with the opened question; dropped where the row's own turns would still show or name options."""
    if record.messages and (detail := _options_left(record, options)):
        return Dropped(record=record, reason="turns_show_options", detail=detail)
    return record.changed("choices", question=question, answer=answer, solution=solution)


def _options_left(record: Record, options: Options) -> str:
    """How the turns show or name options beside the question that is replaced; empty where they do not."""
    *earlier, last = record.messages or ()
    if record.question not in last.content:
        return "the last turn does not have the question as its field has it, so the options cannot be taken out of it"
    text = "\n".join([*(turn.content for turn in earlier), last.content.replace(record.question, "\n")])
    if match := _OF_OPTIONS.search(text) or _LETTERED.search(text):
        return f"beside the question, the turns have {match.group().strip()!r}"
    if all(re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text) for option in options.texts.values()):
        return "beside the question, the turns have all options"
    return ""


def refers(stem: str, config: ChoicesConfig) -> str:
    """The word by which a question needs its options; empty where it has none."""
    lowered = stem.lower()
    return next((word for word in config.refers if word.lower() in lowered), "")


Rewrite = Callable[[Sequence[tuple[Record, Options]]], list[Record | Dropped]]
"""Opens many questions; what is kept is in the same order."""


def choices_step(
    config: ChoicesConfig,
    check: Callable[[Sequence[Record]], list[Record | Dropped]],
    rewrite: Rewrite | None = None,
) -> Callable[[Sequence[Record]], Outcome]:
    """The step. `check`: whether the verifier can work with the answers of opened questions; `rewrite`: a model that opens."""

    def run(records: Sequence[Record]) -> Outcome:
        notes: Counter[str] = Counter()
        done: list[Record | Dropped] = []
        to_open: list[tuple[Record, Options]] = []
        places: list[int] = []
        for record in records:
            options = find_options(record.question, record.row)
            if options is None:
                done.append(_without_options(record, config))
                continue
            notes["multiple choice"] += 1
            if config.mode == "keep":
                done.append(record.with_found("choices", {"letters": "".join(options.texts)}))
            elif config.mode == "drop":
                done.append(Dropped(record=record, reason="multiple_choice", detail=f"{len(options.texts)} options"))
            else:
                to_open.append((record, options))
                places.append(len(done))
                done.append(record)
        if to_open:
            results = rewrite(to_open) if rewrite else [opened(record, options, config) for record, options in to_open]
            checked = iter(check([result for result in results if isinstance(result, Record)]))
            results = [next(checked) if isinstance(result, Record) else result for result in results]
            for place, result in zip(places, results, strict=True):
                done[place] = result
            notes["opened"] = sum(isinstance(result, Record) for result in results)
        kept = [result for result in done if isinstance(result, Record)]
        return Outcome(kept=kept, dropped=[d for d in done if isinstance(d, Dropped)], notes=notes)

    return run


def _without_options(record: Record, config: ChoicesConfig) -> Record | Dropped:
    answer = re.fullmatch(r"\$?\s*(?:\\(?:text|textbf|mathrm)\{)?\(?([A-J])\)?\}?\s*\$?\.?", record.answer.strip())
    if answer is None or config.letters == "keep" or config.mode == "keep":
        return record
    return Dropped(
        record=record,
        reason="letter_without_options",
        detail=f"the answer is {record.answer!r}, and no options are shown",
    )
