"""Evaluation with a sampler and a verifier that follow a script: what is counted, what is left out, what is written."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import platform
import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import prmkit
from prmkit.cli.evaluate_tables import notes, tables
from prmkit.cli.parse import parse
from prmkit.config import ModelConfig, VerifierConfig
from prmkit.config_io import from_dict, to_toml
from prmkit.data.types import FinishReason, Group, Message, Prompt, Rollout, SamplingParams, Verdict
from prmkit.errors import CheckpointError, ConfigError, DataError, VerifierError
from prmkit.evaluate.accuracy import Interval, clustered, wilson
from prmkit.evaluate.config import EvalConfig
from prmkit.evaluate.names import model_title
from prmkit.evaluate.needs import check_fields
from prmkit.evaluate.run import (
    EvaluationResult,
    data_hash,
    evaluate_policy,
    evaluate_questions,
    git_commit,
    question_seed,
    write_result,
)
from prmkit.evaluate.summary import pass_at, result_json

PARAMS = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=8, stop=(";",))
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def prompt(name: str, answer: str = "7") -> Prompt:
    return Prompt(id=name, messages=(Message(role="user", content=f"{name}?"),), answer=answer)


def rollout(prompt_id: str, text: str, finish: FinishReason = "stop") -> Rollout:
    """One token a character."""
    length = len(text)
    return Rollout(
        prompt_id=prompt_id,
        prompt_token_ids=(1,),
        token_ids=tuple(map(ord, text)),
        logprobs=(0.0,) * length,
        token_ends=tuple(range(1, length + 1)),
        text=text,
        finish=finish,
    )


@dataclass
class ScriptedSampler:
    """Says what the script has for the prompt; `...` at the end means cut at max_tokens, `!` that the sampler failed."""

    sampled: Mapping[str, Sequence[str]]
    greedy: Mapping[str, str] = field(default_factory=dict)
    calls: list[tuple[tuple[str, ...], int, SamplingParams, int]] = field(default_factory=list)

    def sample(self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seed: int) -> list[Group[Rollout]]:
        self.calls.append((tuple(p.id for p in prompts), n, params, seed))
        groups = []
        for p in prompts:
            texts = [self.greedy[p.id]] if params.temperature == 0 else self.sampled[p.id][:n]
            groups.append(Group(prompt=p, members=[rollout(p.id, text, self._finish(text)) for text in texts]))
        return groups

    def _finish(self, text: str) -> FinishReason:
        return "length" if text.endswith("...") else "error" if text.endswith("!") else "stop"


class GuessingSampler:
    """Right with probability 1/2, by the seed."""

    def sample(self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seed: int) -> list[Group[Rollout]]:
        rng = random.Random(seed)
        guess = [[rollout(p.id, p.answer if rng.random() < 0.5 else "0") for _ in range(n)] for p in prompts]
        return [Group(prompt=p, members=members) for p, members in zip(prompts, guess, strict=True)]


class EqualityVerifier:
    """1 for the answer, 0.5 with a `~` before it, undecided for `?`, a missed deadline for `slow`, else 0."""

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        return [self._verdict(p.answer, text) for p, text in responses]

    def _verdict(self, answer: str, text: str) -> Verdict:
        if text == "?":
            return Verdict(status="unparsed", reward=None, detail="no number in '?'")
        if text == "slow":
            return Verdict(status="timeout", reward=None, detail="5 s")
        return Verdict(status="ok", reward={answer: 1.0, f"~{answer}": 0.5}.get(text, 0.0))


class MuteVerifier:
    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        return []


PROMPTS = [prompt("a"), prompt("b"), prompt("c"), prompt("d")]
SCRIPT = {"a": ["7", "7", "1"], "b": ["7", "?", "slow"], "c": ["?", "?", "7!"], "d": ["12...", "0", "~7"]}
GREEDY = {"a": "7", "b": "?", "c": "7", "d": "1"}


def scripted(batch_size: int = 4, greedy: bool = True) -> EvaluationResult:
    return evaluate_questions(
        ScriptedSampler(SCRIPT, GREEDY),
        EqualityVerifier(),
        PROMPTS,
        samples=3,
        params=PARAMS,
        seed=0,
        greedy=greedy,
        batch_size=batch_size,
    )


@pytest.mark.parametrize("batch_size", [1, 3, 4, 9])
def test_what_is_counted_and_what_is_left_out(batch_size: int) -> None:
    found = scripted(batch_size).accuracy
    # a: 2/3; b: 1/1, two undecided; c: none decided (its right one was never finished by the sampler); d: 0, 0, 0.5 -> 1/6
    assert found.sampled == clustered([[1, 1, 0], [1], [0, 0, 0.5]])
    assert found.sampled.mean == pytest.approx((2 / 3 + 1 + 1 / 6) / 3)
    assert found.sampled.num == 3
    assert found.greedy == wilson(2, 3)  # a and c right, d wrong, b undecided
    assert found.undecided == 2 + 3 + 1
    assert found.undecided_questions == 1
    assert found.truncated_share == pytest.approx(1 / 11)  # of those that were sampled
    # tokens: a 3, b 1 + 1 + 4, c 1 + 1 (its third was not sampled), d 5 + 1 + 2
    assert found.mean_length == pytest.approx(19 / 11)
    assert found.tokens_per_second > 0


def test_questions_keep_their_responses_in_order() -> None:
    questions = scripted(3).questions
    assert [q.prompt.id for q in questions] == ["a", "b", "c", "d"]
    assert [[m.text for m in q.sampled] for q in questions] == list(SCRIPT.values())
    assert [q.greedy.text for q in questions if q.greedy is not None] == list(GREEDY.values())
    assert [m.verdict.status for m in questions[1].sampled] == ["ok", "unparsed", "timeout"]


def test_undecided_answers_move_the_mean_neither_way() -> None:
    def mean(texts: list[str]) -> float:
        sampler = ScriptedSampler({"a": texts, "b": ["0", "0"]})
        return evaluate_policy(
            sampler, EqualityVerifier(), PROMPTS[:2], samples=9, params=PARAMS, seed=0, greedy=False
        ).sampled.mean

    assert mean(["7", "1", "?", "slow", "?"]) == mean(["7", "1"]) == 0.25


def test_without_greedy_there_is_no_greedy_number() -> None:
    found = scripted(greedy=False)
    assert found.accuracy.greedy is None
    assert all(question.greedy is None for question in found.questions)


def test_greedy_responses_that_cannot_be_judged_give_no_number() -> None:
    sampler = ScriptedSampler({"a": ["7"]}, {"a": "?"})
    found = evaluate_policy(sampler, EqualityVerifier(), PROMPTS[:1], samples=1, params=PARAMS, seed=0)
    assert found.greedy is None
    assert (found.sampled, found.undecided) == (wilson(1, 1), 1)


def test_a_call_of_the_sampler_for_each_question_and_one_greedy_call_for_each_batch() -> None:
    sampler = ScriptedSampler(SCRIPT, GREEDY)
    done: list[list[str]] = []
    evaluate_questions(
        sampler,
        EqualityVerifier(),
        PROMPTS,
        samples=3,
        params=PARAMS,
        seed=0,
        greedy=True,
        batch_size=3,
        on_questions=lambda questions: done.append([question.prompt.id for question in questions]),
    )
    greedy = SamplingParams(temperature=0.0, top_p=1.0, max_tokens=8, stop=(";",))
    assert [call[:3] for call in sampler.calls] == [
        (("a",), 3, PARAMS),
        (("b",), 3, PARAMS),
        (("c",), 3, PARAMS),
        (("a", "b", "c"), 1, greedy),
        (("d",), 3, PARAMS),
        (("d",), 1, greedy),
    ]
    assert done == [["a", "b", "c"], ["d"]]


@dataclass
class BatchingSampler(ScriptedSampler):
    """Takes a seed for each prompt, so a batch is one call."""

    seeds: list[tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=list)

    def sample_each(
        self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seeds: Sequence[int]
    ) -> list[Group[Rollout]]:
        self.seeds.append((tuple(p.id for p in prompts), tuple(seeds)))
        return self.sample(prompts, n=n, params=params, seed=0)


def batched(prompts: Sequence[Prompt], done: EvaluationResult | None = None, seed: int = 5) -> BatchingSampler:
    """What is asked of a sampler that works in batches of 3, where `done` is judged already."""
    sampler = BatchingSampler(SCRIPT, GREEDY)
    known = {question.prompt.id: question for question in done.questions} if done else {}
    known.pop("b", None)
    result = evaluate_questions(
        sampler,
        EqualityVerifier(),
        prompts,
        samples=3,
        params=PARAMS,
        seed=seed,
        greedy=False,
        batch_size=3,
        done=known,
    )
    assert [question.prompt.id for question in result.questions] == [p.id for p in prompts]
    return sampler


def test_the_seed_of_a_question_follows_its_id_and_not_its_place() -> None:
    seeds = {p.id: question_seed(5, p.id) for p in PROMPTS}
    assert len(set(seeds.values())) == 4
    assert question_seed(6, "a") != seeds["a"]
    for order in (PROMPTS, PROMPTS[::-1]):
        for ids, given in batched(order).seeds:
            assert given == tuple(seeds[name] for name in ids)


def test_greedy_seeds_follow_the_question_too() -> None:
    for size in (1, 3, 4):
        sampler = BatchingSampler(SCRIPT, GREEDY)
        evaluate_questions(
            sampler, EqualityVerifier(), PROMPTS, samples=3, params=PARAMS, seed=5, greedy=True, batch_size=size
        )
        greedy = {pair for ids, given in sampler.seeds[1::2] for pair in zip(ids, given, strict=True)}
        assert greedy == {(p.id, question_seed(5, p.id)) for p in PROMPTS}


def test_a_batch_with_a_missing_question_is_sampled_whole_and_a_finished_one_not_at_all() -> None:
    # b is missing: its batch a, b, c is asked again so that it shares its forward pass with the same questions
    assert [ids for ids, _ in batched(PROMPTS, done=scripted()).seeds] == [("a", "b", "c")]


def test_questions_of_one_id_are_refused() -> None:
    with pytest.raises(DataError, match="2 prompts have the id 'a'; questions are told apart by it"):
        batched([*PROMPTS, prompt("a")])


def guessed(seed: int) -> list[str]:
    prompts = [prompt(str(i)) for i in range(20)]
    result = evaluate_questions(
        GuessingSampler(), EqualityVerifier(), prompts, samples=4, params=PARAMS, seed=seed, greedy=False, batch_size=8
    )
    return [m.text for question in result.questions for m in question.sampled]


def test_the_seed_decides_the_responses() -> None:
    assert guessed(1) == guessed(1)
    assert guessed(1) != guessed(2)


def test_no_prompts_and_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match=r"no test prompts to evaluate on; set task\.test"):
        evaluate_policy(GuessingSampler(), EqualityVerifier(), [], samples=1, params=PARAMS, seed=0)
    with pytest.raises(ConfigError, match="samples = 0, but at least 1"):
        evaluate_policy(GuessingSampler(), EqualityVerifier(), PROMPTS, samples=0, params=PARAMS, seed=0)


def test_when_nothing_can_be_judged_there_is_no_accuracy() -> None:
    sampler = ScriptedSampler({"a": ["?", "slow"], "b": ["?", "7!"]})
    with pytest.raises(VerifierError) as caught:
        evaluate_policy(sampler, EqualityVerifier(), PROMPTS[:2], samples=2, params=PARAMS, seed=0, greedy=False)
    assert str(caught.value).startswith(
        "none of 4 sampled responses could be judged (not_sampled 1, timeout 1, unparsed 2), so there is no accuracy. "
        "The first, of prompt 'a': no number in '?'."
    )


def test_a_verifier_that_leaves_answers_out_is_named() -> None:
    with pytest.raises(VerifierError, match="gave 0 verdicts for 5 responses"):
        evaluate_policy(GuessingSampler(), MuteVerifier(), PROMPTS[:1], samples=4, params=PARAMS, seed=0)


def test_pass_at_k_over_questions() -> None:
    questions = scripted().questions
    # k = 1: a 2/3, b 1/1, d 0 of 3 (a reward of 0.5 is not right); c has no judged sample
    once = pass_at(questions, 1)
    assert once is not None
    assert once.mean == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert once.num == 3
    # k = 2: b has only one judged sample; a: 1 - C(1,2)/C(3,2) = 1
    assert pass_at(questions, 2) == clustered([[1.0], [0.0]])
    assert pass_at(questions, 3) == clustered([[1.0], [0.0]])
    assert pass_at(questions, 4) is None


def result_of(config: EvalConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(result_json(config, scripted(), TEMPLATE), allow_nan=False))
    return found


def test_the_result_says_what_made_the_number() -> None:
    config = EvalConfig(samples=3, seed=11, sampling=PARAMS)
    found = result_of(config)
    assert found["verdicts"] == {
        "sampled": {"ok": 7, "unparsed": 3, "timeout": 1, "not_sampled": 1},
        "greedy": {"ok": 3, "unparsed": 1},
    }
    accuracy = scripted().accuracy
    assert Interval(**found["accuracy"]["sampled"]) == accuracy.sampled
    assert Interval(**found["accuracy"]["greedy"]) == accuracy.greedy
    assert found["accuracy"]["truncated_share"] == accuracy.truncated_share
    assert (found["confidence"], found["seed"], found["num_questions"]) == (0.95, 11, 4)
    assert sorted(found["pass_at_k"]) == ["1", "2", "3"]
    assert found["avg_at_k"] == {"3": found["accuracy"]["sampled"]}
    # means of the questions 2/3, 1, 1/6: variance 0.1759.., over 3 questions
    assert found["standard_error"] == pytest.approx(0.2421610524)
    assert found["truncation"] == {"max_tokens": 8, "sampled_share": pytest.approx(1 / 11), "greedy_share": 0.0}
    assert "tokens_per_second" not in found["accuracy"], "a result holds nothing of the clock"
    assert from_dict(EvalConfig, found["config"], "result") == config
    assert found["versions"]["prmkit"] == prmkit.__version__
    assert found["versions"]["python"] == platform.python_version()
    assert set(found["versions"]) == {"prmkit", "python", "torch", "transformers"}
    assert found["data_sha256"] == data_hash(PROMPTS)
    assert found["prompt_template_sha256"] == hashlib.sha256(TEMPLATE.encode()).hexdigest()


def test_the_terminal_says_how_many_questions_each_number_is_of() -> None:
    # a, b and d have a judged sample; a and d have two; b was judged once; the one response of d is cut, of 11 that came
    found = result_of(EvalConfig(samples=3, sampling=PARAMS))
    console = Console(width=150, file=io.StringIO())
    accuracy, at_k = tables(scripted(), found)
    assert accuracy.title == "tiny"
    console.print(at_k)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    passes = {cells[0]: cells[1] for cells in lines if cells}
    assert passes["1"].endswith("] (3)")
    assert passes["2"].endswith("] (2)")
    assert any("cut at max_tokens = 8" in note and note.startswith("9.1%") for note in notes(found))


def test_the_result_names_what_was_used_and_nothing_else() -> None:
    judging = {"math": {"math-verify": "9", "sympy": "8"}, "0.function": {"source": "ab", "function": "f:g"}}
    config = EvalConfig(samples=3, model=ModelConfig(url="http://10.0.0.1:8000/v1", name="big/model"))
    found = json.loads(json.dumps(result_json(config, scripted(), "", more={"verifier": judging})))
    assert set(found["versions"]) == {"prmkit", "python", "math-verify", "sympy"}
    assert set(found["config"]["model"]) == {"url", "name", "server"}
    assert from_dict(EvalConfig, found["config"], "result") == config
    narrow = Console(width=60, file=io.StringIO())
    narrow.print(next(iter(tables(scripted(), found))))
    assert "big/model at 10.0.0.1:8000" in narrow.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "model", "title"),
    [
        ({"url": "http://h:8/v1", "name": ""}, {"name": "found"}, "found at h:8"),
        ({"url": "http://h:8/v1", "name": ""}, {}, "h:8"),
        ({"path": "runs/a", "url": ""}, {}, "runs/a"),
        (
            {"path": f"/{'long/' * 12}models/smollm2-135m-instruct"},
            {},
            "\u2026/" + "long/" * 6 + "models/smollm2-135m-instruct",
        ),
        ({"path": f"/a/{'b' * 80}"}, {}, "\u2026/" + "b" * 80),
    ],
)
def test_a_model_is_called_by_its_name(config: dict[str, str], model: dict[str, str], title: str) -> None:
    assert model_title(config, model) == title


@pytest.mark.parametrize(
    ("values", "prompts", "message"),
    [
        (
            {"use": "code"},
            [prompt("a")],
            'verifier.use = "code" runs programs against tests, and none of 1 prompts has any',
        ),
        (
            {"use": "math"},
            [prompt("a", " "), prompt("b", "")],
            'verifier.use = "math" compares .* none of 2 prompts has one',
        ),
        ({"parts": [{"use": "qa"}]}, [prompt("a", "")], r'verifier.parts\[0\].use = "qa" compares with a reference'),
        ({}, [prompt("a", "")], 'verifier.use = "math" compares with a reference'),
    ],
)
def test_a_verifier_that_could_judge_nothing_is_refused(
    values: dict[str, Any], prompts: list[Prompt], message: str
) -> None:
    config = from_dict(VerifierConfig, values, "verifier")
    with pytest.raises(ConfigError, match=message):
        check_fields(config, prompts)
    whole = dataclasses.replace(prompt("z"), meta={"tests": {"inputs": ["1"], "outputs": ["2"]}})
    check_fields(config, [*prompts, whole])  # one that has the field is enough


def test_the_result_holds_every_response() -> None:
    rows = result_of(EvalConfig(samples=3))["questions"]
    assert [row["prompt_id"] for row in rows] == ["a", "b", "c", "d"]
    assert rows[3]["sampled"][0] == {
        "text": "12...",
        "num_tokens": 5,
        "finish": "length",
        "extracted": None,
        "status": "ok",
        "reward": 0.0,
        "detail": "",
    }
    assert rows[2]["sampled"][2]["status"] == "not_sampled", "as the counts of verdicts call it"
    assert rows[1]["greedy"]["reward"] is None
    assert rows[1]["greedy"]["detail"] == "no number in '?'"


@pytest.mark.parametrize(
    "changed",
    [
        [prompt("a"), prompt("c"), prompt("b"), prompt("d")],
        PROMPTS[:3],
        [*PROMPTS[:3], prompt("d", answer="8")],
        [*PROMPTS[:3], Prompt(id="d", messages=(Message(role="system", content="d?"),), answer="7")],
        [*PROMPTS[:3], dataclasses.replace(PROMPTS[3], meta={"tests": {"inputs": ["1"], "outputs": ["2"]}})],
        [*PROMPTS[:3], dataclasses.replace(PROMPTS[3], task="qa")],
    ],
    ids=["order", "number", "answer", "role", "tests", "task"],
)
def test_the_data_hash_sees_every_change(changed: list[Prompt]) -> None:
    assert data_hash(PROMPTS) == data_hash(list(PROMPTS))
    assert data_hash(changed) != data_hash(PROMPTS)


def test_the_data_hash_is_that_of_the_values_and_not_of_their_order() -> None:
    one, other = (
        {"tests": [1], "categories": {"a": "x", "b": "y"}},
        {"categories": {"b": "y", "a": "x"}, "tests": [1]},
    )
    assert data_hash([dataclasses.replace(PROMPTS[0], meta=one)]) == data_hash(
        [dataclasses.replace(PROMPTS[0], meta=other)]
    )


def test_a_result_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    write_result(path, {"accuracy": 0.5})
    write_result(path, {"accuracy": 0.75, "text": "\u00bd"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"accuracy": 0.75, "text": "\u00bd"}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_result_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"result\.json: the result could not be written: .* set out to another"):
        write_result(tmp_path / "file" / "result.json", {})
    folder = tmp_path / "result.json"
    folder.mkdir()
    with pytest.raises(CheckpointError, match="could not be written"):
        write_result(folder, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "result.json"]


def git(folder: Path, *args: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_commit_is_that_of_tracked_code_only(tmp_path: Path) -> None:
    package, installed = tmp_path / "src", tmp_path / "venv"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "__init__.py").write_text("x = 1\n")
    assert git_commit(package) is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert git_commit(package) == commit
    assert git_commit(installed) is None
    (package / "__init__.py").write_text("x = 2\n")
    assert git_commit(package) == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompts": -1}, "prompts = -1, but it is a number of prompts; 0 uses all"),
        ({"samples": 0}, "samples = 0, but at least 1 response per prompt is needed"),
        ({"batch_size": 0}, "batch_size = 0, but at least 1 prompt is needed"),
        ({"out": "results/"}, r'out = "results/", but the result is a JSON file'),
        ({"out": "a.json", "html": "a"}, 'html = "a", but the page is an HTML file'),
        ({"html": "a.html"}, "html is set, but out is empty"),
        (
            {"template": "boxed", "task": {"format": "actions"}},
            'template = "boxed" and task.format = "actions" both say',
        ),
        ({"sampling": {"temperature": 0.0}}, "sampling.temperature = 0 makes all samples of a prompt equal"),
        ({"sampling": {"temperature": 0.0}, "samples": 1}, "set samples = 1 and greedy = false"),
        ({"sampling": {"top_p": 0.0}}, r"\[sampling\] top_p must be in \(0, 1\]"),
        ({"sampling": {"top_p": math.nan}}, r"\[sampling\] top_p must be in \(0, 1\]"),
        ({"sampling": {"temperature": math.nan}}, r"\[sampling\] temperature must be >= 0 .* and finite, got nan"),
        ({"sampling": {"temperature": math.inf}}, r"\[sampling\] temperature must be >= 0 .* and finite, got inf"),
        ({"sampling": {"stop": [""]}}, r"\[sampling\] stop has an empty string"),
        ({"sample": 4}, 'unknown key "sample"; did you mean "samples"'),
    ],
)
def test_a_configuration_that_cannot_run_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(EvalConfig, values, "eval.toml")


def test_greedy_accuracy_alone_can_be_asked_for() -> None:
    words = ["--sampling.temperature", "0", "--samples", "1", "--greedy", "false", "--out", "runs/eval.json"]
    config = parse("eval", EvalConfig, words, None).config
    assert (config.sampling.temperature, config.samples, config.greedy) == (0.0, 1, False)
    assert from_dict(EvalConfig, {}, "empty") == EvalConfig()
    assert 'out = "runs/eval.json"' in to_toml(config)
