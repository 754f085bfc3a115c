"""From characters to tokens: which step a token belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from prmkit.data.types import Step


def step_of_tokens(steps: Sequence[Step], token_ends: Sequence[int]) -> list[int]:
    """Index of the step of each token: the step that holds the token's last character.

    A token that straddles a boundary thus belongs to the later step, and a token without characters of its own (the end
    token, part of a multi-byte character) to the step of the character before it; step 0 if there is none.
    """
    result = []
    index = 0
    for end in token_ends:
        while index + 1 < len(steps) and steps[index].end < end:
            index += 1
        result.append(index)
    return result
