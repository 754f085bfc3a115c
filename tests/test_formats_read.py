"""What each format's rows mean: excerpts of the published files, and rows written by hand in their shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prmkit.data.formats import FORMATS, ReadOptions, detect_format, read_pairs, read_pools, read_solutions
from prmkit.data.formats.splitting import split_text
from prmkit.data.types import Solution
from prmkit.errors import DataError

EXCERPTS = Path(__file__).parent / "data" / "formats"

WRITTEN: dict[str, dict[str, Any]] = {
    "trl": {"prompt": "2+3*4?", "completions": ["3*4=12", "2+12=15"], "labels": [True, False]},
    "math_shepherd": {
        "input": "2+3*4? Step 1: 3*4=12 ки\nStep 2: 2+12=15 ки",
        "label": "2+3*4? Step 1: 3*4=12 +\nStep 2: 2+12=15 -",
        "task": "GSM8K",
    },
    "openrlhf": {"input": "2+3*4? Step 1: 3*4=12 ки\nStep 2: 2+12=15 ки", "value": [0.75, 0.25]},
    "rlhflow": {
        "conversations": [
            {"role": "user", "content": "2+3*4? Step 1: 3*4=12"},
            {"role": "assistant", "content": "+"},
            {"role": "user", "content": "Step 2: 2+12=15"},
            {"role": "assistant", "content": "-"},
        ]
    },
    "openr": {
        "question": "2+3*4?",
        "process": "3*4=12 \n\n\n\n\n2+12=15 \n\n\n\n\n",
        "label": ["+", "-"],
        "language": "sw",
    },
    "processbench": {
        "id": "gsm8k-7",
        "generator": "Qwen2-7B-Instruct",
        "problem": "2+3*4?",
        "steps": ["3*4=12", "2+12=15", "The answer is 15."],
        "final_answer_correct": False,
        "label": 1,
    },
    "ultrainteract": {
        "dataset": "math",
        "prompt": "2+3*4?",
        "completions": ["Step 1: 3*4=12\n\nStep 2: 2+12=14", "2+3*4=20"],
        "correctness": [True, False, True],
    },
    "unpaired": {"prompt": "2+3*4?", "completion": "3*4=12\n2+12=14", "label": True},
    "preference": {"prompt": "2+3*4?", "chosen": "14", "rejected": "20"},
    "prmkit_eval": {"id": "q1", "prompt": {"messages": "2+3*4?"}, "sampled": [], "greedy": None},
    "prmkit_rollouts": {
        "prompt_id": "q1",
        "prompt": "2+3*4?",
        "text": "14",
        "token_ends": [2],
        "step_of_token": [0],
        "outcome": 1.0,
        "status": "ok",
    },
}


def one_row(tmp_path: Path, row: dict[str, Any], **options: Any) -> list[Solution]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return read_solutions(path, options=ReadOptions(**options))


@pytest.mark.parametrize("name", WRITTEN)
def test_a_format_is_known_by_its_fields_and_by_no_other_formats(name: str) -> None:
    assert [other for other, format in FORMATS.items() if format.fits(WRITTEN[name])] == [name]


NAMED = {path.stem: path for path in sorted(EXCERPTS.glob("*.jsonl"))}
ALIASES = {"prm800k_phase1": "prm800k", "prm800k_phase2": "prm800k", "candidates_matched": "candidates"}


@pytest.mark.parametrize("stem", NAMED)
def test_excerpts_are_known_by_their_fields(stem: str) -> None:
    fields = json.loads(NAMED[stem].read_text().splitlines()[0])
    assert [name for name, format in FORMATS.items() if format.fits(fields)] == [ALIASES.get(stem, stem)]
    assert detect_format(NAMED[stem]) == ALIASES.get(stem, stem)


def test_trl(tmp_path: Path) -> None:
    (solution,) = one_row(tmp_path, WRITTEN["trl"])
    assert (solution.prompt.messages[0].content, solution.steps) == ("2+3*4?", ("3*4=12", "2+12=15"))
    assert (solution.labels, solution.separator, solution.id) == ((1.0, 0.0), None, "rows.jsonl:1")


def test_math_shepherd_keeps_step_numbers_in_the_steps(tmp_path: Path) -> None:
    (solution,) = one_row(tmp_path, WRITTEN["math_shepherd"])
    assert solution.prompt.messages[0].content == "2+3*4?"
    assert solution.steps == ("Step 1: 3*4=12", "Step 2: 2+12=15")
    assert (solution.labels, solution.meta) == ((1.0, 0.0), {"task": "GSM8K"})


def test_openrlhf_soft_values_and_signs(tmp_path: Path) -> None:
    (soft,) = one_row(tmp_path, WRITTEN["openrlhf"])
    (hard,) = one_row(tmp_path, {**WRITTEN["openrlhf"], "value": ["+", "-"]})
    assert (soft.labels, hard.labels) == ((0.75, 0.25), (1.0, 0.0))
    other = {"input": "2+3*4? Step 1: 3*4=12 <tag>", "value": [1]}
    assert one_row(tmp_path, other, placeholder="<tag>")[0].steps == ("Step 1: 3*4=12",)


def test_rlhflow_with_step_one_or_a_blank_line_after_the_problem(tmp_path: Path) -> None:
    (numbered,) = one_row(tmp_path, WRITTEN["rlhflow"])
    turns = [{"role": "user", "content": "2+3*4?\n\n3*4=12"}, {"role": "assistant", "content": "-"}]
    (plain,) = one_row(tmp_path, {"conversations": turns}, problem_end="blank_line")
    assert numbered.prompt == plain.prompt
    assert (numbered.steps, numbered.labels) == (("Step 1: 3*4=12", "Step 2: 2+12=15"), (1.0, 0.0))
    assert (plain.steps, plain.labels) == (("3*4=12",), (0.0,))


def test_rlhflow_does_not_guess_where_a_problem_ends(tmp_path: Path) -> None:
    """The only blank line lies inside the problem, and step 1 begins after a space."""
    turns = [
        {"role": "user", "content": "Look at 2+3*4.\n\nWhat is it? First, 3*4=12"},
        {"role": "assistant", "content": "-"},
    ]
    with pytest.raises(DataError, match=r"'Step 1:' occurs 0 times in the first turn.* or problem_end = blank_line"):
        one_row(tmp_path, {"conversations": turns})
    (found,) = one_row(tmp_path, {"conversations": turns}, response_start="First,")
    assert found.steps == ("First, 3*4=12",)
    turns[0]["content"] += "\n\nso"
    with pytest.raises(DataError, match="has 2 blank lines, and problem_end = blank_line needs exactly one"):
        one_row(tmp_path, {"conversations": turns}, problem_end="blank_line")


def test_openr_with_its_five_newlines_and_a_language(tmp_path: Path) -> None:
    (solution,) = one_row(tmp_path, WRITTEN["openr"])
    assert (solution.steps, solution.labels) == (("3*4=12", "2+12=15"), (1.0, 0.0))
    assert (solution.language, solution.meta) == ("sw", {})


def test_processbench_says_nothing_of_steps_after_the_first_error(tmp_path: Path) -> None:
    (wrong,) = one_row(tmp_path, WRITTEN["processbench"])
    (right,) = one_row(tmp_path, {**WRITTEN["processbench"], "label": -1, "final_answer_correct": True})
    assert (wrong.labels, wrong.outcome, wrong.id) == ((1.0, 0.0, None), 0.0, "gsm8k-7")
    assert wrong.first_error == 1
    assert (right.labels, right.outcome) == ((1.0, 1.0, 1.0), 1.0)
    assert wrong.meta == {"generator": "Qwen2-7B-Instruct"}


def test_ultrainteract_ignores_surplus_correctness_and_splits_at_step_numbers(tmp_path: Path) -> None:
    first, second = one_row(tmp_path, WRITTEN["ultrainteract"])
    assert (first.steps, first.separator) == (("Step 1: 3*4=12", "Step 2: 2+12=14"), "\n\n")
    assert (first.outcome, second.outcome, second.steps) == (1.0, 0.0, ("2+3*4=20",))
    assert first.prompt == second.prompt
    assert first.prompt.meta == {"dataset": "math"}
    assert [s.steps for s in one_row(tmp_path, WRITTEN["ultrainteract"], split="whole")] == [
        ("Step 1: 3*4=12\n\nStep 2: 2+12=14",),
        ("2+3*4=20",),
    ]


def test_unpaired_and_the_response_of_implicit_prm(tmp_path: Path) -> None:
    (solution,) = one_row(tmp_path, WRITTEN["unpaired"])
    turns = [{"role": "user", "content": "2+3*4?"}, {"role": "assistant", "content": "3*4=12\n2+12=14"}]
    (other,) = one_row(tmp_path, {"response": turns, "label": True, "id": "7-0", "dataset": "math"})
    assert (solution.steps, solution.outcome) == (("3*4=12", "2+12=14"), 1.0)
    assert (other.prompt, other.steps, other.outcome) == (solution.prompt, solution.steps, 1.0)
    assert (other.id, other.meta) == ("7-0", {"dataset": "math"})


def test_a_preference_is_an_outcome_only_if_one_says_so(tmp_path: Path) -> None:
    chosen, rejected = one_row(tmp_path, WRITTEN["preference"])
    assert (chosen.outcome, rejected.outcome) == (None, None)
    assert (chosen.meta["preferred"], rejected.meta["preferred"]) == (True, False)
    chosen, rejected = one_row(tmp_path, WRITTEN["preference"], preferred_is_right=True)
    assert (chosen.text, chosen.outcome, rejected.text, rejected.outcome) == ("14", 1.0, "20", 0.0)


def test_preferences_as_turns_with_and_without_a_prompt(tmp_path: Path) -> None:
    def turns(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "2+3*4?"}, {"role": "assistant", "content": answer}]

    row = {"chosen": turns("14"), "rejected": turns("20")}
    whole = one_row(tmp_path, row)
    assert [(s.prompt.messages[0].content, s.text) for s in whole] == [("2+3*4?", "14"), ("2+3*4?", "20")]
    tails = {"prompt": turns("x")[:1], "chosen": turns("14")[1:], "rejected": turns("20")[1:]}
    assert [(s.prompt, s.text) for s in one_row(tmp_path, tails)] == [(s.prompt, s.text) for s in whole]
    (pair,) = read_pairs(tmp_path / "rows.jsonl")
    assert (pair.chosen.text, pair.rejected.text) == ("14", "20")


def test_prm800k_phase_1_takes_the_choice_or_what_the_labeller_wrote() -> None:
    (solution,) = read_solutions(NAMED["prm800k_phase1"])
    assert len(solution.steps) == 6
    assert solution.steps[1] == "We have $3p+e=1.24$ and $5p+e=1.82$."  # human; all five completions are rated -1
    assert solution.steps[5] == "That means a pencil costs 29 cents.\n\n# Answer\n\n29"  # chosen_completion 4
    assert solution.labels == (1.0,) * 6
    assert (solution.answer, solution.prompt.answer, solution.meta["finish_reason"]) == ("29", "29", "solution")
    (unrated,) = read_solutions(NAMED["prm800k_phase1"], options=ReadOptions(human_completion="unlabelled"))
    assert unrated.labels == (1.0, None, 1.0, 1.0, 1.0, 1.0)


def test_prm800k_phase_2_ends_with_the_models_own_wrong_step() -> None:
    (solution,) = read_solutions(NAMED["prm800k_phase2"])
    assert solution.labels == (1.0, "neutral", 1.0, 1.0, 1.0, 1.0, 0.0)
    assert solution.steps[6].endswith("since reversing the order gives the same seating.")
    assert (solution.meta["finish_reason"], solution.meta["generation"]) == ("found_error", 6)


def test_prm800k_alternatives_are_solutions_that_end_there() -> None:
    last = read_solutions(NAMED["prm800k_phase2"], options=ReadOptions(alternatives="last"))
    full = read_solutions(NAMED["prm800k_phase2"], options=ReadOptions(alternatives="all"))
    assert len(last) == len(full) == 1 + 3  # step 7 has three more completions, all rated 1
    assert last[1].labels == (None,) * 6 + (1.0,)
    assert full[1].labels == (1.0, "neutral", 1.0, 1.0, 1.0, 1.0, 1.0)
    assert full[1].steps[:6] == full[0].steps[:6]
    assert full[1].steps[6] != full[0].steps[6]
    phase1 = read_solutions(NAMED["prm800k_phase1"], options=ReadOptions(alternatives="last"))
    assert len(phase1) == 1 + 5 + 4  # five beside the human step 2, four beside the chosen fifth of step 6
    assert [s.labels[-1] for s in phase1[1:6] if s.labels] == [0.0] * 5


def test_prm800k_trajectories() -> None:
    first, second = read_solutions(NAMED["prm800k_steps"])
    assert (first.labels, first.answer) == ((1.0,) * 5, "0")
    assert (second.labels, second.answer) == (("neutral", "neutral", 1.0, 1.0, 1.0, 0.0), None)


def test_prmbench_counts_error_steps_from_one() -> None:
    original, modified = read_solutions(NAMED["prmbench"], options=ReadOptions(outside="ignore"))[:2]
    assert original.labels == (1.0,) * 6
    assert modified.labels == (1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0)  # error_steps [3, 4, 6]
    assert "{53}" in original.prompt.messages[0].content
    assert "{52}" in modified.prompt.messages[0].content
    assert (modified.meta["classification"], modified.meta["part"]) == ("missing_condition", "modified")
    assert (original.id, modified.id) == (
        "prm_test_p2_1606/missing_condition/original",
        "prm_test_p2_1606/missing_condition/modified",
    )
    assert len(read_solutions(NAMED["prmbench"], options=ReadOptions(outside="ignore", original=False))) == 2


def test_mr_gsm8k_counts_from_one() -> None:
    (solution,) = read_solutions(NAMED["mr_gsm8k"])
    assert (solution.labels, solution.outcome) == ((1.0, 1.0, 0.0, None), 0.0)  # first_error_step 3 of 4
    assert solution.prompt.answer == "3"


def test_bigbench_mistake_counts_from_zero() -> None:
    none, second = read_solutions(NAMED["bigbench_mistake"])
    assert (none.labels, none.outcome) == ((1.0,) * 4, 0.0)  # no mistake named, yet 12 is not 88
    assert (second.labels, second.outcome, second.answer) == ((1.0, 1.0, 0.0, None), 0.0, "5")


@pytest.mark.parametrize(
    ("answer", "target", "outcome"),
    [
        (None, "14", None), (" ", "14", None), ("14", None, None), ("14", "", None),
        ("14 ", "14", 1.0), ("14", "\n14", 1.0), ("15", "14", 0.0),
    ],
)  # fmt: skip
def test_bigbench_mistake_without_answer_has_no_outcome(
    answer: str | None, target: str | None, outcome: float | None, tmp_path: Path
) -> None:
    """Nothing was answered or nothing is known: neither right nor wrong."""
    row = {"input": "2+3*4 =", "steps": ["3*4=12"], "mistake_index": None, "target": target, "answer": answer}
    (found,) = one_row(tmp_path, row)
    assert (found.outcome, found.answer) == (outcome, answer)
    (missing,) = one_row(
        tmp_path, {key: value for key, value in row.items() if value is not None} | {"mistake_index": 0}
    )
    assert missing.outcome == outcome


def test_math_aps_labels_the_last_step_of_each_prefix() -> None:
    solutions = read_solutions(NAMED["math_aps"])
    assert len(solutions) == 3
    assert [s.labels[-1] for s in solutions if s.labels] == [
        item["mc_value"] for item in json.loads(NAMED["math_aps"].read_text())["reasoning_steps"][1:]
    ]
    assert all(set((s.labels or ())[:-1]) <= {None} for s in solutions)
    assert solutions[0].prompt.meta["root_value"] == 0.1875
    assert all(not s.steps[0].startswith("\n") for s in solutions)


def test_math_aps_tree_gives_one_solution_for_each_leaf() -> None:
    root = json.loads(NAMED["math_aps_tree"].read_text())["reasoning_steps"]
    leaf, inner = root["children"]
    solutions = read_solutions(NAMED["math_aps_tree"])
    assert solutions[0].text == leaf["text"]
    assert [label for label in solutions[0].labels or () if label is not None] == [1.0]
    path = [label for label in solutions[1].labels or () if label is not None]
    assert path[0] == inner["mc_value"] == 0.9375
    assert path[1] == inner["children"][0]["mc_value"] == 0.625
    assert solutions[1].text.startswith(f"{inner['text']}\n\n{inner['children'][0]['text']}")


def test_pools() -> None:
    (systems,) = read_pools(NAMED["gsm8k_model_solutions"])
    assert systems.prompt.answer == "540"
    assert [(s.meta["model"], s.outcome, s.answer, len(s.steps)) for s in systems.members] == [
        ("6b_finetuning", 0.0, "60", 3),
        ("6b_verification", 1.0, "540", 3),
        ("175b_finetuning", 1.0, "540", 3),
        ("175b_verification", 1.0, "540", 3),
    ]
    (scored,) = read_pools(NAMED["math_bestof_rm"])
    row = json.loads(NAMED["math_bestof_rm"].read_text())
    assert [s.outcome for s in scored.members] == [1.0, 0.0]
    assert [[s.meta["reward"]] for s in scored.members] == row["pred_score"]
    assert [s.text for s in scored.members] == row["code"]
    (models,) = read_pools(NAMED["candidates"])
    assert (models.prompt.id, models.prompt.answer) == ("gsm8k-main-test-#222", "140")
    assert [(s.outcome, s.answer) for s in models.members] == [(1.0, "140"), (0.0, "130")]


def test_a_string_that_does_not_match_decides_nothing() -> None:
    (pool,) = read_pools(NAMED["candidates_matched"])
    assert [(s.outcome, s.meta["string_match"]) for s in pool.members] == [(1.0, True), (None, False)]


@pytest.mark.parametrize(
    ("text", "how", "steps", "separator"),
    [
        ("Step 1: a\nStep 2: b", "step", ("Step 1: a", "Step 2: b"), "\n"),
        ("Step 1: a\n\nStep 2: b\nStep 3: c", "step", ("Step 1: a\n", "Step 2: b", "Step 3: c"), "\n"),
        ("So.\n\nStep 1: a", "step", ("So.", "Step 1: a"), "\n\n"),
        ("\nStep 1: a Step 2: b", "step", ("\nStep 1: a", "Step 2: b"), " "),
        ("a\n\n\n\nb\n\nc", "paragraph", ("a\n\n", "b", "c"), "\n\n"),
        ("\n\na\n\nb\n\n", "paragraph", ("\n\na", "b\n\n"), "\n\n"),
        ("a\nb", "line", ("a", "b"), "\n"),
        ("a\nb", "whole", ("a\nb",), "\n\n"),
        ("a\n\nb\nc", "auto", ("a", "b\nc"), "\n\n"),
        ("a\nb", "auto", ("a", "b"), "\n"),
        ("Step 1: a\n\nb", "auto", ("Step 1: a", "b"), "\n\n"),
    ],
)
def test_splitting(text: str, how: Any, steps: tuple[str, ...], separator: str) -> None:
    assert split_text(text, how) == (steps, separator)
    assert separator.join(steps) == text
