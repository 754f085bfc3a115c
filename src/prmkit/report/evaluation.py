"""A page about a result of `prmkit eval`: the numbers, what made them, and every answer with its verdict and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prmkit import __version__
from prmkit.errors import ConfigError
from prmkit.evaluate.names import model_title
from prmkit.evaluate.paired import read_result
from prmkit.report.page import flatten, render_page, write_aside

MAX_QUESTIONS = 2000
MAX_CHARACTERS = 2_000_000
MAX_RESPONSE = 6000
"""Bounds that keep a page under about 4 MB however many and long the answers are."""
MAX_CATEGORY_ROWS = 60
SCRIPTS = ("dom.js", "evaluation.js")


def write_evaluation_report(result: Path, out: Path | None = None) -> Path:
    """Write the page about a result file; by default beside it, ending in .html. Returns the page's path.

    Numbers count all questions; answers are shown until the page is full, first questions first. Raises DataError for a file
    that is no result, ConfigError for an `out` that does not end in .html.
    """
    target = result.with_suffix(".html") if out is None else out
    if target.suffix != ".html" or target.is_dir():
        raise ConfigError(f"out = {str(target)!r}: the page is one file; give a name that ends in .html")
    data = evaluation_data(read_result(result), result.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    styles = ("report.css", "scored.css", "evaluation.css")
    write_aside(target, render_page("evaluation.html.j2", data, SCRIPTS, styles=styles))
    return target


def evaluation_data(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All that the page shows, as JSON values."""
    shown: list[dict[str, Any]] = []
    characters = 0
    for question in result["questions"][:MAX_QUESTIONS]:
        embedded = _question(question)
        characters += len(embedded["question"]) + sum(
            len(member["text"]) + len(member["why"]) for member in embedded["responses"]
        )
        if shown and characters > MAX_CHARACTERS:
            break
        shown.append(embedded)
    task, config = result.get("task", {}), result["config"]
    return {
        "prmkit": __version__,
        "name": name,
        "title": task.get("title") or task.get("name") or config["task"]["name"],
        "model": model_title(config["model"], result.get("model", {})),
        "headline": _headline(result),
        "at_k": _at_k(result),
        "categories": _categories(result.get("categories", [])),
        "verdicts": result["verdicts"],
        "truncation": result.get("truncation", {}),
        "template": task.get("template"),
        "facts": _facts(result),
        "config": {key: str(value) for key, value in flatten(config).items()},
        "num_questions": result["num_questions"],
        "questions": shown,
    }


def verdict_of(response: Mapping[str, Any]) -> str:
    """`right` (reward 1), `wrong` (0), `part` (between), or `undecided`."""
    if response["finish"] == "error" or response["reward"] is None:
        return "undecided"
    return {1.0: "right", 0.0: "wrong"}.get(float(response["reward"]), "part")


def why(response: Mapping[str, Any], reference: str) -> str:
    """One sentence on how the verdict came about."""
    answer, detail = response.get("extracted"), response["detail"]
    if response["finish"] == "error":
        return f"the sampler did not finish this response{f': {detail}' if detail else ''}"
    if response["status"] != "ok":
        return f"{response['status']}: {detail or 'no reason was given'}"
    if detail:
        return str(detail)
    if answer is None:
        return f"no final answer was found; the reference is {reference}" if reference else "decided without a detail"
    return f"{answer} {'equals' if response['reward'] == 1 else 'does not equal'} the reference {reference}"


def _headline(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    accuracy = result["accuracy"]
    rows = [{"name": f"sampled, avg@{result['config']['samples']}", **accuracy["sampled"]}]
    if accuracy["greedy"]:
        rows.append({"name": "greedy", **accuracy["greedy"]})
    return rows


def _at_k(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each k, with pass@k and majority@k where there are any."""
    names = ("pass_at_k", "majority_at_k")
    sizes = dict.fromkeys(k for name in names for k in result.get(name, {}))
    rows = [{"k": k, **{name: result.get(name, {}).get(k) for name in names}} for k in sizes]
    return rows if len(rows) > 1 else []


def _categories(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tables by category, each with its rows up to the bound."""
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row["category"], []).append(row)
    return [
        {
            "name": name,
            "rows": found[:MAX_CATEGORY_ROWS],
            "more": max(0, len(found) - MAX_CATEGORY_ROWS),
            "greedy": any(row["greedy"] for row in found),
        }
        for name, found in tables.items()
    ]


def _facts(result: Mapping[str, Any]) -> dict[str, str]:
    """What made the number."""
    task, config, model = result.get("task", {}), result["config"], result.get("model", {})
    named = {
        "task": f"{task.get('name', config['task']['name'])} version {task.get('version', '?')}",
        "part": task.get("part"),
        "data": task.get("data"),
        "data sha256": str(result.get("data_sha256", ""))[:16],
        "template": (task.get("template") or {}).get("name"),
        "template sha256": str((task.get("template") or {}).get("sha256", ""))[:16],
        "server": model.get("url"),
        "weights sha256": str(model.get("weights_sha256", ""))[:16],
        "seed": result["seed"],
        "temperature": config["sampling"]["temperature"],
        "top_p": config["sampling"]["top_p"],
        "max_tokens": config["sampling"]["max_tokens"],
        "commit": result.get("commit"),
        **result.get("versions", {}),
    }
    return {key: str(value) for key, value in named.items() if value not in (None, "")}


def _question(question: Mapping[str, Any]) -> dict[str, Any]:
    greedy = [] if question["greedy"] is None else [("greedy", question["greedy"])]
    members = [*greedy, *((f"sample {i}", member) for i, member in enumerate(question["sampled"], 1))]
    return {
        "id": question["prompt_id"],
        "question": _short(question.get("question", question["prompt_id"])),
        "reference": _short(question["answer"]),
        "categories": question.get("categories", {}),
        "responses": [_response(kind, member, question["answer"]) for kind, member in members],
    }


def _response(kind: str, response: Mapping[str, Any], reference: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "text": _short(response["text"]),
        "verdict": verdict_of(response),
        "reward": response["reward"],
        "why": _short(why(response, reference)),
        "tokens": response["num_tokens"],
        "cut": response["finish"] == "length",
    }


def _short(text: str) -> str:
    """The text, or its two ends where it is very long: the answer stands at the end."""
    if len(text) <= MAX_RESPONSE:
        return text
    half = MAX_RESPONSE // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
