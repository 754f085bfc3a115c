"""What process rewards cost: a PRIME step over an outcome-only RLOO step, same kept batch, in turn.

    python benchmarks/prime_cost.py            # about four minutes on two cores
    python benchmarks/prime_cost.py --quick    # under a minute
    python benchmarks/prime_cost.py --models 135m --max-tokens 512    # sizes of SmolLM2; for a GPU

Models: `arithmetic`, the embedded model after fine-tuning, on its own task with its real verifier and filter; `4-layer` and
`135m`, random weights whose responses end at random. Rows: PRIME as published (PRM update after scoring, frozen reference)
and its variants; the preset `prime`, which replays earlier batches. What a step must compute stands beside each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _arithmetic import Variant, fine_tuned
from _common import interleave, matmul_rates, median_ratio, precisions, spread, write_result
from _model import Shape, judge, make_model, questions

from prmkit.config import ModelConfig, OptimizerConfig, VerifierConfig
from prmkit.data.types import Message, Prompt, SamplingParams, Verdict
from prmkit.engines.local.roles import local_roles
from prmkit.rl.algorithm import Algorithm, Process
from prmkit.rl.clock import Clock
from prmkit.rl.collect import PromptStream
from prmkit.rl.config import RLConfig
from prmkit.rl.presets import PRIME, RLOO
from prmkit.rl.step import rl_step
from prmkit.tasks.arithmetic import SPLIT, arithmetic_prompts
from prmkit.verify import make_verifier

PUBLISHED = replace(RLOO, process=Process(coef=1.0))
ARMS: dict[str, Algorithm] = {
    "rloo": RLOO,
    "prime": PUBLISHED,
    "prime_reference_policy": replace(RLOO, process=Process(coef=1.0, reference="policy")),
    "prime_update_before": replace(RLOO, process=Process(coef=1.0, update="before")),
    "prime_frozen_prm": replace(RLOO, process=Process(coef=1.0, update="none")),
    "preset_prime": PRIME,
}
SHAPES = {
    "4-layer": Shape(),
    "135m": Shape(vocab=49152, hidden=576, intermediate=1536, layers=30, heads=9, kv_heads=3, prompt_tokens=96),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One model with its task."""

    folder: Path
    prompts: Sequence[Prompt]
    verifier: Any
    groups: int
    params: SamplingParams
    dtype: str


class Coin:
    """A verdict that costs nothing."""

    def verify(self, responses: Any) -> list[Verdict]:
        """Half of the responses are right."""
        return [Verdict(status="ok", reward=judge(text)) for _, text in responses]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="rloo and prime alone, two repetitions")
    parser.add_argument("--repetitions", type=int, default=0, help="default 7, quick 2")
    parser.add_argument("--models", nargs="+", default=["arithmetic", "4-layer"], choices=["arithmetic", *SHAPES])
    parser.add_argument("--max-tokens", type=int, default=64, help="of the random models")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    repetitions = options.repetitions or (2 if options.quick else 7)
    arms = {name: ARMS[name] for name in (("rloo", "prime") if options.quick else ARMS)}
    line: dict[str, float] = {}
    models: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, make_verifier(VerifierConfig()) as verifier:
        for name in options.models:
            setting = make_setting(name, Path(scratch), verifier, options.quick, options.max_tokens)
            models[name] = measured = measure(setting, arms, repetitions)
            for arm, row in measured.items():
                line |= {} if arm == "rloo" else {f"{name}/{arm}_over_rloo": round(row["over_rloo"], 3)}
    line = {"prime_over_rloo": line[f"{options.models[0]}/prime_over_rloo"], **line}
    write_result("prime_cost", {"quick": options.quick, "models": models, "result": line})
    print(json.dumps(line))


def make_setting(name: str, scratch: Path, verifier: Any, quick: bool, max_tokens: int) -> Setting:
    if name == "arithmetic":
        variant = Variant(chain=3, error_rate=0.5, sft_steps=100) if quick else Variant(chain=5, error_rate=0.38)
        return Setting(
            folder=fine_tuned(variant),
            prompts=arithmetic_prompts(4096, chain=variant.chain, seed=0),
            verifier=verifier,
            groups=16,
            params=SamplingParams(max_tokens=variant.max_tokens),
            dtype="float32",
        )
    shape = replace(SHAPES[name], max_tokens=max_tokens)
    p_end = 1.6 / max_tokens  # about half of max_tokens on average
    return Setting(
        folder=make_model(scratch / name, shape, p_end),
        prompts=[
            Prompt(id=str(i), messages=(Message(role="user", content=q),), answer="")
            for i, q in enumerate(questions(shape, 4096))
        ],
        verifier=Coin(),
        groups=16,
        params=SamplingParams(max_tokens=max_tokens),
        dtype=precisions(matmul_rates())[0],
    )


def measure(setting: Setting, arms: dict[str, Algorithm], repetitions: int) -> dict[str, Any]:
    """Seconds of a step by arm, where they go, and over RLOO's."""
    clocks, counts = {name: Clock() for name in arms}, {name: Counts() for name in arms}
    steps = {name: stepper(setting, arms[name], clocks[name], counts[name]) for name in arms}
    for name, step in steps.items():
        for _ in range(2):
            step()  # warm-up; replay fills in later
        clocks[name].seconds.clear()
        counts[name].clear()
    seconds = interleave(steps, repetitions)
    rows = {}
    for name in arms:
        parts = {part: round(s / repetitions, 4) for part, s in sorted(clocks[name].seconds.items())}
        flop = operations(arms[name], counts[name])
        rows[name] = {
            "over_rloo": median_ratio(seconds[name], seconds["rloo"]),
            "flop_over_rloo": flop / operations(arms["rloo"], counts["rloo"]),
            "seconds": spread(seconds[name]),
            "seconds_by_role": parts,
            "sampled_tokens": counts[name].sampled / repetitions,
            "kept_tokens": counts[name].kept / repetitions,
        }
        print(f"{setting.folder.name:12} {name:24} {rows[name]['over_rloo']:.3f} x rloo, {parts}", file=sys.stderr)
    return rows


class Counts:
    """Tokens over the repetitions: sampled responses, and whole rows of the kept batch."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """From zero again."""
        self.sampled = self.kept = 0


def stepper(setting: Setting, algorithm: Algorithm, clock: Clock, counts: Counts) -> Callable[[], float]:
    """A function that makes one step and returns its seconds. All arms see the same prompts and seeds; the rate is so small
    that their policies stay alike, and with them what the filter keeps."""
    optimizer = OptimizerConfig(learning_rate=1e-7, tokens_per_microbatch=4096)
    model = ModelConfig(path=str(setting.folder), dtype=setting.dtype)  # type: ignore[arg-type]
    # Named, so that the arm with a frozen PRM is allowed too: only its time counts here.
    prm_path = model.path if algorithm.uses_prm else ""
    config = RLConfig(
        model=model, prm_path=prm_path, algorithm=algorithm, policy=optimizer, prm=optimizer, sampling=setting.params
    )
    roles = clock.roles(local_roles(config, setting.verifier, SPLIT, setting.folder).roles)
    stream, done = PromptStream(setting.prompts, 0), [0]

    def step() -> float:
        done[0] += 1
        start = time.perf_counter()
        result = rl_step(roles, algorithm, stream, setting.params, step=done[0], num_groups=setting.groups, seed=0)
        seconds = time.perf_counter() - start
        counts.sampled += sum(len(m.rollout.token_ids) for g in result.collected.sampled for m in g.members)
        counts.kept += int(result.batch.length_B.sum())
        return seconds

    return step


def operations(algorithm: Algorithm, counts: Counts) -> float:
    """Units of 2 x weights x tokens: a token costs 1 to sample or to score, 3 to learn from (forward, and twice backward)."""
    process = algorithm.process
    passes = 3  # the policy's update
    if algorithm.uses_prm:
        passes += {"none": 1, "before": 4}.get(process.update, 3)
        passes += 3 * process.replay_batches
        passes += process.reference == "freeze"
    return counts.sampled + passes * counts.kept


if __name__ == "__main__":
    main()
