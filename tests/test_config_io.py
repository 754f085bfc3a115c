from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prmkit.config_io import apply_overrides, from_dict, leaf_keys, load_toml, nearest, to_toml
from prmkit.errors import ConfigError
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.config import RLConfig


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = 1e-4
    steps: int = 10
    schedule: Literal["constant", "cosine"] = "constant"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps = {self.steps}, but at least one is needed; set steps = 1.")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.top_p > 1:
            raise ValueError(f"top_p must be at most 1, got {self.top_p}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    chain: int = 4


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    resume: bool = True
    note: str = ""
    level: Literal[1, 2] = 1
    limit: int | None = None
    bounds: tuple[float, float] = (0.2, 0.8)
    stop: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    policy: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=3e-4, steps=7))


def refused(data: dict[str, Any], cls: type = Config) -> str:
    with pytest.raises(ConfigError) as caught:
        from_dict(cls, data, "run.toml")
    return str(caught.value)


def test_what_is_not_stated_keeps_the_defaults_of_the_field_not_of_its_class() -> None:
    # Optimizer's own default is steps = 10, but the field `policy` starts from 7
    config = from_dict(Config, {"policy": {"schedule": "cosine"}}, "run.toml")
    assert config == Config(policy=Optimizer(learning_rate=3e-4, steps=7, schedule="cosine"))


def test_an_integer_is_taken_for_a_float_and_becomes_one() -> None:
    config = from_dict(Config, {"policy": {"learning_rate": 1}, "bounds": [0, 1]}, "run.toml")
    assert type(config.policy.learning_rate) is float
    assert config.bounds == (0.0, 1.0)
    assert [type(bound) for bound in config.bounds] == [float, float]


def test_arrays_of_tables_become_tuples_of_dataclasses() -> None:
    config = from_dict(Config, {"stages": [{"name": "a"}, {"name": "b", "chain": 8}]}, "run.toml")
    assert config.stages == (Stage(name="a"), Stage(name="b", chain=8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sed": 1}, 'run.toml: unknown key "sed"; did you mean "seed"?'),
        (
            {"policy": {"lerning_rate": 1e-3}},
            'run.toml: unknown key "policy.lerning_rate"; did you mean "learning_rate"?',
        ),
        ({"schedule": "cosine"}, 'run.toml: unknown key "schedule"; did you mean "policy.schedule"?'),
        ({"policy": {"zzz": 1}}, 'run.toml: unknown key "policy.zzz"; known: learning_rate, steps, schedule'),
        ({"seed": True}, "run.toml: seed = true is a boolean (true or false), but it must be an integer"),
        ({"seed": 1.0}, "run.toml: seed = 1.0 is a number, but it must be an integer"),
        ({"resume": 1}, "run.toml: resume = 1 is an integer, but it must be a boolean (true or false)"),
        ({"note": 3}, "run.toml: note = 3 is an integer, but it must be a string"),
        ({"limit": "3"}, 'run.toml: limit = "3" is a string, but it must be an integer'),
        (
            {"policy": {"learning_rate": "1e-3"}},
            'run.toml: policy.learning_rate = "1e-3" is a string, but it must be a number',
        ),
        (
            {"policy": {"schedule": "cosin"}},
            'run.toml: policy.schedule = "cosin", but it must be one of "constant", "cosine"; did you mean "cosine"?',
        ),
        ({"level": True}, "run.toml: level = true, but it must be one of 1, 2"),
        ({"policy": 3}, "run.toml: policy = 3 is an integer, but it must be a table"),
        ({"stop": "#"}, 'run.toml: stop = "#" is a string, but it must be an array'),
        ({"stop": ["#", 1]}, "run.toml: stop[1] = 1 is an integer, but it must be a string"),
        ({"bounds": [0.1]}, "run.toml: bounds = [0.1], but it must hold exactly 2 values"),
        (
            {"stages": [{"chain": 3}]},
            'run.toml: missing key "stages[0].name"; it has no default, so it must be stated',
        ),
        ({"policy": {"steps": 0}}, "run.toml: [policy] steps = 0, but at least one is needed; set steps = 1."),
        ({"sampling": {"top_p": 2}}, "run.toml: [sampling] top_p must be at most 1, got 2.0"),
    ],
)
def test_bad_values_are_refused_with_key_value_and_fix(data: dict[str, Any], message: str) -> None:
    assert refused(data) == message


def test_a_value_of_a_type_that_only_toml_knows_is_refused() -> None:
    assert "seed = " in refused(tomllib.loads("seed = 2026-01-01"))


def test_a_file_overrides_only_what_it_states(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('note = "x"\n[policy]\nsteps = 3\n')
    base = Config(seed=5, policy=Optimizer(learning_rate=1e-2, schedule="cosine"))
    expected = Config(seed=5, note="x", policy=Optimizer(learning_rate=1e-2, steps=3, schedule="cosine"))
    assert load_toml(Config, path, base) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = 1\nnote = \n", "run.toml:2: not valid TOML: Invalid value"),
        (b"seed = 1\nseed = 2\n", "run.toml:2: not valid TOML: Cannot overwrite a value"),
        (b"note = 'a", "run.toml: not valid TOML: "),
        (b"note = '\xff'", "run.toml: not UTF-8 text (byte 8); save it as UTF-8"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_toml(Config, path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read this configuration file: No such file"):
        load_toml(Config, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_toml(Config, tmp_path)


number = st.floats(allow_nan=False)
configs = st.builds(
    Config,
    seed=st.integers(-(2**63), 2**63 - 1),
    resume=st.booleans(),
    note=st.text(),
    level=st.sampled_from([1, 2]),
    limit=st.none() | st.integers(-5, 5),
    bounds=st.tuples(number, number),
    stop=st.lists(st.text()).map(tuple),
    stages=st.lists(st.builds(Stage, name=st.text(), chain=st.integers(-5, 5)), max_size=3).map(tuple),
    sampling=st.builds(Sampling, top_p=st.floats(max_value=1, allow_nan=False)),
    policy=st.builds(Optimizer, learning_rate=number, steps=st.integers(1, 9)),
)


@given(config=configs)
def test_toml_round_trip_is_exact(config: Config) -> None:
    assert from_dict(Config, tomllib.loads(to_toml(config)), "round trip") == config


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a leaf of the real configurations, mostly inside the ranges that they check."""
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is tuple:
        return st.lists(values_of(get_args(hint)[0]), max_size=3)
    if is_dataclass(hint):  # a table in an array of tables
        leaves = {path[0]: leaf for path, leaf in leaf_hints(hint).items() if len(path) == 1}  # type: ignore[arg-type]
        return st.fixed_dictionaries({}, optional={name: values_of(leaf) for name, leaf in leaves.items()})
    by_type = {
        bool: st.booleans(),
        int: st.integers(2, 10**6),
        float: st.floats(0, 1, exclude_min=True),
        str: st.text(max_size=20),
    }
    return by_type[hint]


def leaf_hints(cls: type, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    hints = get_type_hints(cls)
    found: dict[tuple[str, ...], Any] = {}
    for item in fields(cls):
        hint = hints[item.name]
        path = (*prefix, item.name)
        found |= leaf_hints(hint, path) if is_dataclass(hint) else {path: hint}
    return found


@pytest.mark.parametrize("cls", [RLConfig, Algorithm])
@given(data=st.data())
@settings(max_examples=60)
def test_real_configurations_survive_the_round_trip(cls: type, data: st.DataObject) -> None:
    leaves = leaf_hints(cls)
    stated: dict[str, Any] = {}
    for path in data.draw(st.lists(st.sampled_from(sorted(leaves)), max_size=4, unique=True)):
        table = stated
        for section in path[:-1]:
            table = table.setdefault(section, {})
        table[path[-1]] = data.draw(values_of(leaves[path]))
    try:
        config = from_dict(cls, stated, "drawn")
    except ConfigError:
        assume(False)
    assert from_dict(cls, tomllib.loads(to_toml(config)), "round trip") == config


def test_none_that_toml_cannot_state_is_refused_instead_of_lost() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Limited:
        limit: int | None = 5

    with pytest.raises(ConfigError, match='"limit" is None, which TOML cannot state'):
        to_toml(Limited(limit=None))


def test_flags_lie_over_the_loaded_configuration() -> None:
    base = Config(seed=5, policy=Optimizer(learning_rate=1e-2))
    argv = ["--policy.steps", "3", "--policy.schedule=cosine", "--stop", "#", ";", "--limit", "4", "--resume", "false"]
    expected = Config(
        seed=5,
        limit=4,
        resume=False,
        stop=("#", ";"),
        policy=Optimizer(learning_rate=1e-2, steps=3, schedule="cosine"),
    )
    assert apply_overrides(base, argv) == expected


@pytest.mark.parametrize("flag", ["--policy.learning-rate", "--policy.learning_rate"])
def test_underscores_and_hyphens_are_the_same(flag: str) -> None:
    assert apply_overrides(Config(), [flag, "0.5"]).policy.learning_rate == 0.5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--policy.lerning_rate", "1"],
            'unknown flag "--policy.lerning_rate"; did you mean "--policy.learning-rate"?',
        ),
        (["--policy.lerning-rate=1"], 'unknown flag "--policy.lerning-rate"; did you mean "--policy.learning-rate"?'),
        (["--learning-rate", "1"], 'unknown flag "--learning-rate"; did you mean "--policy.learning-rate"?'),
        (["--qqq", "1"], 'unknown flag "--qqq"; --help lists them all'),
        (["late.toml"], 'unexpected argument "late.toml"; a configuration file comes first'),
        (["--policy.steps", "0"], "command line: policy.steps = 0, but at least one is needed; set steps = 1."),
        (["--sampling.top-p", "2"], "command line: sampling.top_p must be at most 1, got 2.0"),
    ],
)
def test_flags_that_cannot_be_used_are_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(Config(), argv)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--seed", "x"], "--seed"),
        (["--seed"], "--seed"),
        (["--resume", "1"], "'true'"),
        (["--policy.schedule", "cosin"], "'cosine'"),
    ],
)
def test_flag_values_of_the_wrong_type_end_with_code_2(
    argv: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        apply_overrides(Config(), argv)
    assert stop.value.code == 2
    assert shown in capsys.readouterr().err


def test_leaf_keys_are_dotted_and_in_order() -> None:
    assert list(leaf_keys(Config))[-4:] == [
        "sampling.top_p",
        "policy.learning_rate",
        "policy.steps",
        "policy.schedule",
    ]


def test_nearest_lists_what_is_known_when_nothing_is_near() -> None:
    assert nearest("evl", ["sft", "eval"]) == 'did you mean "eval"?'
    assert nearest("zzz", ["sft", "eval"]) == "known: sft, eval"
