"""Logits made from hidden states: the constants of each family, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_models import GROUPED, random_model
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    HyperCLOVAXConfig,
    LlamaForCausalLM,
    RecurrentGemmaConfig,
)

from prmkit.errors import ModelError
from prmkit.models.logits import check_logits, logits_multiplier


def made(config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}


@pytest.mark.parametrize(
    ("config", "constant"),
    [
        (HyperCLOVAXConfig(**GROUPED, logits_scaling=0.25), 0.25),
        (FalconH1Config(**GROUPED, **MAMBA, lm_head_multiplier=0.5), 0.5),
    ],
    ids=["hyperclovax", "falcon_h1"],
)
def test_constants_of_a_family_are_known(config: Any, constant: float) -> None:
    model = made(config)
    check_logits(model, "here")
    assert logits_multiplier(model) == constant


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["granite", "cohere", "gpt_neox", "llama_grouped_query_tied"])
def test_known_families_pass_in_each_precision(family: str, dtype: torch.dtype) -> None:
    check_logits(random_model(family).to(dtype), "here")


def test_a_cap_under_any_name_is_refused() -> None:
    config = RecurrentGemmaConfig(
        **{**GROUPED, "num_hidden_layers": 3}, head_dim=8, attention_window_size=8, lru_width=32
    )
    with pytest.raises(ModelError, match=r"here: logits_soft_cap is not supported; use a model family without it"):
        check_logits(made(config), "here")


class DividedLlama(LlamaForCausalLM):
    """A family that does what no constant says."""

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        output = super().forward(*inputs, **settings)
        output.logits = output.logits / 1.5
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_family_that_does_more_to_its_logits_is_refused(dtype: torch.dtype) -> None:
    model = random_model("llama").to(dtype)
    model.__class__ = DividedLlama
    with pytest.raises(ModelError, match="here: DividedLlama does more to its logits than its output layer"):
        check_logits(model, "here")
