"""Models by URL, against a real HTTP server that misbehaves on purpose: every response is had, or failed with its reason."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from chat_api import Asked, ChatAPI, Say, chat_api, completion

from prmkit.cli.main import main
from prmkit.config import ModelConfig, ServerConfig
from prmkit.data.types import Group, Message, Prompt, Rollout, SamplingParams
from prmkit.engines.url import URLSampler
from prmkit.errors import ConfigError, ModelError, SamplingError
from prmkit.rl.config import RLConfig
from prmkit.train.config import SFTConfig

PARAMS = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=32)
FAST = ServerConfig(attempts=3, wait_s=0.01, max_wait_s=0.05, timeout_s=30.0)


def prompt(text: str, name: str = "") -> Prompt:
    return Prompt(id=name or text, messages=(Message(role="user", content=text),), answer="4")


def sampler(api: ChatAPI, server: ServerConfig = FAST, name: str = "m") -> URLSampler:
    return URLSampler(ModelConfig(url=api.url, name=name, server=server))


def sample(
    api: ChatAPI, *texts: str, n: int = 1, params: SamplingParams = PARAMS, server: ServerConfig = FAST
) -> list[Group[Rollout]]:
    return sampler(api, server).sample([prompt(text) for text in texts], n=n, params=params, seed=5)


def one(api: ChatAPI, server: ServerConfig = FAST) -> Rollout:
    """The response to a question, beside one that always has an answer (all failing is an error of its own)."""
    return sample(api, "question", "fine", server=server)[0].members[0]


def to_question(answer: Any) -> Any:
    return lambda asked: "fine" if asked.text == "fine" else answer(asked) if callable(answer) else answer


def test_each_response_is_a_request_with_its_own_seed() -> None:
    with chat_api(lambda asked: f"{asked.text}/{asked.body['seed']}") as api:
        groups = sample(
            api, "a", "b", n=3, params=SamplingParams(temperature=0.7, top_p=0.9, max_tokens=32, stop=("\n",))
        )
        again = sample(
            api, "a", "b", n=3, params=SamplingParams(temperature=0.7, top_p=0.9, max_tokens=32, stop=("\n",))
        )
        other = sampler(api).sample([prompt("a")], n=3, params=PARAMS, seed=6)[0]
    texts = [[member.text for member in group.members] for group in groups]
    assert [group.prompt.id for group in groups] == ["a", "b"]
    assert all(text.startswith(f"{name}/") for name, row in zip("ab", texts, strict=True) for text in row)
    assert len({text for row in texts for text in row}) == 6
    assert [[member.text for member in group.members] for group in again] == texts
    assert not {member.text for member in other.members} & {text for row in texts for text in row}
    body = dict(api.seen[0].body)
    assert 0 <= body.pop("seed") < 2**31
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": api.seen[0].text}],
        "n": 1,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 32,
        "stop": ["\n"],
    }


def test_seeds_for_each_prompt_do_not_depend_on_the_others() -> None:
    with chat_api(lambda asked: f"{asked.text}/{asked.body['seed']}") as api:
        both = sampler(api).sample_each([prompt("a"), prompt("b")], n=2, params=PARAMS, seeds=[1, 2])
        alone = sampler(api).sample_each([prompt("b")], n=2, params=PARAMS, seeds=[2])
    assert both[1] == alone[0]


def test_what_a_rollout_holds() -> None:
    with chat_api(lambda asked: Say(completion("four", "length", tokens=32))) as api:
        rollout = sample(api, "a")[0].members[0]
    assert (rollout.text, rollout.finish, rollout.prompt_id, rollout.failure) == ("four", "length", "a", "")
    assert rollout.token_ids == (-1,) * 32  # how many is known, which is not
    assert rollout.logprobs == rollout.token_ends == ()


@pytest.mark.parametrize(
    ("count", "length"),
    [(12, 12), ("12", 12), (12.0, 12), (None, 0), (-1, 0), ("many", 0), (True, 0), (1e300, 0), ([1], 0)],
)
def test_a_count_of_tokens_in_another_form(count: Any, length: int) -> None:
    with chat_api(lambda asked: Say(completion("four", tokens=count))) as api:
        rollout = sample(api, "a")[0].members[0]
    assert (rollout.text, rollout.finish, len(rollout.token_ids)) == ("four", "stop", length)


def test_logprobs_where_the_server_offers_them() -> None:
    """The euro sign is three bytes over two tokens: its character exists only after the second."""
    content = [
        {"token": "5 ", "logprob": -0.5, "bytes": [53, 32]},
        {"token": "\ufffd", "logprob": -1.0, "bytes": [0xE2, 0x82]},
        {"token": "\ufffd", "logprob": -2.0, "bytes": [0xAC]},
        {"token": "<end>", "logprob": -0.25, "bytes": None},
    ]
    with chat_api(lambda asked: Say(completion("5 \u20ac", logprobs={"content": content}))) as api:
        rollout = sample(api, "a", server=ServerConfig(extra='{"logprobs": true}'))[0].members[0]
    assert api.seen[0].body["logprobs"] is True
    assert rollout.logprobs == (-0.5, -1.0, -2.0, -0.25)
    assert rollout.token_ends == (2, 2, 3, 3)
    assert len(rollout.token_ids) == 4


def test_logprobs_of_a_hidden_text_are_left_out() -> None:
    content = [{"token": "thought", "logprob": -0.5, "bytes": list(b"thought")}]
    with chat_api(lambda asked: Say(completion("4", logprobs={"content": content}))) as api:
        rollout = sample(api, "a")[0].members[0]
    assert (rollout.text, rollout.logprobs, rollout.token_ends) == ("4", (), ())


def test_a_stop_string_that_the_server_names_is_kept() -> None:
    with chat_api(lambda asked: Say(completion("so 4", stop_reason="\n\n"))) as api:
        assert sample(api, "a")[0].members[0].text == "so 4\n\n"
    with chat_api(
        lambda asked: Say(completion("so 4", stop_reason=151645))
    ) as api:  # a token's id: no string stopped it
        assert sample(api, "a")[0].members[0].text == "so 4"


def test_extra_fields_and_removed_ones() -> None:
    extra = json.dumps({"top_k": 20, "max_tokens": None, "max_completion_tokens": 9})
    with chat_api(lambda asked: "4") as api:
        sample(api, "a", server=ServerConfig(extra=extra))
    body = api.seen[0].body
    assert (body["top_k"], body["max_completion_tokens"]) == (20, 9)
    assert "max_tokens" not in body
    assert "stop" not in body


TRANSIENT = {
    "rate limit": Say({"error": {"message": "slow down"}}, 429),
    "server error": Say("oops", 500),
    "overloaded": Say("", 503),
    "dropped": Say(drop=True),
    "no JSON": Say("<html>gateway</html>"),
    "cut JSON": Say('{"choices": [{"message": {"cont'),
    "no choices": Say({"choices": []}),
    "no such field": Say({"answer": "4"}),
    "a list": Say([1, 2]),
    "an error with status 200": Say({"error": {"message": "upstream broke"}, "choices": []}),
    "choices of another form": Say({"choices": ["4"]}),
    "nested without end": Say("[" * 100_000),
    "a byte count that is none": Say(completion("4", logprobs={"content": [{"logprob": 0.0, "bytes": 10**14}]})),
    "text of another type": Say(completion(4)),  # type: ignore[arg-type]
    "not UTF-8": Say("\udcff".encode("utf-8", "surrogateescape").decode("latin-1")),
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_passing_fault_costs_an_attempt_and_no_response(fault: Say) -> None:
    with chat_api(to_question(lambda asked: fault if asked.attempt == 1 else "4")) as api:
        rollout = one(api)
        assert [asked.attempt for asked in api.seen if asked.text == "question"] == [1, 2]
    assert (rollout.text, rollout.finish) == ("4", "stop")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("rate limit", r"HTTP 429: slow down \(attempt 3\)"),
        ("server error", r"HTTP 500: oops \(attempt 3\)"),
        ("overloaded", r"HTTP 503: nothing else \(attempt 3\)"),
        ("dropped", r"the connection failed: RemoteProtocolError: .* \(attempt 3\)"),
        (
            "no JSON",
            r"the reply cannot be read \(no JSON of the form that was asked for\): <html>gateway</html> \(attempt 3\)",
        ),
        ("no choices", r"the reply cannot be read \(it holds no answer\): .* \(attempt 3\)"),
        ("an error with status 200", r"the reply cannot be read \(it holds an error\): upstream broke \(attempt 3\)"),
    ],
)
def test_a_lasting_fault_is_an_error_with_its_reason(fault: str, reason: str) -> None:
    with chat_api(to_question(TRANSIENT[fault])) as api:
        rollout = one(api)
        assert sum(asked.text == "question" for asked in api.seen) == 3
    assert (rollout.text, rollout.finish, rollout.token_ids) == ("", "error", ())
    assert re.fullmatch(reason, rollout.failure), rollout.failure


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            Say({"error": {"message": "maximum context length is 16 tokens"}}, 400),
            "HTTP 400: maximum context length is 16 tokens",
        ),
        (Say("", 302, Location="http://elsewhere"), "HTTP 302: nothing else"),
        (Say(completion(None)), "the reply has no text"),
        (Say(completion("I can", "content_filter")), "the model stopped for another reason: 'content_filter'"),
        (Say(completion("I can", None)), "the model stopped for another reason: None"),  # type: ignore[arg-type]
    ],
)
def test_what_another_attempt_cannot_mend_is_asked_once(answer: Say, reason: str) -> None:
    with chat_api(to_question(answer)) as api:
        rollout = one(api)
        assert sum(asked.text == "question" for asked in api.seen) == 1
    assert (rollout.finish, rollout.failure) == ("error", reason)


def test_a_model_that_says_nothing_has_answered() -> None:
    with chat_api(lambda asked: Say(completion("", tokens=1))) as api:
        assert sample(api, "a")[0].members[0].finish == "stop"
    cut_in_thought = Say(completion(None, "length", message={"reasoning_content": "let me see"}))
    with chat_api(lambda asked: cut_in_thought) as api:
        rollout = sample(api, "a")[0].members[0]
    assert (rollout.text, rollout.finish) == ("", "length")


def test_odd_prompts_arrive() -> None:
    texts = ["\ud800", "\x00", "\U0001f600", "", "x" * 2_000_000]
    with chat_api(lambda asked: str(len(asked.text))) as api:
        groups = sampler(api).sample([prompt(text, f"{i}") for i, text in enumerate(texts)], n=1, params=PARAMS, seed=0)
    assert [group.members[0].text for group in groups] == ["1", "1", "1", "0", "2000000"]


def test_a_wrong_number_of_answers() -> None:
    two = completion("first")
    two["choices"] = [*two["choices"], *completion("second")["choices"]]
    with chat_api(lambda asked: Say(two)) as api:
        groups = sample(api, "a", n=3)
    assert [member.text for member in groups[0].members] == ["first"] * 3


def test_a_slow_reply_is_given_up_and_asked_again() -> None:
    release = threading.Event()

    def answer(asked: Asked) -> str:
        if asked.text != "fine" and asked.attempt == 1:
            release.wait(60)
        return "4"

    with chat_api(answer) as api:
        rollout = one(api, ServerConfig(attempts=2, wait_s=0.0, timeout_s=1.0))
        assert rollout.text == "4"
        rollout = one(api, ServerConfig(attempts=1, timeout_s=5.0))
        release.set()
    assert rollout.text == "4"  # the same request again: the server has it ready


def test_a_reply_that_never_comes_is_a_timeout() -> None:
    release = threading.Event()

    def answer(asked: Asked) -> str:
        if asked.text != "fine":
            release.wait(60)
        return "4"

    with chat_api(answer) as api:
        rollout = one(api, ServerConfig(attempts=2, wait_s=0.0, timeout_s=0.4))
        release.set()
    assert (rollout.finish, rollout.failure) == ("error", "no reply within 0.4 s (attempt 2)")


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_respected(as_date: bool) -> None:
    def answer(asked: Asked) -> Say | str:
        after = formatdate(time.time() + 2, usegmt=True) if as_date else "0.5"
        return Say("", 429, Retry_After=after) if asked.attempt == 1 else "4"

    with chat_api(answer) as api:
        sample(api, "a", server=ServerConfig(attempts=2, wait_s=0.0, max_wait_s=5.0))
        waited = api.times[1] - api.times[0]
    assert waited >= (0.9 if as_date else 0.5)  # a date has whole seconds: 2 s from now is at least 1 s


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for() -> None:
    with chat_api(to_question(Say("", 429, Retry_After="3600"))) as api:
        rollout = one(api)
    assert rollout.failure == "HTTP 429: nothing else; it asks to wait 3600 s, and max_wait_s = 0.05"


def test_waits_grow_and_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """wait_s = 1, max_wait_s = 5: below 1, 2, 4, 5 and 5 seconds."""
    longest: list[float] = []

    def uniform(low: float, high: float) -> float:
        longest.append(high)
        assert low == 0.0
        return 0.0

    monkeypatch.setattr("prmkit.models.chat_server.random.uniform", uniform)
    with chat_api(lambda asked: Say("", 500)) as api, pytest.raises(SamplingError):
        sample(api, "a", server=ServerConfig(attempts=6, wait_s=1.0, max_wait_s=5.0))
    assert longest == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_no_more_than_concurrency_at_a_time() -> None:
    def answer(asked: Asked) -> str:
        time.sleep(0.02)
        return "4"

    with chat_api(answer) as api:
        groups = sample(api, *map(str, range(10)), n=3, server=ServerConfig(concurrency=4))
    assert 2 <= api.most_at_once <= 4
    assert sum(len(group.members) for group in groups) == 30


def test_order_is_kept_when_answers_come_out_of_order() -> None:
    def answer(asked: Asked) -> str:
        time.sleep(0.2 if asked.text == "0" else 0.0)
        return asked.text

    with chat_api(answer) as api:
        groups = sample(api, *map(str, range(6)))
    assert [group.members[0].text for group in groups] == [str(i) for i in range(6)]


def test_nothing_at_all_is_no_evaluation() -> None:
    with chat_api(lambda asked: Say("out of memory", 500)) as api, pytest.raises(SamplingError) as caught:
        sample(api, "a", n=2)
    assert "gave no response to any of 2 requests. The first: HTTP 500: out of memory (attempt 3)" in str(caught.value)


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    named = URLSampler(ModelConfig(url=url, name="m", server=FAST))
    with pytest.raises(SamplingError, match="the connection failed: ConnectError"):
        named.sample([prompt("a")], n=1, params=PARAMS, seed=0)
    with pytest.raises(
        SamplingError, match=r"gave no response to any of 2 requests\. The first: the connection failed"
    ):
        named.try_each([prompt("a")], n=2, params=PARAMS, seeds=[0])
    with pytest.raises(
        ModelError, match=r"/v1/models gives no list of models: the connection failed.*Start the server"
    ):
        _ = URLSampler(ModelConfig(url=url, server=FAST)).name


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "it wants an API key"), (403, "may not do this"), (404, "does not know this address or this")],
)
def test_what_is_set_up_wrongly_stops_at_once(status: int, advice: str) -> None:
    with chat_api(lambda asked: Say({"error": {"message": "no such thing"}}, status)) as api:
        with pytest.raises(ModelError, match=f"says {status}: no such thing. .*{advice}"):
            sample(api, *map(str, range(50)), server=ServerConfig(concurrency=2))
        assert len(api.seen) < 10


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_text_that_a_gateway_refuses_fails_alone(status: int, concurrency: int) -> None:
    """Wherever it stands, and also where it is all that is asked: a plain question then says that the rest is set up."""
    blocked = Say({"error": {"message": "blocked"}}, status)
    server = ServerConfig(concurrency=concurrency)
    with chat_api(lambda asked: blocked if asked.text == "bad" else "4") as api:
        first = sample(api, "bad", "a", "b", server=server)
        last = sample(api, "a", "b", "bad", server=server)
        before = len(api.seen)
        alone = sampler(api, server).try_each([prompt("bad")], n=3, params=PARAMS, seeds=[0])
        assert sorted(asked.text for asked in api.seen[before:]) == ["What is 1 + 1?", "bad", "bad", "bad"]
    assert [group.members[0].failure for group in first] == [f"HTTP {status}: blocked", "", ""]
    assert [group.members[0].failure for group in last] == ["", "", f"HTTP {status}: blocked"]
    assert [member.failure for member in alone[0].members] == [f"HTTP {status}: blocked"] * 3


def test_a_key_that_runs_out_stops_the_run() -> None:
    with chat_api(lambda asked: Say("expired", 401) if len(api.seen) > 1 else "4") as api:
        shared = sampler(api)
        assert shared.try_each([prompt("a")], n=1, params=PARAMS, seeds=[0])[0].members[0].text == "4"
        with pytest.raises(ModelError, match="says 401: expired"):
            shared.try_each([prompt("a")], n=1, params=PARAMS, seeds=[0])


def test_the_only_model_is_found_and_several_are_refused() -> None:
    with chat_api(lambda asked: "4", models=("llama",)) as api:
        assert sampler(api, name="").name == "llama"
        sampler(api, name="").sample([prompt("a")], n=1, params=PARAMS, seed=0)
        assert api.seen[0].body["model"] == "llama"
    with (
        chat_api(lambda asked: "4", models=("a", "b")) as api,
        pytest.raises(ModelError, match=r"lists 2 models \(a, b\)"),
    ):
        _ = sampler(api, name="").name


def test_a_bare_host_and_a_full_address_are_the_same_server() -> None:
    with chat_api(lambda asked: "4") as api:
        for url in (api.url, f"{api.url}/", api.url.removesuffix("/v1"), f"{api.url}/chat/completions"):
            named = URLSampler(ModelConfig(url=url, name="m", server=FAST))
            assert named.sample([prompt("a")], n=1, params=PARAMS, seed=0)[0].members[0].text == "4"


def test_the_key_is_sent_and_told_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-1")
    keyed = ServerConfig(key_env="MY_KEY", attempts=1)
    with chat_api(to_question(Say({"error": {"message": "Incorrect API key provided: sk-secret-1."}}, 400))) as api:
        rollout = one(api, keyed)
        assert {asked.headers["Authorization"] for asked in api.seen} == {"Bearer sk-secret-1"}
    assert rollout.failure == "HTTP 400: Incorrect API key provided: [API key]."
    assert "sk-secret-1" not in repr(keyed)


def test_a_key_that_is_not_there_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"server.key_env = 'MY_KEY', but this environment variable is empty"):
        URLSampler(ModelConfig(url="http://127.0.0.1:1/v1", server=ServerConfig(key_env="MY_KEY")))


def test_works_inside_an_event_loop_and_from_threads() -> None:
    async def inside(api: ChatAPI) -> str:
        return sample(api, "a")[0].members[0].text

    texts: list[str] = []
    with chat_api(lambda asked: asked.text) as api:
        assert asyncio.run(inside(api)) == "a"
        shared = sampler(api)
        threads = [
            threading.Thread(
                target=lambda i=i: texts.append(
                    shared.sample([prompt(str(i))], n=1, params=PARAMS, seed=0)[0].members[0].text
                )
            )
            for i in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(texts) == ["0", "1", "2", "3", "4"]


SCRIPT = """
import sys
from prmkit.config import ModelConfig
from prmkit.data.types import Message, Prompt, SamplingParams
from prmkit.engines.url import URLSampler
prompt = Prompt(id="a", messages=(Message(role="user", content="a"),), answer="")
sampler = URLSampler(ModelConfig(url=sys.argv[1], name="m"))
print("ready", flush=True)
sampler.sample([prompt] * 3, n=1, params=SamplingParams(), seed=0)
"""


def test_ctrl_c_does_not_wait_for_the_server() -> None:
    release = threading.Event()

    def answer(asked: Asked) -> str:
        release.wait(30)
        return "4"

    with chat_api(answer) as api:
        command = [sys.executable, "-c", SCRIPT, api.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as script:
            assert script.stdout is not None
            assert script.stdout.readline() == "ready\n"
            while not api.seen:
                time.sleep(0.02)
            start = time.monotonic()
            os.kill(script.pid, signal.SIGINT)
            _, errors = script.communicate(timeout=20)
        took = time.monotonic() - start
        release.set()
    assert "KeyboardInterrupt" in errors
    assert took < 15


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "localhost:8000"}, "model.url = 'localhost:8000' is no address of a server"),
        ({"url": "http://"}, "is no address of a server"),
        ({"url": "http://host:port/v1"}, "is no address of a server"),
        ({"url": "http://me:secret@host/v1"}, "names the server host and more than a path"),
        ({"url": "http://host/v1?api_key=secret"}, "put the key in an environment variable"),
        ({"url": "http://host/v1", "path": "runs/a"}, "name two models"),
        ({"name": "m"}, "but url is empty"),
    ],
)
def test_bad_addresses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        ModelConfig(**values)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"concurrency": 0}, "concurrency = 0 is out of range"),
        ({"timeout_s": 0.0}, "timeout_s = 0.0 is out of range"),
        ({"attempts": 0}, "attempts = 0 is out of range"),
        ({"wait_s": 5.0, "max_wait_s": 1.0}, r"max_wait_s = 1.0 is out of range \[5,"),
        ({"extra": "top_k=20"}, "is not JSON"),
        ({"extra": "[1]"}, "is JSON, but no object"),
    ],
)
def test_bad_server_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**values)


def test_training_a_model_by_url_is_refused_with_the_reason() -> None:
    model = ModelConfig(url="http://localhost:8000/v1")
    with pytest.raises(
        ConfigError, match=r"model.url = .* only answers: RL moves the policy's weights .* Set model.path"
    ):
        RLConfig(model=model)
    with pytest.raises(ConfigError, match="fine-tuning moves the weights"):
        SFTConfig(model=model)


def test_prmkit_eval_asks_a_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four questions: one always right, one always wrong, one that the server refuses, one right when sampled only."""
    monkeypatch.setenv("MY_KEY", "sk-secret-2")
    names = ("right", "wrong", "refused", "mixed")
    rows = [{"id": name, "question": name, "answer": "4"} for name in names]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refuse = True

    def answer(asked: Asked) -> Say | str:
        name = next(name for name in names if name in asked.text)
        if name == "refused" and refuse:
            return Say({"error": {"message": "too long, sk-secret-2"}}, 400)
        right = name != "wrong" and (name != "mixed" or asked.body["temperature"] > 0)
        return rf"so it is \boxed{{{4 if right else 5}}}"

    out = tmp_path / "result.json"
    with chat_api(answer) as api:
        command = ["eval", "--task.name", "math", "--task.test", str(tmp_path / "test.jsonl"), "--samples", "2"]
        command += ["--model.url", api.url, "--model.name", "m", "--model.server.key-env", "MY_KEY", "--out", str(out)]
        assert main(command) == 0
        first = len(api.seen)
        result = json.loads(out.read_text())
        refuse = False
        assert main(command) == 0  # goes on: what was not sampled is asked again, and nothing else
        asked_again = [asked.text for asked in api.seen[first:]]
    assert first == 4 * 3
    # sampled: right 1, wrong 0, mixed 1, refused not sampled; greedy: right 1, wrong 0, mixed 0
    assert result["accuracy"]["sampled"]["mean"] == pytest.approx(2 / 3)
    assert result["accuracy"]["greedy"]["mean"] == pytest.approx(1 / 3)
    refused = next(question for question in result["questions"] if question["prompt_id"].endswith("refused"))
    assert [member["status"] for member in refused["sampled"]] == ["not_sampled"] * 2
    assert refused["sampled"][0]["detail"] == "not sampled: HTTP 400: too long, [API key]"
    assert len(asked_again) == 3
    assert all("refused" in text for text in asked_again)
    whole = "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file()) + "".join(capsys.readouterr())
    assert "sk-secret-2" not in whole
    assert json.loads(out.read_text())["accuracy"]["sampled"]["mean"] == pytest.approx(3 / 4)


def eval_command(folder: Path, api: ChatAPI, names: list[str], *more: str) -> list[str]:
    rows = [{"id": name, "question": name, "answer": "4"} for name in names]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["eval", "--task", "math", "--task.test", str(folder / "test.jsonl"), "--samples", "2", "--model.url"]
    return [*command, api.url, "--model.name", "m", "--out", str(folder / "r.json"), *more]


def test_a_finished_evaluation_can_be_repeated_though_a_question_is_always_refused(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Say | str:
        return Say({"error": {"message": "flagged"}}, 400) if "bad" in asked.text else r"\boxed{4}"

    with chat_api(answer) as api:
        command = eval_command(tmp_path, api, ["bad", "good"])
        assert main(command) == 0
        first = (tmp_path / "r.json").read_bytes()
        assert main(command) == 0
        assert len(api.seen) == 2 * 3 + 3, "the refused question alone is asked again"
    assert (tmp_path / "r.json").read_bytes() == first
    result = json.loads(first)
    assert result["verdicts"]["sampled"] == {"not_sampled": 2, "ok": 2}
    assert result["accuracy"]["undecided_questions"] == 1


def test_batches_after_one_that_fails_are_reached_and_samples_outlive_the_greedy_response(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Say | str:
        refused = "bad" in asked.text or ("half" in asked.text and asked.body["temperature"] == 0)
        return Say({"error": {"message": "flagged"}}, 400) if refused else r"\boxed{4}"

    with chat_api(answer) as api:
        assert main(eval_command(tmp_path, api, ["bad1", "half", "bad2", "good"], "--batch-size", "1")) == 0
    questions = json.loads((tmp_path / "r.json").read_text())["questions"]
    sampled = [[member["finish"] for member in question["sampled"]] for question in questions]
    assert sampled == [["error"] * 2, ["stop"] * 2, ["error"] * 2, ["stop"] * 2]
    assert [question["greedy"]["finish"] for question in questions] == ["error", "error", "error", "stop"]


def test_the_seeds_of_a_question_do_not_depend_on_its_batch(tmp_path: Path) -> None:
    names = [f"q{i}" for i in range(9)]
    found = []
    for size in (8, 4):
        folder = tmp_path / str(size)
        folder.mkdir()
        with chat_api(lambda asked: r"\boxed{4}") as api:
            assert main(eval_command(folder, api, names, "--batch-size", str(size))) == 0
        found.append({(a.text, a.body["temperature"], a.body["seed"]) for a in api.seen})
    assert found[0] == found[1]
    assert len({seed for _, temperature, seed in found[0] if temperature == 0}) == 9


@pytest.mark.parametrize(("num", "asked_for"), [(3, 3), (100, 64)])
def test_a_server_that_takes_no_question_at_all_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], num: int, asked_for: int
) -> None:
    with chat_api(lambda asked: Say({"error": {"message": "no such parameter"}}, 400)) as api:
        command = eval_command(tmp_path, api, [f"q{i}" for i in range(num)], "--batch-size", "8", "--greedy", "false")
        assert main(command) == 1
        assert len(api.seen) == 2 * asked_for
    complaint = capsys.readouterr().err
    assert f"there is no response to any of {asked_for} questions. The first: HTTP 400: no such parameter." in complaint
    assert not (tmp_path / "r.json").exists()


def test_brackets_and_colons_in_data_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    with chat_api(lambda asked: r"\boxed{4}") as api:
        command = eval_command(tmp_path, api, ["a"], "--sampling.stop", "[/stop]", "--task", "school.toml")
        rows = [{"question": f"q{i}", "answer": "4", "kind": kind} for i, kind in enumerate(("[/INST]", ":smile:"))]
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "school.toml").write_text(
            'name = "school"\nversion = "1"\njudge = "math"\nquestion = ["question"]\nanswer = ["answer"]\n'
            'template = "plain"\n[categories]\nkind = "kind"\n'
        )
        assert main(command) == 0, capsys.readouterr().err
        other = [word.replace("r.json", "[b].json").replace("[/stop]", "[b]") for word in command]
        assert main(other) == 0
    assert main(["eval", "compare", "r.json", "[b].json"]) == 0
    out = capsys.readouterr().out
    assert out.count("[/INST]") == 3, "in the table of each evaluation and in that of the comparison"
    assert "kind: :smile:" in out
    assert "second: [b].json" in out
    assert "sampling.stop: ['[/stop]'] and ['[b]']" in out


EVAL = """
import sys
from prmkit.cli.main import main
code = main(["eval", "--task.name", "math", "--task.test", sys.argv[2], "--model.url", sys.argv[1]])
print(code, [name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_evaluating_a_url_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"question": "2 + 2", "answer": "4"}\n')
    with chat_api(lambda asked: "The answer is 4.") as api:
        command = [sys.executable, "-c", EVAL, api.url, str(tmp_path / "test.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("0 []\n"), done.stderr
