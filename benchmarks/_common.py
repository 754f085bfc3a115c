"""What the benchmarks share: the machine, the model that is timed, sides in turn, intervals, result files."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine_info() -> dict[str, Any]:
    """The processor, its cores, the GPU if there is one, and the versions that matter."""
    import torch

    packages = ("torch", "transformers", "peft", "trl", "numpy")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "bfloat16": _cpu_flag("avx512_bf16") or _cpu_flag("amx_bf16"),
        "python": platform.python_version(),
        "versions": {name: v for name in packages if (v := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _cpu_flag(flag: str) -> bool:
    try:
        return f" {flag}" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """The commit of this checkout, with `+` when files differ from it; `unknown` outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """benchmarks/results/<name>.json: the result with commit, machine and time. One with `quick` true gets its own file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / (f"{name}_quick.json" if result.get("quick") else f"{name}.json")
    whole = {
        "commit": commit(),
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine_info(),
        **result,
    }
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return path


def interleave(sides: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Values of each side, the sides in turn (A B C A B C ...), so that a change of the machine's speed meets all of them."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, run in sides.items():
            values[name].append(run())
    return values


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, greatest and number of values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over repetitions of ours / theirs: each pair was measured side by side."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and its bounds by Student's t (independent values, such as seeds). One value has no bounds: (v, nan, nan)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = _student_t(len(values) - 1, confidence) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def _student_t(degrees: int, confidence: float) -> float:
    """Two-sided quantile, by bisection on the density's integral."""
    from math import gamma, pi, sqrt

    scale = gamma((degrees + 1) / 2) / (sqrt(degrees * pi) * gamma(degrees / 2))

    def inside(t: float) -> float:
        steps = 2000
        width = 2 * t / steps
        points = (-t + (k + 0.5) * width for k in range(steps))
        return sum(scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2) * width for x in points)

    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return (low + high) / 2


def matmul_rate(dtype_name: str, size: int = 2048, seconds: float = 0.4) -> float:
    """Floating-point operations a second of a large matrix product, the best of several."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype_name)) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    a @ b
    while best == 0 or time.perf_counter() < end:
        start = time.perf_counter()
        (a @ b).sum().item()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def matmul_rates() -> dict[str, float]:
    """`matmul_rate` of float32 and bfloat16; by a small product where a processor only emulates one of them."""
    small = {dtype: matmul_rate(dtype, size=256, seconds=0.1) for dtype in ("float32", "bfloat16")}
    return {dtype: matmul_rate(dtype) if dtype in precisions(small) else small[dtype] for dtype in small}


def precisions(rates: dict[str, float]) -> list[str]:
    """The precision with the faster matrix product first. One that is three times slower (a processor that only emulates
    it) is not tried."""
    order = sorted(rates, key=lambda dtype: -rates[dtype])
    return [dtype for dtype in order if rates[dtype] * 3 > rates[order[0]]]
