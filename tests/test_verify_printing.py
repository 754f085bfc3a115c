"""What a user's function prints has no part in its verdict, wherever the print goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prmkit.data.types import Prompt
from prmkit.verify import FunctionVerifier
from prmkit.verify.pool import _printed

JUDGE = """
import sys
def judge(prompt, text):
    for stream in (sys.stdout, sys.stderr):
        print("judged \\u03c0", text, "x" * 10_000, file=stream, flush=True)
    return float(text == "right")
"""


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Standard error goes to a full disk."""
    before, full = os.dup(2), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 2)
    yield
    os.dup2(before, 2)
    os.close(before)
    os.close(full)


@pytest.mark.usefixtures("full_disk")
def test_verdicts_stand_where_the_log_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "printing.py").write_text(JUDGE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    prompt = Prompt(id="p", messages=(), answer="")
    with FunctionVerifier("printing:judge", workers=1, timeout_s=60.0) as verifier:
        assert [verdict.reward for verdict in verifier.verify([(prompt, "right"), (prompt, "wrong")])] == [1.0, 0.0]


def test_what_a_log_cannot_show_is_escaped() -> None:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as log, open(reader, encoding="ascii") as shown:
        print("judged \u03c0", file=_printed(log))
        assert shown.readline() == "judged \\u03c0\n"
        shown.close()
        print("nobody reads", file=_printed(log), flush=True)
