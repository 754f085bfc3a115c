"""Shared by the tests of rl, train and the commands: micro models, a small task, and commands run in processes of their own.

Run as a script it is the server behind `Commands`: it imports torch once and forks a child for every command line, so a
command costs tenths of a second. A child can be stopped at any of its writes to the disk; these are counted by an audit hook.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from prmkit.config import ModelConfig, OptimizerConfig, TaskConfig
from prmkit.data.types import Prompt, SamplingParams, Verdict
from prmkit.engines.local.roles import local_roles
from prmkit.engines.local.single import sft_learner
from prmkit.models.tiny import make_tiny
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.collect import PromptStream
from prmkit.rl.config import RLConfig
from prmkit.rl.process import ImplicitPRM
from prmkit.rl.step import Roles, StepResult, rl_step
from prmkit.tasks.arithmetic import SPLIT, arithmetic_prompts
from prmkit.tasks.task import load_task
from prmkit.train.config import SFTConfig
from prmkit.train.sft import batch_rows, encode_all, sft_batch, sft_loss

CPU = ModelConfig(device="cpu", threads=1)
TASK = TaskConfig(chain=2, error_rate=0.5, demonstrations=2048)
PROMPTS = arithmetic_prompts(40, chain=2, seed=0)


@cache
def scratch() -> Path:
    """A folder that lives as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="prmkit-tests-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def micro_model(seed: int = 0, context: int = 512) -> Path:
    """An untrained model of 21 thousand parameters: it writes noise."""
    return make_tiny(scratch() / f"micro-{seed}-{context}", seed=seed, size="micro", context=context)


@cache
def taught_model() -> Path:
    """The micro model fine-tuned on chains of two additions: it knows the form and is right half of the time. 5 seconds."""
    config = SFTConfig(
        model=replace(CPU, path=str(micro_model())),
        task=TASK,
        steps=250,
        max_tokens=64,
        optimizer=OptimizerConfig(learning_rate=1e-2, beta2=0.95, warmup_steps=20, schedule="cosine"),
    )
    learner, tokenizer = sft_learner(config, scratch())
    encoded = encode_all(tokenizer, load_task(config.task, seed=0).demonstrations, config.max_tokens)
    for step in range(config.steps):
        rows = batch_rows(len(encoded), config.batch_size, config.seed, step)
        learner.update([sft_batch([encoded[i] for i in rows])], sft_loss)
    learner.save(scratch() / "taught")
    return scratch() / "taught"


class CoinVerifier:
    """Judges a response by a checksum of its text: half of all texts are right, so even noise has mixed groups."""

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        return [Verdict(status="ok", reward=float(checksum(text) % 2)) for _, text in responses]


def checksum(text: str) -> int:
    return hashlib.sha256(text.encode()).digest()[0]


def rl_config(algorithm: Algorithm, **options: Any) -> RLConfig:
    """A run on the untrained micro model; PRM and reference differ, so that no log-ratio is 0 at the start."""
    settings: dict[str, Any] = {
        "algorithm": algorithm,
        "model": replace(CPU, path=str(micro_model(0)), lora_rank=options.pop("lora_rank", 0)),
        "prm_path": str(micro_model(1)) if algorithm.uses_prm else "",
        "task": TASK,
        "prompts_per_step": 3,
        "sampling": SamplingParams(max_tokens=16),
        "policy": OptimizerConfig(learning_rate=1e-2),
        "prm": OptimizerConfig(learning_rate=1e-2),
        "critic": OptimizerConfig(learning_rate=1e-2),
    }
    return RLConfig(**settings | options)


def make_roles(config: RLConfig, verifier: Any = None) -> Roles:
    return local_roles(config, verifier or CoinVerifier(), SPLIT, scratch()).roles


def prm_of(roles: Roles) -> ImplicitPRM:
    assert isinstance(roles.prm, ImplicitPRM)
    return roles.prm


def one_step(
    config: RLConfig, roles: Roles, stream: PromptStream | None = None, *, step: int = 1, seed: int = 0
) -> StepResult:
    stream = stream or PromptStream(PROMPTS, seed=0)
    groups = config.prompts_per_step
    return rl_step(roles, config.algorithm, stream, config.sampling, step=step, num_groups=groups, seed=seed)


def digest(learner: Any) -> str:
    """Of a learner's weights, bit by bit."""
    total = hashlib.sha256()
    for _, tensor in sorted(learner.state_dict()["weights"].items()):
        total.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


class Spy:
    """A learner that also keeps a diary of what it was asked."""

    def __init__(self, inner: Any, name: str, diary: list[str]) -> None:
        self.inner, self.name, self.diary = inner, name, diary
        self.minibatches: list[Any] = []

    def outputs(self, batch: Any, **options: Any) -> Any:
        self.diary.append(f"{self.name}.forward")
        return self.inner.outputs(batch, **options)

    def update(self, minibatches: Any, loss: Any) -> Any:
        self.diary.append(f"{self.name}.update {len(minibatches)}")
        self.minibatches += minibatches
        return self.inner.update(minibatches, loss)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


# ---------------------------------------------------------------------------------------------- commands in processes


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    """Exit code; minus the signal's number if it was killed."""
    out: str
    err: str
    writes: list[str]
    """What it did to the watched folder, in order: "event path"."""

    def complaint(self) -> str:
        """The last line of stderr, which is where an error stands; there is no traceback before it."""
        assert "Traceback" not in self.err, self.err
        return self.err.strip().splitlines()[-1]


@dataclass(frozen=True, kw_only=True)
class At:
    """A moment of a run, right before a write to the disk, and what happens to the process then."""

    write: int
    """Counted from 0, among the writes that hold `matching`."""
    matching: str = ""
    action: str = "kill"
    """`kill` (SIGKILL), `int` (SIGINT), `limit` (from here on no file may be longer than a byte), `tear` (SIGKILL in the middle
    of the next torch.save, half of its bytes written)."""


@dataclass
class Commands:
    """A process that has imported torch and runs command lines in forked children, one at a time."""

    server: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PRMKIT_CACHE": str(scratch() / "cache")}
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, *args: str, watch: Path | None = None, at: At | None = None, cwd: Path | None = None) -> Done:
        """`prmkit ARGS` to its end."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        request = {"args": args, "watch": str(watch or "-"), "at": at and vars(at), "cwd": str(cwd or scratch())}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        try:
            answer = self.server.stdout.readline()
        except BaseException:  # a test's time limit: the next command must not get this one's answer
            self.server.kill()
            self.__post_init__()
            raise
        return Done(**json.loads(answer))

    def close(self) -> None:
        self.server.communicate()


@cache
def commands() -> Commands:
    """The server of this test session."""
    made = Commands()
    atexit.register(made.close)
    return made


def _serve() -> None:
    """Answer requests from stdin until it closes."""
    import prmkit.cli.commands
    import prmkit.cli.demo
    import prmkit.report
    import prmkit.rl.loop  # noqa: F401

    for line in sys.stdin:
        pipes = [os.pipe() for _ in ("out", "err", "writes")]
        child = os.fork()
        if child == 0:
            _become(json.loads(line), *(write for _, write in pipes))
        for _, write in pipes:
            os.close(write)
        out, err, writes = _read_all([read for read, _ in pipes])
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"code": code, "out": out, "err": err, "writes": writes.splitlines()}), flush=True)


def _read_all(pipes: Sequence[int]) -> list[str]:
    """What comes out of the pipes until all are closed."""
    texts = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                texts[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [text.decode() for text in texts.values()]


def _become(request: Mapping[str, Any], out: int, err: int, writes: int) -> None:
    """In the child: be the command, then end."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(request["cwd"])
        from prmkit.cli.main import main

        sys.addaudithook(_watcher(request, writes))
        code = main(request["args"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def _watcher(request: Mapping[str, Any], diary: int) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that notes writes under the watched folder, and acts before the chosen one."""
    watch, at, seen = request["watch"], request["at"], 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        writing = event in WRITES or (event == "open" and isinstance(args[1], str) and args[1][0] in "wax")
        if not writing or not isinstance(args[0], (str, Path)):
            return
        path = str(args[0])
        if not path.startswith(watch):
            return
        written = f"{event} {path.removeprefix(watch).strip('/')}"
        os.write(diary, f"{written}\n".encode())
        if at and at["matching"] in written:
            if seen == at["write"]:
                _act(at["action"])
            seen += 1

    return hook


def _act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "int":
        os.kill(os.getpid(), signal.SIGINT)
    elif action == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    elif action == "tear":
        whole = torch.save

        def torn(state: Any, path: Path) -> None:
            whole(state, path)
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = torn
    else:
        raise ValueError(action)


if __name__ == "__main__":
    _serve()
