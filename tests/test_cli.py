from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prmkit import __version__
from prmkit.cli.main import PRESETS, VERBS, main
from prmkit.cli.parse import parse
from prmkit.errors import CheckpointError, ConfigError, DataError, ModelError, TrainingError
from prmkit.models.folders import work_dir
from prmkit.rl.algorithm import Algorithm, Process

TOY_PRESETS = {
    "rloo": Algorithm(group_size=4),
    "prime": Algorithm(group_size=8, clip_low=0.1, process=Process(coef=1.0)),
}


@dataclass(frozen=True, kw_only=True)
class ToyRL:
    """A small run."""

    seed: int = 0
    outcome: str = "return"
    preset: str = "rloo"
    algorithm: Algorithm = field(default_factory=Algorithm)


@dataclass(frozen=True, kw_only=True)
class ToyEval:
    """An evaluation whose model must be named."""

    model: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model is empty; set model to a folder.")


def toy_run(config: ToyRL) -> None:
    """Ends as `config.outcome` says."""
    endings: dict[str, BaseException] = {
        "config": ConfigError("seed = -1; set seed = 0."),
        "data": DataError("train.jsonl:3: no answer"),
        "model": ModelError("no end token"),
        "training": TrainingError("loss is nan at step 3"),
        "disk": CheckpointError("disk full"),
        "interrupt": KeyboardInterrupt(),
        "bug": ZeroDivisionError("division by zero"),
    }
    if config.outcome in endings:
        raise endings[config.outcome]
    print(f"ran with seed {config.seed}")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """`prmkit rl` and `prmkit eval` on the small configurations above."""
    monkeypatch.setitem(VERBS, "rl", (f"{__name__}:ToyRL", f"{__name__}:toy_run"))
    monkeypatch.setitem(VERBS, "eval", (f"{__name__}:ToyEval", f"{__name__}:toy_run"))
    monkeypatch.setitem(PRESETS, "rl", f"{__name__}:TOY_PRESETS")


def resolve(*args: str) -> ToyRL:
    return parse("rl", ToyRL, args, TOY_PRESETS).config


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [verb for verb in (*VERBS, "report") if f"\n  {verb} " not in shown] == []
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"prmkit {__version__}\n"


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "prmkit", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"prmkit {__version__}\n"
    refused = subprocess.run([sys.executable, "-m", "prmkit", "trian"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2


def test_no_verb_and_an_unknown_verb_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: prmkit VERB")
    assert main(["evl"]) == 2
    assert capsys.readouterr().err == 'error: unknown verb "evl"; did you mean "eval"?\n'


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        ("config", 2, "error: seed = -1; set seed = 0.\n"),
        ("data", 2, "error: train.jsonl:3: no answer\n"),
        ("model", 1, "error: no end token\n"),
        ("training", 1, "error: loss is nan at step 3\n"),
        ("disk", 1, "error: disk full\n"),
        ("interrupt", 130, "interrupted; run the same command again to go on\n"),
    ],
)
@pytest.mark.usefixtures("toy")
def test_each_failure_has_its_exit_code_and_one_message(
    outcome: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rl", "--outcome", outcome]) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.usefixtures("toy")
def test_an_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        main(["rl", "--outcome", "bug"])


@pytest.mark.usefixtures("toy")
def test_a_verb_runs_with_the_resolved_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "run.toml", "seed = 3\n")
    assert main(["rl", path]) == 0
    assert capsys.readouterr().out == "ran with seed 3\n"
    assert main(["rl", path, "--seed", "4"]) == 0
    assert capsys.readouterr().out == "ran with seed 4\n"


@pytest.mark.usefixtures("toy")
def test_a_dry_run_prints_toml_that_resolves_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rl", "--preset", "prime", "--dry-run", "--seed", "9"]) == 0
    printed = capsys.readouterr().out
    again = resolve(write(tmp_path / "run.toml", printed))
    assert again == ToyRL(seed=9, preset="prime", algorithm=TOY_PRESETS["prime"])


@pytest.mark.usefixtures("toy")
def test_verb_help_shows_values_file_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rl", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "prmkit rl [CONFIG.toml]" in shown
    assert "--preset NAME: the algorithm to start from, under the file and the flags: rloo, prime." in shown
    assert "--algorithm.process.coef" in shown


@pytest.mark.usefixtures("toy")
def test_a_wrong_flag_value_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rl", "--seed", "x"]) == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_a_value_that_has_no_valid_default_can_come_from_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--model", "runs/x", "--dry-run"]) == 0
    assert capsys.readouterr().out == 'model = "runs/x"\nseed = 0\n'
    assert main(["eval", "--dry-run"]) == 2
    assert capsys.readouterr().err == "error: command line: model is empty; set model to a folder.\n"


def test_the_order_is_default_preset_file_flags(tmp_path: Path) -> None:
    path = write(tmp_path / "run.toml", 'preset = "prime"\n[algorithm]\nclip_low = 0.3\nclip_high = 0.4\n')
    # group_size and process.coef from the preset, clip_low and clip_high from the file, then clip_high from the flag
    expected = Algorithm(group_size=8, process=Process(coef=1.0), clip_low=0.3, clip_high=0.5)
    config = resolve(path, "--algorithm.clip-high", "0.5")
    assert config == ToyRL(preset="prime", algorithm=expected)


def test_the_preset_flag_wins_over_the_file_and_keeps_the_files_algorithm_table(tmp_path: Path) -> None:
    path = write(tmp_path / "run.toml", 'preset = "prime"\n[algorithm]\nclip_low = 0.3\n')
    config = resolve(path, "--preset=rloo")
    assert config == ToyRL(preset="rloo", algorithm=Algorithm(group_size=4, clip_low=0.3))


def test_without_a_name_the_default_preset_is_used() -> None:
    assert resolve("--seed", "1") == ToyRL(seed=1, preset="rloo", algorithm=TOY_PRESETS["rloo"])


def test_the_configuration_file_may_follow_the_options_that_are_not_values(tmp_path: Path) -> None:
    path = write(tmp_path / "run.toml", "seed = 3\n")
    assert resolve("--dry-run", "--preset", "prime", path).seed == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--preset", "prim"], 'command line: unknown preset "prim"; did you mean "prime"?'),
        (["--preset", "zzz"], 'command line: unknown preset "zzz"; known: rloo, prime'),
        (["--preset"], "--preset needs a value: --preset NAME"),
        (["--group-sise", "8"], 'unknown flag "--group-sise"; did you mean "--algorithm.group-size"?'),
        (["--seed", "1", "run.toml"], 'unexpected argument "run.toml"; a configuration file comes first'),
        (["absent.toml"], "absent.toml: cannot read this configuration file: No such file or directory"),
    ],
)
def test_bad_command_lines_are_refused(args: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(*args)
    assert str(caught.value).startswith(message)


def test_a_bad_preset_in_the_file_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "run.toml", 'preset = "prim"\n')
    with pytest.raises(ConfigError) as caught:
        resolve(path)
    assert str(caught.value) == f'{path}: unknown preset "prim"; did you mean "prime"?'


def test_a_verb_without_presets_refuses_the_option_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='unknown flag "--preset"'):
        parse("eval", ToyEval, ["--model", "x", "--preset", "prime"], None)
    path = write(tmp_path / "eval.toml", 'model = "x"\npreset = "prime"\n')
    with pytest.raises(ConfigError, match='unknown key "preset"'):
        parse("eval", ToyEval, [path], None)


def test_report_refuses_what_is_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/none: no such run folder")
    assert main(["report"]) == 2
    assert "RUN" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], *([verb, "--dry-run"] for verb in VERBS), ["rl", "--help"], ["report", "--help"]],
)
def test_help_and_dry_runs_load_no_torch(args: list[str]) -> None:
    code = f"import sys; from prmkit.cli.main import main; code = main({args!r}); print('torch' in sys.modules, code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["False 0"], done.stderr


def test_the_first_of_two_words_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["train", "implicit"],
        ["train", "stepwise"],
        ["train", "outcome"],
    ]
    assert main(["train"]) == 2
    assert '"train" needs a second word; known: train implicit, train stepwise' in capsys.readouterr().err
    assert main(["train", "implict"]) == 2
    assert '"train implict" is no command; known: train implicit' in capsys.readouterr().err


def test_a_data_file_in_the_place_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", "a.jsonl", "b.jsonl"]) == 2
    message = "error: a.jsonl: the word after the verb is a configuration file (TOML); data files go behind --source, --target"
    assert message in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class ToyTask:
    """What is asked."""

    name: str = "arithmetic"
    test: str = ""


@dataclass(frozen=True, kw_only=True)
class ToyAsked:
    """A command with a task."""

    task: ToyTask = field(default_factory=ToyTask)
    other: str = ""


@pytest.mark.parametrize(
    "words",
    [
        ["--task", "mgsm:de"],
        ["--task=mgsm:de"],
        ["--task.name", "mgsm:de"],
        ["--task", "gsm8k", "--task.name", "mgsm:de"],
    ],
)
def test_a_task_is_named_in_short(words: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "x.toml", '[task]\nname = "amc"\ntest = "t.jsonl"\n')
    for before in ([], [file]):  # it wins over the file, and leaves the rest of it
        config = parse("eval", ToyAsked, [*before, *words, "--other", "task"], None).config
        assert config == ToyAsked(task=ToyTask(name="mgsm:de", test="t.jsonl" if before else ""), other="task")


def test_the_short_form_is_in_the_help_of_commands_with_a_task_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, there in (("eval", True), ("rl", True), ("doctor", False)):
        assert main([verb, "--help"]) == 0
        assert ("--task NAME: short for --task.name NAME." in capsys.readouterr().out) is there
    assert main(["doctor", "--task", "gsm8k"]) == 2
    assert 'unknown flag "--task"' in capsys.readouterr().err


CLOSED = "import os, sys; [os.close(fd) for fd in (0, 1, 2)]; sys.stdin = sys.stdout = sys.stderr = None"
"""As a daemon may start a program."""


def test_closed_standard_streams_lend_their_numbers_to_no_other_file() -> None:
    code = f"{CLOSED}; from prmkit.cli.main import main; code = main(['--version']); sys.exit(code + 8 * os.pipe()[0])"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 8 * 3


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    for words in (["--help"], ["sft", "--dry-run"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "prmkit.cli.main", *words], stdout=writer, stderr=subprocess.PIPE, check=False
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, b"")


def test_what_a_log_cannot_show_is_escaped(tmp_path: Path) -> None:
    source = tmp_path / "\u03c0.jsonl"
    source.write_text('{"id": "a", "prompt": "?", "steps": ["b"], "labels": [1]}\n', encoding="utf-8")
    words = ["data", "convert", f"--source={source}", f"--target={source}2.jsonl", "--target-format=prmkit"]
    done = subprocess.run(
        [sys.executable, "-m", "prmkit.cli.main", *words],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u03c0.jsonl (prmkit): 1 rows" in done.stdout


def test_a_current_folder_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["sft", "--dry-run"]) == 2
    assert "the current folder has been removed" in capsys.readouterr().err


def test_without_a_home_folder_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PRMKIT_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(ConfigError, match="PRMKIT_CACHE"):
        work_dir()
    monkeypatch.setenv("PRMKIT_CACHE", "models")
    assert work_dir() == Path("models")
