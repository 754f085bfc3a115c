"""Configuration of a report card. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from prmkit.errors import ConfigError
from prmkit.evaluate.prm.bootstrap import MIN_RESAMPLES
from prmkit.evaluate.score_config import PRMOverrides


@dataclass(frozen=True, kw_only=True)
class EvalPRMConfig:
    """How good PRMs are, as one report card: `prmkit eval prm --models prm=FOLDER --process-bench gsm8k=FILE --out CARD`."""

    models: tuple[str, ...] = ()
    """PRMs, each `name=FOLDER` or a folder alone, whose own name it then has."""
    controls: tuple[str, ...] = ()
    """The same for models that are there to be beaten, such as a plain language model (family log_prob) or an outcome model:
    they are asked for best-of-N only."""
    scored: tuple[str, ...] = ()
    """`name=FILE`: scores that `prmkit score` wrote, or a `scores/NAME` folder of an earlier card, in place of a model."""
    overrides: tuple[str, ...] = ()
    """`name.key=value`: how to ask a model where its folder does not say so; the keys are those of `[prm]` of `prmkit score`."""
    process_bench: tuple[str, ...] = ()
    """`split=FILE`: solutions in which the first wrong step is known. Their F1 is averaged over the splits."""
    prm_bench: tuple[str, ...] = ()
    """`name=FILE`: solutions with every step labelled, by kind of error."""
    unmodified: bool = False
    """Also score PRMBench's solutions as they were before errors were put in: a control, in no total."""
    steps: tuple[str, ...] = ()
    """`name=FILE`: solutions with human step labels, such as PRM800K."""
    pools: tuple[str, ...] = ()
    """`name=FILE`: several solutions to each problem, with their outcomes, for best-of-N."""
    threshold: str = "0.5"
    """A probability in [0, 1], or the name of a set on which the best threshold is chosen. It is never chosen anew on another
    set; the card calls the numbers of that one set in-sample."""
    temperature: float = 1.0
    """Log-ratios become probabilities as sigma(log-ratio / temperature): for a given threshold, calibration and the weights of
    votes. The released code of the implicit PRM has 1000 for votes and 200 on ProcessBench."""
    fit_temperature: str = ""
    """Name of a set on which a calibration temperature is fitted; the others are then also shown with it."""
    neutral: Literal["right", "wrong", "ignore"] = "right"
    """What a step that people labelled neutral counts as."""
    aggregates: tuple[Literal["min", "prod", "last", "mean", "sum"], ...] = ("min", "prod", "last", "mean", "sum")
    """How step rewards become one score in best-of-N."""
    n_values: tuple[int, ...] = ()
    """The N of best-of-N; empty: powers of two up to the size that at least half of the pools have."""
    unscored: Literal["leave_out", "failed_pick"] = "leave_out"
    """Solutions of a pool that some model has no score for: `leave_out` takes them out of the pool for all models and controls;
    `failed_pick` keeps them: the model never picks them, and a draw without any score counts as wrong."""
    draws: int = 100
    """Random subsets of a pool for votes, where there are more subsets than can be gone through."""
    bins: int = 15
    """Of the reliability curve and the calibration error."""
    bootstrap: int = 1000
    """Resamples of the problems behind each interval, and permutations behind each p-value."""
    seed: int = 0
    """Of resamples, permutations and draws."""
    languages: tuple[str, ...] = ()
    """Also every model by test language: ISO 639-1 codes, or `all` for every code in the data."""
    trained_on: tuple[str, ...] = ()
    """`name=en+de`: the languages that a model was trained on, for the language matrix; a model whose name spells test languages
    (`de`, `en+de`) needs none."""
    cards: tuple[str, ...] = ()
    """card.json files of earlier evaluations whose models join the language matrix."""
    limit: int = 0
    """Only the first so many solutions (or pools) of each set; 0 uses all."""
    tokens_per_batch: int = 16384
    """Largest number of tokens, padding included, in one forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a CUDA GPU where there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights and the forward pass."""
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""
    out: str = ""
    """Folder for card.json, card.html and the scores of every set."""

    def __post_init__(self) -> None:
        least = {"draws": 1, "bins": 1, "bootstrap": MIN_RESAMPLES, "limit": 0, "tokens_per_batch": 1, "threads": 0}
        for key, bound in least.items():
            if getattr(self, key) < bound:
                raise ConfigError(f"{key} = {getattr(self, key)}, but it must be at least {bound}")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature = {self.temperature}, but log-ratios are divided by it; set it above 0")
        if any(n < 1 for n in self.n_values):
            raise ConfigError(f"n_values = {list(self.n_values)}, but best of N needs N of at least 1")
        if not self.aggregates:
            raise ConfigError('aggregates is empty; name at least one, such as ["min"]')
        names = [*self.model_paths, *self.control_paths, *self.scored_paths]
        _refuse_twice("models, controls and scored", names)
        _refuse_twice("process_bench, prm_bench, steps and pools", [name for name, _, _ in self.sets])
        split = next((name for name, _, _ in self.sets if "/" in name), None)
        if split is not None:
            raise ConfigError(
                f'"{split}" is no name of a set: its scores are written to a file of that name; leave out the "/"'
            )
        self._check_named_sets()
        for key, given in (("overrides", self.overrides_of), ("trained_on", self.trained_languages)):
            unknown = [name for name in given if name not in names]
            if unknown and names:
                raise ConfigError(f'{key} names "{unknown[0]}", which is no model here; known: {", ".join(names)}')

    def _check_named_sets(self) -> None:
        labelled = [name for name, task, _ in self.sets if task != "pools"]
        known = ", ".join(labelled) or "none"
        if self.given_threshold is None and self.threshold not in labelled:
            raise ConfigError(
                f'threshold = "{self.threshold}" is neither a number in [0, 1] nor a set with step labels; known: {known}'
            )
        if self.fit_temperature and self.fit_temperature not in labelled:
            raise ConfigError(f'fit_temperature = "{self.fit_temperature}" is no set with step labels; known: {known}')

    @property
    def given_threshold(self) -> float | None:
        """The threshold where it is a number; None where it is the name of a set."""
        try:
            value = float(self.threshold)
        except ValueError:
            return None
        return value if 0 <= value <= 1 else None

    @property
    def model_paths(self) -> dict[str, str]:
        """PRMs: name -> folder."""
        return _named("models", self.models)

    @property
    def control_paths(self) -> dict[str, str]:
        """Controls: name -> folder."""
        return _named("controls", self.controls)

    @property
    def scored_paths(self) -> dict[str, str]:
        """Scores made before: name -> file or folder."""
        return _named("scored", self.scored)

    @property
    def sets(self) -> list[tuple[str, str, str]]:
        """Every set: name, task, file."""
        tasks = ("process_bench", "prm_bench", "steps", "pools")
        return [(name, task, path) for task in tasks for name, path in _named(task, getattr(self, task)).items()]

    @property
    def trained_languages(self) -> dict[str, tuple[str, ...]]:
        """Model name -> languages it was trained on."""
        return {name: tuple(codes.split("+")) for name, codes in _named("trained_on", self.trained_on).items()}

    @property
    def overrides_of(self) -> dict[str, PRMOverrides]:
        """Model name -> how to ask it."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.overrides:
            target, equals, value = entry.partition("=")
            name, dot, key = target.rpartition(".")
            if not (equals and dot):
                raise ConfigError(f'overrides holds "{entry}", expected name.key=value, such as prm.beta=0.05')
            found.setdefault(name, {})[key] = _override(entry, key, value)
        return {name: PRMOverrides(**values) for name, values in found.items()}


def _override(entry: str, key: str, value: str) -> object:
    known = [field.name for field in fields(PRMOverrides)]
    if key not in known:
        raise ConfigError(f'overrides holds "{entry}", but there is no key "{key}"; known: {", ".join(known)}')
    if key == "labels":
        return tuple(value.split(","))
    if key == "beta":
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f'overrides holds "{entry}", but beta is a number') from None
    choices = getattr(get_type_hints(PRMOverrides)[key], "__args__", ())
    if choices and value not in choices:
        raise ConfigError(f'overrides holds "{entry}", but {key} must be one of {", ".join(map(str, choices))}')
    return value


def _named(key: str, entries: Sequence[str]) -> dict[str, str]:
    """`name=path` entries; a path alone is named after its last part."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals:
            name, path = Path(entry).name.removesuffix(".jsonl"), entry
        if not name.strip() or not path.strip():
            raise ConfigError(f'{key} holds "{entry}", expected name=path')
        if name in found:
            raise ConfigError(f'{key} names "{name}" twice; give each a name of its own: name=path')
        found[name] = path
    return found


def _refuse_twice(key: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f'{key} name "{twice}" twice; give each a name of its own: name=path')


def overrides_summary(overrides: Mapping[str, PRMOverrides]) -> dict[str, dict[str, Any]]:
    """What was overridden, for the card: only the keys that differ from the defaults."""
    default = PRMOverrides()
    return {
        name: {
            f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != getattr(default, f.name)
        }
        for name, value in overrides.items()
    }
