"""Majority voting: golden numbers by hand, all subsets gone through, and what two spellings of an answer are."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.data.types import Message, Prompt, Verdict
from prmkit.evaluate.accuracy import clustered, clustered_error
from prmkit.evaluate.responses import Question, Response
from prmkit.evaluate.summary import by_category, majority_at, powers_of_two, vote_key
from prmkit.evaluate.voting import Vote, majority_at_k

A: Vote = ("a", 1.0)
B: Vote = ("b", 0.0)
C: Vote = ("c", 0.0)
SILENT: Vote = (None, 0.0)


def plain_majority(votes: list[Vote], k: int) -> float:
    """Every subset, one after the other."""
    of_key = {key: fmean(r for other, r in votes if other == key) for key, _ in votes if key is not None}
    values = []
    for chosen in combinations(votes, k):
        counts = Counter(key for key, _ in chosen if key is not None)
        most = max(counts.values(), default=0)
        values.append(fmean(of_key[key] for key, count in counts.items() if count == most) if counts else 0.0)
    return fmean(values)


@pytest.mark.parametrize(
    ("votes", "k", "expected"),
    [
        # one of three is right: k = 1 is the mean; k = 2: aB 2 ways a tie of one each, BB wrong -> (2 * 1/2) / 3
        ([A, B, B], 1, 1 / 3),
        ([A, B, B], 2, 1 / 3),
        ([A, B, B], 3, 0.0),
        # aab, aac, abb.. : of [a, a, b, c] k = 3: aab, aac are won (2), abc (2 ways) is a tie of three -> (2 + 2/3) / 4
        ([A, A, B, C], 3, (2 + 2 / 3) / 4),
        # k = 4: two a against one b and one c
        ([A, A, B, C], 4, 1.0),
        # a tie of two at the end: half
        ([A, A, B, B], 4, 0.5),
        # the silent have no vote: one a among three silent wins whenever it is drawn
        ([A, SILENT, SILENT, SILENT], 2, 1 / 2),
        ([SILENT, SILENT], 2, 0.0),
        # partial rewards of one answer are averaged
        ([("a", 1.0), ("a", 0.5), B], 3, 0.75),
    ],
)
def test_golden_numbers(votes: list[Vote], k: int, expected: float) -> None:
    assert majority_at_k(votes, k) == pytest.approx(expected, abs=1e-12)
    assert plain_majority(votes, k) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=80)
@given(keys=st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=8), data=st.data())
def test_it_is_the_mean_over_all_subsets(keys: list[str | None], data: st.DataObject) -> None:
    votes: list[Vote] = [(key, {"a": 1.0, "b": 0.25}.get(key or "", 0.0)) for key in keys]
    k = data.draw(st.integers(1, len(votes)))
    assert majority_at_k(votes, k) == pytest.approx(plain_majority(votes, k), abs=1e-12)
    assert majority_at_k(data.draw(st.permutations(votes)), k) == pytest.approx(majority_at_k(votes, k), abs=1e-12)


def test_many_samples_take_no_time_over_subsets() -> None:
    votes: list[Vote] = [A] * 30 + [(f"w{i}", 0.0) for i in range(34)]
    assert majority_at_k(votes, 64) == 1.0
    assert 0.9 < majority_at_k(votes, 16) < 1.0


@pytest.mark.parametrize("k", [0, 3])
def test_k_is_at_most_the_number_of_responses(k: int) -> None:
    with pytest.raises(ValueError, match=rf"majority@k needs 1 <= k <= n, got k = {k}, n = 2"):
        majority_at_k([A, B], k)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1/2", "0.5", True),
        ("$1{,}000$", "1000", True),
        ("x+1", "X+1", True),
        ("50%", "50", False),
        ("1/3", "0.333", False),
        ("(1,2)", "(2,1)", False),
    ],
)
def test_spellings_of_one_answer(one: str, other: str, same: bool) -> None:
    assert (vote_key(one) == vote_key(other)) is same


def test_words_vote_without_their_articles() -> None:
    assert vote_key("The Eiffel Tower.", "qa") == vote_key("Eiffel tower", "qa")
    assert vote_key("The Eiffel Tower.") != vote_key("Eiffel tower")
    assert vote_key(None, "qa") is None


def response(answer: str | None, reward: float | None, *, cut: bool = False) -> Response:
    verdict = Verdict(status="unparsed", reward=None) if reward is None else Verdict(status="ok", reward=reward)
    return Response(text=answer or "", num_tokens=3, finish="length" if cut else "stop", verdict=verdict, answer=answer)


def question(name: str, members: list[Response], greedy: Response | None = None, **categories: str) -> Question:
    prompt = Prompt(
        id=name, messages=(Message(role="user", content=name),), answer="7", meta={"categories": categories}
    )
    return Question(prompt=prompt, sampled=tuple(members), greedy=greedy)


RIGHT, WRONG, OTHER = response("7", 1.0), response("8", 0.0), response("9", 0.0)
LOST = dataclasses.replace(response(None, None), finish="error")


def test_majority_over_questions_leaves_out_those_with_too_few_judged_samples() -> None:
    questions = [
        question("a", [RIGHT, RIGHT, WRONG]),
        question("b", [RIGHT, WRONG, OTHER]),
        question("c", [RIGHT, response("x", None), response("y", None)]),
    ]
    assert majority_at(questions, 3) == clustered([[1.0], [1 / 3]])
    assert majority_at(questions, 1) == clustered([[2 / 3], [1 / 3], [1.0]])
    assert majority_at(questions, 4) is None
    assert majority_at([question("a", [response(None, 1.0)])], 1) is None, "a program is no single answer"


def test_tables_by_category() -> None:
    questions = [
        question("a", [RIGHT, WRONG], greedy=RIGHT, subject="sums", level="2"),
        question("b", [RIGHT, RIGHT], greedy=WRONG, subject="sums", level="1"),
        question("c", [response("x", None), response("7", 0.0, cut=True)], subject="fractions"),
        question("d", [response("x", None)], subject="sets"),
        question("e", [LOST, LOST], subject="lost"),
        question("f", [LOST, response("7", 0.0, cut=True)], subject="half lost"),
    ]
    rows = {(row.category, row.value): row for row in by_category(questions)}
    assert list(rows) == [
        ("subject", "fractions"),
        ("subject", "half lost"),
        ("subject", "lost"),
        ("subject", "sets"),
        ("subject", "sums"),
        ("level", "1"),
        ("level", "2"),
    ]
    sums = rows["subject", "sums"]
    assert (sums.questions, sums.sampled) == (2, clustered([[1, 0], [1, 1]]))
    assert sums.greedy is not None
    assert (sums.greedy.mean, sums.greedy.num) == (0.5, 2)
    assert rows["subject", "fractions"].truncated_share == 0.5
    assert rows["subject", "half lost"].truncated_share == 1.0, "what never came is no response"
    assert rows["subject", "lost"].truncated_share is None
    assert rows["subject", "fractions"].greedy is None
    assert rows["subject", "sets"].sampled is None


def test_standard_errors_are_clustered_by_question() -> None:
    # means 1 and 0: variance 1/2 over 2 questions -> 1/2, however many samples each has
    assert clustered_error([[1, 1, 1, 1], [0, 0]]) == pytest.approx(0.5)
    assert clustered_error([[1, 0, 1]]) is None


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_sizes_of_subsets(most: int, sizes: list[int]) -> None:
    assert powers_of_two(most) == sizes
