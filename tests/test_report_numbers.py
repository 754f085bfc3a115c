from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_run import write_fake_run

from prmkit.report.collect import Recorded, Response, read_runs
from prmkit.report.compare import auc, bin_edges, compare, profile, step_means
from prmkit.report.curves import panels, run_curves, thin


def response(rewards: list[float] | None, steps: list[int], outcome: float | None, first_error: int = -1) -> Response:
    return Response(
        prompt_id="p",
        prompt="",
        answer="",
        text="x" * len(steps),
        token_ends=tuple(range(1, len(steps) + 1)),
        step_of_token=tuple(steps),
        outcome=outcome,
        status="ok" if outcome is not None else "unparsed",
        detail="",
        finish="stop",
        process_rewards=None if rewards is None else tuple(rewards),
        advantages=None,
        first_error_step=first_error,
    )


def test_thinning_keeps_means_ends_and_nulls() -> None:
    rows = [{"step": s, "a": a} for s, a in ((1, 1.0), (2, 3.0), (3, None), (4, 5.0), (7, None))]
    # five rows in at most three points: two rows a point; nulls take no part
    assert thin(rows, max_points=3) == {"from": [1, 3, 7], "to": [2, 4, 7], "values": {"a": [2.0, 5.0, None]}}
    assert thin(rows, max_points=5)["values"]["a"] == [1.0, 3.0, None, 5.0, None]
    assert thin([], max_points=3) == {"from": [], "to": [], "values": {}}


@pytest.mark.parametrize("rows", [1, 399, 400, 401, 1000])
def test_thinning_never_exceeds_its_bound_and_covers_every_step(rows: int) -> None:
    columns = thin([{"step": s, "a": 1.0} for s in range(rows)], max_points=400)
    assert len(columns["from"]) <= 400
    assert columns["from"][0] == 0
    assert columns["to"][-1] == rows - 1
    assert all(end + 1 == start for end, start in zip(columns["to"], columns["from"][1:], strict=False))


def test_verdict_counts_become_shares_and_unaccounted_time_is_shown(tmp_path: Path) -> None:
    (run,) = read_runs([write_fake_run(tmp_path / "run", steps=4, with_prm=True, seed=0)])
    curves = run_curves(run, max_points=400)
    verdicts = [curves["metrics"]["values"][f"verdict/{s}"] for s in ("ok", "unparsed", "timeout", "error")]
    assert [sum(shares) for shares in zip(*verdicts, strict=True)] == pytest.approx([1.0] * 4, abs=1e-4)
    assert curves["timings"]["values"]["time/other"] == pytest.approx([0.06] * 4, abs=1e-6)


def test_panels_leave_out_what_no_run_measured(tmp_path: Path) -> None:
    folders = [write_fake_run(tmp_path / str(p), steps=4, with_prm=p, seed=0) for p in (False, True)]
    without, both = read_runs(folders[:1]), read_runs(folders)
    keys = lambda runs: {s["key"] for p in panels([run_curves(r, max_points=9) for r in runs]) for s in p["series"]}  # noqa: E731
    assert keys(both) - keys(without) == {
        "prm/loss", "prm/grad_norm", "prm/accuracy", "prm/reward_mean", "prm/reward_std", "prm/scale",
        "advantage/process_std",
    }  # fmt: skip


def test_a_key_that_no_panel_knows_gets_one_of_its_own() -> None:
    columns = {"metrics": thin([{"step": 1, "my/number": 2.0, "num_tokens": 9.0}], max_points=9)}
    assert [(p["group"], p["title"]) for p in panels([columns])] == [("Other", "my/number")]


def test_step_means_by_hand() -> None:
    # steps 0 and 2 hold tokens: (1 + 2) / 2 = 1.5 and (6) / 1 = 6; step 1 holds none
    assert step_means(response([1, 2, 6], [0, 0, 2], 1.0)) == {0: 1.5, 2: 6}


def test_auc_by_hand() -> None:
    # pairs (2,1) (2,3) (3,1) (3,3): win, loss, win, tie -> (1 + 0 + 1 + 0.5) / 4
    assert auc([2, 3], [1, 3]) == 0.625
    assert auc([1], []) is None
    assert auc([5, 6], [1, 2]) == 1.0


def test_bin_edges_cover_equal_values_too() -> None:
    edges = bin_edges([2.0, 2.0])
    assert (edges[0], edges[-1], len(edges)) == (1.5, 2.5, 21)


def test_profile_interval_by_hand() -> None:
    # values 0 and 2: mean 1, sample variance 2, standard error sqrt(2 / 2) = 1, interval 1 -+ 1.96
    assert profile({3: [0.0, 2.0], 1: [5.0]}) == [
        {"x": 1, "n": 1, "mean": 5.0},
        {"x": 3, "n": 2, "mean": 1.0, "low": pytest.approx(-0.96), "high": pytest.approx(2.96)},
    ]


def test_right_and_wrong_are_compared_and_the_undecided_left_out() -> None:
    responses = (
        response([1.0, 3.0], [0, 1], 1.0),  # mean 2, steps 1 and 3
        response([0.0, -2.0], [0, 1], 0.0, first_error=1),  # mean -1, steps 0 and -2
        response([9.0, 9.0], [0, 1], None),
        response([], [], 1.0),  # an empty response has no process reward
    )
    found = compare([Recorded(step=7, responses=responses)])
    assert found is not None
    (at,) = found["steps"]
    assert at["step"] == 7
    assert (found["response_edges"][0], found["response_edges"][-1]) == (-1.0, 2.0)
    assert (found["step_edges"][0], found["step_edges"][-1]) == (-2.0, 3.0)
    ends = ([1] + [0] * 19, [0] * 19 + [1])
    assert (at["response"]["wrong"], at["response"]["right"]) == ends
    assert at["response"]["auc"] == 1.0
    assert (sum(at["step_mean"]["right"]), sum(at["step_mean"]["wrong"])) == (2, 2)
    # eight places over two steps: four of the first, four of the second
    assert [p["mean"] for p in at["position"]["right"]] == [1.0] * 4 + [3.0] * 4
    assert [(p["x"], p["mean"]) for p in at["around"]] == [(-1, 0.0), (0, -2.0)]


@pytest.mark.parametrize(("rewards", "outcome"), [(None, 1.0), ([1.0], None)])
def test_nothing_to_compare_without_process_rewards_or_verdicts(rewards: Any, outcome: float | None) -> None:
    assert compare([Recorded(step=1, responses=(response(rewards, [0], outcome),))]) is None
    assert compare([]) is None
