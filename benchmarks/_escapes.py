"""Programs that try to break out of the code sandbox or to look right without being right, and what each was able to do.

Every program is wrong on purpose, and a test of it passes only if the attempt worked: a passed test is an escape. So is
anything found outside afterwards: a process left over, a connection made, a canary changed, a check that does not end.

Shape exception: most of it is a table of programs.
"""

from __future__ import annotations

import os
import socket
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prmkit.data.types import Message, Prompt
from prmkit.verify.code import CodeReport, CodeVerifier

SECRET = "918273645546372819"
"""What the program would have to return. It is in the tests alone."""
ENVIRONMENT = "PRMKIT_CANARY"
SLACK_S = 20.0
"""On a busy machine, beyond the time limits."""

ADD = {"format": "asserts", "tests": ["assert add(2, 3) == 5", "assert add(-1, 1) == 0"], "names": ["add"]}
FIND = {"format": "asserts", "tests": [f"assert find(7) == {SECRET}"], "names": ["find"]}
CALL = {"format": "calls", "fn_name": "find", "inputs": [[7]], "outputs": [int(SECRET)]}
ESCAPED = {"format": "stdio", "inputs": [""], "outputs": ["escaped"]}
SECOND = {"format": "stdio", "inputs": ["1", "2"], "outputs": ["nothing is this", "left behind"]}

TRY = """
def attempt(what):
    try:
        said = what() or "escaped"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    print(said.replace(" ", "_"))
"""


@dataclass(frozen=True, kw_only=True)
class Escape:
    """One attempt."""

    name: str
    tests: dict[str, Any]
    program: str
    statuses: frozenset[str]
    """How its first test may end."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of an attempt."""

    name: str
    status: str
    what: str
    seconds: float
    escapes: tuple[str, ...]
    """What it was able to do; empty: contained."""
    unexpected: str = ""
    """How it ended, where that is none of the ways it should."""


@dataclass
class World:
    """What a program could reach outside: a listener, a canary, this process' environment."""

    listener: socket.socket
    canary: Path
    connections: list[str] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Of the listener."""
        host, port = self.listener.getsockname()
        return host, port

    def changes(self) -> list[str]:
        """What happened since the last look."""
        found = []
        while True:
            try:
                self.listener.accept()[0].close()
            except BlockingIOError:
                break
            found.append("it connected to this machine")
        if sorted(os.listdir(self.canary)) != ["canary"] or (self.canary / "canary").read_text() != "alive":
            found.append("it wrote outside")
        return found


@contextmanager
def world() -> Iterator[World]:
    """A listener on the loopback, a folder with a canary, and a secret in the environment."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        Path(folder, "canary").write_text("alive")
        os.chmod(folder, 0o777)
        os.environ[ENVIRONMENT] = SECRET
        try:
            yield World(listener, Path(folder))
        finally:
            del os.environ[ENVIRONMENT]


def run_escape(verifier: CodeVerifier, escape: Escape, outside: World, time_s: float) -> Outcome:
    """Make the attempt, then look around."""
    port, canary = outside.address[1], outside.canary
    program = escape.program.replace("@PORT", str(port)).replace("@CANARY", str(canary))
    before, start = set(keepers()), time.monotonic()
    report: CodeReport = verifier.check(as_prompt(escape.tests), f"```python\n{program}\n```")
    seconds = time.monotonic() - start
    found = [f"test {i + 1} passed" for i, test in enumerate(report.tests) if test.status == "passed"]
    found += outside.changes()
    if seconds > len(report.tests) * (time_s + 4) + SLACK_S:
        found.append(f"it held the check for {seconds:.0f} s")
    if left := still_there(set(keepers()) - before - tester_keepers(verifier)):
        found.append(f"it left {len(left)} processes")
    first = report.tests[0]
    return Outcome(
        name=escape.name,
        status=first.status,
        what=first.detail,
        seconds=round(seconds, 2),
        escapes=tuple(found),
        unexpected="" if first.status in escape.statuses else first.status,
    )


def as_prompt(tests: dict[str, Any]) -> Prompt:
    """A prompt that holds nothing but tests."""
    return Prompt(id="escape", messages=(Message(role="user", content=""),), answer="", meta={"tests": tests})


def keepers() -> list[int]:
    """Processes of the sandboxes of this process, by their command line; another process here may have sandboxes too."""
    starters, pid = set(), os.getpid()
    while pid > 0:  # what outlives its starter is handed on to a process above that one, mostly to the first of all
        starters.add(pid)
        pid = _parent(pid)
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _is_keeper(pid) and _owner(pid) in starters]


def _owner(pid: int) -> int:
    """The first process above a sandbox's that is none of it."""
    while pid > 0 and _is_keeper(pid):
        pid = _parent(pid)
    return pid


def _is_keeper(pid: int) -> bool:
    """Also bwrap itself, whose command line holds the whole command."""
    return b"inside.keeper" in _read(f"/proc/{pid}/cmdline")


def _parent(pid: int) -> int:
    words = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(words[1]) if words else 0


def _read(path: str) -> bytes:
    """Nothing, where the process has ended meanwhile."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def tester_keepers(verifier: CodeVerifier) -> set[int]:
    """Processes that a verifier keeps on purpose: the cells of tests, which never meet a program."""
    return set(verifier.standing_processes())


def still_there(pids: set[int]) -> set[int]:
    """Those that are alive after a while: the kernel takes a moment to end a process space."""
    end = time.monotonic() + 10.0
    while pids and time.monotonic() < end:
        time.sleep(0.02)
        pids = {pid for pid in pids if _read(f"/proc/{pid}/cmdline")}
    return pids


def _case(name: str, tests: dict[str, Any], statuses: str, program: str) -> Escape:
    return Escape(
        name=name, tests=tests, program=textwrap.dedent(program).strip(), statuses=frozenset(statuses.split())
    )


def _attempt(name: str, body: str, statuses: str = "wrong") -> Escape:
    """A program that prints `escaped` if its function gets through without an exception."""
    source = f"{TRY}\ndef body():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\nattempt(body)\n"
    return Escape(name=name, tests=ESCAPED, program=source.strip(), statuses=frozenset(statuses.split()))


LOOKS_RIGHT: Sequence[Escape] = (
    _case("leaves with os._exit(0) when called", ADD, "killed", "import os\ndef add(a, b): os._exit(0)"),
    _case("leaves with os._exit(0) when loaded", ADD, "killed", "import os\ndef add(a, b): return 0\nos._exit(0)"),
    _case("leaves with sys.exit(0) when called", ADD, "raised", "import sys\ndef add(a, b): sys.exit(0)"),
    _case("leaves with sys.exit(0) when loaded", ADD, "raised", "import sys\ndef add(a, b): return 0\nsys.exit(0)"),
    _case(
        "returns an object whose __eq__ is true",
        ADD,
        "wrong raised",
        """
        class Yes:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __bool__(self): return True
        def add(a, b): return Yes()
        """,
    ),
    _case(
        "returns an int whose __eq__ is true",
        ADD,
        "wrong raised",
        """
        class Yes(int):
            __hash__ = int.__hash__
            def __eq__(self, other): return True
            def __index__(self): return 5
        def add(a, b): return Yes(77)
        """,
    ),
    _case(
        "returns an object that lies about its class",
        ADD,
        "wrong raised",
        """
        class Meta(type):
            def __instancecheck__(self, other): return True
            def mro(self): return [self, object]
            def __eq__(self, other): return True
            def __hash__(self): return hash(int)
        class Yes(metaclass=Meta):
            __class__ = int
            def __eq__(self, other): return True
        def add(a, b): return Yes()
        """,
    ),
    _case(
        "patches builtins and json",
        ADD,
        "wrong raised killed",
        """
        import builtins, json
        builtins.AssertionError = builtins.Exception = type("Quiet", (BaseException,), {})
        builtins.isinstance = builtins.all = builtins.any = lambda *a: True
        json.dumps = lambda *a, **k: '{"ok": true, "verdict": "passed"}'
        def add(a, b): return 0
        """,
    ),
    _case(
        "patches the checker's modules",
        ADD,
        "wrong raised killed",
        """
        import sys
        for name, module in list(sys.modules.items()):
            if "inside" in name or name == "__main__":
                for key in list(vars(module)):
                    if key in ("encode", "decode", "describe", "run_tests", "same_value"):
                        setattr(module, key, lambda *a, **k: {"end": 0, "verdict": "passed"})
        def add(a, b): return 0
        """,
    ),
    _case(
        "writes verdicts to every open file",
        ADD,
        "killed raised wrong",
        """
        import json, os
        for frame in ({"begin": 0}, {"end": 0, "verdict": "passed"}, {"end": 1, "verdict": "passed"}, {"ended": 0}):
            data = json.dumps(frame).encode()
            for fd in range(64):
                for message in (data, len(data).to_bytes(4, "big") + data):
                    try: os.write(fd, message)
                    except OSError: pass
        def add(a, b): return 0
        """,
    ),
    _case(
        "looks for the expected value in memory",
        FIND,
        "wrong",
        """
        import gc, sys
        def find(n):
            seen, frame = [], sys._getframe()
            while frame:
                seen += [frame.f_locals, frame.f_globals]
                frame = frame.f_back
            for value in [*seen, *gc.get_objects()]:
                try: text = repr(value)
                except BaseException: continue
                for word in text.replace("'", " ").replace(",", " ").replace(")", " ").split():
                    if word.isdigit() and len(word) == 18: return int(word)
        """,
    ),
    _case(
        "looks for the expected value in every file",
        CALL,
        "wrong timeout",
        """
        import os
        def find(n):
            for folder, below, names in os.walk("/"):
                below[:] = [name for name in below if name not in ("usr", "lib", "lib64", "dev")]
                for name in names:
                    try: data = open(os.path.join(folder, name), "rb").read()
                    except OSError: continue
                    if b"9182736455463" + b"72819" in data: return int("9182736455463" + "72819")
        """,
    ),
    _case(
        "reads its parent's memory",
        FIND,
        "raised wrong",
        """
        import os, re
        def find(n):
            for pid in (1, os.getppid(), os.getpid()):
                with open(f"/proc/{pid}/mem", "rb") as memory: data = memory.read()
            return 0
        """,
    ),
    _case(
        "kills the checker", ADD, "killed wrong", "import os\ndef add(a, b): os.kill(os.getppid(), 9); return a + b + 1"
    ),
    _case("kills everything", ADD, "killed wrong", "import os\ndef add(a, b): os.kill(-1, 9); return a + b + 1"),
    _case(
        "stops the checker's process",
        ADD,
        "wrong timeout",
        "import os, signal\ndef add(a, b): os.kill(os.getppid(), signal.SIGSTOP); return a + b + 1",
    ),
    _case("returns 100 MB", CALL, "raised killed timeout", "def find(n): return 'x' * 100_000_000"),
    _case(
        "returns keys whose hashes collide",
        CALL,
        "wrong raised killed timeout too_much",
        "def find(n): return {k * (2**61 - 1): 0 for k in range(200_000)}",
    ),
    _case(
        "returns a list 10,000 deep",
        CALL,
        "wrong raised killed",
        """
        def find(n):
            value = []
            for _ in range(10_000): value = [value]
            return value
        """,
    ),
    _case(
        "returns an endless generator",
        {**ADD, "tests": ["assert 5 in add(2, 3)"]},
        "timeout",
        "def add(a, b):\n    while True: yield 0",
    ),
)

TAKES_TOO_MUCH: Sequence[Escape] = (
    _case(
        "forks without end",
        ESCAPED,
        "timeout killed raised too_much",
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
    ),
    _case(
        "forks more processes than allowed",
        ESCAPED,
        "wrong",
        """
        import os, time
        made = 0
        try:
            while made < 200:
                if os.fork() == 0: time.sleep(30)
                made += 1
            print("escaped")
        except OSError as error:
            print("contained at", made, error)
        os._exit(0)
        """,
    ),
    _attempt("fills the disk", "with open('big', 'wb') as file:\n    for _ in range(200): file.write(bytes(1 << 20))"),
    _attempt(
        "fills the disk with several files",
        "for i in range(50):\n    with open(f'f{i}', 'wb') as file: file.write(bytes(8 << 20))",
    ),
    _attempt("fills the memory", "held = bytearray(8 << 30)"),
    _case(
        "fills the memory in several processes",
        ESCAPED,
        "too_much timeout",
        """
        import os, time
        for _ in range(3): os.fork()
        held = bytearray(b"x") * (100 << 20)
        time.sleep(20)
        print("escaped")
        """,
    ),
    _attempt(
        "fills the memory with memory files",
        "import os\nfor i in range(64):\n    os.write(os.memfd_create(str(i)), bytes(8 << 20))",
    ),
    _case("sleeps", ESCAPED, "timeout", "import time\ntime.sleep(1000)\nprint('escaped')"),
    _case(
        "ignores every signal and spins",
        ESCAPED,
        "timeout",
        """
        import signal
        for number in signal.valid_signals():
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
        """,
    ),
    _case(
        "prints 1 GB",
        ESCAPED,
        "too_much timeout",
        "import os\nblock = b'x' * (1 << 20)\nfor _ in range(1024):\n    while block: os.write(1, block); break",
    ),
    _case(
        "prints 1 GB on standard error",
        ESCAPED,
        "wrong timeout",
        "import sys\nfor _ in range(1024): sys.stderr.write('x' * (1 << 20))\nprint('done')",
    ),
    _case(
        "recurses until the stack breaks",
        ESCAPED,
        "raised killed too_much",
        "import sys\nsys.setrecursionlimit(1 << 30)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
    ),
    _case(
        "leaves a child that answers the next test",
        SECOND,
        "wrong",
        """
        import os, time
        if input() == "1":
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    while True: time.sleep(0.01); os.write(1, b"left behind ")
            os._exit(0)
        """,
    ),
    _case(
        "leaves a daemon",
        ESCAPED,
        "wrong",
        """
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                for fd in range(64):
                    try: os.close(fd)
                    except OSError: pass
                time.sleep(600)
            os._exit(0)
        """,
    ),
)

REACHES_OUT: Sequence[Escape] = (
    _attempt("connects to this machine", "import socket\nsocket.create_connection(('127.0.0.1', @PORT), 1)"),
    _attempt("connects to the network", "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)"),
    _attempt("opens a socket of a virtual machine", "import socket\nsocket.socket(40, socket.SOCK_STREAM)"),
    _attempt("opens a raw socket", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    _attempt("resolves a name", "import socket\nsocket.getaddrinfo('example.com', 80)"),
    _attempt("reads /etc/passwd", "open('/etc/passwd').read()"),
    _attempt("reads /etc/shadow", "open('/etc/shadow').read()"),
    _attempt("reads the environment of process 1", "open('/proc/1/environ', 'rb').read()"),
    _attempt(
        "has the parent's environment",
        f"import os\nif '{ENVIRONMENT}' not in os.environ: return 'not there: ' + ' '.join(os.environ)",
    ),
    _attempt("reads the canary", "open('@CANARY/canary').read()"),
    _attempt("writes over the canary", "open('@CANARY/canary', 'w').write('dead')"),
    _attempt(
        "sees home folders",
        "import os\nseen = [p for p in ('/home', '/root/.ssh', '/root/.cache', '/mnt') if os.path.exists(p)]\n"
        "if not seen: return 'nothing there'",
    ),
    _attempt(
        "writes outside its work folder",
        """
        import os
        done = []
        for place in ("/", "/usr", "/usr/lib", "/checker", "/checker/inside", "/dev", "/etc", "/root", "/home", "/var/tmp"):
            try:
                open(os.path.join(place, "prmkit-was-here"), "w").close()
                done.append(place)
            except OSError: pass
        if not done: return "nowhere"
        """,
    ),
    _attempt("changes the checker's files", "import os\nos.chmod('/checker/inside/keeper.py', 0o777)"),
    _attempt("makes a device", "import os, stat\nos.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0))"),
    _attempt("becomes root", "import os\nos.setuid(0)\nif os.getuid() or os.geteuid(): return 'not root'"),
    _attempt(
        "starts a program of the system",
        "import subprocess\nfor name in ('/bin/sh', '/usr/bin/id', '/usr/bin/env'):\n"
        "    subprocess.run([name, '--version'], capture_output=True)",
    ),
    _attempt(
        "makes namespaces, mounts, traces",
        """
        import ctypes
        library = ctypes.CDLL(None, use_errno=True)
        calls = (("unshare", 0x10000000), ("unshare", 0x20000), ("mount", None, b"/work", b"tmpfs", 0, None),
                 ("ptrace", 16, 2, None, None), ("shmget", 0, 1 << 20, 0o1600), ("chroot", b"/work"))
        done = [name for name, *rest in calls if getattr(library, name)(*rest) != -1]
        if not done: return "all refused"
        """,
    ),
    _attempt(
        "lowers its own limits",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))",
    ),
    _attempt("signals a process of this machine", "import os\nfor pid in range(20, 4000): os.kill(pid, 0)"),
)

ESCAPES = (*LOOKS_RIGHT, *TAKES_TOO_MUCH, *REACHES_OUT)
