r"""How a question is asked and how a worked solution is written, in each format.

plain: the question as it stands, the answer in the data set's own form. boxed: the question asks for \boxed{}. actions:
the seven actions of `tasks.actions`, which end in a box too.
"""

from __future__ import annotations

from typing import Literal

from prmkit.data.chat import read_messages
from prmkit.data.steps import Splitter, split_lines
from prmkit.data.types import Message
from prmkit.errors import DataError
from prmkit.tasks.actions import SHORT_PROMPT, format_demonstration, split_actions
from prmkit.tasks.rows import Row

Format = Literal["plain", "boxed", "actions"]

ASK_FOR_BOX = "\n\nGive your final answer in \\boxed{}."


def ask(row: Row, question: str, form: Format) -> tuple[Message, ...]:
    """The turns that ask a question. A row's own `messages` are taken as they are, whatever the format."""
    if "messages" in row.fields:
        return read_messages(row.fields["messages"], row.where)
    match form:
        case "plain":
            return (Message(role="user", content=question),)
        case "boxed":
            return (Message(role="user", content=question + ASK_FOR_BOX),)
        case "actions":
            return (Message(role="system", content=SHORT_PROMPT), Message(role="user", content=question + ASK_FOR_BOX))


def worked(row: Row, solution: str, answer: str, form: Format, *, plain_ending: str) -> str:
    """A row's worked solution as a response. `plain_ending` is what the plain format adds to it."""
    match form:
        case "plain":
            return solution + plain_ending
        case "boxed":
            return solution if "\\boxed{" in solution else f"{solution}\nThe answer is \\boxed{{{answer}}}."
        case "actions":
            try:
                return format_demonstration(solution, answer)
            except DataError as error:
                raise DataError(f"{row.where}: the solution cannot be written as actions: {error}") from None


def splitter(form: Format) -> Splitter:
    """Steps of a response in this format: lines, or whole actions."""
    return split_actions if form == "actions" else split_lines
