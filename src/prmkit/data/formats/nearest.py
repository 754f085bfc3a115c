"""What a row that fits no format was probably meant to be: the formats that it lacks the fewest fields of."""

from __future__ import annotations

from prmkit.data.formats.base import Fields

NEEDED: dict[str, tuple[str, ...]] = {
    "prmkit": ("prompt", "steps"),
    "trl": ("prompt", "completions", "labels"),
    "prm800k": ("question", "label"),
    "prm800k_steps": ("problem", "steps", "ratings"),
    "math_shepherd": ("input", "label"),
    "openrlhf": ("input", "value"),
    "rlhflow": ("conversations",),
    "openr": ("question", "process", "label"),
    "processbench": ("problem", "steps", "label"),
    "prmbench": ("original_process", "modified_process", "error_steps"),
    "mr_gsm8k": ("question", "model_output_steps"),
    "bigbench_mistake": ("input", "steps", "mistake_index"),
    "math_aps": ("question", "reasoning_steps"),
    "math_aps_tree": ("question", "reasoning_steps"),
    "ultrainteract": ("prompt", "completions", "correctness"),
    "unpaired": ("prompt", "completion", "label"),
    "preference": ("chosen", "rejected"),
    "gsm8k_model_solutions": ("question", "ground_truth"),
    "math_bestof_rm": ("question", "gt", "code", "pred", "score"),
    "candidates": ("question", "gold", "candidates"),
    "prmkit_eval": ("id", "sampled", "greedy"),
    "prmkit_rollouts": ("prompt_id", "prompt", "text", "token_ends", "step_of_token", "outcome"),
}
"""Format -> the fields that a row cannot do without."""
MOST = 3


def nearest_formats(fields: Fields) -> str:
    """In words, the formats that share a field with the row and lack the fewest: `prmkit lacks 'prompt'`; empty for none."""
    lacking = {
        name: [key for key in needed if key not in fields]
        for name, needed in NEEDED.items()
        if any(key in fields for key in needed)
    }
    lacking = {name: keys for name, keys in lacking.items() if keys}
    fewest = min(map(len, lacking.values()), default=0)
    near = [(name, keys) for name, keys in lacking.items() if len(keys) == fewest][:MOST]
    return ", ".join(f"{name} lacks {' and '.join(map(repr, keys))}" for name, keys in near)


def own_id(fields: Fields) -> str | None:
    """The row's field `id` as a text, where it is one or a whole number."""
    value = fields.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None
