"""Splitting a response into steps. Every character belongs to exactly one step."""

from __future__ import annotations

import re
from collections.abc import Callable

from prmkit.data.types import Step

Splitter = Callable[[str], list[Step]]


def split_after(pattern: str) -> Splitter:
    """Steps end right after each match of `pattern`; the separator stays with the step that it closes.

    A tail of white space joins the last step. Text without a match is one step; empty text has no step.
    """
    compiled = re.compile(pattern)

    def split(text: str) -> list[Step]:
        ends = [m.end() for m in compiled.finditer(text) if m.end() > 0]
        if not ends or text[ends[-1] :].strip():
            ends.append(len(text))
        else:
            ends[-1] = len(text)
        starts = [0, *ends[:-1]]
        return [Step(start=a, end=b) for a, b in zip(starts, ends, strict=True) if b > a]

    return split


split_lines = split_after(r"\n+")
"""One step per line: the form of GSM8K solutions."""
split_paragraphs = split_after(r"\n\s*\n")
"""One step per paragraph: the form of ProcessBench and of most chat models."""
