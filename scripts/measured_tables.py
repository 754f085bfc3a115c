"""Fill the measured places of the docs from benchmarks/results: `<!-- measured: NAME -->` ... `<!-- end -->`.

python scripts/measured_tables.py            # rewrites the pages that have such places
python scripts/measured_tables.py --check    # exits 1 if a table is not what the result files say
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT / "benchmarks"))
from _common import mean_interval  # noqa: E402


def main() -> int:
    """Rewrite or check the pages."""
    stale = 0
    for page, tables in PAGES.items():
        file = ROOT / "docs" / page
        text = file.read_text(encoding="utf-8")
        filled = text
        for name, table in tables.items():
            filled = _fill(file, filled, name, table)
        if "--check" in sys.argv:
            stale |= int(filled != text)
        else:
            file.write_text(filled, encoding="utf-8")
    return stale


def _fill(page: Path, text: str, name: str, table: Callable[[dict[str, Any]], str]) -> str:
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return text
    result = json.loads(file.read_text(encoding="utf-8"))
    block = f"<!-- measured: {name} -->\n{table(result)}\n\n{_source(result)}\n<!-- end -->"
    pattern = re.compile(rf"<!-- measured: {name} -->.*?<!-- end -->", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page}: no place <!-- measured: {name} --> ... <!-- end -->")
    return pattern.sub(lambda _: block, text)


def _source(result: dict[str, Any]) -> str:
    machine = result["machine"]
    command = " ".join(result["command"].split()[1:])
    return f"`{command}`, commit {result['commit']}, {result['date']}, {machine['cores']} cores of {machine['cpu']}."


def _sample_efficiency(result: dict[str, Any]) -> str:
    lines = [
        f"{len(result['seeds'])} seeds, {result['steps']} steps of {result['prompts']} prompts x {result['group_size']}; mean "
        "[95% interval over seeds]. Ratio: rollouts that RLOO needs for its final accuracy over those that the arm needs for the "
        "same (above 1 is better; 0 in an interval: not reached in some resamples).",
        "",
        "| additions | arm | final accuracy | against RLOO | rollout ratio |",
        "|---|---|---|---|---|",
    ]
    for chain, row in result["summary"].items():
        mean, low, high = row["rloo_final_accuracy"]
        start = row["start_accuracy"]
        lines.append(f"| {chain} | before RL | {start:.3f} | | |")
        lines.append(
            f"| {chain} | `rloo`, after {row['budget_rollouts']} rollouts | {mean:.3f} [{low:.3f}, {high:.3f}] | | 1 |"
        )
        for arm, figures in row.items():
            if isinstance(figures, dict):
                low, high = figures["final_accuracy_gain_interval"]
                gain = f"{figures['final_accuracy_gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
                ratio, (worst, best) = figures["rollout_ratio"], figures["rollout_ratio_interval"]
                shown = "not reached" if ratio is None else f"{ratio:.2f} [{worst:.2f}, {best:.2f}]"
                lines.append(f"| {chain} | `{arm}` | {figures['final_accuracy']:.3f} | {gain} | {shown} |")
    return "\n".join(lines)


def _localisation(result: dict[str, Any]) -> str:
    thirds = list(next(iter(result["summary"].values()))["accuracy"])
    lines = [
        f"{len(result['seeds'])} seeds; mean over seeds [95% interval].",
        "",
        "| PRM | " + " | ".join(f"AUC, {t}" for t in thirds) + " | " + f"pairwise accuracy, {thirds[-1]} |",
        "|---|" + "---|" * (len(thirds) + 1),
    ]
    for side, row in result["summary"].items():
        cells = [_interval(row["first_error_auc"][t]) for t in thirds] + [_interval(row["accuracy"][thirds[-1]])]
        lines.append(f"| {side} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _interval(values: list[float]) -> str:
    return f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]" if values else "-"


def _tuning(result: dict[str, Any]) -> str:
    lines = [
        f"Chain {result['chain']}, seeds {', '.join(map(str, result['seeds']))}, which are not reported, {result['steps']} "
        "steps; mean of the last three measurements, a figure for each seed. "
        "First the policy's rate, then, at its best, the PRM's.",
        "",
        "| arm | policy's rate | PRM's rate | accuracy |",
        "|---|---|---|---|",
    ]
    for row in result["rows"]:
        best = max((r for r in result["rows"] if r["arm"] == row["arm"]), key=lambda r: sum(r["final"]))
        shown = ", ".join(f"{value:.3f}" for value in row["final"])
        rate = f"{row['prm_learning_rate']:g}" if row["prm_learning_rate"] else "-"
        lines.append(
            f"| `{row['arm']}` | {row['learning_rate']:g} | {rate} | {f'**{shown}**' if row is best else shown} |"
        )
    return "\n".join(lines)


def _vs_trl(result: dict[str, Any]) -> str:
    line, shape = result["result"], result["shape"]
    lines = [
        f"Beside TRL's GRPO step: {shape['layers']} layers, {shape['hidden']} wide, {shape['prompts']} prompts x "
        f"{shape['samples']} responses of at most {shape['max_tokens']} tokens; each side at its fastest setting, in turn; "
        "median of ours / theirs. The floor counts floating-point operations alone.",
        "",
        "| lengths | our step | time | peak memory | floor |",
        "|---|---|---|---|---|",
    ]
    for lengths, suffix in (("all full", ""), ("natural", "_natural")):
        for side, memory in (("grpo", "memory"), ("prime", "prime_memory"), ("prime_replay", None)):
            if f"{side}_time_ratio{suffix}" not in line:
                continue
            used = f"{line[f'{memory}_ratio{suffix}']:.2f}" if memory else "-"
            floor = f"{line[f'floor_s{suffix}'][side]:.2f} s" if side in line[f"floor_s{suffix}"] else "-"
            lines.append(f"| {lengths} | `{side}` | {line[f'{side}_time_ratio{suffix}']:.2f} | {used} | {floor} |")
    return "\n".join(lines)


def _prime_cost(result: dict[str, Any]) -> str:
    lines = [
        "A step over the outcome-only RLOO step on the same kept batch, median.",
        "",
        "| model | step | time |",
        "|---|---|---|",
    ]
    for name, value in result["result"].items():
        if "/" in name:
            model, arm = name.removesuffix("_over_rloo").split("/", 1)
            lines.append(f"| {model} | {arm} | {value:.2f} |")
    return "\n".join(lines)


def _paired(runs: list[dict[str, Any]], largest: str) -> list[str]:
    """Best of N of each implicit PRM minus that of the fair Monte Carlo arm, paired by seed, and how many times cheaper it is."""
    by_run = {(row["method"], row["seed"]): row for row in runs if row["method"] != "data"}
    seeds = sorted({seed for _, seed in by_run})
    lines = [
        f"Beside `{FAIR}`, paired by seed: best of {largest}, and its operations over the row's, as in the column of costs:",
        *("", "| trained by | difference | times cheaper |", "|---|---|---|"),
    ]
    for name in dict.fromkeys(name for name, _ in by_run if name.startswith("implicit")):
        pairs = [(by_run[name, seed], by_run[FAIR, seed]) for seed in seeds]
        mean, low, high = mean_interval([a["best_of_n"][largest] - b["best_of_n"][largest] for a, b in pairs])
        cheaper = [sum(b["flops"][key] for _, b in pairs) / sum(a["flops"][key] for a, _ in pairs) for key in COSTS]
        lines.append(f"| {name} | {mean:+.3f} [{low:+.3f}, {high:+.3f}] | {' / '.join(f'{c:.1f}' for c in cheaper)} |")
    return lines


FAIR = "explicit, Monte Carlo, to the first error"
COSTS = ("one_pass_without_sampling", "one_pass_total", "total")


def _prm_methods(result: dict[str, Any]) -> str:
    summary, sizes = result["summary"], result["sizes"]
    data = summary["data"]
    numbers = list(next(iter(summary.values()))["best_of_n"])
    largest = numbers[-1]
    lines = [
        f"{len(result['seeds'])} seeds; {sizes['train_prompts']} training prompts x {sizes['samples']} responses, chains of "
        f"{sizes['chain']} additions, {data['share_right'][0]:.0%} of the responses right; pools of {sizes['pool_samples']} for "
        f"{sizes['test_prompts']} test prompts. Mean [95% interval over seeds]. Cost: FLOPs over those of implicit CE with "
        "one pass each, without the sampling of the responses, which all share / with it / with the passes that tuning chose.",
        "",
        f"| trained by | best of {largest} | weighted vote of {largest} | F1 of the first error | cost |",
        "|---|---|---|---|---|",
    ]
    base = summary["implicit CE"]["flops"]
    for name, row in summary.items():
        if name == "data":
            continue
        f1 = _bounds(row["first_error_f1"]) if row["first_error_f1"] else "-"
        cost = " / ".join(f"{row['flops'][key] / base[key]:.2f}" for key in COSTS)
        lines.append(
            f"| {name} | {_bounds(row['best_of_n'][largest])} | {_bounds(row['vote'][largest])} | {f1} | {cost} |"
        )
    for name, row in data["controls"].items():
        lines.append(f"| *{name}* | {row[largest]:.3f} | | | |")
    lines += ["", "Best of N, mean over seeds:", "", "| trained by | " + " | ".join(f"N = {n}" for n in numbers) + " |"]
    lines.append("|---|" + "---|" * len(numbers))
    for name, row in summary.items():
        if name != "data":
            lines.append(f"| {name} | " + " | ".join(f"{row['best_of_n'][n][0]:.3f}" for n in numbers) + " |")
    lines.append("| *pass@N* | " + " | ".join(f"{data['controls']['pass'][n]:.3f}" for n in numbers) + " |")
    return "\n".join([*lines, "", *_paired(result["runs"], largest)])


def _bounds(values: list[float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]" if values[1] is not None else f"{values[0]:.3f}"


def _prm_tuning(result: dict[str, Any]) -> str:
    lines = [
        "| trained by | rate | beta | epochs | best of N on the dev pools | F1 of the first error |",
        "|---|---|---|---|---|---|",
    ]
    for key, row in result["rows"].items():
        name, rate, beta, epochs = key.split("|")
        f1 = "-" if row["first_error_f1"] is None else f"{row['first_error_f1']:.3f}"
        lines.append(f"| {name} | {rate} | {beta if float(beta) else '-'} | {epochs} | {row['best_of_n']:.3f} | {f1} |")
    return "\n".join(lines)


def _verifiers(result: dict[str, Any]) -> str:
    known, exact, outputs = result["known_cases"], result["exact_path"], result["model_outputs"]
    lines = [
        f"{known['cases']} answers with known verdicts, from the tests of math-verify and lighteval; each side may take the last "
        "number of a text for its answer, but for the second row.",
        "",
        *_sides(known["sides"], known["cases"]),
        "",
        f"{outputs['responses']} responses of models to GSM8K and MATH, against the verdicts of their files (some are wrong, "
        "see below):",
        "",
        *_sides(outputs["by_label"], outputs["responses"]),
        "",
        "| on these responses | responses a second, median [least, most] |",
        "|---|---|",
    ]
    for name, key in (
        ("prmkit, one process and one worker", "ours"),
        ("plain math-verify, one process", "math_verify"),
    ):
        rate = outputs["rates_per_second"][key]
        lines.append(f"| {name} | {rate['median']:,.0f} [{rate['min']:,.0f}, {rate['max']:,.0f}] |")
    lines += [
        "",
        f"Throughput ratio {outputs['throughput_ratio']:.1f}, by the clock; {outputs['processor_time_ratio']:.1f} in processor "
        "time, the start of the worker included. The exact path decided "
        f"{exact['decided_exactly']} of {exact['pairs']} different pairs of answers, {exact['disagreements']} of them otherwise "
        "than math-verify does.",
    ]
    if hostile := result.get("hostile"):
        said = ", ".join(f"{count} {status}" for status, count in sorted(hostile["verdicts"].items()))
        lines += [
            "",
            f"{hostile['responses']:,} hostile responses: {said}; {len(hostile['accepted'])} accepted, "
            f"{hostile['responses'] - sum(hostile['verdicts'].values())} without a verdict.",
        ]
    return "\n".join([*lines, "", *_labels(outputs["differs_from_label"])])


def _sides(sides: dict[str, dict[str, int]], total: int) -> list[str]:
    lines = ["| verifier | accuracy | false accepts | false rejects | undecided |", "|---|---|---|---|---|"]
    for name, row in sides.items():
        right = f"{row['right'] / total:.1%}"
        lines.append(f"| {name} | {right} | {row['false_accepts']} | {row['false_rejects']} | {row['undecided']} |")
    return lines


def _labels(rows: list[dict[str, Any]]) -> list[str]:
    """Every response on which prmkit and its file differ, and who is wrong, as somebody found by reading it."""
    by_hand = json.loads((RESULTS.parent / "labels_by_hand.json").read_text(encoding="utf-8"))
    judged = [(row, *by_hand.get(row["id"], ("not looked at", ""))) for row in rows]
    counts = Counter(who for _, who, _ in judged)
    shown = ", ".join(f"{who} {counts[who]}" for who in sorted(counts))
    lines = [
        f"Where prmkit and the file differ ({len(rows)}), read by hand; wrong is: {shown}.",
        "",
        "| response | reference | answer | file | prmkit | wrong is | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, who, why in sorted(judged, key=lambda item: (item[1], item[0]["id"])):
        texts = [_cell(str(row[key])) for key in ("id", "reference", "answer")]
        said = [
            "right" if value else "undecided" if value is None else "wrong" for value in (row["label"], row["ours"])
        ]
        lines.append(f"| {' | '.join([*texts, *said, who, why])} |")
    return lines


def _cell(text: str) -> str:
    """As code, in one line of a table."""
    plain = " ".join(text.split())
    plain = plain if len(plain) <= 60 else f"{plain[:57]}..."
    return f"`{plain.replace('|', chr(92) + '|').replace('`', chr(39))}`"


def _sandbox(result: dict[str, Any]) -> str:
    timing, escapes = result["timing"], result["escapes"]
    formats = ", ".join(f"{name} {value:.0f}" for name, value in timing["bubblewrap_ms_per_check_by_format"].items())
    lines = [
        f"{result['result']['escapes']} escapes in {len(escapes)} attempts. {timing['checks']:,} checks of "
        f"{timing['tests_per_check']} tests, {timing['workers']} at a time: {timing['checks_per_second']:.1f} checks a second; "
        f"the sandbox adds {timing['overhead_ms']:.1f} ms to a check over running the same program in this process, of which "
        f"bubblewrap itself {timing['bubblewrap_ms']:.1f} ms. By format, ms a check: {formats}.",
        "",
        "| attempt | what happened | seconds |",
        "|---|---|---|",
    ]
    for row in escapes:
        said = f"{row['status']}: {_cell(row['what'])}" if row["what"] else row["status"]
        found = f"**{'; '.join(row['escapes'])}**" if row["escapes"] else said
        lines.append(f"| {row['name']} | {found} | {row['seconds']:.1f} |")
    return "\n".join(lines)


def _scoring_speed(result: dict[str, Any]) -> str:
    lines = [
        "Step rewards of rollouts of varying length by an implicit PRM, prmkit / a plain padded loop (in brackets: / the loop "
        "with one rollout at a time, which pads nothing); each side at its fastest setting, in turn. Working memory: what is "
        "taken beyond the loaded models.",
        "",
        "| model | time | tokens a second | working memory | largest difference of a reward, in standard deviations |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["models"].items():
        lines.append(
            f"| {name} | {row['time_ratio']:.2f} ({row['time_ratio_one_by_one']:.2f}) | {row['ours']['tokens_per_second']:,} / "
            f"{row['plain']['tokens_per_second']:,} | {row['ours']['working_mb']} / {row['plain']['working_mb']} MB | "
            f"{row['max_difference']:.1g} |"
        )
    lines += ["", "| vocabulary | response tokens | prmkit | plain loop |", "|---|---|---|---|"]
    for cell in result["memory_table"]:
        lines.append(
            f"| {cell['vocab']:,} | {cell['rollouts']} x {cell['response_tokens']} | {cell['ours_working_mb']} MB | "
            f"{cell['plain_working_mb']} MB |"
        )
    return "\n".join(lines)


def _human_labels(result: dict[str, Any]) -> str:
    card, settings, rows = result["card"], result["settings"], result["rows"]
    judged = ", ".join(f"{rows[name]} of {name}" for name in card["sets"])
    lines = [
        f"SmolLM2-135M, {settings['steps']} steps of {settings['batch_size']} solutions of at most {settings['max_tokens']} "
        f"tokens; judged on {judged}. Mean [95% interval over problems].",
        "",
        "| model | first wrong step found, MR-GSM8K (all wrong) | PRMScore, PRMBench | AUC of steps, PRMBench |",
        "|---|---|---|---|",
    ]
    for name, readings in card["steps"]["prmbench"].items():
        if card["unscored"][name]["prmbench"]["count"] == rows["prmbench"]:
            continue  # a control judges pools alone
        for reading, row in readings.items():
            found = _estimate(card["first_errors"]["sets"]["mr_gsm8k"][name][reading]["error_accuracy"])
            score, auc = (_estimate(row["total"][key]) for key in ("prm_score", "auc"))
            lines.append(f"| {name}, {reading} | {found} | {score} | {auc} |")
    pools = card["best_of_n"]
    lines += ["", f"| choice | {' | '.join(f'{name}, of {_largest(pools[name])}' for name in pools)} |"]
    lines.append("|---|" + "---|" * len(pools))
    chosen: dict[str, dict[str, Any]] = {}
    for pool, found in pools.items():
        curves = dict(found["controls"])
        curves |= {f"{model}, {way}": curve for model, ways in found["models"].items() for way, curve in ways.items()}
        for name, curve in curves.items():
            chosen.setdefault(name, {})[pool] = curve[_largest(found)]
    for name, values in chosen.items():
        lines.append(f"| {name} | {' | '.join(_estimate(values[p]) if p in values else '-' for p in pools)} |")
    return "\n".join(lines)


def _largest(pool: dict[str, Any]) -> str:
    return str(pool["n_values"][-1])


def _estimate(value: dict[str, Any]) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


PAGES: dict[str, dict[str, Callable[[dict[str, Any]], str]]] = {
    "prime.md": {
        "sample_efficiency": _sample_efficiency,
        "sample_efficiency_tuning": _tuning,
        "localisation": _localisation,
        "prime_cost": _prime_cost,
        "vs_trl": _vs_trl,
        "vs_trl_bfloat16": _vs_trl,
    },
    "verifiers.md": {"verifiers": _verifiers},
    "code_verifier.md": {"sandbox": _sandbox},
    "scoring.md": {"scoring_speed": _scoring_speed},
    "eval_prm.md": {"human_labels": _human_labels},
    "prm_methods.md": {"prm_methods": _prm_methods, "prm_methods_tuning": _prm_tuning},
}
"""Page -> result file -> its table."""


if __name__ == "__main__":
    sys.exit(main())
