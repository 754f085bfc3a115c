"""Where a run came from: written beside its configuration."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

import prmkit
from prmkit.config_io import to_toml

PACKAGES = ("torch", "transformers", "peft", "math-verify")


def git_commit() -> str:
    """The commit of the source tree that prmkit runs from; empty for an installed package."""
    here = Path(prmkit.__file__).resolve().parent
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=here, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else ""


def resolved_config(config: Any) -> str:
    """The whole configuration as TOML, with a table `run`: versions, commit, Python and processor."""
    run = {
        "prmkit": prmkit.__version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in PACKAGES},
    }
    return to_toml(config) + "\n" + tomli_w.dumps({"run": run})
