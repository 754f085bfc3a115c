"""Best-of-N: expectations against enumeration, votes, ties, controls, what has no score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prm_judge import pool, prompt, scored, solution

from prmkit.data.step_scores import Aggregate, aggregate, log_aggregate, ranked
from prmkit.data.types import Group, Solution, StepRewards
from prmkit.evaluate.accuracy import pass_at_k
from prmkit.evaluate.prm.best_of_n import (
    Values,
    answer_numbers,
    choices,
    controls,
    draws,
    expected_pick,
    make_pools,
    same_answer,
    vote,
    vote_weight,
)
from prmkit.evaluate.prm.scored import Scored

members = st.lists(
    st.tuples(st.sampled_from([0.1, 0.4, 0.4, 0.9, None]), st.sampled_from([0.0, 1.0, 0.5])), min_size=1, max_size=6
)


def pick_by_enumeration(scores: Sequence[float | None], outcomes: Sequence[float], n: int) -> float:
    values = []
    for chosen in combinations(range(len(scores)), n):
        best = max((s for k in chosen if (s := scores[k]) is not None), default=None)
        winners = [outcomes[k] for k in chosen if best is not None and scores[k] == best]
        values.append(fmean(winners) if winners else 0.0)
    return fmean(values)


@given(members, st.integers(1, 6))
def test_the_expected_pick_equals_enumeration(rows: list[tuple[float | None, float]], n: int) -> None:
    scores, outcomes = [s for s, _ in rows], [o for _, o in rows]
    n = min(n, len(rows))
    assert expected_pick(scores, outcomes, n) == pytest.approx(pick_by_enumeration(scores, outcomes, n))


def test_the_expected_pick_by_hand() -> None:
    # of 0.9 (wrong), 0.5 (right), 0.1 (right), two are drawn: the 0.9 is in 2 of 3 pairs, 0.5 is best of the third
    assert expected_pick([0.9, 0.5, 0.1], [0.0, 1.0, 1.0], 2) == pytest.approx(1 / 3)


@given(members)
def test_the_order_of_a_pool_does_not_matter(rows: list[tuple[float | None, float]]) -> None:
    turned = rows[::-1]
    for n in range(1, len(rows) + 1):
        there = expected_pick([s for s, _ in rows], [o for _, o in rows], n)
        assert expected_pick([s for s, _ in turned], [o for _, o in turned], n) == pytest.approx(there)


def values_at(found: Values, n: int) -> list[float]:
    return [tally.counts[0] for tally in found[n]]


POOL = pool("q", [(0.9, 0.0, "7"), (0.8, 1.0, "5"), (0.7, 1.0, "5"), (0.1, 0.0, "3")])


def run(groups: list[Group[Solution]], n_values: Sequence[int] = ()) -> tuple[dict[str, Values], dict[str, Values]]:
    pools = make_pools(groups, n_values=n_values)
    rows = scored([member for group in groups for member in group.members])
    return controls(pools, num_draws=50, seed=0), choices(pools, rows, aggregates=("min",), num_draws=50, seed=0)


def test_controls_by_hand() -> None:
    base, found = run([POOL])
    assert sorted(base) == ["longest", "majority", "pass", "random", "shortest"]
    for n in (1, 2, 4):
        assert values_at(base["pass"], n) == pytest.approx([pass_at_k(4, 2, n)])
        assert values_at(base["random"], n) == pytest.approx([0.5])
    # at 4: 5 has two votes; best min takes 0.9; the weighted vote has 0.9 against 0.8 + 0.7
    assert values_at(base["majority"], 4) == [1.0]
    assert values_at(found["best min"], 4) == [0.0]
    assert values_at(found["vote min"], 4) == [1.0]
    # at 2, of 6 pairs: (7,5) (7,5) (7,3) (5,5) (5,3) (5,3): majority 0.5 0.5 0 1 0.5 0.5, weighted 0 0 0 1 1 1
    assert values_at(base["majority"], 2) == pytest.approx([3 / 6])
    assert values_at(found["vote min"], 2) == pytest.approx([3 / 6])


def test_choosing_one_of_one_is_a_random_choice_for_every_method() -> None:
    base, found = run([POOL])
    for values in (*base.values(), *found.values()):
        assert values_at(values, 1) == pytest.approx([0.5])


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=7),
    st.sampled_from([0.3, 1.0, 7.0]),
)
def test_a_vote_with_equal_weights_is_a_majority_vote(rows: list[tuple[str | None, float]], weight: float) -> None:
    answers = answer_numbers([answer for answer, _ in rows], same_answer)
    outcomes = [outcome for _, outcome in rows]
    chosen = range(len(rows))
    counts = {a: answers.count(a) for a in set(answers) - {None}}
    most = max(counts.values(), default=0)
    winners = [
        fmean(o for o, b in zip(outcomes, answers, strict=True) if b == a) for a, c in counts.items() if c == most
    ]
    expected = fmean(winners) if winners else fmean(outcomes)  # nobody votes: a random solution
    assert vote(chosen, answers, [weight] * len(rows), outcomes, [0.0] * len(rows)) == pytest.approx(expected)


def test_without_an_answer_to_vote_for_the_highest_score_is_taken() -> None:
    assert vote([0, 1], [None, None], [0.2, 0.9], [0.0, 1.0], [0.2, 0.9]) == 1.0


def test_what_has_no_score_is_never_picked_and_a_draw_without_scores_has_failed() -> None:
    right = solution([0.9], question="q", name="a", outcome=1.0, answer="5")
    unscored = Solution(id="b", prompt=prompt("q"), steps=("?",), outcome=1.0, answer="5")
    wrong = solution([0.1], question="q", name="c", outcome=0.0, answer="3")
    group: Group[Solution] = Group(prompt=prompt("q"), members=[right, unscored, wrong])
    base, found = run([group], n_values=(1, 2))
    # draws of 1: right 1, unscored failed, wrong 0; of 2: (right, unscored) 1, (right, wrong) 1, (unscored, wrong) 0
    assert values_at(found["best min"], 1) == pytest.approx([1 / 3])
    assert values_at(found["best min"], 2) == pytest.approx([2 / 3])
    assert values_at(found["vote min"], 2) == pytest.approx([2 / 3])
    assert values_at(base["random"], 1) == pytest.approx([2 / 3])  # controls need no score


def test_solutions_without_an_outcome_are_in_no_pool_and_small_pools_at_no_n() -> None:
    undecided = [pool("u", [(0.5, 1.0, "1")] * 2)]
    undecided[0] = Group(
        prompt=prompt("u"), members=[*undecided[0].members, solution([0.9], question="u", name="x", answer="2")]
    )
    made = make_pools([POOL, pool("r", [(0.5, 1.0, "1")] * 4), *undecided])
    assert (made.undecided, made.too_small, made.n_values) == (1, 1, (1, 2, 4))
    assert [[m.index for m in kept.members] for kept in made.pools] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_solutions_can_be_left_out_for_everybody() -> None:
    made = make_pools([POOL], leave_out={0})
    assert (made.unscored, made.n_values) == (1, (1, 2))
    assert [m.index for m in made.pools[0].members] == [1, 2, 3]
    base = controls(made, num_draws=50, seed=0)
    assert values_at(base["random"], 1) == pytest.approx([2 / 3])


def test_scores_are_found_by_position_after_undecided_solutions() -> None:
    first = solution([0.5], question="q", name="a", answer="1")  # no outcome
    rest = [(0.1, 1.0, "1"), (0.9, 0.0, "2")]
    group: Group[Solution] = Group(prompt=prompt("q"), members=[first, *pool("q", rest).members])
    _, found = run([group], n_values=(2,))
    assert values_at(found["best min"], 2) == [0.0]  # 0.9 is the wrong one


def test_equal_answers_are_counted_together() -> None:
    assert answer_numbers(["0.5", r"\frac{1}{2}", "1/2", "2", None, " "], same_answer) == [0, 0, 0, 1, None, None]
    assert answer_numbers(["x", "X"], lambda a, b: a.lower() == b.lower()) == [0, 0]


def test_the_reward_that_came_with_the_pool_is_a_control() -> None:
    group = pool("q", [(0.1, 1.0, "5"), (0.9, 0.0, "3")])
    rewards = (4.5, -2.0)
    rated: Group[Solution] = Group(
        prompt=prompt("q"),
        members=[
            solution([float(m.steps[0])], question="q", outcome=m.outcome, answer=m.answer, meta={"reward": reward})
            for m, reward in zip(group.members, rewards, strict=True)
        ],
    )
    base, _ = run([rated])
    assert values_at(base["pool reward"], 2) == [1.0]
    assert values_at(base["pool reward vote"], 2) == [1.0]


def test_draws_are_all_subsets_where_few_and_the_same_seeded_ones_otherwise() -> None:
    assert draws(4, 2, "q", num=5, seed=0) == list(combinations(range(4), 2))
    first = draws(64, 16, "q", num=5, seed=0)
    assert first == draws(64, 16, "q", num=5, seed=0)
    assert first != draws(64, 16, "q", num=5, seed=1)
    assert all(len(set(chosen)) == 16 for chosen in first)


def test_many_draws_come_near_the_expectation_of_all() -> None:
    group = pool("q", [(0.01 * k, float(k % 3 == 0), str(k % 4)) for k in range(16)])
    pools = make_pools([group], n_values=(6,))  # 8008 subsets
    base = controls(pools, num_draws=2000, seed=3)
    candidates = pools.pools[0].members
    exact = fmean(
        vote(chosen, [m.answer for m in candidates], [1.0] * 16, [m.outcome for m in candidates], [0.0] * 16)
        for chosen in combinations(range(16), 6)
    )
    assert values_at(base["majority"], 6) == pytest.approx([exact], abs=0.03)  # s.e. at most 0.5 / sqrt(2000) = 0.011


def test_weights_of_votes() -> None:
    assert vote_weight(0.7, "min", "probability", 1.0) == 0.7
    assert vote_weight(2.0, "sum", "probability", 1.0) == 2.0
    assert vote_weight(0.0, "sum", "log_ratio", 1.0) == 0.5
    # sigma(20 / 1000) = 0.505: a majority vote whose ties the PRM breaks
    assert vote_weight(20.0, "sum", "log_ratio", 1000.0) == pytest.approx(0.505, abs=1e-4)
    assert vote_weight(0.25, "prod", "log_ratio", 1.0) == 0.25  # a product of sigmoids is a probability already
    assert vote_weight(0.0, "min", "logit", 1000.0) == 0.5


def log_prob_pool(members: Sequence[tuple[Sequence[float], float, str]]) -> Group[Solution]:
    solutions = [
        solution(scores, question="q", name=f"q-{k}", outcome=outcome, answer=answer)
        for k, (scores, outcome, answer) in enumerate(members)
    ]
    return Group(prompt=prompt("q"), members=solutions)


def at_all(group: Group[Solution], aggregates: Sequence[Aggregate]) -> dict[str, float]:
    pools = make_pools([group], n_values=(len(group.members),))
    rows = scored(list(group.members), "log_ratio")
    found = choices(pools, rows, aggregates=aggregates, num_draws=50, seed=0)
    return {name: values_at(values, len(group.members))[0] for name, values in found.items()}


def test_products_too_small_for_a_float_are_compared_in_logs() -> None:
    # e^-800 and less: every product is 0.0 as a float, and so is every vote's weight
    found = at_all(
        log_prob_pool([([-900.0, -5.0], 0.0, "3"), ([-800.0], 1.0, "5"), ([-801.0], 0.0, "4")]), ["prod", "sum"]
    )
    assert found == {"best prod": 1.0, "vote prod": 1.0, "best sum": 1.0, "vote sum": 1.0}
    # two votes of e^-801 each, 2 e^-801 in all, lose to e^-800; three of e^-801 win
    two = [([-800.0], 0.0, "3"), ([-801.0], 1.0, "5"), ([-400.0, -401.0], 1.0, "5")]
    assert at_all(log_prob_pool(two), ["prod"])["vote prod"] == 0.0
    assert at_all(log_prob_pool([*two, ([-801.0], 1.0, "5")]), ["prod"])["vote prod"] == 1.0


def test_a_product_that_a_float_holds_is_above_all_that_it_does_not_and_ties_stay_ties() -> None:
    found = at_all(log_prob_pool([([-700.0], 1.0, "5"), ([-800.0], 0.0, "3"), ([-800.0], 0.0, "3")]), ["prod"])
    assert found == {"best prod": 1.0, "vote prod": 1.0}
    turned = [([-300.5, -500.25], 1.0, "5"), ([-500.25, -300.5], 0.0, "3")]
    assert at_all(log_prob_pool(turned), ["prod"]) == {"best prod": 0.5, "vote prod": 0.5}
    nothing = StepRewards(values=(0.0, 0.5), kind="probability")  # exactly 0, whatever the other steps
    assert ranked(nothing, "prod") == -math.inf
    assert vote([0, 1], [0, 1], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [-math.inf, -math.inf]) == 0.5


@given(st.lists(st.floats(1e-30, 1.0), min_size=1, max_size=9))
def test_a_product_that_a_float_holds_is_compared_as_it_is(values: list[float]) -> None:
    rewards = StepRewards(values=tuple(values), kind="probability")
    assert ranked(rewards, "prod") == aggregate(rewards, "prod")
    assert log_aggregate(rewards, "prod") == pytest.approx(math.log(aggregate(rewards, "prod")))


def test_a_constant_scorer_is_a_random_choice() -> None:
    group = pool("q", [(0.5, 1.0, "5"), (0.5, 0.0, "3"), (0.5, 0.0, "4"), (0.5, 1.0, "5")])
    _, found = run([group])
    assert values_at(found["best min"], 4) == [0.5]
    assert values_at(found["vote min"], 4) == [1.0]


def test_scored_rows_keep_their_order() -> None:
    rows: list[Scored] = scored(list(POOL.members))
    assert [row.index for row in rows] == [0, 1, 2, 3]
