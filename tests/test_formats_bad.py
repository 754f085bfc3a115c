"""Files that cannot be used: the line, what is wrong with it, how to mend it; and streams that go on after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_formats_read import EXCERPTS, WRITTEN

from prmkit.data.formats import (
    FORMATS,
    BadRow,
    WriteOptions,
    detect_format,
    iter_solutions,
    read_pools,
    read_solutions,
    write_solutions,
)
from prmkit.data.formats.nearest import NEEDED
from prmkit.data.types import Message, Prompt, Solution
from prmkit.errors import ConfigError, DataError

TRL, SHEPHERD, RLHF = WRITTEN["trl"], WRITTEN["math_shepherd"], WRITTEN["openrlhf"]
TURNS = WRITTEN["rlhflow"]["conversations"]
NATIVE = {"prompt": "2+3?", "steps": ["5"]}


def excerpt(stem: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((EXCERPTS / f"{stem}.jsonl").read_text().splitlines()[0])
    return row


def unrated(rating: object) -> dict[str, Any]:
    return {**excerpt("prm800k_steps"), "ratings": [rating, 1, 1, 1, 1]}


PRM800K = excerpt("prm800k_phase2")


def prm800k(**step: object) -> dict[str, Any]:
    steps = PRM800K["label"]["steps"]
    return {**PRM800K, "label": {**PRM800K["label"], "steps": [{**steps[0], **step}, *steps[1:]]}}


BAD: list[tuple[dict[str, Any], str]] = [
    (TRL | {"labels": [True]}, "1 labels for 2 steps (fewer than steps); give one for each step"),
    (TRL | {"labels": [True] * 3}, "3 labels for 2 steps (more than steps)"),
    (TRL | {"completions": ["a", " "]}, "step 2 of 2 is empty; remove it with its label"),
    (TRL | {"completions": [], "labels": []}, "field 'completions' is empty; a solution needs at least one step"),
    (TRL | {"labels": [1.0, -100]}, "the label of step 2 is -100: that is the loss mask of tokenised data, no label"),
    (TRL | {"labels": [True, -100]}, "the label of step 2 is -100: that is the loss mask"),
    (TRL | {"labels": [True, 1]}, "labels mix true/false with numbers (the label of step 2 is 1); use one kind"),
    (TRL | {"labels": [1.0, 1.5]}, "the label of step 2 is 1.5; it must be a number in [0, 1]"),
    (TRL | {"labels": [1.0, "+"]}, 'the label of step 2 is "+"; it must be a number in [0, 1]'),
    (TRL | {"labels": [1.0, float("nan")]}, "the label of step 2 is nan; it must be a number in [0, 1]"),
    (TRL | {"prompt": " "}, "field 'prompt' is blank"),
    (TRL | {"prompt": [{"role": "human", "content": "2+3?"}]}, 'prompt[0]: role "human" is not system, user or assistant'),
    (unrated(2), "the rating of step 1 is 2; PRM800K has -1, 0, 1 and null"),
    (unrated([1]), "the rating of step 1 is [1]; PRM800K has -1, 0, 1 and null"),
    (unrated(True), "the rating of step 1 is true; PRM800K has -1, 0, 1 and null"),
    (SHEPHERD | {"input": "2+3? 5", "label": "2+3? 5"}, "'Step 1:' occurs 0 times, so it is not clear where the response begins"),
    (SHEPHERD | {"input": "2+3? Step 1: 5", "label": "x"}, "the step tag 'ки' is not in the text; put it after each step"),
    (SHEPHERD | {"input": "2+3? Step 1: 5 ки\nso", "label": "x"}, "no step tag 'ки' after the last step (\"so\"); add it"),
    (SHEPHERD | {"label": SHEPHERD["label"].replace("12 +", "12 ?")}, 'the label of step 1 is "?"; it must be + or -'),
    (SHEPHERD | {"label": SHEPHERD["label"][:-1]}, "the label of step 2 is missing; it must be + or -"),
    (SHEPHERD | {"label": SHEPHERD["label"].replace("15", "16")}, "they differ before the label of step 2"),
    (SHEPHERD | {"label": SHEPHERD["label"] + " +"}, "'label' goes on after its last + or -"),
    (RLHF | {"value": [1.0]}, "1 values for 2 steps (fewer than steps)"),
    (RLHF | {"value": ["+", 0.5]}, "the label of step 2 is 0.5; it must be + or -"),
    (RLHF | {"value": [0.5, "-"]}, 'the label of step 2 is "-"; it must be a number in [0, 1]'),
    (RLHF | {"input": "2? Step 1: a ки ки"}, "step 2 of 2 is empty"),
    ({"conversations": TURNS[:3]}, "1 labels for 2 steps (fewer than steps); the assistant must answer the last step"),
    ({"conversations": TURNS[1:]}, "conversations[0] is from assistant; user and assistant take turns"),
    ({"conversations": [TURNS[0], {"role": "assistant", "content": "yes"}]}, 'the label of step 1 is "yes"; it must be + or -'),
    (WRITTEN["openr"] | {"label": ["+"]}, "1 labels for 2 steps (fewer than steps)"),
    (WRITTEN["processbench"] | {"label": 3}, "field 'label' is 3; it is the first wrong step, from -1 to 2 (counted from 0"),
    (WRITTEN["processbench"] | {"label": True}, "field 'label' is true; it is the first wrong step"),
    (WRITTEN["ultrainteract"] | {"correctness": [True]}, "1 values of 'correctness' for 2 steps (fewer than steps)"),
    (WRITTEN["ultrainteract"] | {"correctness": [1, 0]}, "correctness[0] is 1, expected true or false"),
    (WRITTEN["unpaired"] | {"label": 1}, "field 'label' is 1, expected true or false"),
    (WRITTEN["preference"] | {"chosen": [TURNS[1], TURNS[1]]}, "chosen and rejected differ before their last turn"),
    (excerpt("mr_gsm8k") | {"model_output_solution_first_error_step": 0}, "from 1 to 4 (counted from 1)"),
    (excerpt("bigbench_mistake") | {"mistake_index": 4}, "from 0 to 3 (counted from 0; null where none is wrong)"),
    (excerpt("math_aps") | {"question": "Another?"}, "reasoning_steps[0]: the prefix does not begin with the question"),
    (excerpt("prmbench") | {"error_steps": [0]}, "error step 0 of a solution with 7 steps (counted from 1)"),
    (excerpt("prmbench") | {"error_steps": [8]}, "does, with prmkit data convert --outside ignore"),
    (prm800k(chosen_completion=1), "step 1: chosen_completion is 1, and there are 1 completions"),
    (prm800k(chosen_completion=None), "step 1 of 7 has neither a chosen nor a human completion, and steps follow it"),
    (prm800k(completions=[]), "step 1: chosen_completion is 0, and there are 0 completions"),
    (PRM800K | {"label": {"steps": [], "finish_reason": "give_up"}}, 'no step was labelled (finish_reason "give_up")'),
    (excerpt("math_bestof_rm") | {"pred": ["1"]}, "1 values of 'pred' for 2 steps (fewer than steps)"),
    (excerpt("candidates") | {"candidates": [{"text": "5", "correct": "yes"}]}, "candidates[0]: field 'correct' is \"yes\""),
    (excerpt("candidates") | {"candidates": []}, "field 'candidates' is empty; a question needs at least one"),
    (TRL | {"source": {"score": [float("nan")]}}, "field 'source' has the number nan, which JSON cannot hold; write null"),
    (NATIVE | {"meta": {"loss": float("inf")}}, "field 'loss' has the number inf, which JSON cannot hold"),
    (NATIVE | {"label": [1.0]}, "unknown field 'label'; put what is your own into 'meta'"),
    (NATIVE | {"steps": "a\n\nb"}, "field 'steps' is one text (\"a\\n\\nb\"), expected a list of texts; write it as a list"),
    (NATIVE | {"steps": ["a", 5]}, "steps[1] is 5, expected a text; put it in quotes"),
    (NATIVE | {"labels": "+-"}, "field 'labels' is \"+-\", expected a list; write it as one"),
    (TRL | {"completions": "ab"}, "field 'completions' is one text (\"ab\"), expected a list of texts"),
    (excerpt("prm800k_steps") | {"steps": "a. b."}, "field 'steps' is one text"),
    (excerpt("prmbench") | {"modified_process": "a. b."}, "field 'modified_process' is one text"),
    (NATIVE | {"labels": ["good"]}, 'the label of step 1 is "good"; it must be a number in [0, 1]'),
    (NATIVE | {"labels": [True]}, "the label of step 1 is true; it must be a number in [0, 1]"),
    (NATIVE | {"outcome": 2}, "field 'outcome' is 2; it must be true, false or a number in [0, 1]"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_a_bad_row_is_named_with_line_fault_and_fix(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        read_solutions(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert message in str(caught.value)


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_stream_reports_bad_lines_and_finishes_the_others(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", TRL, "{", TRL, "", TRL | {"labels": [True]}, "[1]", TRL, "", "")
    items = list(iter_solutions(path))
    assert [item.where if isinstance(item, BadRow) else item.id for item in items] == [
        "a.jsonl:1",
        f"{path}:2",
        "a.jsonl:3",
        f"{path}:4",
        f"{path}:5",
        f"{path}:6",
        "a.jsonl:7",
    ]
    reasons = [item.reason for item in items if isinstance(item, BadRow)]
    for reason, part in zip(
        reasons, ("not JSON", "blank line", "1 labels for 2", "a list, expected an object"), strict=True
    ):
        assert part in reason
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON"):
        read_solutions(path)


def test_ten_thousand_lines_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(TRL) + "\n"
    path.write_text((good * 3000 + "{\n") * 3 + good * 1000)
    found = iter_solutions(path)
    first = next(found)
    assert isinstance(first, Solution)
    items = [first, *found]
    assert sum(isinstance(item, Solution) for item in items) == 10_000
    assert [item.where for item in items if isinstance(item, BadRow)] == [f"{path}:{n}" for n in (3001, 6002, 9003)]


def test_mixed_formats_name_the_first_line_that_differs(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", TRL, TRL, WRITTEN["processbench"], TRL)
    with pytest.raises(
        DataError, match=r"a\.jsonl:3: the line has the fields of processbench, but the file is read as trl; "
    ):
        read_solutions(path)
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: the line has the fields of trl, but the file is read as math_shepherd"
    ):
        read_solutions(path, format="math_shepherd")


def test_a_column_has_one_type(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", TRL, TRL | {"labels": [1, 0]})
    with pytest.raises(
        DataError, match=r"a\.jsonl:2: labels are numbers, but true and false at .*a\.jsonl:1; a column has"
    ):
        read_solutions(path)
    path = lines(tmp_path / "b.jsonl", RLHF, RLHF | {"value": ["+", "-"]})
    with pytest.raises(DataError, match=r"b\.jsonl:2: labels are \+ and -, but numbers at .*b\.jsonl:1"):
        read_solutions(path)


def test_files_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl: no such file; check the path"):
        list(iter_solutions(tmp_path / "nothing.jsonl"))
    with pytest.raises(DataError, match="is a folder"):
        read_solutions(tmp_path, format="trl")
    with pytest.raises(DataError, match="the file is empty"):
        read_solutions(lines(tmp_path / "a.jsonl", "", " "))
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: no known format has the fields 'q', 'a'; name the format, one of prmkit"
    ):
        detect_format(lines(tmp_path / "a.jsonl", {"q": 1, "a": 2}))
    with pytest.raises(DataError, match="no line is a JSON object"):
        detect_format(lines(tmp_path / "a.jsonl", "nothing"))
    with pytest.raises(ConfigError, match='unknown data format "tlr"; did you mean "trl"'):
        read_solutions(lines(tmp_path / "a.jsonl", TRL), format="tlr")


@pytest.mark.parametrize(
    ("row", "near"),
    [
        ({"id": "x", "steps": ["5"], "labels": [1]}, "nearest: prmkit lacks 'prompt'; add what is missing"),
        ({"question": "2+3?", "process": "5 ки"}, "openr lacks 'label'"),
        ({"completions": ["5"], "labels": [True]}, "nearest: trl lacks 'prompt'; "),
    ],
)
def test_a_row_without_its_prompt_names_the_formats_that_it_is_near(
    row: dict[str, Any], near: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read_solutions(lines(tmp_path / "a.jsonl", row))
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}:1: no known format has the fields '{next(iter(row))}'")
    assert near in str(caught.value)


def test_a_later_row_without_its_prompt_names_the_field(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", NATIVE, {"id": 7, "steps": ["5"]}, [NATIVE])
    (_, lacking, listed) = iter_solutions(path)
    assert isinstance(lacking, BadRow)
    assert isinstance(listed, BadRow)
    assert lacking.reason.startswith(f"{path}:2: the line has the fields 'id', 'steps', but the file is read as prmkit")
    assert "which needs 'prompt' as well; add it" in lacking.reason
    assert (lacking.id, listed.id) == ("7", None)
    assert 'a list, expected an object such as {"prompt": "...", "steps": ' in listed.reason


@pytest.mark.parametrize("name", FORMATS)
def test_the_fields_that_a_format_needs_are_those_without_which_it_is_another(name: str) -> None:
    written = {**WRITTEN, "prmkit": NATIVE, "prm800k": PRM800K}
    row = written[name] if name in written else excerpt(name)
    assert set(NEEDED[name]) <= set(row)
    assert FORMATS[name].fits(row)
    for key in NEEDED[name]:
        assert not FORMATS[name].fits({other: value for other, value in row.items() if other != key})


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(TRL) + "\n", encoding="utf-8-sig")
    assert len(read_solutions(path)) == 1


def solution(**changes: Any) -> Solution:
    prompt = Prompt(id="p", messages=(Message(role="user", content="2+3?"),), answer="5")
    return Solution(**{"id": "s", "prompt": prompt, "steps": ("a", "b"), "labels": (1.0, 0.0), **changes})


SYSTEM = Prompt(
    id="p", messages=(Message(role="system", content="Think."), Message(role="user", content="2+3?")), answer=""
)
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("math_shepherd", {"labels": (1.0, 0.5)}, "step 2 is soft (0.5), which math_shepherd cannot hold; choose a threshold"),
    ("math_shepherd", {}, "math_shepherd knows the response by 'Step 1:', and its first step is \"a\"; number_steps = true"),
    ("math_shepherd", {"steps": ("Step 1: a", "Step 2: ки")}, "does not survive math_shepherd"),
    ("trl", {"labels": ("neutral", 0.0)}, "step 1 is neutral, which trl cannot hold; choose with neutral"),
    ("trl", {"labels": (1.0, None)}, "step 2 is not labelled, which trl cannot hold; choose with unlabelled"),
    ("trl", {"labels": None}, "has no step labels, and trl rows need one for each step"),
    ("trl", {"prompt": SYSTEM}, "trl holds a prompt as one text, and this one has the turns system, user"),
    ("rlhflow", {"labels": (1.0, 0.25)}, "step 2 is soft (0.25), which rlhflow cannot hold"),
    ("rlhflow", {"steps": ("a\n\nb", "c")}, "does not survive rlhflow"),
    ("openr", {"labels": ("neutral", 1.0)}, "step 1 is neutral, which openr cannot hold"),
    ("processbench", {"labels": (0.0, 1.0)}, "no room for labels after the first wrong step (step 1); after_error"),
    ("processbench", {"labels": (0.5, 1.0)}, "step 1 is soft (0.5), and processbench says only which step is the first wrong"),
    ("processbench", {"outcome": 0.5}, "the soft outcome 0.5, which processbench cannot hold"),
    ("prm800k_steps", {"labels": (0.5, 1.0)}, "step 1 is soft (0.5), which prm800k_steps cannot hold"),
    ("prmbench", {}, "prmbench rows hold an original and a modified solution"),
    ("math_aps", {}, "only the last step may have a label, and it must be a number; math_aps_tree holds several"),
    ("math_aps_tree", {}, "math_aps_tree needs the value of the question itself"),
    ("unpaired", {}, "has no outcome, which unpaired needs; verify its answer"),
    ("ultrainteract", {"outcome": 0.5}, "the soft outcome 0.5, which ultrainteract cannot hold"),
    ("preference", {"outcome": 1.0}, "preference rows hold a chosen and a rejected solution; make pairs"),
    ("candidates", {"outcome": 1.0}, "candidates rows name the model of each solution; set meta['model']"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED, ids=[f"{r[0]}-{i}" for i, r in enumerate(REFUSED)])
def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(DataError) as caught:
        write_solutions(path, [solution(**changes)], name)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_prompts_of_equal_text_are_one_prompt(tmp_path: Path) -> None:
    rows = [WRITTEN["unpaired"], WRITTEN["unpaired"] | {"prompt": "1+1?"}, WRITTEN["unpaired"] | {"label": False}]
    pools = read_pools(lines(tmp_path / "a.jsonl", *rows))
    assert [[member.id for member in pool.members] for pool in pools] == [["a.jsonl:1", "a.jsonl:3"], ["a.jsonl:2"]]


def test_different_questions_under_one_id_are_no_pool(tmp_path: Path) -> None:
    rows = [excerpt("candidates") | {"id": "1", "question": question} for question in ("2+2?", "Was ist 3+3?")]
    with pytest.raises(DataError, match=r"a\.jsonl: solutions '1/.*what was asked differs; prompts with equal ids"):
        read_pools(lines(tmp_path / "a.jsonl", *rows))


def test_several_samples_of_one_model_have_ids_of_their_own(tmp_path: Path) -> None:
    samples = [{"model": "m", "text": text, "answer": text, "correct": text == "4"} for text in ("4", "5", "6")]
    row = {"id": "q1", "question": "2+2?", "gold": "4", "candidates": samples}
    found = read_solutions(lines(tmp_path / "a.jsonl", row))
    assert [solution.id for solution in found] == ["q1/m", "q1/m/1", "q1/m/2"]


def test_columns_that_would_make_a_row_look_like_another_format_are_refused(tmp_path: Path) -> None:
    found = solution(meta={"steps": 2})
    with pytest.raises(DataError, match="would make the row look like prmkit; extras = false leaves them out"):
        write_solutions(tmp_path / "a.jsonl", [found], "trl")
    write_solutions(tmp_path / "a.jsonl", [found], "trl", options=WriteOptions(extras=False))
    assert detect_format(tmp_path / "a.jsonl") == "trl"


def test_what_a_row_means_wins_over_meta_of_the_same_name(tmp_path: Path) -> None:
    found = solution(meta={"label": [1], "input": "x"}, outcome=1.0)
    write_solutions(tmp_path / "a.jsonl", [found], "processbench")
    (row,) = (json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines())
    assert (row["label"], row["input"]) == (1, "x")
