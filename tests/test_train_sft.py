"""Supervised fine-tuning: what is learned from, in which order, and that it is learned."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rl_setup import TASK, digest, make_roles, micro_model, rl_config, scratch, taught_model

from prmkit.config import ModelConfig
from prmkit.data.types import Message, Prompt, SamplingParams, Verdict
from prmkit.engines.local.single import sft_learner
from prmkit.errors import ConfigError, DataError
from prmkit.models.tiny import tiny_tokenizer
from prmkit.ops.batch import TokenOutputs
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.collect import verify
from prmkit.tasks.task import load_task
from prmkit.train.config import SFTConfig, TooLong
from prmkit.train.run_folder import RunFolder
from prmkit.train.sft import Encoded, batch_rows, encode_all, sft_batch, sft_loss, train_sft
from prmkit.train.stop import StopRequest


class Exact:
    """Right is what ends in the answer."""

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        return [Verdict(status="ok", reward=float(text.endswith(f"#{prompt.answer}"))) for prompt, text in responses]


ROWS = [
    Encoded(prompt_token_ids=(4, 5, 6), token_ids=(7, 1)),
    Encoded(prompt_token_ids=(8,), token_ids=(9, 10, 11, 1)),
]


def test_only_the_completion_and_its_end_token_are_learned() -> None:
    tokenizer = tiny_tokenizer()
    prompt = Prompt(id="a", messages=(Message(role="user", content="1+2=?"),), answer="3")
    (encoded,) = encode_all(tokenizer, [(prompt, "1+2=3#3")], 64)
    assert tokenizer.decode(encoded.prompt_token_ids) == "1+2=?"
    assert tokenizer.decode(encoded.token_ids) == "1+2=3#3<eos>"


def test_a_batch_by_hand() -> None:
    batch = sft_batch(ROWS)
    assert batch.token_BT.tolist() == [[4, 5, 6, 7, 1], [8, 9, 10, 11, 1]]
    assert batch.response_mask_BT.int().tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]]
    assert batch.length_B.tolist() == [5, 5]
    # six completion tokens in all, each with the same weight
    assert batch.weight_BT[batch.response_mask_BT].tolist() == pytest.approx([1 / 6] * 6)
    logp_BT = torch.full((2, 5), math.nan)  # whatever stands on the prompt is not looked at
    logp_BT[0, 3:], logp_BT[1, 1:] = torch.tensor([-1.0, -2.0]), torch.tensor([-0.5, -0.5, -1.0, -1.0])
    assert float(sft_loss(TokenOutputs(output_BT=logp_BT), batch).loss) == pytest.approx(6 / 6)


def test_an_epoch_sees_each_demonstration_once() -> None:
    """7 rows in batches of 3: the first two epochs end inside a batch."""
    seen = [row for step in range(14) for row in batch_rows(7, 3, seed=0, step=step)]
    epochs = [seen[k : k + 7] for k in range(0, 42, 7)]
    assert all(Counter(epoch) == Counter(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3
    assert batch_rows(7, 3, seed=0, step=9) == seen[27:30]  # no state: any step can be asked for
    assert batch_rows(7, 3, seed=1, step=0) != batch_rows(7, 3, seed=0, step=0)
    assert Counter(batch_rows(2, 5, seed=0, step=0)) in (Counter({0: 3, 1: 2}), Counter({0: 2, 1: 3}))


def test_demonstrations_that_are_too_long_are_counted_and_named_or_left_out() -> None:
    def demonstration(name: str, completion: str) -> tuple[Prompt, str]:
        return Prompt(id=name, messages=(Message(role="user", content="1+2=?"),), answer="3"), completion

    def encode(max_tokens: int, too_long: TooLong = "error") -> list[Encoded]:
        return encode_all(tiny_tokenizer(), rows, max_tokens, too_long)

    rows = [demonstration(name, completion) for name, completion in (("a", "1+2=3"), ("b", "3"), ("c", "1+2=3#3"))]
    assert len(encode(13)) == 3  # 5 + 7 + the end token
    with pytest.raises(
        DataError,
        match=r"^2 of 3 demonstrations have more than the 10 tokens .*: 'a' has 11, 'c' has 13; .* too_long = \"leave_out\"$",
    ):
        encode(10)
    assert encode(10, "leave_out") == [encode(13)[1]]
    rows *= 2
    with pytest.raises(DataError, match=r"^4 of 6 .*: 'a' has 11, 'c' has 13, 'a' has 11, \.\.\.; "):
        encode(10)
    with pytest.raises(DataError, match=r"^6 of 6 .* raise max_tokens up to the model's context$"):
        encode(6, "leave_out")


@pytest.mark.parametrize("key", ["steps", "batch_size", "max_tokens", "save_every", "keep_checkpoints"])
def test_values_that_cannot_be(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = 0 is out of range; it must be at least 1"):
        SFTConfig(**{key: 0})


def config(**options: int) -> SFTConfig:
    model = ModelConfig(path=str(micro_model()), device="cpu", threads=1)
    return SFTConfig(model=model, **{"steps": 6, "batch_size": 2, "save_every": 2, "keep_checkpoints": 2, **options})


def test_the_loop_saves_reports_and_stops_when_asked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open("")
    learner, _ = sft_learner(config(), scratch())
    stop, steps = StopRequest(), []

    def on_step(step: int, metrics: object) -> None:
        steps.append(step)
        stop.asked = step == 3

    assert train_sft(learner, ROWS, folder, config(), on_step=on_step, stop=stop) is False
    assert (steps, folder.saved_steps()) == ([1, 2, 3], [2, 3])
    assert train_sft(learner, ROWS, folder, config(), on_step=lambda step, metrics: steps.append(step)) is True
    assert (steps, folder.saved_steps()) == ([1, 2, 3, 4, 5, 6], [4, 6])
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == steps
    assert rows[0]["loss"] > rows[-1]["loss"] > 0


def test_a_stop_in_the_last_step_is_no_stop(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open("")
    stop = StopRequest()
    stop.asked = True
    learner, _ = sft_learner(config(steps=1), scratch())
    assert train_sft(learner, ROWS, folder, config(steps=1), stop=stop) is True


def test_what_is_learned_does_not_depend_on_stops(tmp_path: Path) -> None:
    def weights(name: str, *lengths: int) -> str:
        for length in lengths:
            learner, _ = sft_learner(config(), scratch())
            folder = RunFolder(tmp_path / name)
            folder.open("")
            train_sft(learner, ROWS, folder, config(steps=length))
        return digest(learner)

    assert weights("once", 6) == weights("thrice", 1, 4, 6)


@pytest.mark.slow
def test_fine_tuning_learns_the_form_and_the_misconception() -> None:
    """After 250 steps the loss is near the entropy of the planted errors, and about half of the answers are right."""
    learner, tokenizer = sft_learner(SFTConfig(model=ModelConfig(path=str(taught_model()), device="cpu")), scratch())
    fresh = load_task(TASK, seed=9).demonstrations[:200]
    batch = sft_batch(encode_all(tokenizer, fresh, 64))
    assert float(sft_loss(learner.outputs(batch), batch).loss) < 0.1
    untaught, _ = sft_learner(SFTConfig(model=ModelConfig(path=str(micro_model()), device="cpu")), scratch())
    assert float(sft_loss(untaught.outputs(batch), batch).loss) > 2
    run = rl_config(Algorithm(), model=ModelConfig(path=str(taught_model()), device="cpu"), prm_path="")
    roles = make_roles(run, Exact())
    prompts = load_task(TASK, seed=9).train[:100]
    groups = roles.sampler.sample(prompts, n=4, params=SamplingParams(max_tokens=32), seed=0)
    rewards = [m.verdict.reward for g in verify(groups, roles.verifier) for m in g.members]
    assert 0.2 < sum(r or 0 for r in rewards) / len(rewards) < 0.8
    formed = [m.text.count("=") == 2 and "#" in m.text for g in groups for m in g.members]
    assert sum(formed) / len(formed) > 0.95
