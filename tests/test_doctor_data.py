"""The doctor on rows, labels and texts: sound data has no fault, and each fault gives its own finding alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doctor_setup import Row, find, said, sound_rows, write_rows

from prmkit.doctor.config import DoctorConfig
from prmkit.doctor.data import normal, script
from prmkit.doctor.examine import examine
from prmkit.doctor.finding import Finding, some
from prmkit.doctor.raw import read_raw
from prmkit.errors import ConfigError, DataError

SOUND = {("note", "labels.balance"), ("note", "leak.not_checked")}
"""What is said of sound rows."""


def look(tmp_path: Path, rows: list[Row], test: list[Row] | None = None, **config: Any) -> list[Finding]:
    data = write_rows(tmp_path / "train.jsonl", rows)
    held = "" if test is None else write_rows(tmp_path / "test.jsonl", test)
    return examine(DoctorConfig(data=(data,), test=held, separator=";", **config), None)


def test_sound_data_has_no_fault(tmp_path: Path) -> None:
    findings = look(tmp_path, sound_rows(), sound_rows(start=40))
    assert said(findings) == SOUND
    # 40 rows of 4 steps; n = 0, 3, ..., 39 are the 14 with two wrong steps: 132 of 160 right, 28 wrong
    assert "160 labelled steps: 82.5% right, 17.5% wrong" in find(findings, "labels.balance").what
    assert "1: 100%, 2: 100%, 3: 65%, 4: 65%" in find(findings, "labels.balance").what


def each(rows: list[Row], change: Callable[[Row], Row], every: int = 1) -> list[Row]:
    return [change(row) if i % every == 0 else row for i, row in enumerate(rows)]


def test_ignored_labels_beside_booleans_are_seen_before_the_cast(tmp_path: Path) -> None:
    rows = each(sound_rows(), lambda row: {**row, "labels": [-100, *row["labels"][1:]]}, every=10)
    findings = look(tmp_path, rows)
    assert said(findings) - SOUND == {("error", "labels.ignored_cast")}
    assert find(findings, "labels.ignored_cast").where.endswith("train.jsonl:1, :11, :21 and 1 more")


FAULTS: dict[str, tuple[Callable[[list[Row]], list[Row]], set[tuple[str, str]]]] = {
    "one label too many": (
        lambda rows: each(rows, lambda row: {**row, "labels": [*row["labels"], True]}, every=20),
        {("error", "labels.count")},
    ),
    "unknown label value": (
        lambda rows: (
            each(rows, lambda row: {**row, "labels": [2, *map(int, row["labels"][1:])]}, every=20)[::20]
            + each(rows[1:], lambda row: {**row, "labels": [int(v) for v in row["labels"]]})
        ),
        {("error", "labels.value")},
    ),
    "booleans and soft labels in one column": (
        lambda rows: each(rows, lambda row: {**row, "labels": [0.9, 0.8, 0.3, 0.2]}, every=20)[::-1],
        {("error", "labels.mixed_types")},
    ),
    "booleans and whole numbers in one column": (
        lambda rows: each(rows, lambda row: {**row, "labels": [int(v) for v in row["labels"]]}, every=20)[::-1],
        {("warning", "labels.mixed_types")},
    ),
    "an empty step": (
        lambda rows: each(rows, lambda row: {**row, "completions": [" ", *row["completions"][1:]]}, every=20),
        {("error", "data.empty_step")},
    ),
    "right and wrong swapped": (
        lambda rows: each(
            [r for r in rows if not all(r["labels"])], lambda row: {**row, "labels": [not v for v in row["labels"]]}
        ),
        {("error", "labels.swapped")},
    ),
    "only right steps": (
        lambda rows: [row for row in rows if all(row["labels"])],
        {("error", "labels.one_class")},
    ),
    "few wrong steps": (
        lambda rows: [row for row in rows if all(row["labels"])] + [row for row in rows if not all(row["labels"])][:2],
        {("warning", "labels.imbalance")},
    ),
    "one id twice": (
        lambda rows: each(rows, lambda row: {**row, "id": "same"}, every=20),
        {("error", "data.duplicate_id")},
    ),
    "a solution twice": (
        lambda rows: [*rows, {**rows[5], "id": "again"}],
        {("warning", "data.duplicate_solution")},
    ),
    "a solution twice, with other labels": (
        lambda rows: [*rows, {**rows[1], "id": "again", "labels": [True, True, True, False]}],
        {("warning", "data.duplicate_solution"), ("warning", "data.contradiction")},
    ),
    "a step with the separator in it": (
        lambda rows: each(
            rows, lambda row: {**row, "completions": [row["completions"][0] + ";0=0", *row["completions"][1:]]}, 20
        ),
        {("warning", "data.separator_in_step")},
    ),
    "steps inside the prompt": (
        lambda rows: each(
            rows,
            lambda row: {
                **row,
                "completions": [f"so the sum of the first numbers is {step}" for step in row["completions"]],
                "prompt": f"{row['prompt']} so the sum of the first numbers is "
                + " so the sum of the first numbers is ".join(row["completions"]),
            },
            every=20,
        ),
        {("error", "leak.solution_in_prompt")},
    ),
    "answers announced at the end": (
        lambda rows: each(rows, lambda row: {**row, "completions": [*row["completions"][:3], "# Answer 7"]}, every=20),
        {("note", "leak.answer_tail")},
    ),
    "answers in another script": (
        lambda rows: each(
            rows,
            lambda row: {
                **row,
                "prompt": "what is the sum of these numbers " + row["prompt"],
                "completions": ["因此我们得到下面的结果也就是" + step for step in row["completions"]],
            },
            every=20,
        ),
        {("warning", "data.language_mix")},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_rows_is_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    spoil, expected = FAULTS[name]
    findings = look(tmp_path, spoil(sound_rows()))
    assert said(findings) - SOUND == expected
    for finding in findings:
        if finding.severity != "note":
            assert "train.jsonl:" in finding.where


def test_each_kind_of_unreadable_line_is_one_finding(tmp_path: Path) -> None:
    rows = sound_rows()
    path = tmp_path / "train.jsonl"
    write_rows(path, rows)
    lines = path.read_text().splitlines()
    lines[4] = lines[8] = "{half a line"
    lines[6] = '{"prompt": "p", "steps": []}'
    path.write_text("\n".join(lines) + "\n")
    findings = [
        f for f in examine(DoctorConfig(data=(str(path),), separator=";"), None) if f.check == "data.unreadable"
    ]
    assert [finding.where for finding in findings] == [f"{path}:5, :9", f"{path}:7"]
    assert findings[0].what.startswith("2 lines cannot be read")


def test_prompts_of_the_test_file_in_the_training_file(tmp_path: Path) -> None:
    train, test = sound_rows(), sound_rows(start=40, num=10)
    findings = look(tmp_path, train, [*test, {**train[3], "prompt": train[3]["prompt"].replace("+", " + ")}])
    assert said(findings) - SOUND == {("error", "data.test_in_train")}
    found = find(findings, "data.test_in_train")
    assert found.what.startswith("1 of 11 (9.1%) prompts")
    assert found.where == f"{tmp_path / 'test.jsonl'}:11 = {tmp_path / 'train.jsonl'}:4"


LONG = "a farmer has {} hens and sells the eggs of all of them at the market on every day of the week but one"


def test_prompts_that_are_nearly_the_same(tmp_path: Path) -> None:
    train, test = sound_rows(), sound_rows(start=40, num=10)
    train[7]["prompt"] = LONG.format("twelve")
    near = {**test[0], "prompt": LONG.format("fifteen") + " how many"}
    findings = look(tmp_path, train, [near, *test[1:]])
    assert said(findings) - SOUND == {("warning", "data.test_near_train")}
    assert find(findings, "data.test_near_train").where.endswith("train.jsonl:8")


def test_an_instruction_that_all_prompts_share_is_no_near_duplicate(tmp_path: Path) -> None:
    def instructed(rows: list[Row]) -> list[Row]:
        return each(rows, lambda row: {**row, "prompt": f"{LONG.format('some')} now compute {row['prompt']}"})

    assert said(look(tmp_path, instructed(sound_rows()), instructed(sound_rows(start=40)))) == SOUND


def test_soft_labels_where_classes_are_expected(tmp_path: Path) -> None:
    """OpenRLHF issue 488, openr issue 57: 0.3 is wrong at the threshold 0.5 and right at `above 0`."""
    rows = each(sound_rows(), lambda row: {**row, "labels": [1.0 if v else 0.3 for v in row["labels"]]})
    assert said(look(tmp_path, rows)) == SOUND
    assert said(look(tmp_path, rows, expected="soft")) == SOUND
    findings = look(tmp_path, rows, expected="hard")
    assert said(findings) - SOUND == {("error", "labels.soft")}
    assert find(findings, "labels.soft").what.startswith("28 labels lie between 0 and 1")
    hard = look(
        tmp_path, each(sound_rows(), lambda row: {**row, "labels": [float(v) for v in row["labels"]]}), expected="hard"
    )
    assert said(hard) == SOUND


def ratings(rows: list[Row], neutral: bool) -> list[Row]:
    return [
        {
            "problem": row["prompt"],
            "steps": row["completions"],
            "ratings": [0 if neutral and k == 1 else 1 if right else -1 for k, right in enumerate(row["labels"])],
        }
        for row in rows
    ]


def test_neutral_steps_are_counted_and_their_meaning_is_said(tmp_path: Path) -> None:
    assert said(look(tmp_path, ratings(sound_rows(), neutral=False))) == SOUND
    findings = look(tmp_path, ratings(sound_rows(), neutral=True))
    assert said(findings) - SOUND == {("note", "labels.neutral")}
    assert find(findings, "labels.neutral").what == (
        "40 of 160 (25.0%) labels are neutral and will be trained as right"
    )
    without = look(tmp_path, ratings(sound_rows(), neutral=False), neutral="class")
    assert said(without) - SOUND == {("warning", "labels.neutral")}


def first_errors(offset: int, rows: list[Row] | None = None) -> list[Row]:
    """ProcessBench rows: the index of the first wrong step, -1 for none."""
    found = []
    for row in rows or sound_rows():
        wrong = [k for k, right in enumerate(row["labels"]) if not right]
        found.append(
            {
                "id": row["id"],
                "problem": row["prompt"],
                "steps": row["completions"][: (wrong[0] + 1 if wrong else 4)],
                "label": wrong[0] + offset if wrong else -1,
                "final_answer_correct": not wrong,
            }
        )
    return found


def test_indices_of_the_first_error_that_count_from_one(tmp_path: Path) -> None:
    assert not [f for f in look(tmp_path, first_errors(0)) if f.severity == "error"]
    findings = look(tmp_path, first_errors(1))
    assert ("error", "labels.one_based") in said(findings)
    assert find(findings, "labels.one_based").what.startswith("14 of 14 indices")


def native(
    rows: list[Row], outcome: Callable[[Row], float | None], labels: Callable[[Row], Any] | None = None
) -> list[Row]:
    return [
        {
            "id": row["id"],
            "prompt": {"messages": [{"role": "user", "content": row["prompt"]}], "answer": str(1990 + i)},
            "steps": row["completions"],
            "separator": ";",
            "labels": labels(row) if labels else [float(v) for v in row["labels"]],
            "outcome": outcome(row),
        }
        for i, row in enumerate(rows)
    ]


def right(row: Row) -> float:
    return float(all(row["labels"]))


def test_labels_beside_outcomes(tmp_path: Path) -> None:
    rows = sound_rows()
    # a wrong step stays wrong here, so the last label is the outcome
    assert said(look(tmp_path, native(rows, right))) - SOUND == {("note", "labels.last_is_outcome")}
    copied = look(tmp_path, native(rows, right, lambda row: [right(row)] * 4))
    assert said(copied) - SOUND == {("warning", "labels.copies_of_outcome")}
    opposite = look(tmp_path, native(rows, lambda row: 1 - right(row)))
    assert said(opposite) - SOUND == {("error", "labels.swapped")}


@pytest.mark.parametrize("form", ["implicit", "outcome"])
def test_training_from_outcomes_needs_both(tmp_path: Path, form: str) -> None:
    rows = sound_rows()
    twice = [{**row, "id": f"{row['id']}/{k}", "outcome": float(k)} for row in native(rows, right) for k in (0, 1)]
    for row in twice[::2]:
        row["steps"] = ["0+0=1", *row["steps"][1:]]
    assert said(look(tmp_path, twice, form=form)) == {("note", "outcomes.balance")}
    assert said(look(tmp_path, sound_rows(), form=form)) - SOUND == {("error", "outcomes.unknown")}
    assert said(look(tmp_path, native(rows, lambda row: 1.0), form=form)) == {("error", "outcomes.one_class")}
    some_known = native(rows, lambda row: None if row["id"] == "r1" else right(row))
    level = "warning" if form == "implicit" else "note"  # one response to each prompt: no pairs
    assert said(look(tmp_path, some_known, form=form)) == {("warning", "outcomes.unknown"), (level, "outcomes.balance")}


def test_preferences_are_what_an_implicit_prm_learns_from(tmp_path: Path) -> None:
    rows = [
        {"prompt": row["prompt"], "chosen": "\n".join(row["completions"]), "rejected": f"{row['prompt'][0]}+1=0"}
        for row in sound_rows()
    ]
    findings = look(tmp_path, rows, form="implicit")
    assert said(findings) == {("note", "outcomes.balance"), ("note", "leak.not_checked")}
    assert find(findings, "outcomes.balance").what.startswith("40 of 80 (50.0%) solutions are right; 40 of 40")
    assert said(look(tmp_path, rows, form="outcome")) - SOUND == {("error", "outcomes.unknown")}


@pytest.mark.parametrize(
    ("prompt", "leaks"),
    [
        ("add them. The answer is {}.", True),
        ("add them\n#### {}", True),
        (r"add them, \boxed{{{}}}", True),
        ("there are {} hens, add them", False),
        ("add them. The answer is {}5.", False),
        ("add them. The answer is not {}.", False),
    ],
)
def test_prompts_that_state_their_answer(tmp_path: Path, prompt: str, leaks: bool) -> None:
    rows = native(sound_rows(), right)
    for row in rows[::10]:
        row["prompt"]["messages"][0]["content"] += " " + prompt.format(row["prompt"]["answer"])
    found = {check for severity, check in said(look(tmp_path, rows)) if severity == "error"}
    assert found == ({"leak.answer_in_prompt"} if leaks else set())


@pytest.mark.parametrize(
    ("prompt", "last", "leaks"),
    [
        ("{sum}. The answer is {answer}.", "so the answer is {answer}", True),
        ("{sum} (the final answer is: {answer})", "# Answer\n\n{answer}", True),
        ("{sum}\n#### {answer}", "A: {answer}", True),
        (r"{sum}. Hint: $\boxed{{{answer}}}$", r"We get \boxed{{{answer}}}.", True),
        ("Is the answer {answer}? {sum}", "The answer is {answer}.", False),
        ("A farmer has {answer} hens. {sum}", "The answer is {answer}.", False),
        (r"{sum} Put the answer in \boxed{{}}.", r"\boxed{{{answer}}}", False),
        ("{sum} End with: The answer is X.", "The answer is {answer}.", False),
        ("{sum}. The answer is {answer}.", "so we are done", False),  # nobody knows what the answer is
    ],
)
def test_what_the_last_step_announces_is_looked_for_in_the_prompt(
    tmp_path: Path, prompt: str, last: str, leaks: bool
) -> None:
    rows = sound_rows()
    for k, row in enumerate(rows):
        known = {"sum": row["prompt"], "answer": 1000 + k}
        row["prompt"] = prompt.format(**known)
        row["completions"] = [*row["completions"][:-1], last.format(**known)]
    found = said(look(tmp_path, rows))
    assert (("error", "leak.answer_in_prompt") in found) == leaks
    assert (("note", "leak.not_checked") in found) == ("{answer}" not in last)


def test_short_steps_that_all_stand_in_the_prompt_are_a_leak(tmp_path: Path) -> None:
    rows = sound_rows()
    for row in rows[::10]:
        row["prompt"] += " " + " then ".join(row["completions"])
    findings = look(tmp_path, rows)
    assert find(findings, "leak.solution_in_prompt").what.startswith("4 of 40 (10.0%) prompts")
    for row in rows[::10]:  # all but the last, and in another order: an exercise that asks how to go on
        row["prompt"] = " then ".join([*row["completions"][:-1][::-1], "what?"])
    assert said(look(tmp_path, rows)) == SOUND


def test_the_answer_of_a_right_solution_is_the_gold_answer(tmp_path: Path) -> None:
    rows = [{**row, "prompt": row["prompt"]["messages"][0]["content"]} for row in native(sound_rows(), right)]
    for row in rows:
        row["prompt"] += " The answer is 7777."
        row["answer"] = "7777" if row["outcome"] == 0 else "7776"
    assert not [f for f in look(tmp_path, rows) if f.severity == "error"]
    rows[1]["answer"] = "7777"
    assert rows[1]["outcome"] == 1
    assert find(look(tmp_path, rows), "leak.answer_in_prompt").what.startswith("1 of 40 (2.5%) prompts")


def test_a_reference_solution_in_the_prompt(tmp_path: Path) -> None:
    reference = "first we add the two large numbers, then the small ones, and the sum of both is what was asked for"
    rows = sound_rows()
    for row in rows[::10]:
        row["reference_solution"] = reference
    assert said(look(tmp_path, rows)) == SOUND
    for row in rows[::10]:
        row["prompt"] += f" {reference}"
    assert said(look(tmp_path, rows)) - SOUND == {("error", "leak.solution_in_prompt")}


def test_a_step_that_repeats_the_question_is_no_leak(tmp_path: Path) -> None:
    question = "the farmer sells all eggs of twelve hens on every day"
    rows = sound_rows()
    for row in rows[::10]:
        row["prompt"] = f"{row['prompt']} {question}"
        row["completions"] = [question, *row["completions"][1:]]
    assert said(look(tmp_path, rows)) == SOUND


def test_files_that_cannot_be_examined(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read: No such file"):
        examine(DoctorConfig(data=(str(tmp_path / "nowhere.jsonl"),)), None)
    data = write_rows(tmp_path / "a.jsonl", [{"question": "1+1", "colour": "red"}])
    with pytest.raises(DataError, match="no known format has the fields 'question', 'colour'"):
        examine(DoctorConfig(data=(data,)), None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"separator": ""}, "separator is empty"),
        ({"max_tokens": -1}, "max_tokens = -1 is out of range"),
        ({"sample": -1}, "sample = -1 is out of range"),
        ({"out": "x.txt"}, r'set out = "x\.txt\.json"'),
        ({"form": "label_tokens", "labels": ("+",)}, "labels has 1 entries"),
        ({"form": "label_tokens", "neutral": "class"}, "needs 3: right, wrong, neutral"),
    ],
)
def test_configurations_that_cannot_run(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DoctorConfig(**config)


def test_texts_are_compared_in_one_form() -> None:
    assert normal("What IS  3+8 ?") == normal("what is 3 + 8?") == "what is 3 + 8 ?"
    assert normal("3+8") != normal("3-8")
    assert script("Let x be the sum of both numbers") == "LATIN"
    assert script(r"设 x 为两个数之和, 于是 \frac{x}{2} = y 成立, 因此得到结果") == "CJK"
    assert script("3+8=11") == ""


def test_places_are_shortened_within_one_file() -> None:
    assert (
        some(["a.jsonl:3", "a.jsonl:7", "a.jsonl:7", "b.jsonl:1", "a.jsonl:9"]) == "a.jsonl:3, :7, b.jsonl:1 and 1 more"
    )
    assert some([]) == ""


def test_a_line_nested_without_end_is_passed_over_like_any_other_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": ' + "[" * 100_000 + '\n{"a": ' + "1" * 5000 + '}\n{"a": 4}\n')
    assert [(row.where, row.row) for row in read_raw(path)] == [(f"{path}:1", {"a": 1}), (f"{path}:4", {"a": 4})]
