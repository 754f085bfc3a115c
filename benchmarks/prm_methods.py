"""Which way of training a PRM is worth what it costs? Seven ways on arithmetic chains with planted errors.

Implicit PRMs by CE, DPO, KTO and NCA and an outcome model learn from verdicts alone; explicit PRMs from true step labels and
from Monte Carlo labels (8 completions a step). Same policy, same responses, same starting weights. Measured on test problems:
best of n from a frozen pool, F1 of the first error, and floating-point operations of data collection and training.

    python benchmarks/prm_methods.py            # five seeds
    python benchmarks/prm_methods.py --quick    # one seed, little data, under a minute: shows that it runs, not who wins
    python benchmarks/prm_methods.py --tune     # learning rates and betas, on a seed that is not reported
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from statistics import fmean
from typing import Any

from _common import RESULTS, commit, mean_interval, write_result
from _methods import (
    SEPARATOR,
    VERIFIER,
    Labelled,
    Policy,
    Sizes,
    labelled,
    optimizer,
    pools,
    quiet_threads,
    train,
)

from prmkit.config import ModelConfig
from prmkit.data.step_scores import AGGREGATES
from prmkit.data.types import Group, Solution
from prmkit.evaluate.cost import (
    UNIT,
    flop_rates,
    implicit_ce,
    implicit_dpo,
    implicit_kto,
    lengths_of,
    monte_carlo,
    outcome_model,
    parameters_of,
)
from prmkit.evaluate.prm.best_of_n import Values, choices, controls, make_pools
from prmkit.evaluate.prm.process_bench import best_threshold, harmonic, locate, tally_first_errors
from prmkit.evaluate.prm.scored import readings, score_solutions
from prmkit.models.load import load_tokenizer
from prmkit.protocols import StepScorer
from prmkit.train.implicit_config import ImplicitConfig
from prmkit.train.stepwise_config import OutcomeConfig, StepwiseConfig
from prmkit.verify import make_verifier

DEV_SEED, TEST_SEED, TUNING_SEED = 901, 902, 100
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to train a PRM, with the settings that `--tune` chose."""

    kind: str
    labels: str
    rate: float
    loss: str = ""
    beta: float = 0.0
    epochs: int = 1
    """Passes over the data: a model with a new head needs more of them than one that starts as a language model."""
    up_to_first_error: bool = False
    """Learn from the steps up to and including the first wrong one."""
    responses: int = 0
    """Learn from the first so many responses to each prompt; 0: from all."""

    def chosen(self, data: Labelled) -> list[Solution]:
        """What it learns from."""
        solutions: list[Solution] = getattr(data, self.labels)
        return [s for s in solutions if not self.responses or int(s.id.rpartition("-")[2]) < self.responses]


METHODS: dict[str, Method] = {
    "implicit CE": Method(kind="implicit", labels="true", loss="ce", rate=2e-5, beta=0.5),
    "implicit CE, 2 responses": Method(kind="implicit", labels="true", loss="ce", rate=1e-4, beta=0.5, responses=2),
    "implicit DPO": Method(kind="implicit", labels="true", loss="dpo", rate=2e-5, beta=0.5),
    "implicit KTO": Method(kind="implicit", labels="true", loss="kto", rate=2e-5, beta=0.5),
    "implicit NCA": Method(kind="implicit", labels="true", loss="nca", rate=3e-4, beta=0.5),
    "explicit, true labels": Method(kind="stepwise", labels="true", rate=3e-4, epochs=24),
    "explicit, Monte Carlo": Method(kind="stepwise", labels="monte_carlo", rate=3e-4, epochs=24),
    "explicit, Monte Carlo, to the first error": Method(
        kind="stepwise", labels="monte_carlo", rate=3e-4, epochs=24, up_to_first_error=True
    ),
    "outcome model": Method(kind="outcome", labels="true", rate=1e-3, epochs=1),
}
"""The one up to the first error was not tuned: it has the settings of `explicit, true labels`, whose labels it resembles.
`labels = true` gives outcomes and true step labels; implicit and outcome models look at the outcomes alone."""
TUNING_RATES = {"implicit": (2e-5, 5e-5, 1e-4, 3e-4), "stepwise": (3e-4, 1e-3), "outcome": (3e-4, 1e-3)}
TUNING_EPOCHS = {"implicit": (1,), "stepwise": (1, 8, 24), "outcome": (1, 8, 24)}
TUNING_BETAS = (0.05, 0.5)


def config_of(method: Method, folder: str, seed: int) -> Any:
    """The configuration of the command that trains it."""
    shared: dict[str, Any] = {
        "seed": seed,
        "epochs": method.epochs,
        "batch_size": BATCH,
        "max_tokens": 512,
        "save_every": 10**6,
        "model": ModelConfig(path=folder),
        "optimizer": optimizer(method.rate),
    }
    if method.kind == "implicit":
        return ImplicitConfig(loss=method.loss, beta=method.beta, **shared)  # type: ignore[arg-type]
    if method.kind == "stepwise":
        return StepwiseConfig(separator=SEPARATOR, threshold=0.0, up_to_first_error=method.up_to_first_error, **shared)
    return OutcomeConfig(separator=SEPARATOR, **shared)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What every method is judged on."""

    dev: list[Group[Solution]]
    test: list[Group[Solution]]


def judged(scorer: StepScorer, frozen: Frozen) -> dict[str, Any]:
    """Best of n and first-error F1 on the test pools; aggregate, reading and threshold chosen on the dev pools."""
    rows = {}
    for name, groups in (("dev", frozen.dev), ("test", frozen.test)):
        solutions = [member for group in groups for member in group.members]
        scored = score_solutions(scorer, solutions)
        rows[name] = (scored, choices(make_pools(groups), scored, num_draws=200, seed=0))
    largest = max(next(iter(rows["dev"][1].values())))
    name = max(AGGREGATES, key=lambda a: accuracy(rows["dev"][1][f"best {a}"], largest))
    located = {r: [locate(rows[s][0], r) for s in ("dev", "test")] for r in readings(scorer.kind)}
    found = {reading: best_threshold(dev) for reading, (dev, _) in located.items()}
    chosen = max(found, key=lambda r: found[r][1] if found[r] else -1.0)
    threshold = found[chosen]
    f1 = None
    if threshold is not None:
        tallies = tally_first_errors(located[chosen][1], threshold[0])
        f1 = harmonic([sum(column) for column in zip(*(t.counts for t in tallies), strict=True)])
    curves = rows["test"][1]
    return {
        "aggregate": name,
        "best_of_n": {str(n): accuracy(curves[f"best {name}"], n) for n in curves[f"best {name}"]},
        "vote": {str(n): accuracy(curves[f"vote {name}"], n) for n in curves[f"vote {name}"]},
        "all_at_largest": {key: accuracy(values, largest) for key, values in curves.items()},
        "reading": chosen,
        "first_error_f1": f1,
    }


def accuracy(values: Values, n: int) -> float:
    """Mean over problems."""
    return fmean(tally.counts[0] / tally.counts[1] for tally in values[n])


def one_seed(sizes: Sizes, methods: Mapping[str, Method], seed: int) -> list[dict[str, Any]]:
    """Data, all methods, and their figures."""
    quiet_threads()
    results = []
    with make_verifier(VERIFIER) as verifier:
        policy = Policy(sizes, verifier)
        data = labelled(policy, seed)
        frozen = Frozen(
            dev=pools(policy, sizes.dev_prompts, seed=DEV_SEED), test=pools(policy, sizes.test_prompts, seed=TEST_SEED)
        )
    for name, method in methods.items():
        solutions = method.chosen(data)
        scorer, folder = train(method.kind, config_of(method, str(policy.folder), seed), solutions)
        figures = judged(scorer, frozen)
        shutil.rmtree(folder)
        results.append(
            {
                "method": name,
                "seed": seed,
                "commit": commit(),
                "settings": asdict(method),
                "flops": cost(policy, method, solutions, data),
            }
            | figures
        )
        print(
            f"seed {seed}, {name}: {figures['aggregate']} {figures['best_of_n']} F1 {figures['first_error_f1']}",
            flush=True,
        )
    outcomes = [member.outcome or 0.0 for member in data.true]
    results.append(
        {
            "method": "data",
            "seed": seed,
            "responses": len(outcomes),
            "share_right": fmean(outcomes),
            "monte_carlo_agreement": label_agreement(data),
            "monte_carlo_shared_prefixes": cost(policy, METHODS["explicit, Monte Carlo"], data.true, data, shared=True),
            "controls": {
                key: {str(n): accuracy(values, n) for n in values}
                for key, values in controls(make_pools(frozen.test), num_draws=200, seed=0).items()
            },
        }
    )
    return results


def cost(
    policy: Policy, method: Method, solutions: Sequence[Solution], data: Labelled, *, shared: bool = False
) -> dict[str, float]:
    """FLOPs of one way of training, from the tokens of this run; with one pass; and where every token counts alike (`UNIT`).

    Monte Carlo labels are counted as if every solution had its own completions, as in Math-Shepherd; `shared`: with those
    that were sampled, equal prefixes of siblings sharing theirs.
    """
    lengths = lengths_of(load_tokenizer(policy.folder), solutions)
    own = sum(tokens for solution in solutions for step in data.completion_tokens[solution.id] for tokens in step)
    found: dict[str, float] = {}
    flops = flop_rates(parameters_of(policy.folder).matmul)
    for prefix, rates, epochs in (("", flops, method.epochs), ("one_pass_", flops, 1), ("unit_", UNIT, 1)):
        if method.labels == "monte_carlo":
            completed = data.completed_tokens if shared else own
            counted = monte_carlo(lengths, rates, epochs=epochs, completed=completed)
        else:
            ways = {"ce": implicit_ce, "kto": implicit_kto, "dpo": implicit_dpo, "nca": implicit_dpo}
            counted = ways.get(method.loss, outcome_model)(lengths, rates, epochs=epochs)
        found |= {f"{prefix}total": counted.total, f"{prefix}without_sampling": counted.without_sampling}
    return found


def label_agreement(data: Labelled) -> float:
    """Share of steps whose Monte Carlo label (any completion right) is the truth of every step up to there."""
    same = []
    for true, estimated in zip(data.true, data.monte_carlo, strict=True):
        assert true.labels is not None
        assert estimated.labels is not None
        so_far = True
        for label, value in zip(true.labels, estimated.labels, strict=True):
            so_far = so_far and label == 1.0
            same.append(so_far == (isinstance(value, float) and value > 0))
    return fmean(same)


def interval(values: Sequence[float]) -> list[float | None]:
    """Mean over seeds and its bounds; one seed has none."""
    mean, low, high = mean_interval(values)
    return [mean, low, high] if len(values) > 1 else [mean, None, None]


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds and interval of each method's figures."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(row["method"] for row in results):
        rows = [row for row in results if row["method"] == name]
        if name == "data":
            out[name] = {
                "share_right": interval([row["share_right"] for row in rows]),
                "monte_carlo_agreement": interval([row["monte_carlo_agreement"] for row in rows]),
                "controls": rows[0]["controls"],
            }
            continue
        f1 = [row["first_error_f1"] for row in rows if row["first_error_f1"] is not None]
        out[name] = {
            "best_of_n": {n: interval([row["best_of_n"][n] for row in rows]) for n in rows[0]["best_of_n"]},
            "vote": {n: interval([row["vote"][n] for row in rows]) for n in rows[0]["vote"]},
            "aggregates": [row["aggregate"] for row in rows],
            "first_error_f1": interval(f1) if f1 else None,
            "flops": {key: fmean(row["flops"][key] for row in rows) for key in rows[0]["flops"]},
        }
    return out


def tune(sizes: Sizes, workers: int) -> None:
    """Best of n on the dev pools for each rate (beta, passes), on a seed that is not reported; what is known is kept."""
    file = RESULTS / "prm_methods_tuning.json"
    known: dict[str, Any] = json.loads(file.read_text())["rows"] if file.exists() else {}
    plan = {
        f"{name}|{rate:g}|{beta:g}|{epochs}": replace(method, rate=rate, beta=beta, epochs=epochs)
        for name, method in METHODS.items()
        for rate in TUNING_RATES[method.kind]
        for epochs in TUNING_EPOCHS[method.kind]
        for beta in (TUNING_BETAS if method.loss == "ce" and not method.responses else (method.beta,))
    }
    keys = [key for key in plan if key not in known]
    parts = [{key: plan[key] for key in keys[k::workers]} for k in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = pool.map(tune_part, [sizes] * workers, parts)
        rows = dict(sorted((known | {key: value for part in done for key, value in part.items()}).items()))
    write_result("prm_methods_tuning", {"seed": TUNING_SEED, "sizes": asdict(sizes), "rows": rows})
    print(json.dumps(rows))


def tune_part(sizes: Sizes, methods: Mapping[str, Method]) -> dict[str, Any]:
    """The dev figures of some settings."""
    quiet_threads()
    with make_verifier(VERIFIER) as verifier:
        policy = Policy(sizes, verifier)
        data = labelled(policy, TUNING_SEED)
        dev = pools(policy, sizes.dev_prompts, seed=DEV_SEED)
    rows = {}
    for key, method in methods.items():
        config = config_of(method, str(policy.folder), TUNING_SEED)
        scorer, folder = train(method.kind, config, method.chosen(data))
        figures = judged(scorer, Frozen(dev=dev, test=dev))
        shutil.rmtree(folder)
        largest = max(figures["best_of_n"], key=int)
        rows[key] = {"best_of_n": figures["best_of_n"][largest], "first_error_f1": figures["first_error_f1"]}
        print(key, rows[key], flush=True)
    return rows


def known_runs(sizes: Sizes, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The runs of the result file, where it has these sizes and seeds."""
    result: dict[str, Any] = json.loads((RESULTS / "prm_methods.json").read_text(encoding="utf-8"))
    if result["sizes"] != asdict(sizes) or result["seeds"] != list(seeds):
        raise SystemExit("the result file has other sizes or seeds; run all methods")
    return [{"commit": result["commit"], **row} for row in result["runs"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, little data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these; the others' runs stay in the result")
    parser.add_argument("--tune", action="store_true", help="rates and betas on a seed that is not reported")
    options = parser.parse_args()
    sizes = Sizes()
    if options.tune:
        tune(sizes, options.workers)
        return
    seeds = list(range(options.seeds))
    methods = {name: METHODS[name] for name in options.methods or METHODS}
    known = known_runs(sizes, seeds) if options.methods else []
    if options.quick:
        sizes = Sizes(
            chain=3,
            error_rate=0.5,
            sft_steps=80,
            train_prompts=8,
            dev_prompts=8,
            test_prompts=8,
            samples=4,
            pool_samples=4,
        )
        seeds = [0]
    with make_verifier(VERIFIER) as verifier:
        Policy(sizes, verifier)  # the fine-tuned model, made once
    with ProcessPoolExecutor(min(options.workers, len(seeds)), mp_context=get_context("spawn")) as pool:
        n = len(seeds)
        results = [row for rows in pool.map(one_seed, [sizes] * n, [methods] * n, seeds) for row in rows]
    if known:
        results = [
            row
            for name in (*METHODS, "data")
            for row in (results if name in methods else known)
            if row["method"] == name
        ]
    figures = summary(results)
    path = write_result(
        "prm_methods",
        {"quick": options.quick, "seeds": seeds, "sizes": asdict(sizes), "summary": figures, "runs": results},
    )
    print(f"written: {path}")
    line: dict[str, Any] = {
        key: {
            "best_of_n": row["best_of_n"][max(row["best_of_n"], key=int)],
            "first_error_f1": row["first_error_f1"],
            "flops": row["flops"]["total"],
        }
        for key, row in figures.items()
        if key != "data"
    }
    flops = {key: row["flops"] for key, row in figures.items() if key != "data"}
    for key in ("total", "one_pass_total", "one_pass_without_sampling", "unit_without_sampling"):
        for cheap in ("implicit CE", "implicit CE, 2 responses"):
            line[f"Monte Carlo over {cheap}, {key}"] = flops["explicit, Monte Carlo"][key] / flops[cheap][key]
    print(json.dumps(line))


if __name__ == "__main__":
    main()
