"""Checks of embedding rows: whether a token that the training leans on has ever been trained. Weights are read in parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prmkit.data.prm_spec import base_folder, named_base
from prmkit.doctor.finding import Finding
from prmkit.errors import ModelError

INPUT_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
OUTPUT_NAMES = ("lm_head.weight", "embed_out.weight", "output.weight")
ROWS_AT_ONCE = 16384
OUTLIER = 5.0
"""A norm that differs from the median by more than this factor stands out."""
RESERVED = ("reserved", "unused", "extra_", "fim_", "placeholder", "|dummy")
"""Parts of the names of tokens that vocabularies keep for later use."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The Euclidean norms of all rows of an embedding matrix, and which rows equal each of the rows asked for."""

    name: str
    """File and tensor."""
    norm_V: Tensor
    equal: Mapping[int, tuple[int, ...]]


def embedding_rows(folder: Path, tokens: Sequence[int]) -> list[Rows]:
    """The input embeddings and, where they are not tied, the output embeddings of a folder's safetensors.

    An adapter stands for its base. Raises ModelError where there are no safetensors with input embeddings.
    """
    files = _tensor_files(base_folder(folder) if named_base(folder) else folder)
    inputs = next((name for name in files if name.endswith(INPUT_NAMES)), None)
    if inputs is None:
        raise ModelError(f"{folder}: no input embeddings among its safetensors; save the model as safetensors")
    outputs = next((name for name in files if name.endswith(OUTPUT_NAMES)), None)
    names = [name for name in (inputs, outputs) if name is not None]
    return [_rows(files[name], name, tokens) for name in names]


def check_embeddings(rows: Rows, tokens: Mapping[int, str], reserved: Sequence[int]) -> Iterator[Finding]:
    """Each token's row: there, finite, not zero, no other token's too, and not as small as those of unused tokens.

    `tokens` names the tokens by id; `reserved` are ids that no text of the model's own training held.
    """
    size = len(rows.norm_V)
    median = float(rows.norm_V.nanmedian())
    for token, name in tokens.items():
        where = f"{name}: row {token} of {rows.name}"
        if token >= size:
            yield _untrained(
                "error", f"{name} is token {token}, but there are {size} rows", where, "resize the embeddings"
            )
            continue
        norm = float(rows.norm_V[token])
        twins = [other for other in rows.equal.get(token, ()) if other != token]
        if not norm < float("inf"):
            yield _untrained("error", f"the embedding of {name} is not finite", where, "take sound weights")
        elif norm <= 1e-6 * median:
            yield _untrained("error", f"the embedding of {name} is zero: it was never trained", where, CHOOSE)
        elif twins:
            yield _untrained(
                "error",
                f"the embedding of {name} equals that of {len(twins)} other tokens, such as token {twins[0]}: none of them "
                "was ever trained, and the model cannot tell them apart",
                where,
                CHOOSE,
            )
        elif not median / OUTLIER <= norm <= median * OUTLIER:
            yield _untrained(
                "warning", f"the embedding of {name} has the norm {norm:.3g}, the median is {median:.3g}", where, CHOOSE
            )
        elif _like_reserved(rows.norm_V, token, reserved):
            yield _untrained(
                "warning", f"the embedding of {name} has the norm {norm:.3g}, as unused tokens have it", where, CHOOSE
            )


CHOOSE = "choose a token that the model has been trained on, or start its row at the mean of the others and train embeddings too"


def reserved_ids(tokens: Mapping[str, int], size: int) -> list[int]:
    """Ids of tokens that no text held: those named as reserved, and rows without a token."""
    named = [i for token, i in tokens.items() if any(part in token for part in RESERVED)]
    beyond = range(max(tokens.values(), default=-1) + 1, size)
    return [i for i in (*named, *beyond) if i < size]


def _like_reserved(norm_V: Tensor, token: int, reserved: Sequence[int]) -> bool:
    """Whether the norm lies among those of reserved tokens, and these apart from nearly all other tokens."""
    others = [i for i in reserved if i != token]
    if len(others) < 3:
        return False
    known = torch.zeros(len(norm_V), dtype=torch.bool)
    known[[*others, token]] = True
    low, high = float(norm_V[others].min()), float(norm_V[others].max())
    rest_N = norm_V[~known]
    apart = float(((rest_N >= low) & (rest_N <= high)).float().mean()) < 0.01
    return apart and low <= float(norm_V[token]) <= high


def _untrained(severity: str, what: str, where: str, how: str) -> Finding:
    return Finding(
        severity="error" if severity == "error" else "warning",
        check="tokens.untrained",
        what=what,
        where=where,
        how=how,
    )


def _rows(file: Path, name: str, tokens: Sequence[int]) -> Rows:
    try:
        # safetensors has no types of its own
        with cast(AbstractContextManager[Any], safe_open(str(file), framework="pt")) as tensors:
            matrix = tensors.get_slice(name)
            size = int(matrix.get_shape()[0])
            asked = [token for token in tokens if token < size]
            wanted = {token: matrix[token : token + 1].float() for token in asked}
            norms, equal = [], {token: [] for token in asked}  # type: tuple[list[Tensor], dict[int, list[int]]]
            for start in range(0, size, ROWS_AT_ONCE):
                part_RD = matrix[start : start + ROWS_AT_ONCE].float()
                norms.append(part_RD.norm(dim=1))
                for token, row_1D in wanted.items():
                    same = (part_RD == row_1D).all(dim=1).nonzero().flatten()
                    equal[token] += [start + int(i) for i in same]
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: cannot be read: {error}; save the model again") from error
    return Rows(
        name=f"{file.name}: {name}",
        norm_V=torch.cat(norms),
        equal={token: tuple(found) for token, found in equal.items()},
    )


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> file, of one file or of the parts that an index lists."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    try:
        if index.is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {str(name): folder / str(file) for name, file in names.items()}
        if single.is_file():
            with cast(AbstractContextManager[Any], safe_open(str(single), framework="pt")) as tensors:
                return dict.fromkeys(tensors.keys(), single)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: its safetensors cannot be read: {error!r}; save the model again") from error
    return {}
