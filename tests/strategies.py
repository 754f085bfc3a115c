"""Random ragged batches for property tests: rows of one prompt length per group, labels in any order and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

QUICK = settings(max_examples=25)
"""Few examples."""

NOT_FINITE = torch.tensor([float("nan"), float("inf"), float("-inf")], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """What the functions of `ops` take, in float64."""

    mask_BT: Tensor
    step_BT: Tensor
    reward_BT: Tensor
    other_BT: Tensor
    """Values, or the log-probs of a reference."""
    group_B: Tensor
    outcome_B: Tensor
    score_B: Tensor

    def rows(self, row_B: Tensor) -> Ragged:
        """The given rows, in that order."""
        return replace(self, **{f.name: getattr(self, f.name)[row_B] for f in fields(self)})

    def padded(self, extra: int) -> Ragged:
        """`extra` more columns on the right, full of NaN."""
        return replace(
            self,
            mask_BT=_wider(self.mask_BT, extra, False),
            step_BT=_wider(self.step_BT, extra, -1),
            reward_BT=_wider(self.reward_BT, extra, float("nan")),
            other_BT=_wider(self.other_BT, extra, float("nan")),
        )

    def poisoned(self) -> Ragged:
        """NaN and infinities everywhere off the mask."""
        bad_BT = NOT_FINITE[torch.arange(self.mask_BT.numel()) % 3].view(self.mask_BT.shape)
        return replace(
            self,
            reward_BT=torch.where(self.mask_BT, self.reward_BT, bad_BT),
            other_BT=torch.where(self.mask_BT, self.other_BT, bad_BT),
        )

    def emptied(self) -> Ragged:
        """The same batch without a single response token."""
        return replace(self, mask_BT=torch.zeros_like(self.mask_BT), step_BT=torch.full_like(self.step_BT, -1))

    def relabelled(self, label: Callable[[Tensor], Tensor]) -> Ragged:
        """The same groups under other names."""
        return replace(self, group_B=label(self.group_B))


def _wider(value_BT: Tensor, extra: int, fill: float) -> Tensor:
    return torch.cat([value_BT, value_BT.new_full((len(value_BT), extra), fill)], dim=1)


@st.composite
def ragged(draw: st.DrawFn, min_group: int = 2) -> Ragged:
    """1 to 3 groups of `min_group` to 4 rows, prompts of 0 to 3 tokens, responses of 1 to 6 tokens in 1 to 3 steps."""
    prompts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    labels = draw(st.lists(st.integers(-(2**40), 2**40), min_size=len(prompts), max_size=len(prompts), unique=True))
    rows = []
    for prompt, label in zip(prompts, labels, strict=True):
        for length in draw(st.lists(st.integers(1, 6), min_size=min_group, max_size=4)):
            rows.append((label, prompt, length, draw(st.integers(1, min(3, length)))))
    rows = draw(st.permutations(rows))
    return _fill(rows, torch.Generator().manual_seed(draw(st.integers(0, 10**6))))


def _fill(rows: list[tuple[int, int, int, int]], generator: torch.Generator) -> Ragged:
    B, T = len(rows), max(prompt + length for _, prompt, length, _ in rows)
    mask_BT = torch.zeros(B, T, dtype=torch.bool)
    step_BT = torch.full((B, T), -1)
    for i, (_, prompt, length, num_steps) in enumerate(rows):
        mask_BT[i, prompt : prompt + length] = True
        step_BT[i, prompt : prompt + length] = torch.arange(length) * num_steps // length

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Ragged(
        mask_BT=mask_BT,
        step_BT=step_BT,
        reward_BT=torch.where(mask_BT, normal(B, T), 0.0),
        other_BT=torch.where(mask_BT, normal(B, T), 0.0),
        group_B=torch.tensor([label for label, *_ in rows]),
        # Thirds: verdicts may be soft, and equal ones must occur.
        outcome_B=torch.randint(0, 4, (B,), generator=generator).double() / 3,
        score_B=torch.round(2 * normal(B)) / 2,
    )
