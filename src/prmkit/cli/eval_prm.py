"""`prmkit eval prm`: score every set with every model, then one report card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from prmkit.cli.eval_prm_tables import tables
from prmkit.cli.progress import progress_bar
from prmkit.data.jsonl import write_jsonl
from prmkit.data.types import StepRewards
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.prm.card import build_card
from prmkit.evaluate.prm.config import EvalPRMConfig
from prmkit.evaluate.prm.languages import LanguageMatrix, language_matrices
from prmkit.evaluate.prm.outcomes import decide_outcomes, open_outcomes, refuse_one_sided
from prmkit.evaluate.prm.scored import Scored, ScoredFile, score_solutions
from prmkit.evaluate.prm.sets import EvalSet, ModelScores, Task, limited, pool_set
from prmkit.evaluate.run import git_commit, versions, write_result
from prmkit.evaluate.score_config import PRMOverrides
from prmkit.evaluate.score_files import file_hash, solution_hash
from prmkit.evaluate.scoring import scored_row
from prmkit.protocols import Unscored
from prmkit.report.card import write_card

if TYPE_CHECKING:
    from prmkit.protocols import StepScorer

console = Console(markup=False, emoji=False)  # texts of data and paths are no markup
WINDOW = 1024
"""Solutions per call of a scorer, which sorts and packs them by length."""

MAX_WORKERS = 4
"""Of the verifier that decides open outcomes."""
MAX_REASONS = 20
"""So many rows that cannot be read are named in the card."""


def evaluate_prm(config: EvalPRMConfig) -> None:
    """Score, evaluate, and write card.json, card.html and the scores."""
    _check(config)
    _check_folders([*config.model_paths.values(), *config.control_paths.values()])
    earlier = [_read_card(Path(path)) for path in config.cards]
    read = (limited(_read_set(name, task, path, config), config.limit) for name, task, path in config.sets)
    sets = [_decided(one) for one in read]
    out = Path(config.out)
    models = list(_all_scores(config, sets, out))
    if config.model_paths or config.control_paths:
        again = " ".join(f"{name}={out / 'scores' / name}" for name in (*config.model_paths, *config.control_paths))
        console.print(f"scored; without the models again: --scored {again}", soft_wrap=True)
    with progress_bar("card", 9, ()) as bar:
        done = iter(range(10))
        card = build_card(config, sets, models, on_section=lambda name: bar(next(done), {}))
        bar(9, {})
    card = {"versions": versions(), "commit": git_commit(), **card, "matrices": _matrices(config, [card, *earlier])}
    write_result(out / "card.json", card)
    page = write_card(card, out / "card.html")
    wide = (
        console if console.is_terminal else Console(width=150, markup=False, emoji=False)
    )  # a log has no width to keep to
    for table in tables(card):
        wide.print(table)
    console.print(f"card: {page}", soft_wrap=True)


def _check(config: EvalPRMConfig) -> None:
    if not config.out:
        raise ConfigError("out is not set; name a folder for the card: --out cards/mine")
    if Path(config.out).is_file():
        raise ConfigError(f'out = "{config.out}" is a file, but the card is a folder; set out to a folder')
    if not (config.models or config.scored):
        raise ConfigError("there is no model; name one: --models prm=FOLDER, or --scored prm=SCORES.jsonl")
    if not config.sets:
        raise ConfigError(
            "there is nothing to evaluate on; name at least one set: --process-bench, --prm-bench, --steps or --pools name=FILE"
        )
    if config.controls and not config.pools:
        raise ConfigError(
            f"controls = {', '.join(config.control_paths)}, but controls choose among the solutions of pools alone, and there "
            "are none; add --pools name=FILE, leave out --controls, or judge it like the others: --models name=FOLDER"
        )


def _check_folders(paths: Sequence[str]) -> None:
    """A folder without a model is said before hours of scoring with the others."""
    if paths:
        from prmkit.engines.local.prms.load import model_folder

        for path in paths:
            model_folder(Path(path).expanduser())


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or "languages" not in card:
            raise ValueError("it has no languages")
        return card
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no card of prmkit ({error}); give the card.json of an evaluation") from error


def _read_set(name: str, task: str, path: str, config: EvalPRMConfig) -> EvalSet:
    from prmkit.data.formats import BadRow, ReadOptions, iter_solutions, read_pools

    source: dict[str, Any] = {"path": path, "sha256": file_hash(Path(path))}
    if task == "pools":
        return pool_set(name, read_pools(path), source)
    # what PRMBench's own evaluation does with its few error steps that the solution does not have
    rows = list(iter_solutions(path, options=ReadOptions(original=config.unmodified, outside="ignore")))
    solutions = [row for row in rows if not isinstance(row, BadRow)]
    unreadable = [row.reason for row in rows if isinstance(row, BadRow)]
    if unreadable:
        if not solutions:
            raise DataError(f"{path}: none of {len(unreadable)} rows can be read. The first: {unreadable[0]}")
        source |= {"unreadable": len(unreadable), "unreadable_reasons": unreadable[:MAX_REASONS]}
        console.print(f"{path}: {len(unreadable)} rows cannot be read. The first: {unreadable[0]}", soft_wrap=True)
    outside = sum(bool(solution.meta.get("error_steps_outside")) for solution in solutions)
    if outside:
        source["error_steps_outside"] = outside
    if not any(solution.labels for solution in solutions):
        raise DataError(
            f"{path}: no step has a label, so {task} cannot use it; pools need no labels: --pools {name}={path}"
        )
    return EvalSet(name=name, task=cast("Task", task), solutions=solutions, source=source)


def _decided(one: EvalSet) -> EvalSet:
    """Pools with the outcomes that the file leaves open, where a verifier can decide them. Refused before anything is scored."""
    if one.task != "pools" or not open_outcomes(one.groups):
        return one
    from prmkit.config import VerifierConfig
    from prmkit.verify import make_verifier

    with make_verifier(VerifierConfig(use="math", workers=min(MAX_WORKERS, os.cpu_count() or 1))) as verifier:
        found = decide_outcomes(one.groups, verifier)
    counts = {"right": found.right, "wrong": found.wrong, "undecided": found.undecided}
    console.print(
        f"{one.name}: {sum(counts.values())} solutions without an outcome; by their answers {found.right} are right and "
        f"{found.wrong} wrong, {found.undecided} stay undecided",
        soft_wrap=True,
    )
    refuse_one_sided(found.groups, one.name)
    return pool_set(one.name, found.groups, {**one.source, "outcomes": counts})


def _all_scores(config: EvalPRMConfig, sets: Sequence[EvalSet], out: Path) -> Iterator[ModelScores]:
    """One model is in memory at a time."""
    for name, path in config.scored_paths.items():
        yield _scores(name, ScoredFile(path), sets, {"scored": path}, control=False)
    for control, paths in ((False, config.model_paths), (True, config.control_paths)):
        wanted = [one for one in sets if one.task == "pools" or not control]
        for name, path in paths.items():
            scorer, about = _load(config, path, config.overrides_of.get(name, PRMOverrides()))
            found = _scores(name, scorer, wanted, about, control=control)
            _write_scores(out / "scores" / name, found, path)
            yield found
            del scorer


def _load(config: EvalPRMConfig, path: str, overrides: PRMOverrides) -> tuple[StepScorer, dict[str, Any]]:
    import torch

    from prmkit.cli.score import resolved_spec
    from prmkit.engines.local.prms.load import load_prm, model_folder
    from prmkit.evaluate.score_files import model_fingerprint

    if config.threads:
        torch.set_num_threads(config.threads)
    folder = model_folder(Path(path).expanduser())
    spec = resolved_spec(folder, overrides, flag="--overrides NAME.family=FAMILY")
    about = {"path": path, "spec": asdict(spec), "weights_sha256": model_fingerprint(folder)}
    options: dict[str, Any] = {"device": config.device, "dtype": config.dtype}
    return load_prm(path, spec=spec, tokens_per_batch=config.tokens_per_batch, **options), about


def _scores(
    name: str, scorer: StepScorer, sets: Sequence[EvalSet], about: Mapping[str, Any], *, control: bool
) -> ModelScores:
    total = sum(len(one.solutions) for one in sets)
    scored: dict[str, list[Scored]] = {}
    with progress_bar(f"score {name}", total, ()) as bar:
        behind = 0
        for one in sets:
            rows: list[Scored] = []
            for start in range(0, len(one.solutions), WINDOW):
                part = one.solutions[start : start + WINDOW]
                rows += score_solutions(scorer, part, first_index=start)
                behind += len(part)
                bar(behind, {})
            scored[one.name] = rows
    reasons = [row.rewards.reason for rows in scored.values() for row in rows if isinstance(row.rewards, Unscored)]
    if len(reasons) == total:
        first = f"The first: {reasons[0]}" if reasons else "The sets are empty"
        raise DataError(f"{name}: none of {total} solutions has a score, so there is nothing to evaluate. {first}")
    return ModelScores(name=name, kind=scorer.kind, scored=scored, control=control, source=about)


def _write_scores(folder: Path, model: ModelScores, path: str) -> None:
    """What a later evaluation reads with `--scored name=FOLDER` in place of the model."""
    for name, rows in model.scored.items():
        write_jsonl(folder / f"{name}.jsonl", [_row(row, path) for row in rows])


def _row(row: Scored, model: str) -> dict[str, Any]:
    solution = row.solution
    if isinstance(row.rewards, StepRewards):
        return scored_row(solution, row.rewards, model=model)
    known = {"id": solution.id, "steps": list(solution.steps), "solution_sha256": solution_hash(solution)}
    return {**known, "model": model, "reason": row.rewards.reason}


def _matrices(config: EvalPRMConfig, cards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not config.languages and not config.cards:
        return []
    return [_matrix_json(matrix) for matrix in language_matrices(cards)]


def _matrix_json(matrix: LanguageMatrix) -> dict[str, Any]:
    return {
        **asdict(matrix),
        "means": matrix.means,
        "in_sample_means": list(matrix.in_sample_means),
        "row_means": list(matrix.row_means),
    }
