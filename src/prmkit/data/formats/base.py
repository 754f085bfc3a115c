"""What every format is made of: a test of a row's fields, a reader of rows, a writer of rows, and the checks they share."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast, get_args

from prmkit.config_io import nearest
from prmkit.data.jsonl import text_field
from prmkit.data.types import Message, Prompt, Solution, StepLabel
from prmkit.errors import ConfigError, DataError

SplitName = Literal["auto", "step", "paragraph", "line", "whole"]
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?")
Role = Literal["system", "user", "assistant"]
Fields = Mapping[str, Any]


class Row(NamedTuple):
    """One object of a file and where it stands."""

    fields: Fields
    where: str
    """`path:line`, for messages."""
    name: str
    """`file:line`: the id of a solution whose row has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A line that cannot be used."""

    where: str
    """`path:line`."""
    reason: str
    """What is wrong and how to mend it, `where` included."""
    id: str | None = None
    """The row's own `id`, where the line is a JSON object that has one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """What a format leaves open when it is read."""

    split: SplitName | None = None
    """How a response that comes as one text is cut into steps; None: as its format usually is."""
    placeholder: str = "ки"
    """The step tag of Math-Shepherd, OpenRLHF and OpenR rows."""
    response_start: str = "Step 1:"
    """Where the response begins in formats that hold prompt and response in one text."""
    problem_end: Literal["auto", "blank_line"] = "auto"
    """RLHFlow: where the problem ends in a first turn without `response_start`; auto: such a row is refused."""
    human_completion: Literal["right", "unlabelled"] = "right"
    """PRM800K, phase 1: steps that a labeller wrote have no rating. They were written as right ones (arXiv:2305.20050)."""
    alternatives: Literal["drop", "last", "all"] = "drop"
    """PRM800K: each completion that was not chosen as a solution of its own that ends there: labelled at its last step alone,
    or at all steps."""
    keep_alternatives: bool = False
    """PRM800K: keep the whole labelling in `meta`, so that writing PRM800K gives the same row; needs more memory."""
    original: bool = True
    """PRMBench: the unmodified solution too, with every step right."""
    outside: Literal["refuse", "ignore"] = "refuse"
    """PRMBench: error steps that the solution does not have. The official evaluation ignores them."""
    preferred_is_right: bool = False
    """Preference data: take chosen for right and rejected for wrong. A preference alone says neither."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteOptions:
    """What a format leaves open when it is written."""

    placeholder: str = "ки"
    label_type: Literal["auto", "bool", "float"] = "auto"
    """TRL: the type of the column `labels`; auto: bool unless there is a soft label."""
    extras: bool = True
    """Write `meta` as further columns."""


Reader = Callable[[Row], list[Solution]]
Writer = Callable[[Sequence[Solution]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One file format: JSON lines of one shape."""

    name: str
    fits: Callable[[Fields], bool]
    """Whether a row has this shape. At most one format fits a row."""
    reader: Callable[[ReadOptions], Reader]
    """Makes the reader of one file, which may remember what earlier rows were like."""
    writer: Callable[[WriteOptions], Writer]
    """Makes the writer of one row; DataError says what of a solution the format cannot hold."""
    keeps: frozenset[str] = frozenset({"prompt", "steps", "labels"})
    """What a written row gives back exactly; a solution that would not survive is refused."""
    strips: bool = False
    """Texts lose the white space around them; that is counted as left out, not refused."""
    group: Callable[[Solution], Hashable] | None = None
    """Neighbours with the same key share a row; None: a row each."""
    made_by: str = ""
    """The command that alone writes this format, which is only read then; its writer refuses."""


def has(*keys: str) -> Callable[[Fields], bool]:
    """The test of a format that a row fits when it has these fields."""

    def fits(fields: Fields) -> bool:
        return all(key in fields for key in keys)

    return fits


class OneKind:
    """Remembers which of two kinds of labels the first row of a file has: a column has one type."""

    def __init__(self, no: str, yes: str) -> None:
        self._names = (no, yes)
        self._first: tuple[bool, str] | None = None

    def check(self, kind: bool, where: str) -> None:
        """Raises DataError where a row's kind is not the first row's."""
        if self._first is None:
            self._first = (kind, where)
        elif kind != self._first[0]:
            raise DataError(
                f"{where}: labels are {self._names[kind]}, but {self._names[not kind]} at {self._first[1]}; "
                "a column has one type and casts change labels without a word: write them all as one kind"
            )


def prompt_of(
    turns: str | Sequence[Message], *, answer: str = "", id: str = "", meta: Mapping[str, Any] | None = None
) -> Prompt:
    """A prompt; without an id of its own, one that follows from its text, so that equal questions are one prompt."""
    messages = (Message(role="user", content=turns),) if isinstance(turns, str) else tuple(turns)
    return Prompt(id=id or prompt_id(messages), messages=messages, answer=answer, meta=dict(meta or {}))


def prompt_id(messages: Sequence[Message]) -> str:
    """16 hexadecimal digits of the SHA-256 of the turns."""
    turns = json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False)
    return hashlib.sha256(turns.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def turns_of(value: object, where: str, key: str) -> list[Message]:
    """A list of `{"role": ..., "content": ...}`."""
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: field {key!r} must be a text or a list of turns, got {shown(value)}")
    turns = []
    for i, turn in enumerate(value):
        here = f"{where}: {key}[{i}]"
        if not isinstance(turn, Mapping):
            raise DataError(f'{here}: expected {{"role": ..., "content": ...}}, got {shown(turn)}')
        role = turn.get("role")
        if role not in get_args(Role):
            raise DataError(f"{here}: role {shown(role)} is not system, user or assistant")
        turns.append(Message(role=cast(Role, role), content=text_field(turn, "content", here)))
    return turns


def prompt_field(fields: Fields, key: str, where: str) -> list[Message]:
    """A prompt given as one text or as turns."""
    if isinstance(fields.get(key), list):
        return turns_of(fields[key], where, key)
    return [Message(role="user", content=text_field(fields, key, where))]


def texts_field(fields: Fields, key: str, where: str) -> tuple[str, ...]:
    """A list of steps: at least one, each a text that is not blank."""
    if isinstance(fields.get(key), str):  # its letters are no steps
        raise DataError(
            f"{where}: field {key!r} is one text ({shown(fields[key])}), expected a list of texts; write it as a list, such as "
            '["first", "second"]'
        )
    value = list_field(fields, key, where)
    if not value:
        raise DataError(f"{where}: field {key!r} is empty; a solution needs at least one step")
    for k, step in enumerate(value):
        if not isinstance(step, str):
            raise DataError(f"{where}: {key}[{k}] is {shown(step)}, expected a text; put it in quotes, or remove it")
        if not step.strip():
            raise DataError(f"{where}: step {k + 1} of {len(value)} is empty; remove it with its label")
    return tuple(value)


def list_field(fields: Fields, key: str, where: str) -> list[Any]:
    """A field that is a list."""
    value = fields.get(key)
    if not isinstance(value, list):
        raise DataError(f"{where}: field {key!r} is {shown(value)}, expected a list; write it as one, in [ ]")
    return value


def check_counts(labels: Sequence[object], steps: Sequence[object], where: str, key: str = "labels") -> None:
    """One label a step."""
    if len(labels) != len(steps):
        more = "more" if len(labels) > len(steps) else "fewer"
        raise DataError(
            f"{where}: {len(labels)} {key} for {len(steps)} steps ({more} than steps); give one for each step"
        )


def number_label(value: object, where: str, k: int) -> float:
    """A label in [0, 1]."""
    if type(value) is float and 0 <= value <= 1:
        return value
    here = f"{where}: the label of step {k + 1} is {shown(value)}"
    if value == -100 and not isinstance(value, bool):
        raise DataError(
            f"{here}: that is the loss mask of tokenised data, no label; write the label before it was masked"
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(f"{here}; it must be a number in [0, 1]")
    return float(value)


def optional_unit(fields: Fields, key: str, where: str) -> float | None:
    """A field that is true, false, a number in [0, 1], or missing."""
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, (bool, int, float)) or not 0 <= value <= 1:
        raise DataError(f"{where}: field {key!r} is {shown(value)}; it must be true, false or a number in [0, 1]")
    return float(value)


def truth_field(fields: Fields, key: str, where: str) -> bool:
    """A field that is true or false."""
    value = fields.get(key)
    if not isinstance(value, bool):
        raise DataError(f"{where}: field {key!r} is {shown(value)}, expected true or false")
    return value


def rest(fields: Fields, *taken: str) -> dict[str, Any]:
    """The fields that a reader has no other place for."""
    return {key: value for key, value in fields.items() if key not in taken}


def user_text(solution: Solution, name: str) -> str:
    """The prompt of a format that holds it as one text."""
    messages = solution.prompt.messages
    if len(messages) != 1 or messages[0].role != "user":
        raise DataError(
            f"solution {solution.id!r}: {name} holds a prompt as one text, and this one has the turns "
            f"{', '.join(message.role for message in messages)}; keep the file as prmkit"
        )
    return messages[0].content


def labels_of(solution: Solution, name: str) -> Sequence[StepLabel]:
    """The labels, refused where there are none."""
    if solution.labels is None:
        raise DataError(f"solution {solution.id!r} has no step labels, and {name} rows need one for each step")
    return solution.labels


def numeric_labels(solution: Solution, name: str) -> list[float]:
    """Labels in [0, 1]; neutral and missing ones are refused."""
    found = []
    for k, label in enumerate(labels_of(solution, name)):
        if label == "neutral":
            raise _refusal(solution, k, "neutral", name, "choose with neutral = right, wrong or drop")
        if label is None:
            raise _refusal(
                solution, k, "not labelled", name, "choose with unlabelled = right, wrong or cut, or keep prmkit"
            )
        assert not isinstance(label, str)
        found.append(float(label))
    return found


def hard_labels(solution: Solution, name: str) -> list[bool]:
    """Labels that are 0 or 1; soft, neutral and missing ones are refused."""
    labels = numeric_labels(solution, name)
    soft = next((k for k, label in enumerate(labels) if label not in (0.0, 1.0)), None)
    if soft is not None:
        raise _refusal(solution, soft, f"soft ({labels[soft]:g})", name, "choose a threshold, such as threshold = 0.5")
    return [label == 1.0 for label in labels]


def _refusal(solution: Solution, k: int, what: str, name: str, fix: str) -> DataError:
    return DataError(f"solution {solution.id!r}: step {k + 1} is {what}, which {name} cannot hold; {fix}")


def one(solutions: Sequence[Solution]) -> Solution:
    """The only member of a row's group."""
    (solution,) = solutions
    return solution


def extras(solution: Solution, options: WriteOptions, *own: str) -> dict[str, Any]:
    """`meta` as columns, without those that the format gives a meaning of their own."""
    return rest(solution.meta, *own) if options.extras else {}


def with_language(fields: Fields, solutions: list[Solution]) -> list[Solution]:
    """The language that a row names in the column `language` or `lang`, for formats that have no place of their own for it."""
    key = next((key for key in ("language", "lang") if key in fields), "")
    value = fields.get(key)
    if not isinstance(value, str) or not _LANGUAGE.fullmatch(value):
        return solutions
    return [
        solution if solution.language else replace(solution, language=value, meta=rest(solution.meta, key))
        for solution in solutions
    ]


def language_column(members: Sequence[Solution], options: WriteOptions) -> dict[str, str]:
    """The inverse: a column `language` where all members of a row have the same."""
    languages = {solution.language for solution in members}
    language = languages.pop() if len(languages) == 1 else ""
    return {"language": language} if language and options.extras else {}


def shown(value: object) -> str:
    """A value for a message, short."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = "missing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def lookup(name: str, formats: Mapping[str, Format]) -> Format:
    """The format of that name."""
    if name not in formats:
        raise ConfigError(f'unknown data format "{name}"; {nearest(name, formats)}')
    return formats[name]
