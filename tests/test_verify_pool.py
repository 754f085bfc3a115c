"""Verifiers in killable processes: whatever a judge does, each item gets its verdict and the pool lives on."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from prmkit.config import VerifierConfig
from prmkit.data.types import Prompt, Verdict
from prmkit.errors import ConfigError, VerifierError
from prmkit.verify import FunctionVerifier, MathVerifier, make_verifier
from prmkit.verify.pool import WorkerPool
from prmkit.verify.user_function import load_function

TIMEOUT_S = 0.6
"""Where something misses it."""
PATIENT_S = 60.0
"""Where nothing hangs: a busy machine may take its time."""
MARGIN_S = 5.0
"""Over a deadline, for killing and for a busy machine."""


def item(text: str, answer: str = "") -> tuple[Prompt, str]:
    return Prompt(id="p", messages=(), answer=answer), text


def user(name: str, workers: int = 1, timeout_s: float = PATIENT_S) -> FunctionVerifier:
    return FunctionVerifier(f"verifier_functions:{name}", workers=workers, timeout_s=timeout_s)


def children() -> set[int]:
    """Process ids whose parent is this process."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def alive(process: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(holds: Callable[[], bool], within_s: float = PATIENT_S) -> bool:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def test_order_is_kept() -> None:
    with user("slow_first", workers=2) as verifier:
        verdicts = verifier.verify([item(str(i)) for i in range(8)])
    assert [verdict.reward for verdict in verdicts] == [i / 10 for i in range(8)]


def test_what_a_function_may_return() -> None:
    outside = "the verifier function returned {}, not in [0, 1]"
    hint = "; if that is meant, state verifier.function_range"
    no_number = "the verifier function returned a {}, not a number in [0, 1] or None"
    expected = {
        "half": Verdict(status="ok", reward=0.5),
        "true": Verdict(status="ok", reward=1.0),
        "int": Verdict(status="ok", reward=0.0),
        "none": Verdict(
            status="unparsed", reward=None, detail="the verifier function returned None: it could not decide"
        ),
        "nan": Verdict(status="error", reward=None, detail=outside.format("nan")),
        "inf": Verdict(status="error", reward=None, detail=outside.format("inf")),
        "high": Verdict(status="error", reward=None, detail=outside.format("1.5") + hint),
        "low": Verdict(status="error", reward=None, detail=outside.format("-0.1") + hint),
        "string": Verdict(status="error", reward=None, detail=no_number.format("str")),
        "list": Verdict(status="error", reward=None, detail=no_number.format("list")),
    }
    with user("by_text") as verifier:
        assert dict(zip(expected, verifier.verify([item(text) for text in expected]), strict=True)) == expected


def test_exceptions_are_errors_with_their_place() -> None:
    with user("misbehave") as verifier:
        raised, exited, deep, fine = verifier.verify(
            [item(text) for text in ("raise", "sys.exit", "recursion", "fine")]
        )
    assert raised.status == exited.status == deep.status == "error"
    assert raised.detail.startswith("KeyError: 'no such unit' (verifier_functions.py:")
    assert exited.detail.startswith("SystemExit: 1")
    assert deep.detail.startswith("RecursionError")
    assert fine == Verdict(status="ok", reward=1.0)


def test_a_dead_worker_is_an_error_of_its_item_alone() -> None:
    texts = ("exit", "fine", "sigkill", "segfault", "fine")
    with user("misbehave") as verifier:
        verdicts = verifier.verify([item(text) for text in texts])
    assert [verdict.detail for verdict in verdicts] == [
        "the worker process died: exited with code 3",
        "",
        "the worker process died: killed by SIGKILL",
        "the worker process died: killed by SIGSEGV",
        "",
    ]
    assert [verdict.status for verdict in verdicts] == ["error", "ok", "error", "error", "ok"]


def test_a_hang_that_ignores_signals_is_killed_at_its_deadline(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    with user("misbehave", timeout_s=TIMEOUT_S) as verifier:
        start = time.monotonic()
        hung, fine = verifier.verify([item("hang", str(place)), item("fine")])
        took = time.monotonic() - start
        assert not alive(int(place.read_text()))
    assert hung == Verdict(status="timeout", reward=None, detail="no verdict after 0.6 s; the worker was killed")
    assert fine.reward == 1.0
    assert TIMEOUT_S <= took < TIMEOUT_S + MARGIN_S


def test_survives_five_kills_in_a_row() -> None:
    with user("misbehave", workers=2, timeout_s=TIMEOUT_S) as verifier:
        verdicts = verifier.verify([item(text) for text in ["hang"] * 5 + ["sigkill"] * 5 + ["fine"] * 3])
    assert [verdict.status for verdict in verdicts] == ["timeout"] * 5 + ["error"] * 5 + ["ok"] * 3


def test_what_a_killed_function_started_dies_too(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    with user("misbehave", timeout_s=TIMEOUT_S) as verifier:
        assert verifier.verify([item("child", str(place))])[0].status == "timeout"
        assert eventually(lambda: not alive(int(place.read_text())))


def process_of(verdict: Verdict) -> int:
    """The worker that `worker_id` ran in."""
    return round(2**32 * (verdict.reward or 0.0))


def test_an_idle_worker_that_was_killed_costs_no_item() -> None:
    with user("worker_id") as verifier:
        first = process_of(verifier.verify([item("")])[0])
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: not alive(first))
        second = verifier.verify([item("")])[0]
    assert second.status == "ok"
    assert process_of(second) != first


def test_an_item_that_cannot_be_sent_is_an_error() -> None:
    prompt = Prompt(id="p", messages=(), answer="a", meta=MappingProxyType({}))
    with user("exact") as verifier:
        bad, good = verifier.verify([(prompt, "a"), item("a", "a")])
    assert bad.status == "error"
    assert bad.detail.startswith("the item cannot be sent to a worker: TypeError")
    assert good.reward == 1.0


def test_workers_outlive_the_thread_that_started_them() -> None:
    seen: list[Verdict] = []
    with user("worker_id") as verifier:
        thread = threading.Thread(target=lambda: seen.extend(verifier.verify([item("")])))
        thread.start()
        thread.join()
        assert seen[0].status == "ok"
        assert verifier.verify([item("")]) == seen  # the same process


def test_threads_may_share_a_verifier() -> None:
    results: dict[int, list[Verdict]] = {}

    def ask(thread: int) -> None:
        results[thread] = verifier.verify([item(str(thread), str(thread)), item("x", str(thread))])

    with user("exact", workers=2) as verifier:
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {i: [verdict.reward for verdict in found] for i, found in results.items()} == {
        i: [1.0, 0.0] for i in range(6)
    }


def test_an_interrupted_call_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    place = tmp_path / "pid"

    def interrupt() -> None:
        if eventually(place.exists):  # the call is under way: any sooner, Ctrl-C would end the tests
            os.kill(os.getpid(), signal.SIGINT)

    with user("misbehave") as verifier:
        verifier.verify([item("fine")])
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            verifier.verify([item("hang", str(place))])
        thread.join()
        assert verifier.verify([item("raise"), item("fine")])[1].reward == 1.0


SCRIPT = """
import os, signal, sys
from prmkit.data.types import Prompt
from prmkit.verify import FunctionVerifier
signal.signal(signal.SIGINT, lambda *_: print("trainer got it", flush=True))
verifier = FunctionVerifier("verifier_functions:misbehave", workers=1, timeout_s=60)
print("ready", flush=True)
print(verifier.verify([(Prompt(id="p", messages=(), answer=sys.argv[2]), sys.argv[1])])[0].status, flush=True)
"""  # unguarded on purpose: workers must not run the caller's script again


def run_script(*arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True, env=env, process_group=0
    )


def test_ctrl_c_reaches_the_trainer_only(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    with run_script("nap", str(place)) as script:
        assert script.stdout is not None
        assert eventually(place.exists)
        os.killpg(script.pid, signal.SIGINT)
        assert [script.stdout.readline(), script.stdout.readline()] == ["ready\n", "trainer got it\n"]
        place.unlink()  # ends the nap
        assert script.communicate(timeout=PATIENT_S)[0] == "ok\n"


def test_a_hung_worker_dies_with_its_killed_parent(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    with run_script("hang", str(place)) as script:
        assert eventually(lambda: place.exists() and place.read_text() != "")
        worker = int(place.read_text())
        assert alive(worker)
        script.kill()
        assert eventually(lambda: not alive(worker))


def test_a_forgotten_pool_is_collected() -> None:
    before = children()
    verifier = user("exact")
    assert children() > before
    del verifier
    assert children() == before


def test_a_closed_verifier_says_so() -> None:
    verifier = user("exact")
    verifier.close()
    verifier.close()
    with pytest.raises(VerifierError, match="the verifier was closed; make a new one"):
        verifier.verify([item("a", "a")])


def test_functions_in_the_current_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_verifier.py").write_text("def judge(prompt, text):\n    return prompt.answer in text\n")
    monkeypatch.chdir(tmp_path)
    with make_verifier(VerifierConfig(function="my_own_verifier:judge")) as verifier:
        assert [v.reward for v in verifier.verify([item("it is 5", "5"), item("no", "5")])] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("no_such_module:judge", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("verifier_functions:no_such", "has no attribute 'no_such'"),
        ("verifier_functions:not_callable", "TypeError: not_callable is a int, not a function"),
        ("verifier_functions", "there is no ':' between a module and a function"),
        ("broken_verifier:judge", "SyntaxError"),
        ("dying_verifier:judge", "3 verifier processes in a row died before they got work: exited with code 5"),
    ],
)
def test_a_function_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, reason: str
) -> None:
    (tmp_path / "broken_verifier.py").write_text("def judge(:\n")
    (tmp_path / "dying_verifier.py").write_text("import os\nos._exit(5)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        make_verifier(VerifierConfig(function=function))
    message = str(caught.value)
    assert message.startswith(f"verifier.function = {function!r} cannot be loaded: ")
    assert reason in message
    assert f"'my_verifier:judge' for judge(prompt, text) in {tmp_path}/my_verifier.py" in message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            VerifierConfig(workers=0),
            "verifier.workers = 0, but at least 1 process is needed. Set verifier.workers = 1.",
        ),
        (VerifierConfig(timeout_s=0.0), "verifier.timeout_s = 0.0, but a deadline is a positive number of seconds"),
        (VerifierConfig(timeout_s=float("nan"), function="a:b"), "verifier.timeout_s = nan"),
    ],
)
def test_bad_configuration(config: VerifierConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_verifier(config)


def test_a_pool_whose_judge_cannot_load_raises() -> None:
    with (
        WorkerPool(partial(load_function, "no_such_module:judge"), workers=1, timeout_s=1.0) as pool,
        pytest.raises(VerifierError, match="No module named 'no_such_module'"),
    ):
        pool.run([item("a")])


def test_plain_numbers_start_no_process() -> None:
    before = children()
    responses = ["3+8=11;11+5=16#16", "3+8=1;1+5=6#6", "3+8=", "#", "#3+8+5", "#16+", "##", "16#1#6;+", "#####"]
    with make_verifier(VerifierConfig()) as verifier:
        verdicts = verifier.verify([item(text, "16") for text in responses])
        assert children() == before
    assert [verdict.reward for verdict in verdicts] == [1.0] + [0.0] * 8


NASTY = [
    "((((" * 500 + "1" + "))))" * 500, r"\frac{" * 300 + "1" + "}{2}" * 300, "{" * 2000 + "}" * 2000, r"\sqrt{" * 500, "}{",
    "10**10**10", "10^{10^{10}}", "9^{9^{9^{9}}}", r"10000000!", r"\sum_{i=1}^{10^{9}} i^{i}", r"\int_0^1 x^x^x dx",
    r"\binom{10^{9}}{10^{8}}", "1/0", "0/0", r"\infty - \infty", r"\sin(10^{10^{5}})", "x" * 5000, "9" * 20_000, "",
    "\x00", "\u202e5", "\U0001f600", "\ud800", r"\text{", r"\begin{pmatrix} 1 \\ 2", r"\\\\\\", "$" * 999, "_^_^",
]  # fmt: skip


def processor_time_of_workers() -> float:
    """Seconds of all ended children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_nasty_answers_all_get_a_verdict_in_time() -> None:
    """Processor time of the workers, and not the clock: a busy machine stretches the latter alone.

    A worker that were not killed at its deadline would use more than one deadline's worth; one that waits, and so uses none,
    would keep this call from ending.
    """
    timeout_s, easy, right = 0.5, [item(r"\boxed{1+x}", "x+1"), item(r"\boxed{x-1}", "x+1")], [1.0, 0.0]
    before = processor_time_of_workers()
    with MathVerifier(workers=1, timeout_s=PATIENT_S) as verifier:
        assert [verdict.reward for verdict in verifier.verify(easy)] == right
    start_s = 2 * (processor_time_of_workers() - before)  # of an interpreter with sympy; it is not always as fast
    before, lost = processor_time_of_workers(), 0

    def lives_on() -> bool:
        nonlocal lost
        found = verifier.verify(easy)
        lost += sum(verdict.status != "ok" for verdict in found)
        return [verdict.reward for verdict in found] == right

    with MathVerifier(workers=2, timeout_s=timeout_s) as verifier:
        verdicts = verifier.verify([item(rf"\boxed{{{answer}}}", "x+1") for answer in NASTY])
        assert eventually(lives_on)
    used = processor_time_of_workers() - before
    for answer, verdict in zip(NASTY, verdicts, strict=True):
        assert verdict.reward != 1.0, answer[:40]
        assert verdict.reward == 0.0 or verdict.detail, answer[:40]
        assert verdict.status != "timeout" or verdict.detail == "no verdict after 0.5 s; the worker was killed"
    num_killed = sum(verdict.status in ("timeout", "error") for verdict in verdicts)
    assert 0 < num_killed < len(NASTY)
    assert used < len(NASTY) * timeout_s + (num_killed + lost + 2) * start_s


def test_equal_comparisons_are_made_once() -> None:
    """Eight siblings with the answer that hangs cost one deadline."""
    with MathVerifier(workers=1, timeout_s=0.5) as verifier:
        verifier.verify([item(r"\boxed{1+x}", "x+1")])
        start = time.monotonic()
        verdicts = verifier.verify([item(r"\boxed{9^{9^{9^{9}}}}", "x+1")] * 8)
        took = time.monotonic() - start
    assert len(set(verdicts)) == 1
    assert took < 0.5 + MARGIN_S


def test_workers_do_not_import_torch() -> None:
    with user("modules_loaded") as verifier:
        loaded = verifier.verify([item("torch"), item("prmkit.verify.pool")])
    assert [verdict.reward for verdict in loaded] == [0.0, 1.0]


def rewards(name: str, *texts: str, **options: Any) -> list[Verdict]:
    settings = {"workers": 1, "timeout_s": PATIENT_S} | options
    with FunctionVerifier(f"user_rewards:{name}", **settings) as verifier:
        return verifier.verify([item(text) for text in texts])


def test_what_a_judge_prints_is_not_the_commands_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert rewards("prints", "a")[0].reward == 1.0
    out, errors = capfd.readouterr()
    assert out == ""
    assert "printed by a judge" in errors


def test_a_worker_is_replaced_after_so_many_items() -> None:
    """`leaks` returns how often it has run in this process, over 10."""
    found = [verdict.reward for verdict in rewards("leaks", *"abcde", recycle_after=2)]
    assert found == [0.1, 0.2, 0.1, 0.2, 0.1]


def test_a_worker_that_has_grown_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter holds about 15 MB; 40 MB more an item pass 100 MB with the third at the latest."""
    monkeypatch.setattr(
        "prmkit.verify.pool._LIVENESS_S", PATIENT_S
    )  # no look in the middle of an item, however slow it is
    found = [verdict.reward for verdict in rewards("leaks", *"abcdef", memory_mb=100)]
    assert None not in found
    assert max(value for value in found if value is not None) <= 0.3


def test_a_memory_bomb_is_an_error_of_its_item_alone() -> None:
    bomb, fine = rewards("explodes", "bomb", "fine", memory_mb=200)
    assert (bomb.status, bomb.detail) == ("error", "the worker held more than 200 MB; it was killed")
    assert fine.reward == 1.0


def test_big_inputs_arrive_and_big_outputs_are_cut() -> None:
    assert rewards("length", "x" * (30 * 2**20))[0].reward == pytest.approx(0.3)
    verdict = rewards("ours_verdict", "a")[0]
    assert verdict.status == "unparsed"
    assert 1000 <= len(verdict.detail) <= 60_000


def test_a_worker_that_does_not_read_blocks_nobody() -> None:
    """A stopped process leaves a pipe full: the deadline has to hold for handing the item over, too."""
    with user("worker_id", timeout_s=1.0) as verifier:
        os.kill(process_of(verifier.verify([item("")])[0]), signal.SIGSTOP)  # nothing is delivered to it from here on
        start = time.monotonic()
        late, fine = verifier.verify([item("y" * (8 * 2**20)), item("z")])
        took = time.monotonic() - start
    assert late.status == "timeout"
    assert fine.status == "ok"
    assert took < 1.0 + 2 * MARGIN_S


def test_garbage_in_the_pipe_is_an_error_and_no_crash() -> None:
    (first,) = rewards("garbage", "a")
    assert (first.status, first.detail) == ("error", "something wrote into the worker's pipe; the worker was killed")


def test_a_parent_that_was_held_up_makes_no_false_timeout() -> None:
    """Nothing of this process runs for twice the deadline; the verdict that came meanwhile counts."""
    with user("exact", timeout_s=0.5) as verifier:
        verifier.verify([item("a", "a")])
        hold = threading.Timer(0.0, ctypes.PyDLL(None).sleep, (1,))  # keeps the interpreter's lock
        hold.start()
        assert [v.reward for v in verifier.verify([item("a", "a"), item("b", "a")])] == [1.0, 0.0]
        hold.join()


def test_an_event_loop_can_judge_in_threads() -> None:
    """As a web server does: many requests, each in a thread of the loop's pool; math-verify's signals stay in the workers."""

    async def requests() -> list[Verdict]:
        asked = (asyncio.to_thread(verifier.verify, [item(rf"\boxed{{{k}+x}}", "x+1")]) for k in range(4))
        return [verdicts[0] for verdicts in await asyncio.gather(*asked)]

    with MathVerifier(workers=2, timeout_s=PATIENT_S) as verifier:
        assert [verdict.reward for verdict in asyncio.run(requests())] == [0.0, 1.0, 0.0, 0.0]


def test_a_judge_may_use_signals() -> None:
    seen: list[Verdict] = []
    thread = threading.Thread(target=lambda: seen.extend(rewards("own_alarm", "a")))
    thread.start()
    thread.join()
    assert seen[0].reward == 1.0
