"""`prmkit score`: any PRM over a file of solutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prmkit.cli.progress import progress_bar
from prmkit.data.formats import ReadOptions
from prmkit.data.prm_spec import PRMSpec, base_folder, read_spec
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.run import git_commit, versions
from prmkit.evaluate.score_files import (
    Done,
    ScoreFiles,
    file_hash,
    first_failure,
    model_fingerprint,
    note_counts,
    note_writer,
    open_files,
)
from prmkit.evaluate.scoring import ScoringIncomplete, Tally, score_rows, source_rows, survey

if TYPE_CHECKING:
    from prmkit.evaluate.score_config import PRMOverrides, ScoreConfig
    from prmkit.evaluate.scoring import Row
    from prmkit.protocols import StepScorer

IDENTITY_KEYS = ("split", "dtype", "tokens_per_batch", "window", "texts", "token_rewards")
"""Keys that decide the bytes of the scores."""
console = Console(markup=False, emoji=False)  # texts of data and paths are no markup


def score(config: ScoreConfig) -> None:
    """Score what is not scored yet; ends with how many rows have scores, and fails when some have none.

    Raises ScoringIncomplete after a finished run in which rows failed.
    """
    for name in ("model", "source", "out"):
        if not getattr(config, name):
            raise ConfigError(f"{name} is not set; prmkit score --model FOLDER --source IN.jsonl --out OUT.jsonl")
    from prmkit.engines.local.prms.families import check_token_rewards
    from prmkit.engines.local.prms.load import model_folder

    num_rows = survey(_rows(config), config.source)
    if not num_rows:
        raise DataError(f"{config.source}: there is nothing to score in it")
    folder = model_folder(Path(config.model).expanduser())
    spec = resolved_spec(folder, config.prm)
    if config.token_rewards:
        check_token_rewards(spec, folder)
    files = ScoreFiles(out=Path(config.out))
    written_by = {**versions(), "commit": git_commit()}
    done = open_files(files, _identity(config, folder, spec), written_by)
    tally = Tally(scored=len(done.ids), failed=done.failed)
    if len(done) < num_rows:
        note_writer(files, done, written_by)
        tally = _score(config, _loaded(config, spec), files, done, num_rows)
    else:
        console.print(f"{config.out}: complete, nothing to do", soft_wrap=True)
    note_counts(files, rows=tally.scored + tally.failed, **asdict(tally))
    if config.html and tally.scored:
        from prmkit.report.scored import write_scored_report

        console.print(f"page: {write_scored_report(files.out, Path(config.html))}", soft_wrap=True)
    _finish(files, tally, config.source)


def resolved_spec(folder: Path, overrides: PRMOverrides, *, flag: str = "--prm.family FAMILY") -> PRMSpec:
    """What the folder says it holds, with the overrides laid over it. Raises ConfigError where they do not fit, and ModelError
    where a folder does not say what it is, naming the `flag` that does."""
    from prmkit.engines.local.prms.families import BY_FAMILY, family_of

    known = read_spec(folder)
    if overrides.family != "auto" and (known is None or known.family != overrides.family):
        known = BY_FAMILY[overrides.family]
    known = known or family_of(folder, flag=flag)
    if known.family != "implicit" and (overrides.reference or overrides.beta):
        key = "reference" if overrides.reference else "beta"
        raise ConfigError(
            f'prm.{key} is for implicit PRMs, and {folder} is of the family {known.family}; set prm.family = "implicit", or '
            f"leave {key} out"
        )
    templated = (
        overrides.prompt == "chat" and known.family != "label_turns"
    )  # what the folder puts after a plain prompt goes
    changes: dict[str, Any] = {
        "separator": overrides.separator or None,
        "keep_text": False if overrides.separator else None,
        "labels": overrides.labels or None,
        "neutral_is_right": {"auto": None, "right": True, "wrong": False}[overrides.neutral],
        "chat": {"auto": None, "chat": True, "plain": False}[overrides.prompt],
        "system": overrides.system or ("" if overrides.prompt == "plain" else None),
        "after_prompt": overrides.after_prompt or ("" if templated else None),
        "one_text": {"auto": None, "pieces": False, "one_text": True}[overrides.tokenise],
        "reference": {"": None, "none": ""}.get(overrides.reference, overrides.reference),
        "beta": overrides.beta or None,
    }
    return replace(known, **{key: value for key, value in changes.items() if value is not None})


def _rows(config: ScoreConfig) -> Iterator[Row]:
    options = ReadOptions(split=None if config.split == "format" else config.split)
    return islice(source_rows(Path(config.source), config.format, options), config.limit or None)


def _identity(config: ScoreConfig, folder: Path, spec: PRMSpec) -> dict[str, Any]:
    """What may not change between the runs that write one file."""
    from prmkit.config import ModelConfig
    from prmkit.models.load import is_adapter, resolve_device

    weights = {"model": model_fingerprint(folder)}
    if is_adapter(folder):
        weights["base"] = model_fingerprint(base_folder(folder))
    for where in (folder / spec.reference, Path(spec.reference)):
        if spec.reference not in ("", "base") and where.is_dir():
            weights["reference"] = model_fingerprint(where)
            break
    return {
        "model": config.model,
        "weights_sha256": weights,
        "spec": {**asdict(spec), "labels": list(spec.labels)},
        "source": Path(config.source).name,
        "format": config.format,
        "source_sha256": file_hash(Path(config.source)),
        "device": resolve_device(ModelConfig(device=config.device)).type,
        **{key: getattr(config, key) for key in IDENTITY_KEYS},
    }


def _loaded(config: ScoreConfig, spec: PRMSpec) -> StepScorer:
    import torch

    from prmkit.engines.local.prms.load import load_prm

    if config.threads:
        torch.set_num_threads(config.threads)
    return load_prm(
        config.model,
        spec=spec,
        device=config.device,
        dtype=config.dtype,
        tokens_per_batch=config.tokens_per_batch,
        token_rewards=config.token_rewards,
    )


def _score(config: ScoreConfig, scorer: StepScorer, files: ScoreFiles, done: Done, num_rows: int) -> Tally:
    with progress_bar("score", num_rows, ()) as bar:
        return score_rows(
            _rows(config),
            scorer,
            files,
            done,
            window=config.window,
            model=config.model,
            texts=config.texts,
            on_rows=lambda num_behind: bar(num_behind, {}),
        )


def _finish(files: ScoreFiles, tally: Tally, source: str) -> None:
    if tally.failed:
        scores = (
            f"The {tally.scored} scores are in {files.out}" if tally.scored else f"{files.out.name} holds no scores"
        )
        if not files.out.exists():
            scores = f"{files.out.name} was not written"
        raise ScoringIncomplete(
            f"{tally.failed} of {tally.scored + tally.failed} rows have no score. The first: {first_failure(files, source)}. "
            f"{'All reasons are' if tally.failed > 1 else 'It is'} in {files.errors}. {scores}"
        )
    console.print(f"{tally.scored} of {tally.scored} rows scored: {files.out}", soft_wrap=True)
