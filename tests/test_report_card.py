"""The HTML of a report card: what a browser makes of it, what it escapes, and the charts' geometry."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import colours, open_page
from prm_judge import Echo, pool, solution

from prmkit.cli.eval_prm_tables import tables
from prmkit.errors import ConfigError
from prmkit.evaluate.prm import EvalPRMConfig, EvalSet, ModelScores, build_card, pool_set, score_solutions
from prmkit.report.card import headline, heat, position_rows, render_card, write_card
from prmkit.report.svg import HEIGHT, WIDTH, Chart, Curve, Point, draw, ticks

EVIL = '<script>alert("x")</script>&[bold]'


def card(**fields: Any) -> dict[str, Any]:
    rows = [
        solution([0.9, 0.2 + 0.1 * (k % 3)][: 1 + k % 2], [1.0, 0.0][: 1 + k % 2], question=f"q{k}", language="de")
        for k in range(8)
    ]
    groups = [
        pool(f"p{k}", [(0.9, 1.0, "1"), (0.2, 0.0, "2"), (0.3, float(k % 2), "3"), (0.1, 0.0, "2")]) for k in range(6)
    ]
    data = [
        EvalSet(name="split", task="process_bench", solutions=rows, source={"sha256": "ab" * 32}),
        EvalSet(name="bench", task="prm_bench", solutions=rows),
        pool_set("pool", groups, {}),
    ]
    config = EvalPRMConfig(
        **{
            "scored": ("de=x",),
            "process_bench": ("split=x",),
            "prm_bench": ("bench=x",),
            "pools": ("pool=x",),
            "threshold": "split",
            "fit_temperature": "split",
            "languages": ("all",),
            "bootstrap": 40,
            **fields,
        }
    )
    models = [
        ModelScores(
            name=name, kind="probability", scored={one.name: score_solutions(Echo(), one.solutions) for one in data}
        )
        for name in ("de", EVIL)
    ]
    made = build_card(config, data, models)
    matrix = {
        "metric": "first-error F1",
        "rows": ["de"],
        "trained_on": [["de"]],
        "columns": ["de", "sw"],
        "cells": [[{"value": 0.7, "low": 0.6, "high": 0.8, "num": 9, "design": "mono"}, None]],
        "means": {"mono": 0.7},
        "row_means": [None],
    }
    return {"versions": {"prmkit": "0.1.0"}, "commit": None, **made, "matrices": [matrix]}


class Structure(HTMLParser):
    """Open and closed elements, and the texts of headings."""

    VOID = ("meta", "link", "br", "circle", "path", "rect", "line")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")


def test_the_page_is_well_formed_and_runs_no_script() -> None:
    html = render_card(card())
    page = Structure()
    page.feed(html)
    assert page.faults == []
    assert page.open == []
    assert "script" not in page.tags
    assert EVIL not in html
    assert "&lt;script&gt;alert" in html
    assert not re.search(r'(src|href)="(?!data:)', html)  # needs nothing else


def test_every_number_of_the_table_is_on_the_page() -> None:
    data = card()
    html = render_card(data)
    for curve in data["best_of_n"]["pool"]["models"]["de"].values():
        for interval in curve.values():
            assert f"{interval['mean']:.3f}" in html
    found = data["first_errors"]["sets"]["split"]["de"]["value"]["f1"]
    assert f'{found["mean"]:.3f} <span class="interval">[{found["low"]:.3f}, {found["high"]:.3f}]' in html
    # two models on the set of the choice, their two means of splits with it, and their difference there
    assert html.count('class="flag">in-sample') == 5
    assert "6 problems" in html


def test_the_short_section_gives_no_in_sample_number_as_if_it_were_none() -> None:
    data = card(threshold="bench")
    cells = headline(data)[0]["cells"]
    assert "PRMScore, bench (in-sample)" in cells
    assert cells["first-error F1, mean of splits"] == data["first_errors"]["mean"]["de"]["value"]
    assert "first-error F1, mean of splits" not in headline(card())[0]["cells"]  # the only split is that of the choice


def test_a_card_with_nothing_but_pools_has_no_other_section() -> None:
    data = card(threshold="0.5", fit_temperature="")
    for key in ("steps", "calibration", "length_bias", "languages"):
        data[key] = {}
    data |= {"first_errors": {"sets": {}, "mean": {}, "held_out_mean": {}}, "paired": [], "matrices": []}
    html = render_card(data)
    titles = re.findall(r"<h2[^>]*>([^<]*)", html)
    assert titles == ["In short", "What was measured, and how", "Best of N", "To make it again"]


def test_names_with_brackets_are_no_markup_in_the_terminal() -> None:
    from rich.console import Console

    console = Console(width=200, record=True, markup=False, emoji=False)
    for table in tables(card()):
        console.print(table)
    assert "[bold]" in console.export_text()


def test_the_page_has_an_html_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give a name that ends in .html"):
        write_card(card(), tmp_path / "card.htm")


@pytest.mark.slow
def test_in_a_browser_charts_are_drawn_and_nothing_overflows(tmp_path: Path) -> None:
    page = write_card(card(), tmp_path / "card.html")
    probe = """
      const wide = [...document.querySelectorAll("main section, figure, .tables > div")].filter(
        (e) => e.scrollWidth > e.clientWidth + 1);
      document.body.dataset.wide = wide.length;
      document.body.dataset.charts = document.querySelectorAll("figure svg[role=img]").length;
      document.body.dataset.outside = [...document.querySelectorAll("figure svg[role=img] circle")].filter((c) => {
        const [a, b] = [c.getBoundingClientRect(), c.ownerSVGElement.getBoundingClientRect()];
        return a.left < b.left - 3 || a.right > b.right + 3 || a.top < b.top - 3 || a.bottom > b.bottom + 3;
      }).length;
    """
    # the page forbids scripts; the probe needs one
    html = page.read_text(encoding="utf-8").replace("style-src", "script-src 'unsafe-inline'; style-src")
    page.write_text(html, encoding="utf-8")
    found = open_page(page, tmp_path, width=1250, height=4000, probe=probe)
    assert found.body["data-wide"] == "0"
    assert found.body["data-outside"] == "0"
    assert int(found.body["data-charts"]) == html.count('role="img"')
    assert len(colours(found.screenshot)) > 50
    narrow = open_page(page, tmp_path, width=500, height=4000, dark=True, probe=probe)
    assert narrow.body["data-wide"] == "0"


def test_positions_after_the_seventh_share_a_row() -> None:
    rows = [{"position": k, "early": 0, "exact": 1, "late": 0, "missed": k} for k in (-1, 0, 6, 7, 9)]
    found = position_rows(rows)
    assert [(row["title"], row["total"]) for row in found] == [
        ("step 1", 1),
        ("step 7", 7),
        ("step 8 on", 18),
        ("no error", 0),
    ]


@pytest.mark.parametrize(
    ("value", "ends", "expected"),
    [(0.5, (0, 1), "--a: 0.50"), (2.0, (0, 1), "--a: 1.00"), (0.7, (0.7, 0.7), ""), (None, (0, 1), "")],
)
def test_heat(value: float | None, ends: tuple[float, float], expected: str) -> None:
    assert heat(value, *ends) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.41, 0.62, [0.45, 0.5, 0.55, 0.6]),
        (-30, 10, [-30, -20, -10, 0, 10]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_chart_stays_in_its_frame_and_says_its_numbers() -> None:
    points = [Point(x=1, y=0.2, low=0.1, high=0.4), Point(x=16, y=0.9, low=0.7, high=1.0, note="9 steps")]
    svg = draw(Chart(label='a "b"', curves=[Curve(name="<m>", points=points, band=True)], x_label="N", x_ticks=(1, 16)))
    numbers = [float(x) for x in re.findall(r'c[xy]="([^"]*)"', svg)]
    assert all(0 <= x <= WIDTH for x in numbers[::2])
    assert all(0 <= y <= HEIGHT for y in numbers[1::2])
    assert numbers[0] < numbers[2]
    assert numbers[1] > numbers[3]  # higher values stand higher
    assert "&lt;m&gt;: 0.9 [0.7, 1] at 16, 9 steps" in svg
    assert 'aria-label="a &#34;b&#34;"' in svg


def test_a_chart_without_points_says_so() -> None:
    assert "No number to draw" in draw(Chart(label="x", curves=[Curve(name="m", points=[])], x_label="N"))


def test_the_card_is_json() -> None:
    assert json.loads(json.dumps(card(), allow_nan=False))["schema"] == 1
