"""All formats, by name."""

from __future__ import annotations

from prmkit.data.formats import (
    chats,
    first_error,
    math_aps,
    native,
    outcomes,
    pools,
    prm800k,
    prmbench,
    sampled,
    steplists,
    tagged,
)
from prmkit.data.formats.base import Format

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        native.FORMAT,
        steplists.TRL,
        prm800k.PRM800K,
        steplists.PRM800K_STEPS,
        tagged.MATH_SHEPHERD,
        tagged.OPENRLHF,
        chats.RLHFLOW,
        tagged.OPENR,
        first_error.PROCESSBENCH,
        prmbench.PRMBENCH,
        first_error.MR_GSM8K,
        first_error.BIGBENCH_MISTAKE,
        math_aps.MATH_APS,
        math_aps.MATH_APS_TREE,
        outcomes.ULTRAINTERACT,
        outcomes.UNPAIRED,
        outcomes.PREFERENCE,
        pools.GSM8K_MODEL_SOLUTIONS,
        pools.MATH_BESTOF_RM,
        pools.CANDIDATES,
        sampled.EVAL,
        sampled.ROLLOUTS,
    )
}
"""Name -> format. `detect_format` takes the first that fits."""
