from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import Page, colours, open_page
from fake_run import write_fake_run, write_lines

from prmkit.errors import ConfigError, DataError
from prmkit.report import write_report

HOSTILE = '</script><script>document.body.dataset.error="hacked"</script><img src=x onerror="alert(1)">&amp;<!--\u2028'


class Scripts(HTMLParser):
    """The scripts of a page by id, and what it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[tuple[str | None, str]] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self._script: str | None = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self._script = named.get("id") if tag == "script" else ""
        self.references += [named[key] or "" for key in ("src", "href") if key in named]

    def handle_data(self, data: str) -> None:
        if self._script != "":
            self.texts.append((self._script, data))

    def handle_endtag(self, tag: str) -> None:
        self._script = ""


def embedded(html: str) -> dict[str, Any]:
    (text,) = [text for name, text in Scripts(html).texts if name == "data"]
    data: dict[str, Any] = json.loads(text)
    return data


def expected_curves(data: dict[str, Any]) -> int:
    return sum(
        any(v is not None for v in run["curves"][series["source"]]["values"].get(series["key"], ()))
        for run in data["runs"]
        for panel in data["panels"]
        for series in panel["series"]
    )


def rewrite_rollouts(run: Path, **changes: Any) -> None:
    for file in (run / "rollouts").iterdir():
        rows = [json.loads(line) | changes for line in file.read_text().splitlines()]
        write_lines(file, rows)


def hostile_run(path: Path) -> Path:
    """Every text that a run holds tries to break out of the page."""
    write_fake_run(path, steps=3, with_prm=True, seed=0)
    ends = list(range(1, len(HOSTILE) + 1))
    per_token = {"token_ends": ends, "step_of_token": [0] * len(ends), "process_rewards": [0.1] * len(ends)}
    texts = dict.fromkeys(("text", "prompt", "answer", "prompt_id", "detail"), HOSTILE)
    rewrite_rollouts(path, **texts, **per_token, advantages=None, tokens=list(HOSTILE))
    config = f"seed = 1\nnote = '''{HOSTILE}'''\n[task]\nname = '''{HOSTILE}'''\n[run]\ncommand = '''{HOSTILE}'''\n"
    (path / "config.toml").write_text(config, encoding="utf-8")
    write_lines(path / "metrics.jsonl", [{"step": s, HOSTILE: 1.0, "reward": 0.5} for s in (1, 2)])
    return path


def test_the_page_stands_in_the_first_run_with_its_data_beside_it(tmp_path: Path) -> None:
    runs = [write_fake_run(tmp_path / name, steps=12, with_prm=name == "a", seed=1) for name in ("a", "b")]
    page = write_report(runs)
    assert page == tmp_path / "a" / "report.html"
    beside = json.loads((tmp_path / "a" / "report.json").read_text())
    assert embedded(page.read_text(encoding="utf-8")) == beside
    assert [run["name"] for run in beside["runs"]] == ["a", "b"]
    assert sorted(p.name for p in runs[0].iterdir() if "report" in p.name) == ["report.html", "report.json"]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    html = write_report([write_fake_run(tmp_path / "a", steps=3, with_prm=True, seed=1)]).read_text(encoding="utf-8")
    assert Scripts(html).references == ["data:,"]
    assert not re.search(r"@import|url\(", html)


def test_out_must_be_an_html_file_and_its_folder_is_made(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "a", steps=3, with_prm=True, seed=1)
    assert write_report([run], tmp_path / "new" / "x.html").is_file()
    assert (tmp_path / "new" / "x.json").is_file()
    for bad in (tmp_path, tmp_path / "report.json"):
        with pytest.raises(ConfigError, match=r"give a name that ends in \.html"):
            write_report([run], bad)
    with pytest.raises(DataError, match="no run folder was given"):
        write_report([])


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "a", steps=3, with_prm=True, seed=1)
    pages = [write_report([run], tmp_path / name / "x.html").read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_the_head_says_what_the_run_is(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "a", steps=8, with_prm=True, seed=1)
    write_lines(run / "eval.jsonl", [
        {"step": s, "eval/sampled_accuracy": a, "eval/sampled_low": a - 0.03, "eval/sampled_high": a + 0.03}
        for s, a in ((0, 0.28), (4, 0.9), (8, 0.80))
    ])  # fmt: skip
    html = write_report([run]).read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "0.28 &rarr; 0.80 [0.77, 0.83]" in text
    assert "outcome and implicit process rewards (rloo), task arithmetic, from the model tiny." in text
    assert "seed 1 prmkit 0.1.0 torch 2.13.0 transformers 5.23.0 python 3.11.2 commit 0123abc" in text


def test_what_the_runs_were_told_differently_is_listed(tmp_path: Path) -> None:
    runs = [write_fake_run(tmp_path / str(seed), steps=3, with_prm=seed == 1, seed=seed) for seed in (1, 2)]
    data = embedded(write_report(runs).read_text(encoding="utf-8"))
    assert data["differences"] == [
        {"key": "seed", "values": ["1", "2"]},
        {"key": "algorithm.process.coef", "values": ["1.0", "0.0"]},
    ]


def test_what_the_runs_have_in_common_is_said_once(tmp_path: Path) -> None:
    runs = [write_fake_run(tmp_path / str(seed), steps=3, with_prm=True, seed=seed) for seed in (1, 2)]
    html = write_report(runs).read_text(encoding="utf-8")
    head = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html[html.index("<body") : html.index("<main")]))
    assert [head.count(fact) for fact in ("torch 2.13.0", "commit 0123abc", "seed 1", "seed 2")] == [1, 1, 2, 2]


def test_a_long_run_makes_a_page_of_bounded_size(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "long", steps=3000, with_prm=True, seed=1, recorded_every=500)
    text = "So 3 + 4 = 7 apples.\n" * 400
    ends = list(range(2, len(text) + 1, 2))
    values = [0.0123456789] * len(ends)
    per_token = {"token_ends": ends, "step_of_token": [e // 21 for e in ends], "process_rewards": values}
    rewrite_rollouts(run, text=text, **per_token, advantages=values, tokens=["xx"] * len(ends))
    page = write_report([run])
    assert page.stat().st_size < 3_000_000
    data = embedded(page.read_text(encoding="utf-8"))
    assert max(len(c["from"]) for c in data["runs"][0]["curves"].values()) <= 400
    assert [r["step"] for r in data["runs"][0]["rollouts"]] == [1, 1500, 3000]
    # 60000 tokens for three steps: 20000 each, at 4200 tokens a response
    assert [(r["recorded"], len(r["shown"])) for r in data["runs"][0]["rollouts"]] == [(32, 4)] * 3


def test_nothing_of_a_run_becomes_markup(tmp_path: Path) -> None:
    plain = write_report([write_fake_run(tmp_path / "plain", steps=3, with_prm=True, seed=0)])
    html = write_report([hostile_run(tmp_path / '<b>&"x')]).read_text(encoding="utf-8")
    assert "<script>document.body" not in html
    assert "<img" not in html
    count = lambda page: Scripts(page).tags.count("script")  # noqa: E731
    assert count(html) == count(plain.read_text(encoding="utf-8"))
    assert embedded(html)["runs"][0]["rollouts"][0]["shown"][0]["text"] == HOSTILE


def assert_drawn(page: Page, data: dict[str, Any]) -> None:
    assert "data-error" not in page.body
    assert page.body["data-ready"] == "true"
    assert int(page.body["data-curves"]) == expected_curves(data)
    recorded = data["runs"][0]["rollouts"]
    assert int(page.body["data-rollouts"]) == (len(recorded[-1]["shown"]) if recorded else 0)
    seen = colours(page.screenshot)
    assert max(seen.values()) < 0.99 * sum(seen.values()), "the screenshot is blank"
    assert len(seen) > 20


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1000, False), (500, True)])
def test_a_browser_draws_every_curve_and_rollout_of_two_runs(tmp_path: Path, width: int, dark: bool) -> None:
    runs = [write_fake_run(tmp_path / name, steps=60, with_prm=name == "prime", seed=1) for name in ("prime", "rloo")]
    html = write_report(runs)
    data = embedded(html.read_text(encoding="utf-8"))
    probe = "document.body.dataset.beyond = document.documentElement.scrollWidth - window.innerWidth"
    page = open_page(html, tmp_path, width=width, dark=dark, probe=probe)
    assert int(page.body["data-beyond"]) <= 0, "the page is wider than the window"
    assert_drawn(page, data)
    assert "prime" in page.dom
    assert 'aria-label="Entropy by step. prime, mean: first' in page.dom
    paper = b"\x17\x18\x1b" if dark else b"\xff\xfe\xfa"
    commonest = max(colours(page.screenshot).items(), key=lambda item: item[1])[0]
    assert commonest == paper


@pytest.mark.slow
def test_a_run_can_be_taken_out_of_the_curves(tmp_path: Path) -> None:
    runs = [write_fake_run(tmp_path / name, steps=12, with_prm=name == "prime", seed=1) for name in ("prime", "rloo")]
    html = write_report(runs)
    data = embedded(html.read_text(encoding="utf-8"))
    body = open_page(html, tmp_path, probe='document.querySelector("#legend button").click()').body
    assert int(body["data-curves"]) == expected_curves({**data, "runs": data["runs"][1:]})
    assert "data-error" not in body


@pytest.mark.slow
def test_a_browser_draws_a_run_that_measured_next_to_nothing(tmp_path: Path) -> None:
    run = tmp_path / "bare"
    run.mkdir()
    (run / "config.toml").write_text("seed = 1\n")
    write_lines(run / "metrics.jsonl", [{"step": 1, "reward": 0.0, "kl": None}])
    html = write_report([run])
    data = embedded(html.read_text(encoding="utf-8"))
    assert expected_curves(data) == 2  # the reward, in two panels
    assert_drawn(open_page(html, tmp_path), data)


@pytest.mark.slow
def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    html = write_report([hostile_run(tmp_path / '<b>&"x')])
    probe = "document.body.dataset.shown = document.querySelector('.text').textContent"
    page = open_page(html, tmp_path, probe=probe)
    assert_drawn(page, embedded(html.read_text(encoding="utf-8")))
    assert HOSTILE.rstrip("\u2028") in page.body["data-shown"]


PROBE = """
const buttons = [...document.querySelectorAll("#rollout-controls button")];
const press = (label) => buttons.find((b) => b.textContent === label).click();
const seen = document.body.dataset;
const svg = document.querySelector("#curves svg[aria-label^=Entropy]");
const box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 20 }));
seen.tip = document.getElementById("tooltip").innerText;
svg.dispatchEvent(new PointerEvent("pointerleave"));
seen.hidden = document.getElementById("tooltip").hidden;
press("wrong");
seen.wrong = seen.rollouts;
seen.flags = document.querySelectorAll(".first-error").length;
press("reward per token");
press("all");
const tokens = [...document.querySelector(".text").querySelectorAll(".token")];
seen.tokens = JSON.stringify(tokens.map((t) => [t.textContent, t.className, t.style.getPropertyValue("--a")]));
tokens[1].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
seen.token = document.getElementById("tooltip").innerText;
"""


@pytest.mark.slow
def test_pointing_filtering_and_colouring(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "a", steps=21, with_prm=True, seed=3)
    text = "\U0001f600+1\n=2"  # one character that is two UTF-16 units, and a line break
    rollout = {"text": text, "token_ends": [1, 3, 4, 6, 6], "step_of_token": [0, 0, 0, 1, 1], "outcome": 0.0}
    values = {"process_rewards": [0.0, 0.5, -1.0, 1.0, 0.25], "advantages": [0.0, 1.0, 2.0, 3.0, 4.0]}
    rows = [json.loads(line) for line in (run / "rollouts" / "step_000021.jsonl").read_text().splitlines()]
    rows[0] |= rollout | values | {"tokens": [], "status": "ok", "first_error_step": 1}
    write_lines(run / "rollouts" / "step_000021.jsonl", rows)
    html = write_report([run])
    data = embedded(html.read_text(encoding="utf-8"))
    shown = data["runs"][0]["rollouts"][-1]["shown"]
    entropy = data["runs"][0]["curves"]["metrics"]["values"]["entropy"]

    body = open_page(html, tmp_path, probe=PROBE).body
    # steps 0 to 21 lie between margins of 40 and 42, so the middle of a drawing is just past step 10.5
    assert "step 11" in body["data-tip"]
    assert f"{entropy[10]:.3g}" in body["data-tip"]
    assert body["data-hidden"] == "true"
    wrong = [r for r in shown if r["verdict"] == "wrong"]
    assert int(body["data-wrong"]) == len(wrong)
    assert int(body["data-flags"]) == sum(r["first_error"] >= 0 for r in wrong)
    assert int(body["data-rollouts"]) == len(shown)
    pieces, classes, strengths = zip(*json.loads(body["data-tokens"]), strict=True)
    assert pieces == ("\U0001f600", "+1", "\u21b5\n", "=2", "\u25a1")
    assert ["negative" in c for c in classes] == [False, False, True, False, False]
    sizes = sorted(abs(v) for r in data["runs"][0]["rollouts"] for shown in r["shown"] for v in shown["rewards"])
    full = sizes[int((len(sizes) - 1) * 0.98)]
    assert [float(s) for s in strengths] == pytest.approx([0, min(1, 0.5 / full), 1, 1, min(1, 0.25 / full)], abs=1e-3)
    # mean of step 0: (0 + 0.5 - 1) / 3 = -0.167
    for part in ("process reward", "+0.5", "mean of step 0", "\u22120.167", "advantage", "+1"):
        assert part in body["data-token"]
