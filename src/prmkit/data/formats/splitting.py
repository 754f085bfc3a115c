"""Cutting a response that comes as one text into steps, so that the steps joined by the separator are that text again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prmkit.data.formats.base import SplitName

_MARKER = re.compile(r"(?<!\S)Step \d+:")
_ANSWER = re.compile(r"# Answer\s+(?P<answer>\S.*?)\s*\Z", re.DOTALL)


def split_text(text: str, how: SplitName) -> tuple[tuple[str, ...], str]:
    """Steps and their separator.

    `step`: before each `Step 1:`, `Step 2:` and so on; `paragraph`: at blank lines; `line`: at newlines; `whole`: one step;
    `auto`: the first of these that makes more than one step. A blank piece stays with the step before it.
    """
    if how == "auto":
        names: tuple[SplitName, ...] = ("step", "paragraph", "line")
        for name in names:
            steps, separator = split_text(text, name)
            if len(steps) > 1:
                return steps, separator
        return (text,), "\n\n"
    if how == "step":
        return _at_markers(text)
    if how == "whole":
        return (text,), "\n\n"
    separator = "\n\n" if how == "paragraph" else "\n"
    return _folded(text.split(separator), separator), separator


def answer_tail(step: str) -> str | None:
    """What stands under `# Answer` at the end of a PRM800K solution."""
    found = _ANSWER.search(step)
    return found["answer"] if found else None


def _at_markers(text: str) -> tuple[tuple[str, ...], str]:
    cuts = [match.start() for match in _MARKER.finditer(text)]
    if cuts and not text[: cuts[0]].strip():
        cuts = cuts[1:]  # white space before the first marker stays with it
    starts = [0, *cuts]
    pieces = [text[a:b] for a, b in zip(starts, [*cuts, len(text)], strict=True)]
    return parted(pieces)


def parted(pieces: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Steps and their separator, from the pieces of a text.

    The white space that all cuts share is the separator; what one has beyond it stays with its step.
    """
    if len(pieces) == 1:
        return tuple(pieces), "\n\n"
    gaps = [piece[len(piece.rstrip()) :] for piece in pieces[:-1]]
    separator = min(gaps, key=len)
    while not all(gap.endswith(separator) for gap in gaps):
        separator = separator[1:]
    return (*(piece[: len(piece) - len(separator)] for piece in pieces[:-1]), pieces[-1]), separator


def _folded(pieces: Sequence[str], separator: str) -> tuple[str, ...]:
    steps: list[str] = []
    lead = ""
    for piece in pieces:
        if piece.strip():
            steps.append(lead + piece)
            lead = ""
        elif steps:
            steps[-1] += separator + piece
        else:
            lead += piece + separator
    return tuple(steps) if steps else (separator.join(pieces),)
