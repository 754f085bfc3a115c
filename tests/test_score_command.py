"""`prmkit score` with real models, as a user meets it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prm_models import classifier, language_model
from rl_setup import At, Done, commands
from safetensors.torch import load_file, save_file
from score_setup import lines

from prmkit import load_prm
from prmkit.cli.main import main
from prmkit.cli.score import resolved_spec
from prmkit.data.formats import read_solutions, write_solutions
from prmkit.data.prm_spec import PRMSpec, write_spec
from prmkit.data.types import Message, Prompt, Solution, StepRewards
from prmkit.errors import ConfigError, ModelError
from prmkit.evaluate.score_config import PRMOverrides


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An implicit PRM, its reference, and another model."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("policy", "reference", "other")):
        language_model(root / name, seed=seed)
    write_spec(root / "policy", PRMSpec(family="implicit", reference="../reference", beta=0.05))
    write_spec(root / "other", PRMSpec(family="log_prob"))
    return root


def solutions(num: int) -> list[Solution]:
    return [
        Solution(
            id=f"s{n}",
            prompt=Prompt(id=f"p{n}", messages=(Message(role="user", content=f"What is {n}+1?"),), answer=str(n + 1)),
            steps=tuple(f"Step {k} of {n}" + "!" * ((5 * n + k) % 13) for k in range(1 + n % 4)),
            separator="\n",
            labels=tuple(1.0 for _ in range(1 + n % 4)),
            outcome=float(n % 2),
        )
        for n in range(num)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    write_solutions(path, solutions(20))
    return path


def words(models: Path, source: Path, *more: str, model: str = "policy") -> list[str]:
    out = source.with_name("scores.jsonl")
    return [
        "score",
        f"--model={models / model}",
        f"--source={source}",
        f"--out={out}",
        "--window=6",
        "--device=cpu",
        *more,
    ]


def score(models: Path, source: Path, *more: str, model: str = "policy", at: At | None = None) -> Done:
    return commands().run(*words(models, source, *more, model=model), cwd=source.parent, watch=source.parent, at=at)


def replace_line(path: Path, number: int, text: str) -> None:
    rows = path.read_text(encoding="utf-8").split("\n")
    rows[number - 1] = text
    path.write_text("\n".join(rows), encoding="utf-8")


def test_scores_are_the_loaders_own(models: Path, source: Path) -> None:
    assert main(words(models, source)) == 0
    prm = load_prm(models / "policy", device="cpu")
    for solution, row in zip(solutions(20), lines(source.with_name("scores.jsonl")), strict=True):
        expected = prm.score_all([solution])[0]
        assert row["id"] == solution.id
        assert row["rewards"] == pytest.approx(list(expected.values), abs=1e-5)  # type: ignore[union-attr]
        assert row["aggregates"]["sum"] == pytest.approx(math.fsum(row["rewards"]))
        assert (row["kind"], row["model"]) == ("log_ratio", str(models / "policy"))
    meta = json.loads(source.with_name("scores.jsonl.meta.json").read_text())
    assert meta["spec"]["beta"] == 0.05
    assert set(meta["weights_sha256"]) == {"model", "reference"}
    assert (meta["rows"], meta["scored"], meta["failed"]) == (20, 20, 0)


def test_token_rewards_go_into_the_file_and_are_gone_on_with(
    models: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of seven rows, then all twenty: in the bytes of one run, and the file is still a source and a page."""
    out, whole = source.with_name("scores.jsonl"), source.with_name("whole.jsonl")
    assert main(words(models, source, "--token-rewards=true", f"--out={whole}")) == 0
    assert main(words(models, source, "--token-rewards=true", "--limit=7")) == 0
    assert main(words(models, source)) != 0
    assert "token_rewards: true then, false now" in capsys.readouterr().err
    assert main(words(models, source, "--token-rewards=true", f"--html={source.with_name('page.html')}")) == 0
    assert out.read_bytes() == whole.read_bytes()
    few = source.with_name("few.jsonl")
    assert main(words(models, source, "--token-rewards=true", "--texts=false", f"--out={few}")) == 0
    prm = load_prm(models / "policy", device="cpu", token_rewards=True)
    for solution, row, bare in zip(solutions(20), lines(out), lines(few), strict=True):
        expected = prm.score_all([solution])[0]
        assert isinstance(expected, StepRewards)
        assert expected.tokens is not None
        assert row["token_rewards"] == pytest.approx(list(expected.tokens.values), abs=1e-5)
        assert math.fsum(row["token_rewards"]) == pytest.approx(row["aggregates"]["sum"])
        assert ["".join(row["tokens"])] == [solution.text]
        assert row["token_ends"][-1] == len(solution.text)
        assert row["step_of_token"] == list(expected.tokens.step_of_token)
        assert "tokens" not in bare
        assert {key: bare[key] for key in ("token_rewards", "token_ends")} == {
            key: row[key] for key in ("token_rewards", "token_ends")
        }
    assert read_solutions(out) == solutions(20)


def test_a_file_begun_before_there_were_token_rewards_is_gone_on_with(models: Path, source: Path) -> None:
    assert main(words(models, source, "--limit=7")) == 0
    sidecar = source.with_name("scores.jsonl.meta.json")
    meta = json.loads(sidecar.read_text())
    del meta["token_rewards"]
    sidecar.write_text(json.dumps(meta))
    assert main(words(models, source)) == 0
    assert not {"token_rewards", "tokens"} & set(lines(source.with_name("scores.jsonl"))[-1])


def test_a_classifier_has_no_token_rewards(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier(tmp_path / "prm")
    assert main(words(tmp_path, source, "--token-rewards=true", model="prm")) != 0
    assert "the family token_classification, which gives one number a step" in capsys.readouterr().err
    assert not source.with_name("scores.jsonl.meta.json").exists()


@pytest.mark.slow
def test_killed_before_any_write_it_goes_on_to_the_same_bytes(models: Path, source: Path) -> None:
    replace_line(source, 8, "not JSON")
    whole = score(models, source)
    assert whole.code == 1
    assert "error: 1 of 20 rows have no score" in whole.complaint()
    files = [source.with_name(f"scores.jsonl{ending}") for ending in ("", ".errors.jsonl", ".meta.json")]

    def written() -> list[Any]:
        meta = json.loads(files[2].read_text())
        del meta["written_by"]  # the commit: of the checkout, which may change meanwhile
        return [files[0].read_bytes(), files[1].read_bytes(), meta]

    expected = written()
    # meta, 4 windows and one error, the counts
    assert len(whole.writes) >= 9
    for write in range(0, len(whole.writes), 3):
        for path in files:
            path.unlink(missing_ok=True)
        assert score(models, source, at=At(write=write)).code == -9
        assert score(models, source).code == 1
        assert written() == expected


def test_a_complete_file_is_left_as_it_is(models: Path, source: Path) -> None:
    assert score(models, source).code == 0
    again = score(models, source)
    assert (again.code, again.writes) == (0, [])
    assert "complete, nothing to do" in again.out
    assert "20 of 20 rows scored" in again.out.splitlines()[-1]


def test_a_limit_can_be_raised(models: Path, source: Path) -> None:
    out = source.with_name("scores.jsonl")
    assert score(models, source, "--limit=7").code == 0
    assert len(lines(out)) == 7
    assert score(models, source).code == 0
    assert [row["id"] for row in lines(out)] == [f"s{n}" for n in range(20)]


def test_bad_rows_are_named_and_the_others_scored(models: Path, source: Path) -> None:
    long = solutions(4)[3]
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    replace_line(source, 2, json.dumps({**rows[1], "steps": []}))
    replace_line(source, 5, '{"id": "s4", "prompt": ')
    replace_line(source, 9, json.dumps({**rows[8], "steps": ["word " * 200], "labels": None}))
    replace_line(source, 11, json.dumps({**rows[10], "labels": [1.0] * 9}))
    done = score(models, source)
    assert done.code == 1
    first = f"{source}:2: field 'steps' is empty"
    assert f"4 of 20 rows have no score. The first: {first}" in done.complaint()
    assert (
        f"All reasons are in {source.with_name('scores.jsonl.errors.jsonl')}. The 16 scores are in" in done.complaint()
    )
    errors = {row["line"]: row for row in lines(source.with_name("scores.jsonl.errors.jsonl"))}
    assert sorted(errors) == [2, 5, 9, 11]
    assert "empty" in errors[2]["reason"]
    assert f"{source}:5: not JSON" in errors[5]["reason"]
    assert [errors[line]["id"] for line in sorted(errors)] == ["s1", None, "s8", "s10"]  # line 5 is no JSON
    assert "the context of" in errors[9]["reason"]
    assert "9 labels for 3 steps" in errors[11]["reason"]
    assert len(lines(source.with_name("scores.jsonl"))) == 16
    assert long.id in {row["id"] for row in lines(source.with_name("scores.jsonl"))}
    again = score(models, source)
    assert (again.code, again.writes) == (1, [])  # nothing is done twice


def test_steps_in_one_text_are_a_row_error(models: Path, source: Path) -> None:
    row = json.loads(source.read_text().splitlines()[2])
    replace_line(source, 3, json.dumps({**row, "steps": "Step 1: a\n\nStep 2: b", "labels": None}))
    assert score(models, source).code == 1
    (error,) = lines(source.with_name("scores.jsonl.errors.jsonl"))
    assert (error["line"], error["id"]) == (3, "s2")
    assert error["reason"].startswith(f"{source}:3: field 'steps' is one text")
    assert "write it as a list, such as" in error["reason"]


def test_a_model_that_says_nan_scores_nothing(models: Path, source: Path, tmp_path: Path) -> None:
    language_model(tmp_path / "broken", seed=5)
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    norm = next(name for name in weights if name.endswith("model.norm.weight"))
    weights[norm] = weights[norm] * math.nan
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    done = score(tmp_path, source, "--prm.family=log_prob", f"--html={tmp_path / 'page.html'}", model="broken")
    assert done.code == 1
    assert not (tmp_path / "page.html").exists()  # there is nothing to show
    said = done.complaint()
    assert f"20 of 20 rows have no score. The first: {source}:1: solution 's0': the reward of step 1 is nan" in said
    assert f"{source.with_name('scores.jsonl.errors.jsonl')}. scores.jsonl was not written" in said
    assert "the reward of step 1 is nan" in lines(source.with_name("scores.jsonl.errors.jsonl"))[0]["reason"]
    assert not source.with_name("scores.jsonl").exists()


def test_an_id_twice_is_refused_before_the_model_is_loaded(models: Path, source: Path) -> None:
    replace_line(source, 6, source.read_text().split("\n")[1])
    done = score(models, source, model="other")
    assert (done.code, done.writes) == (2, [])
    assert "in.jsonl:6: the id 's1' stands on line 2 already" in done.complaint()


def test_another_model_is_refused(models: Path, source: Path) -> None:
    assert score(models, source).code == 0
    done = score(models, source, model="other")
    assert (done.code, done.writes) == (2, [])
    assert "weights_sha256.model" in done.complaint()
    assert 'spec.family: "implicit" then, "log_prob" now' in done.complaint()
    replace_line(source, 1, source.read_text().split("\n")[0].replace("What", "Which"))
    assert "source_sha256" in score(models, source).complaint()
    assert "spec.beta: 0.05 then, 0.5 now" in score(models, source, "--prm.beta=0.5").complaint()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "model is not set"),
        (("--model=none", "--source=none.jsonl", "--out=o.jsonl"), "none.jsonl: no such file"),
    ],
)
def test_what_is_missing_is_said(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_a_model(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, source, model="none")) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_overrides_lie_over_what_the_folder_says(models: Path, tmp_path: Path) -> None:
    def changed(**values: Any) -> PRMSpec:
        return resolved_spec(models / "policy", PRMOverrides(**values))

    known = PRMSpec(family="implicit", reference="../reference", beta=0.05)
    assert changed() == known
    assert changed(beta=2.0, reference="none").beta == 2.0
    assert changed(reference="none").reference == ""
    assert changed(neutral="wrong", prompt="plain").neutral_is_right is False
    assert changed(prompt="plain").chat is False
    shepherd = changed(family="label_tokens", labels=("good", "bad"))
    assert (shepherd.separator, shepherd.labels, shepherd.one_text) == (" ки\n", ("good", "bad"), True)
    templated = changed(family="value_head", prompt="chat")
    assert (templated.chat, templated.after_prompt) == (True, "")  # a template ends the prompt
    assert changed(family="label_turns", prompt="chat").after_prompt == " "
    with pytest.raises(ConfigError, match=r"prm\.beta is for implicit PRMs, and .* is of the family log_prob"):
        resolved_spec(models / "other", PRMOverrides(beta=2.0))
    with pytest.raises(
        ModelError, match=r"does not say what kind .*\. Give --prm\.family FAMILY, FAMILY being one of .*implicit"
    ):
        resolved_spec(models / "reference", PRMOverrides())


def test_the_separator_that_is_recorded_is_the_one_that_was_read(models: Path, source: Path) -> None:
    """The rows have a text of their own between steps; a separator that the user gives wins over it."""
    out = source.with_name("scores.jsonl")
    prm = load_prm(models / "policy", device="cpu")
    assert main(words(models, source, "--prm.separator= ; ")) == 0
    spec = json.loads(out.with_name("scores.jsonl.meta.json").read_text())["spec"]
    assert (spec["separator"], spec["keep_text"]) == (" ; ", False)
    for solution, row in zip(solutions(20), lines(out), strict=True):
        item = replace(solution, separator=" ; ")
        assert row["rewards"] == pytest.approx(list(prm.score_all([item])[0].values), abs=1e-5)  # type: ignore[union-attr]
        assert row["separator"] == "\n"


def test_a_classifier_gives_probabilities_and_a_page(source: Path, tmp_path: Path) -> None:
    classifier(tmp_path / "prm")
    page = tmp_path / "page.html"
    assert main([*words(tmp_path, source, f"--html={page}", model="prm")]) == 0
    row = lines(source.with_name("scores.jsonl"))[3]
    assert row["kind"] == "probability"
    assert all(0 < value < 1 for value in row["rewards"])
    assert row["aggregates"]["prod"] == pytest.approx(math.prod(row["rewards"]))
    assert "probability that it is right" in page.read_text()


def test_the_report_and_the_scores_need_no_more_than_they_say(models: Path, source: Path) -> None:
    assert main(words(models, source, "--texts=false")) == 0
    row = lines(source.with_name("scores.jsonl"))[0]
    assert set(row) == {"id", "solution_sha256", "model", "kind", "rewards", "cumulative", "aggregates"}
