"""The tables of verifiers and sandbox in the docs are what the result files say, and the example beside them runs."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from test_docs import DOCS, ROOT, blocks, script

tables = script("scripts/measured_tables.py")
RESULTS = ROOT / "benchmarks" / "results"


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(("page", "name"), [("verifiers.md", "verifiers"), ("code_verifier.md", "sandbox")])
def test_the_page_says_what_was_measured(page: str, name: str) -> None:
    shown = (DOCS / page).read_text(encoding="utf-8")
    assert tables.PAGES[page][name](result(name)) in shown, "run: python scripts/measured_tables.py"


def rows(text: str, first: str) -> list[list[str]]:
    """Cells of the rows that begin so."""
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in row] for row in found]


def test_accuracies_are_shares_of_all_cases() -> None:
    measured = copy.deepcopy(result("verifiers"))
    measured["known_cases"] |= {
        "cases": 8,
        "sides": {"prmkit": {"right": 5, "false_accepts": 1, "false_rejects": 2, "undecided": 0}},
    }
    measured["hostile"] = {"responses": 9, "verdicts": {"ok": 4, "timeout": 3}, "accepted": ["x"]}
    text = tables.PAGES["verifiers.md"]["verifiers"](measured)
    assert rows(text, "prmkit |")[0] == ["prmkit", "62.5%", "1", "2", "0"]
    assert "9 hostile responses: 4 ok, 3 timeout; 1 accepted, 2 without a verdict." in text


def test_each_difference_from_a_file_is_a_row_and_says_who_is_wrong() -> None:
    measured = copy.deepcopy(result("verifiers"))
    differing = measured["model_outputs"]["differs_from_label"]
    assert {row["id"] for row in differing} <= set(
        json.loads((ROOT / "benchmarks" / "labels_by_hand.json").read_text())
    )
    differing.append({"id": "new|one", "reference": "5", "answer": "a `b`\nc" * 30, "label": True, "ours": None})
    text = tables.PAGES["verifiers.md"]["verifiers"](measured)
    (row,) = rows(text, "`new")
    assert row[0] == r"`new\|one`"
    assert row[3:6] == ["right", "undecided", "not looked at"]
    assert len(row) == 7


def test_an_escape_stands_out() -> None:
    measured = copy.deepcopy(result("sandbox"))
    measured["escapes"][0] |= {"escapes": ["test 1 passed", "it wrote outside"], "status": "passed"}
    text = tables.PAGES["code_verifier.md"]["sandbox"](measured)
    found = [row for row in text.splitlines() if row.startswith("| ")][1:]
    assert len(found) == len(measured["escapes"])
    assert found[0].split("|")[2].strip() == "**test 1 passed; it wrote outside**"
    assert "**" not in "".join(found[1:])


def test_the_example_of_the_page_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(DOCS / "verifiers.md", "python")
    exec(compile(block, "verifiers.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip() == re.findall(r"print\(.*#\s*(.*)$", block, flags=re.MULTILINE)[0]


def test_what_reading_a_prompt_once_spares_is_what_was_measured() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    measured = result("step_profile")["result"]["prompts"]
    for tokens in sorted({name.split()[0] for name in measured}, key=int):
        ratios = [measured[f"{tokens} {regime}"]["ratio"] for regime in ("fixed", "natural")]
        cells = " | ".join(f"{r['median']:.2f} [{r['min']:.2f}, {r['max']:.2f}]" for r in ratios)
        assert f"\n| {tokens} tokens | {cells} |\n" in page, tokens
