"""The files of an offline implicit PRM's run: read, filtered by language, balanced, paired, encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prmkit.data.formats import ReadOptions, detect_format, read_pairs, read_solutions
from prmkit.data.pairs import balance, make_pairs
from prmkit.data.types import Pair, Solution
from prmkit.errors import ConfigError, DataError
from prmkit.train.implicit_config import ImplicitConfig
from prmkit.train.implicit_data import Items, encode_pairs, encode_responses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class ImplicitRows:
    """The rows to learn from, filtered, balanced and paired: pairs or solutions, as the loss asks; and the held-out ones."""

    pairs: Sequence[Pair]
    solutions: Sequence[Solution]
    validation: Sequence[Solution]
    separator: str
    """What stands between steps in most of the training solutions."""


def read_rows(config: ImplicitConfig) -> ImplicitRows:
    """Everything that the configuration names. Raises ConfigError or DataError where there is nothing."""
    if not config.data:
        raise ConfigError("data is empty; name the files of solutions with outcomes, or of pairs, to learn from")
    pairs, solutions = _read(config)
    seen = [*solutions, *(side for pair in pairs for side in (pair.chosen, pair.rejected))]
    if not seen:
        raise DataError(f"no row of {', '.join(config.data)} is in the languages {', '.join(config.languages)}")
    if not config.on_pairs:
        _check_outcomes(config, solutions)
    solutions = balance(solutions, config.balance, seed=config.seed)
    if config.on_pairs:
        pairs, solutions = [*pairs, *make_pairs(solutions, mode=config.pairs, seed=config.seed)], []
        if not pairs:
            raise _no_pair()
    validation = [s for path in config.validation for s in _solutions(path, config.format, preferred_is_right=True)]
    ((separator, _),) = Counter(s.between for s in seen).most_common(1)
    return ImplicitRows(pairs=pairs, solutions=solutions, validation=validation, separator=separator)


def encode_rows(
    config: ImplicitConfig, rows: ImplicitRows, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[Items, Items | None]:
    """Training and validation items. Raises DataError where nothing can be learned from them."""
    if config.on_pairs:
        data = encode_pairs(tokenizer, rows.pairs, max_tokens, config.too_long)
    else:
        data = encode_responses(tokenizer, rows.solutions, max_tokens, config.too_long)
    _check(config, data)
    if not rows.validation:
        return data, None
    validation = encode_responses(tokenizer, rows.validation, max_tokens, config.too_long)
    if not validation.responses:
        raise DataError(f"all {len(rows.validation)} responses of validation are longer than {max_tokens} tokens")
    return data, validation


def _read(config: ImplicitConfig) -> tuple[list[Pair], list[Solution]]:
    """Pairs of preference files where the loss is on pairs; the solutions of all other files."""
    pairs: list[Pair] = []
    solutions: list[Solution] = []
    for path in config.data:
        name = detect_format(path) if config.format == "auto" else config.format
        if config.on_pairs and name == "preference":
            if config.balance != "none":
                raise ConfigError(
                    f'balance = "{config.balance}", but {path} holds pairs, which are even; set it to "none"'
                )
            pairs += read_pairs(path, format=name)
        elif name == "preference" and not config.preferred_is_right:
            raise DataError(
                f'{path}: its rows are preferences, and loss = "{config.loss}" learns from right and wrong, which a preference '
                "alone does not say; take chosen for right and rejected for wrong with --preferred-is-right true, or learn from "
                "the pairs as they stand with --loss dpo (or nca, kto_even)"
            )
        else:
            solutions += _solutions(path, name, preferred_is_right=config.preferred_is_right)
    if config.languages:
        solutions = [s for s in solutions if s.language in config.languages]
        pairs = [p for p in pairs if p.chosen.language in config.languages]
    return pairs, solutions


def _solutions(path: str, name: str, *, preferred_is_right: bool) -> Sequence[Solution]:
    return read_solutions(Path(path), format=name, options=ReadOptions(preferred_is_right=preferred_is_right))


def _no_pair(left_out: str = "") -> DataError:
    return DataError(
        f"the data give no pair{left_out}: no prompt has both a right and a wrong response; use loss = ce or kto, which need none"
    )


def _check_outcomes(config: ImplicitConfig, solutions: Sequence[Solution]) -> None:
    """What no model is needed to see. Raises DataError for a solution whose outcome is missing, or for KTO soft."""
    without = [solution.id for solution in solutions if solution.outcome is None]
    if without:
        raise DataError(
            f"solution {without[0]!r} has no outcome, which is all that an implicit PRM learns from ({len(without)} of "
            f"{len(solutions)} solutions have none); give every row one in [0, 1], or leave the row out"
        )
    soft = next((s for s in solutions if s.outcome not in (0.0, 1.0)), None)
    if config.loss == "kto" and soft is not None:
        raise DataError(
            f"solution {soft.id!r} has the soft outcome {soft.outcome:g}, and KTO knows right and wrong alone; use loss = ce, or "
            "choose a threshold"
        )


def _check(config: ImplicitConfig, data: Items) -> None:
    left_out = f" ({data.num_left_out} were left out as too long)" if data.num_left_out else ""
    if not data.items and config.on_pairs:
        raise _no_pair(left_out)
    if not data.items:
        raise DataError(f"the data give no response to learn from{left_out}")
    if config.loss == "kto" and data.num_prompts < 2:
        raise DataError("KTO takes its KL from responses to other prompts, and the data have one prompt; use loss = ce")
