"""README, docs, examples and shipped configurations say what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest
from rl_setup import TASK, CoinVerifier, make_roles, one_step, rl_config, taught_model

from prmkit.cli.main import PRESETS as PRESETS_OF
from prmkit.cli.main import VERBS, main
from prmkit.cli.parse import load, parse
from prmkit.config_io import leaf_keys
from prmkit.data.chat import read_demonstrations
from prmkit.rl.algorithm import KL, Algorithm, Filter, Outcome, Process
from prmkit.rl.clock import Clock
from prmkit.rl.metrics import step_metrics
from prmkit.rl.presets import PRESETS, RLOO
from prmkit.tasks.arithmetic import first_error_step, step_is_right

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
PRIME = (DOCS / "prime.md").read_text()


def script(path: str) -> ModuleType:
    """A file outside the package, as a module."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line in the shell blocks."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def section(text: str, heading: str) -> str:
    """What stands below the heading that begins so, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}.*?\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def first_cells(text: str) -> list[str]:
    """The first column of a table, without its head."""
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]


def anchors(page: Path) -> set[str]:
    """The names that headings get on GitHub: lower case, punctuation dropped, spaces as hyphens."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    missing = []
    for target in targets:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert not missing


CONFIGURED = [(page.name, words) for page in PAGES for words in commands(page) if words[:1] == ["prmkit"]]


@pytest.mark.parametrize(("page", "words"), CONFIGURED, ids=lambda value: value if isinstance(value, str) else None)
def test_every_prmkit_command_in_the_docs_parses(
    page: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    if words[1] == "report":  # takes folders that a reader will have
        assert [word for word in words[2:] if word.startswith("-")] in ([], ["--out"])
        return
    assert main([*words[1:], *([] if "--dry-run" in words else ["--dry-run"])]) == 0, capsys.readouterr().err
    assert tomllib.loads(capsys.readouterr().out)


def test_the_docs_show_commands_of_every_verb() -> None:
    assert {words[1] for _, words in CONFIGURED} >= {"sft", "rl", "eval", "report", "demo", "train"}


def test_make_targets_scripts_and_extras_in_the_docs_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        for words in commands(page):
            if words[0] == "make":
                assert words[1] in targets
            if words[0] == "python":
                assert (ROOT / words[1]).exists()
            for word in words:
                for named in re.findall(r"^\.\[([\w,]+)\]$", word):
                    assert set(named.split(",")) <= set(extras)


def test_the_torch_that_the_readme_installs_is_the_pinned_one() -> None:
    pinned = re.findall(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    named = re.findall(r"torch==\S+", (ROOT / "README.md").read_text())
    assert named == pinned


TOML_BLOCKS = [(page.name, block) for page in PAGES for block in blocks(page, "toml")]
VERB_OF_PAGE = {"url_models.md": "eval", "data_prepare.md": "data prepare"}
"""Pages whose blocks are not of `prmkit rl`."""


@pytest.mark.parametrize(("page", "block"), TOML_BLOCKS)
def test_every_toml_block_is_a_configuration(page: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(block)
    verb = VERB_OF_PAGE.get(page, "rl")
    parse(verb, load(VERBS[verb][0]), [str(file)], load(PRESETS_OF[verb]) if verb in PRESETS_OF else None)


SHIPPED = sorted((ROOT / "configs").rglob("*.toml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_shipped_configuration_parses_and_is_in_the_docs(file: Path) -> None:
    verb = file.parent.name.replace("_", " ")
    parse(verb, load(VERBS[verb][0]), [str(file)], load(PRESETS_OF[verb]) if verb in PRESETS_OF else None)
    assert any(str(file.relative_to(ROOT)) in page.read_text() for page in PAGES)


def test_python_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out == "grpo step estimator\n"


def test_demonstrations_in_the_docs_are_read(tmp_path: Path) -> None:
    (block,) = blocks(DOCS / "data.md", "json")
    file = tmp_path / "demonstrations.jsonl"
    file.write_text(block)
    (first, a), (second, b) = read_demonstrations(file)
    assert (first.messages, a) == (second.messages, b)


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("`[algorithm]`", Algorithm),
        ("`[algorithm.outcome]`", Outcome),
        ("`[algorithm.process]`", Process),
        ("`[algorithm.filter]`", Filter),
        ("`[algorithm.kl]`", KL),
    ],
)
def test_prime_page_has_every_option_with_its_default(heading: str, cls: type) -> None:
    hints = get_type_hints(cls)
    real = {f.name: json.dumps(f.default) for f in fields(cls) if not is_dataclass(hints[f.name])}
    rows = [line.split("|")[1:3] for line in section(PRIME, heading).splitlines() if line.startswith("| `")]
    assert {name.strip(" `"): default.strip(" `") for name, default in rows} == real


def test_prime_page_has_every_choice_of_every_option() -> None:
    for cls in (Algorithm, Process, Filter, KL):
        for hint in get_type_hints(cls).values():
            for choice in getattr(hint, "__args__", ()):
                assert not isinstance(choice, str) or f"`{choice}`" in PRIME, choice


@pytest.mark.parametrize(("file", "heading"), [("docs/prime.md", "Presets"), ("README.md", "Methods")])
def test_presets_are_all_named(file: str, heading: str) -> None:
    cells = first_cells(section((ROOT / file).read_text(), heading))
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(PRESETS)


def test_process_baselines_are_all_named() -> None:
    choices = get_type_hints(Process)["baseline"].__args__
    assert sorted(first_cells(section(PRIME, "Process baselines"))) == sorted(f"`{choice}`" for choice in choices)


def test_configuration_page_is_up_to_date() -> None:
    reference = script("scripts/config_reference.py")
    assert reference.PAGE.read_text() == reference.page(), "run: python scripts/config_reference.py"


@pytest.mark.parametrize("verb", ["rl", "sft", "eval"])
def test_configuration_page_names_every_key(verb: str) -> None:
    written = (DOCS / "configuration.md").read_text()
    missing = [key for key in leaf_keys(load(VERBS[verb][0])) if f"| `{key.rpartition('.')[2]}` |" not in written]
    assert not missing


def test_every_metric_is_explained() -> None:
    known = set(re.findall(r"`([\w/]+)`", (DOCS / "data.md").read_text()))
    with_prm = Algorithm(process=Process(coef=1.0, gate="accuracy"), kl=KL(coef=0.1, where="reward"))
    seen = set()
    for algorithm in (with_prm, Algorithm(advantage="gae")):
        algorithm = replace(algorithm, filter=Filter(enabled=False))
        config = rl_config(algorithm)
        clock = Clock()
        result = one_step(config, clock.roles(make_roles(config)))
        seen |= set(step_metrics(result, first_error_step, algorithm)) | {f"time/{name}" for name in clock.seconds}
    totals = {"step/rollouts", "step/tokens"}  # become the running totals `rollouts` and `num_tokens`
    assert seen - totals <= known


def test_words_of_the_workplace_are_not_in_the_docs() -> None:
    for page in [*PAGES, *SHIPPED, *(ROOT / "examples").glob("*.py")]:
        assert not re.search(r"/tmp/|TODO|FIXME", page.read_text()), page


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return script("examples/own_process_reward.py")


def test_example_rewards_the_steps_that_are_right(example: ModuleType) -> None:
    """Its rewards come from tokens alone; here they are compared with the truth of the sampled text."""
    config = replace(rl_config(replace(RLOO, filter=Filter(enabled=False))), task=TASK)
    config = replace(config, model=replace(config.model, path=str(taught_model())), prm_path="")
    roles = make_roles(config, CoinVerifier())
    algorithm: Any = replace(config.algorithm, process=example.STEPWISE)
    tokenizer = roles.sampler.tokenizer  # type: ignore[attr-defined]
    stepwise = replace(config, algorithm=algorithm)
    result = one_step(stepwise, replace(roles, prm=example.TrueSteps(tokenizer=tokenizer)))
    members = [(group.prompt, member) for group in result.collected.kept for member in group.members]
    right = [float(sum(step_is_right(prompt, member.rollout.text))) for prompt, member in members]
    assert result.process is not None
    assert result.process.reward_BT.sum(1).tolist() == right
    assert len(set(right)) > 1
    assert result.metrics["advantage/process_std"] > 0


def test_example_runs(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "TASK", TASK)
    assert (example.fine_tuned(tmp_path, steps=2) / "config.json").is_file()
    before, after = example.accuracies(taught_model(), replace(RLOO, process=example.STEPWISE), 1)
    assert 0 < before < 1
    assert 0 < after < 1
    assert before != after
