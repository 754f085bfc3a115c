"""Best-of-N pools: several responses to one question in a row, with verdicts and sometimes a reward model's scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from prmkit.data.formats.base import (
    Fields,
    Format,
    Reader,
    ReadOptions,
    Row,
    WriteOptions,
    Writer,
    check_counts,
    has,
    list_field,
    prompt_of,
    rest,
    shown,
    texts_field,
    truth_field,
    user_text,
)
from prmkit.data.formats.outcomes import WHOLE, needs_outcome, same_prompt
from prmkit.data.formats.splitting import split_text
from prmkit.data.jsonl import id_field, text_field
from prmkit.data.types import Prompt, Solution
from prmkit.errors import DataError

_GSM8K_ANSWER = re.compile(r"(?:^|\n)A: *(?P<answer>[^\n]*?) *\n*\Z")
RM_KEYS = ("question", "gt", "code", "pred", "score", "pred_score")


def _systems_reader(options: ReadOptions) -> Reader:
    """`{"question", "ground_truth", "175b_verification": {"solution", "is_correct"}, ...}`, OpenAI's GSM8K model solutions."""

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        gold = text_field(fields, "ground_truth", where)
        names = [name for name, value in fields.items() if _is_verdict(value)]
        meta = rest(fields, "question", *names)
        prompt = prompt_of(text_field(fields, "question", where), answer=_after_a(gold) or "", meta=meta)
        found = []
        for name in names:
            here = f"{where}: {name}"
            steps, separator = split_text(text_field(fields[name], "solution", here), options.split or "line")
            found.append(
                Solution(
                    id=f"{row.name}/{name}",
                    prompt=prompt,
                    steps=steps,
                    separator=separator,
                    outcome=float(truth_field(fields[name], "is_correct", here)),
                    answer=_after_a(steps[-1]),
                    meta={"model": name},
                )
            )
        return found

    return read


def _is_verdict(value: object) -> bool:
    return isinstance(value, dict) and "is_correct" in value and "solution" in value


def _after_a(text: str) -> str | None:
    found = _GSM8K_ANSWER.search(text)
    return found["answer"] if found else None


def _systems_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        prompt, name = solutions[0].prompt, "gsm8k_model_solutions"
        return {
            "question": user_text(solutions[0], name),
            "ground_truth": f"A: {prompt.answer}",
            **rest(prompt.meta, "question"),
            **{
                model_of(solution, name): {"is_correct": needs_outcome(solution, name), "solution": solution.text}
                for solution in solutions
            },
        }

    return write


def model_of(solution: Solution, name: str) -> str:
    """Which model wrote it."""
    model = solution.meta.get("model")
    if not isinstance(model, str):
        raise DataError(f"solution {solution.id!r}: {name} rows name the model of each solution; set meta['model']")
    return model


def _rm_reader(options: ReadOptions) -> Reader:
    """`{"idx", "question", "gt", "code": [response, ...], "pred": [...], "score": [bool, ...], "pred_score": [[reward], ...]}`:
    the outputs of Qwen2.5-Math's evaluation with a reward model. Its score is `meta["reward"]`."""

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        texts = texts_field(fields, "code", where)
        columns = {key: list_field(fields, key, where) for key in ("pred", "score", "pred_score") if key in fields}
        for key, values in columns.items():
            check_counts(values, texts, where, f"values of {key!r}")
        prompt = prompt_of(
            text_field(fields, "question", where), answer=text_field(fields, "gt", where), meta=rest(fields, *RM_KEYS)
        )
        found = []
        for k, text in enumerate(texts):
            steps, separator = split_text(text, options.split or "paragraph")
            found.append(
                Solution(
                    id=f"{row.name}/{k}",
                    prompt=prompt,
                    steps=steps,
                    separator=separator,
                    outcome=_score(columns["score"][k], where, k),
                    answer=_answer(columns["pred"][k], where, k),
                    meta={"reward": _reward(columns["pred_score"][k], where, k)} if "pred_score" in columns else {},
                )
            )
        return found

    return read


def _score(value: object, where: str, k: int) -> float:
    if not isinstance(value, bool):
        raise DataError(f"{where}: score[{k}] is {shown(value)}, expected true or false")
    return float(value)


def _answer(value: object, where: str, k: int) -> str | None:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: the answer of response {k + 1} is {shown(value)}, expected a text or null")
    return value


def _reward(value: object, where: str, k: int) -> float:
    number = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number:
        raise DataError(f"{where}: pred_score[{k}] is {shown(value)}, expected a number or a list of one")
    return float(number)


def _rm_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        prompt, name = solutions[0].prompt, "math_bestof_rm"
        rewards = [solution.meta.get("reward") for solution in solutions]
        if any(reward is None for reward in rewards) and any(reward is not None for reward in rewards):
            raise DataError(f"prompt {prompt.id!r}: only some solutions have meta['reward']; {name} needs all or none")
        return {
            "question": user_text(solutions[0], name),
            "gt": _gold(prompt, name),
            "code": [solution.text for solution in solutions],
            "pred": [solution.answer for solution in solutions],
            "score": [needs_outcome(solution, name) for solution in solutions],
            **({"pred_score": [[reward] for reward in rewards]} if rewards[0] is not None else {}),
            **rest(prompt.meta, *RM_KEYS),
        }

    return write


def _gold(prompt: Prompt, name: str) -> str:
    if not prompt.answer:
        raise DataError(f"prompt {prompt.id!r}: {name} rows need the reference answer, and none is known")
    return prompt.answer


def _candidates_reader(options: ReadOptions) -> Reader:
    """`{"id", "question", "gold", "candidates": [{"model", "text", "answer", "correct" or "string_match"}, ...]}` (ZeroEval).

    `string_match` only proves an answer right, so an answer that does not match has no outcome until a verifier decides.
    """

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        name = id_field(fields, where, row.name)
        meta = {} if isinstance(fields.get("id"), str) else {k: v for k, v in fields.items() if k == "id"}
        prompt = prompt_of(
            text_field(fields, "question", where),
            id=name,
            answer=text_field(fields, "gold", where),
            meta=meta | rest(fields, "id", "question", "gold", "candidates"),
        )
        found: list[Solution] = []
        candidates, ids = list_field(fields, "candidates", where), set[str]()
        if not candidates:
            raise DataError(f"{where}: field 'candidates' is empty; a question needs at least one, or remove the line")
        for k, candidate in enumerate(candidates):
            here = f"{where}: candidates[{k}]"
            if not isinstance(candidate, dict):
                raise DataError(f"{here} is {shown(candidate)}, expected an object")
            steps, separator = split_text(text_field(candidate, "text", here), options.split or "auto")
            id = f"{name}/{candidate.get('model', k)}"
            id = f"{id}/{k}" if id in ids else id  # several samples of one model
            ids.add(id)
            found.append(
                Solution(
                    id=id,
                    prompt=prompt,
                    steps=steps,
                    separator=separator,
                    outcome=_candidate_outcome(candidate, here),
                    answer=_answer(candidate.get("answer"), where, k),
                    meta=rest(candidate, "text", "answer", "correct"),
                )
            )
        return found

    return read


def _candidate_outcome(candidate: Fields, here: str) -> float | None:
    if "correct" in candidate:
        return float(truth_field(candidate, "correct", here))
    return 1.0 if truth_field(candidate, "string_match", here) else None


def _candidates_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        prompt, name = solutions[0].prompt, "candidates"
        candidates = []
        for solution in solutions:
            known = {} if "string_match" in solution.meta else {"correct": needs_outcome(solution, name)}
            candidates.append(
                {"model": model_of(solution, name), "text": solution.text, "answer": solution.answer, **known}
                | rest(solution.meta, "model")
            )
        return {
            "id": prompt.id,
            "question": user_text(solutions[0], name),
            "gold": _gold(prompt, name),
            "candidates": candidates,
            **rest(prompt.meta, "question", "gold", "candidates"),
        }

    return write


def _is_systems(fields: Fields) -> bool:
    return "question" in fields and "ground_truth" in fields and any(_is_verdict(value) for value in fields.values())


KEEPS = WHOLE | {"outcome", "answer"}
GSM8K_MODEL_SOLUTIONS = Format(
    name="gsm8k_model_solutions",
    fits=_is_systems,
    reader=_systems_reader,
    writer=_systems_writer,
    keeps=WHOLE | {"outcome"},
    group=same_prompt,
)
MATH_BESTOF_RM = Format(
    name="math_bestof_rm",
    fits=has("question", "gt", "code", "pred", "score"),
    reader=_rm_reader,
    writer=_rm_writer,
    keeps=KEEPS,
    group=same_prompt,
)
CANDIDATES = Format(
    name="candidates",
    fits=has("question", "gold", "candidates"),
    reader=_candidates_reader,
    writer=_candidates_writer,
    keeps=KEEPS,
    group=same_prompt,
)
