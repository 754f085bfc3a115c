"""Cells in bubblewrap: namespaces of their own, a read-only system, no network, no capabilities, a system call filter.

Everything is made by `bwrap` alone: no cgroup is used, since many machines and containers offer none to ordinary users.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from prmkit.errors import ConfigError
from prmkit.verify.code.cell import BOOT, INSIDE, CellError, Wrapping, start, text_fd
from prmkit.verify.code.config import CodeConfig
from prmkit.verify.code.inside import host, keeper, tester
from prmkit.verify.code.seccomp import filter_program

HOW_TO_GET = (
    "Install bubblewrap 0.8 or newer (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap), or give the "
    "url of a sandbox-fusion server (docs/code_verifier.md), or, for programs that you trust, set sandbox = 'unsafe'."
)
_LEAST_VERSION = (0, 8)
INSIDE_MODULES = (host, keeper, tester)
"""Imported here so that their byte code is on disk, and no cell compiles it anew."""
_FIRST_USER, _USERS = 40_000, 10_000
"""As root, each cell gets a user id of its own out of these, so that its limit on processes counts itself alone."""
_users = itertools.count(6_181 * os.getpid())  # processes started one after the other begin hundreds of ids apart
_CHECKER = "/checker"
WORK, PACKAGES = "/work", "/packages"


@functools.cache
def find_bubblewrap() -> str:
    """Path of a `bwrap` that is new enough. Raises ConfigError with how to get one."""
    path = shutil.which("bwrap")
    if path is None:
        raise ConfigError(f"there is no sandbox on this machine: bwrap is not installed. {HOW_TO_GET}")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _LEAST_VERSION:
        raise ConfigError(f"{path} is {said.strip() or 'of an unknown version'}. {HOW_TO_GET}")
    return path


def check_bubblewrap(config: CodeConfig) -> None:
    """Start one cell and end it. Raises ConfigError with what the system said and what to do."""
    try:
        start(bubblewrap(config)).kill()
    except CellError as error:
        raise ConfigError(
            f"bubblewrap cannot make a sandbox here: {error}. It needs user namespaces (as a normal user) or CAP_SYS_ADMIN "
            "(as root). Ubuntu 24.04 restricts the former: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an "
            "AppArmor profile for bwrap. In Docker: --security-opt seccomp=unconfined --cap-add SYS_ADMIN, or a "
            "sandbox-fusion server beside it (docs/code_verifier.md)."
        ) from error


def bubblewrap(config: CodeConfig) -> Wrapping:
    """How to start one cell with these limits."""
    path = find_bubblewrap()
    program = filter_program()
    seccomp = None if program is None else text_fd(program)
    user = _FIRST_USER + next(_users) % _USERS if os.geteuid() == 0 else 0

    def command(control_fd: int, _: str) -> list[str]:
        return [
            *(path, "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *_identity(user),
            *_files(config),
            *(("--seccomp", str(seccomp)) if seccomp is not None else ()),
            *("--", *interpreter_command(_CHECKER, control_fd, isolated=True, user=user)),
        ]

    return Wrapping(command=command, fds=(seccomp,) if seccomp is not None else ())


def _identity(user: int) -> list[str]:
    """Root needs no user namespace: the cell's first process gives up root for `user`, a real id of its own."""
    if user:
        return ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]


def _files(config: CodeConfig) -> list[str]:
    """The file system: libraries and the interpreter, read-only; no /proc, /sys, /etc, /home; a work folder in memory."""
    executable = str(Path(sys.executable).resolve())
    bound = {place: place for place in [*_libraries(), executable, *_OPTIONAL] if Path(place).exists()}
    bound[str(INSIDE / "inside")] = f"{_CHECKER}/inside"
    if config.packages:
        bound[str(Path(config.packages).resolve())] = PACKAGES
    devices = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")]
    above = {str(parent) for place in [*bound.values(), *devices] for parent in Path(place).parents}
    words: list[str] = []
    for folder in sorted(above - {"/"}):  # parents that bwrap makes by itself are root's alone
        words += ["--perms", "0755", "--dir", folder]
    for folder in ("/lib", "/lib64"):
        if Path(folder).is_symlink():
            words += ["--symlink", os.readlink(folder), folder]
    for source, place in bound.items():
        words += ["--ro-bind", source, place]
    for device in devices:
        words += ["--dev-bind", device, device]
    for place in (WORK, "/dev/shm"):  # the latter for locks of multiprocessing
        words += ["--perms", "1777", "--size", str(config.disk_mb << 20), "--tmpfs", place]
    words += ["--symlink", WORK.lstrip("/"), "/tmp"]
    return [*words, "--remount-ro", "/", "--chdir", WORK, "--setenv", "HOME", WORK, "--setenv", "TMPDIR", WORK]


_OPTIONAL = ("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")


def _libraries() -> list[str]:
    """Folders that hold the interpreter's libraries, none inside another."""
    found = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", f"{sys.base_prefix}/lib", sysconfig.get_path("stdlib")]
    real = [place for place in dict.fromkeys(found) if Path(place).is_dir() and not Path(place).is_symlink()]
    return [place for place in real if not any(Path(place) != Path(p) and Path(place).is_relative_to(p) for p in real)]


def interpreter_command(folder: str, control_fd: int, *, isolated: bool, user: int = 0) -> list[str]:
    """The keeper, in an interpreter without site-packages, environment or byte code files."""
    executable = str(Path(sys.executable).resolve())
    options = ["-I", "-S", "-B", "-X", "utf8", "-c", BOOT]
    return [executable, *options, folder, str(control_fd), str(int(isolated)), str(user)]
