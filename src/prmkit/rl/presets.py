"""Algorithms by name. Each is a value; docs/prime.md has the table of what differs and where it comes from."""

from __future__ import annotations

from dataclasses import replace

from prmkit.rl.algorithm import Algorithm, Filter, Process

RLOO = Algorithm(advantage="rloo")
"""Leave-one-out baseline (arXiv:2402.14740), with PRIME's online filter."""

GRPO = Algorithm(advantage="grpo", reduce="seq_mean_token_mean", filter=Filter(enabled=False), group_size=8)
"""DeepSeekMath (arXiv:2402.03300); no KL term, as is common since DAPO."""

DR_GRPO = Algorithm(advantage="dr_grpo", reduce="seq_mean_token_sum_norm", filter=Filter(enabled=False), group_size=8)
"""GRPO without its length and difficulty weights (arXiv:2503.20783)."""

REINFORCE = Algorithm(advantage="reinforce", filter=Filter(enabled=False))
"""No baseline at all (Williams, 1992)."""

REINFORCE_PP = Algorithm(advantage="reinforce_pp", whiten="tokens", filter=Filter(enabled=False))
"""REINFORCE++: returns whitened over the batch's tokens (arXiv:2501.03262)."""

REMAX = Algorithm(advantage="remax", filter=Filter(enabled=False))
"""Baseline: the greedy response's reward (arXiv:2310.10505)."""

PPO = Algorithm(advantage="gae", whiten="tokens", filter=Filter(enabled=False), num_minibatches=4)
"""Value model and generalised advantage estimation (arXiv:1707.06347, 1506.02438)."""

PRIME_PAPER = Algorithm(
    advantage="rloo",
    process=Process(coef=1.0, baseline="prime", normaliser="max_return", normaliser_ranks=8),
    whiten="tokens",
    reduce="seq_mean_token_mean",
    num_minibatches=4,
    prm_minibatches=4,
)
"""The arithmetic of the authors' released run (7B script on 8 GPUs), quirks included; what is left out: docs/prime.md."""

PROCESS = Process(coef=1.0, beta=0.5, loss="ce_offset", replay_batches=4, gate="accuracy", floor=0.25)
"""Our process rewards: a PRM that stays calibrated while the policy moves (larger beta, prompt offset, replay), whose say
follows its accuracy on responses it has not learned from; normalised over the whole batch, with a floor; exact
leave-one-out. Chosen on the embedded task alone: see docs/prime.md."""

PRIME = replace(RLOO, process=PROCESS)
"""Our version of PRIME; docs/prime.md names each difference to `prime_paper` and what was measured."""


def with_process(algorithm: Algorithm, process: Process = PROCESS) -> Algorithm:
    """The same algorithm with process rewards; their baseline, and for gae their discount, are those of its estimator.

    grpo's baseline divides by the group's spread, after which neither normaliser nor floor would act: there is none.
    """
    process = replace(process, baseline="estimator")
    if algorithm.advantage == "gae":
        process = replace(process, discount=algorithm.outcome.discount)
    if algorithm.advantage == "grpo":
        process = replace(process, normaliser="none", floor=0.0)
    return replace(algorithm, process=process)


PRESETS: dict[str, Algorithm] = {
    "prime": PRIME,
    "prime_paper": PRIME_PAPER,
    "rloo": RLOO,
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "reinforce": REINFORCE,
    "reinforce_pp": REINFORCE_PP,
    "remax": REMAX,
    "ppo": PPO,
    "prime_grpo": with_process(GRPO),
    "prime_dr_grpo": with_process(DR_GRPO),
    "prime_reinforce": with_process(REINFORCE),
    "prime_reinforce_pp": with_process(REINFORCE_PP),
    "prime_remax": with_process(REMAX),
    "prime_ppo": with_process(PPO),
}
"""`preset = "..."` in a configuration; `[algorithm]` then changes single values."""
