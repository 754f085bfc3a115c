"""`prmkit eval`: a model on an evaluation set, with a record that a killed run goes on from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prmkit.cli.progress import progress_bar
from prmkit.errors import ConfigError

if TYPE_CHECKING:
    from prmkit.data.types import Prompt
    from prmkit.evaluate.config import EvalConfig
    from prmkit.evaluate.questions import Asked
    from prmkit.evaluate.record import Record
    from prmkit.evaluate.responses import Question
    from prmkit.evaluate.run import EvaluationResult
    from prmkit.protocols import Sampler, Verifier

console = Console(markup=False, emoji=False)  # texts of data and paths are no markup

FREE = (
    "out",
    "html",
    "verifier.workers",
    "verifier.recycle_after",
    "verifier.cache",
    "model.server.key_env",
    "model.server.concurrency",
    "model.server.timeout_s",
    "model.server.attempts",
    "model.server.wait_s",
    "model.server.max_wait_s",
)
"""Keys that change no number, so that a run may go on with others; so does `batch_size`, where a server answers."""


def evaluate(config: EvalConfig) -> None:
    """Accuracy of a model on a task's test questions, as tables, and if asked as a JSON file and a page."""
    from prmkit.cli.evaluate_tables import notes, tables
    from prmkit.evaluate.questions import load_questions
    from prmkit.evaluate.record import Record
    from prmkit.evaluate.run import write_result
    from prmkit.evaluate.summary import result_json

    asked = load_questions(config)
    for note in asked.notes:
        console.print(note, style="yellow", soft_wrap=True)
    record = Record(out=Path(config.out)) if config.out else None
    result, chat_template, more = _evaluated(config, asked, record)
    found = result_json(
        config,
        result,
        chat_template,
        task=asked.about,
        written_by=record.written_by() if record else None,
        more=more,
    )
    if config.out:
        write_result(Path(config.out), found)
    for table in tables(result, found):
        console.print(table)
    for note in notes(found):
        console.print(note, style="yellow", soft_wrap=True)
    if config.out:
        console.print(f"written: {config.out}", soft_wrap=True)
    if config.html:
        from prmkit.report.evaluation import write_evaluation_report

        console.print(f"page: {write_evaluation_report(Path(config.out), Path(config.html))}", soft_wrap=True)


def _evaluated(config: EvalConfig, asked: Asked, record: Record | None) -> tuple[EvaluationResult, str, dict[str, Any]]:
    """The judged questions, the chat template that asked them, and what else a result says of the model."""
    from prmkit.evaluate.needs import check_fields
    from prmkit.evaluate.run import data_hash, evaluate_questions, git_commit, versions
    from prmkit.verify import ComposedVerifier, make_verifier, verifier_identity

    check_fields(config.verifier, asked.prompts)
    sampler, chat_template = _sampler(config, asked.prompts)
    model, judging = model_identity(config), verifier_identity(config.verifier, asked.prompts)
    done: dict[str, Question] = {}
    written_by = {**versions(local=not config.model.url, verifier=judging), "commit": git_commit()}
    if record:
        identity = {
            "config": identity_config(config),
            "task": asked.about,
            "model": model,
            "verifier": judging,
            "data_sha256": data_hash(asked.prompts),
        }
        done = record.open(asked.prompts, identity, written_by)
    with make_verifier(config.verifier) as verifier:
        if isinstance(verifier, ComposedVerifier):
            verifier.check(asked.prompts)
        if record:
            done = _judged_again(verifier, record, done, config.batch_size, written_by)
        with _progress(len(asked.prompts), record, done) as on_questions:
            result = evaluate_questions(
                sampler,
                verifier,
                asked.prompts,
                samples=config.samples,
                params=config.sampling,
                seed=config.seed,
                greedy=config.greedy,
                batch_size=config.batch_size,
                answer_of=asked.answer_of,
                done=done,
                on_questions=on_questions,
            )
    return result, chat_template, {"model": model, "verifier": judging, "left_out": asked.left_out}


def _judged_again(
    verifier: Verifier, record: Record, done: dict[str, Question], batch_size: int, written_by: dict[str, Any]
) -> dict[str, Question]:
    """What is on record, after judging again what the verifier broke on or was late with; the record gets what is new."""
    from prmkit.evaluate.again import has_open, judge_again

    still_open = [question for question in done.values() if has_open(question)]
    if still_open:
        console.print(
            f"{len(still_open)} questions on record are judged again: a verdict was an error or a timeout",
            soft_wrap=True,
        )
    for start in range(0, len(still_open), batch_size):
        part = still_open[start : start + batch_size]
        judged = judge_again(verifier, part)
        if judged != part:
            record.replace(done, judged, written_by, judged_again=len(still_open))
            done = {**done, **{question.prompt.id: question for question in judged}}
    return done


def _sampler(config: EvalConfig, prompts: Sequence[Prompt]) -> tuple[Sampler, str]:
    """What answers, and its chat template; a server keeps its own to itself."""
    from prmkit.models.folders import work_dir

    if config.model.url:
        from prmkit.engines.url import URLSampler

        return URLSampler(config.model), ""
    from prmkit.engines.local.single import eval_sampler

    sampler, tokenizer = eval_sampler(config.model, work_dir(), config.seed)
    _check_characters(config, tokenizer, prompts)
    return sampler, str(getattr(tokenizer, "chat_template", "") or "")


def _check_characters(config: EvalConfig, tokenizer: Any, prompts: Sequence[Prompt]) -> None:
    """Raises ConfigError where the model is `tiny`, or was trained from it, and a question has characters it does not know."""
    from prmkit.models.tiny import CHARACTERS, EOS, PAD

    if set(tokenizer.get_vocab()) != {PAD, EOS, *CHARACTERS}:
        return
    for prompt in prompts:
        unknown = next((c for message in prompt.messages for c in message.content if c not in CHARACTERS), None)
        if unknown is not None:
            raise ConfigError(
                f'model.path = "{config.model.path}": `tiny` knows the characters of the task `arithmetic` only '
                f"({CHARACTERS!r}), and the question {prompt.id!r} has {unknown!r}; set model.path to a model with a tokenizer "
                "for text (a folder, or smollm2), or model.url to a server"
            )


@contextmanager
def _progress(total: int, record: Record | None, done: dict[str, Question]) -> Iterator[Any]:
    """What to call with newly judged questions: they are recorded, then shown."""
    from statistics import fmean

    from prmkit.evaluate.responses import rewards

    means = [fmean(values) for question in done.values() if (values := rewards(question.sampled))]
    num_done = len(done)
    if done:
        console.print(f"{len(done)} of {total} questions are judged already", soft_wrap=True)
    with progress_bar("eval", total, ("accuracy",)) as bar:

        def on_questions(questions: Sequence[Question]) -> None:
            nonlocal num_done
            if not questions:
                return
            if record:  # what could not be sampled is asked again when the run goes on
                record.add(question for question in questions if question.is_sampled)
            means.extend(fmean(values) for question in questions if (values := rewards(question.sampled)))
            num_done += len(questions)
            bar(num_done, {"accuracy": fmean(means)} if means else {})

        yield on_questions


def identity_config(config: EvalConfig) -> dict[str, Any]:
    """The configuration less what does not change a number."""
    from prmkit.evaluate.summary import config_json

    values = config_json(config)
    for key in (*FREE, *(["batch_size"] if config.model.url else [])):
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section[part]
        section.pop(name)
    return values


def model_identity(config: EvalConfig) -> dict[str, Any]:
    """Which weights: their fingerprint for a folder, address and name for a server."""
    if config.model.url:
        from prmkit.engines.url import URLSampler

        return {"url": config.model.url, "name": URLSampler(config.model).name}
    from prmkit.evaluate.score_files import model_fingerprint
    from prmkit.models.folders import work_dir
    from prmkit.models.load import resolve_model_path

    folder = resolve_model_path(config.model.path, work_dir(), config.seed)
    return {"path": config.model.path, "weights_sha256": model_fingerprint(folder)}
