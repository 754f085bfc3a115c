"""What a reward model costs in FLOPs: sampling, labels and training, counted from a run's own tokens.

A token costs 2 P FLOPs in a forward pass and 6 P in training, P being the parameters that take part in multiplications. What
attention does beyond its parameters, which grows with the square of the length, is not counted.

The counts follow the accounting that reproduces the ratios of arXiv:2412.01981: DPO is trained on the cross product of right
and wrong responses, Monte Carlo labels take a fixed number of completions after every step.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from prmkit.data.jsonl import read_jsonl
from prmkit.data.labels import is_right
from prmkit.data.layouts import as_response
from prmkit.data.prm_spec import read_spec
from prmkit.data.types import Solution
from prmkit.errors import ConfigError, DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMPLETIONS = 8
"""Completions of each prefix in Math-Shepherd (arXiv:2312.08935)."""
INPUT_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
OUTPUT_NAMES = ("lm_head.weight", "embed_out.weight", "output.weight")
SPEAKING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How classes of transformers end that have an output over the vocabulary. Without a matrix of its own it is tied."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """One response in tokens."""

    prompt_id: str
    """Responses to one prompt form pairs."""
    prompt: int
    """Tokens of the prompt; 0 counts responses alone, as the accounting of the paper does."""
    response: int
    """Tokens of the response, its end token included."""
    step_ends: tuple[int, ...] = ()
    """Tokens of the response up to and including each step. Needed for Monte Carlo labels."""
    right: bool | None = None
    """Whether the outcome is right. Needed for pairs."""

    def __post_init__(self) -> None:
        if self.prompt < 0 or self.response < 1:
            raise DataError(
                f"a response of {self.response} tokens to a prompt of {self.prompt} cannot be; count them again"
            )
        ends = (0, *self.step_ends, self.response)
        if any(a > b for a, b in pairwise(ends)):
            raise DataError(
                f"step ends {self.step_ends} do not rise, or lie behind the response's {self.response} tokens"
            )

    @property
    def total(self) -> int:
        """Tokens that a training pass reads."""
        return self.prompt + self.response

    @property
    def remaining(self) -> int:
        """Sum over the steps of the tokens that follow them: what one completion of each prefix is expected to take."""
        return sum(self.response - end for end in self.step_ends)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """FLOPs per token."""

    generate: float
    """Sampling by the generator: 2 P."""
    complete: float
    """Sampling by the completer of Monte Carlo labels: 2 P."""
    train: float
    """Forward and backward pass of the trained model: 6 P."""
    forward: float
    """Forward pass of the trained model: 2 P."""
    reference: float
    """Forward pass of the reference: 2 P; 0 where there is none."""


UNIT = Rates(generate=1.0, complete=1.0, train=1.0, forward=1.0, reference=0.0)
"""Every token costs the same, whatever is done with it. The paper's ratios come out with these, not with `flop_rates`."""


def flop_rates(
    policy: float, *, generator: float | None = None, completer: float | None = None, reference: float | None = None
) -> Rates:
    """Rates from numbers of parameters (`Parameters.matmul` of each model); what is not given is as large as the policy.

    No reference at all is `reference=0`.
    """
    sizes = [policy if size is None else size for size in (generator, completer, reference)]
    if policy <= 0 or min(sizes) < 0:
        raise ConfigError(f"numbers of parameters are positive, got {policy} and {sizes}")
    return Rates(
        generate=2 * sizes[0], complete=2 * sizes[1], train=6 * policy, forward=2 * policy, reference=2 * sizes[2]
    )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """FLOPs of one method."""

    sampling: float
    """Of the responses that every method starts from: the shared term."""
    labels: float
    """Of what the method itself does to get labels."""
    training: float

    @property
    def without_sampling(self) -> float:
        """What the methods differ in."""
        return self.labels + self.training

    @property
    def total(self) -> float:
        """Everything."""
        return self.sampling + self.without_sampling


def implicit_ce(lengths: Sequence[Lengths], rates: Rates, *, epochs: float = 1) -> Cost:
    """Every response once an epoch: N L (6 P + 2 P_ref)."""
    return _cost(lengths, rates, training=epochs * _tokens(lengths) * (rates.train + rates.reference))


def implicit_kto(lengths: Sequence[Lengths], rates: Rates, *, epochs: float = 1) -> Cost:
    """As CE, and one more forward pass of both models over as many tokens, for the KL of mismatched pairs."""
    each = rates.train + 2 * rates.reference + rates.forward
    return _cost(lengths, rates, training=epochs * _tokens(lengths) * each)


def implicit_dpo(
    lengths: Sequence[Lengths], rates: Rates, *, epochs: float = 1, pairs: Literal["all", "one_to_one"] = "all"
) -> Cost:
    """Both responses of each pair: n_pairs 2 L (6 P + 2 P_ref). NCA costs the same.

    `all`: every right with every wrong response of a prompt. `one_to_one`: as many pairs as the rarer class has members;
    lengths are then the means of the classes. Raises DataError where an outcome is not known.
    """
    tokens = sum(_pair_tokens(members, pairs) for members in _by_prompt(lengths).values())
    return _cost(lengths, rates, training=epochs * tokens * (rates.train + rates.reference))


def monte_carlo(
    lengths: Sequence[Lengths],
    rates: Rates,
    *,
    completions: int = COMPLETIONS,
    epochs: float = 1,
    completed: int | None = None,
) -> Cost:
    """Explicit PRM on Monte Carlo labels (Math-Shepherd): 2 P_completer x completions x remaining lengths + 6 P N L.

    `completed`: tokens that the completions really took, where the run has counted them; else the remaining length of the
    response itself stands for the length of a completion. Raises DataError where steps are not known.
    """
    if completed is None:
        missing = next((k for k, found in enumerate(lengths) if not found.step_ends), None)
        if missing is not None:
            raise DataError(
                f"response {missing + 1} of prompt {lengths[missing].prompt_id!r} has no steps; give step_ends"
            )
        completed = completions * sum(found.remaining for found in lengths)
    return _cost(lengths, rates, labels=completed * rates.complete, training=epochs * _tokens(lengths) * rates.train)


def auto_psv(lengths: Sequence[Lengths], rates: Rates, *, outcome_epochs: float = 1, step_epochs: float = 1) -> Cost:
    """AutoPSV (arXiv:2405.16802): train an outcome verifier, let it label every response, train on these labels.

    The first stage is counted as the price of the labels.
    """
    tokens = _tokens(lengths)
    return _cost(
        lengths,
        rates,
        labels=tokens * (outcome_epochs * rates.train + rates.forward),
        training=step_epochs * tokens * rates.train,
    )


def outcome_model(lengths: Sequence[Lengths], rates: Rates, *, epochs: float = 1) -> Cost:
    """ORM, and explicit PRM on labels that are there already: 6 P N L. What people's labels cost is not counted."""
    return _cost(lengths, rates, training=epochs * _tokens(lengths) * rates.train)


def all_costs(
    lengths: Sequence[Lengths], rates: Rates, *, epochs: float = 1, completions: int = COMPLETIONS
) -> dict[str, Cost]:
    """Every method on the same responses."""
    return {
        "implicit_ce": implicit_ce(lengths, rates, epochs=epochs),
        "implicit_kto": implicit_kto(lengths, rates, epochs=epochs),
        "implicit_dpo": implicit_dpo(lengths, rates, epochs=epochs),
        "monte_carlo": monte_carlo(lengths, rates, epochs=epochs, completions=completions),
        "auto_psv": auto_psv(lengths, rates, outcome_epochs=epochs, step_epochs=epochs),
        "outcome": outcome_model(lengths, rates, epochs=epochs),
    }


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One method beside another."""

    method: str
    cost: Cost
    ratio: float
    """Everything, over everything of the method compared with."""
    ratio_without_sampling: float
    """The same without the shared term."""


def compare(costs: Mapping[str, Cost], *, to: str = "implicit_ce") -> list[CostRow]:
    """Each method's cost over that of `to`, with and without the shared sampling term."""
    if to not in costs:
        raise ConfigError(f"{to!r} is none of the costs {', '.join(costs)}")
    base = costs[to]
    return [
        CostRow(
            method=method,
            cost=cost,
            ratio=cost.total / base.total,
            ratio_without_sampling=cost.without_sampling / base.without_sampling,
        )
        for method, cost in costs.items()
    ]


def cost_table(rows: Sequence[CostRow]) -> str:
    """Markdown."""
    head = ("method", "sampling", "labels", "training", "total", "ratio", "ratio without sampling")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        numbers = (row.cost.sampling, row.cost.labels, row.cost.training, row.cost.total)
        ratios = (row.ratio, row.ratio_without_sampling)
        cells = [row.method, *(f"{number:.3g}" for number in numbers), *(f"{ratio:.2f}" for ratio in ratios)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def lengths_of(tokenizer: PreTrainedTokenizerBase, solutions: Sequence[Solution]) -> list[Lengths]:
    """Lengths of solutions in this tokenizer's tokens, laid out as the policy would write them.

    An outcome counts as right by `data.labels.is_right`. Raises DataError for a solution that cannot be tokenised.
    """
    found = []
    for solution in solutions:
        laid = as_response(tokenizer, solution)
        found.append(
            Lengths(
                prompt_id=solution.prompt.id,
                prompt=laid.prompt_length,
                response=len(laid.token_ids) - laid.prompt_length,
                step_ends=tuple(place + 1 - laid.prompt_length for place in laid.read_at),
                right=None if solution.outcome is None else is_right(solution.outcome),
            )
        )
    return found


def training_cost(run: str | Path, rates: Rates) -> Cost:
    """What the training of a run folder cost, from the tokens that its metrics have counted; sampling and labels are 0.

    `tokens/trained` are forward and backward, `tokens/forward` further forward passes, `tokens/reference` those of the
    reference. Raises DataError where the metrics count no tokens: count them with `lengths_of` then.
    """
    path = Path(run) / "metrics.jsonl"
    totals: dict[str, float] = defaultdict(float)
    for row in read_jsonl(path):
        for key in ("tokens/trained", "tokens/forward", "tokens/reference"):
            totals[key] += float(row.get(key, 0.0))
    if not totals["tokens/trained"]:
        raise DataError(
            f"{path}: its rows count no tokens; count those of its data with lengths_of and use the formulas"
        )
    training = totals["tokens/trained"] * rates.train + totals["tokens/forward"] * rates.forward
    return Cost(sampling=0.0, labels=0.0, training=training + totals["tokens/reference"] * rates.reference)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters in a folder's safetensors."""

    total: int
    input_embeddings: int
    output_embeddings: int
    """0 where there is no such matrix of its own."""
    speaks: Literal["own", "tied", "none"]
    """What the output multiplies by: a matrix of its own, the input embeddings, or neither (a classifier or a value head)."""

    @property
    def matmul(self) -> int:
        """Parameters that take part in multiplications: all but the input embeddings, which are looked up.

        Where output and input embeddings are one matrix it counts, since the output multiplies by it. Where the model is read
        by a head of its own, no matrix of the vocabulary counts.
        """
        if self.speaks == "tied":
            return self.total - self.output_embeddings
        return self.total - self.input_embeddings - (self.output_embeddings if self.speaks == "none" else 0)

    @property
    def without_embeddings(self) -> int:
        """Neither input nor output embeddings: the count of scaling laws."""
        return self.total - self.input_embeddings - self.output_embeddings


def parameters_of(folder: str | Path) -> Parameters:
    """Count the parameters of a model folder; no weight is loaded.

    config.json says whether there is an output over the vocabulary (`architectures`), prm.json whether a value head is read in
    its place. Raises ModelError where there are no safetensors, or no config.json beside them.
    """
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            # safetensors has no types of its own
            with cast(AbstractContextManager[Any], safe_open(str(file), framework="np")) as tensors:
                for name in tensors.keys():  # noqa: SIM118  not a mapping
                    sizes[name] = math.prod(tensors.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: cannot be read: {error}; save the model again") from error
    if not sizes:
        raise ModelError(f"{folder}: holds no safetensors; save the model as safetensors")
    inputs, outputs = (
        sum(size for name, size in sizes.items() if name.endswith(names)) for names in (INPUT_NAMES, OUTPUT_NAMES)
    )
    return Parameters(
        total=sum(sizes.values()),
        input_embeddings=inputs,
        output_embeddings=outputs,
        speaks=_output_of(Path(folder), has_matrix=outputs > 0),
    )


def _output_of(folder: Path, *, has_matrix: bool) -> Literal["own", "tied", "none"]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: config.json cannot be read: {error}; give a whole model (of an adapter, its base)"
        ) from error
    spec = read_spec(folder)
    if spec is not None and spec.family == "value_head":
        return "none"
    tied = bool(config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings", False)))
    names = [str(name) for name in config.get("architectures") or ()]
    if names and not any(name.endswith(SPEAKING) for name in names):
        return "none"
    if has_matrix:
        return "tied" if tied else "own"
    return "tied" if names or tied else "none"


def _cost(lengths: Sequence[Lengths], rates: Rates, *, training: float, labels: float = 0.0) -> Cost:
    if not lengths:
        raise DataError("there are no responses to count; give at least one")
    return Cost(sampling=sum(found.response for found in lengths) * rates.generate, labels=labels, training=training)


def _tokens(lengths: Sequence[Lengths]) -> int:
    return sum(found.total for found in lengths)


def _by_prompt(lengths: Sequence[Lengths]) -> dict[str, list[Lengths]]:
    groups: dict[str, list[Lengths]] = defaultdict(list)
    for found in lengths:
        if found.right is None:
            raise DataError(f"a response to prompt {found.prompt_id!r} has no outcome; pairs need one")
        groups[found.prompt_id].append(found)
    return groups


def _pair_tokens(members: Sequence[Lengths], pairs: Literal["all", "one_to_one"]) -> float:
    right = [found.total for found in members if found.right]
    wrong = [found.total for found in members if not found.right]
    if not right or not wrong:
        return 0.0
    if pairs == "all":
        return len(wrong) * sum(right) + len(right) * sum(wrong)
    return min(len(right), len(wrong)) * (sum(right) / len(right) + sum(wrong) / len(wrong))
