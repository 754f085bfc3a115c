"""Every option of an algorithm acts: real steps of a micro model, compared bit by bit and in what they ask of the models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from rl_setup import PROMPTS, CoinVerifier, Spy, checksum, digest, make_roles, micro_model, one_step, prm_of, rl_config
from torch import Tensor
from transformers import AutoTokenizer

from prmkit.config_io import leaf_keys
from prmkit.data.layouts import as_response
from prmkit.data.types import Prompt, SamplingParams, Solution, StepRewards, Verdict
from prmkit.engines.local.prms.load import load_prm
from prmkit.errors import TrainingError
from prmkit.ops.prm_loss import best_of_n_weight, group_log_odds
from prmkit.rl import algorithm as algorithms
from prmkit.rl.advantage import placed_process
from prmkit.rl.algorithm import KL, Algorithm, Filter, Outcome, Process
from prmkit.rl.collect import PromptStream
from prmkit.rl.learn import value_loss
from prmkit.rl.metrics import step_metrics
from prmkit.rl.presets import PRESETS
from prmkit.rl.step import Roles, StepResult
from prmkit.train.loop import fixed_batch


def varied(base: Algorithm, key: str, value: Any) -> Algorithm:
    """`base` with one value changed; `process.beta` names a value of a section."""
    section, _, name = key.rpartition(".")
    if section:
        return replace(base, **{section: replace(getattr(base, section), **{name: value})})
    return replace(base, **{name: value})


class FailingVerifier:
    """Half of the responses are right, but some cannot be read, some are partly right and some break the verifier."""

    def verify(self, responses: Any) -> list[Verdict]:
        kinds = [
            Verdict(status="unparsed", reward=None),
            Verdict(status="error", reward=None, detail="broken"),
            *[Verdict(status="ok", reward=r) for r in (0.0, 0.0, 1.0, 1.0, 0.5)],
        ]
        return [kinds[checksum(prompt.id + text) % len(kinds)] for prompt, text in responses]


FULL = Algorithm(
    process=Process(coef=1.0, floor=0.01),
    kl=KL(coef=0.1),
    group_size=4,
    num_minibatches=2,
    prm_minibatches=2,
    clip_low=0.05,
    clip_high=0.05,
    entropy_coef=0.01,
)
"""Outcome, process rewards, KL and entropy all take part, so that every option has something to act on."""
GAE = replace(FULL, advantage="gae")
SIBLINGS = varied(FULL, "process.update", "reverse")

OPTIONS: dict[str, tuple[Algorithm, list[Any]]] = {
    "outcome.coef": (FULL, [1.0, 2.0]),
    "outcome.discount": (FULL, [1.0, 0.9]),
    "process.coef": (FULL, [0.0, 1.0, 2.0]),
    "process.use": (FULL, ["add", "redistribute"]),
    "process.warmup_steps": (FULL, [0, 5]),
    "process.gate": (FULL, ["none", "accuracy"]),
    "process.discount": (FULL, [1.0, 0.9]),
    "process.beta": (FULL, [0.05, 0.5]),
    "process.granularity": (FULL, ["token", "step", "whole"]),
    "process.normaliser": (FULL, ["max_return", "std", "none"]),
    "process.normaliser_ranks": (FULL, [1, 3]),
    "process.floor": (FULL, [0.01, 50.0]),
    "process.baseline": (FULL, ["estimator", "prime", "group", "group_std", "position", "none"]),
    "process.eos_reward": (FULL, [True, False]),
    "process.update": (SIBLINGS, ["reverse", "before", "none"]),
    "process.loss": (SIBLINGS, ["ce", "ce_offset", "dpo", "bon_acc", "bon_rm"]),
    "process.reference": (FULL, ["freeze", "policy", "none"]),
    "process.replay_batches": (FULL, [0, 1]),
    "advantage": (FULL, ["rloo", "grpo", "dr_grpo", "reinforce", "remax", "gae"]),
    "whiten": (FULL, ["tokens", "none"]),
    "gae_lambda": (GAE, [1.0, 0.5]),
    "value_clip": (GAE, [0.5, 0.01]),
    "clip_low": (FULL, [0.05, 1.0]),
    "clip_high": (FULL, [0.05, 5.0]),
    "entropy_coef": (FULL, [0.0, 1.0]),
    "kl.coef": (FULL, [0.0, 1.0]),
    "kl.where": (varied(FULL, "kl.coef", 1.0), ["loss", "reward"]),
    "kl.estimator": (FULL, ["k2", "k3"]),
    "reduce": (FULL, list(get_args(algorithms.Reduce))),
    "filter.low": (FULL, [0.2, 0.5]),
    "filter.high": (FULL, [0.8, 0.4]),
    "filter.max_draws": (varied(FULL, "filter.low", 0.5), [8, 2]),
    "filter.truncated": (FULL, ["keep", "drop_group", "mask"]),
    "filter.enabled": (varied(FULL, "filter.high", 0.4), [True, False]),
    "group_size": (FULL, [4, 3]),
    "num_minibatches": (FULL, [1, 2]),
    "prm_minibatches": (FULL, [1, 2]),
    "unparsed": (FULL, ["mask", "wrong"]),
}
"""For each option values that must each lead to other weights. Left out are values that are the same by definition, and
tested as such below: `leave_one_out` is rloo's own baseline, `after` is `reverse` for losses without siblings,
`reinforce_pp` is `reinforce` plus whitening; k1 is refused as a loss."""
SAME_BY_DEFINITION = {
    "process.baseline": {"leave_one_out"},
    "process.update": {"after"},
    "advantage": {"reinforce_pp"},
    "kl.estimator": {"k1"},
}


def two_steps(algorithm: Algorithm, verifier: Any = None) -> tuple[Roles, StepResult]:
    config = rl_config(algorithm, prompts_per_step=4)
    roles, stream = make_roles(config, verifier or FailingVerifier()), PromptStream(PROMPTS, seed=0)
    one_step(config, roles, stream, step=1)
    return roles, one_step(config, roles, stream, step=2)


def fingerprint(roles: Roles) -> tuple[str, ...]:
    """Of the weights of everything that learns."""
    learners = [roles.policy, prm_of(roles).learner if roles.prm else None, roles.critic]
    return tuple(digest(learner) for learner in learners if learner is not None)


def literal_options() -> Iterator[tuple[str, set[Any]]]:
    for section, cls in (
        ("", Algorithm),
        ("process.", Process),
        ("kl.", KL),
        ("filter.", Filter),
        ("outcome.", Outcome),
    ):
        hints = get_type_hints(cls)
        for field in fields(cls):
            if get_args(hints[field.name]):
                yield f"{section}{field.name}", set(get_args(hints[field.name]))


def test_no_option_is_left_out() -> None:
    assert set(OPTIONS) == set(leaf_keys(Algorithm))
    for key, values in literal_options():
        assert set(OPTIONS[key][1]) | SAME_BY_DEFINITION.get(key, set()) == values, key


@pytest.mark.parametrize("key", OPTIONS)
def test_each_value_of_an_option_leads_to_other_weights(key: str) -> None:
    base, values = OPTIONS[key]
    seen: dict[tuple[str, ...], Any] = {}
    for value in values:
        roles, result = two_steps(varied(base, key, value))
        assert all(math.isfinite(v) for v in result.metrics.values()), (value, result.metrics)
        print_ = fingerprint(roles)
        assert print_ not in seen, f"{key} = {value!r} does what {seen[print_]!r} does"
        seen[print_] = value


def test_what_is_the_same_by_definition_is_the_same() -> None:
    def weights(*changes: tuple[str, Any]) -> tuple[str, ...]:
        algorithm = FULL
        for key, value in changes:
            algorithm = varied(algorithm, key, value)
        return fingerprint(two_steps(algorithm)[0])

    assert weights(("process.baseline", "leave_one_out")) == weights()
    assert weights(("process.update", "reverse")) == weights(("process.update", "after"))
    assert weights(("advantage", "reinforce_pp")) == weights(("advantage", "reinforce"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_takes_two_steps(name: str) -> None:
    before = fingerprint(make_roles(rl_config(PRESETS[name])))
    roles, result = two_steps(PRESETS[name])
    assert all(math.isfinite(v) for v in result.metrics.values())
    assert all(a != b for a, b in zip(before, fingerprint(roles), strict=True))
    assert (roles.prm is not None) == name.startswith("prime")
    assert (roles.critic is not None) == name.endswith("ppo")
    if name.startswith("prime"):
        assert result.metrics["prm/reward_std"] > 0
        assert result.metrics["advantage/std"] > 0


# ---------------------------------------------------------------------------------------------- the PRM's order


def spied(algorithm: Algorithm, **options: Any) -> tuple[Any, Roles, list[str]]:
    """Configuration, roles and a diary of what policy, PRM and its reference are asked."""
    config = rl_config(algorithm, **options)
    roles = make_roles(config)
    diary: list[str] = []
    if roles.prm is not None:
        prm = prm_of(roles)
        prm.learner = Spy(prm.learner, "prm", diary)
        if prm.reference is not None:
            prm.reference = Spy(prm.reference, "prm_reference", diary)
    reference: Any = None if roles.reference is None else Spy(roles.reference, "reference", diary)
    critic: Any = None if roles.critic is None else Spy(roles.critic, "critic", diary)
    policy: Any = Spy(roles.policy, "policy", diary)
    return config, replace(roles, policy=policy, reference=reference, critic=critic), diary


def untouched_score(result: StepResult, algorithm: Algorithm) -> Tensor:
    """What the PRM said before it learned anything."""
    return prm_of(make_roles(rl_config(algorithm))).score(result.batch)


@pytest.mark.parametrize(
    ("update", "loss", "asked"),
    [
        ("after", "ce", ["prm_reference.forward", "prm.update 2"]),
        ("before", "ce", ["prm_reference.forward", "prm.update 2", "prm.forward"]),
        ("none", "ce", ["prm_reference.forward", "prm.forward"]),
        ("reverse", "ce", ["prm_reference.forward", "prm.update 2"]),
        ("reverse", "dpo", ["prm_reference.forward", "prm.forward", "prm.update 2"]),
        ("before", "bon_rm", ["prm_reference.forward", "prm.forward", "prm.update 2", "prm.forward"]),
    ],
)
def test_no_forward_pass_is_made_in_vain(update: Any, loss: Any, asked: list[str]) -> None:
    algorithm = Algorithm(process=Process(coef=1.0, update=update, loss=loss), prm_minibatches=2, num_minibatches=3)
    config, roles, diary = spied(algorithm)
    one_step(config, roles)
    assert diary == [*asked, "policy.update 3"]


def test_an_outcome_only_step_asks_nothing_but_the_policy() -> None:
    config, roles, diary = spied(Algorithm())
    one_step(config, roles)
    assert diary == ["policy.update 1"]


def test_kl_and_values_cost_one_forward_pass_each() -> None:
    config, roles, diary = spied(Algorithm(advantage="gae", kl=KL(coef=0.1), num_minibatches=2))
    one_step(config, roles)
    assert diary == ["reference.forward", "critic.forward", "policy.update 2", "critic.update 2"]


def test_after_rewards_by_the_prm_from_before_its_update() -> None:
    algorithm = Algorithm(process=Process(coef=1.0, update="after"))
    config = rl_config(algorithm)
    roles = make_roles(config)
    result = one_step(config, roles)
    assert result.process is not None
    torch.testing.assert_close(result.process.reward_BT, untouched_score(result, algorithm))
    after_BT = prm_of(roles).score(result.batch)
    assert float((after_BT - result.process.reward_BT).abs().max()) > 1e-3


def test_before_rewards_by_the_prm_from_after_its_update() -> None:
    algorithm = Algorithm(process=Process(coef=1.0, update="before"))
    config = rl_config(algorithm)
    roles = make_roles(config)
    result = one_step(config, roles)
    assert result.process is not None
    assert torch.equal(result.process.reward_BT, prm_of(roles).score(result.batch))
    assert float((untouched_score(result, algorithm) - result.process.reward_BT).abs().max()) > 1e-3


def test_none_leaves_every_byte_of_the_prm_as_it_was() -> None:
    algorithm = Algorithm(process=Process(coef=1.0, update="none"))
    config = rl_config(algorithm)
    roles = make_roles(config)
    before = digest(prm_of(roles).learner)
    result = one_step(config, roles)
    assert digest(prm_of(roles).learner) == before
    assert result.process is not None
    assert torch.equal(result.process.reward_BT, untouched_score(result, algorithm))


def test_with_more_minibatches_the_later_rewards_come_from_an_updated_prm() -> None:
    algorithm = Algorithm(process=Process(coef=1.0), prm_minibatches=3)  # one group of 4 in each
    result = one_step(config := rl_config(algorithm), make_roles(config))
    assert result.process is not None
    change_B = (result.process.reward_BT - untouched_score(result, algorithm)).abs().amax(1)
    assert float(change_B[:4].max()) < 1e-6
    assert float(change_B[4:].min()) > 1e-4


@pytest.mark.parametrize("loss", ["dpo", "bon_acc", "bon_rm"])
@pytest.mark.parametrize("update", ["reverse", "before"])
def test_siblings_are_compared_by_their_scores_before_the_update(loss: Any, update: Any) -> None:
    algorithm = Algorithm(process=Process(coef=1.0, update=update, loss=loss), prm_minibatches=2)
    config, roles, _ = spied(algorithm)
    result = one_step(config, roles)
    score_BT = untouched_score(result, algorithm)
    q = score_BT.sum(1).tolist()
    outcome, group = result.batch.outcome_B.tolist(), result.batch.group_B.tolist()
    opponents = []
    for i in range(len(q)):
        better = outcome[i] > 0
        others = [
            q[j]
            for j in range(len(q))
            if group[j] == group[i] and (outcome[j] < outcome[i] if better else outcome[j] > outcome[i])
        ]
        opponents.append(sum(others) / len(others) if others else 0.0)
    spy: Any = prm_of(roles).learner
    seen = torch.cat([-part.offset_B for part in spy.minibatches]).tolist()
    assert seen == pytest.approx(opponents, abs=1e-5)
    weight_B = torch.cat([part.weight_B for part in spy.minibatches])
    if loss == "dpo":  # a mean over the rows of each mini-batch, of two groups and of one: siblings stay together
        assert weight_B.tolist() == pytest.approx([1 / 8] * 8 + [1 / 4] * 4)
    else:  # a sum, with the weight of a best-of-n
        ranked_by = result.batch.outcome_B if loss == "bon_acc" else torch.tensor(q)
        torch.testing.assert_close(weight_B, best_of_n_weight(ranked_by, result.batch.group_B))


def test_the_offset_of_ce_offset_is_the_groups_log_odds() -> None:
    config, roles, _ = spied(Algorithm(process=Process(coef=1.0, loss="ce_offset")))
    result = one_step(config, roles)
    spy: Any = prm_of(roles).learner
    assert torch.equal(spy.minibatches[0].offset_B, group_log_odds(result.batch.outcome_B, result.batch.group_B))


def test_references() -> None:
    rewards = {}
    for reference in ("freeze", "policy", "none"):
        process = Process(coef=1.0, update="none", reference=reference)  # type: ignore[arg-type]
        config = rl_config(Algorithm(process=process))
        roles = make_roles(config)
        result = one_step(config, roles)
        assert result.process is not None
        rewards[reference] = result.process.reward_BT
        logp_BT = prm_of(roles).learner.outputs(result.batch).output_BT
        frozen = make_roles(rl_config(Algorithm(kl=KL(coef=1.0)))).reference
        assert frozen is not None
        against = {
            "freeze": frozen.outputs(result.batch).output_BT,
            "policy": result.batch.behaviour_logp_BT,
            "none": torch.zeros_like(logp_BT),
        }
        torch.testing.assert_close(result.process.reward_BT, 0.05 * (logp_BT - against[reference]))
    # on the first step the policy is the reference, to float32's rounding
    torch.testing.assert_close(rewards["freeze"], rewards["policy"], atol=1e-6, rtol=0)


def test_replayed_batches_come_first_and_the_oldest_leave() -> None:
    algorithm = Algorithm(process=Process(coef=1.0, replay_batches=2), prm_minibatches=2)
    config, roles, diary = spied(algorithm)
    stream = PromptStream(PROMPTS, seed=0)
    results = [one_step(config, roles, stream, step=step) for step in range(1, 5)]
    assert [line for line in diary if line.startswith("prm.update")] == [f"prm.update {n}" for n in (2, 4, 6, 6)]
    spy: Any = prm_of(roles).learner
    last = spy.minibatches[-6:]  # of steps 2, 3 and 4
    for k, result in enumerate(results[1:]):
        outcome_B = torch.cat([part.outcome_B for part in last[2 * k : 2 * k + 2]])
        assert torch.equal(outcome_B, result.batch.outcome_B)
    assert prm_of(roles).replay == last[2:]
    fresh = results[3].process
    assert fresh is not None
    assert fresh.reward_BT.shape == results[3].batch.token_BT.shape  # the rewards are of the new batch alone


# ---------------------------------------------------------------------------------------------- the policy's update


@pytest.mark.parametrize(("key", "role"), [("num_minibatches", "policy"), ("prm_minibatches", "prm")])
@pytest.mark.parametrize("number", [1, 3])
def test_a_minibatch_is_an_optimizer_step(key: str, role: str, number: int) -> None:
    config = rl_config(replace(Algorithm(process=Process(coef=1.0)), **{key: number}))
    roles = make_roles(config)
    one_step(config, roles)
    learner: Any = roles.policy if role == "policy" else prm_of(roles).learner
    other: Any = prm_of(roles).learner if role == "policy" else roles.policy
    assert (learner.step, other.step) == (number, 1)


def test_the_minibatches_are_a_shuffled_partition_of_the_rows() -> None:
    config, roles, _ = spied(Algorithm(num_minibatches=5))
    result = one_step(config, roles)
    spy: Any = roles.policy
    assert [len(part.outcome_B) for part in spy.minibatches] == [3, 3, 2, 2, 2]
    width = result.batch.token_BT.shape[1]
    got = [(*row.tolist(), *[0] * (width - len(row))) for part in spy.minibatches for row in part.token_BT]
    wanted = [tuple(row.tolist()) for row in result.batch.token_BT]
    assert got != wanted
    assert sorted(got) == sorted(wanted)
    for part in spy.minibatches:  # token_mean: the weights of a mini-batch add up to 1
        assert float(part.weight_BT.sum()) == pytest.approx(1.0)


def step_with(algorithm: Algorithm, learning_rate: float = 1e-2) -> tuple[Roles, StepResult]:
    config = rl_config(algorithm)
    config = replace(config, policy=replace(config.policy, learning_rate=learning_rate))
    roles = make_roles(config)
    return roles, one_step(config, roles)


def test_the_entropy_bonus_raises_entropy_and_a_negative_one_lowers_it() -> None:
    entropy = {}
    for coef in (-10.0, 0.0, 10.0):
        roles, result = step_with(Algorithm(outcome=Outcome(coef=0.0), entropy_coef=coef))
        learner: Any = roles.policy
        mask_BT = result.batch.response_mask_BT
        entropy[coef] = float(learner.outputs(result.batch, entropy=True).entropy_BT[mask_BT].mean())
        if coef == 0:
            assert result.metrics["policy/grad_norm"] == 0  # no advantage, no bonus: nothing moves
            assert result.metrics["entropy"] == pytest.approx(entropy[0.0], rel=1e-6)
    assert entropy[-10.0] < entropy[0.0] - 1e-3 < entropy[0.0] + 1e-3 < entropy[10.0]


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_kl_in_the_loss_pulls_the_policy_back(estimator: Any) -> None:
    """A policy that has left its reference comes nearer by steps of the KL term alone."""
    algorithm = Algorithm(outcome=Outcome(coef=0.0), kl=KL(coef=1.0, estimator=estimator))
    config = rl_config(algorithm, reference_path=str(micro_model(2)), prm_path="")
    config = replace(config, policy=replace(config.policy, learning_rate=1e-3))
    roles, stream = make_roles(config), PromptStream(PROMPTS, seed=0)
    kl = [one_step(config, roles, stream, step=step).metrics["kl"] for step in range(1, 13)]
    assert sum(kl[-3:]) < 0.9 * sum(kl[:3])
    free = make_roles(config)
    still = replace(config, algorithm=replace(algorithm, kl=KL(coef=1.0, where="reward")))
    assert one_step(still, free).metrics["kl"] == pytest.approx(kl[0])  # it is observed wherever it acts


def test_the_clip_holds_the_ratio_from_both_sides() -> None:
    """In the second mini-batch the policy has moved; with little room for the ratio, tokens that moved as wished are clipped."""
    clipped, tight = {}, 1e-3
    for low, high in ((tight, tight), (1.0, 1e9), (tight, 1e9), (1.0, tight)):
        _, result = step_with(Algorithm(num_minibatches=2, clip_low=low, clip_high=high))
        clipped[low, high] = result.metrics["clip_ratio/region_mean"]
    assert clipped[1.0, 1e9] == 0
    assert clipped[tight, 1e9] > 0.05
    assert clipped[1.0, tight] > 0.05
    assert clipped[tight, tight] == pytest.approx(clipped[tight, 1e9] + clipped[1.0, tight], rel=1e-4)


def test_the_first_minibatch_is_on_policy_exactly() -> None:
    """Behaviour log-probs stand for the old ones: the sampler and the learner say the same."""
    _, result = step_with(Algorithm())
    assert result.metrics["sampling/logp_difference"] < 1e-5
    assert result.metrics["clip_ratio/region_mean"] == 0
    # at ratio 1 the loss is minus the token mean of the advantage
    mask_BT = result.batch.response_mask_BT
    mean = float(result.advantages.advantage_BT[mask_BT].mean())
    assert result.metrics["policy/loss"] == pytest.approx(-mean, abs=1e-5)


def test_warm_up_scales_the_process_advantage_by_the_step() -> None:
    spread = {}
    for warmup_steps, step in ((0, 1), (3, 1), (3, 2), (3, 4), (3, 9)):
        config = rl_config(Algorithm(process=Process(coef=1.0, warmup_steps=warmup_steps)))
        made = make_roles(config)
        # the same prompts, seed and models at every step: only the coefficient differs
        result = one_step(config, made, step=step)
        spread[warmup_steps, step] = result.metrics["advantage/process_std"]
        plain = one_step(rl_config(Algorithm(process=Process(coef=1.0))), make_roles(config), step=step)
        share = spread[warmup_steps, step] / plain.metrics["advantage/process_std"]
        assert share == pytest.approx(min(1.0, step / (warmup_steps + 1)), rel=1e-5)


def test_the_gate_multiplies_the_coefficient_by_the_prms_trust() -> None:
    """Trust starts at 0 and takes a fifth of max(0, 2 accuracy - 1) at each step."""
    spread: dict[str, list[float]] = {}
    trust, wanted = 0.0, []
    for gate in ("none", "accuracy"):
        config = rl_config(Algorithm(process=Process(coef=1.0, gate=gate)))  # type: ignore[arg-type]
        config = replace(config, policy=replace(config.policy, learning_rate=0.0))  # the same rollouts with both
        roles, stream = make_roles(config), PromptStream(PROMPTS, seed=0)
        results = [one_step(config, roles, stream, step=step).metrics for step in (1, 2, 3)]
        spread[gate] = [metrics["advantage/process_std"] for metrics in results]
        if gate == "accuracy":
            for metrics in results:
                trust = 0.8 * trust + 0.2 * max(0.0, 2 * metrics["prm/accuracy"] - 1)
                assert metrics["prm/trust"] == pytest.approx(trust)
                wanted.append(trust)
    assert max(wanted) > 0
    assert spread["accuracy"] == pytest.approx([t * s for t, s in zip(wanted, spread["none"], strict=True)], rel=1e-4)


def test_a_batch_that_measures_nothing_leaves_the_trust_as_it_is() -> None:
    algorithm = Algorithm(process=Process(coef=1.0, gate="accuracy"), filter=Filter(enabled=False))
    config = rl_config(algorithm)
    roles = make_roles(config, AllRight())
    prm_of(roles).trust = 0.6
    assert one_step(config, roles).metrics["prm/trust"] == 0.6


class AllRight:
    def verify(self, responses: Any) -> list[Verdict]:
        return [Verdict(status="ok", reward=1.0) for _ in responses]


def test_a_stop_string_is_no_end_token_so_its_reward_is_not_taken() -> None:
    algorithm = Algorithm(process=Process(coef=1.0, eos_reward=False), filter=Filter(enabled=False))
    config = rl_config(algorithm, sampling=SamplingParams(max_tokens=48, stop=("=", "1")), prompts_per_step=8)
    result = one_step(config, make_roles(config))
    assert result.process is not None
    placed_BT = placed_process(result.process.reward_BT, result.batch, algorithm.process)
    seen = set()
    for i, member in enumerate(m for group in result.collected.kept for m in group.members):
        last = int(result.batch.length_B[i]) - 1
        ended = member.rollout.token_ids[-1] == 1  # the tokenizer's end token
        assert float(placed_BT[i, last]) == (0.0 if ended else float(result.process.reward_BT[i, last]))
        seen.add((member.rollout.finish, ended))
    assert seen >= {("stop", True), ("stop", False)}


# ---------------------------------------------------------------------------------------------- remax and gae


def test_remax_compares_with_the_greedy_response() -> None:
    algorithm = Algorithm(advantage="remax", process=Process(coef=1.0, normaliser="none"))
    config = rl_config(algorithm)
    result = one_step(config, make_roles(config))
    fresh = make_roles(config)
    greedy = SamplingParams(temperature=0.0, max_tokens=config.sampling.max_tokens)
    prompts = [group.prompt for group in result.collected.kept]
    groups = fresh.sampler.sample(prompts, n=1, params=greedy, seed=123)
    judged = CoinVerifier().verify([(g.prompt, g.members[0].text) for g in groups])
    counted, sampled = step_metrics(result, None, algorithm), [m for g in result.collected.sampled for m in g.members]
    assert counted["step/rollouts"] == len(sampled) + len(prompts)  # the greedy responses cost as much
    assert counted["step/tokens"] == sum(len(m.rollout.token_ids) for m in sampled) + sum(
        len(g.members[0].token_ids) for g in groups
    )
    rewards = [float(v.reward or 0) for v in judged]
    process = result.process
    assert process is not None
    parts = one_step(replace(config, algorithm=varied(algorithm, "process.coef", 0.0)), make_roles(config))
    for i, group in enumerate(result.batch.group_B.tolist()):
        mask_T = result.batch.response_mask_BT[i]
        wanted = result.batch.outcome_B[i] - rewards[group]
        outcome_T = parts.advantages.advantage_BT[i][mask_T]
        assert outcome_T.tolist() == pytest.approx([float(wanted)] * len(outcome_T))
        # process: each token less the greedy response's mean, summed to the end; so the last is r - mean
        rest_T = (result.advantages.advantage_BT[i] - parts.advantages.advantage_BT[i])[mask_T]
        means = [float(r - a) for r, a in zip(process.reward_BT[i][mask_T][-1:], rest_T[-1:], strict=True)]
        step = [float(a - b - r) for a, b, r in zip(rest_T, rest_T[1:], process.reward_BT[i][mask_T], strict=False)]
        assert all(value == pytest.approx(-means[0], abs=1e-5) for value in step)


class GreedyUnread(CoinVerifier):
    """The responses of all but one prompt cannot be read in the call that has one response for each: the greedy one."""

    def __init__(self, readable: int) -> None:
        self.readable = readable

    def verify(self, responses: Any) -> list[Verdict]:
        verdicts = super().verify(responses)
        if len({prompt.id for prompt, _ in responses}) < len(responses):
            return verdicts
        unread = Verdict(status="unparsed", reward=None)
        return [v if i < self.readable else unread for i, v in enumerate(verdicts)]


def test_groups_whose_greedy_response_is_undecided_are_dropped() -> None:
    config = rl_config(Algorithm(advantage="remax"))
    result = one_step(config, make_roles(config, GreedyUnread(1)))
    assert len(result.collected.kept) == 1
    assert set(result.batch.group_B.tolist()) == {0}
    with pytest.raises(TrainingError, match="remax: none of 3 greedy responses could be judged"):
        one_step(config, make_roles(config, GreedyUnread(0)))


def test_gae_learns_from_its_value_model() -> None:
    algorithm = Algorithm(advantage="gae", process=Process(coef=1.0))
    config, roles, _ = spied(algorithm)
    stream = PromptStream(PROMPTS, seed=0)
    first = one_step(config, roles, stream)
    # The value head starts at 0, so the first advantages are the returns of all rewards.
    assert first.advantages.return_BT is not None
    assert torch.equal(first.advantages.advantage_BT, first.advantages.return_BT)
    second = one_step(config, roles, stream, step=2)
    assert second.advantages.return_BT is not None
    spy: Any = roles.critic
    old_value_BT = spy.minibatches[-1].old_value_BT
    assert old_value_BT.any()
    rows = spy.minibatches[-1].outcome_B.argsort(stable=True)  # shuffled: compared by what does not depend on the order
    value_BT = second.advantages.return_BT - second.advantages.advantage_BT
    assert float(old_value_BT[rows].sum()) == pytest.approx(float(value_BT.sum()), abs=1e-4)
    for _ in range(30):  # on targets that stay as they are the loss falls
        last = spy.update([spy.minibatches[-1]], value_loss(10.0)).metrics["loss"]
    assert last < 0.5 * second.metrics["critic/loss"]


def test_a_step_depends_on_its_seed_and_number_alone() -> None:
    def weights(step: int, seed: int) -> str:
        config = rl_config(Algorithm(process=Process(coef=1.0)))
        roles = make_roles(config)
        one_step(config, roles, step=step, seed=seed)
        return digest(roles.policy)

    assert weights(1, 0) == weights(1, 0)
    assert len({weights(1, 0), weights(2, 0), weights(1, 1)}) == 3


def test_prompts_keep_their_own_answers() -> None:
    """Each verdict goes to the response that it judges, whatever the order of the work."""

    class Remember:
        asked: list[tuple[Prompt, str]]

        def verify(self, responses: Any) -> list[Verdict]:
            self.asked = list(responses)
            return [Verdict(status="ok", reward=checksum(prompt.id + text) / 255) for prompt, text in responses]

    config = rl_config(Algorithm(filter=Filter(enabled=False)))
    result = one_step(config, make_roles(config, Remember()))
    for group in result.collected.kept:
        for member in group.members:
            assert member.rollout.prompt_id == group.prompt.id
            assert member.verdict.reward == checksum(group.prompt.id + member.rollout.text) / 255


@pytest.mark.parametrize("reference", ["freeze", "policy", "none"])
def test_a_saved_prm_is_read_by_load_prm(reference: Any, tmp_path: Path) -> None:
    """Its folder says beta and reference, so that it scores as the run did."""
    config = rl_config(Algorithm(process=Process(coef=1.0, beta=0.3, reference=reference)))
    roles = make_roles(config)
    one_step(config, roles)
    roles.policy.save(tmp_path / "policy")
    assert roles.prm is not None
    roles.prm.save(tmp_path / "prm")
    loaded = load_prm(tmp_path / "prm", device="cpu")
    steps = ("3+8=11", "11+5=16#16")
    solution = Solution(id="", prompt=PROMPTS[0], steps=steps, separator=";")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "prm")
    laid = as_response(tokenizer, solution)
    batch = fixed_batch([(laid.token_ids, laid.prompt_length)])
    against = {
        "freeze": make_roles(rl_config(Algorithm(kl=KL(coef=1.0)))).reference,
        "policy": roles.policy,
        "none": None,
    }[reference]
    ratio_BT = prm_of(roles).learner.outputs(batch).output_BT
    if against is not None:
        ratio_BT = ratio_BT - against.outputs(batch).output_BT
    ratio_T = ratio_BT[0, laid.prompt_length :]
    wanted = [0.3 * float(ratio_T[torch.tensor(laid.step_of_token) == k].sum()) for k in range(2)]
    (found,) = loaded.score_all([solution])
    assert isinstance(found, StepRewards)
    assert found.values == pytest.approx(wanted, abs=1e-5)
