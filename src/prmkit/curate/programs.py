"""Rows whose reference is a set of tests: programming problems, which stand beside mathematics in PRIME's data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from prmkit.curate.record import Dropped, Outcome, Record, Step, one_by_one

READ = "read"
"""The step's name of what is left out before the first step."""
_ABILITIES = {"code", "coding"}
_TESTS = {"inputs", "outputs"}


def leave_out_programs(records: Sequence[Record]) -> list[Step]:
    """A step that drops the programs; none where there is no program."""
    return [Step(name=READ, run=_drop_programs)] if any(map(_why_program, records)) else []


def _drop_programs(records: Sequence[Record]) -> Outcome:
    def judge(record: Record) -> Record | Dropped:
        why = _why_program(record)
        return Dropped(record=record, reason="program", detail=why) if why else record

    return one_by_one(judge)(records)


def _why_program(record: Record) -> str:
    """Why a record is a program; empty where it is none."""
    ability = record.row.get("ability")
    if isinstance(ability, str) and ability.strip().lower() in _ABILITIES:
        return f"its ability is {ability!r}"
    if _is_tests(record.answer):
        return "its answer is a set of tests, with inputs and outputs"
    return ""


def _is_tests(answer: str) -> bool:
    if not answer.lstrip().startswith("{") or not all(f'"{key}"' in answer for key in _TESTS):
        return False
    try:
        value = json.loads(answer)
    except ValueError:
        return False
    return isinstance(value, Mapping) and value.keys() >= _TESTS
