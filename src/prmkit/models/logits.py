"""How a family makes logits from hidden states: a constant that is known here, or the model is refused."""

from __future__ import annotations

from typing import Any

import torch

from prmkit.errors import ModelError

SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What families call the bound that they squeeze their logits into."""
NUM_TOKENS = 8
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""By how much two ways to the same logits may differ, of the largest of them."""


def logits_multiplier(causal_lm: Any) -> float:
    """The constant that some families multiply their logits by.

    Cohere: `logit_scale`; Granite: 1 / `logits_scaling`, which HyperCLOVAX multiplies by; Falcon-H1: `lm_head_multiplier`.
    """
    config = causal_lm.config.get_text_config()
    scaling = float(getattr(config, "logits_scaling", None) or 1.0)
    if not config.model_type.startswith("hyperclovax"):
        scaling = 1.0 / scaling
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    return scale * scaling * float(getattr(config, "lm_head_multiplier", None) or 1.0)


def check_logits(causal_lm: Any, where: object) -> None:
    """Raises ModelError unless the logits are those of the output layer on the hidden states, times `logits_multiplier`.

    Log-probs are computed so everywhere, since whole logits of long rows are too large. A family that does more to them would
    get wrong ones without a word, so the model is asked for those of a few tokens.
    """
    config = causal_lm.config.get_text_config()
    for name in SOFT_CAPS:
        if getattr(config, name, None):
            raise ModelError(f"{where}: {name} is not supported; use a model family without it")
    size = causal_lm.get_input_embeddings().weight.shape[0]
    token_1T = (torch.arange(1, NUM_TOKENS + 1, device=causal_lm.device) * size // (NUM_TOKENS + 1))[None]
    with torch.no_grad():
        said_TV = causal_lm(input_ids=token_1T, use_cache=False).logits[0].float()
        hidden_TD = causal_lm.get_decoder()(input_ids=token_1T, use_cache=False).last_hidden_state[0]
        made_TV = causal_lm.get_output_embeddings()(hidden_TD).float() * logits_multiplier(causal_lm)
    if (said_TV - made_TV).abs().max() > ROUNDING.get(hidden_TD.dtype, 3e-2) * said_TV.abs().max():
        raise ModelError(
            f"{where}: {type(causal_lm).__name__} does more to its logits than its output layer and the constants that prmkit "
            "knows, so log-probs would be wrong; use another model family"
        )
