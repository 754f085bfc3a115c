"""Chunked log-probs: numbers, gradients, precision and memory."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prmkit.ops import logprobs
from prmkit.ops.logprobs import chunk_positions, token_logprobs


def inputs(N: int, D: int, V: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden_ND, weight_VD, bias_V and token_N."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(N, D), (V, D), (V,)]
    hidden_ND, weight_VD, bias_V = (torch.randn(*s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)
    return hidden_ND, weight_VD, bias_V, torch.randint(0, V, (N,), generator=generator)


def plain(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, token_N: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """All logits at once."""
    logp_NV = ((hidden_ND @ weight_VD.T + bias_V) / temperature).log_softmax(-1)
    return logp_NV.gather(1, token_N[:, None]).squeeze(1), -(logp_NV.exp() * logp_NV).sum(-1)


@pytest.fixture
def two_positions_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a vocabulary of 7."""
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 4 * 7 * 2)


def test_three_words() -> None:
    hidden_ND = torch.ones(2, 1, dtype=torch.float64)
    weight_VD = torch.tensor([[0.0], [math.log(2)], [math.log(5)]], dtype=torch.float64)
    token_N = torch.tensor([1, 2])
    # exp(logits) 1, 2, 5: probabilities 1/8, 2/8, 5/8; entropy log(8)/8 + 2 log(4)/8 + 5 log(8/5)/8
    logp_N, entropy_N = token_logprobs(hidden_ND, weight_VD, token_N)
    entropy = math.log(8) / 8 + 2 * math.log(4) / 8 + 5 * math.log(8 / 5) / 8
    assert logp_N.tolist() == pytest.approx([math.log(2 / 8), math.log(5 / 8)], rel=1e-6)
    assert entropy_N.tolist() == pytest.approx([entropy, entropy], rel=1e-6)
    # temperature 1/2 squares them: 1, 4, 25 of 30. The bias log(3) on the first word is inside: 9, 4, 25 of 38
    logp_N, _ = token_logprobs(hidden_ND, weight_VD, token_N, temperature=0.5)
    assert logp_N.tolist() == pytest.approx([math.log(4 / 30), math.log(25 / 30)], rel=1e-6)
    bias_V = torch.tensor([math.log(3), 0.0, 0.0], dtype=torch.float64)
    logp_N, _ = token_logprobs(hidden_ND, weight_VD, token_N, bias_V=bias_V, temperature=0.5)
    assert logp_N.tolist() == pytest.approx([math.log(4 / 38), math.log(25 / 38)], rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.usefixtures("two_positions_a_chunk")
def test_chunks_give_the_numbers_and_gradients_of_all_logits_at_once(temperature: float) -> None:
    *leaves, token_N = inputs(5, 3, 7)
    assert chunk_positions(5, 7) == 2  # chunks of 2, 2 and 1
    weight_N = torch.linspace(-1, 2, 5, dtype=torch.float64)
    for leaf in leaves:
        leaf.requires_grad_()
    hidden_ND, weight_VD, bias_V = leaves
    ours = token_logprobs(hidden_ND, weight_VD, token_N, bias_V=bias_V, temperature=temperature)
    theirs = plain(hidden_ND, weight_VD, bias_V, token_N, temperature)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad((weight_N * logp + weight_N.flip(0) * h).sum(), leaves) for logp, h in (ours, theirs)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_minus_log_probs_are_the_cross_entropy() -> None:
    hidden_ND, weight_VD, _, token_N = inputs(6, 4, 11, torch.float32)
    logp_N, _ = token_logprobs(hidden_ND, weight_VD, token_N)
    torch.testing.assert_close(-logp_N, F.cross_entropy(hidden_ND @ weight_VD.T, token_N, reduction="none"))


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.usefixtures("two_positions_a_chunk")
def test_gradcheck(temperature: float) -> None:
    *leaves, token_N = inputs(5, 3, 7)
    for leaf in leaves:
        leaf.requires_grad_()

    def both(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(hidden_ND, weight_VD, token_N, bias_V=bias_V, temperature=temperature)

    assert torch.autograd.gradcheck(both, tuple(leaves))


@pytest.mark.usefixtures("two_positions_a_chunk")
def test_without_entropy_log_probs_and_gradients_are_the_same() -> None:
    *leaves, token_N = inputs(5, 3, 7)
    for leaf in leaves:
        leaf.requires_grad_()
    hidden_ND, weight_VD, bias_V = leaves
    results = []
    for entropy in (True, False):
        logp_N, entropy_N = token_logprobs(hidden_ND, weight_VD, token_N, bias_V=bias_V, entropy=entropy)
        assert (entropy_N is not None) == entropy
        results.append((logp_N, *torch.autograd.grad(logp_N.square().sum(), leaves)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_positions_without_weight_get_exactly_no_gradient() -> None:
    hidden_ND, weight_VD, _, token_N = inputs(5, 3, 7)
    logp_N, entropy_N = token_logprobs(hidden_ND.requires_grad_(), weight_VD, token_N)
    kept_N = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    (grad_ND,) = torch.autograd.grad((kept_N * (logp_N + entropy_N)).sum(), hidden_ND)
    assert grad_ND.any(dim=1).tolist() == [True, False, True, False, False]


def test_only_what_is_trained_gets_a_gradient() -> None:
    hidden_ND, weight_VD, bias_V, token_N = inputs(5, 3, 7)
    token_logprobs(hidden_ND, weight_VD, token_N, bias_V=bias_V.requires_grad_())[0].sum().backward()
    assert (hidden_ND.grad, weight_VD.grad) == (None, None)
    # sum over positions of (onehot - p): over the vocabulary it is N - N
    assert bias_V.grad is not None
    assert float(bias_V.grad.sum()) == pytest.approx(0.0, abs=1e-12)


def test_a_second_derivative_is_refused() -> None:
    hidden_ND, weight_VD, _, token_N = inputs(5, 3, 7)
    logp_N, _ = token_logprobs(hidden_ND.requires_grad_(), weight_VD, token_N)
    (grad_ND,) = torch.autograd.grad(logp_N.sum(), hidden_ND, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(grad_ND.square().sum(), hidden_ND)


def test_large_logits_stay_finite() -> None:
    # logits 1e4, 0, 0: probabilities 1, 0, 0
    hidden_ND, weight_VD = torch.tensor([[1e4], [1e4]]), torch.tensor([[1.0], [0.0], [0.0]])
    logp_N, entropy_N = token_logprobs(hidden_ND.requires_grad_(), weight_VD, torch.tensor([0, 2]))
    assert (logp_N.tolist(), entropy_N.tolist()) == ([0.0, -1e4], [0.0, 0.0])
    (logp_N + entropy_N).sum().backward()
    assert hidden_ND.grad is not None
    assert hidden_ND.grad.tolist() == [[0.0], [-1.0]]  # (onehot - p) @ weight: 1 - 1, 0 - 1


def test_no_positions_are_no_error() -> None:
    hidden_ND, weight_VD, _, token_N = inputs(0, 3, 7)
    logp_N, entropy_N = token_logprobs(hidden_ND.requires_grad_(), weight_VD.requires_grad_(), token_N)
    (logp_N.sum() + entropy_N.sum()).backward()
    assert (logp_N.shape, entropy_N.shape) == ((0,), (0,))
    assert weight_VD.grad is not None
    assert not weight_VD.grad.any()


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    hidden_ND, weight_VD, _, token_N = inputs(5, 3, 7)
    with pytest.raises(ValueError, match=f"temperature must be > 0 to have log-probs, got {temperature}"):
        token_logprobs(hidden_ND, weight_VD, token_N, temperature=temperature)


def test_bfloat16_states_give_float32_log_probs_within_the_rounding_of_logits() -> None:
    hidden_ND, weight_VD, bias_V, token_N = inputs(40, 32, 200, torch.bfloat16)
    hidden_ND.requires_grad_()
    logp_N, entropy_N = token_logprobs(hidden_ND, weight_VD, token_N, bias_V=bias_V)
    assert (logp_N.dtype, entropy_N.dtype) == (torch.float32, torch.float32)
    exact_ND = hidden_ND.detach().double().requires_grad_()
    exact_N, _ = plain(exact_ND, weight_VD.double(), bias_V.double(), token_N, 1.0)
    # A logit is rounded to 8 bits, by at most 2^-8 of its size, in the token's place and in the normaliser.
    largest = float((exact_ND.detach() @ weight_VD.double().T).abs().max())
    assert float((logp_N - exact_N).detach().abs().max()) < 2 * 2**-8 * largest
    logp_N.sum().backward()
    exact_N.sum().backward()
    assert hidden_ND.grad is not None
    assert exact_ND.grad is not None
    assert float((hidden_ND.grad - exact_ND.grad).norm() / exact_ND.grad.norm()) < 2**-6


def test_under_autocast_backward_makes_the_logits_of_forward_again() -> None:
    """sum_v (onehot - p) is 0 only if p is normalised by the sum over the same logits."""
    hidden_ND, weight_VD, bias_V, token_N = inputs(40, 32, 200, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logp_N, _ = token_logprobs(hidden_ND.requires_grad_(), weight_VD, token_N, bias_V=bias_V.requires_grad_())
    logp_N.sum().backward()
    assert bias_V.grad is not None
    assert hidden_ND.grad is not None
    assert hidden_ND.grad.dtype == torch.float32
    assert abs(float(bias_V.grad.sum())) < 1e-5


def test_chunks_fit_their_size() -> None:
    # 8 MiB of float32 logits over 2048 words: 1024 positions. Over 49152 words that would be 42: not fewer than 256
    assert chunk_positions(10_000, 2048) == 1024
    assert chunk_positions(10_000, 49_152) == 256
    # but at most 64 MiB: over 151936 words 110 positions (110.4); never more than there are, never none
    assert chunk_positions(10_000, 151_936) == 110
    assert chunk_positions(50, 151_936) == 50
    assert chunk_positions(10, 10**9) == 1


class LiveBytes(TorchDispatchMode):
    """The largest sum of the sizes of tensors that were alive at one time, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def test_logits_of_all_positions_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    N, D, V = 512, 8, 2048
    chunk, logits = 4 * V * 16, 4 * V * N  # 16 positions at a time: 128 KiB of 4 MiB
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", chunk)
    hidden_ND, weight_VD, bias_V, token_N = inputs(N, D, V, torch.float32)
    for leaf in (hidden_ND, weight_VD, bias_V):
        leaf.requires_grad_()

    with LiveBytes() as plainly:
        logp_N, entropy_N = plain(hidden_ND, weight_VD, bias_V, token_N, 1.0)
        (logp_N + entropy_N).sum().backward()
    hidden_ND.grad = weight_VD.grad = bias_V.grad = None
    with LiveBytes() as ours:
        logp_N, entropy_N = token_logprobs(hidden_ND, weight_VD, token_N, bias_V=bias_V)
        (logp_N + entropy_N).sum().backward()

    assert plainly.peak > 3 * logits  # the meter sees what it should
    # A handful of chunks, the gradient of the weight and its part from one chunk, vectors over positions.
    assert ours.peak < 8 * chunk + 2 * 4 * V * D + 16 * 4 * N * D
    assert ours.peak < logits / 3
