"""Progress as lines, where there is no terminal: a number stands beside the step that it was measured at."""

from __future__ import annotations

import pytest

from prmkit.cli.progress import progress_bar


def test_a_line_repeats_no_number_of_an_earlier_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("train", 4, ("loss", "validation/auc")) as step:
        for k, metrics in enumerate(({"loss": 0.5}, {"loss": 0.25, "validation/auc": 0.75}, {"loss": 0.125}, {}), 1):
            step(k, metrics)
    assert capsys.readouterr().out.splitlines() == [
        "train 1/4  loss 0.500",
        "train 2/4  loss 0.250  validation/auc 0.750",
        "train 3/4  loss 0.125",
        "train 4/4  ",
    ]


def test_what_was_measured_between_two_lines_names_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    """40 steps make a line at every second one, and the number was measured at step 3."""
    with progress_bar("train", 40, ("loss", "validation/auc")) as step:
        for k in range(1, 7):
            step(k, {"loss": k / 8} | ({"validation/auc": 0.75} if k == 3 else {}))
    assert capsys.readouterr().out.splitlines() == [
        "train 2/40  loss 0.250",
        "train 4/40  loss 0.500  validation/auc 0.750 (step 3)",
        "train 6/40  loss 0.750",
    ]
