"""Training a PRM on step labels: what is learned from, which numbers the models give, and that scoring reads them back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import GROUPED, TOKENIZER
from prm_models import classifier, process_reward_model, skywork_model
from rl_setup import digest, micro_model, scratch
from stepwise_setup import SOLUTIONS, family_folder, solved, stepwise_config
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, MixtralConfig, MixtralForCausalLM

import prmkit
from prmkit.cli.main import main
from prmkit.config import OptimizerConfig
from prmkit.data.formats import write_solutions
from prmkit.data.prm_spec import PRMSpec, read_spec
from prmkit.data.types import Solution, StepLabel, StepRewards
from prmkit.engines.local.learner import LocalLearner
from prmkit.engines.local.stepwise import Loaded, check_separator, learner_of, load_stepwise
from prmkit.errors import ConfigError, DataError, ModelError
from prmkit.evaluate.cost import flop_rates, training_cost
from prmkit.ops.stepwise_loss import stepwise_loss
from prmkit.train.run_folder import RunFolder
from prmkit.train.stepwise import (
    NEUTRAL,
    RIGHT,
    WRONG,
    EncodedSteps,
    Target,
    check_labels,
    encode_solutions,
    load_solutions,
    loop_config,
    step_batch,
    step_targets,
    train_stepwise,
)
from prmkit.train.stepwise_config import StepwiseConfig
from prmkit.train.stepwise_validation import class_logprobs, first_error_f1, validate_steps, validation

MIXED: tuple[StepLabel, ...] = (1.0, "neutral", 0.3, None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        ({}, [RIGHT, RIGHT, WRONG, None, WRONG, RIGHT]),
        ({"neutral": "wrong"}, [RIGHT, WRONG, WRONG, None, WRONG, RIGHT]),
        ({"neutral": "class", "labels": ("+", "-", "#")}, [RIGHT, NEUTRAL, WRONG, None, WRONG, RIGHT]),
        ({"neutral": "drop"}, [RIGHT, None, WRONG, None, WRONG, RIGHT]),
        ({"threshold": 0.0}, [RIGHT, RIGHT, RIGHT, None, WRONG, RIGHT]),
        ({"threshold": 0.3}, [RIGHT, RIGHT, WRONG, None, WRONG, RIGHT]),
        ({"up_to_first_error": True}, [RIGHT, RIGHT, WRONG, None, None, None]),
        ({"up_to_first_error": True, "threshold": 0.0}, [RIGHT, RIGHT, RIGHT, None, WRONG, None]),
        ({"up_to_first_error": True, "neutral": "wrong"}, [RIGHT, WRONG, WRONG, None, None, None]),
        (
            {"soft": True},
            [RIGHT, RIGHT, Target((0.7, 0.3, 0.0), 0), None, WRONG, RIGHT],
        ),
    ],
)
def test_labels_become_targets(options: dict[str, Any], targets: list[Target | None]) -> None:
    assert step_targets(MIXED, stepwise_config(**options)) == targets


def test_a_label_stands_at_the_separator_after_its_step() -> None:
    data = encode_solutions(TOKENIZER, SOLUTIONS[:1], stepwise_config(), 64)
    (encoded,) = data.rows
    assert TOKENIZER.decode(encoded.token_ids) == "3+8+5=?3+8=11;11+5=16;16;"
    assert [TOKENIZER.decode(encoded.token_ids[: at + 1])[7:] for at in encoded.read_at] == [
        "3+8=11;",
        "3+8=11;11+5=16;",
        "3+8=11;11+5=16;16;",
    ]
    assert data.notes() == ["1 solutions, 3 steps: 0 wrong, 3 right, 0 not learned"]


def test_a_long_solution_is_an_error_or_cut_after_a_whole_step_and_counted() -> None:
    """`3+8+5=?` has 7 tokens, the steps of the first solution 7, 8 and 3."""
    with pytest.raises(
        DataError, match=r"solution 'a' has 25 tokens .* more than the 24 .*; shorten it, raise max_tokens, or"
    ):
        encode_solutions(TOKENIZER, SOLUTIONS[:1], stepwise_config(), 24)
    cut = stepwise_config(too_long="cut")
    assert len(encode_solutions(TOKENIZER, SOLUTIONS[:1], cut, 25).rows[0].targets) == 3
    (row,) = encode_solutions(TOKENIZER, SOLUTIONS[:1], cut, 24).rows
    assert (len(row.token_ids), row.targets, row.judged) == (22, (RIGHT, RIGHT), False)
    data = encode_solutions(TOKENIZER, SOLUTIONS[:3], cut, 14)
    assert [row.targets for row in data.rows] == [(RIGHT,), (WRONG,), (RIGHT,)]
    assert "3 solutions are longer than max_tokens and were cut after a whole step" in data.notes()
    only_late = replace(SOLUTIONS[0], labels=(None, None, 1.0))
    data = encode_solutions(TOKENIZER, [only_late, SOLUTIONS[1]], cut, 20)
    assert [row.id for row in data.rows] == ["b"]
    assert "1 solutions have no label to learn from and were left out" in data.notes()
    with pytest.raises(
        DataError, match=r"none of the 1 solutions has a step label .* \(1 are cut by max_tokens = 20, and of 0 not"
    ):
        encode_solutions(TOKENIZER, [only_late], cut, 20)
    # with 13 tokens the prompt and step 1 of a (7 + 7) do not fit, those of b (7 + 6) do
    data = encode_solutions(TOKENIZER, SOLUTIONS[:2], cut, 13)
    assert ([row.id for row in data.rows], data.num_cut, data.num_too_long, data.num_unlabelled) == (["b"], 1, 1, 0)
    assert "1 solutions have no step that fits into max_tokens and were left out" in data.notes()
    with pytest.raises(DataError, match=r"\(0 are cut by max_tokens = 13, and of 1 not even the first step fits\)"):
        encode_solutions(TOKENIZER, SOLUTIONS[:1], cut, 13)


def test_data_without_labels_is_an_error() -> None:
    bare = replace(SOLUTIONS[0], labels=None)
    with pytest.raises(DataError, match="none of the 1 solutions has a step label to learn from"):
        encode_solutions(TOKENIZER, [bare], stepwise_config(), 64)
    neutral = replace(SOLUTIONS[0], labels=("neutral",) * 3)
    with pytest.raises(DataError, match="see whether neutral = 'drop' drops them"):
        encode_solutions(TOKENIZER, [neutral], stepwise_config(neutral="drop"), 64)


def test_languages_choose_what_is_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_solutions(
        path, [replace(s, language=code) for s, code in zip(SOLUTIONS, ("de", "sw", "de", ""), strict=True)]
    )
    chosen = stepwise_config(languages=("de",))
    assert [s.id for s in load_solutions([str(path)], chosen, training=True)] == ["a", "c"]
    assert len(load_solutions([str(path)], chosen, training=False)) == 4
    with pytest.raises(DataError, match=r"no solution has one of the languages \['fr'\]; the data has '', 'de', 'sw'"):
        load_solutions([str(path)], stepwise_config(languages=("fr",)), training=True)
    with pytest.raises(ConfigError, match="data is empty: name at least one file"):
        load_solutions([], stepwise_config(), training=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0 is out of range; it must be at least 1"),
        ({"steps": -1}, "steps = -1 is out of range; it must be at least 1, or 0 to count in epochs"),
        ({"threshold": 1.0}, r"threshold = 1.0 is out of range \[0, 1\)"),
        ({"separator": ""}, 'separator = "" is no text'),
        (
            {"form": "label_tokens", "labels": ("+",)},
            r"labels = \['\+'\], but neutral = 'right' needs 2 tokens that differ",
        ),
        ({"form": "label_tokens", "labels": ("+", "+")}, "needs 2 tokens that differ, for right and wrong"),
        ({"form": "label_tokens", "neutral": "class"}, "needs 3 tokens that differ, for right, wrong and neutral"),
        ({"class_weights": (1.0,)}, r"class_weights = \[1.0\], but neutral = 'right' needs 2 positive numbers"),
        ({"class_weights": (1.0, 0.0)}, "needs 2 positive numbers, for right and wrong"),
    ],
)
def test_values_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stepwise_config(**options)


@pytest.mark.parametrize(("rows", "steps"), [(6, 6), (7, 7), (1, 1)])
def test_epochs_are_counted_in_steps(rows: int, steps: int) -> None:
    assert loop_config(stepwise_config(steps=0, epochs=2), rows).steps == steps
    assert loop_config(stepwise_config(steps=5), rows).steps == 5


# ---------------------------------------------------------------------------------------------- models


FORMS: list[dict[str, Any]] = [
    {"form": "head"},
    {"form": "head", "neutral": "class"},
    {"form": "head", "lora_rank": 8},
    {"form": "label_tokens"},
    {"form": "label_tokens", "neutral": "class", "labels": ("+", "-", "#")},
    {"form": "label_tokens", "vocabulary": "all"},
    {"form": "label_tokens", "lora_rank": 8},
]


def name_of(options: dict[str, Any]) -> str:
    return " ".join(str(value) for value in options.values())


def start(config: StepwiseConfig) -> tuple[LocalLearner, Loaded]:
    loaded = load_stepwise(config, scratch())
    return learner_of(loaded, config.optimizer, 0), loaded


def rows_of(config: StepwiseConfig, solutions: Sequence[Solution] = SOLUTIONS) -> Sequence[EncodedSteps]:
    return encode_solutions(TOKENIZER, solutions, config, 64).rows


def randomised(loaded: Loaded, spread: float = 0.3) -> None:
    """Weights as after some training: a new head says nothing, and so does a new adapter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in loaded.model.trainable():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


def plain_class_probabilities(folder: Path, config: StepwiseConfig, solution: Solution) -> list[list[float]]:
    """By transformers alone, on the text with its separators: (steps, classes in the order wrong, right, neutral).

    The adapters of causal LMs are loaded by transformers itself. Characters are tokens here, so joining the text is exact.
    """
    text = solution.prompt.messages[0].content + "".join(f"{step};" for step in solution.steps)
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    ends, at = [], len(solution.prompt.messages[0].content) - 1
    for step in solution.steps:
        at += len(step) + 1
        ends.append(at)
    kind = AutoModelForTokenClassification if config.form == "head" else AutoModelForCausalLM
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        logits_KV = model(input_ids=torch.tensor([ids])).logits[0, ends]
    if config.form == "label_tokens":
        right, wrong, *neutral = (TOKENIZER.convert_tokens_to_ids(label) for label in config.labels)
        logits_KV = logits_KV[:, [wrong, right, *neutral]]
    found: list[list[float]] = logits_KV.softmax(-1).tolist()
    return found


@pytest.mark.parametrize("options", FORMS, ids=name_of)
def test_the_saved_folder_says_what_the_model_said_in_training(tmp_path: Path, options: dict[str, Any]) -> None:
    config = stepwise_config(**options)
    learner, loaded = start(config)
    randomised(loaded)
    rows = rows_of(config)
    logp_BTC = class_logprobs(learner, step_batch(rows), config.num_classes)
    learner.save(tmp_path / "prm")
    scored = {s.id: list(plain_class_probabilities(tmp_path / "prm", config, s)) for s in SOLUTIONS}
    for i, row in enumerate(rows):
        for k, (at, target) in enumerate(zip(row.read_at, row.targets, strict=True)):
            if target is not None:
                # merging adds the adapter to the weights first, which rounds otherwise
                close = 2e-5 if "lora_rank" in options else 2e-6
                assert logp_BTC[i, at].exp().tolist() == pytest.approx(scored[row.id][k], abs=close)
    values = [p for steps in scored.values() for step in steps for p in step]
    assert max(values) - min(values) > 0.1  # the model is not one that says the same everywhere


@pytest.mark.parametrize("options", FORMS, ids=name_of)
def test_load_prm_reads_the_same_probabilities(tmp_path: Path, options: dict[str, Any]) -> None:
    config = stepwise_config(**options)
    learner, loaded = start(config)
    randomised(loaded)
    learner.save(tmp_path / "prm")
    prm = prmkit.load_prm(tmp_path / "prm", device="cpu")
    for solution, rewards in zip(SOLUTIONS, prm.score_all(SOLUTIONS), strict=True):
        assert isinstance(rewards, StepRewards)
        plain = plain_class_probabilities(tmp_path / "prm", config, solution)
        assert rewards.kind == "probability"
        close = 2e-5 if "lora_rank" in options else 2e-6  # as above: this PRM merges the adapter, transformers does not
        assert rewards.values == pytest.approx(
            [1 - classes[0] for classes in plain], abs=close
        )  # neutral counts as right


@pytest.mark.parametrize("family", ["llama", "llama_biases", "qwen3", "gemma", "gpt_neox", "mistral"])
def test_the_loss_is_transformers_own(tmp_path: Path, family: str) -> None:
    """Of AutoModelForTokenClassification, given labels at the separators and -100 elsewhere: the padding is ours to mask."""
    config = stepwise_config(path=family_folder(tmp_path / "base", family))
    learner, loaded = start(config)
    randomised(loaded, 0.1)
    batch = step_batch(rows_of(config))
    loss = float(stepwise_loss(learner.outputs(batch), batch).loss)
    learner.save(tmp_path / "prm")
    classifier = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm").eval()
    assert type(classifier).__name__.endswith("ForTokenClassification")
    labels_BT = torch.where(batch.class_BT >= 0, batch.class_BT, -100)
    mask_BT = torch.arange(batch.token_BT.shape[1]) < batch.length_B[:, None]
    with torch.no_grad():
        theirs = classifier(input_ids=batch.token_BT, attention_mask=mask_BT.long(), labels=labels_BT).loss
    assert loss == pytest.approx(float(theirs), rel=1e-5)
    assert abs(loss - math.log(2)) > 1e-3  # an untrained head would say log 2


@pytest.mark.parametrize("options", FORMS, ids=name_of)
def test_micro_batches_do_not_change_what_is_learned(options: dict[str, Any]) -> None:
    found = []
    for tokens in (10_000, 30, 1):
        config = stepwise_config(**options, class_weights=(1.0, 3.0, 2.0)[: 3 if options.get("neutral") else 2])
        loaded = load_stepwise(config, scratch())
        randomised(loaded)
        learner = learner_of(loaded, OptimizerConfig(learning_rate=1e-2, tokens_per_microbatch=tokens), 0)
        batch = step_batch(rows_of(config), config.class_weights)
        metrics = learner.update([batch], stepwise_loss).metrics
        found.append({**metrics, **{n: float(p.detach().double().sum()) for n, p in loaded.model.trainable()[-2:]}})
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)
    assert found[0]["grad_norm"] > 0.01


@pytest.mark.parametrize("options", FORMS, ids=name_of)
def test_what_is_trained_is_read_at_the_same_token(tmp_path: Path, options: dict[str, Any]) -> None:
    """One solution learned by heart: right, wrong, right, wrong at equal separators. Read one token off it could not be known.

    The two kinds of step are equal texts up to their last character, so that only what comes before the separator differs.
    """
    item = solved("x", "1+1=2", "1+1=3", "1+1=2", "1+1=3", labels=(1.0, 0.0, 1.0, 0.0), asked="1+1=?")
    config = stepwise_config(**options, learning_rate=1e-2, steps=25, batch_size=1)
    learner, _ = start(config)
    batch = step_batch(rows_of(config, [item]))
    for _ in range(config.steps):
        metrics = learner.update([batch], stepwise_loss).metrics
    learner.save(tmp_path / "prm")
    rewards = prmkit.load_prm(tmp_path / "prm", device="cpu").score("1+1=?", item.steps)
    assert rewards.values == pytest.approx([1.0, 0.0, 1.0, 0.0], abs=0.05)
    assert (metrics["accuracy/right"], metrics["accuracy/wrong"]) == (1.0, 1.0)


def test_the_whole_vocabulary_takes_probability_from_every_token() -> None:
    """log P(label) over all tokens is lower than among the labels by one number at each place."""
    narrow, wide = (stepwise_config(form="label_tokens", vocabulary=vocabulary) for vocabulary in ("labels", "all"))
    batch = step_batch(rows_of(narrow))
    outputs = []
    for config in (narrow, wide):
        learner, loaded = start(config)
        randomised(loaded)
        right_BT = (batch.class_BT >= 0).float()
        zero_BT = torch.zeros_like(right_BT)
        both = [
            replace(batch, right_BT=right_BT, wrong_BT=zero_BT),
            replace(batch, right_BT=zero_BT, wrong_BT=right_BT),
        ]
        outputs.append(torch.stack([learner.outputs(asked).output_BT[batch.class_BT >= 0] for asked in both], -1))
    gap_NC = outputs[0] - outputs[1]
    assert gap_NC.min() > 0.5
    assert gap_NC[:, 0].tolist() == pytest.approx(gap_NC[:, 1].tolist(), abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"lora_rank": 8}, {"form": "label_tokens"}], ids=name_of)
def test_a_trained_prm_goes_on_as_it_was_left(tmp_path: Path, options: dict[str, Any]) -> None:
    config = stepwise_config(**options)
    learner, loaded = start(config)
    randomised(loaded)
    batch = step_batch(rows_of(config))
    learner.save(tmp_path / "run" / "checkpoints" / "step_000007" / "prm")
    again, _ = start(stepwise_config(**{**options, "lora_rank": 0}, path=tmp_path / "run"))
    assert torch.allclose(again.outputs(batch).output_BT, learner.outputs(batch).output_BT, atol=1e-5)
    with pytest.raises(
        ConfigError, match=r"was trained with separator = ';' .* means '#'; going on with another would unlearn it"
    ):
        start(stepwise_config(**{**options, "separator": "#"}, path=tmp_path / "run"))
    if not options:
        with pytest.raises(ConfigError, match=r"was trained with labels = \('wrong', 'right'\)"):
            start(stepwise_config(path=tmp_path / "run", neutral="class"))


def test_a_classifier_of_trl_can_be_gone_on_with(tmp_path: Path) -> None:
    """Without prm.json and with classes without names: 0 is wrong, 1 right. Its output layer is not tied to its embeddings."""
    path = family_folder(tmp_path / "base", "qwen3")
    classifier = AutoModelForTokenClassification.from_pretrained(path, num_labels=2)
    classifier.save_pretrained(tmp_path / "trl")
    TOKENIZER.save_pretrained(tmp_path / "trl")
    config = stepwise_config(path=tmp_path / "trl")
    learner, _ = start(config)
    logp_BTC = class_logprobs(learner, step_batch(rows_of(config)), 2)
    plain = plain_class_probabilities(tmp_path / "trl", config, SOLUTIONS[0])
    assert logp_BTC[0, rows_of(config)[0].read_at[1]].exp().tolist() == pytest.approx(plain[1], abs=1e-6)
    with pytest.raises(
        ConfigError, match=r"neutral = 'class' means 3 classes, but .* has 2; set neutral as it was trained"
    ):
        start(replace(config, neutral="class"))


def test_a_head_whose_first_class_is_right_goes_on_the_right_way_round(tmp_path: Path) -> None:
    """Without prm.json its names tell the order; what is saved has the order and the names of prm.json."""
    names = {0: "Correct", 1: "Incorrect"}
    classifier(tmp_path / "hub", id2label=names, label2id={name: i for i, name in names.items()})
    before = prmkit.load_prm(tmp_path / "hub", device="cpu").score_all(SOLUTIONS)
    learner, _ = start(stepwise_config(path=tmp_path / "hub", separator="\n"))
    learner.save(tmp_path / "prm")
    assert prmkit.load_prm(tmp_path / "prm", device="cpu").score_all(SOLUTIONS) == before
    (tmp_path / "prm" / "prm.json").unlink()
    assert prmkit.load_prm(tmp_path / "prm", device="cpu").score_all(SOLUTIONS) == before
    classifier(tmp_path / "hub", id2label={0: "B-PER", 1: "I-PER"}, label2id={"B-PER": 0, "I-PER": 1})
    with pytest.raises(ModelError, match=r"which of the head's 2 classes \['B-PER', 'I-PER'\] means right is not told"):
        start(stepwise_config(path=tmp_path / "hub", separator="\n"))


@pytest.mark.parametrize("form", ["head", "label_tokens"])
def test_a_published_head_that_training_cannot_go_on_with_is_refused(tmp_path: Path, form: str) -> None:
    process_reward_model(tmp_path / "qwen")
    skywork_model(tmp_path / "skywork")
    with pytest.raises(
        ConfigError, match="holds a head of two layers, which is not trained here, and it would be lost"
    ):
        start(stepwise_config(path=tmp_path / "qwen", form=form))
    with pytest.raises(
        ConfigError, match="holds a head of the family value_head, and it would be lost; take a language"
    ):
        start(stepwise_config(path=tmp_path / "skywork", form=form))


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # PEFT's own, of its own patterns
def test_adapters_on_experts_are_merged_into_what_is_saved(tmp_path: Path) -> None:
    shape: dict[str, Any] = {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}
    MixtralForCausalLM(MixtralConfig(**shape)).save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    config = stepwise_config(path=tmp_path / "base", lora_rank=2)
    learner, loaded = start(config)
    randomised(loaded)
    rows = rows_of(config)
    logp_BTC = class_logprobs(learner, step_batch(rows), 2)
    learner.save(tmp_path / "prm")
    plain = plain_class_probabilities(tmp_path / "prm", config, SOLUTIONS[0])
    assert logp_BTC[0, rows[0].read_at[1]].exp().tolist() == pytest.approx(plain[1], abs=1e-5)


def test_an_adapter_leaves_its_base_as_it_was(tmp_path: Path) -> None:
    """Also after a checkpoint: what is written is merged aside."""
    config = stepwise_config(lora_rank=8)
    learner, loaded = start(config)
    randomised(loaded)
    batch = step_batch(rows_of(config))
    before = {name: tensor.clone() for name, tensor in loaded.model.body.model.state_dict().items()}
    said = learner.outputs(batch).output_BT
    learner.save(tmp_path / "one")
    assert torch.equal(learner.outputs(batch).output_BT, said)
    after = loaded.model.body.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    trained = {name for name, _ in loaded.model.trainable()}
    assert trained >= {"score.weight", "score.bias"}
    assert all(".lora_" in name or name.startswith("score.") for name in trained)


def test_a_family_without_token_classifier_is_told_the_other_form(tmp_path: Path) -> None:
    path = family_folder(tmp_path, "cohere")
    with pytest.raises(ModelError, match=r'no token classification model for cohere; set form = "label_tokens"'):
        start(stepwise_config(path=path))
    learner, _ = start(stepwise_config(path=path, form="label_tokens"))
    assert learner.outputs(step_batch(rows_of(stepwise_config()))).output_BT.isfinite().all()


@pytest.mark.parametrize("form", ["head", "label_tokens"])
def test_a_separator_that_was_never_trained_is_refused(tmp_path: Path, form: str) -> None:
    path = family_folder(tmp_path, "qwen3")
    model: Any = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.get_input_embeddings().weight[TOKENIZER.convert_tokens_to_ids(";")] = 0.0
    model.save_pretrained(path)
    config = stepwise_config(path=path, form=form)
    with pytest.raises(ModelError, match=r"the separator ';' ends in token 15, whose embedding is all zeros"):
        check_separator(load_stepwise(config, scratch()))
    assert check_separator(load_stepwise(replace(config, separator="#"), scratch())) == []
    (note,) = check_separator(load_stepwise(replace(config, separator=";#"), scratch()))
    assert note.startswith("the separator ';#' is 2 tokens [15, 16]; steps are read at the last of them")


def bare_folder(path: Path) -> Path:
    """A base model: its tokenizer has no chat template."""
    folder = family_folder(path, "qwen3")
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.mark.parametrize(
    "options", [{}, {"form": "label_tokens"}, {"form": "label_tokens", "lora_rank": 8}], ids=name_of
)
def test_a_base_model_without_chat_template(tmp_path: Path, options: dict[str, Any]) -> None:
    """Trained, gone on with and scored in the plain layout; the chat layout is refused."""
    config = stepwise_config(path=bare_folder(tmp_path / "base"), **options)
    learner, _ = start(config)
    learner.update([step_batch(rows_of(config))], stepwise_loss)
    learner.save(tmp_path / "prm")
    rewards = prmkit.load_prm(tmp_path / "prm", device="cpu").score("3+8+5=?", SOLUTIONS[0].steps)
    assert len(rewards.values) == 3
    start(stepwise_config(**{**options, "lora_rank": 0}, path=tmp_path / "prm"))
    with pytest.raises(ModelError, match="the tokenizer has no chat template"):
        start(replace(config, layout="chat"))


def test_a_label_must_be_one_token(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the label token '--' is 2 tokens"):
        start(stepwise_config(form="label_tokens", labels=("+", "--")))


@pytest.mark.parametrize(
    ("options", "spec"),
    [
        ({}, PRMSpec(family="token_classification", separator=";", labels=("wrong", "right"), chat=False)),
        (
            {"layout": "chat", "neutral": "class"},
            PRMSpec(family="token_classification", separator=";", labels=("wrong", "right", "neutral"), chat=True),
        ),
        (
            {"form": "label_tokens", "labels": ("#", "?")},
            PRMSpec(family="label_tokens", separator=";", labels=("#", "?"), chat=False),
        ),
    ],
)
def test_the_folder_says_how_it_is_to_be_asked(tmp_path: Path, options: dict[str, Any], spec: PRMSpec) -> None:
    start(stepwise_config(**options))[0].save(tmp_path / "prm")
    assert read_spec(tmp_path / "prm") == spec


# ---------------------------------------------------------------------------------------------- validation


def test_validation_by_hand() -> None:
    """P(right) by solution: a 0.9 0.4 0.6; b 0.2; c 0.7 0.6. Labels: a right right right; b wrong; c right wrong.

    Guesses: a right, wrong, right; b wrong; c right, right. 4 of 6 are right: 3 of 4 right steps, 1 of 2 wrong ones.
    First errors found: a at 1 (none is), b at 0 (so it is), c none (at 1). Accuracies 1/2 on wrong and 0 on right: F1 is 0.
    """
    probabilities = {"a": (0.9, 0.4, 0.6), "b": (0.2, 0.5, 0.5), "c": (0.7, 0.6)}

    class Known:
        def outputs(self, batch: Any, *, entropy: bool = False) -> Any:
            output_BT = torch.zeros(batch.token_BT.shape)
            for i, row in enumerate(rows):
                for at, p in zip(row.read_at, probabilities[row.id], strict=True):
                    known = torch.tensor([1 - p, p]).log()
                    output_BT[i, at] = batch.wrong_BT[i, at] * known[0] + batch.right_BT[i, at] * known[1]
            return type("Outputs", (), {"output_BT": output_BT})

    rows = rows_of(stepwise_config(up_to_first_error=True), SOLUTIONS[:3])
    found = validate_steps(Known(), rows, num_classes=2)  # type: ignore[arg-type]
    likelihoods = (0.9, 0.4, 0.6, 0.8, 0.7, 0.4)
    assert found == pytest.approx(
        {
            "validation/loss": -sum(map(math.log, likelihoods)) / 6,
            "validation/accuracy": 4 / 6,
            "validation/accuracy/wrong": 1 / 2,
            "validation/accuracy/right": 3 / 4,
            "validation/balanced_accuracy": 5 / 8,
            "validation/first_error_f1": 0.0,
        }
    )
    probabilities["a"] = (0.9, 0.6, 0.6)  # now all right ones pass: 2 * (1/2 * 1) / (3/2)
    assert validate_steps(Known(), rows, num_classes=2)["validation/first_error_f1"] == pytest.approx(2 / 3)  # type: ignore[arg-type]


def test_first_errors_that_are_not_known_do_not_count() -> None:
    assert first_error_f1([None, 1, 2], [-1, 1, None]) == 1.0
    assert first_error_f1([None, 2, None], [-1, 1, 0]) == 0.0
    assert first_error_f1([None, None], [-1, None]) is None
    assert first_error_f1([1], [1]) is None


# ---------------------------------------------------------------------------------------------- runs


def run(folder: Path, steps: int, **options: Any) -> str:
    """Weights after a run that may go on from an earlier one."""
    config = stepwise_config(steps=steps, **options)
    learner, _ = start(config)
    opened = RunFolder(folder)
    opened.open("")
    rows = rows_of(config)
    assert train_stepwise(learner, rows, opened, config, evaluate=lambda step: {"validation/x": step * 1.0})
    return digest(learner)


@pytest.mark.parametrize("options", [{}, {"form": "label_tokens", "lora_rank": 8}], ids=name_of)
def test_what_is_learned_does_not_depend_on_stops(tmp_path: Path, options: dict[str, Any]) -> None:
    once = run(tmp_path / "once", 6, **options)
    run(tmp_path / "twice", 2, **options)
    assert run(tmp_path / "twice", 6, **options) == once
    metrics = [json.loads(line) for line in (tmp_path / "twice" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "grad_norm", "accuracy", "balanced_accuracy", "labels_masked", "validation/x"} <= set(metrics[0])
    assert metrics == [json.loads(line) for line in (tmp_path / "once" / "metrics.jsonl").read_text().splitlines()]
    assert read_spec(tmp_path / "twice" / "checkpoints" / "step_000006" / "prm") is not None


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    """Neither with other labels at the same tokens, nor with other validation rows."""
    flipped = [replace(SOLUTIONS[0], labels=(1.0, 1.0, 0.0)), *SOLUTIONS[1:]]

    def train(steps: int, solutions: Sequence[Solution], held_out: Sequence[Solution]) -> None:
        config = stepwise_config(steps=steps)
        learner, _ = start(config)
        folder = RunFolder(tmp_path)
        folder.open("")
        evaluate = validation(learner, rows_of(config, held_out), config, steps)
        train_stepwise(learner, rows_of(config, solutions), folder, config, evaluate=evaluate)

    train(1, SOLUTIONS, SOLUTIONS)
    message = "are not those that this run began with: .* give the run another run_dir"
    with pytest.raises(DataError, match=f"the training data {message}"):
        train(2, flipped, SOLUTIONS)
    with pytest.raises(DataError, match=f"the validation data {message}"):
        train(2, SOLUTIONS, flipped)
    train(2, SOLUTIONS, SOLUTIONS)


def test_a_run_counts_the_tokens_that_it_has_trained(tmp_path: Path) -> None:
    """Two steps of one batch that is the whole data: 25 + 21 + 21 + 20 tokens each, prompts included; 6 FLOPs a parameter."""
    run(tmp_path, 2, batch_size=4)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["tokens/trained"] for row in metrics] == [87, 87]
    assert training_cost(tmp_path, flop_rates(10)).training == 2 * 87 * 6 * 10


def test_validation_numbers_that_are_not_finite_are_an_error() -> None:
    class Broken:
        def outputs(self, batch: Any, *, entropy: bool = False) -> Any:
            return type("Outputs", (), {"output_BT": torch.full(batch.token_BT.shape, math.nan)})

    with pytest.raises(ModelError, match="the model in training gives a number that is not finite"):
        validate_steps(Broken(), rows_of(stepwise_config()), num_classes=2)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_solutions(tmp_path / "data.jsonl", SOLUTIONS)
    args = ["train", "stepwise", f"--data={tmp_path / 'data.jsonl'}", f"--validation={tmp_path / 'data.jsonl'}"]
    args += ["--separator=;", "--steps=2", "--batch-size=2", f"--run-dir={tmp_path / 'run'}", "--validate-every=2"]
    args += [f"--model.path={micro_model()}", "--model.device=cpu", "--model.threads=1"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "data: 4 solutions, 12 steps: 3 wrong, 8 right, 1 not learned" in out
    assert "model:" in out
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "validation/first_error_f1" in rows[1]
    assert "validation/first_error_f1" not in rows[0]
    assert main([*args, "--separator=!", f"--run-dir={tmp_path / 'other'}"]) == 2
    err = capsys.readouterr().err
    assert "separator = '!'" in err
    assert "the model's tokenizer cannot encode '!'" in err
    assert "set --separator to text that it knows" in err
    assert main(args) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'run'}: already at step 2 of 2; nothing is trained. To go on, ask for more: --steps 4" in out
    assert main([*args, "--steps=1"]) == 0
    assert "already at step 2, which is more than the 1 asked for" in capsys.readouterr().out
    assert main([*args, "--steps=3"]) == 0
    assert "already" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "stepwise",
            "none of the 2 solutions has a step label to learn from; give data with labels; 1 have an outcome",
        ),
        ("outcome", "none of the 2 solutions has an outcome to learn from"),
    ],
)
def test_what_the_data_lack_is_said_before_the_model_is_looked_at(
    kind: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the separator is wrong as well, and there is no such model."""
    outcome = 1.0 if kind == "stepwise" else None
    bare = [solved("a", "3+8=11", outcome=outcome), solved("b", "3+8=11")]
    write_solutions(tmp_path / "bare.jsonl", bare)
    write_solutions(tmp_path / "data.jsonl", SOLUTIONS)
    flags = ["--separator=!", f"--run-dir={tmp_path / 'run'}", f"--model.path={tmp_path / 'nowhere'}"]
    for data in ("--data", "--validation"):
        other = [] if data == "--data" else [f"--data={tmp_path / 'data.jsonl'}"]
        assert main(["train", kind, f"{data}={tmp_path / 'bare.jsonl'}", *other, *flags]) == 2
        assert f"{tmp_path / 'bare.jsonl'}: {message}" in capsys.readouterr().err


def test_neutral_labels_that_are_dropped_are_named() -> None:
    neutral = [solved("a", "3+8=11", labels=("neutral",))]
    with pytest.raises(DataError, match='1 steps are neutral, which neutral = "drop" leaves out'):
        check_labels(neutral, stepwise_config(neutral="drop"), ["a.jsonl"])
    check_labels(neutral, stepwise_config(), ["a.jsonl"])
