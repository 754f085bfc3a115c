"""The verbs: where configuration, engine and algorithm meet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prmkit.cli.progress import progress_bar
from prmkit.cli.provenance import resolved_config
from prmkit.errors import ConfigError
from prmkit.models.folders import work_dir

if TYPE_CHECKING:
    from prmkit.rl.config import RLConfig
    from prmkit.tasks.task import Task
    from prmkit.train.config import SFTConfig
    from prmkit.train.run_folder import RunFolder

console = Console(markup=False, emoji=False)  # texts of data and paths are no markup


def sft(config: SFTConfig) -> None:
    """Fine-tune; the model of the last checkpoint is what `prmkit rl` starts from."""
    from prmkit.data.chat import read_demonstrations
    from prmkit.engines.local.save import frozen_base
    from prmkit.engines.local.single import sft_learner
    from prmkit.tasks.task import load_task
    from prmkit.train.run_folder import RunFolder
    from prmkit.train.sft import encode_all, train_sft
    from prmkit.train.stop import stop_on_signals

    made = [] if config.data else load_task(config.task, seed=config.seed).demonstrations
    demonstrations = read_demonstrations(config.data) if config.data else made
    if not demonstrations:
        raise ConfigError(f'task "{config.task.name}" has no worked solutions to learn from; set data to a JSONL file')
    learner, tokenizer = sft_learner(config, work_dir())
    model: Any = learner.model
    context = model.causal_lm.config.max_position_embeddings
    encoded = encode_all(tokenizer, demonstrations, min(config.max_tokens, context), config.too_long)
    if len(encoded) < len(demonstrations):
        left_out = len(demonstrations) - len(encoded)
        console.print(
            f"{left_out} of {len(demonstrations)} demonstrations are longer than max_tokens and were left out"
        )
    folder = RunFolder(Path(config.run_dir))
    folder.open(resolved_config(config), frozen_base(model))
    say_where_it_stands(folder, config.steps)
    with progress_bar("sft", config.steps, ("loss", "grad_norm")) as bar, stop_on_signals() as stop:
        done = train_sft(learner, encoded, folder, config, on_step=bar, stop=stop)
    _finish(done, folder.path, f"model: {folder.checkpoints / f'step_{folder.saved_steps()[-1]:06d}' / 'policy'}")


def rl(config: RLConfig) -> None:
    """Online RL; ends with the run's report."""
    from prmkit.engines.local.roles import local_roles
    from prmkit.evaluate.needs import check_fields
    from prmkit.report import write_report
    from prmkit.rl.loop import RunData, train_rl
    from prmkit.tasks.task import load_task
    from prmkit.train.run_folder import RunFolder
    from prmkit.train.stop import stop_on_signals
    from prmkit.verify import ComposedVerifier, make_verifier

    task = load_task(config.task, seed=config.seed)
    _check_prompts(config, task)
    asked = [task.train, task.test[: config.eval_prompts] if config.eval_every else []]
    check_fields(config.verifier, task.train)
    with make_verifier(config.verifier) as verifier:
        if isinstance(verifier, ComposedVerifier):
            verifier.check([prompt for prompts in asked for prompt in prompts])
        local = local_roles(config, verifier, task.splitter, work_dir())
        for prompts in asked:
            local.sampler.check(prompts, config.sampling)
        folder = RunFolder(Path(config.run_dir))
        folder.open(resolved_config(config), local.frozen)
        say_where_it_stands(folder, config.steps)
        data = RunData(train=task.train, test=task.test, first_error=task.first_error)
        with progress_bar("rl", config.steps, RL_COLUMNS) as bar, stop_on_signals() as stop:
            done = train_rl(config, local.roles, data, folder, on_step=bar, stop=stop)
    _finish(done, folder.path, f"report: {write_report([folder.path])}")


RL_COLUMNS = ("reward", "prm/accuracy", "completions/mean_length", "eval/sampled_accuracy")
"""Metrics beside the progress bar."""


def _check_prompts(config: RLConfig, task: Task) -> None:
    if not task.train:
        raise ConfigError("task.train is empty: RL needs training prompts; set task.train to a JSONL file")
    if config.eval_every and not task.test:
        raise ConfigError(f"eval_every = {config.eval_every}, but task.test is empty; set task.test, or eval_every = 0")


def say_where_it_stands(folder: RunFolder, total: int) -> None:
    """A line where the run is as long as asked already, or longer: nothing is trained then."""
    step = max(folder.saved_steps(), default=0)
    if step < total:
        return
    longer = f", which is more than the {total} asked for" if step > total else f" of {total}"
    console.print(
        f"{folder.path}: already at step {step}{longer}; nothing is trained. To go on, ask for more: "
        f"--steps {step + max(1, total)}; to begin anew, give another --run-dir",
        soft_wrap=True,
    )


def _finish(done: bool, path: Path, last_line: str) -> None:
    if not done:
        console.print(f"{path}: a checkpoint of the last step is written; the same command goes on from there")
        raise KeyboardInterrupt
    console.print(last_line, soft_wrap=True)
