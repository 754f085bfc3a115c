"""PRMs trained on real labels and judged on others: PRM800K's step labels, and outcomes of GSM8K solutions.

Trains SmolLM2-135M-Instruct three times with `prmkit train`: stepwise on PRM800K trajectories, implicit (CE) and outcome on the
GSM8K solutions that OpenAI released with their verdicts. Judges them, and the untrained model's log-probs, with one
`prmkit eval prm`: PRMBench, MR-GSM8K, best of 8 on MATH (with the reward-model scores that the pool brings) and best of 12
models on GSM8K. Questions of the evaluation sets are taken out of the training sets.

    python benchmarks/human_labels.py --data FOLDER            # short steps on CPU: two hours of one core
    python benchmarks/human_labels.py --data FOLDER --steps 2000 --batch-size 32 --limit 0 --pool-limit 0 --device cuda
    python benchmarks/human_labels.py --data FOLDER --quick    # two steps, the shortest rows: shows that it runs

FOLDER holds prm800k_steps/trajectories.jsonl, gsm8k_model_solutions/example_model_solutions.jsonl,
prmbench/prmbench_test_p2.jsonl, mr_gsm8k_subset/gpt3_5_eval_subset.jsonl, math_bestof8_rm/math_cot_100.jsonl and
zeroeval_gsm8k_12models/candidates.jsonl, as their projects publish them (docs/eval_prm.md names the sources).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _common import write_result

from prmkit.models.load import resolve_model_path

SETS = {
    "prmbench": "prmbench/prmbench_test_p2.jsonl",
    "mr_gsm8k": "mr_gsm8k_subset/gpt3_5_eval_subset.jsonl",
    "math_best_of_8": "math_bestof8_rm/math_cot_100.jsonl",
    "gsm8k_12_models": "zeroeval_gsm8k_12models/candidates.jsonl",
}
TRAINING = {
    "prm800k": "prm800k_steps/trajectories.jsonl",
    "gsm8k": "gsm8k_model_solutions/example_model_solutions.jsonl",
}
KINDS = ("stepwise", "implicit", "outcome")
THRESHOLD = "0.5"
"""A probability, not chosen on a set: the sample of MR-GSM8K holds wrong solutions alone."""
POOLS = ("math_best_of_8", "gsm8k_12_models")
SECTIONS = ("sets", "models", "thresholds", "unscored", "first_errors", "steps", "best_of_n", "paired")
"""Of the card, in the result file."""
QUESTION_FIELDS = ("problem", "question", "original_question")

Row = Mapping[str, Any]


def question(row: Row) -> str:
    """What was asked, without differences of white space and case."""
    text = next(str(row[field]) for field in QUESTION_FIELDS if field in row)
    return " ".join(text.lower().split())


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sample(rows: list[dict[str, Any]], limit: int, key: Callable[[Row], str] = lambda row: "") -> list[dict[str, Any]]:
    """At most `limit` rows (0: all), drawn at random, as many of each kind as of any other."""
    if not limit:
        return rows
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in random.Random(0).sample(rows, len(rows)):
        kinds.setdefault(key(row), []).append(row)
    each = max(1, limit // len(kinds))
    return [row for name in sorted(kinds) for row in kinds[name][:each]]


def shortest(rows: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The rows with least text, with two of their candidates."""
    chosen = sorted(rows, key=lambda row: len(json.dumps(row)))[:limit]
    lists = ("code", "pred", "report", "score", "response", "pred_score", "candidates")
    return [{key: value[:2] if key in lists else value for key, value in row.items()} for row in chosen]


def prepare(data: Path, work: Path, options: argparse.Namespace) -> dict[str, int]:
    """Write the evaluation sets, and the training sets without their questions; returns the numbers of rows."""
    counts, asked = {}, set()
    for name, file in SETS.items():
        rows = rows_of(data / file)
        kind = (lambda row: str(row["classification"])) if name == "prmbench" else (lambda row: "")
        limit = options.pool_limit if name in POOLS else options.limit
        chosen = shortest(rows, limit) if options.quick else sample(rows, limit, kind)
        asked |= {question(row) for row in chosen} | {question(row) for row in rows if name == "math_best_of_8"}
        counts[name] = write_rows(work / f"{name}.jsonl", chosen)
    for name, file in TRAINING.items():
        rows = [row for row in rows_of(data / file) if question(row) not in asked]
        counts[name] = write_rows(work / f"{name}.jsonl", rows)
    return counts


def write_rows(path: Path, rows: list[dict[str, Any]]) -> int:
    """Write JSONL and return the number of rows."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def command(*words: str) -> None:
    """Run prmkit. What a run of this script that was cut off has trained is not trained again."""
    print("prmkit " + " ".join(words), file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "prmkit.cli.main", *words], check=True, stdout=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/human_labels"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--train", nargs="+", choices=KINDS, default=list(KINDS), help="what to train and judge")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=224)
    parser.add_argument("--limit", type=int, default=24, help="rows of each set with step labels; 0: all")
    parser.add_argument("--pool-limit", type=int, default=8, help="questions of each pool; 0: all")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--again", action="store_true", help="the card from the scores of an earlier run, without the models"
    )
    parser.add_argument("--quick", action="store_true", help="two steps, two rows of each set")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.batch_size, options.limit, options.max_tokens = 2, 1, 2, 160
        options.pool_limit = 2
        shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True, exist_ok=True)
    counts = prepare(options.data, options.work, options)
    settings = {key: value for key, value in vars(options).items() if key not in ("data", "work")}
    options.model = str(resolve_model_path(options.model, options.work, 0))
    for name, words in trainings(options).items():
        if name in options.train and not options.again:
            command(*words)
    models = {name: str(options.work / name) for name in options.train}
    folders = {name: str(sorted(Path(path).glob("checkpoints/step_*/prm"))[-1]) for name, path in models.items()}
    sets = {name: options.work / f"{name}.jsonl" for name in SETS}
    command(*evaluation(options, folders, sets))
    whole = json.loads((options.work / "card" / "card.json").read_text(encoding="utf-8"))
    card = {key: whole[key] for key in SECTIONS}
    write_result("human_labels", {"quick": options.quick, "settings": settings, "rows": counts, "card": card})
    print(json.dumps(counts))


def trainings(options: argparse.Namespace) -> dict[str, list[str]]:
    """The three trainings as command lines."""
    shared = [
        *("--model.path", options.model, "--model.device", options.device, "--model.dtype", options.dtype),
        *("--steps", str(options.steps), "--batch-size", str(options.batch_size)),
        *("--max-tokens", str(options.max_tokens), "--save-every", "1000000"),
        *("--optimizer.learning-rate", str(options.learning_rate), "--optimizer.warmup-steps", "10"),
        *("--optimizer.schedule", "cosine", "--optimizer.tokens-per-microbatch", "2048"),
    ]
    prm800k, gsm8k = (str(options.work / f"{name}.jsonl") for name in ("prm800k", "gsm8k"))
    return {
        "stepwise": [
            *("train", "stepwise", "--data", prm800k, "--run-dir", str(options.work / "stepwise"), *shared),
            *("--too-long", "cut", "--layout", "chat"),
        ],
        "implicit": [
            *("train", "implicit", "--data", gsm8k, "--run-dir", str(options.work / "implicit"), *shared),
            *("--loss", "ce", "--too-long", "leave_out"),
        ],
        "outcome": [
            *("train", "outcome", "--data", gsm8k, "--run-dir", str(options.work / "outcome"), *shared),
            *("--too-long", "leave_out", "--layout", "chat"),
        ],
    }


def evaluation(options: argparse.Namespace, folders: Mapping[str, str], sets: Mapping[str, Path]) -> list[str]:
    """The report card as a command line."""
    scores = options.work / "card" / "scores"
    scorers = [
        *("--models", *(f"{name}={folder}" for name, folder in folders.items() if name != "outcome")),
        *("--controls", *(f"{name}={folder}" for name, folder in folders.items() if name == "outcome")),
        *(f"logprob={options.model}", "--overrides", "logprob.family=log_prob"),
    ]
    if options.again:
        scorers = ["--scored", *(f"{name}={scores / name}" for name in (*folders, "logprob"))]
    return [
        *("eval", "prm", "--out", str(options.work / "card"), "--threshold", THRESHOLD),
        *scorers,
        *("--process-bench", f"mr_gsm8k={sets['mr_gsm8k']}", "--prm-bench", f"prmbench={sets['prmbench']}"),
        *("--pools", *(f"{name}={sets[name]}" for name in POOLS)),
        *("--device", options.device, "--dtype", options.dtype, "--tokens-per-batch", "4096"),
    ]


if __name__ == "__main__":
    main()
