"""Questions that are there twice, in the source or in an evaluation set: against brute force, and pair by pair."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_setup import is_linear, kept, reasons, record, verifier, write

from prmkit.curate.config import ContaminationConfig, DuplicatesConfig
from prmkit.curate.contamination import contamination_step
from prmkit.curate.duplicates import duplicates_step, similar_pairs
from prmkit.curate.record import Outcome, Record
from prmkit.curate.words import key, spoken, words
from prmkit.data.types import Message, Verdict
from prmkit.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("What is $2+3$?", "what  is 2 + 3 ?", True),
        (r"Find $\dfrac{1}{2}\left(x\right)$.", r"Find $\frac{1}{2} (x)$", True),
        ("Find x-1.", "Find x+1.", False),
        ("Find 3.5 apples", "Find 35 apples", False),
        ("Find $x_1$", "Find $x_2$", False),
        ("The point (0,3)", "the point $(0, 3)$", True),
        ("1,000,000 km", "1000000 km.", True),
        (r"$1{,}000$ km", "1\u202f000 km", False),
        (r"$1{,}000$ km", r"1\,000 km", True),
        ("\u5c0f\u660e\u67093\u4e2a\u82f9\u679c\u3002", "\u5c0f\u660e\u6709 3 \u4e2a\u82f9\u679c", True),
        ("\uff12\uff0b\uff13", "2+3", True),
        ("Zeros of $100!$.", "Zeros of $100$.", False),
        ("Simplify $(n + 1)! / n!$", "Simplify $(n+1)!/n$", False),
        ("Find $n !$", "find n!", True),
        ("Well done! Find 2.", "Well done. Find 2.", True),
        ("x != 5", "x = 5", False),
        ("Find $f'(2)$.", "Find $f(2)$.", False),
        ("Find $f''(2)$.", "Find $f'(2)$.", False),
        ("Find $f\u2032(2)$.", "Find $f'(2)$.", True),
        ("The triangle $A'BC$", "The triangle $ABC$", False),
        ("Ann's cat isn't here", "ann\u2019s cat isn\u2019t here", True),
        ("What is 2\u00b3?", "What is 23?", False),
        ("What is 10\u00b2?", "What is $10^2$?", True),
        ("What is 10\u207b\u00b2?", "What is 10^-2?", True),
        ("Convert 101\u2082", "Convert 1012", False),
        ("How many is 1\u00bd?", "How many is 1 1/2?", True),
        ("How many is 1\u00bd?", "How many is 11/2?", False),
        ("Compute .5 + .5", "Compute 5 + 5", False),
        ("Compute .5 + .5", "Compute 0.5+0.5", True),
        ("Compute 1...5", "Compute 1, ..., 5", True),
        ("gcd(12,345)", "gcd(12345)", False),
        ("gcd(12,345)", "gcd(12, 345)", True),
        ("Add $(2,100)$ and $(1,3)$", "Add $(2100)$ and $(1,3)$", False),
        ("The interval $[1,200)$", "The interval $[1200)$", False),
        (r"The set $\{1,200\}$", r"The set $\{1200\}$", False),
        ("The numbers 1,2,300", "The numbers 1,2300", False),
        ("f(1,234,g(5),678)", "f(1234,g(5),678)", False),
        (r"f(1{,}000)", "f(1000)", True),
        (r"\frac{1,000}{3}", r"\frac{1000}{3}", True),
        (r"Take \(1,000\) and \[x, y\]", "Take $1000$ and $$x, y$$", True),
        ("2**3", "2*3", False),
        ("2**n", "2*n", False),
        ("4 * 3", r"4 \cdot 3", True),
        ("Find **two** numbers", "Find two numbers", True),
        ("\u0995\u09a4 \u099f\u09be\u0995\u09be", "\u0995\u09bf \u099f\u09be\u0995\u09bf", False),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u0937", True),
    ],
)
def test_spelling_is_left_out_and_content_is_not(a: str, b: str, same: bool) -> None:
    assert (key(a) == key(b)) == same


def test_scripts_without_spaces_have_a_word_for_each_character() -> None:
    assert words("\u5c0f\u660e\u670912\u4e2a") == ["\u5c0f", "\u660e", "\u6709", "12", "\u4e2a"]


@pytest.mark.parametrize(
    "text",
    [
        "\u0915\u093f\u0938\u093e\u0928 \u092a\u093e\u0901\u091a \u0917\u093e\u092f\u0947\u0902 \u0939\u0948\u0902",  # Hindi
        "\u09b0\u09be\u09ae\u09c7\u09b0 \u0995\u09be\u099b\u09c7 \u0995\u09a4 \u099f\u09be\u0995\u09be",  # Bengali
        "\u0b8e\u0ba4\u0bcd\u0ba4\u0ba9\u0bc8 \u0b89\u0bb3\u0bcd\u0bb3\u0ba9",  # Tamil
    ],
)
def test_vowel_signs_belong_to_their_word(text: str) -> None:
    assert words(text) == spoken(words(text)) == text.split()


@pytest.mark.parametrize("part", ["(", "(1,", "1,", "100{,}", "1 * ", "!", "'", ").", "\\{,", "\u0915\u093f", "\u00b2"])
def test_words_take_linear_time(part: str) -> None:
    assert is_linear(lambda count: words(part * count), 4_000)


def jaccard(a: list[str], b: list[str], n: int) -> float:
    """By the definition, on sets of tuples."""
    sets = [{tuple(x[i : i + n]) for i in range(len(x) - n + 1)} or {tuple(x)} for x in (a, b)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), max_size=8),
    st.integers(1, 3),
    st.sampled_from([0.3, 0.5, 2 / 3, 0.8, 1.0]),
)
def test_no_similar_pair_is_missed_and_none_is_made_up(texts: list[list[str]], n: int, least: float) -> None:
    found = [(i, j) for i, j, _ in similar_pairs(texts, n=n, least=least)]
    every = [(i, j) for j in range(len(texts)) for i in range(j) if jaccard(texts[i], texts[j], n) >= least - 1e-9]
    assert found == every


def deduplicated(*records: Record, **options: Any) -> Outcome:
    return duplicates_step(DuplicatesConfig(**options), verifier())(records)


def test_the_first_of_equal_questions_stays() -> None:
    rows = [record("What is 2+2?", "4", "a"), record("what is $2 + 2$", "4.0", "b"), record("What is 2-2?", "0", "c")]
    outcome = deduplicated(*rows)
    assert (kept(outcome), reasons(outcome)) == (["a", "c"], {"b": "duplicate"})
    assert outcome.dropped[0].more == {"same_as": {"id": "a", "source": "q.jsonl:a"}}


CONFLICT = [
    record("What is 2+2?", "4", "a"),
    record("What is 2+2", r"\frac{8}{2}", "b"),
    record("what is 2+2?", "5", "c"),
]


@pytest.mark.parametrize(
    ("mode", "dropped"),
    [
        ("drop", {"a": "conflict", "b": "conflict", "c": "conflict"}),
        ("first", {"b": "duplicate", "c": "conflict"}),
        ("keep", {"b": "duplicate"}),
    ],
)
def test_one_question_with_different_answers(mode: str, dropped: dict[str, str]) -> None:
    outcome = deduplicated(*CONFLICT, conflicts=mode, near=0)
    assert reasons(outcome) == dropped
    details = [drop.detail for drop in outcome.dropped if drop.reason == "conflict"]
    assert all("'4' (q.jsonl:a), '5' (q.jsonl:c)" in detail for detail in details)


LONG = "A train leaves the station at 9 and drives for 4 hours at a speed of 80 km per hour until it stops. How far is that?"


def test_near_duplicates_have_the_same_numbers_and_the_same_answer() -> None:
    rows = [
        record(LONG, "320", "first"),
        record(LONG.replace("drives", "travels"), "320", "near"),
        record(LONG.replace("80", "90"), "360", "numbers"),
        record(LONG.replace("far", "long"), "4", "other"),
    ]
    outcome = deduplicated(*rows, near=0.7)
    assert reasons(outcome) == {"near": "near_duplicate"}
    assert outcome.notes["near duplicates with another answer, kept"] == 1
    # 27 words have 25 trigrams; another word in the middle changes 3 of them: 22 of 28 are shared
    assert f"similarity {22 / 28:.3f}" in outcome.dropped[0].detail
    assert len(words(LONG)) == 27
    assert kept(deduplicated(*rows, near=0.8)) == ["first", "near", "numbers", "other"]
    template = [record(LONG, "320", "first"), record(LONG.replace("80", "90"), "320", "variant")]
    assert reasons(deduplicated(*template, near=0.7, same_numbers=False)) == {"variant": "near_duplicate"}


def test_what_is_near_only_to_a_dropped_question_stays() -> None:
    tokens = [a + b for a in "abcde" for b in "klmnopqr"]
    texts = [tokens, [*tokens[:39], "x"], [*tokens[:38], "y", "x"]]
    rows = [record(" ".join(text), "5", str(i)) for i, text in enumerate(texts)]
    # trigrams shared of 38: 37 (37/39 = 0.949), 36 with the second (36/40 = 0.9), 36 with the first (0.9)
    assert reasons(deduplicated(*rows, near=0.93)) == {"1": "near_duplicate"}


EVALUATION = [
    {"unique_id": "e/1", "problem": LONG, "answer": "320"},
    {"unique_id": "e/2", "problem": "Compute $2+2$.", "answer": "4"},
]


def test_evaluation_questions_are_found_whole_and_in_part(tmp_path: Path) -> None:
    path = write(tmp_path / "eval.jsonl", EVALUATION)
    rows = [
        record(f"Listen. {LONG} And how long?", name="part"),
        record("compute 2 + 2", name="whole"),
        record("Compute $2+2$ and double it.", name="short"),
        record("A train leaves the station at 9 and drives for 4 hours or so.", name="twelve"),
    ]
    outcome = contamination_step(ContaminationConfig(against=(f"math500={path}",)))(rows)
    assert reasons(outcome) == {"part": "overlap", "whole": "same_question"}
    first = outcome.dropped[0].more["evaluation"]
    assert (first["set"], first["id"], first["source"]) == ("math500", "e/1", f"{path}:1")
    assert first["words"] == "a train leaves the station at 9 and drives for 4 hours at"
    assert outcome.notes["evaluation questions compared with"] == 2


def test_short_evaluation_questions_are_found_within_others(tmp_path: Path) -> None:
    path = write(tmp_path / "eval.jsonl", [{"question": "Factor $x^2+2$.", "answer": "1"}])
    rows = [
        record("Factor $x^2+2$.\n\nPresent the answer in LaTex format: \\boxed{Your answer}", name="suffix"),
        record("Question: factor x^2 + 2", name="prefix"),
        record("Factor $x^2+2x+1$.", name="longer formula"),
        record("Factor $x^2+3$ and add 2.", name="other"),
    ]
    outcome = contamination_step(ContaminationConfig(against=(str(path),)))(rows)
    assert reasons(outcome) == {"suffix": "overlap", "prefix": "overlap"}
    assert outcome.dropped[0].more["evaluation"]["words"] == "factor x ^ 2 + 2"


def test_the_last_turn_is_compared_where_it_is_not_the_question(tmp_path: Path) -> None:
    path = write(tmp_path / "eval.jsonl", EVALUATION)
    rows = [
        record("See the turns", name=name, messages=(Message(role="user", content=text),))
        for name, text in (("long", LONG), ("short", "Compute 2+2."), ("other", "Compute 2+3."))
    ]
    outcome = contamination_step(ContaminationConfig(against=(str(path),)))(rows)
    assert reasons(outcome) == {"long": "same_question", "short": "same_question"}


def test_only_the_named_part_of_an_evaluation_set_counts(tmp_path: Path) -> None:
    rows = [
        {"lang": code, "id": 1, "question": text, "answer": "3"}
        for code, text in (("en", "One plus two?"), ("de", "Eins?"))
    ]
    path = write(tmp_path / "mgsm.jsonl", rows)
    outcome = contamination_step(ContaminationConfig(against=(f"mgsm:de={path}",)))(
        [record("One plus two?"), record("Eins?")]
    )
    assert reasons(outcome) == {"Eins?": "same_question"}
    assert outcome.dropped[0].more["evaluation"]["set"] == "mgsm:de"
    with pytest.raises(DataError, match="has no question"):
        contamination_step(ContaminationConfig(against=(f"mgsm:fr={path}",)))


def test_thirteen_words_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "eval.jsonl", [{"question": "a b c d e f g h i j k l m n o", "answer": "1"}])
    rows = [record("x a b c d e f g h i j k l y", name="12"), record("x a b c d e f g h i j k l m y", name="13")]
    step = contamination_step(ContaminationConfig(against=(str(path),)))
    assert reasons(step(rows)) == {"13": "overlap"}
    assert reasons(contamination_step(ContaminationConfig(against=(str(path),), n=12))(rows)) == {
        "12": "overlap",
        "13": "overlap",
    }


AREA = "The area of a regular hexagon with side length three that is drawn around a circle of unknown radius"


def test_phrases_of_the_field_count_for_nothing(tmp_path: Path) -> None:
    phrase = "can be written as m over n where m and n are relatively prime integers"
    path = write(tmp_path / "eval.jsonl", [{"question": f"{AREA} {phrase}", "answer": "1"}])
    rows = [record(f"Variant {i} {phrase}", name=str(i)) for i in range(4)]
    assert kept(contamination_step(ContaminationConfig(against=(str(path),), common=3))(rows)) == ["0", "1", "2", "3"]
    assert kept(contamination_step(ContaminationConfig(against=(str(path),), common=4))(rows)) == []
    assert kept(contamination_step(ContaminationConfig(against=(str(path),), common=0))(rows)) == []


@pytest.mark.parametrize(
    ("evaluation", "kept_rows"),
    # 15 words of the phrase: of 29 they are more than half, of 31 less
    [
        ("two three four five six seven eight nine ten one two three four", []),
        ("a b c d e f g h i j k l m n o p", None),
    ],
)
def test_an_evaluation_question_that_many_rows_have_is_no_phrase(
    tmp_path: Path, evaluation: str, kept_rows: list[str] | None
) -> None:
    phrase = "can be written as m over n where m and n are relatively prime integers"
    assert len(phrase.split()) == 15
    path = write(tmp_path / "eval.jsonl", [{"question": f"{evaluation} {phrase}", "answer": "1"}])
    rows = [record(f"Variant {i} {phrase}", name=str(i)) for i in range(11)]
    outcome = contamination_step(ContaminationConfig(against=(str(path),)))(rows)
    assert kept(outcome) == ([str(i) for i in range(11)] if kept_rows is None else kept_rows)


@pytest.mark.parametrize("times", [10, 11, 100])
def test_a_whole_evaluation_question_is_found_however_often_it_is_there(tmp_path: Path, times: int) -> None:
    path = write(tmp_path / "eval.jsonl", [{"question": "Other. " * 20 + LONG, "answer": "0"}, *EVALUATION])
    rows = [record(f"{LONG} Use style {i}.", name=str(i)) for i in range(times)]
    outcome = contamination_step(ContaminationConfig(against=(str(path),)))(rows)
    assert set(reasons(outcome).values()) == {"overlap"}
    assert len(outcome.dropped) == times
    assert outcome.dropped[0].more["evaluation"]["words"] == " ".join(words(LONG)[:13])


def chat(name: str, answer: str, *turns: str, system: str = "") -> Record:
    roles = ["user", "assistant"] * len(turns)
    said = [Message(role=role, content=turn) for role, turn in zip(roles, turns, strict=False)]  # type: ignore[arg-type]
    first = [Message(role="system", content=system)] if system else []
    return record(turns[-1], answer, name, messages=(*first, *said))


def test_chats_are_compared_by_all_their_turns(tmp_path: Path) -> None:
    rows = [chat(str(i), str(x + 1), f"Let x = {x}.", "OK", "What is x + 1?") for i, x in enumerate((1, 2, 2))]
    assert reasons(deduplicated(*rows)) == {"2": "duplicate"}
    assert reasons(deduplicated(*rows, same_numbers=False, near=0.3)) == {"2": "duplicate"}
    alone = write(tmp_path / "alone.jsonl", [{"question": "What is x + 1?", "answer": "1"}])
    turns = [{"role": "user", "content": text} for text in ("let x = 2", "ok", "what is x+1")]
    whole = write(tmp_path / "whole.jsonl", [{"messages": turns, "answer": "3"}])
    assert reasons(contamination_step(ContaminationConfig(against=(str(alone),)))(rows)) == {}
    found = reasons(contamination_step(ContaminationConfig(against=(str(whole),)))(rows))
    assert found == {"1": "same_question", "2": "same_question"}


def test_system_turns_hide_no_duplicate_and_make_no_conflict(tmp_path: Path) -> None:
    rows = [
        chat("a", "5", "What is x + 1?", system="Box it."),
        chat("b", "5", "What is x + 1?", system="Think first."),
        chat("c", "6", "What is x + 1?", system="Here x = 5."),
        chat("d", "6", "What is x + 1?", system="Here x = 5."),
        chat("e", "7", "What is x + 1?", system="Here x = 6."),
    ]
    assert reasons(deduplicated(*rows)) == {"b": "duplicate", "d": "duplicate"}
    path = write(tmp_path / "e.jsonl", [{"question": "What is x+1?", "answer": "1"}])
    assert len(contamination_step(ContaminationConfig(against=(str(path),)))(rows).dropped) == 5


class Late:
    """Can decide nothing."""

    def verify(self, responses: list[Any]) -> list[Verdict]:
        return [Verdict(status="timeout", reward=None, detail="5 s") for _ in responses]


@pytest.mark.parametrize("conflicts", ["drop", "first", "keep"])
def test_answers_that_cannot_be_compared_are_no_other_answers(conflicts: Any) -> None:
    rows = [record("What is 1/2+0?", r"\frac{1}{2}", "a"), record("What is 1/2 + 0?", "0.5", "b")]
    outcome = duplicates_step(DuplicatesConfig(conflicts=conflicts), Late())(rows)
    assert reasons(outcome) == ({} if conflicts == "keep" else {"b": "duplicate_undecided"})
    assert all("timeout: 5 s" in drop.detail and "q.jsonl:a" in drop.detail for drop in outcome.dropped)


def test_near_duplicates_whose_answers_cannot_be_compared_stay_and_are_counted() -> None:
    rows = [record(LONG, "320", "a"), record(LONG.replace("drives", "travels"), "320.0 km", "b")]
    outcome = duplicates_step(DuplicatesConfig(near=0.7), Late())(rows)
    assert kept(outcome) == ["a", "b"]
    assert outcome.notes["near duplicates whose answers could not be compared, kept"] == 1
    assert outcome.notes["near duplicates with another answer, kept"] == 0


def test_before_the_step_answer_solutions_are_compared() -> None:
    def solved(name: str, solution: str | None, answer: str = "") -> Record:
        return record("What is 2+3?", answer, name, solution=solution)

    rows = [
        solved("a", r"\boxed{5}"),
        solved("b", r"\boxed{5.0}"),
        solved("c", "", "5"),
        solved("d", "five"),
        solved("e", None),
    ]
    outcome = deduplicated(*rows)
    assert reasons(outcome) == {"b": "duplicate", "c": "duplicate"}
    assert outcome.notes["without an answer, not compared"] == 2
    assert [drop.record for drop in outcome.dropped] == rows[1:3], "as they came"
    other = deduplicated(solved("a", r"\boxed{5}"), solved("b", r"\boxed{7}"))
    assert reasons(other) == {"a": "conflict", "b": "conflict"}
    assert "'5' (q.jsonl:a), '7' (q.jsonl:b)" in other.dropped[0].detail


def test_variants_of_one_template_are_not_all_compared_with_each_other() -> None:
    template = f"Ann has {{}} clips and gives {{}} to her friends. {LONG}"
    rows = [record(template.format(i, i * i), str(i)) for i in range(3000)]
    rows += [record(template.format(7, 49).replace("clips", "pens"), "7", "near")]
    started = time.process_time()
    outcome = deduplicated(*rows, near=0.7)
    assert time.process_time() - started < 8
    assert reasons(outcome) == {"near": "near_duplicate"}


def test_signs_are_no_words_of_an_ngram(tmp_path: Path) -> None:
    formula = r"\[ f(x) = \left\{ \begin{array}{cl} -x + 1 & x < 0 \end{array} \right. \]"
    path = write(tmp_path / "eval.jsonl", [{"question": f"Let {formula} Find $f(3)$.", "answer": "1"}])
    outcome = contamination_step(ContaminationConfig(against=(str(path),)))(
        [record(f"Take {formula} Is it even?", name="a")]
    )
    assert kept(outcome) == ["a"]


def test_without_evaluation_sets_the_step_says_that_it_did_nothing() -> None:
    outcome = contamination_step(ContaminationConfig())([record("Q?")])
    assert "nothing was compared" in outcome.warning


@pytest.mark.parametrize(
    ("against", "kind", "message"),
    [
        ("missing.jsonl", DataError, "contamination.against: missing.jsonl: no such file"),
        (
            "math50=missing.jsonl",
            ConfigError,
            'contamination.against: "math50" in "math50=missing.jsonl" is no task; did you mean',
        ),
        ("mgsm=hub", ConfigError, "give a file, or TASK:PART"),
    ],
)
def test_evaluation_sets_that_cannot_be_read(against: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        contamination_step(ContaminationConfig(against=(against,)))
    assert message in str(caught.value)


def test_an_evaluation_row_without_a_question_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "eval.jsonl", [{"question": "fine", "answer": "1"}, {"text": "other", "answer": "1"}])
    with pytest.raises(DataError, match=rf"{path}:2: no question"):
        contamination_step(ContaminationConfig(against=(str(path),)))
