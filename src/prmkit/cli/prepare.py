"""`prmkit data prepare`: question files into prompts for RL, and what became of every row."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from prmkit.config import ModelConfig
    from prmkit.curate.config import PrepareConfig
    from prmkit.curate.run import Prepared
    from prmkit.curate.sampling import Model, OnProgress

PROGRESS_LINES = 20


def prepare(config: PrepareConfig) -> None:
    """Prepare, print the counts, and say how RL reads the result."""
    from prmkit.cli.provenance import resolved_config
    from prmkit.curate.read import read_records
    from prmkit.curate.run import check_out, write_folder
    from prmkit.curate.run import prepare as run
    from prmkit.curate.sampling import ResponseCache
    from prmkit.curate.steps import Tools, make_steps
    from prmkit.verify import ComposedVerifier, make_verifier

    console = Console(soft_wrap=True, highlight=False, markup=False)
    out = check_out(config)
    records, unread = read_records(config)
    path = Path(config.cache or f"{config.out.rstrip('/')}.samples.sqlite")
    with make_verifier(config.verifier) as verifier:
        tools = Tools(
            verifier=verifier,
            model=lambda model: _open_model(model, config.seed),
            cache=cache(lambda: ResponseCache(path)),
            on_progress=lambda step: _progress(console, step),
        )
        if isinstance(verifier, ComposedVerifier):
            verifier.check([record.prompt() for record in records])
        steps = make_steps(config, tools)
        done = run(
            records, unread, steps, lambda count: console.print(f"{count.name}: {count.kept} of {count.records_in}")
        )
    write_folder(out, done, resolved_config(config), config)
    _print(console, done)
    if done.samples:
        console.print(
            f"sampled responses: {path} (a run with other bounds asks nothing again; delete it when you are done)"
        )
    qa = any(record.judge == "qa" for record in done.kept)
    name = out / "task.toml" if qa else "math"
    console.print(f"written: {out}")
    console.print(f"next: prmkit rl --task.name {name} --task.train {out / 'prompts.jsonl'}")


def _open_model(model: ModelConfig, seed: int) -> Model:
    from prmkit.cli.evaluate import model_identity
    from prmkit.curate.sampling import Model
    from prmkit.evaluate.config import EvalConfig
    from prmkit.models.folders import work_dir

    identity = model_identity(EvalConfig(model=model, seed=seed))
    if model.url:
        from prmkit.engines.url import URLSampler

        sampler = URLSampler(model)
        identity["extra"] = model.server.extra
        return Model(sampler=sampler, identity=identity, name=sampler.name)
    from prmkit.engines.local.single import eval_sampler

    identity |= {"dtype": model.dtype, "device": model.device}
    identity.pop("path")
    return Model(sampler=eval_sampler(model, work_dir(), seed)[0], identity=identity, name=model.path)


def _progress(console: Console, step: str) -> OnProgress:
    """A line now and then: how many questions have their responses."""
    last = [-1]

    def show(done: int, total: int) -> None:
        part = done * PROGRESS_LINES // max(total, 1)
        if part != last[0]:
            last[0] = part
            console.print(f"{step}: responses to {done} of {total} questions")

    return show


def _print(console: Console, done: Prepared) -> None:
    table = Table()
    for column in ("step", "in", "kept", "dropped", "why"):
        table.add_column(column, justify="left" if column in ("step", "why") else "right")
    if done.unread:
        kept = done.rows - len(done.unread)
        table.add_row("read", str(done.rows), str(kept), str(len(done.unread)), f"unreadable {len(done.unread)}")
    for count in done.counts:
        why = ", ".join(f"{reason} {number}" for reason, number in count.dropped.items())
        notes = "; ".join(f"{note}: {number}" for note, number in count.notes.items())
        dropped = str(count.dropped.total())
        table.add_row(
            count.name, str(count.records_in), str(count.kept), dropped, "\n".join(filter(None, (why, notes)))
        )
    console.print(table)
    for count in done.counts:
        if count.warning:
            console.print(f"{count.name}: {count.warning}", style="yellow")
