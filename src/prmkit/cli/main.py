"""The `prmkit` command. Verbs are imported when they are asked for, so that help and dry runs load no torch."""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from prmkit import __version__
from prmkit.cli.parse import load, parse
from prmkit.config_io import nearest, to_toml
from prmkit.errors import ConfigError, DataError, PrmkitError

VERBS = {
    "sft": ("prmkit.train.config:SFTConfig", "prmkit.cli.commands:sft"),
    "rl": ("prmkit.rl.config:RLConfig", "prmkit.cli.commands:rl"),
    "eval": ("prmkit.evaluate.config:EvalConfig", "prmkit.cli.evaluate:evaluate"),
    "demo": ("prmkit.cli.demo:DemoConfig", "prmkit.cli.demo:run"),
    "train implicit": ("prmkit.train.implicit_config:ImplicitConfig", "prmkit.cli.train:implicit"),
    "train stepwise": ("prmkit.train.stepwise_config:StepwiseConfig", "prmkit.cli.train:stepwise"),
    "train outcome": ("prmkit.train.stepwise_config:OutcomeConfig", "prmkit.cli.train:outcome"),
    "score": ("prmkit.evaluate.score_config:ScoreConfig", "prmkit.cli.score:score"),
    "doctor": ("prmkit.doctor.config:DoctorConfig", "prmkit.cli.doctor:doctor"),
    "eval prm": ("prmkit.evaluate.prm.config:EvalPRMConfig", "prmkit.cli.eval_prm:evaluate_prm"),
    "data convert": ("prmkit.data.convert_config:ConvertConfig", "prmkit.cli.convert:convert"),
    "data prepare": ("prmkit.curate.config:PrepareConfig", "prmkit.cli.prepare:prepare"),
    "export": ("prmkit.models.export_config:ExportConfig", "prmkit.cli.export:export"),
}
"""Verb, of one word or two -> (config class, function of that config)."""

PRESETS = {"rl": "prmkit.rl.presets:PRESETS"}
"""Verb -> named algorithms that `--preset` chooses from."""

HELP = """\
usage: prmkit VERB [CONFIG.toml] [--section.key value ...] [--dry-run]

Process rewards for LLM reasoning.

  sft             fine-tune a model on worked solutions
  rl              online RL, with or without implicit process rewards; --preset NAME chooses the algorithm
  train implicit  an implicit PRM from outcome labels alone: CE, DPO, KTO or NCA
  train stepwise  a PRM from labels of steps
  train outcome   a model of the final answer's being right
  data convert    between the file formats of PRM data
  data prepare    prompts for RL out of question files: filters, answers, choices, duplicates, contamination, difficulty
  doctor          what would silently ruin a PRM, before it is trained
  score           rewards of every step of the solutions in a file, by any PRM
  export          a trained PRM in the form that transformers and vLLM load
  eval            a model on an evaluation set: pass@k, avg@k, majority@k and greedy, with confidence intervals
  eval compare    A.json B.json [--out FILE]: two results on the same questions, in pairs
  eval prm        how good a PRM is: a report card
  report          RUN [RUN ...] [--out FILE]: one HTML page about run folders, about the scores of `prmkit score`, or about a
                  result of `prmkit eval`
  demo            all of it on a small task made here: fine-tune, RL, evaluate, report

`prmkit VERB --help` lists every value with its default.
`--dry-run` prints the resolved configuration as TOML and stops.
`prmkit --version` prints the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 done; 2 wrong configuration, data or command line; 1 any other error that prmkit explains, or nobody reads what is printed
    any more; 130 interrupted. Unexpected exceptions keep their traceback.
    """
    _open_standard_files()
    # PEFT asks transformers for it under an old name; nobody who runs a command can do anything about that.
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _nobody_reads(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python flushes at its end
        return 1
    except PrmkitError as error:
        _complain(f"error: {error}")
        return 2 if isinstance(error, (ConfigError, DataError)) else 1
    except KeyboardInterrupt:
        _complain("interrupted; run the same command again to go on")
        return 130
    except SystemExit as stop:  # the flag parser's way to end after --help or after its own message
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _run(args: list[str]) -> int:
    if not args:
        print(HELP, end="", file=sys.stderr)
        return 2
    verb, *rest = args
    if rest and f"{verb} {rest[0]}" in VERBS:
        verb, *rest = f"{verb} {rest[0]}", *rest[1:]
    if verb in ("-h", "--help"):
        print(HELP, end="")
    elif verb == "--version":
        print(f"prmkit {__version__}")
    elif verb == "report":
        _report(rest)
    elif verb == "eval" and rest[:1] == ["compare"]:
        load("prmkit.cli.compare:compare")(rest[1:])
    elif verb in VERBS:
        _configured(verb, rest)
    elif second := [known for known in VERBS if known.startswith(f"{verb} ")]:
        if rest[:1] not in (["-h"], ["--help"]):
            wrong = f'"{verb} {rest[0]}" is no command' if rest else f'"{verb}" needs a second word'
            raise ConfigError(f"{wrong}; known: {', '.join(second)}")
        print("".join(line for line in HELP.splitlines(keepends=True) if line.lstrip().startswith(f"{verb} ")), end="")
    else:
        named = f"{verb} {rest[0]}" if rest and not rest[0].startswith("-") else verb
        raise ConfigError(f'unknown verb "{named}"; {nearest(named, [*VERBS, "eval compare", "report"])}')
    return 0


def _configured(verb: str, args: list[str]) -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed; change to another one") from None
    config_class, function = VERBS[verb]
    presets = load(PRESETS[verb]) if verb in PRESETS else None
    request = parse(verb, load(config_class), args, presets)
    if request.dry_run:
        print(to_toml(request.config), end="")
    else:
        load(function)(request.config)


def _report(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="prmkit report", description="One self-contained HTML page about run folders, a scored file or a result."
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="run folder, several are overlaid; or one file of prmkit score or prmkit eval",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="where to write (default: report.html in the first RUN, or beside the file)",
    )
    options = parser.parse_args(args)
    if len(options.runs) == 1 and options.runs[0].is_file():
        page = "write_evaluation_report" if options.runs[0].suffix == ".json" else "write_scored_report"
        print(load(f"prmkit.report:{page}")(options.runs[0], options.out))
        return
    for run in options.runs:
        if run.is_file():
            raise DataError(f"{run}: a scored file has a page of its own; give it alone, or run folders alone")
        if not run.is_dir():
            raise DataError(f"{run}: no such run folder; give the folder that a run wrote, such as runs/demo")
    out: Path = options.out or options.runs[0] / "report.html"
    load("prmkit.report:write_report")(options.runs, out)
    print(out)


def _open_standard_files() -> None:
    """Standard streams are there, and take any text: a file that gets a closed one's number would be written into, and what a
    terminal or a log cannot show (a name in Greek on one that is Latin-1) would end a run."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # it was a file, and its number is a pipe's now
                stream.reconfigure(errors="backslashreplace")


def _nobody_reads(stream: TextIO) -> bool:
    """Whether a pipe's other end is closed, as in `prmkit ... | head`."""
    look = select.poll()
    look.register(stream.fileno(), 0)
    return any(found & select.POLLERR for _, found in look.poll(0))


def _complain(message: str) -> None:
    """One message on stderr, red on a terminal (unless NO_COLOR is set)."""
    red = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[31m{message}\033[0m" if red else message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
