r"""Action-centred chain of thought: the format that PRIME's SFT stage teaches (arXiv:2502.01456, its table of actions).

A response is a row of actions. Each names the next one; the last is the output, which alone is meant for the reader:

    [ASSESS]
    # what is asked and what is known
    Next action: [ADVANCE]

    [ADVANCE]
    # 2 + 3 = 5
    Next action: [OUTPUT]

    [OUTPUT]
    2 + 3 = 5, so the answer is \boxed{5}.

The prompts below are written for prmkit; the tags and the rules are PRIME's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from prmkit.data.types import Step
from prmkit.errors import DataError

Tag = Literal["ASSESS", "ADVANCE", "VERIFY", "SIMPLIFY", "SYNTHESIZE", "PIVOT", "OUTPUT"]

ACTIONS: dict[Tag, str] = {
    "ASSESS": "Look at where you stand: what is given, what is asked, which routes are open.",
    "ADVANCE": "Move forward by one stretch: calculate, draw a conclusion or set up a hypothesis.",
    "VERIFY": "Test a result or an assumption that the rest depends on, by other means where possible.",
    "SIMPLIFY": "Cut a hard part into smaller ones, or restate it in an easier form.",
    "SYNTHESIZE": "Bring results found apart together into one.",
    "PIVOT": "Give up a route that does not lead on, say why, and choose another.",
    "OUTPUT": "Tell the reader the whole solution in brief, with the final answer.",
}
"""What each action is for."""

_TEMPLATE = """\
[ACTION]
# one step
# another step
Next action: [ANOTHER ACTION]

...

[OUTPUT]
the solution in brief and the final answer"""

_OPENING = (
    "You solve problems by a sequence of actions. At the end of each action you name the action that comes next, until you "
    "give the output."
)

SHORT_PROMPT = f"""{_OPENING}

Actions: {" ".join(f"[{tag}]" for tag in ACTIONS)}

Write in this form:

{_TEMPLATE}"""
"""System prompt for a model that has learned the format: RL and evaluation."""

FULL_PROMPT = f"""{_OPENING}

Actions:
{chr(10).join(f"- [{tag}]: {meaning}" for tag, meaning in ACTIONS.items())}

Rules:
- Begin with [ASSESS] and end with [OUTPUT].
- An action stands under its tag and consists of several steps; each step is a new line that starts with "#".
- Every action except [OUTPUT] closes with the line "Next action: [TAG]", and the action of that tag follows.
- Choose the next action by what the work needs. An action may come as often as necessary.
- The reader sees [OUTPUT] and nothing else, so it must be complete in itself.

Write in this form:

{_TEMPLATE}"""
"""System prompt for a teacher model that writes SFT data in the format."""

_HEADER = re.compile(r"\[([A-Z ]+)\][ \t]*")
_NEXT = re.compile(r"Next action: \[([A-Z ]+)\][ \t]*")
_HEADER_LINE = re.compile(rf"^\[(?:{'|'.join(ACTIONS)})\][ \t]*$", re.MULTILINE)
_FIRST_STEP = "# I note what the question gives and what it asks for, and work towards that one result at a time."


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One action: what stands between its tag and the line that names the next."""

    tag: Tag
    body: str
    next: Tag | None
    """None exactly for OUTPUT."""


def parse_actions(text: str) -> list[Action]:
    """The actions of a response that keeps to every rule of the format.

    Raises DataError with the line of the response otherwise: not beginning with ASSESS, an unknown tag, an action without
    steps, without or with another successor than the one that follows, or no OUTPUT as the last action.
    """
    lines = text.rstrip().split("\n")
    actions: list[Action] = []
    position = 0
    while not actions or actions[-1].tag != "OUTPUT":
        while position < len(lines) and not lines[position].strip():
            position += 1
        if position == len(lines):
            raise DataError(f"line {position}: the response ends without [OUTPUT]; close it with that action")
        tag = _header(lines[position], position, actions[-1].next if actions else None)
        end = _end_of_action(lines, position, tag)
        actions.append(_action(tag, lines, position, end))
        position = end + 1
    return actions


def split_actions(text: str) -> list[Step]:
    """One step per action; any text may be split, also one that breaks the rules.

    A step begins at each line that holds just a tag of the format; text before the first one is a step of its own unless
    it is blank.
    """
    starts = [m.start() for m in _HEADER_LINE.finditer(text) if text[: m.start()].strip()]
    bounds = [0, *starts, len(text)]
    return [Step(start=a, end=b) for a, b in pairwise(bounds) if b > a]


def format_demonstration(solution: str, answer: str) -> str:
    """A plain worked solution, one step a line, as a response: ASSESS, an ADVANCE for each line, OUTPUT with the box.

    Raises DataError if the solution has no line, or holds tags of its own so that the format would be broken.
    """
    steps = [line.strip() for line in solution.split("\n") if line.strip()]
    if not steps:
        raise DataError("the worked solution is blank, so there is no step to put into an action; leave the row out")
    parts = [f"[ASSESS]\n{_FIRST_STEP}\nNext action: [ADVANCE]"]
    parts += [f"[ADVANCE]\n# {step}\nNext action: [ADVANCE]" for step in steps[:-1]]
    parts.append(f"[ADVANCE]\n# {steps[-1]}\nNext action: [OUTPUT]")
    output = "\n".join(steps)
    if "\\boxed{" not in steps[-1]:
        output += f"\nThe answer is \\boxed{{{answer}}}."
    parts.append(f"[OUTPUT]\n{output}")
    response = "\n\n".join(parts)
    parse_actions(response)
    return response


def _header(line: str, position: int, named: Tag | None) -> Tag:
    """The tag on this line, which must be the one that the action before has named; ASSESS where there is none before."""
    expected = named or "ASSESS"
    match = _HEADER.fullmatch(line)
    if match is None:
        raise DataError(f"line {position + 1}: {line!r} stands outside any action; expected the line '[{expected}]'")
    tag = _known(match[1], position)
    if tag != expected:
        reason = f"the action before names [{named}] as next" if named else "a response begins with [ASSESS]"
        raise DataError(f"line {position + 1}: [{tag}], but {reason}")
    return tag


def _end_of_action(lines: list[str], start: int, tag: Tag) -> int:
    """Index of the line that closes the action: its `Next action` line, or the end for OUTPUT."""
    for i in range(start + 1, len(lines)):
        if _NEXT.fullmatch(lines[i]):
            if tag == "OUTPUT":
                raise DataError(f"line {i + 1}: [OUTPUT] names a next action, but it is the last; remove the line")
            return i
        if _HEADER_LINE.fullmatch(lines[i]):
            raise DataError(f"line {i + 1}: [{tag}] of line {start + 1} has no line 'Next action: [TAG]' before this")
    if tag != "OUTPUT":
        raise DataError(f"line {len(lines)}: [{tag}] of line {start + 1} has no line 'Next action: [TAG]'; add it")
    return len(lines)


def _action(tag: Tag, lines: list[str], start: int, end: int) -> Action:
    body = "\n".join(lines[start + 1 : end]).strip("\n")
    if not body.strip():
        raise DataError(f"line {start + 1}: [{tag}] is empty; write its steps or leave the action out")
    if tag == "OUTPUT":
        return Action(tag=tag, body=body, next=None)
    if not body.startswith("#"):
        raise DataError(f"line {start + 2}: [{tag}] does not begin with a step; start each step with '#'")
    following = _NEXT.fullmatch(lines[end])
    assert following is not None
    return Action(tag=tag, body=body, next=_known(following[1], end))


def _known(tag: str, position: int) -> Tag:
    if tag not in ACTIONS:
        raise DataError(f"line {position + 1}: unknown action [{tag}]; the actions are {', '.join(ACTIONS)}")
    return tag
