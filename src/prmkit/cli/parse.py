"""From the words after a verb to one resolved configuration: preset, then TOML file, then flags. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, get_type_hints

from prmkit.config_io import ConfigT, apply_overrides, from_dict, nearest, read_toml
from prmkit.errors import ConfigError

if TYPE_CHECKING:
    from prmkit.rl.algorithm import Algorithm


DATA_ENDINGS = (".json", ".jsonl", ".parquet", ".csv", ".txt")
"""Of files that are no configuration."""


@dataclass(frozen=True, kw_only=True)
class Request(Generic[ConfigT]):
    """What one command line asks for."""

    config: ConfigT
    dry_run: bool
    """Print the resolved configuration instead of running it."""


def load(reference: str) -> Any:
    """The object that `package.module:name` points to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def parse(
    verb: str, cls: type[ConfigT], args: Sequence[str], presets: Mapping[str, Algorithm] | None
) -> Request[ConfigT]:
    """Resolve `[CONFIG.toml] [--preset NAME] [--dry-run] [--section.key value ...]`, where `--task NAME` is `--task.name NAME`.

    Order: dataclass defaults, the preset's algorithm, the file, the flags. `presets` is None for verbs that have none; else
    `cls` has the fields `preset` and `algorithm`, and the name is taken from `--preset`, from the file's top-level
    `preset = "prime"`, or from the field's default. Raises ConfigError, and SystemExit as `apply_overrides` does.
    """
    words = list(args)
    dry_run = "--dry-run" in words
    words = [word for word in words if word != "--dry-run"]
    preset = _take_option(words, "--preset") if presets is not None else None
    path = Path(words.pop(0)) if words and not words[0].startswith("-") else None
    if path is not None and path.suffix in DATA_ENDINGS:
        keys = [field.name for field in fields(cls) if field.name in ("source", "data", "model", "target")]
        flags = ", ".join(f"--{key}" for key in keys) or "a flag"
        raise ConfigError(
            f"{path}: the word after the verb is a configuration file (TOML); data files go behind {flags}"
        )
    data = {} if path is None else read_toml(path)
    data.pop("run", None)  # where a run folder's config.toml came from: not part of the configuration
    where = "command line" if path is None else str(path)
    if preset is not None:
        data["preset"] = preset
    base: ConfigT | type[ConfigT] = cls
    if presets is not None:
        base = from_dict(cls, data, where, defaults={"algorithm": _algorithm(presets, cls, data, where)})
    elif path is not None:
        base = from_dict(cls, data, where)
    words = _spelled_out(words, cls)
    config = apply_overrides(base, words, prog=f"prmkit {verb} [CONFIG.toml]", description=_description(cls, presets))
    return Request(config=config, dry_run=dry_run)


def _take_option(words: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from `words`; the last one wins."""
    value = None
    while (at := next((i for i, word in enumerate(words) if word.partition("=")[0] == name), None)) is not None:
        _, equals, value = words.pop(at).partition("=")
        if not equals:
            if at == len(words):
                raise ConfigError(f"{name} needs a value: {name} NAME")
            value = words.pop(at)
    return value


def _has_task_name(cls: type) -> bool:
    section = get_type_hints(cls).get("task")
    return is_dataclass(section) and any(field.name == "name" for field in fields(section))


def _spelled_out(words: Sequence[str], cls: type) -> list[str]:
    """The words with `--task NAME` written as `--task.name NAME`, where a command asks for a task."""
    if not _has_task_name(cls):
        return list(words)
    return [f"--task.name{word[6:]}" if word == "--task" or word.startswith("--task=") else word for word in words]


def _algorithm(
    presets: Mapping[str, Algorithm], cls: type[ConfigT], data: Mapping[str, object], where: str
) -> Algorithm:
    default = next(field.default for field in fields(cls) if field.name == "preset")
    name = data.get("preset", default)
    if not isinstance(name, str) or name not in presets:
        raise ConfigError(f'{where}: unknown preset "{name}"; {nearest(str(name), presets)}')
    return presets[name]


def _description(cls: type, presets: Mapping[str, Algorithm] | None) -> str:
    lines = [
        f"{(cls.__doc__ or '').strip()}\n",
        "CONFIG.toml: states any of the values below; flags win over it.",
        "--dry-run: print the resolved configuration as TOML and stop.",
    ]
    if _has_task_name(cls):
        lines.append("--task NAME: short for --task.name NAME.")
    if presets is not None:
        lines.append(f"--preset NAME: the algorithm to start from, under the file and the flags: {', '.join(presets)}.")
    return "\n".join(lines)
