"""Do the process rewards find the first wrong step? AUC over training, and what it takes online.

A step's value is the sum of its tokens' rewards. `first_error_auc`: how often the first wrong step of a response has a lower
value than a right step (0.5 is chance); the scores come from before the PRM learns from the batch. Sides: the PRM of the
preset; the same without replay, with PRIME's beta of 0.05, and without the prompt offset; the released run's PRM; and the
preset's PRM on a policy that does not move. In all of them the policy learns from outcomes alone (process coefficient ~0),
so that every PRM sees the same batches and only the PRM varies.

    python benchmarks/localisation.py            # about 15 minutes on 2 cores
    python benchmarks/localisation.py --quick    # one seed, few steps, under a minute: shows that it runs
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from statistics import fmean
from typing import Any

from _arithmetic import Run, Variant, fine_tuned, learning_curve
from _common import mean_interval, write_result

from prmkit.rl.algorithm import Algorithm, Process
from prmkit.rl.presets import PRESETS

SILENT = 1e-9
"""Process coefficient: the PRM learns, but has no say."""
VARIANT = Variant(chain=8, error_rate=0.26)
PRIME, PAPER = PRESETS["prime"].process, PRESETS["prime_paper"].process
SIDES: dict[str, tuple[Process, float]] = {
    "prime": (PRIME, 1e-4),
    "prime, no replay": (replace(PRIME, replay_batches=0), 1e-4),
    "prime, beta 0.05": (replace(PRIME, beta=0.05), 1e-4),
    "prime, no offset": (replace(PRIME, loss="ce"), 1e-4),
    "released run": (PAPER, 1e-4),
    "prime, policy at rest": (PRIME, 1e-12),
}
"""Side -> the PRM's settings, learning rate of the policy."""


def main() -> None:
    """Train all sides and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    seeds, steps = list(range(options.seeds)), options.steps
    names = list(SIDES)
    if options.quick:
        seeds, steps, names = [0], 4, ["prime", "released run"]
    variant = replace(VARIANT, sft_steps=60) if options.quick else VARIANT
    fine_tuned(variant)
    plan = [(name, seed, steps, variant) for seed in seeds for name in names]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_one, plan))
    figures = {name: _figures([r for r in results if r["side"] == name], steps) for name in names}
    path = write_result(
        "localisation", {"quick": options.quick, "seeds": seeds, "steps": steps, "summary": figures, "runs": results}
    )
    print(f"written: {path}")
    print(json.dumps({"first_error_auc": figures}))


def _one(job: tuple[str, int, int, Variant]) -> dict[str, Any]:
    name, seed, steps, variant = job
    process, learning_rate = SIDES[name]
    run = Run(
        arm="prime",
        algorithm=Algorithm(
            group_size=4, process=replace(process, coef=SILENT), prm_minibatches=4 if process is PAPER else 1
        ),
        learning_rate=learning_rate,
        prm_learning_rate=1e-4,
        variant=variant,
        seed=seed,
        steps=steps,
        prompts=8,
        eval_every=steps,
        eval_prompts=64,
    )
    return {"side": name} | learning_curve(run)


def _figures(runs: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Mean and interval over seeds, for each third of the run; steps without an error to find are left out."""
    thirds = [range(k * steps // 3, (k + 1) * steps // 3) for k in range(3)]

    def over_seeds(key: str, third: range) -> list[float]:
        means = []
        for run in runs:
            values = [run["quality"][s][key] for s in third if key in run["quality"][s]]
            means += [fmean(values)] if values else []
        return [round(v, 3) for v in mean_interval(means)] if means else []

    return {
        key: {f"steps {t.start + 1}-{t.stop}": over_seeds(f"prm/{key}", t) for t in thirds if len(t)}
        for key in ("first_error_auc", "accuracy")
    }


if __name__ == "__main__":
    main()
