"""`prmkit train ...`: reward models trained on files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from prmkit.cli.commands import say_where_it_stands
from prmkit.cli.progress import progress_bar
from prmkit.cli.provenance import resolved_config
from prmkit.models.folders import work_dir

if TYPE_CHECKING:
    from prmkit.train.implicit_config import ImplicitConfig
    from prmkit.train.stepwise_config import OutcomeConfig, StepwiseConfig

console = Console(markup=False, emoji=False)  # texts of data and paths are no markup


def implicit(config: ImplicitConfig) -> None:
    """Train an implicit PRM on outcomes; ends with the folder that `load_prm` reads."""
    from prmkit.engines.local.implicit import implicit_models
    from prmkit.train.implicit import ROLE, num_steps, train_implicit
    from prmkit.train.implicit_data import summary
    from prmkit.train.implicit_files import encode_rows, read_rows
    from prmkit.train.run_folder import RunFolder
    from prmkit.train.stop import stop_on_signals

    rows = read_rows(config)
    models = implicit_models(config, work_dir())
    max_tokens = min(config.max_tokens, models.context)
    data, validation = encode_rows(config, rows, models.tokenizer, max_tokens)
    console.print(f"data: {summary(data, on_pairs=config.on_pairs)}", soft_wrap=True)
    if validation is not None:
        console.print(f"validation: {summary(validation, on_pairs=False)}", soft_wrap=True)
    total = num_steps(config, len(data.items))
    folder = RunFolder(Path(config.run_dir))
    folder.open(resolved_config(config), models.frozen)
    say_where_it_stands(folder, total)
    with progress_bar("train implicit", total, IMPLICIT_COLUMNS) as bar, stop_on_signals() as stop:
        done = train_implicit(
            models.learner(total),
            models.reference,
            data,
            folder,
            config,
            max_tokens=max_tokens,
            validation=validation,
            save=lambda path: models.save(path, separator=rows.separator),
            on_step=bar,
            stop=stop,
        )
    finish(done, folder.path, ROLE)


IMPLICIT_COLUMNS = ("loss", "accuracy", "z/right", "z/wrong", "validation/auc")
"""Metrics beside the progress bar."""


def stepwise(config: StepwiseConfig) -> None:
    """Train a PRM on labels of steps; ends with the folder that `load_prm` reads."""
    from prmkit.engines.local.save import frozen_base
    from prmkit.engines.local.stepwise import check_separator, learner_of, load_stepwise
    from prmkit.train.run_folder import RunFolder
    from prmkit.train.stepwise import ROLE, check_labels, encode_solutions, load_solutions, loop_config, train_stepwise
    from prmkit.train.stepwise_validation import validation
    from prmkit.train.stop import stop_on_signals

    solutions = load_solutions(config.data, config, training=True)
    held_out = load_solutions(config.validation, config, training=False)
    check_labels(solutions, config, config.data)
    if held_out:
        check_labels(held_out, config, config.validation)
    loaded = load_stepwise(config, work_dir())
    separator_notes = check_separator(loaded)
    max_tokens = min(config.max_tokens, loaded.context)
    data = encode_solutions(loaded.tokenizer, solutions, config, max_tokens)
    measured = encode_solutions(loaded.tokenizer, held_out, config, max_tokens) if held_out else None
    _say({"": separator_notes, "data: ": data.notes(), "validation: ": measured.notes() if measured else []})
    total = loop_config(config, len(data.rows)).steps
    learner = learner_of(loaded, config.optimizer, total)
    folder = RunFolder(Path(config.run_dir))
    folder.open(resolved_config(config), frozen_base(loaded.model.body))
    say_where_it_stands(folder, total)
    with progress_bar("train stepwise", total, STEPWISE_COLUMNS) as bar, stop_on_signals() as stop:
        evaluate = validation(learner, measured.rows, config, total) if measured else None
        done = train_stepwise(learner, data.rows, folder, config, evaluate=evaluate, on_step=bar, stop=stop)
    finish(done, folder.path, ROLE)


STEPWISE_COLUMNS = ("loss", "balanced_accuracy", "validation/balanced_accuracy", "validation/first_error_f1")
"""Metrics beside the progress bar."""


def outcome(config: OutcomeConfig) -> None:
    """Train an outcome model; ends with the folder that `load_prm` reads."""
    from prmkit.engines.local.save import frozen_base
    from prmkit.engines.local.stepwise import check_separator, learner_of, load_outcome
    from prmkit.train.outcome import check_targets, encode_outcomes, train_outcome, validation
    from prmkit.train.run_folder import RunFolder
    from prmkit.train.stepwise import ROLE, load_solutions, loop_config
    from prmkit.train.stop import stop_on_signals

    solutions = load_solutions(config.data, config, training=True)
    held_out = load_solutions(config.validation, config, training=False)
    check_targets(solutions, config, config.data)
    if held_out:
        check_targets(held_out, config, config.validation)
    loaded = load_outcome(config, work_dir())
    separator_notes = check_separator(loaded)
    max_tokens = min(config.max_tokens, loaded.context)
    data = encode_outcomes(loaded.tokenizer, solutions, config, max_tokens)
    measured = encode_outcomes(loaded.tokenizer, held_out, config, max_tokens) if held_out else None
    _say({"": separator_notes, "data: ": data.notes(), "validation: ": measured.notes() if measured else []})
    total = loop_config(config, len(data.rows)).steps
    learner = learner_of(loaded, config.optimizer, total)
    folder = RunFolder(Path(config.run_dir))
    folder.open(resolved_config(config), frozen_base(loaded.model.body))
    say_where_it_stands(folder, total)
    with progress_bar("train outcome", total, OUTCOME_COLUMNS) as bar, stop_on_signals() as stop:
        evaluate = validation(learner, measured.rows, config, total) if measured else None
        done = train_outcome(learner, data.rows, folder, config, evaluate=evaluate, on_step=bar, stop=stop)
    finish(done, folder.path, ROLE)


OUTCOME_COLUMNS = ("loss", "accuracy", "validation/accuracy", "validation/auc")
"""Metrics beside the progress bar."""


def _say(notes: Mapping[str, Sequence[str]]) -> None:
    for before, sentences in notes.items():
        for sentence in sentences:
            console.print(f"{before}{sentence}", soft_wrap=True)


def finish(done: bool, path: Path, role: str) -> None:
    """The last lines of a run."""
    from prmkit.train.run_folder import RunFolder

    if not done:
        console.print(f"{path}: a checkpoint of the last step is written; the same command goes on from there")
        raise KeyboardInterrupt
    last = max(RunFolder(path).saved_steps())
    console.print(f"model: {path / 'checkpoints' / f'step_{last:06d}' / role}", soft_wrap=True)
