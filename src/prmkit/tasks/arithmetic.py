r"""The embedded task: chains of additions, solved step by step, with planted misconceptions.

A prompt `3+8+5=?` is answered by `3+8=11;11+5=16#16`. All operands are digits 1..9. The demonstrations that the SFT stage
learns from get some steps wrong on purpose (a misconception), so the SFT model knows the form but errs part of the time;
which step is wrong is known, hence process rewards can be checked against the truth.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import Literal

from prmkit.data.steps import split_after
from prmkit.data.types import Message, Prompt
from prmkit.errors import ConfigError, DataError

Misconceptions = Literal["carry", "pairs"]
Split = Literal["train", "test"]

SPLIT = split_after("[;#]")
"""Steps of a response: each equation with its separator, then the answer."""
TEST_SHARE = 8
"""One problem in so many, chosen by a checksum of its text, belongs to the test split."""
TRIES = 400
"""Draws per prompt before the search for distinct problems gives up."""

_PROMPT = re.compile(r"[1-9](\+[1-9])+=\?")
_EQUATION = re.compile(r"(0|[1-9][0-9]*)\+([0-9])=(0|[1-9][0-9]*)([;#])")


def arithmetic_prompts(num: int, *, chain: int, seed: int, split: Split = "train") -> list[Prompt]:
    """`num` distinct problems with `chain` additions; `answer` is the sum.

    The split is a property of the problem itself (a checksum of its text), so train and test problems are disjoint
    whatever the seeds. Raises ConfigError if there are not that many problems.
    """
    _check_chain(chain)
    rng = random.Random(f"arithmetic/{split}/{seed}")
    texts: dict[str, None] = {}
    for _ in range(TRIES * num):
        if len(texts) == num:
            break
        text = _draw(chain, rng)
        if _split_of(text) == split:
            texts[text] = None
    if len(texts) < num:
        raise ConfigError(
            f"task.chain = {chain} has only about {len(texts)} {split} problems, but {num} were asked for; "
            f"raise task.chain or set task.limit = {len(texts)}"
        )
    return [_prompt(text, f"arithmetic/{split}/{seed}/{index}") for index, text in enumerate(texts)]


def demonstrations(
    num: int, *, chain: int, misconceptions: Misconceptions, error_rate: float, seed: int
) -> list[tuple[Prompt, str]]:
    """`num` train problems, drawn with replacement, each with a worked solution that may hold planted errors."""
    _check_chain(chain)
    if not 0.0 <= error_rate <= 1.0:
        raise ConfigError(f"task.error_rate = {error_rate} is no probability; set it between 0 and 1")
    rng = random.Random(f"arithmetic/demonstrations/{seed}")
    rows: list[tuple[Prompt, str]] = []
    while len(rows) < num:
        text = _draw(chain, rng)
        if _split_of(text) == "train":
            prompt = _prompt(text, f"arithmetic/demonstrations/{seed}/{len(rows)}")
            solution = demonstration(prompt, misconceptions=misconceptions, error_rate=error_rate, rng=rng)
            rows.append((prompt, solution))
    return rows


def demonstration(prompt: Prompt, *, misconceptions: Misconceptions, error_rate: float, rng: random.Random) -> str:
    """A worked solution in which each step that carries falls for the misconception with probability `error_rate`.

    The chain goes on from a wrong value, and the answer is the value that it ends at.
    """
    value, *rest = operands(prompt)
    equations = []
    for added in rest:
        falls = carries(value, added) and rng.random() < error_rate
        result = misconceived_sum(value, added, misconceptions) if falls else value + added
        equations.append(f"{value}+{added}={result}")
        value = result
    return ";".join(equations) + f"#{value}"


def carries(value: int, added: int) -> bool:
    """Whether adding the digit `added` carries into the tens."""
    return value % 10 + added >= 10


def misconceived_sum(value: int, added: int, misconceptions: Misconceptions) -> int:
    """The wrong result of an addition that carries.

    carry: the carry is dropped, 13 + 8 = 11. pairs: each of the 45 pairs (unit digit, added digit) that carry has its own
    fixed shift of the result's unit digit, in 1..9, so each is to be unlearned by itself.
    """
    assert carries(value, added)
    right = value + added
    if misconceptions == "carry":
        return right - 10
    shift = _checksum(f"{value % 10}+{added}") % 9 + 1
    return right - right % 10 + (right + shift) % 10


def operands(prompt: Prompt) -> list[int]:
    """The digits that the prompt asks to add. Raises DataError if the prompt is not of this task."""
    text = prompt.messages[-1].content
    if not _PROMPT.fullmatch(text):
        raise DataError(f"prompt {prompt.id}: {text!r} is no arithmetic problem such as '3+8+5=?'")
    return [int(digit) for digit in text.removesuffix("=?").split("+")]


def step_is_right(prompt: Prompt, text: str) -> list[bool]:
    """The truth of each step of `SPLIT(text)`, judged given the value that the step before it states.

    A step is right if it adds the next operand to that value and the equation holds; the last one, if it repeats that
    value. A step that cannot be read is wrong, and so is the one after it (nothing to go on from). Where the response
    stops before its answer, the last step is wrong, for that is where it should not have stopped.
    """
    first, *rest = operands(prompt)
    value: int | None = first
    right = []
    for index, step in enumerate(SPLIT(text)):
        written = text[step.start : step.end]
        if index < len(rest):
            separator = ";" if index + 1 < len(rest) else "#"
            holds, value = _judge_equation(written, value, rest[index], separator)
            right.append(holds)
        else:
            right.append(index == len(rest) and value is not None and written == str(value))
    if right and len(right) < len(rest) + 1:
        right[-1] = False
    return right


def first_error_step(prompt: Prompt, text: str) -> int:
    """Index of the first wrong step of `SPLIT(text)`; -1 if there is none; 0 for an empty response."""
    right = step_is_right(prompt, text)
    if not right:
        return 0
    return right.index(False) if False in right else -1


def _judge_equation(written: str, value: int | None, added: int, separator: str) -> tuple[bool, int | None]:
    match = _EQUATION.fullmatch(written)
    if match is None:
        return False, None
    left, digit, result = (int(match[i]) for i in (1, 2, 3))
    holds = left == value and digit == added and left + digit == result and match[4] == separator
    return holds, result


def _draw(chain: int, rng: random.Random) -> str:
    return "+".join(str(rng.randint(1, 9)) for _ in range(chain + 1)) + "=?"


def _split_of(text: str) -> Split:
    return "test" if _checksum(text) % TEST_SHARE == 0 else "train"


def _checksum(text: str) -> int:
    """A number that mixes well and never changes, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _prompt(text: str, name: str) -> Prompt:
    total = sum(int(digit) for digit in text.removesuffix("=?").split("+"))
    return Prompt(id=name, messages=(Message(role="user", content=text),), answer=str(total), task="arithmetic")


def _check_chain(chain: int) -> None:
    if chain < 1:
        raise ConfigError(f"task.chain = {chain}, but a problem needs at least one addition; set task.chain = 6")
