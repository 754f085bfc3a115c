"""The page about a result: what it counts and says, its bounds, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import open_page

from prmkit.cli.main import main
from prmkit.data.types import FinishReason, Message, Prompt, Verdict, VerdictStatus
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.config import EvalConfig
from prmkit.evaluate.responses import Question, Response
from prmkit.evaluate.run import EvaluationResult, accuracy_of, write_result
from prmkit.evaluate.summary import result_json
from prmkit.report import evaluation
from prmkit.report.evaluation import evaluation_data, verdict_of, why, write_evaluation_report

HOSTILE = "</script><script>document.body.dataset.owned='yes'</script><img src=x onerror=alert(1)>"


def response(
    reward: float | None = 1.0,
    *,
    text: str = "so 7",
    answer: str | None = "7",
    finish: FinishReason = "stop",
    status: VerdictStatus = "ok",
    detail: str = "",
) -> Response:
    verdict = Verdict(status=status, reward=reward if status == "ok" else None, detail=detail)
    return Response(text=text, num_tokens=3, finish=finish, verdict=verdict, answer=answer)


def question(name: str, *sampled: Response, greedy: Response | None = None, **categories: str) -> Question:
    meta = {"question": f"What is {name}?", "categories": categories}
    prompt = Prompt(id=name, messages=(Message(role="user", content=name),), answer="7", meta=meta)
    return Question(prompt=prompt, sampled=sampled, greedy=greedy)


WRONG = response(0.0, text="so 8", answer="8")
PART = response(0.5, text="half", answer=None, detail="1 of 2 tests passed")
LATE = response(status="timeout", text="x^x^x", answer="x^x^x", detail="no verdict after 5 s")
CUT = response(0.0, text="let me see", answer=None, finish="length")
LOST = response(0.0, text="", finish="error")

QUESTIONS = [
    question("one", response(), WRONG, greedy=response(), subject="Algebra", level="Level 1"),
    question("two", PART, LATE, greedy=WRONG, subject="Algebra", level="Level 2"),
    question("three", CUT, LOST, greedy=CUT, subject="Geometry", level="Level 2"),
]


def result(path: Path, questions: list[Question] | None = None, samples: int = 2) -> Path:
    questions = questions or QUESTIONS
    found = EvaluationResult(questions=tuple(questions), accuracy=accuracy_of(questions, 1.0))
    task = {
        "name": "school",
        "title": "School",
        "version": "3",
        "template": {"name": "boxed", "system": "Be brief.", "user": "{question} Box it.", "sha256": "ab" * 32},
    }
    config = EvalConfig(samples=samples)
    write_result(path, result_json(config, found, "", task=task, more={"model": {"weights_sha256": "cd" * 32}}))
    return path


def embedded(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_every_answer_has_its_verdict_and_why(tmp_path: Path) -> None:
    page = write_evaluation_report(result(tmp_path / "r.json"))
    assert page == tmp_path / "r.html"
    one, two, three = embedded(page)["questions"]
    told = [(r["kind"], r["verdict"], r["why"]) for r in one["responses"]]
    assert told == [
        ("greedy", "right", "7 equals the reference 7"),
        ("sample 1", "right", "7 equals the reference 7"),
        ("sample 2", "wrong", "8 does not equal the reference 7"),
    ]
    assert [(r["verdict"], r["why"]) for r in two["responses"][1:]] == [
        ("part", "1 of 2 tests passed"),
        ("undecided", "timeout: no verdict after 5 s"),
    ]
    assert [(r["verdict"], r["cut"], r["why"]) for r in three["responses"][1:]] == [
        ("wrong", True, "no final answer was found; the reference is 7"),
        ("undecided", False, "the sampler did not finish this response"),
    ]


def test_the_page_says_what_made_the_number(tmp_path: Path) -> None:
    text = write_evaluation_report(result(tmp_path / "r.json")).read_text()
    for part in (
        "School",
        "Be brief.",
        "{question} Box it.",
        "school version 3",
        "abababababababab",
        "cdcdcdcdcdcdcdcd",
    ):
        assert part in text, part
    data = embedded(tmp_path / "r.html")
    assert [table["name"] for table in data["categories"]] == ["subject", "level"]
    assert data["verdicts"]["sampled"] == {"ok": 4, "timeout": 1, "not_sampled": 1}
    # sampled: one (1 + 0) / 2, two 0.5 alone, three 0 alone
    assert data["headline"][0]["mean"] == pytest.approx(1 / 3)
    assert [row["k"] for row in data["at_k"]] == ["1", "2"]
    # "one" alone has two judged samples: each number stands with its questions
    shown = re.findall(r'<tr><th scope="row">([12])</th>.*?<td>(\d+)</td>.*?<td>(\d+)</td></tr>', text)
    assert shown == [("1", "3", "3"), ("2", "1", "1")]
    shares = {row["value"]: row["truncated_share"] for row in data["categories"][0]["rows"]}
    assert shares == {"Algebra": 0.0, "Geometry": 1.0}, "one response of Geometry came, and it was cut"


def test_a_category_of_which_no_response_came(tmp_path: Path) -> None:
    lost = [question("one", response()), question("two", LOST, subject="Sets")]
    text = write_evaluation_report(result(tmp_path / "r.json", lost, samples=1)).read_text()
    assert re.search(
        r'<tr><th scope="row">Sets</th><td>1</td><td><span class="aside">none</span></td><td>none</td>', text
    )


def test_verdicts_and_reasons_without_a_reference() -> None:
    code = {"finish": "stop", "reward": 1.0, "status": "ok", "detail": "", "extracted": None}
    assert (verdict_of(code), why(code, "")) == ("right", "decided without a detail")
    assert why({**code, "status": "error", "reward": None}, "7") == "error: no reason was given"


def test_a_page_stays_small_however_much_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [question(f"q{i}", *[response(text="word " * 20_000 + "end")] * 4) for i in range(60)]
    page = write_evaluation_report(result(tmp_path / "r.json", long, samples=4))
    assert page.stat().st_size < 1_700_000
    data = embedded(page)
    assert data["num_questions"] == 60
    text = data["questions"][0]["responses"][0]["text"]
    assert text.startswith("word word")
    assert text.endswith("end")
    assert "[... 94003 characters left out ...]" in text  # 100,003 less two halves of 3,000
    monkeypatch.setattr(evaluation, "MAX_CHARACTERS", 60_000)
    assert len(evaluation_data(json.loads((tmp_path / "r.json").read_text()), "r")["questions"]) == 2


def test_the_report_verb_takes_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = result(tmp_path / "r.json")
    assert main(["report", str(path), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        write_evaluation_report(path, tmp_path / "page.pdf")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x\.json: no result of prmkit eval"):
        write_evaluation_report(tmp_path / "x.json")


PROBE = """
const ids = () => [...document.querySelectorAll("article.prompt")].map((e) => e.dataset.id).join(" ");
const shown = () => document.querySelectorAll(".response").length;
const press = (text) => [...document.querySelectorAll("button")].find((b) => b.textContent === text).click();
const note = (name) => { document.body.dataset[name] = `${ids()}: ${shown()}`; };
note("all");
press("wrong"); note("wrong");
press("not judged"); note("undecided");
press("cut off"); note("cut");
const buttons = [...document.querySelectorAll(".choice[aria-label=verdict] button")];
document.body.dataset.buttons = buttons.map((b) => b.textContent).join(",");
buttons[0].click();
press("greedy"); note("greedy");
const all = [...document.querySelectorAll(".choice[aria-label=responses] button")][0]; all.click();
const subject = document.querySelector("select");
subject.value = "Geometry"; subject.dispatchEvent(new Event("change")); note("geometry");
subject.value = ""; subject.dispatchEvent(new Event("change"));
const find = document.querySelector("input[type=search]");
find.value = "HALF"; find.dispatchEvent(new Event("input")); note("find");
find.value = ""; find.dispatchEvent(new Event("input")); note("again");
document.body.dataset.why = document.querySelector(".why").textContent;
"""


@pytest.mark.slow
def test_a_browser_filters_by_verdict_category_and_text(tmp_path: Path) -> None:
    page = open_page(write_evaluation_report(result(tmp_path / "r.json")), tmp_path, probe=PROBE)
    assert page.body["data-ready"] == "true"
    assert "data-error" not in page.body
    assert page.body["data-all"] == "one two three: 9"
    assert page.body["data-wrong"] == "one two three: 4"  # one: a sample; two: greedy; three: greedy and a sample
    assert page.body["data-undecided"] == "two three: 2"
    assert page.body["data-cut"] == "three: 2"
    assert page.body["data-buttons"] == "all,right,wrong,partly right,not judged,cut off"
    assert page.body["data-greedy"] == "one two three: 3"
    assert page.body["data-geometry"] == "three: 3"
    assert page.body["data-find"] == "two: 3"
    assert page.body["data-again"] == "one two three: 9"
    assert page.body["data-why"] == "7 equals the reference 7"


@pytest.mark.slow
def test_a_long_id_stays_in_its_column(tmp_path: Path) -> None:
    probe = """
    const header = document.querySelector("article.prompt > header");
    const width = Math.max(...[...header.children].map((e) => e.scrollWidth));
    document.body.dataset.over = String(width - header.clientWidth);
    document.body.dataset.column = String(header.clientWidth);
    """
    long = [question(f"test/{'precalculus' * 20}/1303.json", response(), level="x" * 200)]
    page = open_page(
        write_evaluation_report(result(tmp_path / "r.json", long, samples=1)), tmp_path, width=1200, probe=probe
    )
    assert int(page.body["data-over"]) <= 0
    assert int(page.body["data-column"]) <= 260


def test_the_page_names_a_served_model(tmp_path: Path) -> None:
    found = json.loads(result(tmp_path / "r.json").read_text())
    found["config"]["model"] = {"url": "http://10.0.0.1:8000/v1", "name": ""}
    found["model"] = {"url": "http://10.0.0.1:8000/v1", "name": "qwen"}
    data = evaluation_data(found, "r")
    assert (data["model"], data["facts"]["server"]) == ("qwen at 10.0.0.1:8000", "http://10.0.0.1:8000/v1")


@pytest.mark.slow
def test_a_browser_shows_hostile_texts_as_texts(tmp_path: Path) -> None:
    evil = question(HOSTILE, response(text=HOSTILE, answer=HOSTILE, detail=HOSTILE), subject=HOSTILE)
    page = open_page(write_evaluation_report(result(tmp_path / "r.json", [evil], samples=1)), tmp_path)
    assert page.body["data-ready"] == "true"
    assert "data-owned" not in page.body
    assert "data-error" not in page.body


@pytest.mark.slow
def test_many_questions_come_a_page_at_a_time(tmp_path: Path) -> None:
    many = [question(f"q{i}", response()) for i in range(95)]
    probe = """
    const count = () => document.querySelectorAll("article.prompt").length;
    const more = document.querySelector("button.more");
    document.body.dataset.first = `${count()} ${more.textContent}`;
    more.click(); document.body.dataset.second = `${count()} ${more.textContent}`;
    more.click(); document.body.dataset.third = `${count()} ${more.hidden}`;
    """
    page = open_page(write_evaluation_report(result(tmp_path / "r.json", many, samples=1)), tmp_path, probe=probe)
    assert page.body["data-first"] == "40 show 40 more"
    assert page.body["data-second"] == "80 show 15 more"
    assert page.body["data-third"] == "95 true"
