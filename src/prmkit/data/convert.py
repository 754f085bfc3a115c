"""One file of PRM data into another: read, choose, change, write, and count everything that does not arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from prmkit.data.convert_config import ConvertConfig
from prmkit.data.formats import FORMATS, BadRow
from prmkit.data.formats.base import Format, WriteOptions, language_column
from prmkit.data.formats.chats import RLHFLOW, needs_problem_end
from prmkit.data.formats.files import LABEL_COLUMNS, grouped, label_type
from prmkit.data.formats.roundtrip import check_kept
from prmkit.data.formats.transform import (
    after_error,
    hardened,
    numbered,
    until_unlabelled,
    with_neutral,
    with_outcome,
    with_unlabelled,
)
from prmkit.data.jsonl import write_jsonl
from prmkit.data.pairs import balance, make_pairs
from prmkit.data.types import Solution
from prmkit.errors import DataError

Source = Callable[[], Iterable[list[Solution] | BadRow]]
"""Makes the rows of the source anew; called twice where the type of a column must be known before the first row."""


@dataclass
class Conversion:
    """What went in, what came out, and what did not."""

    rows_in: int = 0
    solutions_in: int = 0
    rows_out: int = 0
    solutions_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> solutions."""
    lost: Counter[str] = field(default_factory=Counter)
    """Field that the target has no place for -> solutions."""
    need_problem_end: int = 0
    """Rows of rlhflow that are read again with `problem_end = blank_line` only."""
    bad: list[BadRow] = field(default_factory=list)
    """Rows that could not be read, and solutions that could not be written."""


def convert(source: Source, config: ConvertConfig) -> Conversion:
    """Write the target file, whole or not at all, and say what happened.

    Raises DataError with file and line at the first row that cannot be read or written, unless `on_bad` is skip.
    """
    target = FORMATS[config.target_format]
    options = config.write_options
    if options.label_type == "auto" and target.name in LABEL_COLUMNS:
        options = replace(options, label_type=label_type(_Run(source, replace(config, on_bad="skip")).solutions()))
    run = _Run(source, config)
    write_jsonl(config.target, run.some_rows(target, options))
    return run.done


class _Run:
    """One pass over the source."""

    def __init__(self, source: Source, config: ConvertConfig) -> None:
        self.done = Conversion()
        self._source, self._config = source, config
        self._where: dict[str, str] = {}

    def some_rows(self, target: Format, options: WriteOptions) -> Iterator[dict[str, Any]]:
        """The target's rows. Raises DataError after none: no earlier file is replaced by an empty one then."""
        yield from self.rows(target, options)
        if not self.done.rows_out:
            raise DataError(
                f"{self._config.source}: nothing to write: no solution is left of {self.done.solutions_in}; {self.why()}"
            )

    def rows(self, target: Format, options: WriteOptions) -> Iterator[dict[str, Any]]:
        """The target's rows."""
        solutions = self._chosen(target)
        write = target.writer(options)
        for members in grouped(solutions, target):
            try:
                row = language_column(members, options) | write(members)
                lost = check_kept(members, row, target, options)
                if lost and self._config.lossless:
                    raise DataError(
                        f"solution {members[0].id!r}: {target.name} has no place for its {', '.join(sorted(set(lost)))}; "
                        "lossless = false leaves that out"
                    )
            except DataError as error:
                where = self._where.get(members[0].id, self._config.source)
                self._refuse(BadRow(where=where, reason=f"{where}: {error}"), f"cannot be {target.name}", len(members))
                continue
            self.done.lost.update(lost)
            self.done.rows_out += 1
            self.done.need_problem_end += target is RLHFLOW and needs_problem_end(row)
            self.done.solutions_out += len(members)
            yield row

    def solutions(self) -> Iterator[Solution]:
        """What is read, chosen and changed."""
        for result in self._source():
            self.done.rows_in += 1
            if isinstance(result, BadRow):
                self._refuse(result, "", 0)
                continue
            self.done.solutions_in += len(result)
            for solution in result:
                changed = self._changed(solution)
                if isinstance(changed, str):
                    self.done.dropped[changed] += 1
                else:
                    yield changed

    def why(self) -> str:
        """What was dropped, in words."""
        return ", ".join(f"{count} {reason}" for reason, count in self.done.dropped.items()) or "the source has none"

    def _changed(self, solution: Solution) -> Solution | str:
        config = self._config
        reason = _unwanted(solution, config)
        if reason:
            return reason
        found = with_neutral(solution, config.neutral)
        if config.unlabelled != "cut":
            found = with_unlabelled(found, config.unlabelled)
        if config.threshold >= 0:
            found = hardened(found, config.threshold)
        if config.outcome_from_labels:
            found = with_outcome(found)  # before anything is cut: what is left says nothing of the whole
        if config.unlabelled == "cut":
            labelled = until_unlabelled(found)
            if labelled is None:
                return "begin with a step that has no label"
            found = labelled
        found = after_error(found, config.after_error)
        return numbered(found) if config.number_steps else found

    def _chosen(self, target: Format) -> Iterable[Solution]:
        config, solutions = self._config, self._located()
        if config.balance != "none":
            have = self._with_outcome(solutions)
            kept = balance(have, config.balance, config.seed)
            self._count("are left out for balance", len(have) - len(kept))
            solutions = iter(kept)
        if target.name != "preference":
            return solutions
        found = list(solutions)
        if all("preferred" in solution.meta for solution in found):
            return found
        found = self._with_outcome(found)
        pairs = make_pairs(found, config.pairs, config.seed)
        used = {solution.id for pair in pairs for solution in (pair.chosen, pair.rejected)}
        self._count("are in no pair", sum(solution.id not in used for solution in found))
        return [member for pair in pairs for member in self._members(pair.chosen, pair.rejected)]

    def _located(self) -> Iterator[Solution]:
        for solution in self.solutions():
            self._where.setdefault(solution.id, f"{self._config.source}:{self.done.rows_in}")
            yield solution

    def _members(self, chosen: Solution, rejected: Solution) -> Iterator[Solution]:
        name = f"{chosen.id}>{rejected.id}"
        self._where[f"{name}/chosen"] = self._where[chosen.id]
        for solution, part in ((chosen, "chosen"), (rejected, "rejected")):
            yield replace(solution, id=f"{name}/{part}", meta={**solution.meta, "preferred": part == "chosen"})

    def _with_outcome(self, solutions: Iterable[Solution]) -> list[Solution]:
        have = []
        for solution in solutions:
            if solution.outcome in (0.0, 1.0):
                have.append(solution)
                continue
            where = self._where.get(solution.id, self._config.source)
            reason = (
                f"{where}: solution {solution.id!r} has {'no' if solution.outcome is None else 'a soft'} outcome, and pairs and "
                "balance need right or wrong; set outcome_from_labels or threshold, or on_bad = skip"
            )
            self._refuse(BadRow(where=where, reason=reason), "have no outcome", 1)
        return have

    def _refuse(self, bad: BadRow, reason: str, count: int) -> None:
        if self._config.on_bad == "stop":
            raise DataError(bad.reason)
        self.done.bad.append(bad)
        self._count(reason, count)

    def _count(self, reason: str, count: int) -> None:
        if count:
            self.done.dropped[reason] += count


def _unwanted(solution: Solution, config: ConvertConfig) -> str:
    meta = solution.meta
    if config.phase != "all" and "generation" in meta and ("1" if meta["generation"] is None else "2") != config.phase:
        return f"are not of phase {config.phase}"
    if config.drop_quality_control and meta.get("is_quality_control_question"):
        return "are quality control"
    if config.drop_screening and meta.get("is_initial_screening_question"):
        return "are screening"
    if config.finish_reasons and "finish_reason" in meta and meta["finish_reason"] not in config.finish_reasons:
        return f"ended with {meta['finish_reason']}"
    return ""
