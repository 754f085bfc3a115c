"""Does PRIME need fewer rollouts than outcome-only RLOO? Learning curves on arithmetic, with an oracle and noise beside them.

Arms, all with the same filter, prompts per step and group size: `rloo` (outcome only), `prime` (the preset, learning the
PRM online), `prime_at_rloo_rate` (the same at RLOO's learning rate), `prime_paper` (the released run's arithmetic),
`oracle` (each step rewarded by its truth: what dense rewards can give at best), `noise` (random signs of the oracle's size).
Learning rates are chosen per arm on seeds 100 and up, which are not reported (`--tune`); the seeds reported are 0, 1, 2, ...

    python benchmarks/sample_efficiency.py            # all of it, about an hour on 2 cores
    python benchmarks/sample_efficiency.py --quick    # one short chain, under a minute: shows that it runs, not who wins
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

from _arithmetic import SFT_STEPS, Run, Variant, fine_tuned, learning_curve
from _common import RESULTS, commit, mean_interval, write_result

from prmkit.rl.algorithm import Algorithm, Process
from prmkit.rl.presets import PRESETS

CHAINS = {5: 0.38, 8: 0.26, 12: 0.18}
"""Number of additions -> error rate of the demonstrations, for a start near 0.3."""
PROMPTS, GROUP = 8, 4
STEP_TRUTH = Process(coef=0.5, granularity="step", discount=0.0, normaliser="none", baseline="none")
ARMS: dict[str, tuple[Algorithm, float, float]] = {
    "rloo": (PRESETS["rloo"], 1e-4, 0.0),
    "prime": (PRESETS["prime"], 2e-4, 1e-4),
    "prime_at_rloo_rate": (PRESETS["prime"], 1e-4, 1e-4),
    "prime_paper": (PRESETS["prime_paper"], 1.25e-5, 5e-5),
    "oracle": (replace(PRESETS["rloo"], process=STEP_TRUTH), 1e-4, 0.0),
    "noise": (replace(PRESETS["rloo"], process=STEP_TRUTH), 1e-4, 0.0),
}
"""Arm -> algorithm, learning rate of the policy, learning rate of the PRM: what `--tune` found; the controls have RLOO's."""


TUNING_RATES = dict.fromkeys(ARMS, (5e-5, 1e-4, 2e-4)) | {"prime_paper": (1.25e-5, 2.5e-5, 5e-5)}
"""`prime_paper` collapses at 1e-4."""
PRM_TUNING_RATES = (5e-5, 1e-4, 2e-4)
TUNING_SEEDS = (100, 101)


def runs(chains: Sequence[int], seeds: Sequence[int], steps: int, arms: Sequence[str]) -> list[Run]:
    """Seed by seed and arm by arm, so that whatever changes on the machine meets all arms."""
    return [
        Run(
            arm=arm,
            algorithm=replace(ARMS[arm][0], group_size=GROUP),
            learning_rate=ARMS[arm][1],
            prm_learning_rate=ARMS[arm][2],
            variant=Variant(chain=chain, error_rate=CHAINS[chain]),
            seed=seed,
            steps=steps,
            prompts=PROMPTS,
            eval_every=5,
            eval_prompts=128,
        )
        for seed in seeds
        for chain in chains
        for arm in arms
    ]


def level_at(curve: Sequence[tuple[float, float]], rollouts: float) -> float:
    """Accuracy at a number of rollouts, between two measurements by a straight line."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= rollouts <= x1:
            return y0 + (y1 - y0) * (rollouts - x0) / (x1 - x0)
    return curve[-1][1]


def mean_curve(
    curves: Sequence[Sequence[tuple[float, float]]], budget: float, points: int = 60
) -> list[tuple[float, float]]:
    """Mean over seeds on a common grid of rollouts."""
    grid = [budget * k / points for k in range(points + 1)]
    return [(x, sum(level_at(curve, x) for curve in curves) / len(curves)) for x in grid]


def first_reach(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Rollouts at which a curve first has that level; None if it never has."""
    return next((x for x, y in curve if y >= level), None)


def rollout_ratio(rloo: list[Any], other: list[Any], budget: float) -> float | None:
    """Rollouts RLOO needs for its final accuracy over those the other arm needs for the same; None if it never gets there."""
    base = mean_curve(rloo, budget)
    target = base[-1][1]
    reached, needed = first_reach(mean_curve(other, budget), target), first_reach(base, target)
    return None if reached is None or needed is None else needed / max(reached, 1.0)


def compare(by_seed: dict[int, dict[str, Any]], arm: str, budget: float) -> dict[str, Any]:
    """The arm against RLOO on one chain: ratio with a bootstrap over seeds (never reached counts as 0), gain with t bounds."""
    seeds = sorted(by_seed)
    gains = [level_at(by_seed[s][arm], budget) - level_at(by_seed[s]["rloo"], budget) for s in seeds]
    ratio = rollout_ratio([by_seed[s]["rloo"] for s in seeds], [by_seed[s][arm] for s in seeds], budget)
    rng = random.Random(0)
    resampled = []
    for _ in range(400):
        chosen = [rng.choice(seeds) for _ in seeds]
        value = rollout_ratio([by_seed[s]["rloo"] for s in chosen], [by_seed[s][arm] for s in chosen], budget)
        resampled.append(value or 0.0)
    resampled.sort()
    gain, low, high = mean_interval(gains)
    return {
        "rollout_ratio": ratio,
        "rollout_ratio_interval": [resampled[10], resampled[-11]],
        "final_accuracy": sum(level_at(by_seed[s][arm], budget) for s in seeds) / len(seeds),
        "final_accuracy_gain": gain,
        "final_accuracy_gain_interval": [low, high],
    }


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per chain: the common budget of rollouts, RLOO's final accuracy, and each arm against it."""
    out: dict[str, Any] = {}
    for chain in sorted({r["chain"] for r in results}):
        rows = [r for r in results if r["chain"] == chain]
        budget = min(
            r["curve"][-1][0] for r in rows if "stopped_at_step" not in r
        )  # a run that stopped keeps its level
        by_seed: dict[int, dict[str, Any]] = {}
        for row in rows:
            by_seed.setdefault(row["seed"], {})[row["arm"]] = row["curve"]
        arms = [arm for arm in ARMS if arm != "rloo" and any(r["arm"] == arm for r in rows)]
        start, final = (
            mean_interval([c["rloo"][0][1] for c in by_seed.values()]),
            [level_at(c["rloo"], budget) for c in by_seed.values()],
        )
        out[str(chain)] = {
            "budget_rollouts": budget,
            "start_accuracy": start[0],
            "rloo_final_accuracy": mean_interval(final),
            **{arm: compare(by_seed, arm, budget) for arm in arms},
        }
    return out


def main() -> None:
    """Train all runs, two at a time, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="chain 5, two seeds, few steps")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--chains", type=int, nargs="+", default=list(CHAINS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="keep the runs that an interrupted call has written down")
    parser.add_argument("--tune", action="store_true", help="chain 8, other seeds, each arm at several rates")
    options = parser.parse_args()
    if options.tune:
        tune(options)
        return
    chains, seeds, steps, arms = options.chains, list(range(options.seeds)), options.steps, options.arms
    if options.quick:
        chains, seeds, steps, arms = [5], [0, 1], 4, ["rloo", "prime"]
    sft_steps = 60 if options.quick else SFT_STEPS
    for chain in chains:
        fine_tuned(Variant(chain=chain, error_rate=CHAINS[chain], sft_steps=sft_steps))
    plan = [replace(run, variant=replace(run.variant, sft_steps=sft_steps)) for run in runs(chains, seeds, steps, arms)]
    results = carried_out(plan, options)
    figures = summary(results)
    settings = {
        arm: {"learning_rate": lr, "prm_learning_rate": prm} for arm, (_, lr, prm) in ARMS.items() if arm in arms
    }
    path = write_result(
        "sample_efficiency",
        {
            "quick": options.quick,
            "seeds": seeds,
            "steps": steps,
            "prompts": PROMPTS,
            "group_size": GROUP,
            "settings": settings,
        }
        | {"summary": figures, "runs": results},
    )
    print(f"written: {path}")
    print(json.dumps(figures))


def carried_out(plan: Sequence[Run], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The results of all runs, in order. Each is written down when it is there; `--resume` takes those of a run cut off."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    log = RESULTS / ".sample_efficiency_runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if options.resume and log.exists() else []
    known = {row["run"]: row["result"] for row in rows}
    missing, made_by = [run for run in plan if repr(run) not in known], commit()
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool, log.open("w") as file:
        for row in rows:
            print(json.dumps(row), file=file, flush=True)
        for run, result in zip(missing, pool.map(_one, missing), strict=True):
            known[repr(run)] = result | {"commit": made_by}
            print(json.dumps({"run": repr(run), "result": known[repr(run)]}), file=file, flush=True)
    return [known[repr(run)] for run in plan]


def tune(options: argparse.Namespace) -> None:
    """Each arm's learning rates, one after the other, by the mean of the last three measurements on seeds not reported.

    First the policy's at the PRM's rate of ARMS, then the PRM's at the best rate of the policy.
    """
    fine_tuned(Variant(chain=8, error_rate=CHAINS[8]))
    base = {run.arm: run for run in runs([8], [0], options.steps, options.arms)}
    found: dict[str, dict[tuple[float, float], list[float]]] = {arm: {} for arm in base}

    def measure(settings: list[tuple[str, float, float]]) -> None:
        plan = [
            replace(
                base[arm],
                learning_rate=rate,
                prm_learning_rate=prm,
                seed=seed,
                eval_from=options.steps - 2 * base[arm].eval_every,
            )
            for seed in TUNING_SEEDS
            for arm, rate, prm in settings
        ]
        for run, result in zip(plan, carried_out(plan, options), strict=True):
            final = sum(accuracy for _, accuracy in result["curve"][-3:]) / 3
            found[run.arm].setdefault((run.learning_rate, run.prm_learning_rate), []).append(final)
        options.resume = True  # the second part keeps what the first has written down

    measure([(arm, rate, ARMS[arm][2]) for arm in base for rate in TUNING_RATES[arm]])
    best = {arm: max(rows, key=lambda key: sum(rows[key])) for arm, rows in found.items()}
    with_prm = [arm for arm in base if ARMS[arm][2]]
    measure([(arm, best[arm][0], rate) for arm in with_prm for rate in PRM_TUNING_RATES if rate != best[arm][1]])
    rows = [
        {"arm": arm, "learning_rate": rate, "prm_learning_rate": prm, "final": [round(v, 3) for v in finals]}
        for arm, by_rate in found.items()
        for (rate, prm), finals in by_rate.items()
    ]
    write_result("sample_efficiency_tuning", {"steps": options.steps, "chain": 8, "seeds": TUNING_SEEDS, "rows": rows})
    print(json.dumps(rows))


def _one(run: Run) -> dict[str, Any]:
    return learning_curve(run, note=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
