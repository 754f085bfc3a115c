"""Training an outcome model: where values are learned, and that scoring reads them back; AutoPSV's three stages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import TOKENIZER
from prm_models import skywork_model
from rl_setup import digest, micro_model, scratch
from safetensors.torch import load_file
from stepwise_setup import SOLUTIONS, family_folder, outcome_config, solved, stepwise_config
from transformers import AutoModelForCausalLM

import prmkit
import prmkit.train.outcome
from prmkit.config import OptimizerConfig
from prmkit.data.formats import write_solutions
from prmkit.data.prm_spec import PRMSpec, read_spec
from prmkit.data.step_scores import aggregate
from prmkit.data.types import Solution, StepRewards
from prmkit.engines.local.learner import LocalLearner
from prmkit.engines.local.stepwise import Loaded, learner_of, load_outcome, load_stepwise
from prmkit.errors import ConfigError, DataError, ModelError
from prmkit.ops.stepwise_loss import outcome_loss
from prmkit.protocols import Unscored
from prmkit.train.outcome import (
    EncodedOutcome,
    encode_outcomes,
    label_by_confidence,
    outcome_batch,
    train_outcome,
    validate_outcomes,
    validation,
)
from prmkit.train.run_folder import RunFolder
from prmkit.train.stepwise import encode_solutions
from prmkit.train.stepwise_config import OutcomeConfig

FORMS: list[dict[str, Any]] = [{"where": "last"}, {"where": "every", "loss": "mse"}, {"where": "last", "lora_rank": 8}]


def name_of(options: dict[str, Any]) -> str:
    return " ".join(str(value) for value in options.values())


def start(config: OutcomeConfig) -> tuple[LocalLearner, Loaded]:
    loaded = load_outcome(config, scratch())
    return learner_of(loaded, config.optimizer, 0), loaded


def rows_of(config: OutcomeConfig, solutions: Sequence[Solution] = SOLUTIONS) -> Sequence[EncodedOutcome]:
    return encode_outcomes(TOKENIZER, solutions, config, 64).rows


def randomised(loaded: Loaded) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in loaded.model.trainable():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def plain_values(folder: Path, solution: Solution) -> list[float]:
    """sigmoid(w . hidden + b) at each separator, by transformers and the head's file alone; characters are tokens here."""
    text = solution.prompt.messages[0].content + "".join(f"{step};" for step in solution.steps)
    lengths = [len(solution.prompt.messages[0].content), *(len(step) + 1 for step in solution.steps)]
    ends = [sum(lengths[: k + 2]) - 1 for k in range(len(solution.steps))]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    head = load_file(folder / "value_head.safetensors")
    ids = torch.tensor([TOKENIZER(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        hidden_TD = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    found: list[float] = (hidden_TD[ends] @ head["weight"][0] + head["bias"]).sigmoid().tolist()
    return found


@pytest.mark.parametrize("options", FORMS, ids=name_of)
def test_load_prm_reads_the_value_that_was_trained(tmp_path: Path, options: dict[str, Any]) -> None:
    """At each step's last token; the last one's is the outcome reward that `last` aggregates to."""
    config = outcome_config(**options)
    learner, loaded = start(config)
    randomised(loaded)
    learner.save(tmp_path / "orm")
    base = config.model.path if config.model.lora_rank else ""
    assert read_spec(tmp_path / "orm") == PRMSpec(family="value_head", separator=";", chat=False, base=base)
    logit_BT = learner.outputs(outcome_batch(rows_of(config))).output_BT
    prm = prmkit.load_prm(tmp_path / "orm", device="cpu")
    scored = prm.score_all(SOLUTIONS)
    for i, (solution, rewards) in enumerate(zip(SOLUTIONS, scored, strict=True)):
        assert isinstance(rewards, StepRewards)
        assert rewards.values == pytest.approx(plain_values(tmp_path / "orm", solution), abs=2e-6)
        end = len(rows_of(config)[i].token_ids) - 1
        close = 2e-5 if "lora_rank" in options else 2e-6  # merging rounds otherwise
        assert aggregate(rewards, "last") == pytest.approx(float(logit_BT[i, end].sigmoid()), abs=close)
    ends = [rewards.values[-1] for rewards in scored if isinstance(rewards, StepRewards)]
    assert max(ends) - min(ends) > 0.01


def test_a_new_model_says_one_half() -> None:
    logit_BT = start(outcome_config())[0].outputs(outcome_batch(rows_of(outcome_config()))).output_BT
    assert not logit_BT.any()


@pytest.mark.parametrize("options", FORMS, ids=name_of)
def test_micro_batches_do_not_change_what_is_learned(options: dict[str, Any]) -> None:
    found = []
    for tokens in (10_000, 30, 1):
        config = outcome_config(**options)
        loaded = load_outcome(config, scratch())
        randomised(loaded)
        learner = learner_of(loaded, OptimizerConfig(learning_rate=1e-2, tokens_per_microbatch=tokens), 0)
        metrics = learner.update([outcome_batch(rows_of(config))], outcome_loss(config.loss)).metrics
        found.append(metrics)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)
    assert found[0]["grad_norm"] > 0.01


@pytest.mark.parametrize("options", FORMS, ids=name_of)
def test_outcomes_learned_by_heart_are_read_back(tmp_path: Path, options: dict[str, Any]) -> None:
    """Also 0.25: a soft outcome is a probability, for either loss."""
    items = [
        solved("a", "1+1=2", "2", outcome=1.0),
        solved("b", "1+1=3", "3", outcome=0.25),
        solved("c", "1+1=4", outcome=0.0),
    ]
    config = outcome_config(**options)
    learner, _ = start(config)
    batch = outcome_batch(rows_of(config, items), config.reduce)
    for _ in range(60):
        learner.update([batch], outcome_loss(config.loss))
    learner.save(tmp_path / "orm")
    scored = prmkit.load_prm(tmp_path / "orm", device="cpu").score_all(items)
    ends = [rewards.values[-1] for rewards in scored if isinstance(rewards, StepRewards)]
    assert ends == pytest.approx([1.0, 0.25, 0.0], abs=0.05)


@pytest.mark.parametrize("lora_rank", [0, 8])
def test_a_trained_outcome_model_goes_on_as_it_was_left(tmp_path: Path, lora_rank: int) -> None:
    learner, loaded = start(outcome_config(lora_rank=lora_rank))
    randomised(loaded)
    batch = outcome_batch(rows_of(outcome_config()))
    learner.save(tmp_path / "run" / "checkpoints" / "step_000003" / "prm")
    again, _ = start(outcome_config(path=tmp_path / "run"))
    assert torch.allclose(again.outputs(batch).output_BT, learner.outputs(batch).output_BT, atol=1e-4)
    assert again.outputs(batch).output_BT.abs().max() > 0.1
    with pytest.raises(ConfigError, match="was trained with separator = ';'"):
        start(outcome_config(path=tmp_path / "run", separator="#"))


def test_a_reward_model_of_another_kind_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its head would be lost without a word."""
    learner_of(load_stepwise(stepwise_config(), scratch()), OptimizerConfig(), 0).save(tmp_path / "prm")
    with pytest.raises(ConfigError, match="holds a reward model of the family token_classification, not value_head"):
        start(outcome_config(path=tmp_path / "prm"))


def test_a_published_value_head_is_gone_on_with(tmp_path: Path) -> None:
    _, head_D1 = skywork_model(tmp_path / "skywork")
    _, loaded = start(outcome_config(path=tmp_path / "skywork", separator="\n"))
    assert torch.equal(loaded.model.head.weight[0], head_D1[:-1])
    assert torch.equal(loaded.model.head.bias, head_D1[-1:])
    assert all(parameter.requires_grad for _, parameter in loaded.model.trainable()[-2:])


@pytest.mark.parametrize("family", ["gpt_neox", "cohere", "gemma", "qwen3"])
def test_families(tmp_path: Path, family: str) -> None:
    learner, loaded = start(outcome_config(path=family_folder(tmp_path / "base", family)))
    randomised(loaded)
    learner.save(tmp_path / "orm")
    rewards = prmkit.load_prm(tmp_path / "orm", device="cpu").score("3+8+5=?", SOLUTIONS[0].steps)
    assert rewards.values == pytest.approx(plain_values(tmp_path / "orm", SOLUTIONS[0]), abs=2e-6)


# ---------------------------------------------------------------------------------------------- what cannot be learned from


def test_a_base_model_without_chat_template(tmp_path: Path) -> None:
    (family_folder(tmp_path / "base", "qwen3") / "chat_template.jinja").unlink()
    learner, _ = start(outcome_config(path=tmp_path / "base"))
    learner.save(tmp_path / "orm")
    assert len(prmkit.load_prm(tmp_path / "orm", device="cpu").score("3+8+5=?", SOLUTIONS[0].steps).values) == 3
    with pytest.raises(ModelError, match="the tokenizer has no chat template"):
        start(outcome_config(path=tmp_path / "base", layout="chat"))


def test_what_has_no_target_is_counted_or_an_error() -> None:
    bare = replace(SOLUTIONS[0], id="bare", outcome=None)
    data = encode_outcomes(TOKENIZER, [*SOLUTIONS, bare], outcome_config(), 64)
    assert [row.id for row in data.rows] == ["a", "b", "c", "d"]
    assert data.notes() == [
        "4 solutions, 2 of them right at their end",
        "1 solutions have nothing to learn from and were left out",
    ]
    with pytest.raises(DataError, match="none of the 1 solutions has an outcome to learn from"):
        encode_outcomes(TOKENIZER, [bare], outcome_config(), 64)
    unlabelled = replace(bare, labels=None)
    with pytest.raises(DataError, match="none of the 1 solutions has a step label to learn from"):
        encode_outcomes(TOKENIZER, [unlabelled], outcome_config(target="steps", where="every"), 64)


def test_what_is_too_long_is_an_error_or_left_out() -> None:
    """Nothing is cut: a solution without its end has another outcome."""
    lengths = [len(row.token_ids) for row in rows_of(outcome_config())]
    assert lengths == [25, 21, 21, 20]
    with pytest.raises(
        DataError, match=r'solution \'a\' has 25 tokens .*; shorten it, raise max_tokens, or set too_long = "leave_out"'
    ):
        encode_outcomes(TOKENIZER, SOLUTIONS, outcome_config(), 24)
    data = encode_outcomes(TOKENIZER, SOLUTIONS, outcome_config(too_long="leave_out"), 24)
    assert [row.id for row in data.rows] == ["b", "c", "d"]
    assert "1 solutions are longer than max_tokens and were left out" in data.notes()
    with pytest.raises(DataError, match=r"\(4 are longer than 9 tokens\)"):
        encode_outcomes(TOKENIZER, SOLUTIONS, outcome_config(too_long="leave_out"), 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens = 0 is out of range; it must be at least 1"),
        ({"target": "steps"}, 'target = "steps" learns every token\'s step, but where = "last"; set where = "every"'),
        ({"separator": ""}, 'separator = "" is no text'),
    ],
)
def test_values_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        outcome_config(**options)


# ---------------------------------------------------------------------------------------------- validation and runs


def test_validation_by_hand() -> None:
    """Logits at the ends: a (right) 0.4, b (wrong) 0.1, c (wrong) -0.2, d (right) -0.1.

    Above 0: a and b, so a and c are judged as they are. Of the four pairs of a right and a wrong one a wins both, d one.
    """
    rows = rows_of(outcome_config())

    class Known:
        def outputs(self, batch: Any, *, entropy: bool = False) -> Any:
            output_BT = torch.full(batch.token_BT.shape, 7.0)
            for i, value in enumerate((0.4, 0.1, -0.2, -0.1)[: len(output_BT)]):
                output_BT[i, len(rows[i].token_ids) - 1] = value
            return type("Outputs", (), {"output_BT": output_BT})

    found = validate_outcomes(Known(), rows, outcome_config())  # type: ignore[arg-type]
    assert (found["validation/accuracy"], found["validation/auc"]) == (0.5, 0.75)
    only_right = validate_outcomes(Known(), [rows[0]], outcome_config())  # type: ignore[arg-type]
    assert set(only_right) == {"validation/loss", "validation/accuracy"}  # there is no pair to order


@pytest.mark.parametrize("options", FORMS[1:], ids=name_of)
def test_what_is_learned_does_not_depend_on_stops(tmp_path: Path, options: dict[str, Any]) -> None:
    def run(name: str, steps: int) -> str:
        config = outcome_config(steps=steps, **options)
        learner, _ = start(config)
        folder = RunFolder(tmp_path / name)
        folder.open("")
        assert train_outcome(learner, rows_of(config), folder, config)
        return digest(learner)

    once = run("once", 5)
    run("twice", 2)
    assert run("twice", 5) == once


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    flipped = [replace(SOLUTIONS[0], outcome=0.0), *SOLUTIONS[1:]]

    def train(steps: int, solutions: Sequence[Solution], held_out: Sequence[Solution]) -> None:
        config = outcome_config(steps=steps)
        learner, _ = start(config)
        folder = RunFolder(tmp_path)
        folder.open("")
        evaluate = validation(learner, rows_of(config, held_out), config, steps)
        train_outcome(learner, rows_of(config, solutions), folder, config, evaluate=evaluate)

    train(1, SOLUTIONS, SOLUTIONS)
    with pytest.raises(DataError, match="the training data are not those that this run began with"):
        train(2, flipped, SOLUTIONS)
    with pytest.raises(DataError, match="the validation data are not those that this run began with"):
        train(2, SOLUTIONS, flipped)
    train(2, SOLUTIONS, SOLUTIONS)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["tokens/trained"] > 20 for row in metrics)


@pytest.mark.parametrize("reduce", ["token_mean", "seq_mean_token_mean", "seq_mean_token_sum"])
def test_validation_in_windows_is_the_whole(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four solutions of 25 to 20 tokens, three at a time: the loss is that of one batch, though windows differ in length."""
    config = outcome_config(where="every", reduce=reduce)
    learner, loaded = start(config)
    randomised(loaded)
    rows = rows_of(config)
    whole = outcome_batch(rows, reduce)
    loss = float(outcome_loss("bce")(learner.outputs(whole), whole).loss)
    sizes = []

    class Watched:
        def outputs(self, batch: Any, *, entropy: bool = False) -> Any:
            sizes.append(len(batch.length_B))
            return learner.outputs(batch)

    monkeypatch.setattr(prmkit.train.outcome, "EVALUATED_AT_ONCE", 3)
    found = validate_outcomes(Watched(), rows, config)  # type: ignore[arg-type]
    assert sizes == [3, 1]
    assert found["validation/loss"] == pytest.approx(loss, rel=1e-6)


def test_a_large_validation_set_needs_no_matrix_of_all_pairs() -> None:
    """4000 equal values: half of all pairs, from batches of 256 at most."""
    row = rows_of(outcome_config())[0]
    rows = [replace(row, targets=(*row.targets[:-1], float(k % 2))) for k in range(4000)]
    largest = 0

    class Known:
        def outputs(self, batch: Any, *, entropy: bool = False) -> Any:
            nonlocal largest
            largest = max(largest, len(batch.length_B))
            return type("Outputs", (), {"output_BT": torch.zeros(batch.token_BT.shape)})

    found = validate_outcomes(Known(), rows, outcome_config())  # type: ignore[arg-type]
    assert (largest, found["validation/auc"], found["validation/accuracy"]) == (256, 0.5, 0.5)


def test_values_that_are_not_finite_are_not_ranked() -> None:
    class Broken:
        def outputs(self, batch: Any, *, entropy: bool = False) -> Any:
            return type("Outputs", (), {"output_BT": torch.full(batch.token_BT.shape, torch.nan)})

    with pytest.raises(ModelError, match="the model in training gives a number that is not finite"):
        validate_outcomes(Broken(), rows_of(outcome_config()), outcome_config())  # type: ignore[arg-type]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from prmkit.cli.main import main

    write_solutions(tmp_path / "data.jsonl", SOLUTIONS)
    args = ["train", "outcome", f"--data={tmp_path / 'data.jsonl'}", f"--validation={tmp_path / 'data.jsonl'}"]
    args += ["--separator=;", "--epochs=2", "--batch-size=2", f"--run-dir={tmp_path / 'run'}", "--where=every"]
    args += [f"--model.path={micro_model()}", "--model.device=cpu", "--model.threads=1"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "data: 4 solutions, 2 of them right at their end" in out
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4  # two epochs of two batches
    assert {"validation/loss", "validation/accuracy", "validation/auc"} <= set(rows[-1])


# ---------------------------------------------------------------------------------------------- AutoPSV


def test_labels_come_from_an_outcome_models_values() -> None:
    scored = [
        StepRewards(values=(0.9, 0.8, 0.2), kind="probability"),  # -0.75 at the third
        StepRewards(values=(2.0, -2.0, 0.0), kind="logit"),  # 0.88, 0.12, 0.5: -0.86 at the second
    ]
    labelled = label_by_confidence(SOLUTIONS[:2], scored)
    assert [s.labels for s in labelled] == [(1.0, 1.0, 0.0), (1.0, 0.0, 0.0)]
    assert [(s.id, s.steps, s.outcome) for s in labelled] == [(s.id, s.steps, s.outcome) for s in SOLUTIONS[:2]]
    with pytest.raises(DataError, match=r"solution 'a' has no values \(too long\); leave it out before labelling"):
        label_by_confidence(SOLUTIONS[:1], [Unscored(id="a", reason="too long")])


def test_the_stages_of_autopsv_one_after_the_other(tmp_path: Path) -> None:
    """An outcome model; labels from its values; the same model gone on with, every token learning its step's label."""
    config = outcome_config(where="every", loss="mse", reduce="seq_mean_token_sum")
    learner, _ = start(config)
    for _ in range(20):
        learner.update([outcome_batch(rows_of(config), config.reduce)], outcome_loss("mse"))
    learner.save(tmp_path / "osv")
    labelled = label_by_confidence(SOLUTIONS, prmkit.load_prm(tmp_path / "osv", device="cpu").score_all(SOLUTIONS))
    assert all(s.labels is not None and s.labels[0] == 1.0 for s in labelled)
    last = outcome_config(where="every", loss="mse", target="steps", path=tmp_path / "osv")
    marked = [replace(s, labels=(1.0,) + (0.0,) * (len(s.steps) - 1)) for s in labelled]
    continued, _ = start(last)
    batch = outcome_batch(rows_of(last, marked))
    for _ in range(60):
        continued.update([batch], outcome_loss("mse"))
    value_BT = continued.outputs(batch).output_BT.sigmoid()
    # while a step is being read it may still look like another, so only its end must agree
    for i, row in enumerate(encode_solutions(TOKENIZER, marked, stepwise_config(), 64).rows):
        assert [round(float(value_BT[i, at])) for at in row.read_at] == [1, *[0] * (len(row.read_at) - 1)]
