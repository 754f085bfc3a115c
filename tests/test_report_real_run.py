"""The report of a real run, from the command line to a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import open_page
from test_commands import WIDE, rl
from test_report_page import assert_drawn, embedded


@pytest.mark.slow
def test_a_browser_draws_the_report_that_a_prime_run_writes(tmp_path: Path) -> None:
    recorded = ("--eval-every=1", "--eval-prompts=4", "--record-rollouts-every=1", "--steps=3")
    done = rl(tmp_path, *WIDE, *recorded, preset="prime")
    assert done.code == 0, done.err
    html = tmp_path / "run" / "report.html"
    data = embedded(html.read_text(encoding="utf-8"))
    page = open_page(html, tmp_path, width=1000, dark=False)
    assert_drawn(page, data)
    keys = {name for source in data["runs"][0]["curves"].values() for name in source["values"]}
    assert {"reward", "prm/accuracy", "prm/reward_mean", "entropy", "clip_ratio/region_mean", "kl"} <= keys
    assert {"time/step", "time/sample", "time/prm", "time/policy", "eval/sampled_accuracy"} <= keys
