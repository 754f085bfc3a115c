"""A model behind an OpenAI-compatible server (vLLM, llama.cpp and others): `/v1/chat/completions`, asked many at a time.

Whatever a server does, each request ends as a `Reply` or as a `Failure` with its reason. Needs the extra `url`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from prmkit.config import ServerConfig
from prmkit.data.types import Message
from prmkit.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import anyio
    import httpx2

_AGAIN = frozenset((408, 409, 425, 429))
_WRONG_SET_UP = {
    401: "it wants an API key, or another one: put it in an environment variable and name that in server.key_env",
    403: "the API key may not do this: check the key in the variable that server.key_env names",
    404: "it does not know this address or this model: check url (it ends in /v1) and name",
}
"""What no request gets past where the server is set up wrongly. A gateway may refuse a single text with them too."""
_PLAIN = "What is 1 + 1?"
_MOST_TOKENS = 10**7
"""Of one answer; a higher count is not believed."""
_CONNECT_S = 30.0
_SHOWN_CHARS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a model answered."""

    text: str
    finish: Literal["stop", "length"]
    num_tokens: int | None
    """Of the answer, as the server counts them; None where it does not say."""
    tokens: tuple[tuple[bytes, float], ...]
    """The bytes and the log-prob of each token; empty where the server does not offer them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a request has no answer."""

    reason: str
    timed_out: bool = False
    unreachable: bool = False
    """Nobody took the connection: this is about the server, not about the request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Again:
    """An attempt that may be worth another."""

    reason: str
    after_s: float = 0.0
    timed_out: bool = False
    unreachable: bool = False


class _Refused(ModelError):
    """A status of `_WRONG_SET_UP`; `reason` says it in short."""

    reason = ""


@dataclass
class _Call:
    """What the requests of one call know of each other."""

    lock: anyio.Lock
    answered: bool = False


class ChatServer:
    """One model of a server. Safe to use from any thread, also from one that runs an event loop."""

    def __init__(self, url: str, name: str, config: ServerConfig) -> None:
        """`name` empty: the only model that the server lists, asked for when it is first needed.

        Raises ConfigError when the extra `url` is not installed, or when the variable of the API key is empty.
        """
        try:
            import anyio.from_thread
            import httpx2
        except ModuleNotFoundError as error:
            raise ConfigError(f'models by URL need the package {error.name}: pip install "prmkit[url]"') from None
        self._anyio, self._http = anyio, httpx2
        self.url = _base(url)
        self._name, self._config = name, config
        self._key = os.environ.get(config.key_env, "").strip() if config.key_env else ""
        if config.key_env and not self._key:
            raise ConfigError(
                f"server.key_env = {config.key_env!r}, but this environment variable is empty; set it to the API key, or leave "
                "server.key_env empty for a server that wants none"
            )

    @property
    def name(self) -> str:
        """The model's name at the server. Raises ModelError when it has to be asked for and cannot be told."""
        if not self._name:
            self._name = self._only_model()
        return self._name

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[Reply | Failure]:
        """One answer per request, in order; at most `concurrency` are under way at a time.

        A request has the fields of the API (`messages`, `temperature` and so on) but `model`. Raises ModelError where no
        request can succeed: a wrong key, address or name. Where a gateway refuses some texts with the same status, those
        requests fail: a refusal is fatal only if no request of the call was answered and a plain question is not either.
        """
        if not requests:
            return []
        extra = self._config.extra_fields()
        bodies = []
        for request in requests:
            body = {"model": self.name, **request, **extra}
            # ASCII: half a surrogate pair, which a model may well write, has no UTF-8.
            bodies.append(json.dumps({key: value for key, value in body.items() if value is not None}).encode())
        # In a loop and thread of its own: the caller may be in a loop itself, and Ctrl-C cancels what is under way.
        with self._anyio.from_thread.start_blocking_portal() as portal:
            return portal.call(self._ask_all, bodies)

    async def _ask_all(self, bodies: Sequence[bytes]) -> list[Reply | Failure]:
        found: dict[int, Reply | Failure] = {}
        wrong: list[ModelError] = []
        limiter, call = self._anyio.CapacityLimiter(self._config.concurrency), _Call(self._anyio.Lock())
        async with self._client() as client, self._anyio.create_task_group() as group:

            async def ask(index: int) -> None:
                async with limiter:
                    try:
                        found[index] = await self._ask_or_fail(client, bodies[index], call)
                    except ModelError as error:
                        wrong.append(error)
                        group.cancel_scope.cancel()

            for index in range(len(bodies)):
                group.start_soon(ask, index)
        if wrong:
            raise wrong[0]
        return [found[index] for index in range(len(bodies))]

    def _client(self) -> httpx2.AsyncClient:
        seconds = self._config.timeout_s
        key = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return self._http.AsyncClient(
            headers={"Content-Type": "application/json", **key},
            timeout=self._http.Timeout(seconds, connect=min(seconds, _CONNECT_S), pool=None),
            limits=self._http.Limits(max_connections=self._config.concurrency),
        )

    async def _ask_or_fail(self, client: httpx2.AsyncClient, body: bytes, call: _Call) -> Reply | Failure:
        """Raises ModelError for a refusal that any request would meet."""
        try:
            outcome = await self._ask(client, body)
        except _Refused as refused:
            async with call.lock:
                if not call.answered:
                    plain = json.loads(body) | {"messages": [{"role": "user", "content": _PLAIN}]}
                    if not isinstance(await self._ask(client, json.dumps(plain).encode()), Reply):
                        raise
                    call.answered = True
            return Failure(reason=refused.reason)
        call.answered = call.answered or isinstance(outcome, Reply)
        return outcome

    async def _ask(self, client: httpx2.AsyncClient, body: bytes) -> Reply | Failure:
        config, attempt = self._config, 1
        while True:
            outcome: Reply | Failure | _Again = await self._attempt(
                lambda: client.post(f"{self.url}/chat/completions", content=body), _read_reply
            )
            if not isinstance(outcome, _Again):
                return outcome
            if outcome.after_s > config.max_wait_s:
                return Failure(
                    reason=f"{outcome.reason}; it asks to wait {outcome.after_s:.0f} s, and max_wait_s = {config.max_wait_s:g}"
                )
            if attempt == config.attempts:
                return Failure(
                    reason=f"{outcome.reason} (attempt {attempt})",
                    timed_out=outcome.timed_out,
                    unreachable=outcome.unreachable,
                )
            longest = min(config.max_wait_s, config.wait_s * 2.0 ** (attempt - 1))
            await self._anyio.sleep(max(outcome.after_s, random.uniform(0.0, longest)))
            attempt += 1

    async def _attempt(self, send: Callable[[], Any], read: Callable[[Any], Any]) -> Any:
        """What `read` makes of the reply's JSON, a Failure, or an _Again. Raises ModelError for what is set up wrongly."""
        try:
            with self._anyio.fail_after(self._config.timeout_s):
                response = await send()
        except (TimeoutError, self._http.TimeoutException) as error:
            nobody = isinstance(error, self._http.ConnectTimeout)
            return _Again(reason=f"no reply within {self._config.timeout_s:g} s", timed_out=True, unreachable=nobody)
        except self._http.RequestError as error:
            return _Again(
                reason=f"the connection failed: {type(error).__name__}: {self._safe(str(error))}",
                unreachable=isinstance(error, self._http.ConnectError),
            )
        status = response.status_code
        if status in _WRONG_SET_UP:
            refused = _Refused(f"{self.url} says {status}: {self._said(response)}. {_WRONG_SET_UP[status]}")
            refused.reason = f"HTTP {status}: {self._said(response)}"
            raise refused
        if status in _AGAIN or status >= 500:
            after_s = _retry_after(response.headers.get("retry-after", ""))
            return _Again(reason=f"HTTP {status}: {self._said(response)}", after_s=after_s)
        if status != 200:
            return Failure(reason=f"HTTP {status}: {self._said(response)}")
        try:
            return read(response.json())
        except _UNREADABLE as error:
            what = error.args[0] if isinstance(error, _Unreadable) else "no JSON of the form that was asked for"
            return _Again(reason=f"the reply cannot be read ({what}): {self._said(response)}")

    def _only_model(self) -> str:
        async def ask() -> Any:
            async with self._client() as client:
                return await self._attempt(lambda: client.get(f"{self.url}/models"), _read_models)

        with self._anyio.from_thread.start_blocking_portal() as portal:
            listed = portal.call(ask)
        if isinstance(listed, (Failure, _Again)):
            raise ModelError(
                f"{self.url}/models gives no list of models: {listed.reason}. Start the server, or check url (it ends in /v1)"
            )
        if len(listed) != 1:
            raise ModelError(f"{self.url} lists {len(listed)} models ({', '.join(listed)}); choose one by name")
        return str(listed[0])

    def _said(self, response: httpx2.Response) -> str:
        """The server's own message in short, without the API key."""
        try:
            error = response.json()["error"]
            said = error["message"] if isinstance(error, dict) else error
        except _UNREADABLE:
            said = response.text
        return self._safe(str(said))

    def _safe(self, text: str) -> str:
        plain = text.replace(self._key, "[API key]") if self._key else text
        return " ".join(plain.split())[:_SHOWN_CHARS] or "nothing else"


class _Unreadable(ValueError):
    """A reply that is JSON, but not what was asked for."""


_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""What reading a reply of another form raises; the last one where it is nested without end."""


def chat_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The turns as the API writes them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def _base(url: str) -> str:
    """The address that the paths of the API are put behind; a bare host gets /v1."""
    base = url.rstrip("/").removesuffix("/chat/completions")
    return base if "/" in base.partition("://")[2] else f"{base}/v1"


def _read_models(data: Any) -> list[str]:
    return [str(model["id"]) for model in data["data"]]


def _read_reply(data: Any) -> Reply | Failure:
    if data.get("error"):  # some gateways say 200 all the same
        raise _Unreadable("it holds an error")
    if not data["choices"]:
        raise _Unreadable("it holds no answer")
    choice = data["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    text = message.get("content")
    thought = message.get("reasoning_content") or message.get("reasoning")
    if finish not in ("stop", "length"):
        return Failure(reason=f"the model stopped for another reason: {finish!r}")
    if text is None and not thought:
        return Failure(reason="the reply has no text")
    if not isinstance(text, str | None):
        raise _Unreadable("its text is no text")
    stopped_by = choice.get("stop_reason")  # vLLM names the stop string, which the text lacks
    usage = data.get("usage") or {}
    tokens = _tokens((choice.get("logprobs") or {}).get("content") or ())
    return Reply(
        text=(text or "") + (stopped_by if isinstance(stopped_by, str) else ""),
        finish=finish,
        num_tokens=len(tokens) or _count(usage.get("completion_tokens")),
        tokens=tokens,
    )


def _count(value: Any) -> int | None:
    """A number of tokens, also where it is written as 12.0 or "12"; None for anything else."""
    try:
        count = int(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return count if 0 <= count <= _MOST_TOKENS and not isinstance(value, bool) else None


def _tokens(content: Sequence[Mapping[str, Any]]) -> tuple[tuple[bytes, float], ...]:
    return tuple((_bytes(token), float(token["logprob"])) for token in content)


def _bytes(token: Mapping[str, Any]) -> bytes:
    raw = token.get("bytes")
    return bytes(list(raw)) if raw is not None else str(token["token"]).encode()


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for (a number, or a date); 0 where it cannot be read."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
