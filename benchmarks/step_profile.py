"""Where a GRPO step of the local engine spends its time: seconds by size of micro-batch, in turn, and the largest operators;
and what reading a prompt once for its responses spares, by length of the prompt.

python benchmarks/step_profile.py            # the shape of vs_trl.py at full lengths
python benchmarks/step_profile.py --quick    # under a minute: half the prompts, two sizes, one length, two repetitions
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from _common import interleave, matmul_rates, precisions, spread, write_result
from _model import Shape, judge, make_model, questions

from prmkit.config import ModelConfig, OptimizerConfig
from prmkit.data.types import Message, Prompt, SamplingParams, Verdict
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.roles import local_roles
from prmkit.rl.collect import PromptStream
from prmkit.rl.config import RLConfig
from prmkit.rl.presets import GRPO
from prmkit.rl.step import rl_step
from prmkit.tasks.arithmetic import SPLIT

SIZES = (640, 1280, 2048, 6000)
PROMPT_TOKENS = (16, 64, 160)
P_END = {"fixed": 0.0, "natural": 0.025}
"""As in vs_trl.py."""
TOP = 8


class Judge:
    """Verdicts that cost nothing."""

    def verify(self, responses: Any) -> list[Verdict]:
        """As in vs_trl.py."""
        return [Verdict(status="ok", reward=judge(text)) for _, text in responses]


def stepper(folder: Path, shape: Shape, tokens: int, dtype: Any) -> Callable[[], float]:
    """Seconds of one step with micro-batches of so many tokens."""
    optimizer = OptimizerConfig(learning_rate=1e-6, tokens_per_microbatch=tokens)
    algorithm = replace(GRPO, group_size=shape.samples)
    model = ModelConfig(path=str(folder), dtype=dtype)
    config = RLConfig(model=model, algorithm=algorithm, policy=optimizer, prm=optimizer)
    roles = local_roles(config, Judge(), SPLIT, folder).roles
    asked = [Message(role="user", content=question) for question in questions(shape, 512)]
    stream = PromptStream([Prompt(id=str(i), messages=(turn,), answer="") for i, turn in enumerate(asked)], 0)
    params, done = SamplingParams(max_tokens=shape.max_tokens), [0]

    def step() -> float:
        done[0] += 1
        start = time.perf_counter()
        rl_step(roles, config.algorithm, stream, params, step=done[0], num_groups=shape.prompts, seed=0)
        return time.perf_counter() - start

    return step


def largest_operators(step: Callable[[], float]) -> dict[str, float]:
    """Share of the processor time of one step, by operator, without what it calls."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    found = {event.key: float(event.self_cpu_time_total) for event in profiler.key_averages()}
    total = sum(found.values())
    return {name: round(found[name] / total, 3) for name in sorted(found, key=lambda n: -found[n])[:TOP]}


def read_once_or_whole(shape: Shape, p_end: float, dtype: Any, repetitions: int) -> dict[str, Any]:
    """Seconds of a step whose updates read each prompt once, beside one whose updates read all rows whole."""

    def whole(step: Callable[[], float]) -> float:
        with mock.patch.object(LanguageModel, "shares_prompts", False):
            return step()

    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(Path(scratch) / "model", shape, p_end)
        once, rows = (stepper(folder, shape, 2048, dtype) for _ in range(2))
        sides = {"once": once, "whole": lambda: whole(rows)}
        for side in sides.values():
            side()  # warm-up
        seconds = interleave(sides, repetitions)
    ratio = spread([a / b for a, b in zip(seconds["once"], seconds["whole"], strict=True)])
    return {"ratio": ratio, **{side: spread(values) for side, values in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repetitions", type=int, default=0, help="default 5, quick 2")
    options = parser.parse_args()
    shape = Shape(prompts=4) if options.quick else Shape()
    dtype = precisions(matmul_rates())[0]
    sizes = SIZES[1:3] if options.quick else SIZES
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(Path(scratch) / "model", shape, 0.0)
        steps = {str(size): stepper(folder, shape, size, dtype) for size in sizes}
        for step in steps.values():
            step()  # warm-up
        seconds = interleave(steps, options.repetitions or (2 if options.quick else 5))
        operators = largest_operators(steps["2048"])
    prompts = {
        f"{tokens} {regime}": read_once_or_whole(
            replace(shape, prompt_tokens=tokens),
            P_END[regime],
            dtype,
            options.repetitions or (2 if options.quick else 7),
        )
        for tokens in (PROMPT_TOKENS[1:2] if options.quick else PROMPT_TOKENS)
        for regime in (["fixed"] if options.quick else P_END)
    }
    line = {
        "seconds": {size: spread(values) for size, values in seconds.items()},
        "operators": operators,
        "prompts": prompts,
    }
    write_result("step_profile", {"quick": options.quick, "dtype": dtype, "result": line})
    print(json.dumps(line))


if __name__ == "__main__":
    main()
