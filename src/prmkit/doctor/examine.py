"""The whole examination: a file's rows, its solutions, what the tokenizer makes of them, and the tokens they lean on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prmkit.data.formats import FORMATS, BadRow, ReadOptions, detect_format
from prmkit.data.formats.base import lookup
from prmkit.data.formats.files import iter_rows
from prmkit.data.jsonl import place
from prmkit.data.layouts import plain_ids
from prmkit.doctor.config import DoctorConfig
from prmkit.doctor.data import check_data
from prmkit.doctor.finding import Finding, Item, by_severity, percent, some
from prmkit.doctor.labels import check_labels
from prmkit.doctor.raw import RawRow, check_raw, is_tokenised, label_places_of_causal_loss, read_raw
from prmkit.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prmkit.doctor.patient import Patient


def examine(config: DoctorConfig, patient: Patient | None) -> list[Finding]:
    """All findings, errors first. Without a model, only the data is looked at.

    Raises DataError where a file is missing or empty, ConfigError for an unknown format.
    """
    findings: list[Finding] = []
    rows: list[RawRow] = []
    items: list[Item] = []
    for path in config.data:
        own_rows = read_raw(Path(path))
        own = check_raw(own_rows)
        findings += own
        if own_rows and all(is_tokenised(row.row) for row in own_rows):
            findings += _tokenised_file(path, own_rows, config, patient)
            continue
        own_items, refused = read_items(Path(path), config)
        findings += unreadable(refused, {where for finding in own for where in finding.places})
        rows += own_rows
        items += own_items
    test: list[Item] = []
    if config.test:
        test, refused_test = read_items(Path(config.test), config)
        findings += unreadable(refused_test, set())
    findings += outside([*items, *test])
    if items:
        findings += check_labels(items, config)
        findings += check_data(items, test, "" if config.form == "implicit" else config.separator)
        if patient is not None:
            findings += check_model(patient, items, rows, config)
    return by_severity(findings)


def read_items(path: Path, config: DoctorConfig) -> tuple[list[Item], list[BadRow]]:
    """The solutions of a file with their places, and the lines that hold none."""
    chosen = lookup(detect_format(path) if config.format == "auto" else config.format, FORMATS)
    items: list[Item] = []
    refused: list[BadRow] = []
    # an implicit PRM learns from a preference as it stands, so there it is as good as an outcome
    options = ReadOptions(
        placeholder=config.placeholder, preferred_is_right=config.form == "implicit", outside=config.outside
    )
    for index, found in enumerate(iter_rows(path, chosen, options)):
        if isinstance(found, BadRow):
            refused.append(found)
        else:
            items += [Item(where=place(path, index), solution=solution) for solution in found]
    return items, refused


def unreadable(refused: Sequence[BadRow], known: set[str]) -> Iterator[Finding]:
    """Lines that the reader refuses, one finding for each kind of fault; `known` places have a finding already."""
    kinds = defaultdict(list)
    for row in refused:
        if row.where not in known:
            kinds[re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "?", row.reason.replace(row.where, ""))].append(row)
    for rows in kinds.values():
        yield Finding(
            severity="error",
            check="data.unreadable",
            what=f"{len(rows)} lines cannot be read, such as {rows[0].reason}",
            where=some(row.where for row in rows),
            how="mend or remove these lines; a run would stop at the first",
        )


def outside(items: Sequence[Item]) -> Iterator[Finding]:
    """PRMBench rows that name error steps which their solution does not have."""
    places = [item.where for item in items if item.solution.meta.get("error_steps_outside")]
    if places:
        yield Finding(
            severity="warning",
            check="labels.outside",
            what=f"{percent(len(places), len(items))} solutions name error steps that they do not have; prmkit eval prm leaves "
            "such steps out, as PRMBench's own code does, and training and scoring refuse the row",
            where=some(places),
            how="nothing to do for prmkit eval prm; else prmkit data convert --outside ignore first, or mend the rows",
        )


def check_model(
    patient: Patient, items: Sequence[Item], rows: Sequence[RawRow], config: DoctorConfig
) -> Iterator[Finding]:
    """What tokenizer and weights make of the data."""
    from prmkit.doctor import template, tokens

    tokenizer = patient.tokenizer
    chosen = spread(items, config.sample)
    separator = list(tokens.check_separator(tokenizer, config))
    yield from separator
    yield from tokens.check_labels_are_tokens(tokenizer, config)
    if config.layout == "chat" or not config.on_steps:
        yield from template.check_template(tokenizer, chosen)
    if any(finding.severity == "error" for finding in separator):
        return
    seen, refused = tokens.tokenised(tokenizer, chosen, config)
    yield from refused
    tagged = tokens.tagged_rows(rows, config) if config.join == "text" and config.on_steps else []
    if tagged:
        yield from tokens.check_tags(tokenizer, tagged, config)
    else:
        yield from tokens.check_joined(tokenizer, seen, config)
    yield from tokens.check_unknown(tokenizer, seen)
    yield from tokens.check_step_text(tokenizer, seen)
    longest = min(config.max_tokens or patient.context, patient.context)
    yield from tokens.check_labels_left(seen, config, longest)
    yield from check_trained(patient, config)


def check_trained(patient: Patient, config: DoctorConfig) -> Iterator[Finding]:
    """Embedding rows of the separator (as input) and of the label tokens (as input and output)."""
    from prmkit.doctor.embeddings import check_embeddings, embedding_rows, reserved_ids

    tokenizer = patient.tokenizer
    read = {
        i: f"the separator {config.separator!r}" for i in _known_ids(tokenizer, config.separator) if config.on_steps
    }
    said = {
        i: f"the label {label!r}"
        for label in config.labels
        if config.form == "label_tokens"
        for i in _known_ids(tokenizer, label)
    }
    if not read and not said:
        return
    try:
        found = embedding_rows(patient.folder, [*read, *said])
    except ModelError as error:
        yield Finding(
            severity="warning",
            check="tokens.untrained",
            what=f"whether separator and labels are trained tokens could not be checked: {error}",
            where=str(patient.folder),
            how="save the model as safetensors",
        )
        return
    for k, rows in enumerate(found):
        tied = len(found) == 1
        asked = {**read, **said} if tied else (read if k == 0 else said)
        yield from check_embeddings(rows, asked, reserved_ids(tokenizer.get_vocab(), len(rows.norm_V)))


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many, evenly spread over the file; 0 for all."""
    if not most or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _tokenised_file(
    path: str, rows: Sequence[RawRow], config: DoctorConfig, patient: Patient | None
) -> Iterator[Finding]:
    yield Finding(
        severity="note",
        check="data.tokenised",
        what=f"the {len(rows)} rows are tokenised already: only where their labels stand was checked",
        where=path,
        how="give the file of texts to have everything checked",
    )
    if patient is not None and config.form == "label_tokens":
        separator = _known_ids(patient.tokenizer, config.separator)
        labels = [i for label in config.labels for i in _known_ids(patient.tokenizer, label)]
        if separator:
            yield from label_places_of_causal_loss(rows, separator[-1], labels)


def _known_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids; none where the tokenizer does not know the text, which is a finding of its own."""
    try:
        return plain_ids(tokenizer, text, "text")
    except DataError:
        return ()
