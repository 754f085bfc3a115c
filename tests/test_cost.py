"""FLOPs against hand arithmetic, an enumeration of pairs, and the ratios that arXiv:2412.01981 reports."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForTokenClassification

from prmkit.data.prm_spec import PRMSpec, write_spec
from prmkit.data.types import Message, Prompt, Solution
from prmkit.errors import ConfigError, DataError, ModelError
from prmkit.evaluate.cost import (
    UNIT,
    Cost,
    Lengths,
    Parameters,
    all_costs,
    auto_psv,
    compare,
    cost_table,
    flop_rates,
    implicit_ce,
    implicit_dpo,
    implicit_kto,
    lengths_of,
    monte_carlo,
    outcome_model,
    parameters_of,
    training_cost,
)
from prmkit.models.tiny import make_tiny, tiny_tokenizer


def response(
    length: int, *, prompt: int = 0, right: bool | None = None, prompt_id: str = "q", steps: int = 0
) -> Lengths:
    """`steps` steps of equal length."""
    ends = tuple(length * (k + 1) // steps for k in range(steps))
    return Lengths(prompt_id=prompt_id, prompt=prompt, response=length, right=right, step_ends=ends)


def groups(num_prompts: int, samples: int, mixed: int, right: int, length: int = 10) -> list[Lengths]:
    """`mixed` prompts have `right` right responses each; the others have wrong ones only."""
    return [
        response(length, prompt_id=str(p), right=p < mixed and k < right)
        for p in range(num_prompts)
        for k in range(samples)
    ]


RATES = flop_rates(10.0, generator=20.0, completer=30.0, reference=5.0)
"""generate 40, complete 60, train 60, forward 20, reference 10."""


def test_each_formula_on_two_responses_by_hand() -> None:
    """Prompt 3, responses of 8 (steps end at 4 and 8, right) and 6 (at 3 and 6, wrong): 11 + 9 = 20 tokens trained."""
    two = [response(8, prompt=3, right=True, steps=2), response(6, prompt=3, right=False, steps=2)]
    sampling = 14 * 40.0
    assert implicit_ce(two, RATES) == Cost(sampling=sampling, labels=0.0, training=20 * (60 + 10.0))
    assert implicit_kto(two, RATES).training == 20 * (60 + 10) + 20 * (20 + 10)
    assert implicit_dpo(two, RATES).training == 20 * (60 + 10)  # one pair holds both
    # after step 1 remain 4 and 3 tokens, after step 2 none: 8 completions of 7 tokens at 60
    assert monte_carlo(two, RATES) == Cost(sampling=sampling, labels=8 * 7 * 60.0, training=20 * 60.0)
    assert auto_psv(two, RATES) == Cost(sampling=sampling, labels=20 * (60 + 20.0), training=20 * 60.0)
    assert outcome_model(two, RATES) == Cost(sampling=sampling, labels=0.0, training=20 * 60.0)


def test_epochs_repeat_training_and_not_labels() -> None:
    two = [response(8, right=True, steps=2), response(6, right=False, steps=2)]
    once, thrice = monte_carlo(two, RATES), monte_carlo(two, RATES, epochs=3)
    assert (thrice.labels, thrice.sampling) == (once.labels, once.sampling)
    assert thrice.training == 3 * once.training
    assert auto_psv(two, RATES, outcome_epochs=2, step_epochs=3).labels == 14 * (2 * 60 + 20)


def test_completions_that_were_counted_replace_the_estimate() -> None:
    one = [response(9, right=True)]  # no steps known
    assert monte_carlo(one, RATES, completed=100).labels == 100 * 60
    with pytest.raises(DataError, match=r"response 1 of prompt 'q' has no steps; give step_ends"):
        monte_carlo(one, RATES)


def test_the_cross_product_trains_every_pair() -> None:
    """Against a loop over pairs, with responses of different lengths."""
    lengths = [
        response(n, prompt=2, right=right) for n, right in ((5, True), (7, False), (4, True), (9, False), (6, False))
    ]
    pairs = [(a, b) for a, b in product(lengths, lengths) if a.right and not b.right]
    assert len(pairs) == 6
    expected = sum(a.total + b.total for a, b in pairs) * 70.0
    assert implicit_dpo(lengths, RATES).training == expected
    # one to one: two pairs, each of a mean right (7 + 6) / 2 and a mean wrong (9 + 11 + 8) / 3
    assert implicit_dpo(lengths, RATES, pairs="one_to_one").training == pytest.approx(2 * (6.5 + 28 / 3) * 70)


def test_pairs_stay_within_a_prompt() -> None:
    apart = [response(5, right=True, prompt_id="a"), response(5, right=False, prompt_id="b")]
    assert implicit_dpo(apart, RATES).training == 0
    with pytest.raises(DataError, match="a response to prompt 'q' has no outcome"):
        implicit_dpo([response(5)], RATES)


def test_dpo_over_ce_is_one_three_seven_as_the_paper_has_it() -> None:
    """Tokens of the cross product over those of CE are 2 k (N - k) / N, on average 2 (N - 1) E[p(1 - p)].

    With E[p(1 - p)] = 0.13: k = 1 of 2 in 26 of 100 prompts has 2 / 2 x 0.26 = 0.26; k = 1 of 4 in 52 of 100 has
    6 / 4 x 0.52 = 0.78; k = 4 of 8 in 91 of 200 has 32 / 8 x 0.455 = 1.82. The paper's costs give 38.8 / 146.5 = 0.265,
    38.6 / 49.9 = 0.774, 38.8 / 21.3 = 1.822.
    """
    shapes = {2: groups(100, 2, 26, 1), 4: groups(100, 4, 52, 1), 8: groups(200, 8, 91, 4)}
    ratio = {
        n: implicit_dpo(lengths, UNIT).without_sampling / implicit_ce(lengths, UNIT).without_sampling
        for n, lengths in shapes.items()
    }
    assert ratio == pytest.approx({2: 0.26, 4: 0.78, 8: 1.82})
    assert [ratio[n] / ratio[2] for n in (2, 4, 8)] == pytest.approx([1, 3, 7])
    for n, reported in ((2, 38.8 / 146.5), (4, 38.6 / 49.9), (8, 38.8 / 21.3)):
        assert ratio[n] == pytest.approx(reported, rel=0.02)


def test_the_expected_number_of_pairs_is_that_of_a_binomial() -> None:
    """E[k (N - k)] = N (N - 1) p (1 - p), by enumeration over all outcomes of 5 responses with p = 0.3."""
    n, p = 5, 0.3
    expected = 0.0
    for outcome in product((True, False), repeat=n):
        lengths = [response(1, right=right) for right in outcome]
        chance = math.prod(p if right else 1 - p for right in outcome)
        expected += chance * implicit_dpo(lengths, UNIT).training / 2  # both tokens of a pair
    assert expected == pytest.approx(n * (n - 1) * p * (1 - p))


def ten_step_solutions() -> list[Lengths]:
    """K equal steps leave K phi = (K - 1) / 2 times the length: 4.5 for 10 steps, 5.5 for 12; 4 : 1 of them give 4.7."""
    return [response(120, right=True, steps=k) for k in (10, 10, 10, 10, 12)]


def test_monte_carlo_is_38_8_times_ce_only_if_every_token_costs_the_same() -> None:
    """1 + 8 x 4.7 = 38.6, where the paper reports 38.8, 38.6, 38.8.

    In FLOPs of models of one size, training with a reference costs 8 P a token and sampling 2 P:
    (6 + 8 x 4.7 x 2) / 8 = 10.15, and with the shared sampling (2 + 6 + 75.2) / (2 + 8) = 8.32.
    """
    lengths = ten_step_solutions()
    assert sum(found.remaining for found in lengths) / sum(found.response for found in lengths) == pytest.approx(4.7)
    unit = monte_carlo(lengths, UNIT).without_sampling / implicit_ce(lengths, UNIT).without_sampling
    assert unit == pytest.approx(38.6)
    assert unit == pytest.approx(38.8, rel=0.01)
    rows = {row.method: row for row in compare(all_costs(lengths, flop_rates(7e9)))}
    assert rows["monte_carlo"].ratio_without_sampling == pytest.approx(10.15)
    assert rows["monte_carlo"].ratio == pytest.approx(8.32)
    assert rows["outcome"].ratio_without_sampling == pytest.approx(6 / 8)
    assert rows["auto_psv"].ratio_without_sampling == pytest.approx(14 / 8)
    assert rows["implicit_ce"].ratio == 1.0


def test_the_table_has_a_row_for_each_method() -> None:
    small = Cost(sampling=1, labels=0, training=2)
    table = cost_table(compare({"implicit_ce": Cost(sampling=1, labels=2, training=6), "x": small}))
    assert table.splitlines()[2] == "| implicit_ce | 1 | 2 | 6 | 9 | 1.00 | 1.00 |"
    assert table.splitlines()[3] == "| x | 1 | 0 | 2 | 3 | 0.33 | 0.25 |"
    with pytest.raises(ConfigError, match="'y' is none of the costs x"):
        compare({"x": Cost(sampling=1, labels=0, training=2)}, to="y")


def test_lengths_are_those_of_the_tokenizer() -> None:
    """The character tokenizer: `1+2=?` is 5 tokens; `1+2=3#3` in the steps `1+2=3` and `#3` with `;` is 8 and an end token."""
    prompt = Prompt(id="q", messages=(Message(role="user", content="1+2=?"),), answer="3")
    solution = Solution(id="a", prompt=prompt, steps=("1+2=3", "#3"), separator=";", outcome=1.0)
    (found,) = lengths_of(tiny_tokenizer(), [solution])
    assert found == Lengths(prompt_id="q", prompt=5, response=9, step_ends=(6, 9), right=True)
    assert found.remaining == 3
    assert lengths_of(tiny_tokenizer(), [Solution(id="b", prompt=prompt, steps=("#3",))])[0].right is None
    soft = [Solution(id="c", prompt=prompt, steps=("#3",), outcome=outcome) for outcome in (0.5, 0.625)]
    assert [lengths.right for lengths in lengths_of(tiny_tokenizer(), soft)] == [
        False,
        True,
    ]  # above one half, as everywhere


def test_a_run_says_how_many_tokens_it_has_trained(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 0.5, "tokens/trained": 100, "tokens/forward": 10, "tokens/reference": 100},
        {"step": 2, "loss": 0.4, "tokens/trained": 120, "tokens/forward": 0, "tokens/reference": 0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert training_cost(tmp_path, RATES) == Cost(sampling=0, labels=0, training=220 * 60 + 10 * 20 + 100 * 10)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    with pytest.raises(
        DataError, match=r"metrics\.jsonl: its rows count no tokens; count those of its data with lengths_of"
    ):
        training_cost(tmp_path, RATES)


def test_parameters_are_counted_from_the_file(tmp_path: Path) -> None:
    """micro: 2 layers, width 32, 64 between, 19 tokens, output tied to input.

    A layer has 4 x 32 x 32 (attention) + 3 x 32 x 64 (MLP) + 2 x 32 (norms) = 10304; in all 2 x 10304 + 32 + 19 x 32.
    """
    body = 2 * 10304 + 32
    found = parameters_of(make_tiny(tmp_path, seed=0, size="micro"))
    assert found == Parameters(total=body + 19 * 32, input_embeddings=19 * 32, output_embeddings=0, speaks="tied")
    assert (found.without_embeddings, found.matmul) == (body, body + 19 * 32)
    untied = Parameters(total=100, input_embeddings=30, output_embeddings=30, speaks="own")
    assert (untied.without_embeddings, untied.matmul) == (40, 70)
    with pytest.raises(ModelError, match="holds no safetensors"):
        parameters_of(tmp_path / "nothing")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("reader", ["language model", "classifier", "value head"])
def test_embeddings_that_are_looked_up_are_not_multiplied(reader: str, tied: bool, tmp_path: Path) -> None:
    """Of a vocabulary of 19 and width 32. A language model multiplies by one such matrix, its own or the tied one; a model
    that is read by a head of 2 x 32 (+ 2), or of 32 + 1 beside a language model's file, by none."""
    settings = Qwen2Config(
        vocab_size=19, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = (Qwen2ForTokenClassification if reader == "classifier" else Qwen2ForCausalLM)(settings)
    model.save_pretrained(tmp_path)
    looked_up = 19 * 32
    multiplied = sum(p.numel() for p in model.parameters()) - looked_up * (reader == "classifier" or not tied)
    if reader == "value head":
        save_file({"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}, tmp_path / "value_head.safetensors")
        write_spec(tmp_path, PRMSpec(family="value_head"))
        multiplied += 33 - looked_up
    found = parameters_of(tmp_path)
    assert found.matmul == multiplied
    assert (found.matmul == found.without_embeddings) == (reader != "language model")


def test_an_adapter_alone_is_not_counted_as_a_model(tmp_path: Path) -> None:
    save_file({"a.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"config\.json cannot be read.*of an adapter, its base"):
        parameters_of(tmp_path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"response": 0}, "a response of 0 tokens"),
        ({"prompt": -1}, "to a prompt of -1"),
        ({"step_ends": (4, 3)}, r"step ends \(4, 3\) do not rise"),
        ({"step_ends": (9,)}, "behind the response's 8 tokens"),
    ],
)
def test_impossible_lengths_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Lengths(**{"prompt_id": "q", "prompt": 3, "response": 8, **bad})  # type: ignore[arg-type]


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(DataError, match="there are no responses to count"):
        implicit_ce([], RATES)
    with pytest.raises(ConfigError, match="numbers of parameters are positive"):
        flop_rates(0)
    assert flop_rates(10, reference=0).reference == 0
