"""Where a run came from: written beside its configuration."""

from __future__ import annotations

import platform
from typing import Any

import tomli_w

from prmkit.config_io import to_toml
from prmkit.evaluate.run import git_commit, versions


def resolved_config(config: Any) -> str:
    """The whole configuration as TOML, with a table `run`: versions, commit, Python and processor."""
    run = {"commit": git_commit() or "", "machine": platform.machine(), **versions()}
    return to_toml(config) + "\n" + tomli_w.dumps({"run": run})
