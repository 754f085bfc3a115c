"""Step rewards of an implicit PRM: prmkit's scorer against a plain padded transformers loop.

    python benchmarks/scoring_speed.py            # about ten minutes on two cores
    python benchmarks/scoring_speed.py --quick    # under a minute
    python benchmarks/scoring_speed.py --models 4-layer 135m    # SmolLM2-135M's shape too

Rollouts of widely varying length (log-normal, median 120 tokens, at most 1024), two random Llamas: policy and reference. The
plain loop is what one writes first: rows in file order, padded to the longest of their batch, all logits of both models, their
log-softmax, the tokens' entries; `one_by_one` is that loop with batches of one, which pads nothing. Each side runs in its own
process, first tries a few settings (batch, precision) and keeps its fastest; the sides are timed in turn. Their rewards in
float32 must agree. A table over vocabulary and length shows what each side takes beyond its loaded models.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _common import ROOT, interleave, matmul_rates, median_ratio, precisions, spread, write_result

MARK = "@@"
BETA = 0.05
TOLERANCE = 1e-3
"""Largest difference of a step's reward between the sides in float32, as a share of the rewards' standard deviation."""
SETTINGS = {
    "ours": [{"tokens": 2048}, {"tokens": 4096}, {"tokens": 16384}],
    "plain": [{"rows": 4}, {"rows": 16}],
    "one_by_one": [{"rows": 1}],
}
"""`one_by_one` is the plain loop with batches of one, which has no padding."""
QUICK_SETTINGS = {"ours": {"tokens": 4096}, "plain": {"rows": 4}, "one_by_one": {"rows": 1}}
MODELS = {
    "4-layer": {"vocab": 32768, "hidden": 256, "intermediate": 688, "layers": 4, "heads": 8, "kv_heads": 8},
    "135m": {"vocab": 49152, "hidden": 576, "intermediate": 1536, "layers": 30, "heads": 9, "kv_heads": 3},
}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is scored: `num` rollouts, of `length` response tokens each, or of widely varying length where that is 0."""

    num: int
    length: int = 0
    vocab: int
    seed: int = 0

    def rollouts(self) -> list[tuple[str, list[str]]]:
        """Prompt and steps of each, as words that are one token each."""
        draw = random.Random(self.seed)
        return [(self._words(draw, draw.randint(16, 64)), self._steps(draw)) for _ in range(self.num)]

    def _steps(self, draw: random.Random) -> list[str]:
        left = self.length or min(1024, max(16, round(draw.lognormvariate(4.8, 0.9))))
        steps = []
        while left > 0:
            size = min(left, draw.randint(8, 40))
            steps.append(self._words(draw, size))
            left -= size
        return steps

    def _words(self, draw: random.Random, num: int) -> str:
        return " ".join(f"w{draw.randrange(2, self.vocab)}" for _ in range(num))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="8 rollouts, one setting each, two repetitions, no memory table"
    )
    parser.add_argument("--repetitions", type=int, default=0, help="default 5, quick 2")
    parser.add_argument("--models", nargs="+", default=["4-layer"], choices=list(MODELS))
    parser.add_argument("--num", type=int, default=0, help="rollouts; default 96, quick 8")
    parser.add_argument("--threads", type=int, default=0, help="of torch, on both sides; default: torch's own choice")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options.side, json.loads(options.work), options.threads)
        return
    repetitions, num = options.repetitions or (2 if options.quick else 5), options.num or (8 if options.quick else 96)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        dtypes = ["float32"] if options.quick else precisions(matmul_rates())
        for name in options.models:
            say(f"{name}: {num} rollouts")
            found[name] = measure(Path(scratch), MODELS[name], num, repetitions, dtypes, options)
        cells = [] if options.quick else [(v, t) for v in (8192, 32768, 65536) for t in (256, 1024)]
        table = [memory_cell(Path(scratch), vocab, length, options.threads) for vocab, length in cells]
    first = found[options.models[0]]
    line = {
        key: first[key]
        for key in ("time_ratio", "time_ratio_one_by_one", "memory_ratio", "working_memory_ratio", "max_difference")
    }
    line |= {f"{name}/{key}": found[name][key] for name in options.models[1:] for key in line}
    write_result("scoring_speed", {"quick": options.quick, "models": found, "memory_table": table, "result": line})
    print(json.dumps(line))


def measure(
    scratch: Path, sizes: dict[str, int], num: int, repetitions: int, dtypes: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Both sides on rollouts of varying length."""
    work = {"folder": models_in(scratch, sizes), **asdict(Workload(num=num, vocab=sizes["vocab"]))}
    best = {}
    for side in SETTINGS:
        tried = [QUICK_SETTINGS[side]] if options.quick else SETTINGS[side]
        trials = [{**work, **setting, "dtype": dtype} for dtype in dtypes for setting in tried]
        best[side] = (
            trials[0] if len(trials) == 1 else min(trials, key=lambda t: trial_seconds(side, t, options.threads))
        )
        say(f"  {side}: {chosen(best[side])}")
    with contextlib.ExitStack() as stack:
        sides = {name: stack.enter_context(Child(name, best[name], options.threads)) for name in best}
        ours, plain = sides["ours"], sides["plain"]
        exact = all(best[name]["dtype"] == "float32" for name in sides)
        difference = compare(ours.rewards(), plain.rewards()) if exact else in_float32(work, options.threads)
        seconds = interleave({name: child.seconds for name, child in sides.items()}, repetitions)
        memory = {name: child.close() for name, child in sides.items()}
    report = {
        name: {
            "settings": chosen(best[name]),
            "seconds": spread(seconds[name]),
            "tokens_per_second": round(memory[name]["tokens"] / statistics.median(seconds[name])),
            **memory[name],
        }
        for name in sides
    }
    return {
        "time_ratio": round(median_ratio(seconds["ours"], seconds["plain"]), 3),
        "time_ratio_one_by_one": round(median_ratio(seconds["ours"], seconds["one_by_one"]), 3),
        "memory_ratio": round(memory["ours"]["peak_mb"] / memory["plain"]["peak_mb"], 3),
        "working_memory_ratio": round(memory["ours"]["working_mb"] / memory["plain"]["working_mb"], 3),
        "max_difference": difference,
        **report,
    }


def in_float32(work: dict[str, Any], threads: int) -> float:
    """`compare`, by processes of their own in float32."""
    rewards = []
    for side in ("ours", "plain"):
        with Child(
            side, {**work, "num": min(16, work["num"]), "dtype": "float32", **QUICK_SETTINGS[side]}, threads
        ) as child:
            rewards.append(child.rewards())
    return compare(*rewards)


def compare(ours: list[list[float]], plain: list[list[float]]) -> float:
    """The largest difference of a step's reward between the sides, over the rewards' standard deviation."""
    pairs = [pair for rows in zip(ours, plain, strict=True) for pair in zip(*rows, strict=True)]
    difference = max(abs(a - b) for a, b in pairs) / statistics.stdev(b for _, b in pairs)
    if not difference < TOLERANCE:
        raise SystemExit(f"the sides disagree: rewards differ by {difference:.2g} standard deviations")
    return float(f"{difference:.2g}")


def trial_seconds(side: str, work: dict[str, Any], threads: int) -> float:
    """Seconds for a third of the rollouts, in a process of its own."""
    with Child(side, {**work, "num": max(8, work["num"] // 3)}, threads) as child:
        seconds = child.seconds()
    say(f"    {side} {chosen(work)}: {seconds:.1f} s")
    return seconds


def memory_cell(scratch: Path, vocab: int, length: int, threads: int) -> dict[str, Any]:
    """What each side takes beyond its loaded models for 8 rollouts of one length."""
    sizes = MODELS["4-layer"] | {"vocab": vocab, "layers": 2}
    work = {
        "folder": models_in(scratch, sizes),
        **asdict(Workload(num=8, length=length, vocab=vocab)),
        "dtype": "float32",
    }
    cell: dict[str, Any] = {"vocab": vocab, "response_tokens": length, "rollouts": 8}
    for side, setting in (("ours", {"tokens": 16384}), ("plain", {"rows": 8})):
        with Child(side, {**work, **setting}, threads) as child:
            child.seconds()
            cell[f"{side}_working_mb"] = child.close()["working_mb"]
    say(f"  {vocab} words, {length} tokens: ours {cell['ours_working_mb']} MB, plain {cell['plain_working_mb']} MB")
    return cell


def models_in(scratch: Path, sizes: dict[str, int]) -> str:
    """Policy and reference of this size; made by a process of its own, so that this one stays small."""
    folder = scratch / "-".join(map(str, sizes.values()))
    if not folder.is_dir():
        code = (
            "import sys, json; from pathlib import Path; from _model import Shape, make_model\n"
            "sizes, folder = json.loads(sys.argv[1]), Path(sys.argv[2])\n"
            "for seed, name in enumerate(('policy', 'reference')):\n"
            "    make_model(folder / name, Shape(**sizes), 0.0, seed=seed)\n"
        )
        command = [sys.executable, "-c", code, json.dumps(sizes), str(folder)]
        subprocess.run(
            command, check=True, cwd=ROOT / "benchmarks", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    return str(folder)


def chosen(work: dict[str, Any]) -> dict[str, Any]:
    """The settings among what a child is told."""
    return {key: work[key] for key in ("tokens", "rows", "dtype") if key in work}


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


class Child:
    """A side in its own process: one pass over the rollouts when told to."""

    def __init__(self, side: str, work: dict[str, Any], threads: int) -> None:
        self.name = f"{side} {chosen(work)}"
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - closed with the process
        words = [__file__, "--side", side, "--work", json.dumps(work), "--threads", str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            cwd=ROOT,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def seconds(self) -> float:
        """Of one pass."""
        return float(self._ask("pass"))

    def rewards(self) -> list[list[float]]:
        """Of one pass."""
        found: list[list[float]] = self._ask("rewards")
        return found

    def close(self) -> dict[str, int]:
        """Ends the process; its memory, and how many response tokens a pass has."""
        memory: dict[str, int] = self._ask("quit")
        self.process.wait()
        return memory

    def _ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line[len(MARK) :])
        self.log.seek(0)
        raise SystemExit(f"side {self.name} ended early:\n{self.log.read()[-2000:]}")


def serve(side: str, work: dict[str, Any], threads: int) -> None:
    """The child's life: load, warm up on one short rollout, then answer `pass`, `rewards` or `quit`."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    workload = Workload(**{key: work[key] for key in ("num", "length", "vocab", "seed")})
    rollouts = workload.rollouts()
    score = (ours if side == "ours" else plain)(work)
    score([("w2 w3", ["w4 w5", "w6"])])
    loaded = resident_mb("VmRSS")
    for word in sys.stdin:
        start = time.perf_counter()
        result: Any = None
        if word.strip() == "quit":
            tokens = sum(len(step.split()) for _, steps in rollouts for step in steps)
            peak = resident_mb("VmHWM")
            result = {"peak_mb": peak, "loaded_mb": loaded, "working_mb": max(1, peak - loaded), "tokens": tokens}
        else:
            result = score(rollouts)
        if word.strip() == "pass":
            result = time.perf_counter() - start
        print(MARK + json.dumps(result), flush=True)
        if word.strip() == "quit":
            return


def resident_mb(field: str) -> int:
    """Resident size of this process, VmRSS now or VmHWM at its peak. getrusage's peak may be that of the parent."""
    try:
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1024


Score = Callable[[Sequence[tuple[str, list[str]]]], list[list[float]]]


def ours(work: dict[str, Any]) -> Score:
    """prmkit's loader and scorer."""
    from prmkit.data.prm_spec import PRMSpec
    from prmkit.data.types import Message, Prompt, Solution
    from prmkit.engines.local.prms.load import load_prm
    from prmkit.protocols import Unscored

    spec = PRMSpec(family="implicit", reference=f"{work['folder']}/reference", beta=BETA)
    folder = f"{work['folder']}/policy"
    prm = load_prm(folder, spec=spec, device="cpu", dtype=work["dtype"], tokens_per_batch=work["tokens"])

    def score(rollouts: Sequence[tuple[str, list[str]]]) -> list[list[float]]:
        solutions = [
            Solution(
                id=str(i),
                prompt=Prompt(id=str(i), messages=(Message(role="user", content=prompt),), answer=""),
                steps=tuple(steps),
                separator=" ",
            )
            for i, (prompt, steps) in enumerate(rollouts)
        ]
        results = prm.score_all(solutions)
        failed = [result for result in results if isinstance(result, Unscored)]
        if failed:
            raise SystemExit(failed[0].reason)
        return [list(result.values) for result in results if not isinstance(result, Unscored)]

    return score


def plain(work: dict[str, Any]) -> Score:
    """The loop that one writes first, with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(f"{work['folder']}/policy")
    dtype = getattr(torch, work["dtype"])
    models = [
        AutoModelForCausalLM.from_pretrained(f"{work['folder']}/{name}", dtype=dtype).eval()
        for name in ("policy", "reference")
    ]

    @torch.inference_mode()
    def batch(rollouts: Sequence[tuple[str, list[str]]]) -> list[list[float]]:
        sequences, spans = [], []
        for prompt, steps in rollouts:
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            ends = []
            for step in steps:
                ids = ids + tokenizer(step, add_special_tokens=False)["input_ids"]
                ends.append(len(ids))
            ids, ends[-1] = [*ids, tokenizer.eos_token_id], ends[-1] + 1
            starts = [ends[-1] - 1 - sum(len(step.split()) for step in steps), *ends[:-1]]
            sequences.append(ids)
            spans.append(list(zip(starts, ends, strict=True)))
        longest = max(map(len, sequences))
        token_BT = torch.tensor([ids + [0] * (longest - len(ids)) for ids in sequences])
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences])
        logps = []
        for model in models:
            logits_BTV = model(input_ids=token_BT, attention_mask=mask_BT, use_cache=False).logits
            logp_BTV = logits_BTV[:, :-1].float().log_softmax(-1)
            logps.append(logp_BTV.gather(-1, token_BT[:, 1:, None]).squeeze(-1))
            del logits_BTV, logp_BTV
        ratio_BT = logps[0] - logps[1]
        rows = zip(spans, ratio_BT, strict=True)
        return [[BETA * float(row_T[start - 1 : end - 1].sum()) for start, end in steps] for steps, row_T in rows]

    def score(rollouts: Sequence[tuple[str, list[str]]]) -> list[list[float]]:
        size = work["rows"]
        return [rewards for i in range(0, len(rollouts), size) for rewards in batch(rollouts[i : i + size])]

    return score


if __name__ == "__main__":
    main()
