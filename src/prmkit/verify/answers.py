r"""The final answer of a response. Pure text, nothing evaluated, linear in the text.

A response gives its answer by saying so: in `\boxed{...}`, after `#` (`#### 42` of GSM8K, `#16` of the arithmetic task), after
"the answer is" in eleven languages, in a JSON field `"answer"`, by being nothing but an answer, or in a closing sentence that
begins with "therefore". A number that merely occurs in the text is no answer unless the caller asks for it.
"""

from __future__ import annotations

import json
import re
from collections import deque

from prmkit.verify.boxes import last_boxes
from prmkit.verify.phrases import introductions, lower_same_length, with_points
from prmkit.verify.plain_numbers import PlainNumber, read_number
from prmkit.verify.spelling import PRICES, ascii_digits, normalise, same_text

__all__ = ["PlainNumber", "after_thinking", "extract_answer", "marked_answer", "normalise", "read_number", "same_text"]

_HASH = re.compile(r"(#+)([^#\n]*)")
_HEADING = re.compile(r"[\d.,)]+\s+[^\W\d_]{2}")
"""After one to three `#`: `## 2 Check the result`."""
_JSON_FIELD = re.compile(
    r'"(?:final_)?answer\\?"\s{0,8}:\s{0,8}(?:"((?:[^"\\]|\\.){0,2000}+)"|(-?[\d.,]{1,40}))', re.IGNORECASE
)
_DELIMITED = re.compile(
    r"\$\$(.{1,1000}?)\$\$|(?<!\\)\$(.{1,1000}?)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]", re.DOTALL
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[\u3002\u0964]")
_CONNECTIVE = re.compile(r",?\s+(?:because|since|as|which|where|when|if|so|after|given|assuming)\b", re.IGNORECASE)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct.*", re.DOTALL)
_EMPTY_BOX = re.compile(r"[\s$]*\\?boxed\s*\{\s*\}[\s$.]*")
"""It names nothing, so what was said before it counts, if anything."""
_MATHS_BEGINS = re.compile(r"[-+(\[{$\\|€£]|\d|[A-Za-z] ?(?:[=<>!]|\\[a-z])")
_NAMED_BEFORE = re.compile(
    r"(?:(?<!\\)\$([^$\n]{1,200})\$|\\\(([^\n]{1,200}?)\\\)|(?<![\w.])([$€]?-?\d[\d.,/]*%?))[*_]{0,3}\s+"
    r"is\s+(?:the|our|my)\s+(?:final\s+|correct\s+|required\s+|desired\s+)?$"
)
_NUMBER_ANYWHERE = re.compile(
    r"(?<![\w.,])-?[$€£]?"
    r"(?>\d{1,3}(?:,\d{3})++(?:\.\d+)?|[1-9]\d{0,2}(?:[ \u00a0\u202f]\d{3})++(?:[.,]\d+)?|\d++(?:\.\d+|,\d+)?|\.\d+)"
    r"(?:/\d+)?(?!\d)(?:(?:\s?(?:%|\\%|percent\b))?(?!\w)|(?=(?:mm|cm|dm|km|m|mg|kg|g|ml|l|s|h|ft|in)(?![A-Za-z])))"
)
_CONCLUSION = re.compile(
    r"(?:(?<=[.!?:\n$\])\u3002\u0964]\s)|^|(?<=\n))\W{0,4}"
    r"(?:therefore|thus|hence|so|consequently|in conclusion|in total|finally|overall|we (?:find|get|have|conclude|obtain) that|"
    r"donc|ainsi|daher|somit|por lo tanto|por tanto|следовательно|таким образом|因此|所以|したがって|よって)(?![A-Za-z])",
    re.IGNORECASE,
)
_CHAT_MARK = re.compile(r"(?:\s*(?:<\|[a-z_]{1,20}\|>\w{0,12}|</s>))+\s*$")

_LATEX_BEGINS = ("$", "\\", "(", "[", "{", "-\\")
_SENTENCE_CHARS = 1000
"""A sentence that gives an answer is no longer; keeps every search linear in the response."""
_TAIL_CHARS = 8000
"""The last number or formula is looked for no further from the end."""
_BARE_CHARS = 300
"""A response that is nothing but an answer is no longer."""


def extract_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""The answer that a response gives as final, as written; None when it gives none.

    In this order: `marked_answer`; else the whole text where it is a number or a formula between delimiters; else the last
    number or formula of a closing sentence that begins with "therefore", "thus", "so" or the like; else, with `last_number`,
    the last number or formula of the text. What stands in <think> is no answer (`after_thinking`).
    """
    text = after_thinking(text)
    marked = marked_answer(text)
    if marked is not None:
        return marked
    found = _bare(text) or _conclusion(text) or (_last_maths(text) if last_number else None)
    return None if found is None or _EMPTY_BOX.fullmatch(found) else found


def after_thinking(text: str) -> str:
    """What follows the last </think>; nothing where a <think> was never closed."""
    closed = text.rfind("</think>")
    if closed >= 0:
        return text[closed + len("</think>") :]
    return "" if "<think>" in text else text


def marked_answer(text: str) -> str | None:
    r"""The answer that a response marks as such; None when it marks none.

    The last group of `\boxed{...}` (`last_boxes`), unless a "final answer" that is maths follows it. Without a box, whichever
    comes last of a `#` followed by a number (after exactly four `#` also by LaTeX, so that headings are no answers), a phrase
    such as "the answer is", and a JSON field `"answer"`.
    """
    boxed = last_boxes(text)
    lowered = lower_same_length(text)
    if boxed is not None:
        final = _last_final_answer(text, lowered, boxed[0])
        return final if final is not None else boxed[1]
    found = [_last_hash(text), _last_phrase(text, lowered), _named_before(text, lowered), _last_json(text, lowered)]
    marked = [place for place in found if place is not None]
    return max(marked)[1] if marked else None


def _last_final_answer(text: str, lowered: str, after: int) -> str | None:
    """What "the final answer is" after the last box names, if that is maths without a box of its own."""
    position = lowered.rfind("final answer")
    if position <= after:
        return None
    found = _last_phrase(text[position:], lowered[position:])
    return found[1] if found and _MATHS_BEGINS.match(found[1]) and "boxed" not in found[1] else None


def _last_hash(text: str) -> tuple[int, str] | None:
    """(position, answer) of the last run of `#` with an answer on its line."""
    if "#" not in text:
        return None
    for match in reversed(list(_HASH.finditer(text))):
        answer = match.group(2).strip()
        if not any(character.isdecimal() for character in answer) and not answer.startswith(_LATEX_BEGINS):
            continue
        if len(match.group(1)) < 4 and _HEADING.match(answer):
            continue
        as_latex = len(match.group(1)) == 4 and answer.startswith(_LATEX_BEGINS)
        if as_latex or read_number(normalise(answer)) is not None:
            return match.start(), answer
    return None


def _last_phrase(text: str, lowered: str) -> tuple[int, str] | None:
    """(position, answer) of the last introduction that is followed by something."""
    best: tuple[int, str] | None = None
    done: set[str] = set()
    for position, begin, phrase in introductions(text, lowered):
        if phrase.pattern.pattern in done or (best is not None and position <= best[0]):
            continue
        clause = _clause(text, begin)
        if clause and not _EMPTY_BOX.fullmatch(clause) and not (phrase.only_maths and not _MATHS_BEGINS.match(clause)):
            best = position, with_points(clause) if phrase.point_groups else clause
            done.add(phrase.pattern.pattern)
    return best


def _named_before(text: str, lowered: str) -> tuple[int, str] | None:
    """(position, answer) of the last `5 is the answer`."""
    for keyword in ("answer", "solution"):
        position = lowered.rfind(keyword)
        if position > 0 and (match := _NAMED_BEFORE.search(text[max(0, position - 260) : position])):
            return position, next(group for group in match.groups() if group)
    return None


def _last_json(text: str, lowered: str) -> tuple[int, str] | None:
    """(position, answer) of the last JSON field `answer`."""
    position = lowered.rfind('answer"')
    while position >= 0:
        begin = max(lowered.rfind('"', 0, position), 0)
        if match := _JSON_FIELD.match(text, begin):
            written, number = match.groups()
            answer = number if written is None else _unescaped(written)
            if answer.strip():
                return position + 1, answer.strip()  # before the phrase that begins at the same word
        position = lowered.rfind('answer"', 0, position)
    return None


def _unescaped(written: str) -> str:
    r"""A JSON string's text; as written where a model forgot to double the backslashes of its LaTeX."""
    try:
        plain = json.loads(f'"{written}"')
    except ValueError:
        return written
    assert isinstance(plain, str)
    return plain if plain.isprintable() else written  # \frac as JSON begins with a form feed


def _clause(text: str, start: int) -> str:
    """What a phrase names: the delimited maths that follows it, or the rest of its sentence."""
    line = text[start : start + _SENTENCE_CHARS].split("\n", 1)[0]
    delimited = None if "$" in line and PRICES.fullmatch(line) else _DELIMITED.match(text, start)
    if delimited and not _DELIMITED.search(line, max(0, delimited.end() - start)):
        rest = line[max(0, delimited.end() - start) :]
        sign = re.match(r" ?(?:\\?%|percent\b)", rest)
        return next(group for group in delimited.groups() if group is not None).strip() + ("%" if sign else "")
    line = _HOPE.sub("", line) if "I hope" in line else line
    end = _SENTENCE_END.search(line)
    sentence = line[: end.start()] if end else line
    marks = "*_`\"'\u201c\u201d "
    return _CONNECTIVE.split(sentence, maxsplit=1)[0].strip().lstrip(marks).rstrip(f"{marks}\\")


def _bare(text: str) -> str | None:
    """The whole text, where it is nothing but a number or formulas between delimiters."""
    answer = text.strip()
    if not answer or len(answer) > _BARE_CHARS:
        return None
    if (
        answer[0] in "$\\"
        and (match := _DELIMITED.match(answer))
        and not re.search(r"[A-Za-z]{4,}", answer[match.end() :])
    ):
        return answer
    return answer if read_number(normalise(answer)) is not None else None


def _conclusion(text: str) -> str | None:
    """The maths of the closing sentence, if that sentence is complete and begins with a word such as "therefore"."""
    tail = _CHAT_MARK.sub("", text[-2 * _SENTENCE_CHARS :])
    tail = _HOPE.sub(".", tail).rstrip()
    if not tail or tail[-1] not in ".!$)]\u3002\u0964":
        return None
    places = list(_CONCLUSION.finditer(tail))
    if not places:
        return None
    sentence = tail[places[-1].end() :]
    end = _SENTENCE_END.search(sentence)
    if end and sentence[end.end() :].strip():  # more was said after it
        return None
    return _last_maths(sentence)


def _last_maths(text: str) -> str | None:
    """The last formula between delimiters or, if it comes later, the last number."""
    text = text[-_TAIL_CHARS:]
    formulas = deque(_DELIMITED.finditer(text), maxlen=1)
    numbers = deque(_NUMBER_ANYWHERE.finditer(ascii_digits(text)), maxlen=1)
    if formulas and not _is_prose(formulas[0].group()) and not (numbers and numbers[0].start() >= formulas[0].end()):
        return next(group for group in formulas[0].groups() if group is not None).strip()
    return numbers[0].group() if numbers else None


def _is_prose(formula: str) -> bool:
    """What stands between two dollar signs that are prices."""
    plain = re.sub(r"\\[A-Za-z]+(?:\{[^{}]*\})?", "", formula)
    return re.search(r"[A-Za-z]{3,} [A-Za-z]{2,}", plain) is not None
