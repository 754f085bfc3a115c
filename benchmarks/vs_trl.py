"""One RL step against TRL's GRPOTrainer: same model, prompts, group size, lengths; each side in its own process, in turn.

    pip install -e .[bench]
    python benchmarks/vs_trl.py            # about seven minutes on two cores
    python benchmarks/vs_trl.py --quick    # under a minute

Sides: TRL's GRPO step, our GRPO step, our PRIME step (policy and PRM, each updated once; reference frozen), and our PRIME
step as the preset has it (replay of earlier batches for the PRM). Each library first tries a few settings (precision,
micro-batch) and keeps the fastest. Lengths: all responses of full length, or ended at random at about half of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from _common import ROOT, interleave, matmul_rates, median_ratio, precisions, spread, write_result

MARK = "@@"
P_END = {"fixed": 0.0, "natural": 0.025}
"""0.025 a token makes min(length, 64) 32 on average: (1 - 0.975^64) / 0.025 = 32.1."""
TRL_SETTINGS = [{"rows": 64}, {"rows": 16}]
OUR_SETTINGS = [{"tokens": 2048}, {"tokens": 4096}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="half the prompts, full lengths, one setting each, no replay, two repetitions",
    )
    parser.add_argument("--repetitions", type=int, default=0, help="default 7, quick 2")
    parser.add_argument("--threads", type=int, default=0, help="of torch, on both sides; default: torch's own choice")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options.side, json.loads(options.settings), Path(options.folder), options.threads)
    else:
        compare(options.quick, options.repetitions or (2 if options.quick else 7), options.threads)


def compare(quick: bool, repetitions: int, threads: int) -> None:
    import torch
    from _model import Shape, make_model

    if threads:
        torch.set_num_threads(threads)
    shape = Shape(prompts=4) if quick else Shape()
    rates = matmul_rates()
    line: dict[str, Any] = {}
    regimes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for regime, p_end in list(P_END.items())[: 1 if quick else None]:
            folder = make_model(Path(scratch) / regime, shape, p_end)
            regimes[regime] = measured = measure(folder, shape, quick, repetitions, threads, precisions(rates))
            sides = measured["sides"]
            suffix = "" if regime == "fixed" else "_natural"
            for side in [side for side in sides if side != "trl"]:
                line[f"{side}_time_ratio{suffix}"] = median_ratio(sides[side]["seconds"], sides["trl"]["seconds"])
            line[f"memory_ratio{suffix}"] = sides["grpo"]["peak_mb"] / sides["trl"]["peak_mb"]
            line[f"prime_memory_ratio{suffix}"] = sides["prime"]["peak_mb"] / sides["trl"]["peak_mb"]
            measured["floor"] = floors(shape, sides["grpo"]["response_tokens"], rates)
            best = max(rates, key=lambda dtype: rates[dtype])
            line[f"floor_s{suffix}"] = {name: s[best] for name, s in measured["floor"]["seconds"].items()}
    line = {name: rounded(value) for name, value in line.items()}
    rates = {dtype: round(rate / 1e9) for dtype, rate in rates.items()}
    write_result(
        "vs_trl", {"quick": quick, "shape": asdict(shape), "matmul_gflops": rates, "regimes": regimes, "result": line}
    )
    print(json.dumps(line))


def rounded(value: Any) -> Any:
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else round(value, 3)


def measure(folder: Path, shape: Any, quick: bool, repetitions: int, threads: int, dtypes: list[str]) -> dict[str, Any]:
    """Each library's fastest setting, then all sides in turn. The quick way takes the first setting, and leaves out replay.

    All sizes of micro-batch are tried at the first precision, the first size at the others.
    """
    with contextlib.ExitStack() as stack:

        def start(side: str, settings: dict[str, Any]) -> Child:
            return stack.enter_context(Child(side, settings, folder, threads))

        tried = {}
        for side, sizes in (("trl", TRL_SETTINGS), ("grpo", OUR_SETTINGS)):
            sized = [(dtypes[0], size) for size in sizes] + [(dtype, sizes[0]) for dtype in dtypes[1:]]
            settings = [{"dtype": dtype, **size, "prompts": shape.prompts} for dtype, size in sized]
            tried[side] = settings[:1] if quick else settings
        candidates = {side: [start(side, s) for s in settings] for side, settings in tried.items()}
        chosen = {side: fastest(children) for side, children in candidates.items()}
        others = [start(side, chosen["grpo"].settings) for side in (["prime"] if quick else ["prime", "prime_replay"])]
        for child in others:
            child.step()  # warm-up
            chosen[child.side] = child
        for child in chosen.values():
            child.response_tokens.clear()
        seconds = interleave({side: child.step for side, child in chosen.items()}, repetitions)
        sides = {side: report(child, seconds[side]) for side, child in chosen.items()}
    return {"sides": sides}


def fastest(children: list[Child]) -> Child:
    """The child with the fastest step after a warm-up; the others end."""
    for child in children:
        child.step()
    if len(children) == 1:
        return children[0]
    seen = interleave({str(i): child.step for i, child in enumerate(children)}, 3)
    best = children[int(min(seen, key=lambda i: min(seen[i])))]
    for child in children:
        if child is not best:
            child.close()
    return best


def report(child: Child, seconds: list[float]) -> dict[str, Any]:
    """A side's figures; its process ends."""
    figures = {
        "settings": child.settings,
        "seconds": [round(s, 4) for s in seconds],
        "spread": spread(seconds),
        "response_tokens": statistics.fmean(child.response_tokens),
        **child.close(),
    }
    print(
        f"{child.folder.name:8} {child.side:13} {child.settings} {figures['spread']['median']:.3f} s", file=sys.stderr
    )
    return figures


class Child:
    """A side in its own process: one step when told to."""

    def __init__(self, side: str, settings: dict[str, Any], folder: Path, threads: int) -> None:
        self.side, self.settings, self.folder = side, settings, folder
        self.response_tokens: list[int] = []
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - closed with the process
        words = [__file__, "--side", side, "--settings", json.dumps(settings), "--folder", str(folder)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, *words, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def step(self) -> float:
        """Seconds of one step."""
        answer = self._ask("step")
        self.response_tokens.append(answer["response_tokens"])
        return float(answer["seconds"])

    def close(self) -> dict[str, int]:
        """Ends the process; its peak memory."""
        memory = self._ask("quit")
        self.process.wait()
        return memory

    def _ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line[len(MARK) :])
                return answer
        self.log.seek(0)
        raise SystemExit(f"side {self.side} {self.settings} ended early:\n{self.log.read()[-2000:]}")


def answer(**values: float) -> None:
    print(MARK + json.dumps(values), flush=True)


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def serve(side: str, settings: dict[str, Any], folder: Path, threads: int) -> None:
    """The child's life: wait for `step` or `quit`."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    (serve_trl if side == "trl" else serve_ours)(side, settings, folder)


def in_turn(response_tokens: Callable[[], int]) -> Any:
    """A callback that lets TRL's trainer make a step when told to."""
    from transformers import TrainerCallback

    class InTurn(TrainerCallback):  # type: ignore[misc]
        start: float | None = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.start is None:
                self.wait(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            assert self.start is not None
            answer(seconds=time.perf_counter() - self.start, response_tokens=response_tokens())
            self.wait(control)

        def wait(self, control: Any) -> None:
            control.should_training_stop = sys.stdin.readline().strip() != "step"
            self.start = time.perf_counter()

    return InTurn()


def serve_trl(side: str, settings: dict[str, Any], folder: Path) -> None:
    import torch
    from _model import Shape, judge, questions

    try:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise SystemExit(f"TRL cannot be imported ({error}); pip install -e .[bench]") from error
    imports_mb, shape, tokens = peak_mb(), Shape(prompts=settings["prompts"]), [0]

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokens[0] = sum(map(len, completion_ids))
        return [judge(text) for text in completions]

    rows = shape.prompts * shape.samples
    batch = min(rows, settings["rows"])
    with tempfile.TemporaryDirectory() as scratch:
        config = GRPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=rows // batch,
            num_generations=shape.samples,
            max_completion_length=shape.max_tokens,
            temperature=1.0,
            beta=0.0,
            bf16=settings["dtype"] == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            model_init_kwargs={"dtype": "float32"},
            gradient_checkpointing=False,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            max_steps=100_000,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        data = Dataset.from_dict({"prompt": questions(shape, 512)})
        GRPOTrainer(
            model=str(folder),
            args=config,
            reward_funcs=reward,
            train_dataset=data,
            callbacks=[in_turn(lambda: tokens[0])],
        ).train()
    answer(peak_mb=peak_mb(), imports_mb=imports_mb)


def serve_ours(side: str, settings: dict[str, Any], folder: Path) -> None:
    from _model import Shape, judge, questions

    from prmkit.config import ModelConfig, OptimizerConfig
    from prmkit.data.types import Message, Prompt, SamplingParams, Verdict
    from prmkit.engines.local.roles import local_roles
    from prmkit.rl.collect import PromptStream
    from prmkit.rl.config import RLConfig
    from prmkit.rl.presets import GRPO, PROCESS, with_process
    from prmkit.rl.step import rl_step
    from prmkit.tasks.arithmetic import SPLIT

    class Judge:
        """The same verdict that TRL's reward function gives."""

        def verify(self, responses: Any) -> list[Verdict]:
            return [Verdict(status="ok", reward=judge(text)) for _, text in responses]

    imports_mb, shape = peak_mb(), Shape(prompts=settings["prompts"])
    process = PROCESS if side == "prime_replay" else replace(PROCESS, replay_batches=0)
    algorithm = GRPO if side == "grpo" else with_process(GRPO, process)
    optimizer = OptimizerConfig(learning_rate=1e-6, tokens_per_microbatch=settings["tokens"])
    model = ModelConfig(path=str(folder), dtype=settings["dtype"])
    config = RLConfig(
        model=model, algorithm=replace(algorithm, group_size=shape.samples), policy=optimizer, prm=optimizer
    )
    roles = local_roles(config, Judge(), SPLIT, folder).roles
    prompts = [
        Prompt(id=str(i), messages=(Message(role="user", content=q),), answer="")
        for i, q in enumerate(questions(shape, 512))
    ]
    stream, params, step = PromptStream(prompts, 0), SamplingParams(max_tokens=shape.max_tokens), 0
    while sys.stdin.readline().strip() == "step":
        step += 1
        start = time.perf_counter()
        result = rl_step(roles, config.algorithm, stream, params, step=step, num_groups=shape.prompts, seed=0)
        answer(seconds=time.perf_counter() - start, response_tokens=int(result.batch.response_mask_BT.sum()))
    answer(peak_mb=peak_mb(), imports_mb=imports_mb)


def floors(shape: Any, response_tokens: float, rates: dict[str, float]) -> dict[str, Any]:
    """Floating-point operations that a step cannot do without, and their time at the rate of a large matrix product.

    A product with a matrix of N weights costs 2N a token, its gradients twice that. Causal attention costs
    2 * 2 * hidden * (positions seen) a token and layer. The output layer meets response tokens alone.
    """
    rows = shape.prompts * shape.samples
    body = shape.layers * (4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate)
    head = shape.vocab * shape.hidden
    length = shape.prompt_tokens + response_tokens / rows
    tokens = rows * length
    attention = shape.layers * 4 * shape.hidden * length / 2
    forward = tokens * (2 * body + attention) + response_tokens * 2 * head
    prompt = shape.prompts * shape.prompt_tokens * (2 * body + shape.layers * 2 * shape.hidden * shape.prompt_tokens)
    seen = shape.prompt_tokens + response_tokens / rows / 2
    sampling = prompt + response_tokens * (2 * body + 2 * head + shape.layers * 4 * shape.hidden * seen)
    parts = {"sampling": sampling, "update": 3 * forward, "reference": forward}
    grpo = parts["sampling"] + parts["update"]
    totals = {"grpo": grpo, "prime": grpo + parts["update"] + parts["reference"]}
    seconds = {name: {d: round(flop / r, 4) for d, r in rates.items()} for name, flop in totals.items()}
    return {"gflop": {name: round(flop / 1e9, 1) for name, flop in (parts | totals).items()}, "seconds": seconds}


if __name__ == "__main__":
    main()
