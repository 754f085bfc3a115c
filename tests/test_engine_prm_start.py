"""Where a run's PRM starts: the PRM of a run folder, in its own beta and against its own reference, with LoRA and without."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import random_batch
from rl_setup import make_roles, micro_model, prm_of, rl_config, scratch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForTokenClassification

from prmkit.data.prm_spec import PRMSpec, read_spec, write_spec
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.prm_start import prm_start
from prmkit.engines.local.prms.load import load_prm
from prmkit.errors import ConfigError, ModelError
from prmkit.models.tiny import make_tiny
from prmkit.rl.algorithm import Algorithm, Process, Reference
from prmkit.rl.config import RLConfig
from prmkit.train.sft import SFTBatch, sft_loss

BATCH: SFTBatch = random_batch([(3, 5), (7, 9)])
BETA = 0.05


def asking(prm: Path, *, beta: float = BETA, reference: Reference = "freeze", **options: Any) -> RLConfig:
    """A run of the first micro model whose PRM is told to start at `prm`."""
    process = Process(coef=1.0, beta=beta, reference=reference)
    return rl_config(Algorithm(process=process), prm_path=str(prm), **options)


def start(config: RLConfig) -> Path:
    """What `make_roles` begins with, and refuses."""
    return prm_start(config, scratch())


def says(config: RLConfig) -> Tensor:
    """Log-probs of the run's PRM."""
    return prm_of(make_roles(config)).learner.outputs(BATCH).output_BT


def implicit(folder: Path, seed: int = 7, **spec: Any) -> Path:
    """A whole implicit PRM, trained against the first micro model unless the spec says otherwise."""
    make_tiny(folder, seed=seed, size="micro")
    settings: dict[str, Any] = {"family": "implicit", "reference": str(micro_model(0)), "beta": BETA} | spec
    write_spec(folder, PRMSpec(**settings))
    return folder


def adapter(folder: Path, base: Path, rank: int = 3) -> Path:
    """An implicit PRM as a LoRA adapter, after two steps of learning, as a run saves it."""
    run = rl_config(Algorithm(process=Process(coef=1.0, beta=BETA)), prm_path="", lora_rank=rank)
    prm = prm_of(make_roles(replace(run, model=replace(run.model, path=str(base)))))
    prm.learner.update([BATCH, BATCH], sft_loss)
    prm.save(folder)
    return folder


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_of_a_run_the_prm_is_taken_and_not_the_policy(tmp_path: Path, lora_rank: int) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000002"
    prm = implicit(checkpoint / "prm")
    make_tiny(checkpoint / "policy", seed=8, size="micro")
    prm_BT = LanguageModel(model=AutoModelForCausalLM.from_pretrained(prm)).outputs(BATCH).output_BT
    torch.testing.assert_close(says(asking(tmp_path / "run", lora_rank=lora_rank)), prm_BT.detach())
    shutil.rmtree(checkpoint / "policy")  # a run of `prmkit train implicit` has none
    assert start(asking(tmp_path / "run")) == prm
    make_tiny(tmp_path / "sft" / "checkpoints" / "step_000002" / "policy", seed=8, size="micro")
    assert start(asking(tmp_path / "sft")).name == "policy"


def test_a_prm_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = implicit(tmp_path / "by_its_json", family="value_head", reference="")
    with pytest.raises(
        ModelError, match=r"by_its_json is a reward model of the family value_head, but RL takes an impl"
    ):
        start(asking(folder))
    heads = shutil.copytree(micro_model(0), tmp_path / "by_its_config")
    LlamaForTokenClassification.from_pretrained(heads).save_pretrained(heads)
    with pytest.raises(ModelError, match="by_its_config is a reward model of the family token_classification"):
        start(asking(heads))
    config = json.loads((heads / "config.json").read_text())
    (heads / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2ForRewardModel"]}))
    with pytest.raises(ModelError, match="by_its_config is a reward model of the family value_head"):
        start(asking(heads))


def test_another_beta_is_refused_with_the_value_to_set(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"process\.beta = 0\.5, but .* 10 times .* Set algorithm\.process\.beta = 0\.05,"
    ):
        start(asking(implicit(tmp_path / "prm"), beta=0.5))


def test_another_reference_is_refused_with_what_to_set(tmp_path: Path) -> None:
    own = make_tiny(tmp_path / "own", seed=5, size="micro")
    prm = implicit(tmp_path / "prm", reference=str(own))
    with pytest.raises(
        ConfigError, match=rf'against the reference {own} .* with {micro_model(0)}: .* Set reference_path = "'
    ):
        start(asking(prm))
    start(asking(prm, reference_path=str(own)))
    start(asking(prm, reference_path=str(shutil.copytree(own, tmp_path / "copy"))))
    with pytest.raises(ConfigError, match=r'Set model\.lora_rank = 0 and reference_path = "'):
        start(asking(prm, lora_rank=2))
    with pytest.raises(
        ConfigError, match=r'with none: .* Set algorithm\.process\.reference = "freeze" and reference_path ='
    ):
        start(asking(prm, reference="none"))
    shutil.rmtree(own)
    with pytest.raises(
        ModelError, match=r'is no model folder; give the path of the reference, as "reference" in .*prm\.json'
    ):
        start(asking(prm))


def test_the_policy_as_reference_has_to_start_as_the_prms_own(tmp_path: Path) -> None:
    start(asking(implicit(tmp_path / "prm"), reference="policy"))
    other = implicit(tmp_path / "other", reference=str(micro_model(1)))
    with pytest.raises(ConfigError, match=r'Set algorithm\.process\.reference = "freeze" and reference_path = '):
        start(asking(other, reference="policy"))


def test_a_prm_without_reference_stays_without(tmp_path: Path) -> None:
    prm = implicit(tmp_path / "prm", reference="")
    start(asking(prm, reference="none"))
    with pytest.raises(
        ConfigError, match=r'Set algorithm\.process\.reference = "none"; if it was trained against one, name'
    ):
        start(asking(prm))


def test_an_adapter_goes_on_as_one_on_the_same_base_and_is_merged_without_lora(tmp_path: Path) -> None:
    base = shutil.copytree(micro_model(0), tmp_path / "base")  # equal weights in another place
    folder = adapter(tmp_path / "prm", base)
    beside, merged = asking(folder, lora_rank=2), asking(folder)
    torch.testing.assert_close(says(beside), says(merged), rtol=1e-5, atol=1e-5)
    roles = make_roles(beside)
    learner: Any = prm_of(roles).learner
    assert {p.shape[0] for name, p in learner.parameters if "lora_A" in name} == {3}  # the rank that it came with
    policy: Any = roles.policy
    assert policy.model.model is learner.model.model
    base_BT = make_roles(rl_config(Algorithm(), lora_rank=2)).policy.outputs(BATCH).output_BT
    assert torch.equal(policy.outputs(BATCH).output_BT, base_BT)  # it starts at the base, whatever the PRM has learned

    before = learner.outputs(BATCH).output_BT
    learner.update([BATCH], sft_loss)
    assert not torch.equal(learner.outputs(BATCH).output_BT, before)
    assert torch.equal(policy.outputs(BATCH).output_BT, base_BT)
    prm_of(roles).save(tmp_path / "run" / "prm")
    shutil.rmtree(base)  # what is saved names the base of this run
    spec = read_spec(tmp_path / "run" / "prm")
    assert spec is not None
    assert (spec.reference, spec.beta) == ("base", BETA)
    load_prm(tmp_path / "run" / "prm")


def test_whole_weights_beside_an_adapter_are_saved_whole(tmp_path: Path) -> None:
    roles = make_roles(asking(implicit(tmp_path / "prm"), lora_rank=2))
    learner: Any = prm_of(roles).learner
    policy_BT = roles.policy.outputs(BATCH).output_BT
    learner.update([BATCH], sft_loss)
    assert torch.equal(roles.policy.outputs(BATCH).output_BT, policy_BT)
    prm_of(roles).save(tmp_path / "saved")
    spec = read_spec(tmp_path / "saved")
    assert spec is not None
    assert (tmp_path / "saved" / spec.reference).resolve() == micro_model(0)
    load_prm(tmp_path / "saved")
    other = adapter(tmp_path / "other", make_tiny(tmp_path / "own", seed=5, size="micro"))
    with pytest.raises(ConfigError, match="such a log-ratio is not what it has learned"):
        start(asking(other, lora_rank=2))
