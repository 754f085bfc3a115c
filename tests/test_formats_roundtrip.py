"""Round trips: rows come back as they were, solutions as far as a format promises, and nothing is changed without a word."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formats_read import ALIASES, NAMED, WRITTEN

from prmkit.data.formats import FORMATS, ReadOptions, WriteOptions, read_solutions, write_solutions
from prmkit.data.formats.base import Role
from prmkit.data.formats.roundtrip import field, stripped
from prmkit.data.formats.splitting import split_text
from prmkit.data.types import Message, Prompt, Solution
from prmkit.errors import DataError

QUICK = settings(
    max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
LOSSLESS = ReadOptions(keep_alternatives=True, outside="ignore")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def through(solutions: list[Solution], name: str, **options: Any) -> list[Solution]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_solutions(path, solutions, name, options=WriteOptions(**options))
        return read_solutions(path, format=name)


@pytest.mark.parametrize("stem", NAMED)
def test_published_rows_come_back_as_they_were(stem: str, tmp_path: Path) -> None:
    name = ALIASES.get(stem, stem)
    solutions = read_solutions(NAMED[stem], options=LOSSLESS)
    write_solutions(tmp_path / "same.jsonl", solutions, name)
    assert rows_of(tmp_path / "same.jsonl") == rows_of(NAMED[stem])


@pytest.mark.parametrize("stem", NAMED)
def test_published_rows_come_back_through_prmkits_own_format(stem: str, tmp_path: Path) -> None:
    name = ALIASES.get(stem, stem)
    solutions = read_solutions(NAMED[stem], options=LOSSLESS)
    write_solutions(tmp_path / "own.jsonl", solutions)
    assert read_solutions(tmp_path / "own.jsonl") == solutions
    write_solutions(tmp_path / "back.jsonl", read_solutions(tmp_path / "own.jsonl"), name)
    assert rows_of(tmp_path / "back.jsonl") == rows_of(NAMED[stem])


ROUND = {name: row for name, row in WRITTEN.items() if name != "openr"} | {
    "ultrainteract": WRITTEN["ultrainteract"] | {"correctness": [True, False]}
}


@pytest.mark.parametrize("name", [name for name in ROUND if not FORMATS[name].made_by])
def test_rows_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    row = ROUND[name] | {"difficulty": 3}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    write_solutions(tmp_path / "same.jsonl", read_solutions(path), name)
    assert rows_of(tmp_path / "same.jsonl") == [row]


def test_openr_rows_come_back_with_the_step_tag_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(WRITTEN["openr"]) + "\n")
    options = WriteOptions(placeholder="\n\n\n\n\n")
    write_solutions(tmp_path / "same.jsonl", read_solutions(path), "openr", options=options)
    assert rows_of(tmp_path / "same.jsonl") == [WRITTEN["openr"]]


# Texts that collide with what formats use as marks.
pieces = st.sampled_from(
    ["ки", "Step 1:", "Step 2: ", "\n\n", "\n", " ", "+", "-", "# Answer\n\n5", "a", "é", "\u2028", '"', "<extra_0>"]
)
texts = st.lists(pieces, min_size=1, max_size=5).map("".join).filter(lambda text: text.strip())
labels = st.sampled_from([None, "neutral", 0.0, 1.0, 0.25, 1 / 3])
metas: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"n": 1, "deep": {"list": [None, True, "é"]}}, {"prompt": "p", "label": [1]}, {"preferred": True}]
)
question = st.tuples(st.builds(Message, role=st.just("user"), content=texts.map(str.strip).filter(bool)))
turns = st.sampled_from(get_args(Role)).flatmap(
    lambda role: question.map(lambda found: (Message(role=role, content="So?"), *found))
)
messages = question | turns


@st.composite
def solutions(draw: st.DrawFn, /, **fixed: Any) -> Solution:
    steps = draw(fixed.get("steps", st.lists(texts, min_size=1, max_size=4).map(tuple)))
    given_labels = st.lists(fixed.get("labels", labels), min_size=len(steps), max_size=len(steps)).map(tuple)
    return Solution(
        id=draw(texts),
        prompt=Prompt(
            id=draw(texts),
            messages=draw(fixed.get("messages", messages)),
            answer=draw(st.sampled_from(["", "5"])),
            task=draw(texts),
            meta=draw(metas),
        ),
        steps=steps,
        separator=draw(st.sampled_from(["", "\n", "\n\n", " "])),
        labels=draw(given_labels if "labels" in fixed else st.none() | given_labels),
        outcome=draw(st.none() | st.sampled_from([0.0, 1.0, 0.5])),
        answer=draw(st.sampled_from([None, "5"])),
        language=draw(st.sampled_from(["", "sw", "zh-Hant"])),
        meta=draw(metas),
    )


@QUICK
@given(st.lists(solutions(), min_size=1, max_size=3))
def test_prmkits_own_format_loses_nothing(found: list[Solution]) -> None:
    assert through(found, "prmkit") == found


@pytest.mark.parametrize("name", FORMATS)
@QUICK
@given(solution=solutions())
def test_no_format_changes_what_it_promises_to_keep(name: str, solution: Solution) -> None:
    try:
        (again,) = through([solution], name)
    except DataError:
        return  # refused, which test_formats_bad.py looks at
    for key in FORMATS[name].keeps:
        values = field(again, key), field(solution, key)
        if FORMATS[name].strips:
            values = stripped(values[0]), stripped(values[1])
        assert values[0] == values[1], key


words = st.text("abc (){}$=+-*.,", min_size=1, max_size=12).map(str.strip).filter(bool)
plain_question = st.tuples(st.builds(Message, role=st.just("user"), content=words))
hard = st.sampled_from([0.0, 1.0])
step_numbered = st.lists(words, min_size=1, max_size=4).map(
    lambda found: tuple(f"Step {k}: {step}" for k, step in enumerate(found, start=1))
)


@QUICK
@given(st.lists(solutions(messages=question, labels=st.floats(0, 1)), min_size=1, max_size=3))
def test_trl_holds_any_steps_and_any_numbers(found: list[Solution]) -> None:
    again = through(found, "trl", extras=False)
    for key in ("prompt", "steps", "labels"):
        assert [field(s, key) for s in again] == [field(s, key) for s in found]


@QUICK
@given(solutions(messages=question, labels=st.sampled_from([0.0, 1.0, "neutral", None])))
def test_prm800k_holds_any_steps_and_every_rating(solution: Solution) -> None:
    for name in ("prm800k", "prm800k_steps"):
        (again,) = through([solution], name, extras=False)
        assert (again.steps, again.labels) == (solution.steps, solution.labels)


@pytest.mark.parametrize("name", ["math_shepherd", "openrlhf", "rlhflow", "openr"])
@QUICK
@given(solution=solutions(messages=plain_question, steps=step_numbered, labels=hard))
def test_numbered_steps_pass_through_every_format_of_signs(name: str, solution: Solution) -> None:
    (again,) = through([solution], name, extras=False)
    assert (field(again, "prompt"), again.steps, again.labels) == (
        field(solution, "prompt"),
        solution.steps,
        solution.labels,
    )


@QUICK
@given(solutions(messages=question, labels=hard), st.data())
def test_processbench_holds_the_first_error(solution: Solution, data: st.DataObject) -> None:
    count = len(solution.steps)
    first = data.draw(st.none() | st.integers(0, count - 1))
    known = (1.0,) * count if first is None else (*(1.0,) * first, 0.0, *(None,) * (count - first - 1))
    solution = Solution(id="s", prompt=solution.prompt, steps=solution.steps, labels=known, outcome=1.0)
    (again,) = through([solution], "processbench")
    assert (again.id, again.steps, again.labels, again.outcome) == ("s", solution.steps, known, 1.0)


@QUICK
@given(texts, st.sampled_from(["auto", "step", "paragraph", "line", "whole"]))
def test_split_text_gives_the_text_back(text: str, how: Any) -> None:
    steps, separator = split_text(text, how)
    assert separator.join(steps) == text
    assert all(step.strip() for step in steps)


def test_soft_labels_make_the_whole_column_numbers(tmp_path: Path) -> None:
    prompt = Prompt(id="p", messages=(Message(role="user", content="2+3?"),), answer="")
    found = [Solution(id=str(v), prompt=prompt, steps=("a",), labels=(v,)) for v in (1.0, 0.5)]
    write_solutions(tmp_path / "a.jsonl", found, "trl")
    assert [repr(row["labels"]) for row in rows_of(tmp_path / "a.jsonl")] == ["[1.0]", "[0.5]"]
    write_solutions(tmp_path / "b.jsonl", found[:1], "trl")
    assert repr(rows_of(tmp_path / "b.jsonl")[0]["labels"]) == "[True]"
    with pytest.raises(DataError, match=r"step 1 is soft \(0\.5\), which trl with bool labels cannot hold"):
        write_solutions(tmp_path / "d.jsonl", found, "trl", options=WriteOptions(label_type="bool"))
