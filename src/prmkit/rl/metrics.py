"""What a step is reported as: one flat row of numbers, and the rollouts to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from prmkit.data.types import Prompt
from prmkit.evaluate.localisation import first_error_auc
from prmkit.ops.rewards import step_sums
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.collect import Collected, counted
from prmkit.rl.step import StepResult

FirstError = Callable[[Prompt, str], int]


def step_metrics(result: StepResult, first_error: FirstError | None, algorithm: Algorithm) -> dict[str, float]:
    """TRL's names where TRL has one; `prm/`, `filter/`, `verdict/` and `advantage/` are ours."""
    row = _sampling_metrics(result.collected, algorithm) | dict(result.metrics)
    if result.process is not None and first_error is not None:
        truths, values = [], []
        members = [(g.prompt, m) for g in result.collected.kept for m in g.members]
        sums_BS = step_sums(result.process.reward_BT, result.batch.step_BT)
        for i, (prompt, member) in enumerate(members):
            num_steps = int(result.batch.step_BT[i].max()) + 1
            values.append(sums_BS[i, :num_steps].tolist())
            truths.append(first_error(prompt, member.rollout.text))
        auc = first_error_auc(values, truths)
        if auc is not None:
            row["prm/first_error_auc"] = auc
    return row


def _sampling_metrics(collected: Collected, algorithm: Algorithm) -> dict[str, float]:
    members = [m for g in collected.sampled for m in g.members]
    rewards_by_group = [[counted(m.verdict, algorithm).reward for m in g.members] for g in collected.sampled]
    rewards = [r for group in rewards_by_group for r in group if r is not None]
    lengths = [len(m.rollout.token_ids) for m in members]
    statuses = Counter(m.verdict.status for m in members)
    mean = sum(rewards) / max(1, len(rewards))
    greedy_lengths = [len(m.rollout.token_ids) for g in collected.greedy for m in g.members]
    return {
        "reward": mean,
        "reward_std": (sum((r - mean) ** 2 for r in rewards) / max(1, len(rewards))) ** 0.5,
        "frac_reward_zero_std": sum(len(set(group)) == 1 for group in rewards_by_group) / len(rewards_by_group),
        "completions/mean_length": sum(lengths) / len(lengths),
        "completions/clipped_ratio": sum(m.rollout.finish == "length" for m in members) / len(members),
        "filter/kept_fraction": len(collected.kept) / len(collected.sampled),
        "filter/groups": float(len(collected.kept)),
        "filter/draws": float(collected.draws),
        **{f"verdict/{s}": statuses[s] / len(members) for s in ("ok", "unparsed", "timeout", "error")},
        "step/rollouts": float(len(members) + len(greedy_lengths)),
        "step/tokens": float(sum(lengths) + sum(greedy_lengths)),
    }


def rollout_rows(result: StepResult, step: int, first_error: FirstError | None) -> Iterator[dict[str, Any]]:
    """One row per kept rollout: text, tokens, verdict, process rewards and advantages."""
    members = [(g.prompt, m) for g in result.collected.kept for m in g.members]
    for i, (prompt, member) in enumerate(members):
        rollout, mask_T = member.rollout, result.batch.response_mask_BT[i]
        ends = (0, *rollout.token_ends)
        yield {
            "step": step,
            "prompt_id": prompt.id,
            "prompt": prompt.messages[-1].content,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "answer": prompt.answer,
            "text": rollout.text,
            "tokens": [rollout.text[a:b] for a, b in pairwise(ends)],
            "token_ends": list(rollout.token_ends),
            "step_of_token": result.batch.step_BT[i][mask_T].tolist(),
            "outcome": member.verdict.reward,
            "status": member.verdict.status,
            "detail": member.verdict.detail,
            "finish": rollout.finish,
            "process_rewards": _rounded(result.process.reward_BT[i][mask_T]) if result.process else None,
            "advantages": _rounded(result.advantages.advantage_BT[i][mask_T]),
            "first_error_step": first_error(prompt, rollout.text) if first_error else None,
        }


def _rounded(value_T: Any) -> list[float]:
    return [float(f"{v:.6g}") for v in value_T.tolist()]
