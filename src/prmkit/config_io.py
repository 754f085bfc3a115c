"""Strict road between TOML, the command line and frozen config dataclasses. No torch.

Nothing is guessed: an unknown key, a value of another type and a choice that does not exist are `ConfigError`s that name the
file, the key, the value and what is allowed. The one conversion is an integer where a float is asked for.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import re
import sys
import tomllib
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from prmkit.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from tyro.constructors import ConstructorRegistry

ConfigT = TypeVar("ConfigT", bound="DataclassInstance")

_NAMES: dict[object, str] = {
    bool: "a boolean (true or false)",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    tuple: "an array",
    dict: "a table",
}


def from_dict(
    cls: type[ConfigT], data: Mapping[str, Any], where: str, *, defaults: Mapping[str, object] | None = None
) -> ConfigT:
    """The instance of `cls` that `data` states; what it leaves out is taken from `defaults`, then from the dataclass.

    `where` starts every message, usually the file's path. `defaults` holds finished values by field name, so that a section
    stated in part is laid over the one in `defaults`. Raises ConfigError.
    """
    return _build(cls, data, where, "", defaults or {})


def load_toml(cls: type[ConfigT], path: Path, base: ConfigT | None = None) -> ConfigT:
    """What the TOML file states, laid over `base` (or over the dataclass defaults). Raises ConfigError."""
    return from_dict(cls, read_toml(path), str(path), defaults=None if base is None else _values(base))


def read_toml(path: Path) -> dict[str, Any]:
    """The plain content of a TOML file. Raises ConfigError with file and line when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        message = str(error)[: place.start()] if place else str(error)
        line = f":{place.group(1)}" if place else ""
        raise ConfigError(f"{path}{line}: not valid TOML: {message}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this configuration file: {error.strerror}") from error


def to_toml(config: DataclassInstance) -> str:
    """The whole configuration as TOML, defaults included; `from_dict` of it equals `config`.

    TOML has no null, so a field that is None is left out. Raises ConfigError where its default is not None either, since
    reading the file back would then give another value.
    """
    return tomli_w.dumps(_plain_table(config, ""))


def apply_overrides(
    config: ConfigT | type[ConfigT], argv: Sequence[str], *, prog: str = "prmkit", description: str | None = None
) -> ConfigT:
    """`config` with the flags of `argv` (`--section.key value`) laid over it; a class stands for its defaults.

    Underscores and hyphens are the same, and booleans are `true` or `false` as in TOML. Raises ConfigError for an unknown flag
    and for values that the dataclasses refuse; SystemExit(2) after a message for a value of the wrong type, SystemExit(0)
    after `--help`.
    """
    import tyro

    cls: type[ConfigT] = config if isinstance(config, type) else type(config)
    given: dict[str, Any] = {} if isinstance(config, type) else {"default": config}
    result: ConfigT
    with _validation_as_config_error(cls):
        result, unknown = tyro.cli(
            cls,
            args=list(argv),
            prog=prog,
            description=description,
            return_unknown_args=True,
            config=(tyro.conf.FlagConversionOff,),
            registry=_booleans_as_in_toml(),
            **given,
        )
    if unknown:
        raise ConfigError(_unknown_flag(cls, unknown))
    return result


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or the list of what is known when nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return _did_you_mean(close) if close else f"known: {', '.join(known)}"


def leaf_keys(cls: type[DataclassInstance], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values in a config class, in order."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from leaf_keys(hint, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _values(config: DataclassInstance) -> dict[str, object]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _build(
    cls: type[ConfigT], data: Mapping[str, Any], where: str, prefix: str, defaults: Mapping[str, object]
) -> ConfigT:
    names = [field.name for field in fields(cls)]
    for key in data:
        if key not in names:
            raise ConfigError(f'{where}: unknown key "{prefix}{key}"; {_hint_for_key(cls, key, names)}')
    hints = get_type_hints(cls)
    values: dict[str, object] = {}
    for field in fields(cls):
        key = f"{prefix}{field.name}"
        default = defaults[field.name] if field.name in defaults else _default(field)
        if field.name in data:
            values[field.name] = _convert(hints[field.name], data[field.name], where, key, default)
        elif default is MISSING:
            raise ConfigError(f'{where}: missing key "{key}"; it has no default, so it must be stated')
        else:
            values[field.name] = default
    try:
        return cls(**values)
    except ValueError as error:
        section = f"[{prefix[:-1]}] " if prefix else ""
        raise ConfigError(f"{where}: {section}{error}") from error


def _default(field: Field[Any]) -> object:
    """The dataclass's own default, MISSING where there is none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _hint_for_key(cls: type[DataclassInstance], key: str, names: list[str]) -> str:
    """The nearest sibling; else the same name in other sections; else the list of siblings."""
    elsewhere = _same_last_name(leaf_keys(cls), key)
    if elsewhere and not difflib.get_close_matches(key, names, n=1):
        return _did_you_mean(elsewhere)
    return nearest(key, names)


def _same_last_name(keys: Iterable[str], name: str) -> list[str]:
    return [key for key in keys if key.rpartition(".")[2] == name]


def _did_you_mean(names: Iterable[str]) -> str:
    return f"did you mean {' or '.join(_shown(name) for name in names)}?"


def _convert(hint: Any, value: object, where: str, key: str, default: object) -> object:
    """`value` as the type `hint` asks, or ConfigError. `default` is the section that a table is laid over."""
    origin = get_origin(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise _wrong_type(dict, value, where, key)
        base = _values(default) if isinstance(default, hint) else {}
        return _build(hint, value, where, f"{key}.", base)
    if origin is Literal:
        return _choice(get_args(hint), value, where, key)
    if origin is tuple:
        return _tuple(get_args(hint), value, where, key)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not types.NoneType)
        return _convert(inner, value, where, key, default)
    if hint not in (bool, int, float, str):
        raise TypeError(f"{key}: a configuration field cannot have the type {hint}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise _wrong_type(hint, value, where, key)
    return value


def _choice(allowed: tuple[object, ...], value: object, where: str, key: str) -> object:
    # True == 1 in Python, so equality alone would let a boolean pass for a number
    if any(type(value) is type(choice) and value == choice for choice in allowed):
        return value
    shown = ", ".join(_shown(choice) for choice in allowed)
    close = difflib.get_close_matches(str(value), [str(choice) for choice in allowed], n=1)
    extra = f"; {_did_you_mean(close)}" if close else ""
    raise ConfigError(f"{where}: {key} = {_shown(value)}, but it must be one of {shown}{extra}")


def _tuple(items: tuple[Any, ...], value: object, where: str, key: str) -> tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong_type(tuple, value, where, key)
    if items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise ConfigError(f"{where}: {key} = {_shown(value)}, but it must hold exactly {len(items)} values")
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_convert(hint, item, where, f"{key}[{i}]", MISSING) for i, (hint, item) in pairs)


def _wrong_type(wanted: type, value: object, where: str, key: str) -> ConfigError:
    got = _NAMES.get(type(value), f"a {type(value).__name__}")
    return ConfigError(f"{where}: {key} = {_shown(value)} is {got}, but it must be {_NAMES[wanted]}")


def _shown(value: object) -> str:
    return json.dumps(value, default=str)


def _plain_table(config: DataclassInstance, prefix: str) -> dict[str, object]:
    table: dict[str, object] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value is not None:
            table[field.name] = _plain(value, f"{prefix}{field.name}")
        elif _default(field) is not None:
            raise ConfigError(f'"{prefix}{field.name}" is None, which TOML cannot state; give it a default of None')
    return table


def _plain(value: object, key: str) -> object:
    if isinstance(value, tuple):
        return [_plain(item, key) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_table(value, f"{key}.")
    return value


@contextlib.contextmanager
def _validation_as_config_error(cls: type[DataclassInstance]) -> Iterator[None]:
    """What a config class refuses becomes a ConfigError; tyro would print it in a box, broken over lines, and exit."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as stop:
        error: BaseException | None = stop
        section = ""
        while error is not None and not _refused_by_dataclass(error):
            at = getattr(error, "arg", None)  # tyro's own error, which knows the section
            section = at if isinstance(at, str) else section
            error = error.__context__
        if error is not None:
            raise ConfigError(f"command line: {_with_full_key(cls, section, str(error))}") from error
        sys.stderr.write(printed.getvalue())
        raise


def _with_full_key(cls: type[DataclassInstance], section: str, message: str) -> str:
    """What a section's class says of one of its keys, with the key written as on the command line: `policy.learning_rate`."""
    key, *parts = re.findall(r"^[\w.]*", message)[0], *section.split(".")
    for depth in range(len(parts), -1, -1):
        full = ".".join([*parts[:depth], key])
        if full in leaf_keys(cls):
            return full + message.removeprefix(key)
    return message


def _refused_by_dataclass(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and any(frame.f_code.co_name == "__post_init__" for frame, _ in frames)


def _booleans_as_in_toml() -> ConstructorRegistry:
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def boolean(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool] | None:
        if info.type is not bool:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="{true,false}",
            instance_from_str=lambda words: words[0] == "true",
            is_instance=lambda value: isinstance(value, bool),
            str_from_instance=lambda value: [str(value).lower()],
            choices=("true", "false"),
        )

    return registry


def _unknown_flag(cls: type[DataclassInstance], unknown: Sequence[str]) -> str:
    flag = next((arg.partition("=")[0] for arg in unknown if arg.startswith("--")), None)
    if flag is None:
        return f'unexpected argument "{unknown[0]}"; a configuration file comes first, then flags: --section.key value'
    name = flag.removeprefix("--").replace("-", "_")
    keys = list(leaf_keys(cls))
    close = _same_last_name(keys, name) or difflib.get_close_matches(name, keys, n=1)
    if close and "." not in name:
        close = _same_last_name(keys, close[0].rpartition(".")[2])
    hint = _did_you_mean(f"--{key.replace('_', '-')}" for key in close) if close else "--help lists them all"
    return f'unknown flag "{flag}"; {hint}'
