"""`prmkit export`: a PRM in the form that transformers and vLLM load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from prmkit.errors import ConfigError

if TYPE_CHECKING:
    from prmkit.models.export_config import ExportConfig


def export(config: ExportConfig) -> None:
    """Write the folder and say what it holds."""
    for key in ("model", "out"):
        if not getattr(config, key):
            raise ConfigError(f'{key} = "" is empty; set --{key} to a folder')
    from prmkit.engines.local.prms.export import export_prm

    done = export_prm(config.model, config.out, config.form)
    Console(markup=False, emoji=False).print(
        f"{config.out}: {done.form}; how to load and serve it is in its README.md", soft_wrap=True
    )
