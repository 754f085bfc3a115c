"""The program in a response."""

from __future__ import annotations

import re

from prmkit.verify.answers import after_thinking
from prmkit.verify.code.source import parse

_FENCE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([\w+#.-]*+)[^\n`]*+$", re.MULTILINE)
"""Nothing in it is tried twice, so that no text makes it slow."""
_AFTER_TEXT = re.compile(r"(?<=[^\s`])[ \t]*+(```(?:python3?|py)[ \t]*+)$", re.MULTILINE | re.IGNORECASE)
"""A fence that names Python at the end of a line of text: "Here it is: ```python"."""
_QUOTES = re.compile(r"\"\"\"|'''")
_READINGS = 8
"""Of blocks with an open docstring, so that no text makes it slow."""
_PYTHON = {"python", "python3", "py", "py3", "pycon"}


def extract_code(response: str) -> str:
    """The program in what follows the thinking (`after_thinking`).

    The last fenced block labelled as Python, else the last without a label (after a labelled program it is often its output),
    else the last one; the whole text where there is no block. A block that is never closed (the response was cut) ends with the
    text. The fence's own indentation, as in a list, is taken off its lines; other indentation is kept, so that a bare completion
    of a function's body stays one.
    """
    text = after_thinking(response)
    blocks = _blocks(_AFTER_TEXT.sub(r"\n\1", text))
    if not blocks:
        return text
    python = [code for language, code in blocks if language in _PYTHON]
    unnamed = [code for language, code in blocks if not language]
    return (python or unnamed or [code for _, code in blocks])[-1]


def _blocks(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    opening: re.Match[str] | None = None
    doubtful: re.Match[str] | None = None
    """A closing fence that may stand in a docstring; it counts after all where no other one closes the block."""
    readings = _READINGS
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif doubtful and fence[3]:
            found.append(_block(text, opening, doubtful.start()))
            opening, doubtful = fence, None
        elif fence[2].startswith(opening[2]) and not fence[3]:
            python = opening[3].lower() in _PYTHON
            if python and readings and _in_docstring(text[opening.end() + 1 : fence.start()]):
                readings -= 1
                doubtful = doubtful or fence
                continue
            found.append(_block(text, opening, fence.start()))
            opening = doubtful = None
    if opening is not None:
        found.append(_block(text, opening, doubtful.start() if doubtful else len(text)))
    return found


def _block(text: str, opening: re.Match[str], end: int) -> tuple[str, str]:
    """Its language and its lines."""
    return opening[3].lower(), _without_indent(text[opening.end() + 1 : end], len(opening[1]))


def _in_docstring(code: str) -> bool:
    """Whether a text of three quotes is still open at the end, so that a fence there is a part of it."""
    return len(_QUOTES.findall(code)) % 2 == 1 and not _is_python(code)


def _is_python(code: str) -> bool:
    try:
        parse(code)
    except SyntaxError:
        return False
    return True


def _without_indent(code: str, width: int) -> str:
    """Each line without its first `width` characters of white space, or as many as it has."""
    return re.sub(rf"^[ \t]{{1,{width}}}", "", code, flags=re.MULTILINE) if width else code


def defines(source: str, name: str) -> bool:
    """Whether a function or class of that name stands at the outer level of `source`."""
    return re.search(rf"^(?:async[ \t]++)?(?:def|class)[ \t]++{re.escape(name)}\b", source, re.MULTILINE) is not None
