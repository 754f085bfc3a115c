"""Two results in pairs: golden numbers, what may be compared, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from operator import mul
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import pytest

from prmkit.cli.main import main
from prmkit.errors import DataError
from prmkit.evaluate.paired import compare_results, swap_test
from prmkit.evaluate.prm.bootstrap import Resampling

QUICK = Resampling(num=200)


def response(reward: float | None, finish: str = "stop") -> dict[str, Any]:
    return {"text": "", "num_tokens": 1, "finish": finish, "status": "ok", "reward": reward, "detail": ""}


def result(path: Path, questions: Mapping[str, Sequence[float | None]], greedy: bool = True, **changes: Any) -> Path:
    """A result file: rewards of the samples by id; the greedy response has the reward of the first sample."""
    rows = [
        {
            "prompt_id": name,
            "answer": "7",
            "categories": {"subject": "sums" if name < "m" else "sets"},
            "sampled": [response(reward) for reward in rewards],
            "greedy": response(rewards[0]) if greedy else None,
        }
        for name, rewards in questions.items()
    ]
    found = {
        "questions": rows,
        "config": {"samples": 2, "model": {"path": path.stem, "url": ""}, "seed": 0, "out": str(path)},
        "accuracy": {"truncated_share": 0.0},
        "task": {"name": "t", "version": "1", "template": {"name": "plain"}},
        "data_sha256": "d",
        **changes,
    }
    path.write_text(json.dumps(found))
    return path


def test_golden_numbers(tmp_path: Path) -> None:
    a = result(tmp_path / "a.json", {"a": [1, 1], "b": [1, 0], "x": [0, 0], "y": [1, 1]})
    b = result(tmp_path / "b.json", {"y": [1, 1], "a": [0, 0], "b": [1, 0], "x": [1, 0]})
    found = compare_results(a, b, resampling=QUICK)
    average, greedy, sets, sums = found["comparisons"]
    # differences by question: a +1, b 0, x -1/2, y 0 -> mean 1/8; greedy: +1, 0, -1, 0
    assert (average["name"], average["questions"], average["better"], average["worse"]) == ("avg@2", 4, 1, 1)
    assert average["found"]["first"] == pytest.approx(5 / 8)
    assert average["found"]["second"] == pytest.approx(4 / 8)
    assert average["found"]["difference"]["mean"] == pytest.approx(1 / 8)
    assert (greedy["name"], greedy["found"]["difference"]["mean"]) == ("greedy", 0)
    assert (sets["name"], sets["questions"], sets["found"]["difference"]["mean"]) == ("subject: sets", 2, -0.25)
    assert (sums["name"], sums["found"]["difference"]["mean"]) == ("subject: sums", 0.5)
    assert found["differing_config"] == {"model.path": ["a", "b"]}


def test_the_interval_is_one_of_paired_questions(tmp_path: Path) -> None:
    # 40 questions, half of them hard for both; the first is right on 4 more: the pairs see that, two lone numbers do not
    first = {f"{i:02}": [float(i < 24)] * 2 for i in range(40)}
    second = {f"{i:02}": [float(i < 20)] * 2 for i in range(40)}
    a, b = result(tmp_path / "a.json", first), result(tmp_path / "b.json", second)
    found = compare_results(a, b, resampling=Resampling(num=2000))["comparisons"][0]
    interval = found["found"]["difference"]
    assert interval["mean"] == pytest.approx(0.1)
    assert 0 < interval["low"] < 0.05
    assert 0.15 < interval["high"] < 0.25
    # all 4 differences have one sign: 2 of 2^4 sign patterns are as far from 0
    assert found["found"]["p_value"] == pytest.approx(2 / 16)
    assert found["found"]["exact"] is True
    assert (found["better"], found["worse"]) == (4, 0)


@pytest.mark.parametrize(
    "differences",
    [[0.5, -0.25, 0.0, 1.0, 0.25], [1 / 3, 2 / 3, -1 / 3, 1.0], [1.0] * 5 + [-1.0], [0.0, 0.0], [0.1] * 3, [0.7]],
)
def test_p_counts_every_swap(differences: list[float]) -> None:
    every = [abs(sum(map(mul, signs, differences))) for signs in product((1, -1), repeat=len(differences))]
    seen = abs(sum(differences))
    assert swap_test(differences) == (pytest.approx(fmean(far >= seen - 1e-9 for far in every)), True)
    assert swap_test([-d for d in reversed(differences)]) == swap_test(differences)


def test_p_of_many_questions() -> None:
    # 1000 greedy questions: the sign test, exactly. 60 against 40: 2 P(Binomial(100, 1/2) >= 60) = 0.0569
    assert swap_test([1.0] * 60 + [-1.0] * 40 + [0.0] * 900) == (pytest.approx(0.0568879, abs=1e-6), True)
    # 40 sizes, 1 to 40 fortieths: 2^40 outcomes, so they are drawn; their sum is close to normal with variance sum(size^2)
    sizes = [i / 40 for i in range(1, 41)]
    signs = [1 if i % 3 else -1 for i in range(40)]
    p, exact = swap_test(list(map(mul, signs, sizes)))
    far = abs(sum(map(mul, signs, sizes))) / math.sqrt(sum(size**2 for size in sizes))
    assert exact is False
    assert p == pytest.approx(2 * NormalDist().cdf(-far), abs=0.02)


@pytest.mark.parametrize(
    ("first", "second", "mean"),
    [
        ({"a": [1, 1]}, {"a": [0, 0]}, 1.0),
        ({"a": [1, 1], "b": [1, 1], "c": [1, 1]}, {"a": [0, 0], "b": [0, 0], "c": [0, 0]}, 1.0),
        ({"a": [1, 0], "b": [0, 0]}, {"a": [1, 0], "b": [0, 0]}, 0.0),
        (
            {"a": [1, 1, 0], "b": [1, 0, 0]},
            {"a": [1, 0, 0], "b": [0, 0, 0]},
            1 / 3,
        ),  # 2/3 - 1/3 is not 1/3 - 0 in floats
    ],
    ids=["one question", "all alike", "the same", "alike but for rounding"],
)
def test_without_spread_there_is_no_interval(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    first: Mapping[str, Sequence[float]],
    second: Mapping[str, Sequence[float]],
    mean: float,
) -> None:
    a, b = result(tmp_path / "a.json", first, greedy=False), result(tmp_path / "b.json", second, greedy=False)
    (average,) = compare_results(a, b, resampling=QUICK)["comparisons"]
    difference = average["found"]["difference"]
    assert difference["mean"] == pytest.approx(mean)
    assert (difference["low"], difference["high"], difference["num"]) == (None, None, len(first))
    assert main(["eval", "compare", str(a), str(b)]) == 0
    assert "no interval: one question, or the same difference in all" in capsys.readouterr().out


def test_undecided_questions_are_left_out_of_both(tmp_path: Path) -> None:
    a = result(tmp_path / "a.json", {"a": [1, None], "b": [None, None], "c": [0, 0]})
    b = result(tmp_path / "b.json", {"a": [0, 0], "b": [1, 1], "c": [0, 0]}, greedy=False)
    (average, *_) = compare_results(a, b, resampling=QUICK)["comparisons"]
    assert (average["questions"], average["found"]["first"]) == (2, 0.5)


def test_only_the_same_questions_are_compared(tmp_path: Path) -> None:
    a = result(tmp_path / "a.json", {"a": [1, 1], "b": [1, 1]})
    b = result(tmp_path / "b.json", {"b": [0, 0], "c": [1, 1]})
    with pytest.raises(
        DataError, match=r"a\.json has 2 questions and .*b\.json 2, of which 1 are the same; .*--shared-only"
    ):
        compare_results(a, b)
    found = compare_results(a, b, shared_only=True, resampling=QUICK)
    assert (found["shared_questions"], found["only_first"], found["only_second"]) == (1, 1, 1)
    c = result(tmp_path / "c.json", {"d": [1, 1]})
    with pytest.raises(DataError, match="have no question in common"):
        compare_results(a, c, shared_only=True)


def test_data_that_differ_are_refused(tmp_path: Path) -> None:
    a, b = (result(tmp_path / f"{name}.json", {"a": [1, 1]}) for name in "ab")
    changed = json.loads(b.read_text())
    changed["questions"][0]["answer"] = "8"
    b.write_text(json.dumps(changed))
    with pytest.raises(DataError, match="the reference of question 'a' is '7' in one and '8' in the other"):
        compare_results(a, b)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "no result of prmkit eval"),
        ("{}", "no result of"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        compare_results(path, path)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = result(tmp_path / "a.json", {"a": [1, 1], "b": [1, 0]})
    b = result(tmp_path / "b.json", {"a": [0, 0], "b": [1, 0]})
    assert main(["eval", "compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "+0.500" in out
    assert "model.path: 'a' and 'b'" in out
    written = json.loads((tmp_path / "a_vs_b.json").read_text())
    assert written["comparisons"][0]["found"]["difference"]["mean"] == 0.5
    assert main(["eval", "compare", str(a), str(b), "--out", str(a)]) == 2
    assert "give the comparison a file of its own" in capsys.readouterr().err
    assert main(["eval", "compare", str(a)]) == 2
    assert "B.json" in capsys.readouterr().err
