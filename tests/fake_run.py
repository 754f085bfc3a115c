"""A made-up run folder in the form that `prmkit rl` writes, for tests of what reads one."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

CONFIG = """seed = {seed}
name = "fake"

[model]
path = "tiny"

[task]
name = "arithmetic"
chain = 6

[algorithm]
advantage = "rloo"

[algorithm.process]
coef = {coef}

[run]
prmkit = "0.1.0"
torch = "2.13.0"
transformers = "5.23.0"
python = "3.11.2"
commit = "0123abc"
command = "prmkit rl --seed {seed}"
"""


def write_fake_run(
    path: Path, *, steps: int, with_prm: bool, seed: int, group_size: int = 4, recorded_every: int = 10
) -> Path:
    """Write a plausible run folder and return its path."""
    draw = random.Random(seed)
    (path / "rollouts").mkdir(parents=True)
    (path / "config.toml").write_text(CONFIG.format(seed=seed, coef=1.0 if with_prm else 0.0))
    metrics = [_metrics(step, steps, with_prm, draw) for step in range(1, steps + 1)]
    write_lines(path / "metrics.jsonl", metrics)
    write_lines(path / "timings.jsonl", [_timings(step, with_prm, draw) for step in range(1, steps + 1)])
    evals = [_evals(step, steps, draw) for step in sorted({0, steps // 4, steps // 2, 3 * steps // 4, steps})]
    write_lines(path / "eval.jsonl", evals)
    for step in sorted({1, *range(recorded_every, steps + 1, recorded_every), steps}):
        learned = step / steps
        prompts = [_prompt(index, draw) for index in range(8)]
        rows = [_rollout(step, learned, *prompt, with_prm, draw) for prompt in prompts for _ in range(group_size)]
        write_lines(path / "rollouts" / f"step_{step:06d}.jsonl", rows)
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metrics(step: int, steps: int, with_prm: bool, draw: random.Random) -> dict[str, Any]:
    x = step / steps
    accuracy = min(1.0, max(0.0, 0.28 + 0.52 * (1 - math.exp(-3 * x)) + draw.gauss(0, 0.03)))
    row: dict[str, Any] = {
        "step": step,
        "reward": accuracy,
        "reward_std": math.sqrt(accuracy * (1 - accuracy)),
        "frac_reward_zero_std": 0.1 + 0.5 * x,
        "completions/mean_length": 38 + 4 * x + draw.gauss(0, 0.5),
        "completions/clipped_ratio": max(0.0, 0.02 - 0.02 * x),
        "entropy": 0.42 * math.exp(-2 * x) + draw.gauss(0, 0.01),
        "kl": 0.05 * x + abs(draw.gauss(0, 0.002)),
        "clip_ratio/region_mean": abs(draw.gauss(0.01, 0.004)),
        "policy/loss": draw.gauss(0, 0.02),
        "policy/grad_norm": abs(draw.gauss(0.8, 0.2)),
        "policy/learning_rate": 1.5e-4 * min(1.0, step / 5),
        "advantage/outcome_std": 0.5 - 0.1 * x,
        "advantage/process_std": None,
        "filter/kept_fraction": 0.75 - 0.4 * x + draw.gauss(0, 0.02),
        "filter/draws": 1 + int(2 * x),
        "verdict/ok": 126,
        "verdict/unparsed": draw.choice([0, 0, 1, 2]),
        "verdict/timeout": draw.choice([0, 0, 0, 1]),
        "verdict/error": 0,
        "num_tokens": 5000 * step,
        "rollouts": 128 * step,
    }
    if with_prm:
        row |= {
            "prm/loss": 0.69 - 0.25 * x + draw.gauss(0, 0.01),
            "prm/grad_norm": abs(draw.gauss(0.5, 0.1)),
            "prm/accuracy": 0.5 + 0.4 * (1 - math.exp(-4 * x)) + draw.gauss(0, 0.02),
            "prm/reward_mean": 0.02 * x + draw.gauss(0, 0.002),
            "prm/reward_std": 0.05 * x,
            "prm/scale": 5 + x,
            "prm/first_error_auc": 0.5 + 0.35 * x if step % 5 == 0 else None,
            "advantage/process_std": 0.3 * x,
        }
    return row


def _timings(step: int, with_prm: bool, draw: random.Random) -> dict[str, Any]:
    phases = {"sample": 0.8, "verify": 0.05, "prm": 0.35 if with_prm else 0.0, "policy": 0.5}
    row = {f"time/{name}": seconds * draw.uniform(0.9, 1.1) for name, seconds in phases.items()}
    total = sum(row.values()) + 0.06
    return {"step": step, "time/step": total, **row, "tokens_per_second": 5000 / total}


def _evals(step: int, steps: int, draw: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step}
    for name, low, high in (("sampled", 0.27, 0.79), ("greedy", 0.31, 0.88)):
        p = low + (high - low) * (1 - math.exp(-3 * step / steps)) + draw.gauss(0, 0.005)
        row |= {f"eval/{name}_accuracy": p, f"eval/{name}_low": p - 0.035, f"eval/{name}_high": p + 0.035}
    return row


def _prompt(index: int, draw: random.Random) -> tuple[str, list[int]]:
    return f"arithmetic/{index}", [draw.randint(1, 9) for _ in range(7)]


def _rollout(
    step: int, learned: float, prompt_id: str, digits: list[int], with_prm: bool, draw: random.Random
) -> dict[str, Any]:
    """A chain of additions; a sum that carries drops its carry now and then, less often the more is learned."""
    pieces, total, first_error = [], digits[0], -1
    for index, digit in enumerate(digits[1:]):
        right = total + digit
        wrong = total % 10 + digit >= 10 and draw.random() < 0.35 * (1 - 0.8 * learned)
        value = right - 10 if wrong else right
        first_error = index if wrong and first_error < 0 else first_error
        pieces.append(f"{total}+{digit}={value}" + (";" if index + 2 < len(digits) else f"#{value}"))
        total = value
    status = draw.choices(["ok", "unparsed", "timeout"], [0.94, 0.05, 0.01])[0]
    tokens = [*"".join(pieces), ""]
    step_of_token = [i for i, piece in enumerate(pieces) for _ in piece]
    step_of_token.append(len(pieces) - 1)
    signal = [learned * (0.02 if first_error < 0 or s < first_error else -0.06) for s in step_of_token]
    outcome = float(first_error < 0) if status == "ok" else None
    return {
        "step": step,
        "prompt_id": prompt_id,
        "prompt": "+".join(map(str, digits)) + "=?",
        "answer": str(sum(digits)),
        "text": "".join(pieces),
        "tokens": tokens,
        "token_ends": [*range(1, len(tokens)), len(tokens) - 1],
        "step_of_token": step_of_token,
        "outcome": outcome,
        "status": status,
        "detail": "" if status == "ok" else "no number after the last #",
        "finish": "stop",
        "process_rewards": [s + draw.gauss(0, 0.03) for s in signal] if with_prm else None,
        "advantages": [((outcome or 0.0) - 0.5) + 4 * s for s in signal],
        "first_error_step": first_error,
    }
