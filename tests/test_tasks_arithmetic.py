from __future__ import annotations

import random

import pytest

from prmkit.data.types import Message, Prompt
from prmkit.errors import ConfigError, DataError
from prmkit.tasks.arithmetic import (
    SPLIT,
    arithmetic_prompts,
    carries,
    demonstration,
    demonstrations,
    first_error_step,
    misconceived_sum,
    operands,
    step_is_right,
)


def ask(text: str) -> Prompt:
    return Prompt(id="p", messages=(Message(role="user", content=text),), answer="", task="arithmetic")


def test_prompts_are_sums_of_digits_with_their_answer() -> None:
    prompts = arithmetic_prompts(50, chain=3, seed=1)
    assert len({p.id for p in prompts}) == len({p.messages[0].content for p in prompts}) == 50
    for prompt in prompts:
        digits = operands(prompt)
        assert len(digits) == 4
        assert all(1 <= d <= 9 for d in digits)
        assert prompt.answer == str(sum(digits))
        assert prompt.messages == (Message(role="user", content="+".join(map(str, digits)) + "=?"),)
        assert prompt.task == "arithmetic"


def test_the_seed_decides_the_prompts() -> None:
    assert arithmetic_prompts(20, chain=4, seed=5) == arithmetic_prompts(20, chain=4, seed=5)
    assert arithmetic_prompts(20, chain=4, seed=5) != arithmetic_prompts(20, chain=4, seed=6)


def test_train_and_test_problems_are_disjoint_for_any_seeds() -> None:
    def texts(prompts: list[Prompt]) -> set[str]:
        return {p.messages[0].content for p in prompts}

    shown = [p for p, _ in demonstrations(300, chain=2, misconceptions="carry", error_rate=0.5, seed=3)]
    train = texts(arithmetic_prompts(500, chain=2, seed=0)) | texts(shown)
    test = texts(arithmetic_prompts(60, chain=2, seed=0, split="test"))
    test |= texts(arithmetic_prompts(60, chain=2, seed=7, split="test"))
    assert not train & test


def test_a_chain_with_too_few_problems_is_an_error() -> None:
    # 9 * 9 = 81 problems with one addition
    with pytest.raises(ConfigError, match=r"task\.chain = 1 has only about \d+ train problems, but 100"):
        arithmetic_prompts(100, chain=1, seed=0)
    with pytest.raises(ConfigError, match="needs at least one addition"):
        arithmetic_prompts(1, chain=0, seed=0)


def test_without_errors_the_solution_is_right() -> None:
    rng = random.Random(0)
    assert demonstration(ask("3+8+5=?"), misconceptions="carry", error_rate=0.0, rng=rng) == "3+8=11;11+5=16#16"
    assert (
        demonstration(ask("9+9+2+4=?"), misconceptions="pairs", error_rate=0.0, rng=rng) == "9+9=18;18+2=20;20+4=24#24"
    )


def test_dropping_every_carry() -> None:
    # 3+8 carries: 11 -> 1. 1+5 = 6 does not carry. 6+9 carries: 15 -> 5.
    text = demonstration(ask("3+8+5+9=?"), misconceptions="carry", error_rate=1.0, rng=random.Random(0))
    assert text == "3+8=1;1+5=6;6+9=5#5"
    # The tens stay: 23 + 8 = 31 -> 21.
    assert misconceived_sum(23, 8, "carry") == 21


def test_each_pair_that_carries_has_its_own_fixed_wrong_unit() -> None:
    pairs = [(unit, added) for unit in range(10) for added in range(1, 10) if carries(unit, added)]
    assert len(pairs) == 45  # 1 + 2 + ... + 9
    shifts = []
    for unit, added in pairs:
        for tens in (0, 10, 40):
            right, wrong = tens + unit + added, misconceived_sum(tens + unit, added, "pairs")
            assert wrong // 10 == right // 10
            shifts.append((wrong - right) % 10)
        assert shifts[-1] == shifts[-2] == shifts[-3] != 0
    assert set(shifts) == set(range(1, 10))


def test_the_error_rate_counts_steps_that_carry() -> None:
    rows = demonstrations(2000, chain=5, misconceptions="pairs", error_rate=0.3, seed=0)
    fell = apt = 0
    for prompt, text in rows:
        right = step_is_right(prompt, text)
        assert right[-1]  # the answer repeats the last value
        for step, is_right in zip(SPLIT(text)[:-1], right[:-1], strict=True):
            left, _, digit = text[step.start : step.end].partition("=")[0].partition("+")
            apt += carries(int(left), int(digit))
            fell += not is_right
            assert is_right or carries(int(left), int(digit))
    # apt is about 2000 * 5 * 0.5: the standard error of the share is about sqrt(0.3 * 0.7 / 4900) = 0.0065
    assert fell / apt == pytest.approx(0.3, abs=0.03)


def test_an_error_rate_that_is_no_probability_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"task\.error_rate = 1\.5"):
        demonstrations(1, chain=2, misconceptions="carry", error_rate=1.5, seed=0)


# The prompt is 3+8+5=?, its right response 3+8=11;11+5=16#16.
@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("3+8=11;11+5=16#16", [True, True, True]),
        ("3+8=1;1+5=6#6", [False, True, True]),  # goes on rightly from a wrong value
        ("3+8=11;11+5=17#17", [True, False, True]),
        ("3+8=11;11+5=16#61", [True, True, False]),  # another answer than the last value
        ("3+8=1;11+5=16#16", [False, False, True]),  # does not go on from 1
        ("3+8=11;11+6=17#17", [True, False, True]),  # adds what was not asked
        ("8+3=11;11+5=16#16", [False, True, True]),  # not the prompt's first operand
        ("3+8==11;11+5=16#16", [False, False, True]),  # unreadable: nothing to go on from
        ("3+8=011;11+5=16#16", [False, False, True]),
        ("3+8=11#11", [False, False]),  # the answer comes one addition too early
        ("3+8=11;11+5=16;16", [True, False, True]),  # the wrong separator
        ("3+8=11;11+5=16#16#16", [True, True, False, False]),
        ("3+8=11;", [False]),  # stops early
        ("3+8=11;11+5=1", [True, False]),  # cut
        ("3+8=11;11+5=16#", [True, False]),
        ("", []),
        ("?", [False]),
    ],
)
def test_the_truth_of_each_step(text: str, truth: list[bool]) -> None:
    prompt = ask("3+8+5=?")
    assert step_is_right(prompt, text) == truth
    assert len(truth) == len(SPLIT(text))
    assert first_error_step(prompt, text) == (truth.index(False) if False in truth else (0 if not text else -1))


def test_steps_of_a_response() -> None:
    text = "3+8=11;11+5=16#16"
    assert [text[s.start : s.end] for s in SPLIT(text)] == ["3+8=11;", "11+5=16#", "16"]


def test_a_prompt_of_another_task_is_an_error() -> None:
    with pytest.raises(DataError, match="prompt p: 'What is 3 plus 8' is no arithmetic problem"):
        first_error_step(ask("What is 3 plus 8"), "11")
