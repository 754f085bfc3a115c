"""How a model is called where people read: never by an address alone, and by the end of a long path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

MOST_CHARACTERS = 60


def model_title(config: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """`NAME at HOST` for a server, else the folder: `config` is a result's `config.model`, `model` what it says of the model."""
    url = config.get("url")
    if not url:
        return short_path(str(config["path"]))
    host = urlsplit(url).netloc or url
    name = model.get("name") or config.get("name")
    return f"{short_path(name)} at {host}" if name else host


def short_path(path: str, most: int = MOST_CHARACTERS) -> str:
    """A path of at most `most` characters, whole folders cut from its front; its last name always stays whole."""
    if len(path) <= most:
        return path
    names = path.rstrip("/").split("/")
    kept = names[-1]
    for name in reversed(names[:-1]):
        if len(f"\u2026/{name}/{kept}") > most:
            break
        kept = f"{name}/{kept}"
    return f"\u2026/{kept}"
