"""Sections of configuration that several commands share. The one layer of defaults: each is written here, once."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from prmkit.errors import ConfigError

ReportTo = Literal["tensorboard", "wandb", "trackio"]
"""Loggers beside metrics.jsonl; each is an extra of its name."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How an OpenAI-compatible server is asked (`/v1/chat/completions`)."""

    key_env: str = ""
    """Name of the environment variable that holds the API key; empty: no key is sent. The key itself is never written."""
    concurrency: int = 16
    """Requests under way at a time."""
    timeout_s: float = 600.0
    """Seconds for one request, from sending it to the last byte of its reply."""
    attempts: int = 6
    """How often one request is tried: again after 408, 409, 429, 5xx, a lost connection, a timeout or a broken reply."""
    wait_s: float = 1.0
    """Longest wait before the second attempt; it doubles with every further one. The actual wait is drawn below it, and is
    never shorter than the server's Retry-After."""
    max_wait_s: float = 60.0
    """Where the doubling ends. A server that asks for more by Retry-After is not waited for: the request fails."""
    extra: str = ""
    """A JSON object of further fields of the request, such as {"top_k": 20, "logprobs": true}; null removes a field."""

    def __post_init__(self) -> None:
        least_s = 1e-3
        _check(
            self,
            {
                "concurrency": (1, 4096),
                "timeout_s": (least_s, 86_400.0),
                "attempts": (1, 100),
                "wait_s": (0.0, 3600.0),
                "max_wait_s": (self.wait_s, 86_400.0),
            },
        )
        self.extra_fields()

    def extra_fields(self) -> dict[str, object]:
        """`extra` as a dictionary. Raises ConfigError when it is no JSON object."""
        try:
            fields = json.loads(self.extra or "{}")
        except json.JSONDecodeError as error:
            raise ConfigError(f"extra = {self.extra!r} is not JSON ({error.msg}, column {error.colno})") from None
        if not isinstance(fields, dict):
            raise ConfigError(f'extra = {self.extra!r} is JSON, but no object; write it as {{"top_k": 20}}')
        return fields


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and how it is held."""

    path: str = "tiny"
    """A local Hugging Face folder, a run folder (its last policy), `smollm2` (the extra of that name), or `tiny`: a small
    Llama made from scratch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward passes. Weights that are trained stay in float32."""
    lora_rank: int = 0
    """0 trains all weights; otherwise policy and PRM are LoRA adapters of this rank on one shared base, and the reference
    is that base with its adapters off."""
    lora_alpha: int = 32
    gradient_checkpointing: bool = False
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""
    url: str = ""
    """A model behind an OpenAI-compatible server instead of a folder, such as http://localhost:8000/v1. For `eval`: it only
    samples."""
    name: str = ""
    """The model's name at that server; empty: the only one that it lists."""
    server: ServerConfig = field(default_factory=ServerConfig)

    def __post_init__(self) -> None:
        _check(self, {"lora_rank": (0, math.inf), "lora_alpha": (1, math.inf), "threads": (0, math.inf)})
        if self.url:
            check_url("model.url", self.url)
            if self.path != "tiny":
                raise ConfigError(f"path = {self.path!r} and url = {self.url!r} name two models; leave one of them out")
        elif self.name:
            raise ConfigError(f"name = {self.name!r} is a model's name at a server, but url is empty; set url, or path")

    def refuse_url(self, need: str) -> None:
        """Raises ConfigError where the model is behind a server. `need`: what the command has to do with the weights."""
        if self.url:
            raise ConfigError(
                f"model.url = {self.url!r}, but a server only answers: {need}. Set model.path to the model's folder instead"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 turns clipping off."""
    warmup_steps: int = 0
    """Optimizer steps over which the rate rises linearly to its full value; the first step is never at rate 0."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    total_steps: int = 0
    """Optimizer steps at which cosine and linear reach `min_rate_ratio`; filled in by the trainer when 0."""
    min_rate_ratio: float = 0.0
    tokens_per_microbatch: int = 16384
    """Largest number of tokens, padding included, in one forward and backward pass."""

    def __post_init__(self) -> None:
        below_1 = math.nextafter(1.0, 0.0)
        _check(
            self,
            {
                "learning_rate": (0.0, math.inf),
                "beta1": (0.0, below_1),
                "beta2": (0.0, below_1),
                "eps": (0.0, math.inf),
                "weight_decay": (0.0, math.inf),
                "max_grad_norm": (0.0, math.inf),
                "warmup_steps": (0, math.inf),
                "total_steps": (0, math.inf),
                "min_rate_ratio": (0.0, 1.0),
                "tokens_per_microbatch": (1, math.inf),
            },
        )


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is asked."""

    name: str = "arithmetic"
    """`arithmetic` (made here), `gsm8k`, `math` (JSONL with question and answer), `code` (programming problems with tests),
    `verl` (rows of Eurus-2-RL), another evaluation set of `docs/evaluation.md` such as `math500` or `mgsm:de`, or a .toml file
    that describes one's own."""
    train: str = ""
    """Path of the training prompts (JSONL), or a hub data set name with the `hub` extra."""
    test: str = ""
    """The same for the test prompts; `hub` takes the published data set of an evaluation set."""
    limit: int = 0
    """Use only the first so many rows; 0 uses all."""
    format: Literal["plain", "boxed", "actions"] = "plain"
    """How an answer is asked for: the task's own form, \\boxed{}, or the seven actions of PRIME's SFT stage."""
    chain: int = 6
    """arithmetic: number of additions."""
    misconceptions: Literal["carry", "pairs"] = "carry"
    """arithmetic: what the demonstrations get wrong: the carry, or an own error for each pair of digits that carries."""
    error_rate: float = 0.5
    """arithmetic: probability that a demonstration falls for a misconception where one applies."""
    demonstrations: int = 4096
    """arithmetic: how many worked solutions the SFT stage sees."""

    def __post_init__(self) -> None:
        _check(self, {"limit": (0, math.inf), "demonstrations": (0, math.inf)})


@dataclass(frozen=True, kw_only=True)
class QAConfig:
    """How short answers in words are compared."""

    metric: Literal["exact", "f1"] = "exact"
    """What the reward is: 1 or 0 for equal answers after normalisation, or the F1 of their words (SQuAD, arXiv:1606.05250)."""
    kind: Literal["auto", "span", "yes_no", "choice"] = "auto"
    """auto: `choice` for prompts with `choices`, `yes_no` where the reference is yes, no, true or false, else `span`."""
    extract: tuple[Literal["tags", "boxed", "phrase", "last_line", "whole"], ...] = (
        "tags",
        "boxed",
        "phrase",
        "last_line",
    )
    """Where the answer is looked for; the first place that has one counts."""
    numbers: bool = True
    """Compare plain numbers by value. Off, punctuation is dropped from them as in SQuAD's script: 3.5 equals 35."""

    def __post_init__(self) -> None:
        if not self.extract:
            raise ConfigError(
                'extract is empty, so no answer is ever found; set it to ["whole"] for the whole response'
            )


@dataclass(frozen=True, kw_only=True)
class MathConfig:
    """What counts as a mathematical answer, and as equal, beyond the rule (docs/verifiers.md)."""

    last_number: bool = False
    """Where a response marks no answer, the last number or formula of its text counts as one."""
    times_hundred: bool = False
    """A plain number also equals its hundredfold and its hundredth: 0.5 and 50."""
    unevaluated: bool = True
    """`2+2` counts for 4. Off, a calculation that was not worked out (also a sum, an integral, a logarithm) is wrong where the
    reference is a plain number."""


SandboxName = Literal["auto", "bubblewrap", "fusion", "unsafe"]


@dataclass(frozen=True, kw_only=True)
class CodeConfig:
    """How programs are run and judged. Times and sizes hold for each test."""

    sandbox: SandboxName = "auto"
    """`bubblewrap` on this machine; `fusion`: a sandbox-fusion server at `url`; `auto`: that server if `url` is set, else
    bubblewrap; `unsafe`: plain processes, no isolation at all. Where the chosen one cannot run, the verifier refuses."""
    url: str = ""
    """Of the sandbox-fusion server, such as http://localhost:8080."""
    workers: int = 2
    """Checks that run at the same time."""
    time_s: float = 5.0
    """Wall-clock seconds of one test. Loading the program counts as one more test's time where it is loaded once."""
    memory_mb: int = 512
    """Address space of each process, and resident memory of all of a program's processes together."""
    processes: int = 16
    """Processes and threads that a program may have at once."""
    disk_mb: int = 16
    """Size of the work folder, and of any file in it."""
    output_mb: int = 8
    """A program that prints more is stopped, and a returned value that takes more is refused."""
    reward: Literal["all", "fraction"] = "all"
    """`all`: 1 if every test passes, else 0; `fraction`: passed tests over all tests (PRIME's, arXiv:2502.01456)."""
    max_tests: int = 0
    """Only the first tests of each problem count; 0: all of them."""
    give_up_after: int = 3
    """After so many tests of a program that ran into the time limit, the rest are not run and count as failed; 0: never."""
    float_tolerance: float = 0.0
    """Largest difference, absolute or relative, at which two numbers that are not both whole are equal, where outputs are
    compared (not in asserts); a problem's own `float_tolerance` comes first."""
    packages: str = ""
    """A folder of Python packages that programs may import (read-only); empty: the standard library alone."""

    def __post_init__(self) -> None:
        if self.sandbox == "fusion" and not self.url:
            raise ConfigError("sandbox = 'fusion' needs url, such as url = 'http://localhost:8080'")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url = {self.url!r} must begin with http:// or https://")
        ranges = {
            "workers": (1, 1024),
            "time_s": (0.01, 3600),
            "memory_mb": (64, 1 << 20),
            "processes": (1, 4096),
            "disk_mb": (1, 1 << 20),
            "output_mb": (1, 1024),
            "max_tests": (0, math.inf),
            "give_up_after": (0, math.inf),
            "float_tolerance": (0, 1),
        }
        for key, (low, high) in ranges.items():
            if not low <= getattr(self, key) <= high:
                raise ConfigError(f"{key} = {getattr(self, key)} is out of range [{low:g}, {high:g}]")


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A language model as the judge."""

    url: str = ""
    """Of an OpenAI-compatible server, such as http://localhost:8000/v1."""
    name: str = ""
    """The judge's name at that server; empty: the only model that it lists."""
    template: str = "reference"
    """`reference` (compares with the reference answer), `open` (no reference), or the path of a text file of one's own with
    {question}, {response} and, if wanted, {reference}."""
    max_tokens: int = 2048
    """Longest judgement; one that is cut off is `unparsed`."""
    server: ServerConfig = field(default_factory=ServerConfig)

    def __post_init__(self) -> None:
        _check(self, {"max_tokens": (1, math.inf)})
        if self.url:
            check_url("judge.url", self.url)


Use = Literal["math", "qa", "code", "judge", "function"]
"""A verifier by name."""
Signature = Literal["auto", "prmkit", "trl", "trl_text", "verl"]


@dataclass(frozen=True, kw_only=True)
class VerifierPart:
    """One of several verifiers."""

    use: Use = "math"
    """Which verifier it is."""
    sources: tuple[str, ...] = ()
    """Data sources that it judges, as patterns such as `math*`; empty: all. A prompt's source is its `data_source`, else its
    task."""
    weight: float = 1.0
    """Its share where several parts judge one response: rewards are averaged with these weights."""
    function: str = ""
    """`module:function`, for `use = "function"`."""
    signature: Signature = "auto"
    """How `function` is called, as in `[verifier]`."""
    function_range: tuple[float, float] = (0.0, 1.0)
    """What `function` returns for wrong and right."""
    math: MathConfig = field(default_factory=MathConfig)
    qa: QAConfig = field(default_factory=QAConfig)
    code: CodeConfig = field(default_factory=CodeConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"weight = {self.weight} is out of range; it must be above 0 and finite")
        _check_use(self.use, self.function, self.judge, self.function_range)


@dataclass(frozen=True, kw_only=True)
class VerifierConfig:
    """How answers are judged."""

    workers: int = 1
    """Processes that run math-verify or a user's function."""
    timeout_s: float = 5.0
    """Deadline of one answer; the worker that misses it is killed. Programs and judges have limits of their own."""
    function: str = ""
    """`module:function` of a user's verifier: f(prompt, text) -> float in [0, 1] or None (could not decide)."""
    use: Literal["auto", Use] = "auto"
    """auto: the function if one is named; else what a prompt's `verifier` names; else `math`."""
    signature: Signature = "auto"
    """How `function` is called: `prmkit` f(prompt, text), `trl` f(prompts, completions, **columns) with chat turns, `trl_text`
    the same with plain strings, `verl` compute_score(data_source, solution_str, ground_truth, extra_info). auto goes by the
    names of its parameters."""
    function_range: tuple[float, float] = (0.0, 1.0)
    """What `function` returns lies between these two, which become 0 and 1."""
    recycle_after: int = 20_000
    """A worker is replaced after so many answers, against memory that leaks; 0: never."""
    memory_mb: int = 4096
    """A worker that holds more is replaced; in the middle of an answer that is an `error`. 0: no limit."""
    cache: str = ""
    """SQLite file of verdicts, shared by runs and processes; empty: none. Errors and timeouts are not kept."""
    undecided: Literal["whole", "rest"] = "whole"
    """Where one of several parts cannot decide: the whole is undecided, or the rest decide alone."""
    parts: tuple[VerifierPart, ...] = ()
    """Several verifiers, by data source or averaged: [[verifier.parts]] tables. `use`, `function`, `math`, `qa`, `code` and
    `judge` are then given in each."""
    math: MathConfig = field(default_factory=MathConfig)
    qa: QAConfig = field(default_factory=QAConfig)
    code: CodeConfig = field(default_factory=CodeConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        _check(self, {"recycle_after": (0, math.inf), "memory_mb": (0, math.inf)})
        if self.use not in ("auto", "function") and self.function:
            raise ConfigError(f'use = "{self.use}", but function = {self.function!r} is set; set use = "function"')
        _check_use(self.use, self.function, self.judge, self.function_range)
        alone = (self.use, self.function, self.math, self.qa, self.code, self.judge)
        if self.parts and alone != ("auto", "", MathConfig(), QAConfig(), CodeConfig(), JudgeConfig()):
            raise ConfigError(
                "with parts, set use, function, math, qa, code and judge in each of the parts, not beside them"
            )


def check_url(key: str, url: str) -> None:
    """Raises ConfigError for what is no plain HTTP address, or holds a secret that result files would repeat."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{key} = {url!r} is no address of a server; write it as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{key} names the server {parts.hostname} and more than a path. The address is written to result files, so it may "
            "hold no user, password or query; put the key in an environment variable and name it in server.key_env"
        )


def _check_use(use: str, function: str, judge: JudgeConfig, function_range: tuple[float, float]) -> None:
    if use == "function" and not function:
        raise ConfigError('use = "function", but function is empty; set it to "module:function"')
    if use == "judge" and not judge.url:
        raise ConfigError('use = "judge", but judge.url is empty; set it to a server such as http://localhost:8000/v1')
    low, high = function_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"function_range = [{low}, {high}] is no range; the first number must be the smaller")


def _check(section: object, ranges: dict[str, tuple[float, float]]) -> None:
    """Raises ConfigError for a value outside its inclusive range; not a number is outside every range."""
    for key, (low, high) in ranges.items():
        value = getattr(section, key)
        if not low <= value <= high:
            raise ConfigError(f"{key} = {value} is out of range [{low:g}, {high:g}]")
