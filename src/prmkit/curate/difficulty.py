"""Step `difficulty`: how often the model is right, by sampling.

PRIME filters by this online, in every RL step, and not before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from prmkit.curate.config import DifficultyConfig
from prmkit.curate.record import Dropped, Outcome, Record
from prmkit.curate.sampling import Model, OnProgress, ResponseCache, Sampled, failed, refuse_failures, sample_all
from prmkit.data.types import Prompt, Verdict
from prmkit.protocols import Verifier
from prmkit.tasks.library import Template, load_template

_ROUNDING = 1e-9


def asked(record: Record, template: Template) -> Prompt:
    """The record as a prompt; its own turns where it has them, else by the template."""
    return replace(record.prompt(), messages=record.messages or template.messages(record.question))


def difficulty_step(
    config: DifficultyConfig,
    model: Callable[[], Model],
    cache: ResponseCache,
    verifier: Verifier,
    *,
    seed: int,
    on_progress: OnProgress,
) -> Callable[[Sequence[Record]], Outcome]:
    """The step. Raises ConfigError for a template that is not there."""
    template = load_template(config.template)

    def run(records: Sequence[Record]) -> Outcome:
        if not records:
            return Outcome(kept=[])
        answering = model()
        prompts = [asked(record, template) for record in records]
        groups = sample_all(
            answering,
            cache,
            prompts,
            n=config.samples,
            params=config.sampling,
            seed=seed,
            batch_size=config.batch_size,
            failures=config.failures,
            on_progress=on_progress,
        )
        pairs = [
            (prompt, r.text) for prompt, group in zip(prompts, groups, strict=True) for r in group if not r.failure
        ]
        verdicts = iter(verifier.verify(pairs))
        kept: list[Record] = []
        dropped: list[Dropped] = []
        samples = []
        for record, group in zip(records, groups, strict=True):
            judged = [(response, next(verdicts)) for response in group if not response.failure]
            samples += [_line(record, answering.name, response, verdict) for response, verdict in judged]
            result = failed(record, group) or _judged(record, [verdict for _, verdict in judged], config)
            kept.append(result) if isinstance(result, Record) else dropped.append(result)
        failures = [drop for drop in dropped if drop.reason == "not_sampled"]
        refuse_failures("difficulty", config.failures, failures, len(records))
        notes = _histogram([*kept, *(drop.record for drop in dropped)])
        notes["responses cut off at max_tokens"] = sum(line["finish"] == "length" for line in samples)
        return Outcome(kept=kept, dropped=dropped, notes=notes, samples=samples)

    return run


def _judged(record: Record, verdicts: Sequence[Verdict], config: DifficultyConfig) -> Record | Dropped:
    """Accuracy is the mean reward of the decided responses; an undecided one is neither right nor wrong."""
    rewards = [verdict.reward for verdict in verdicts if verdict.reward is not None]
    if not rewards or len(rewards) < config.decided * len(verdicts) - _ROUNDING:
        undecided = next(verdict for verdict in verdicts if verdict.reward is None)
        detail = (
            f"{len(rewards)} of {len(verdicts)} responses were decided; one is {undecided.status}: {undecided.detail}"
        )
        return Dropped(record=record, reason="undecided", detail=detail)
    accuracy = sum(rewards) / len(rewards)
    found = {"accuracy": accuracy, "decided": len(rewards), "samples": len(verdicts)}
    low, high = config.bounds
    record = record.with_found("difficulty", found)
    if accuracy < low - _ROUNDING:
        return Dropped(record=record, reason="too_hard", detail=f"accuracy {accuracy:.3f} is below {low:g}")
    if accuracy > high + _ROUNDING:
        return Dropped(record=record, reason="too_easy", detail=f"accuracy {accuracy:.3f} is above {high:g}")
    return record


def _histogram(records: Sequence[Record]) -> Counter[str]:
    """How many questions have which accuracy."""
    found = [record.found["difficulty"]["accuracy"] for record in records if "difficulty" in record.found]
    return Counter(f"accuracy {accuracy:.3f}" for accuracy in sorted(found))


def _line(record: Record, name: str, response: Sampled, verdict: Verdict) -> dict[str, object]:
    return {
        "id": record.id,
        "step": "difficulty",
        "model": name,
        "response": response.text,
        "finish": response.finish,
        "status": verdict.status,
        "reward": verdict.reward,
    }
