"""The cache of verdicts: what is kept, by what key, and what kills and other processes do to it."""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from prmkit.config import VerifierConfig
from prmkit.data.types import Message, Prompt, Verdict
from prmkit.errors import ConfigError, VerifierError
from prmkit.verify import make_verifier
from prmkit.verify.cache import CachedVerifier, identity

PROMPT = Prompt(id="p", messages=(Message(role="user", content="2 + 2?"),), answer="4", meta={"answers": ["four"]})
VERDICTS = {
    "ok": Verdict(status="ok", reward=0.1 + 0.2, detail="d\u00e9tail"),
    "unparsed": Verdict(status="unparsed", reward=None, detail="what?"),
    "timeout": Verdict(status="timeout", reward=None, detail="late"),
    "error": Verdict(status="error", reward=None, detail="broke"),
}


class Counting:
    """Answers by the text, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        self.asked += [text for _, text in responses]
        return [VERDICTS.get(text, VERDICTS["ok"]) for _, text in responses]

    def close(self) -> None:
        self.asked.append("closed")


def test_what_was_decided_is_kept_and_what_failed_is_not(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    asked = [(PROMPT, status) for status in VERDICTS]
    assert CachedVerifier(first, tmp_path / "sub" / "c.db", "v").verify(asked) == list(VERDICTS.values())
    with CachedVerifier(second, tmp_path / "sub" / "c.db", "v") as again:
        assert again.verify(asked) == list(VERDICTS.values())  # to the last bit of the reward
    assert second.asked == ["timeout", "error", "closed"]


def test_equal_responses_are_judged_once_and_order_is_kept(tmp_path: Path) -> None:
    inner = Counting()
    verifier = CachedVerifier(inner, tmp_path / "c.db", "v")
    texts = ["ok", "error", "ok", "unparsed", "error"]
    assert verifier.verify([(PROMPT, text) for text in texts]) == [VERDICTS[text] for text in texts]
    assert inner.asked == ["ok", "error", "unparsed"]
    assert verifier.verify([]) == []


def test_everything_that_a_verdict_depends_on_is_in_the_key(tmp_path: Path) -> None:
    others = [
        replace(PROMPT, answer="5"),
        replace(PROMPT, task="amc"),
        replace(PROMPT, messages=()),
        replace(PROMPT, meta={"answers": ["five"]}),
    ]
    inner = Counting()
    CachedVerifier(inner, tmp_path / "c.db", "v").verify([(PROMPT, "ok")])
    CachedVerifier(inner, tmp_path / "c.db", "v").verify([(replace(PROMPT, id="other"), "ok")])  # a name is no content
    assert inner.asked == ["ok"]
    CachedVerifier(inner, tmp_path / "c.db", "v").verify([(prompt, "ok") for prompt in others])
    assert len(inner.asked) == 5
    CachedVerifier(inner, tmp_path / "c.db", "other settings").verify([(PROMPT, "ok")])
    CachedVerifier(inner, tmp_path / "c.db", "v").verify([(PROMPT, "ok ")])
    assert len(inner.asked) == 7


def test_a_function_may_judge_by_the_prompts_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts that differ by their id alone, and a function that looks answers up by it."""
    monkeypatch.chdir(tmp_path)
    Path("table.py").write_text("def f(prompt, text):\n    return float({'p': 'a', 'q': 'b'}[prompt.id] == text)\n")
    asked = [(PROMPT, "a"), (replace(PROMPT, id="q"), "a")]
    config = VerifierConfig(function="table:f", cache="c.db", timeout_s=30.0)
    for _ in range(2):
        with make_verifier(config) as verifier:
            assert [v.reward for v in verifier.verify(asked)] == [1.0, 0.0]


def test_programs_are_judged_again_by_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    before, maths = identity("code", {}), identity("math", {})
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert identity("code", {}) != before
    assert identity("math", {}) == maths


def test_identities_differ_by_settings_and_by_the_source_of_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        identity("qa", {"metric": "f1"}) != identity("qa", {"metric": "exact"}) != identity("math", {"metric": "exact"})
    )
    assert "math-verify" in identity("math", {})
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "own.py", tmp_path / "package" / "inner.py"):
        module = ".".join(place.relative_to(tmp_path).with_suffix("").parts)
        place.parent.mkdir(exist_ok=True)
        place.write_text("def judge(prompt, text): return 1.0\n")
        before = identity("function", {}, f"{module}:judge")
        assert before == identity("function", {}, f"{module}:judge")
        place.write_text("def judge(prompt, text): return 0.0\n")
        assert identity("function", {}, f"{module}:judge") != before


def test_a_prompt_without_a_json_form_is_judged_each_time(tmp_path: Path) -> None:
    inner = Counting()
    verifier = CachedVerifier(inner, tmp_path / "c.db", "v")
    odd = replace(PROMPT, meta=MappingProxyType({"tests": {1, 2}}))
    for _ in range(2):
        assert verifier.verify([(odd, "ok"), (odd, "unparsed")]) == [VERDICTS["ok"], VERDICTS["unparsed"]]
    assert inner.asked == ["ok", "unparsed"] * 2


def test_odd_texts(tmp_path: Path) -> None:
    texts = ["\ud800", "\x00", "", "\U0001f600", "'; DROP TABLE verdicts; --", "x" * 2_000_000]
    inner = Counting()
    for _ in range(2):
        CachedVerifier(inner, tmp_path / "c.db", "v").verify([(PROMPT, text) for text in texts])
    assert inner.asked == texts


def test_a_detail_that_has_no_utf8_is_kept_all_the_same(tmp_path: Path) -> None:
    class Quoting(Counting):
        def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
            return [Verdict(status="ok", reward=1.0, detail=f"said {text}") for _, text in responses]

    for _ in range(2):
        with CachedVerifier(Quoting(), tmp_path / "c.db", "v") as verifier:
            assert verifier.verify([(PROMPT, "a \ud83d")])[0].reward == 1.0


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """A reader and one who would write, in the middle of opening the same file: SQLite gives the latter up at once."""
    path = tmp_path / "c.db"
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute(
            "CREATE TABLE verdicts (key TEXT PRIMARY KEY, status TEXT, reward REAL, detail TEXT) WITHOUT ROWID"
        )
        other.execute("BEGIN IMMEDIATE")
        opened: list[CachedVerifier] = []
        opening = threading.Thread(target=lambda: opened.append(CachedVerifier(Counting(), path, "v")))
        opening.start()
        opening.join(0.3)
        assert not opened
        other.execute("COMMIT")
        opening.join(60.0)
    other.close()
    assert len(opened) == 1


def test_many_rows_at_once(tmp_path: Path) -> None:
    inner = Counting()
    verifier = CachedVerifier(inner, tmp_path / "c.db", "v")
    asked = [(PROMPT, str(i)) for i in range(2100)]
    verifier.verify(asked)
    verifier.verify(asked)
    assert len(inner.asked) == 2100


def _fill(path: str, start: int) -> None:
    for i in range(start, start + 60):
        CachedVerifier(Counting(), path, "v").verify([(PROMPT, f"{i}"), (PROMPT, "shared")])


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "c.db")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(path, start)) for start in (0, 30, 60)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    inner = Counting()
    CachedVerifier(inner, path, "v").verify([(PROMPT, f"{i}") for i in range(120)])
    assert inner.asked == []


def test_threads_share_a_verifier(tmp_path: Path) -> None:
    inner = Counting()
    verifier = CachedVerifier(inner, tmp_path / "c.db", "v")
    failures: list[BaseException] = []

    def ask(start: int) -> None:
        try:
            for i in range(start, start + 20):
                assert verifier.verify([(PROMPT, f"{i}")]) == [VERDICTS["ok"]]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(10 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


WRITER = """
import sys
from prmkit.data.types import Prompt, Verdict
from prmkit.verify.cache import CachedVerifier
class Inner:
    def verify(self, responses): return [Verdict(status="ok", reward=1.0)] * len(responses)
    def close(self): pass
verifier = CachedVerifier(Inner(), sys.argv[1], "v")
prompt = Prompt(id="p", messages=(), answer="4")
for i in range(10**6):
    verifier.verify([(prompt, f"{i}/{k}") for k in range(50)])
    print(i, flush=True)
"""


def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(20):
            done = int(writer.stdout.readline())
        time.sleep(0.003)
        writer.send_signal(signal.SIGKILL)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        num_rows = database.execute("SELECT count(*) FROM verdicts").fetchone()[0]
    database.close()
    assert num_rows >= 50 * (done + 1)  # what it had told of is there
    assert num_rows % 50 == 0  # and a call's verdicts together


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes, and there are more than a hundred bytes of them, so it is no empty file" * 5)
    before = text.read_bytes()
    for path in (text, tmp_path, text / "below"):
        with pytest.raises(ConfigError, match=r"verifier.cache = .* cannot be used: .*Name another file"):
            CachedVerifier(Counting(), path, "v")
    assert text.read_bytes() == before
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE verdicts (name TEXT)")
    database.close()
    with pytest.raises(ConfigError, match="no such column"):
        CachedVerifier(Counting(), other, "v")


def test_a_cache_that_breaks_in_the_middle_says_so(tmp_path: Path) -> None:
    verifier = CachedVerifier(Counting(), tmp_path / "c.db", "v")
    with sqlite3.connect(tmp_path / "c.db") as database:
        database.execute("DROP TABLE verdicts")
    database.close()
    with pytest.raises(VerifierError, match=r"c.db: the cache of verdicts failed: no such table.*delete the file"):
        verifier.verify([(PROMPT, "ok")])


def test_by_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that has run once does not run again, until its source is another."""
    monkeypatch.chdir(tmp_path)
    source = "from pathlib import Path\ndef f(prompt, text):\n    open('calls', 'a').write(text)\n    return 1.0\n"
    Path("counted.py").write_text(source)
    config = VerifierConfig(function="counted:f", cache="cache.db", timeout_s=30.0)
    for _ in range(2):
        with make_verifier(config) as verifier:
            assert [v.reward for v in verifier.verify([(PROMPT, "a"), (PROMPT, "b")])] == [1.0, 1.0]
    assert Path("calls").read_text() == "ab"
    Path("counted.py").write_text(source.replace("1.0", "0.5"))
    with make_verifier(config) as verifier:
        assert [v.reward for v in verifier.verify([(PROMPT, "a")])] == [0.5]
