"""Checks of rows as they stand in the file: what a reader would refuse, or a typed column would silently change."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prmkit.data.jsonl import place
from prmkit.doctor.finding import Finding, percent, some
from prmkit.errors import DataError

IGNORED = -100
"""The label that torch's cross-entropy leaves out, and that tokenised data marks all other tokens with."""
MANY = 0.1
"""A share of rows without any label that no cut of long solutions explains."""
STEP_FIELDS = ("completions", "steps", "model_output_steps", "process")
LABEL_FIELDS = ("labels", "value", "ratings", "label")
WORDS = {"+", "-", "neutral", "right", "wrong", "good", "bad", "correct", "incorrect", "true", "false", "0", "1", "-1"}
"""Labels that data in the wild writes as text."""


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """One JSON object and its place."""

    where: str
    row: Mapping[str, Any]


def read_raw(path: Path) -> list[RawRow]:
    """Every line that is a JSON object; the others are left to the reader, which says what is wrong with them.

    Raises DataError for a file that cannot be read.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    rows = []
    for index, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(RawRow(where=place(path, index), row=row))
    return rows


def check_raw(rows: Sequence[RawRow]) -> list[Finding]:
    """All checks of this module."""
    return [
        *ignored_casts(rows),
        *nothing_ignored(rows),
        *all_ignored(rows),
        *token_label_places(rows),
        *label_counts(rows),
        *label_values(rows),
        *label_types(rows),
        *one_based(rows),
        *empty_steps(rows),
    ]


def ignored_casts(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """-100 that has become, or will become, True: the label column is of type bool.

    Tokenised rows whose labels are booleans have lost every -100 (TRL pull request 2127): tokens that should be left out of
    the loss all carry the label True, and accuracy looks high from the start.
    """
    lost = [row.where for row in rows if is_tokenised(row.row) and any(type(v) is bool for v in row.row["labels"])]
    if lost:
        yield Finding(
            severity="error",
            check="labels.ignored_cast",
            what=f"{len(lost)} tokenised rows have boolean labels: -100 was cast to true, so every token is a right step",
            where=some(lost),
            places=tuple(lost),
            how="tokenise again into an integer column (datasets: drop the old labels column, or give Features with int64)",
        )
    mixed = [row.where for row in rows if _mixes_bool_and_ignored(_labels(row.row))]
    if mixed:
        yield Finding(
            severity="error",
            check="labels.ignored_cast",
            what=f"{len(mixed)} rows hold {IGNORED} beside booleans; a boolean column turns {IGNORED} into true",
            where=some(mixed),
            places=tuple(mixed),
            how="write null for a step without label, or make all labels numbers",
        )


def nothing_ignored(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """Tokenised rows in which each and every token carries a label."""
    full = [
        row.where
        for row in rows
        if is_tokenised(row.row)
        and not any(type(v) is bool for v in row.row["labels"])
        and IGNORED not in row.row["labels"]
    ]
    if full:
        yield Finding(
            severity="error",
            check="labels.nothing_ignored",
            what=f"{len(full)} tokenised rows have no {IGNORED}: tokens inside steps and prompt would be trained as labels",
            where=some(full),
            places=tuple(full),
            how=f"put {IGNORED} at every token that ends no step; an unsigned column cannot hold it",
        )


def all_ignored(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """Tokenised rows in which no token carries a label: nothing is learned of them."""
    tokenised = [row for row in rows if is_tokenised(row.row)]
    empty = [row.where for row in tokenised if all(value == IGNORED for value in row.row["labels"])]
    if empty:
        yield Finding(
            severity="error" if len(empty) >= MANY * len(tokenised) else "warning",
            check="labels.all_ignored",
            what=f"{percent(len(empty), len(tokenised))} tokenised rows have {IGNORED} at every token, so nothing is "
            "learned of them; a batch of these has the loss NaN",
            where=some(empty),
            places=tuple(empty),
            how="tokenise again with the separator and labels of the data, and leave out rows that lose all labels in the cut",
        )


def token_label_places(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """Tokenised rows whose labels do not stand where steps end, but one token after or before.

    Labels of a correct layout stand on one and the same token, the separator. Where the token before (or after) them is one
    and the same instead, they have been shifted, as a causal loss does inside. A label that is the very token it stands on is
    none of these: the label token follows the separator and carries its own id, as a causal loss wants it.
    """
    places = [
        (row.row["input_ids"], i)
        for row in rows
        if is_tokenised(row.row) and IGNORED in row.row["labels"]
        for i, label in enumerate(row.row["labels"])
        if label not in (IGNORED, row.row["input_ids"][i])
        and type(label) is not bool
        and 0 < i < len(row.row["labels"]) - 1
    ]
    if len(places) < 10:
        return
    at, after, before = (_most_common(ids[i + move] for ids, i in places) for move in (0, -1, 1))
    wheres = some(row.where for row in rows if is_tokenised(row.row))
    enough = 0.9 * len(places)
    if at[1] >= enough:
        return
    for (token, count), place_name, severity in ((after, "after", "error"), (before, "before", "warning")):
        if count >= enough:
            yield Finding(
                severity="error" if severity == "error" else "warning",
                check="labels.off_by_one",
                what=f"labels stand one token {place_name} token {token}, which ends the steps, in "
                f"{count} of {len(places)} cases",
                where=wheres,
                how="put each label at the last token of its separator, the token that scoring reads",
            )
            return


def label_places_of_causal_loss(
    rows: Sequence[RawRow], separator_id: int, label_ids: Sequence[int]
) -> Iterator[Finding]:
    """Label ids written at the separator itself, though a causal loss shifts: the logit before the separator is trained.

    Scoring reads the logit at the separator. Layouts that fit: the label token follows the separator and carries its own
    label; or the loss does not shift.
    """
    wrong = []
    for row in rows:
        if not is_tokenised(row.row):
            continue
        pairs = zip(row.row["input_ids"], row.row["labels"], strict=True)
        if any(token == separator_id and label in label_ids for token, label in pairs):
            wrong.append(row.where)
    if wrong:
        yield Finding(
            severity="error",
            check="labels.off_by_one",
            what=(
                f"{len(wrong)} rows write the label token at the separator itself (token {separator_id}); a causal loss "
                "shifts labels by one, so the logit before the separator is trained and the one at it is read"
            ),
            where=some(wrong),
            places=tuple(wrong),
            how="let the label token follow the separator, or use a loss that does not shift",
        )


def label_counts(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """As many labels as steps."""
    wrong = []
    for row in rows:
        steps, labels = _steps(row.row), _labels(row.row)
        if steps is not None and labels is not None and len(steps) != len(labels) and not is_tokenised(row.row):
            wrong.append(f"{row.where} ({len(labels)} labels, {len(steps)} steps)")
    if wrong:
        yield Finding(
            severity="error",
            check="labels.count",
            what=f"{len(wrong)} rows have not as many labels as steps",
            where=some(wrong),
            places=tuple(where.rpartition(" (")[0] for where in wrong),
            how="give each step one label, null where there is none",
        )


def label_values(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """Labels are booleans, -1, 0, 1, a number in [0, 1], null, or one of the known words."""
    places: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        labels = None if is_tokenised(row.row) else _labels(row.row)
        if labels is None or _mixes_bool_and_ignored(labels):
            continue
        for label in labels:
            if not _known(label):
                places[json.dumps(label)].append(row.where)
    for value, wheres in sorted(places.items(), key=lambda found: -len(found[1]))[:5]:
        yield Finding(
            severity="error",
            check="labels.value",
            what=f"the label {value} occurs {len(wheres)} times; it is none of true, false, -1, 0, 1, [0, 1], null, + and -",
            where=some(wheres),
            places=tuple(wheres),
            how=f"map {value} to one of these; null for a step without label",
        )


def label_types(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """Booleans and numbers in one column: a typed column casts one into the other, and 0.3 becomes true."""
    boolean: list[str] = []
    number: list[str] = []
    changed: list[str] = []
    for row in rows:
        for label in [] if is_tokenised(row.row) else _labels(row.row) or []:
            if type(label) is bool:
                boolean.append(row.where)
            elif isinstance(label, (int, float)) and label != IGNORED:
                (number if label in (0, 1) else changed).append(row.where)
    if boolean and (number or changed):
        yield Finding(
            severity="error" if changed else "warning",
            check="labels.mixed_types",
            what=f"labels are booleans in some places ({some(boolean, 1)}) and numbers in others; a boolean column turns "
            "every number but 0 into true, a soft label of 0.3 included",
            where=some(changed or number),
            places=tuple(changed or number),
            how="write all labels as numbers",
        )


def one_based(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """Indices of the first error that count from 1, where ProcessBench counts from 0 and -1 means no error."""
    beyond, errors, zeros = [], 0, 0
    for row in rows:
        steps, label = _steps(row.row), row.row.get("label")
        if steps is None or type(label) is not int:
            continue
        errors += label > 0
        zeros += label == 0
        if label >= len(steps):
            beyond.append(f"{row.where} ({label}, {len(steps)} steps)")
    if beyond:
        no_error = "; 0 may stand for no error here" if zeros else ""
        yield Finding(
            severity="error",
            check="labels.one_based",
            what=f"{len(beyond)} of {errors} indices of the first error lie behind the last step; they count from 1{no_error}",
            where=some(beyond),
            places=tuple(where.rpartition(" (")[0] for where in beyond),
            how="subtract 1: the index of the first wrong step counts from 0, and -1 says that there is none",
        )


def empty_steps(rows: Sequence[RawRow]) -> Iterator[Finding]:
    """Steps without a character that is no white space."""
    empty = []
    for row in rows:
        for k, step in enumerate(_steps(row.row) or []):
            if isinstance(step, str) and not step.strip():
                empty.append(f"{row.where} (step {k + 1})")
    if empty:
        yield Finding(
            severity="error",
            check="data.empty_step",
            what=f"{len(empty)} steps are empty; their labels would stand on a bare separator",
            where=some(empty),
            places=tuple(where.rpartition(" (")[0] for where in empty),
            how="remove the step and its label, or join it with a neighbour",
        )


def _most_common(tokens: Iterable[int]) -> tuple[int, int]:
    return Counter(tokens).most_common(1)[0]


def is_tokenised(row: Mapping[str, Any]) -> bool:
    """Whether a row holds token ids and a label for each."""
    ids, labels = row.get("input_ids"), row.get("labels")
    return isinstance(ids, list) and isinstance(labels, list) and len(ids) == len(labels) and bool(ids)


def _steps(row: Mapping[str, Any]) -> list[Any] | None:
    return next((row[key] for key in STEP_FIELDS if isinstance(row.get(key), list)), None)


def _labels(row: Mapping[str, Any]) -> list[Any] | None:
    return next((row[key] for key in LABEL_FIELDS if isinstance(row.get(key), list)), None)


def _mixes_bool_and_ignored(labels: Sequence[Any] | None) -> bool:
    found = labels or []
    return any(type(v) is bool for v in found) and any(type(v) is not bool and v == IGNORED for v in found)


def _known(label: object) -> bool:
    if label is None or isinstance(label, bool):
        return True
    if isinstance(label, (int, float)):
        return math.isfinite(label) and (label == -1 or 0 <= label <= 1)
    return isinstance(label, str) and label.strip().casefold() in WORDS
