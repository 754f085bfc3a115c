"""Multiple choice in `prmkit data prepare`: where options end, options of fields, own turns, and what a model is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prepare_setup import Speaker, kept, read, reasons, record, verifier, write

from prmkit.curate.answers import check_answers
from prmkit.curate.choices import choices_step, find_options
from prmkit.curate.config import AnswerConfig, ChoicesConfig, PrepareConfig
from prmkit.curate.opening import model_rewrite
from prmkit.curate.read import read_records
from prmkit.curate.record import Outcome, Record
from prmkit.curate.sampling import Model, ResponseCache
from prmkit.data.types import Message, Prompt, Verdict


def check(records: Any) -> Any:
    return check_answers(records, AnswerConfig(), verifier())


def opened(*records: Record, **options: Any) -> Outcome:
    return choices_step(ChoicesConfig(**options), check)(records)


@pytest.mark.parametrize(
    "rest",
    ["\nwhere $x=3$.", "\n\nChoose the correct option.", "\nwhere\n$x=3$"],
)
@pytest.mark.parametrize("answer", ["B", "C"])
def test_text_after_the_options_may_belong_to_the_question(rest: str, answer: str) -> None:
    question = f"What is $x+4$? (A) 5 (B) 6 (C) 7{rest}"
    found = find_options(question)
    assert found is not None
    assert dict(found.texts) == {"A": "5", "B": "6", "C": "7"}
    assert reasons(opened(record(question, answer, name="q"))) == {"q": "needs_options"}


@pytest.mark.parametrize("rest", ["\n", "\n$", "\n\\]", "\n \\end{enumerate}\n"])
def test_ends_of_formulas_below_the_options_are_no_text(rest: str) -> None:
    (found,) = opened(record(f"What is $3+4$? (A) 5 (B) 6 (C) 7{rest}", "C")).kept
    assert (found.question, found.answer) == ("What is $3+4$?", "7")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"choices": ["1", "2", "3", "4"], "answer": 1}, "2"),
        ({"choices": ["1", "2", "3", "4"], "answer": 0}, "1"),
        ({"choices": ["10", "20", "30"], "answer": 20}, "20"),
        ({"choices": ["1", "2", "3", "4"], "answer": "1"}, "1"),
        ({"choices": [str(10 + i) for i in range(12)], "answer": 3}, "13"),
        ({"options": {"D": "5", "A": "2", "B": "4", "C": "3"}, "answer": "B"}, "4"),
        ({"options": {"b": "4", "a": "2", "c": "3", "d": None}, "answer": "B"}, "4"),
        ({"options": {"1": "3", "2": "1", "3": "2"}, "answer": "2"}, "1"),
        ({"options": {"label": ["C", "B", "A"], "text": ["7", "8", "9"]}, "answer": "A"}, "9"),
        ({"options": {"label": ["1", "2", "3"], "text": ["2", "3", "1"]}, "answer": "1"}, "2"),
    ],
)
def test_options_of_a_field_are_read_by_their_labels(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    source = write(tmp_path / "q.jsonl", [{"question": "How many legs has it?", **row}])
    records, _ = read_records(PrepareConfig(source=(str(source),), out="o"))
    (found,) = opened(*records).kept
    assert found.answer == expected


def test_an_index_past_ten_options_is_no_content_that_happens_to_be_equal(tmp_path: Path) -> None:
    row = {"question": "How many?", "choices": [str(30 - i) for i in range(25)], "answer": 20}
    records, _ = read_records(PrepareConfig(source=(str(write(tmp_path / "q.jsonl", [row])),), out="o"))
    assert records[0].answer == "10"
    assert list(reasons(opened(*records)).values()) == ["answer_is_no_option"]


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["J. K. Rowling", "C. S. Lewis", "D. H. Lawrence"], ["J. K. Rowling", "C. S. Lewis", "D. H. Lawrence"]),
        (["A. A. Milne", "C. S. Lewis"], ["A. A. Milne", "C. S. Lewis"]),
        (["A. 5", "B) 6", "(C) 7"], ["5", "6", "7"]),
        (["B. 5", "A. 6"], ["B. 5", "A. 6"]),
        (["U.S.A.", " Rome, Inc. "], ["U.S.A.", "Rome, Inc."]),
    ],
)
def test_only_letters_that_number_the_options_are_taken_off(options: list[str], texts: list[str]) -> None:
    found = find_options("Which?", {"options": options})
    assert found is not None
    assert list(found.texts.values()) == texts


FIELD = {"options": ["5", "6", "7"]}
ASKED = "What is $3+4$?"


@pytest.mark.parametrize(
    "turns",
    [
        [f"Pick a letter. {ASKED}\nA) 5\nB) 6\nC) 7"],
        [f"{ASKED}\n- 5\n- 6\n- 7"],
        [f"{ASKED} (A) 5 (B) 6 (C) 7"],
        ["Reply with the letter alone.", ASKED],
        [f"What is\n{ASKED[8:]}\n5, 6 or 7"],
    ],
)
def test_a_rows_own_turns_may_not_go_on_showing_options(turns: list[str]) -> None:
    messages = tuple(Message(role="user", content=turn) for turn in turns)
    outcome = opened(record(ASKED, "C", name="q", messages=messages, row=FIELD))
    assert reasons(outcome) == {"q": "turns_show_options"}


def test_other_words_in_a_rows_own_turns_stay() -> None:
    turns = (
        Message(role="system", content="Think first."),
        Message(role="user", content=f"{ASKED}\nUse a box. There are 5 minutes."),
    )
    (found,) = opened(record(ASKED, "C", messages=turns, row=FIELD)).kept
    assert found.messages == turns


REPLY = f"Convertible: yes\nQuestion:\n{ASKED}\nSolution:\nIt is \\boxed{{7}}."


def rewritten(folder: Path, reply: str, *records: Record, judge: Any = None) -> tuple[Outcome, Speaker]:
    speaker = Speaker({"": [reply]})
    config = ChoicesConfig(by="model")
    rewrite = model_rewrite(
        config,
        lambda: Model(sampler=speaker, identity={}, name="m"),
        ResponseCache(folder / "c.sqlite"),
        judge or verifier(),
        seed=0,
        on_progress=lambda done, total: None,
    )
    return choices_step(config, check, rewrite)(records), speaker


def test_a_model_is_shown_the_options_of_a_field_and_the_right_one(tmp_path: Path) -> None:
    outcome, speaker = rewritten(tmp_path, REPLY, record(ASKED, "C", name="q", row=FIELD))
    assert kept(outcome) == ["q"]
    assert f"{ASKED}\n(A) 5\n(B) 6\n(C) 7\n---- solution\nThe answer is (C) 7.\n" in speaker.asked[0]


def test_options_in_the_text_are_shown_once(tmp_path: Path) -> None:
    _, speaker = rewritten(tmp_path, REPLY, record(f"{ASKED} (A) 5 (B) 6 (C) 7", "C", name="q"))
    assert speaker.asked[0].count("(B)") == 1


@pytest.mark.parametrize(
    ("thinking", "reason"),
    [("<think>Convertible: no</think>\n", None), ("hm, yes</think>", None), ("<think>hm\n", "reply_unreadable")],
)
def test_thinking_is_no_reply(tmp_path: Path, thinking: str, reason: str | None) -> None:
    outcome, _ = rewritten(tmp_path, thinking + REPLY, record(ASKED, "C", name="q", row=FIELD))
    assert reasons(outcome).get("q") == reason


def test_a_rewritten_answer_that_cannot_be_compared_is_not_called_another(tmp_path: Path) -> None:
    class Late:
        def verify(self, responses: list[tuple[Prompt, str]]) -> list[Verdict]:
            return [Verdict(status="timeout", reward=None, detail="5 s") for _ in responses]

    outcome, _ = rewritten(tmp_path, REPLY, record(ASKED, "C", name="q", row=FIELD), judge=Late())
    assert reasons(outcome) == {"q": "rewritten_undecided"}
    assert outcome.dropped[0].detail.endswith("timeout: 5 s")


@pytest.mark.parametrize("by_model", [False, True])
def test_rows_of_one_id_are_not_mixed_up(tmp_path: Path, by_model: bool) -> None:
    """Steps may be handed records by other code than the reader, which numbers equal ids."""
    rows = [
        record("What is $3+4$?", "C", name="q", row=FIELD),
        record("What is $1+1$?", "B", name="q", row={"options": ["1", "2", "3"]}),
    ]
    if not by_model:
        assert [(r.question, r.answer) for r in opened(*rows).kept] == [(ASKED, "7"), ("What is $1+1$?", "2")]
        return
    outcome, _ = rewritten(tmp_path, REPLY, *rows)
    assert [(r.question, r.answer) for r in outcome.kept] == [(ASKED, "7")]
    assert [(drop.reason, drop.record.row) for drop in outcome.dropped] == [("answer_changed", rows[1].row)]


def test_the_turns_of_the_prompts_that_are_written_have_no_options(tmp_path: Path) -> None:
    from prepare_setup import prepare

    turns = [{"role": "user", "content": f"{ASKED} (A) 5 (B) 6 (C) 7"}]
    source = write(
        tmp_path / "q.jsonl",
        [{"messages": turns, "answer": "C"}, {"question": ASKED, **FIELD, "answer": "C", "messages": turns}],
    )
    assert prepare(tmp_path, f"--source={source}", "--steps", "choices") == 0
    (written,) = read(tmp_path / "out" / "prompts.jsonl")
    (dropped,) = read(tmp_path / "out" / "dropped.jsonl")
    assert written["messages"] == [{"role": "user", "content": ASKED}]
    assert (dropped["id"], dropped["reason"]) == ("q.jsonl:2", "turns_show_options")


def test_an_opened_question_is_multiple_choice_no_longer_for_the_verifier_of_the_run(tmp_path: Path) -> None:
    from prepare_setup import prepare

    from prmkit.config import TaskConfig
    from prmkit.tasks.task import load_task

    row = {"question": ASKED, "choices": ["5", "6", "7"], "answer": "C", "data_source": "sums"}
    source = write(tmp_path / "q.jsonl", [row])
    assert prepare(tmp_path, f"--source={source}", "--steps", "choices") == 0
    (written,) = read(tmp_path / "out" / "prompts.jsonl")
    assert written["prepare"]["choices"]["was"] == {"question": ASKED, "answer": "C", "choices": row["choices"]}
    (prompt,) = load_task(TaskConfig(name="math", train=str(tmp_path / "out" / "prompts.jsonl")), seed=0).train
    assert (prompt.answer, prompt.meta) == ("7", {"data_source": "sums"})
