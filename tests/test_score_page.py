"""The page about a scored file: what it counts, its colours, its bounds, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import open_page
from score_setup import LengthScorer, many, run, solution

from prmkit.cli.main import main
from prmkit.data.types import Solution, StepRewards, TokenRewards
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.ledger import append
from prmkit.evaluate.score_files import ScoreFiles
from prmkit.evaluate.scoring import scored_row
from prmkit.report import scored
from prmkit.report.scored import Sample, quantile, scored_data, write_scored_report

HOSTILE = "</script><script>document.body.dataset.owned='yes'</script><img src=x onerror=alert(1)>"


def scores(path: Path, rows: list[tuple[Solution, tuple[float, ...]]], kind: Any = "probability") -> Path:
    append(path, [scored_row(s, StepRewards(values=values, kind=kind), model="m") for s, values in rows])
    return path


def known(number: int, values: tuple[float, ...], **more: Any) -> tuple[Solution, tuple[float, ...]]:
    return solution(number, steps=tuple(f"step {k}" for k in range(len(values))), **more), values


def test_it_counts_the_whole_file_and_shows_a_part(tmp_path: Path) -> None:
    rows = [
        known(1, (0.5, 0.25), outcome=1.0),
        known(2, (1.0,), outcome=0.75),
        known(3, (0.25, 0.75), outcome=0.0, labels=(1.0, 0.0)),
        known(4, (0.125,)),
    ]
    data = scored_data(scores(tmp_path / "s.jsonl", rows), max_rows=3)
    assert data["num_rows"] == 4
    assert [row["id"] for row in data["rows"]] == ["s1", "s2", "s3"]
    right, wrong, unknown = data["by_verdict"]
    assert (right["verdict"], right["rows"]) == ("right", 2)
    # min: (0.25 + 1) / 2; prod: (0.125 + 1) / 2; last: (0.25 + 1) / 2; mean: (0.375 + 1) / 2; sum: (0.75 + 1) / 2
    assert right["means"] == {"min": 0.625, "prod": 0.5625, "last": 0.625, "mean": 0.6875, "sum": 0.875}
    assert (wrong["rows"], wrong["means"]["last"], unknown["rows"]) == (1, 0.75, 1)
    assert [row["first_error"] for row in data["rows"]] == [None, None, 1]
    assert data["scales"]["rewards"] == {"low": 0.0, "middle": 0.5, "high": 1.0}


def test_log_ratios_are_coloured_by_the_quantiles_of_the_file(tmp_path: Path) -> None:
    rows = [known(n, (float(n), -float(n))) for n in range(0, 11)]
    data = scored_data(scores(tmp_path / "s.jsonl", rows, "log_ratio"), max_rows=1)
    # rewards are -10..10 with 0 twice: 22 numbers, so 5% lies at position 1.05 of -10, -9, -8, ...
    assert data["scales"]["rewards"] == {
        "low": pytest.approx(-8.95),
        "middle": pytest.approx(0.0),
        "high": pytest.approx(8.95),
    }
    # sums up to a step: n and 0 for each n
    assert data["scales"]["cumulative"]["low"] == 0.0


def test_a_quantile_lies_between_neighbours() -> None:
    assert quantile([1.0, 2.0, 4.0], 0.75) == 3.0
    assert quantile([7.0], 0.05) == 7.0
    assert quantile([1.0, 2.0], 1.0) == 2.0


def test_a_sample_of_a_long_stream_is_bounded_and_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored, "SAMPLE", 2000)
    sample = Sample()
    for value in range(100_000):
        sample.add(float(value))
    assert (len(sample.values), sample.seen) == (2000, 100_000)
    # the median of 2000 uniform draws has a standard deviation of about 1.1% of the range
    assert abs(quantile(sorted(sample.values), 0.5) - 50_000) < 4_500


def test_a_page_stays_small_however_long_the_solutions_are(tmp_path: Path) -> None:
    long = [(solution(n, steps=("word " * 4000, "end")), (0.5, 0.5)) for n in range(150)]  # 20 kB each
    page = write_scored_report(scores(tmp_path / "s.jsonl", long))
    assert page == tmp_path / "s.html"
    assert page.stat().st_size < 1_200_000
    assert 40 <= len(embedded(page)["rows"]) <= 60


def test_failures_are_on_the_page(tmp_path: Path) -> None:
    files = ScoreFiles(out=tmp_path / "s.jsonl")
    run(files, many(60, bad=range(1, 31)), LengthScorer(), window=100)
    data = scored_data(files.out)
    assert (data["num_rows"], data["num_errors"], len(data["errors"])) == (30, 30, 20)
    assert data["errors"][0] == {"line": 1, "id": None, "reason": "not JSON"}
    text = write_scored_report(files.out).read_text()
    assert "30 rows have no score" in text
    assert "And 10 more" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no scores"),
        ('{"id": "a"}\n', r"s\.jsonl:1: no field 'model'"),
        ("[]\n", r"s\.jsonl:1"),
    ],
)
def test_a_file_without_scores_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        scored_data(path)


def test_other_files_that_cannot_be_shown(tmp_path: Path) -> None:
    plain = scored_row(solution(1), StepRewards(values=(0.5, 0.5), kind="probability"), model="m", texts=False)
    append(tmp_path / "plain.jsonl", [plain])
    with pytest.raises(DataError, match="scored with texts = false"):
        scored_data(tmp_path / "plain.jsonl")
    mixed = scores(tmp_path / "mixed.jsonl", [known(1, (0.5,))])
    scores(mixed, [known(2, (0.5,))], "logit")
    with pytest.raises(
        DataError, match=r"mixed\.jsonl:2: scored by 'm' as logit, the rows before by 'm' as probability"
    ):
        scored_data(mixed)
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        scored_data(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        write_scored_report(mixed, tmp_path / "page.pdf")


def test_the_report_verb_takes_a_scored_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = scores(tmp_path / "s.jsonl", [known(1, (0.5,))])
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "s.html")
    assert main(["report", str(path), str(tmp_path)]) == 2
    assert "a scored file has a page of its own" in capsys.readouterr().err


def embedded(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_token_rewards_are_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    append(path, [scored_row(solution(1, steps=("ab;", "c"), separator="\n"), TOKENS, model="m")])
    data = scored_data(path)
    assert data["scales"]["token_rewards"] == pytest.approx({"low": -1.775, "middle": 0.0, "high": 0.925})
    assert data["rows"][0]["tokens"] == ["ab", ";\n", "c", ""]
    assert "token_rewards" not in scored_data(scores(tmp_path / "t.jsonl", [known(1, (0.5,))]))["scales"]


TOKENS = StepRewards(
    values=(0.5, -1.5),
    kind="log_ratio",
    tokens=TokenRewards(
        values=(1.0, -0.5, -2.0, 0.5), texts=("ab", ";\n", "c", ""), ends=(2, 4, 5, 5), step_of_token=(0, 0, 1, 1)
    ),
)
TOKEN_PROBE = """
const press = (text) => [...document.querySelectorAll("button")].find((b) => b.textContent === text).click();
press("reward of a token");
const tokens = [...document.querySelectorAll(".text .token")];
document.body.dataset.text = document.querySelector(".text").textContent;
document.body.dataset.looks = JSON.stringify(tokens.map((token) => getComputedStyle(token).backgroundColor));
"""


@pytest.mark.slow
def test_a_browser_colours_tokens(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    append(path, [scored_row(solution(1, steps=("ab;", "c"), separator="\n"), TOKENS, model="m")])
    page = open_page(write_scored_report(path), tmp_path, probe=TOKEN_PROBE)
    assert page.body["data-ready"] == "true"
    assert "data-error" not in page.body
    assert page.body["data-text"] == "ab;\nc\u25a1"
    looks = json.loads(page.body["data-looks"])
    assert [look.startswith("rgba(35, 132, 76") for look in looks] == [True, False, False, True]
    assert (looks[0], looks[2]) == ("rgba(35, 132, 76, 0.62)", "rgba(200, 52, 42, 0.62)")


PROBE = """
const steps = [...document.querySelectorAll(".text .step")];
const look = (step) => getComputedStyle(step).backgroundColor;
document.body.dataset.looks = JSON.stringify(steps.map(look));
document.body.dataset.flags = String(document.querySelectorAll(".flag").length);
document.body.dataset.marks = [...document.querySelectorAll(".label")].map((mark) => mark.textContent).join("");
const ids = () => [...document.querySelectorAll(".response")].map((e) => e.dataset.id).join(" ");
const press = (text) => [...document.querySelectorAll("button")].find((b) => b.textContent === text).click();
document.body.dataset.file = ids();
press("lowest first"); document.body.dataset.lowest = ids();
press("wrong"); document.body.dataset.wrong = ids();
press("all"); press("last"); press("highest first"); document.body.dataset.highest = ids();
const least = document.querySelector("input[type=number]");
least.value = "0.6"; least.dispatchEvent(new Event("input")); document.body.dataset.least = ids();
"""


@pytest.mark.slow
def test_a_browser_colours_sorts_and_filters(tmp_path: Path) -> None:
    rows = [
        known(1, (1.0, 0.5, 0.0), labels=(1.0, "neutral", 0.0), outcome=0.0),
        known(2, (0.75,), outcome=1.0),
        known(3, (0.25, 0.625), outcome=0.0),
        (solution(4, steps=(HOSTILE,), answer=HOSTILE), (0.5,)),
    ]
    html = write_scored_report(scores(tmp_path / "s.jsonl", rows))
    page = open_page(html, tmp_path, probe=PROBE)
    assert page.body["data-ready"] == "true"
    assert "data-error" not in page.body
    assert "data-owned" not in page.body
    looks = json.loads(page.body["data-looks"])
    # green and red of report.css; wholly coloured is 0.62 opaque, half way 0.31
    assert looks[0] == "rgba(35, 132, 76, 0.62)"
    assert re.fullmatch(r"rgba\(\d+, \d+, \d+, 0\)", looks[1])
    assert looks[2] == "rgba(200, 52, 42, 0.62)"
    assert looks[3:5] == ["rgba(35, 132, 76, 0.31)", "rgba(200, 52, 42, 0.31)"]
    assert page.body["data-flags"] == "1"
    assert page.body["data-marks"] == "\u2713\u25cb\u2717"
    assert page.body["data-file"] == "s1 s2 s3 s4"
    assert page.body["data-lowest"] == "s1 s3 s4 s2"  # min: 0, 0.25, 0.5, 0.75
    assert page.body["data-wrong"] == "s1 s3"
    assert page.body["data-highest"] == "s2 s3 s4 s1"  # last: 0.75, 0.625, 0.5, 0
    assert page.body["data-least"] == "s2 s3"
