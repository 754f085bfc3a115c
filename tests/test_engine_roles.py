"""Roles put together: separate models, or adapters on one base that do not touch each other; saving; what is refused."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import QUESTIONS, random_batch
from peft import PeftModel
from rl_setup import make_roles, micro_model, rl_config
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from prmkit.config import ModelConfig, OptimizerConfig
from prmkit.data.types import SamplingParams
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.roles import LocalRoles, local_roles
from prmkit.engines.local.single import sft_learner
from prmkit.errors import ConfigError, ModelError
from prmkit.models.load import load_model, turn_off_dropout
from prmkit.models.tiny import make_tiny, tiny_tokenizer
from prmkit.protocols import Verifier
from prmkit.rl.algorithm import KL, Algorithm, Process
from prmkit.rl.config import RLConfig
from prmkit.rl.process import ImplicitPRM
from prmkit.tasks.arithmetic import SPLIT, arithmetic_prompts, demonstrations
from prmkit.train.config import SFTConfig
from prmkit.train.sft import SFTBatch, encode_all, sft_batch, sft_loss

LENGTHS = [(3, 5), (7, 9), (1, 14), (5, 5)]


class NoVerifier:
    """Never asked here."""

    def verify(self, responses: Any) -> Any:
        raise AssertionError


VERIFIER: Verifier = NoVerifier()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "base", seed=3, size="micro")


def assemble(base: Path, **options: Any) -> LocalRoles:
    model_options = {k: options.pop(k) for k in ("lora_rank", "dtype", "gradient_checkpointing") if k in options}
    config = RLConfig(
        **{
            "model": ModelConfig(path=str(base), device="cpu", **model_options),
            "algorithm": Algorithm(process=Process(coef=1.0), kl=KL(coef=0.1)),
            "policy": OptimizerConfig(learning_rate=1e-2),
            "prm": OptimizerConfig(learning_rate=1e-2),
            **options,
        }
    )
    return local_roles(config, VERIFIER, SPLIT, base.parent)


def prm_of(made: LocalRoles) -> ImplicitPRM:
    prm = made.roles.prm
    assert isinstance(prm, ImplicitPRM)
    return prm


def learner_of(made: LocalRoles, role: str) -> Any:
    return made.roles.policy if role == "policy" else prm_of(made).learner


def three_outputs(made: LocalRoles, batch: SFTBatch) -> dict[str, Tensor]:
    """Log-probs of policy, PRM and reference."""
    reference = made.roles.reference
    assert reference is not None
    roles = {"policy": made.roles.policy, "prm": prm_of(made).learner, "reference": reference}
    return {name: role.outputs(batch).output_BT for name, role in roles.items()}


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_the_start_all_roles_agree_exactly(base: Path, lora_rank: int, dtype: str) -> None:
    outputs = three_outputs(assemble(base, lora_rank=lora_rank, dtype=dtype), random_batch(LENGTHS))
    assert outputs["policy"].any()
    assert torch.equal(outputs["policy"], outputs["reference"])
    assert torch.equal(outputs["prm"], outputs["reference"])


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("trained", ["policy", "prm"])
def test_training_one_role_moves_that_role_alone(base: Path, lora_rank: int, trained: str) -> None:
    made, batch = assemble(base, lora_rank=lora_rank), random_batch(LENGTHS)
    before = three_outputs(made, batch)
    for _ in range(3):
        learner_of(made, trained).update([batch], sft_loss)
    after = three_outputs(made, batch)
    for name in before:
        assert torch.equal(before[name], after[name]) == (name != trained), name
    assert float(after[trained].sum()) > float(before[trained].sum())  # and it learned


def test_adapters_share_one_base_that_never_moves(base: Path) -> None:
    made, batch = assemble(base, lora_rank=4), random_batch(LENGTHS)
    policy, prm = made.roles.policy, prm_of(made).learner
    shared: PeftModel = policy.model.model  # type: ignore[attr-defined]
    assert prm.model.model is shared  # type: ignore[attr-defined]
    names = [{name for name, _ in role.parameters} for role in (policy, prm)]  # type: ignore[attr-defined]
    assert not names[0] & names[1]
    # per layer 4 attention and 3 MLP matrices, A and B of each; 2 layers
    assert [len(n) for n in names] == [28, 28]
    frozen = {n: p.detach().clone() for n, p in shared.named_parameters() if "lora_" not in n}
    for role in (policy, prm):
        role.update([batch], sft_loss)
    assert all(torch.equal(frozen[n], p) for n, p in shared.named_parameters() if n in frozen)
    stored = load_file(base / "model.safetensors")
    embedding = shared.get_base_model().model.embed_tokens.weight
    assert torch.equal(embedding, stored["model.embed_tokens.weight"])


def test_roles_can_take_turns_inside_one_pass_of_gradients(base: Path) -> None:
    """A forward pass of another role between a role's forward and backward pass does not change its gradient."""
    made, batch = assemble(base, lora_rank=4), random_batch(LENGTHS)
    policy, prm = learner_of(made, "policy"), learner_of(made, "prm")

    def grads(interrupted: bool) -> list[Tensor]:
        output_BT = policy.model.outputs(batch).output_BT
        if interrupted:
            prm.outputs(batch)
            assert made.roles.reference is not None
            made.roles.reference.outputs(batch)
        return list(torch.autograd.grad(output_BT.sum(), [p for _, p in policy.parameters]))

    for a, b in zip(grads(False), grads(True), strict=True):
        assert torch.equal(a, b)


def test_an_adapters_sampler_speaks_for_the_policy(base: Path) -> None:
    made, batch = assemble(base, lora_rank=4), random_batch(LENGTHS)
    for role in ("policy", "policy", "prm"):
        learner_of(made, role).update([batch], sft_loss)
    prm_of(made).learner.outputs(batch)  # the PRM spoke last
    groups = made.roles.sampler.sample(QUESTIONS, n=2, params=SamplingParams(max_tokens=12), seed=0)
    speaker: LanguageModel = made.roles.policy.model  # type: ignore[attr-defined]
    with torch.no_grad(), speaker.speaking():
        for rollout in [r for g in groups for r in g.members]:
            ids = torch.tensor([[*rollout.prompt_token_ids, *rollout.token_ids]])
            logp_TV = speaker.model(input_ids=ids).logits[0].log_softmax(-1)[len(rollout.prompt_token_ids) - 1 : -1]
            own_T = logp_TV.gather(1, torch.tensor(rollout.token_ids)[:, None]).squeeze(1)
            torch.testing.assert_close(torch.tensor(rollout.logprobs), own_T, rtol=1e-5, atol=1e-5)
    assert {r.policy_version for g in groups for r in g.members} == {2}


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("role", ["policy", "prm"])
def test_a_saved_role_loads_with_transformers(base: Path, lora_rank: int, role: str, tmp_path: Path) -> None:
    made, batch = assemble(base, lora_rank=lora_rank), random_batch(LENGTHS)
    learner = learner_of(made, role)
    learner.update([batch], sft_loss)
    learner.save(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        output_BT = LanguageModel(model=loaded).outputs(batch).output_BT
    torch.testing.assert_close(output_BT, learner.outputs(batch).output_BT, rtol=1e-6, atol=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == made.tokenizer.get_vocab()


def test_an_adapters_configuration_is_the_same_text_in_every_process(base: Path, tmp_path: Path) -> None:
    """PEFT holds the names of modules in sets, whose order depends on the hash seed."""
    assemble(base, lora_rank=2).roles.policy.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert len(saved["target_modules"]) > 4
    assert saved["target_modules"] == sorted(saved["target_modules"])


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_critic_starts_at_0_learns_alone_and_is_saved(base: Path, lora_rank: int, tmp_path: Path) -> None:
    algorithm = Algorithm(advantage="gae", process=Process(coef=1.0))
    made, batch = assemble(base, lora_rank=lora_rank, algorithm=algorithm), random_batch(LENGTHS)
    critic: Any = made.roles.critic
    assert not critic.outputs(batch).output_BT.any()
    policy_before = made.roles.policy.outputs(batch).output_BT
    critic.update([batch], sft_loss)  # any loss: raise the values
    critic.update([batch], sft_loss)
    assert critic.outputs(batch).output_BT[batch.response_mask_BT].mean() > 0
    assert torch.equal(made.roles.policy.outputs(batch).output_BT, policy_before)
    critic.save(tmp_path / "critic")
    head = load_file(tmp_path / "critic" / "value_head.safetensors")
    assert torch.equal(head["weight"], critic.model.head.weight)
    AutoModelForCausalLM.from_pretrained(tmp_path / "critic")


def test_learner_state_goes_round_with_adapters(base: Path) -> None:
    batch = random_batch(LENGTHS)
    first, second = (assemble(base, lora_rank=4) for _ in range(2))
    learner_of(first, "policy").update([batch], sft_loss)
    learner_of(second, "policy").load_state_dict(deepcopy(learner_of(first, "policy").state_dict()))
    for made in (first, second):
        learner_of(made, "policy").update([batch], sft_loss)
    assert torch.equal(learner_of(first, "policy").outputs(batch).output_BT, three_outputs(second, batch)["policy"])


def test_the_same_seed_makes_the_same_adapters_and_another_seed_others(base: Path) -> None:
    before = torch.get_rng_state()
    drawn = [dict(learner_of(assemble(base, lora_rank=4, seed=s), "policy").parameters) for s in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    name = next(n for n in drawn[0] if "lora_A" in n)
    assert torch.equal(drawn[0][name], drawn[1][name])
    assert not torch.equal(drawn[0][name], drawn[2][name])


def test_roles_exist_only_where_the_algorithm_asks_for_them(base: Path) -> None:
    for lora_rank in (0, 4):
        plain = assemble(base, lora_rank=lora_rank, algorithm=Algorithm()).roles
        assert (plain.prm, plain.reference, plain.critic) == (None, None, None)
        behaviour = Algorithm(process=Process(coef=1.0, reference="policy"))
        prm = prm_of(assemble(base, lora_rank=lora_rank, algorithm=behaviour))
        assert prm.reference is None
        frozen = assemble(base, lora_rank=lora_rank, algorithm=Algorithm(process=Process(coef=1.0)))
        assert frozen.roles.reference is None  # the KL term's, which is off
        assert prm_of(frozen).reference is not None


def test_the_policy_and_its_kl_reference_speak_at_the_sampling_temperature(base: Path) -> None:
    warm = assemble(base, sampling=SamplingParams(temperature=0.5))
    batch = random_batch(LENGTHS)
    outputs = three_outputs(warm, batch)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        halved, plain = (LanguageModel(model=model, temperature=t).outputs(batch).output_BT for t in (0.5, 1.0))
    torch.testing.assert_close(outputs["policy"], halved)
    torch.testing.assert_close(outputs["reference"], halved)
    torch.testing.assert_close(outputs["prm"], plain)


def test_gradient_checkpointing_and_threads_are_taken_from_the_configuration(base: Path) -> None:
    made = assemble(base, gradient_checkpointing=True)
    assert made.roles.policy.model.model.is_gradient_checkpointing  # type: ignore[attr-defined]
    config = RLConfig(model=ModelConfig(path=str(base), device="cpu", threads=torch.get_num_threads()))
    local_roles(config, VERIFIER, SPLIT, base.parent)
    for lora_rank in (0, 4):
        batch = random_batch(LENGTHS)
        results = []
        for on in (False, True):
            made = assemble(base, lora_rank=lora_rank, gradient_checkpointing=on)
            results.append(made.roles.policy.update([batch, batch], sft_loss).metrics)
        assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize("key", ["prm_path", "reference_path"])
def test_a_role_with_another_vocabulary_is_refused(base: Path, tmp_path: Path, key: str) -> None:
    other = make_tiny(tmp_path / "other", seed=1, size="micro")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["x"])
    tokenizer.save_pretrained(other)
    model = AutoModelForCausalLM.from_pretrained(other)
    model.resize_token_embeddings(20, mean_resizing=False)
    model.save_pretrained(other)
    with pytest.raises(ModelError, match=rf"{key} = '.*other' has another vocabulary than model.path"):
        assemble(base, **{key: str(other)})


def test_roles_can_start_from_other_folders(base: Path, tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "other", seed=4, size="micro")
    batch = random_batch(LENGTHS)
    outputs = three_outputs(assemble(base, prm_path=str(other), reference_path=str(other)), batch)
    assert torch.equal(outputs["prm"], outputs["reference"])
    assert not torch.equal(outputs["policy"], outputs["prm"])


def test_adapters_leave_no_room_for_another_reference(base: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"with model\.lora_rank > 0 the reference is model\.path with its adapters off"
    ):
        assemble(base, lora_rank=4, reference_path=str(base))


def test_soft_capped_logits_are_refused(tmp_path: Path) -> None:
    config = Gemma3TextConfig(
        final_logit_softcapping=30.0,
        vocab_size=19,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        eos_token_id=1,
        pad_token_id=0,
    )
    Gemma3ForCausalLM(config).save_pretrained(tmp_path / "gemma3")
    tiny_tokenizer().save_pretrained(tmp_path / "gemma3")
    with pytest.raises(
        ModelError, match="gemma3: final_logit_softcapping is not supported; use a model family without"
    ):
        assemble(tmp_path / "gemma3")


def test_every_role_keeps_the_configured_precision(base: Path) -> None:
    made = assemble(base, dtype="bfloat16")
    assert {p.dtype for _, p in learner_of(made, "policy").parameters} == {torch.float32}
    reference: Any = made.roles.reference
    frozen = reference.model.model
    assert frozen.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert frozen.model.layers[0].input_layernorm.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in frozen.parameters())


def test_a_lora_checkpoint_loads_merged_and_bears_no_second_adapter(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "base", seed=0, size="micro")
    config = SFTConfig(model=ModelConfig(path=str(base), lora_rank=2, device="cpu"))
    learner, tokenizer = sft_learner(config, tmp_path)
    rows = encode_all(tokenizer, demonstrations(8, chain=2, misconceptions="carry", error_rate=0.0, seed=0), 64)
    for _ in range(2):  # B starts at 0: the second step moves A too
        learner.update([sft_batch(rows)], sft_loss)
    learner.save(tmp_path / "adapter")
    loaded, _ = load_model(ModelConfig(path=str(tmp_path / "adapter"), device="cpu"), work_dir=tmp_path, seed=0)
    plain, _ = load_model(ModelConfig(path=str(base), device="cpu"), work_dir=tmp_path, seed=0)
    batch = sft_batch(rows)
    trained = learner.outputs(batch).output_BT
    torch.testing.assert_close(
        LanguageModel(model=loaded).outputs(batch).output_BT.detach(), trained, atol=1e-5, rtol=0
    )
    assert not torch.allclose(LanguageModel(model=plain).outputs(batch).output_BT, trained, atol=1e-4)
    with pytest.raises(ConfigError, match=r"is a LoRA adapter, and model\.lora_rank > 0 would put another on top"):
        sft_learner(SFTConfig(model=ModelConfig(path=str(tmp_path / "adapter"), lora_rank=2, device="cpu")), tmp_path)
    shutil.rmtree(base)
    with pytest.raises(ModelError, match=r"its base .* is not there"):
        load_model(ModelConfig(path=str(tmp_path / "adapter"), device="cpu"), work_dir=tmp_path, seed=0)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_sampling_with_gradient_checkpointing_is_sampling_without(lora_rank: int, base: Path, tmp_path: Path) -> None:
    prompts, params = arithmetic_prompts(3, chain=2, seed=0), SamplingParams(max_tokens=6)

    def texts(checkpointing: bool) -> list[str]:
        model = ModelConfig(path=str(base), device="cpu", lora_rank=lora_rank, gradient_checkpointing=checkpointing)
        local = local_roles(RLConfig(model=model), VERIFIER, SPLIT, tmp_path)
        groups = local.roles.sampler.sample(prompts, n=2, params=params, seed=3)
        return [rollout.text for group in groups for rollout in group.members]

    assert texts(True) == texts(False)


def test_dropout_is_off_in_either_mode(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "base", seed=0, size="micro")
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"attention_dropout": 0.9}))
    model, _ = load_model(ModelConfig(path=str(base), device="cpu"), work_dir=tmp_path, seed=0)
    token_BT = torch.arange(2, 12)[None]
    torch.testing.assert_close(model.train(True)(token_BT).logits, model.train(False)(token_BT).logits, atol=0, rtol=0)


SMALL: dict[str, Any] = {"vocab_size": 19, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
NOISY: dict[str, tuple[Any, Any]] = {
    "starcoder2": (
        Starcoder2ForCausalLM,
        Starcoder2Config(**SMALL, num_key_value_heads=2, residual_dropout=0.5, embedding_dropout=0.5),
    ),
    "bloom": (BloomForCausalLM, BloomConfig(vocab_size=19, hidden_size=32, n_layer=1, n_head=4, hidden_dropout=0.5)),
    "falcon": (FalconForCausalLM, FalconConfig(**SMALL, hidden_dropout=0.5, attention_dropout=0.5)),
    "mixtral": (
        MixtralForCausalLM,
        MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4, router_jitter_noise=0.5),
    ),
}
"""Families that keep their noise under names of their own."""


@pytest.mark.parametrize("family", NOISY)
def test_noise_is_off_whatever_a_family_calls_it(family: str) -> None:
    constructor, settings = NOISY[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = constructor(settings)
        token_BT = torch.arange(2, 12)[None]
        quiet_BTV = model.eval()(token_BT, use_cache=False).logits
        assert not torch.equal(model.train()(token_BT, use_cache=False).logits, quiet_BTV), "there is noise at first"
        turn_off_dropout(model)
        assert torch.equal(model.train()(token_BT, use_cache=False).logits, quiet_BTV)


def test_a_width_of_ties_that_is_called_noise_stays() -> None:
    """PhiMoE's router reads `router_jitter_noise` in eval mode too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = PhimoeConfig(**SMALL, num_key_value_heads=2, num_local_experts=4, router_jitter_noise=0.3)
        model = PhimoeForCausalLM(settings).eval()
    token_BT = torch.arange(2, 12)[None]
    before_BTV = model(token_BT, use_cache=False).logits
    turn_off_dropout(model)
    assert torch.equal(model(token_BT, use_cache=False).logits, before_BTV)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sampling_leaves_adapters_and_base_in_the_mode_they_were_in(checkpointing: bool, base: Path) -> None:
    local = assemble(base, lora_rank=2, gradient_checkpointing=checkpointing)

    def modes() -> set[bool]:
        return {module.training for module in local.sampler.model.model.modules()}

    assert modes() == {checkpointing}
    local.sampler.sample(arithmetic_prompts(1, chain=2, seed=0), n=1, params=SamplingParams(max_tokens=1), seed=0)
    assert modes() == {checkpointing}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("prm_path", "prm_path is set, but algorithm.process.coef = 0 leaves no PRM"),
        ("reference_path", "reference_path is set, but nothing asks a reference"),
    ],
)
def test_a_path_without_its_role_is_refused(key: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_roles(rl_config(Algorithm(), **{key: str(micro_model(1))}))
