"""Prompts in epochs, the online filter, and what happens when too little passes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from prmkit.data.types import Group, Message, Prompt, Rollout, SamplingParams, Verdict
from prmkit.errors import TrainingError
from prmkit.rl.algorithm import Algorithm, Filter, Outcome, Process
from prmkit.rl.collect import Collected, PromptStream, collect, derived_seed

PARAMS = SamplingParams(max_tokens=4)
UNPARSED = Verdict(status="unparsed", reward=None, detail="no number in it")
BROKEN = Verdict(status="error", reward=None, detail="ValueError: boom")
LATE = Verdict(status="timeout", reward=None, detail="no verdict after 5 s")


def prompt(name: str) -> Prompt:
    return Prompt(id=name, messages=(Message(role="user", content=name),), answer="")


class Scripted:
    """Sampler and verifier of a script: for each prompt the verdicts of its responses, `cut` ones first if asked."""

    def __init__(self, script: dict[str, Sequence[float | Verdict]], cut: dict[str, int] | None = None) -> None:
        self.script, self.cut = script, cut or {}
        self.asked: list[list[str]] = []
        self.seeds: list[int] = []

    def sample(self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seed: int) -> list[Group[Rollout]]:
        self.asked.append([p.id for p in prompts])
        self.seeds.append(seed)
        return [Group(prompt=p, members=[self.rollout(p.id, k) for k in range(n)]) for p in prompts]

    def rollout(self, name: str, k: int) -> Rollout:
        return Rollout(
            prompt_id=name,
            prompt_token_ids=(5,),
            token_ids=(1,),
            logprobs=(-1.0,),
            token_ends=(1,),
            text=f"{name}/{k}",
            finish="length" if k < self.cut.get(name, 0) else "stop",
        )

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        verdicts = []
        for p, text in responses:
            value = self.script[p.id][int(text.rpartition("/")[2])]
            verdicts.append(value if isinstance(value, Verdict) else Verdict(status="ok", reward=value))
        return verdicts


class InOrder(PromptStream):
    """Prompts as they are listed."""

    def take(self, num: int) -> list[Prompt]:
        taken = [self.prompts[(self.position + k) % len(self.prompts)] for k in range(num)]
        self.position += num
        return taken


def gather(scripted: Scripted, num_groups: int, algorithm: Algorithm | None = None) -> Collected:
    stream = InOrder([prompt(name) for name in scripted.script], seed=0)
    return collect(scripted, scripted, stream, algorithm or Algorithm(), PARAMS, num_groups=num_groups, seed=0)


def kept(made: Collected) -> list[str]:
    return [group.prompt.id for group in made.kept]


def filtered(**options: Any) -> Algorithm:
    return Algorithm(filter=Filter(**{"max_draws": 1, **options}))


def test_the_bounds_are_inclusive_and_on_mean_accuracy() -> None:
    script: dict[str, Sequence[float | Verdict]] = {
        "0/5": [0, 0, 0, 0, 0],
        "1/5": [1, 0, 0, 0, 0],
        "soft": [0.1, 0.3, 0.2, 0.2, 0.2],
        "4/5": [1, 1, 1, 1, 0],
        "above": [1, 1, 1, 1, 0.1],
        "5/5": [1, 1, 1, 1, 1],
    }
    algorithm = Algorithm(group_size=5, filter=Filter(max_draws=1))
    assert kept(gather(Scripted(script), 6, algorithm)) == ["1/5", "soft", "4/5"]


def test_a_shaped_reward_plays_no_part() -> None:
    """Neither coefficient nor process rewards move a group over the bounds; the filter sees the verdicts alone."""
    script: dict[str, Sequence[float | Verdict]] = {"half": [1, 0, 1, 0], "none": [0, 0, 0, 0], "all": [1, 1, 1, 1]}
    algorithm = Algorithm(outcome=Outcome(coef=0.3), process=Process(coef=5.0), filter=Filter(max_draws=1))
    assert kept(gather(Scripted(script), 3, algorithm)) == ["half"]


def test_switched_off_it_keeps_every_group_that_has_siblings() -> None:
    script: dict[str, Sequence[float | Verdict]] = {"none": [0] * 4, "all": [1] * 4, "one": [1, BROKEN, BROKEN, BROKEN]}
    assert kept(gather(Scripted(script), 3, filtered(enabled=False))) == ["none", "all"]


def test_undecided_members_are_left_out_and_never_count_as_wrong() -> None:
    script: dict[str, Sequence[float | Verdict]] = {
        "right or unread": [1, 1, UNPARSED, UNPARSED],  # accuracy 1, not 1/2
        "mixed": [1, 0, LATE, BROKEN],
        "one decided": [1, UNPARSED, LATE, BROKEN],
        "none decided": [BROKEN] * 4,
    }
    made = gather(Scripted(script), 4, filtered())
    assert kept(made) == ["mixed"]
    assert [m.verdict.reward for m in made.kept[0].members] == [1, 0]
    assert [m.rollout.text for m in made.kept[0].members] == ["mixed/0", "mixed/1"]
    assert [len(group.members) for group in made.sampled] == [4, 4, 4, 4]  # what was sampled stays on record


def test_unparsed_can_count_as_wrong_but_failures_of_the_verifier_never_do() -> None:
    script: dict[str, Sequence[float | Verdict]] = {"a": [1, UNPARSED, LATE, BROKEN], "b": [1, LATE, LATE, BROKEN]}
    algorithm = Algorithm(unparsed="wrong", filter=Filter(max_draws=1))
    made = gather(Scripted(script), 2, algorithm)
    assert kept(made) == ["a"]
    assert [(m.verdict.status, m.verdict.reward) for m in made.kept[0].members] == [("ok", 1), ("ok", 0)]


def test_a_rollout_that_the_sampler_failed_to_make_is_left_out() -> None:
    scripted = Scripted({"a": [1, 0, 0, 0]})
    whole = scripted.rollout
    scripted.rollout = lambda name, k: _failed(whole(name, k)) if k == 3 else whole(name, k)  # type: ignore[method-assign]
    assert len(gather(scripted, 1).kept[0].members) == 3


def _failed(rollout: Rollout) -> Rollout:
    values = {name: getattr(rollout, name) for name in Rollout.__slots__}
    return Rollout(**values | {"finish": "error"})


@pytest.mark.parametrize(
    ("truncated", "expected"),
    [
        # "cut" has one cut response of four, which is right; without it accuracy is 1/3
        ("keep", {"cut": 4, "whole": 4}),
        ("drop_group", {"whole": 4}),
        ("mask", {"cut": 3, "whole": 4}),
    ],
)
def test_truncated_responses(truncated: str, expected: dict[str, int]) -> None:
    scripted = Scripted({"cut": [1, 1, 0, 0], "whole": [1, 0, 0, 0]}, cut={"cut": 1})
    made = gather(scripted, 2, filtered(truncated=truncated))
    assert {group.prompt.id: len(group.members) for group in made.kept} == expected


def test_drop_group_holds_with_the_bounds_switched_off() -> None:
    scripted = Scripted({"cut": [1, 1, 0, 0], "whole": [1, 1, 1, 1]}, cut={"cut": 1})
    assert kept(gather(scripted, 2, filtered(truncated="drop_group", enabled=False))) == ["whole"]


def test_a_group_of_one_needs_one_decided_member() -> None:
    algorithm = Algorithm(advantage="reinforce", group_size=1, filter=Filter(enabled=False, max_draws=1))
    assert kept(gather(Scripted({"a": [1], "b": [UNPARSED]}), 2, algorithm)) == ["a"]


def test_draws_go_on_until_the_batch_is_full_aiming_at_what_is_missing() -> None:
    script: dict[str, Sequence[float | Verdict]] = {
        f"{i}": [1, 0, 0, 0] if i % 2 == 0 else [0, 0, 0, 0] for i in range(12)
    }
    scripted = Scripted(script)
    made = gather(scripted, 4)
    # 4 asked, 2 pass; at this rate the 2 missing take 4 more
    assert [len(names) for names in scripted.asked] == [4, 4]
    assert kept(made) == ["0", "2", "4", "6"]
    assert (made.draws, len(made.sampled)) == (2, 8)
    assert len(set(scripted.seeds)) == 2  # each draw has its own luck


def test_a_surplus_is_cut() -> None:
    script: dict[str, Sequence[float | Verdict]] = {"no": [0] * 4} | {f"{i}": [1, 0, 0, 0] for i in range(9)}
    made = gather(Scripted(script), 3)
    # 3 asked, 2 pass; the one missing takes ceil(1 * 3 / 2) = 2, of which one is too many
    assert (kept(made), made.draws, len(made.sampled)) == (["0", "1", "2"], 2, 5)


def test_a_batch_that_stays_partly_empty_is_learned_from() -> None:
    script: dict[str, Sequence[float | Verdict]] = {"yes": [1, 0, 0, 0]} | {f"{i}": [0] * 4 for i in range(30)}
    scripted = Scripted(script)
    made = gather(scripted, 3, Algorithm(filter=Filter(max_draws=4)))
    assert (kept(made), made.draws) == (["yes"], 4)
    assert [len(names) for names in scripted.asked] == [3, 3, 3, 3]  # never more than a batch at a time


SOFT: dict[str, Sequence[float | Verdict]] = {
    "equal": [0.5] * 4,
    "one left": [0.5, BROKEN, BROKEN, 0.5],
    "differ": [0.5, 0.5, 0.25, 0.5],
    "mixed": [0, 1, 0, 1],
}


def test_equal_soft_rewards_are_kept_only_where_they_teach_something() -> None:
    differ = ["differ", "mixed"]
    for algorithm in (Algorithm(), Algorithm(advantage="grpo"), Algorithm(advantage="dr_grpo")):
        assert kept(gather(Scripted(SOFT), 4, replace(algorithm, filter=Filter(max_draws=1)))) == differ
    for algorithm in (Algorithm(process=Process(coef=1.0)), Algorithm(advantage="reinforce")):
        assert kept(gather(Scripted(SOFT), 4, replace(algorithm, filter=Filter(max_draws=1)))) == list(SOFT)
    assert kept(gather(Scripted(SOFT), 4, filtered(enabled=False))) == list(SOFT)
    whole: dict[str, Sequence[float | Verdict]] = {"all": [1] * 4, "none": [0] * 4}
    assert kept(gather(Scripted(whole), 2, filtered(low=0.0, high=1.0))) == ["all", "none"]  # as the bounds say
    with pytest.raises(TrainingError, match="in 1 groups all rewards are equal"):
        gather(Scripted({"equal": [0.5] * 4}), 1, filtered())


@pytest.mark.parametrize("max_draws", [1, 5])
def test_nothing_passes(max_draws: int) -> None:
    scripted = Scripted({"a": [0, 0, 0, 1 / 2], "b": [1, UNPARSED, BROKEN, LATE]}, cut={"a": 2})
    with pytest.raises(TrainingError) as caught:
        gather(scripted, 2, filtered(max_draws=max_draws))
    assert len(scripted.asked) == max_draws
    message = str(caught.value)
    sampled = 2 * max_draws
    # accuracy of the decided: (1/2 + 1) / 5; two of eight are cut
    assert message.startswith(
        f"no group of {sampled} sampled in {max_draws} draws passed the filter (mean accuracy within [0.2, 0.8]): accuracy "
        f"0.300, 25% cut at max_tokens, verdicts error {max_draws}, ok {5 * max_draws}, timeout {max_draws}, "
        f"unparsed {max_draws} (the first undecided one: no number in it). "
    )
    for advice in (
        "mend the verifier",
        "SFT",
        "harder prompts",
        "sampling.max_tokens",
        "algorithm.filter",
        "max_draws",
    ):
        assert advice in message


def test_a_filter_that_is_off_is_not_blamed() -> None:
    with pytest.raises(TrainingError) as caught:
        gather(Scripted({"a": [1, BROKEN, BROKEN, BROKEN]}), 1, filtered(enabled=False))
    message = str(caught.value)
    assert message.startswith("no group of 1 sampled in 1 draws has responses enough to learn from: accuracy 1.000, ")
    assert "within" not in message
    assert "widen" not in message
    assert "SFT" not in message


def test_nothing_is_decided() -> None:
    with pytest.raises(
        TrainingError, match=r"accuracy unknown, 0% .* error 4 \(the first undecided one: ValueError: boom\)"
    ):
        gather(Scripted({"a": [BROKEN] * 4}), 1, filtered())


def test_a_diverged_policy_is_no_wrong_answer() -> None:
    scripted = Scripted({"a": [0] * 4})
    whole = scripted.rollout

    def diverged(name: str, k: int) -> Rollout:
        rollout = whole(name, k)
        return Rollout(**{n: getattr(rollout, n) for n in Rollout.__slots__} | {"logprobs": (math.nan,)})

    scripted.rollout = diverged  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="log-probs for prompt 'a' are not finite: its weights have diverged"):
        gather(scripted, 1)


# ---------------------------------------------------------------------------------------------- the stream of prompts

TEN = [prompt(str(i)) for i in range(10)]


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    stream = PromptStream(TEN, seed=0)
    epochs = [[p.id for p in stream.take(10)] for _ in range(4)]
    assert all(sorted(epoch) == [str(i) for i in range(10)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_how_the_stream_is_cut_does_not_matter() -> None:
    whole, parts = PromptStream(TEN, seed=0), PromptStream(TEN, seed=0)
    taken = [p.id for size in (3, 1, 9, 0, 7, 15) for p in parts.take(size)]
    assert taken == [p.id for p in whole.take(35)]
    assert parts.position == 35


def test_a_position_is_the_whole_state() -> None:
    whole = PromptStream(TEN, seed=0)
    wanted = [p.id for p in whole.take(40)]
    for position in (1, 9, 10, 11, 25):
        again = PromptStream(TEN, seed=0, position=position)
        assert [p.id for p in again.take(40 - position)] == wanted[position:]


def test_another_seed_is_another_order() -> None:
    orders = {tuple(p.id for p in PromptStream(TEN, seed=seed).take(10)) for seed in range(5)}
    assert len(orders) == 5


def test_no_prompts_no_stream() -> None:
    with pytest.raises(TrainingError, match=r"there are no training prompts; check task\.train and task\.limit"):
        PromptStream([], seed=0)


def test_derived_seeds_differ_by_every_part() -> None:
    seeds = {derived_seed(a, b, c) for a in (0, 1) for b in ("step", "eval") for c in (1, 2, 11)}
    assert len(seeds) == 12
    assert derived_seed(1, "1") == derived_seed(1, "1")
    assert all(0 <= seed < 2**62 for seed in seeds)
