"""Sampled attention: its limit, its rate of convergence, and its weights by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robot_attn.attention import attend, attend_sampled, build_score


def tensors(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("even", [True, False])
def test_the_error_falls_as_one_over_the_root_of_the_samples(even: bool) -> None:
    query, key, value = tensors(0, (1, 2, 3, 5), (1, 2, 101, 5), (1, 2, 101, 7))
    probabilities = None if even else (0.5 * tensors(1, (101,))[0]).exp()
    exact = attend(query, key, value).values
    many = [tensor.expand(200, -1, -1, -1) for tensor in (query, key, value)]
    sizes = (256, 1024, 4096, 16384)
    errors = []
    for samples in sizes:
        generator = torch.Generator().manual_seed(samples)
        attended = attend_sampled(*many, samples=samples, probabilities=probabilities, generator=generator)
        errors.append(float((attended.values - exact).square().mean().sqrt()))
    slopes = [math.log(later / earlier) / math.log(4) for earlier, later in itertools.pairwise(errors)]
    assert all(abs(slope + 0.5) < 0.06 for slope in slopes), slopes


@pytest.mark.parametrize("score", ["scaled_dot", "additive", "cosine"])
def test_the_mean_of_many_samples_is_attention(score: str) -> None:
    query, key, value, skewed = tensors(2, (1, 2, 3, 5), (1, 2, 11, 5), (1, 2, 11, 7), (1, 2, 11))
    given = build_score(score, 5, 2)
    if isinstance(given, torch.nn.Module):
        given.double()
    attended = attend_sampled(
        query,
        key,
        value,
        samples=400_000,
        probabilities=skewed.exp(),
        generator=torch.Generator().manual_seed(3),
        score=given,
    )
    exact = attend(query, key, value, score=given)
    torch.testing.assert_close(attended.weights, exact.weights, rtol=0, atol=5e-3)
    torch.testing.assert_close(attended.values, exact.values, rtol=0, atol=2e-2)


def test_values_equal_weights_times_values() -> None:
    query, key, value = tensors(4, (2, 3, 5, 7), (2, 1, 11, 7), (2, 1, 11, 13))
    attended = attend_sampled(query, key, value, samples=4, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(attended.weights.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))
    assert bool(((attended.weights > 0).sum(-1) <= 4).all())
    torch.testing.assert_close(attended.values, attended.weights @ value, rtol=1e-10, atol=1e-12)


def test_a_sample_by_hand() -> None:
    """Two samples of the only possible key, and samples of two keys whose probabilities differ threefold."""
    query, key = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 2, 1)
    value = torch.tensor([[[[2.0], [10.0]]]])
    only = attend_sampled(query, key, value, samples=2, probabilities=torch.tensor([0.0, 0.5]))
    assert only.weights.flatten().tolist() == [0.0, 1.0] and float(only.values) == 10.0
    # Equal scores: a key's weight is its count divided by its probability.
    generator, again = (torch.Generator().manual_seed(2) for _ in range(2))
    chances = torch.tensor([0.75, 0.25])
    drawn = torch.multinomial(chances, 13, True, generator=again)
    zeros, ones = int((drawn == 0).sum()), int((drawn == 1).sum())
    attended = attend_sampled(query, key, value, samples=13, probabilities=chances, generator=generator)
    expected = zeros / 0.75 / (zeros / 0.75 + ones / 0.25)
    assert 0 < zeros < 13 and float(attended.weights[0, 0, 0, 0]) == pytest.approx(expected, abs=1e-6)


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 6),
    samples=st.sampled_from([1, 2, 5, 13]),
    seed=st.integers(0, 2**31),
)
def test_equals_its_formula(sizes: tuple[int, ...], samples: int, seed: int) -> None:
    b, h, q, n, d, v = sizes
    query, key, value, skewed = tensors(seed, (b, h, q, d), (b, h, n, d), (b, h, n, v), (b, h, n))
    chances = skewed.exp()
    generator, again = (torch.Generator().manual_seed(seed) for _ in range(2))
    attended = attend_sampled(
        query, key, value, samples=samples, probabilities=chances, generator=generator, score="dot"
    )
    drawn = torch.multinomial(chances.view(b * h, n).float(), samples, True, generator=again)
    for i, j in itertools.product(range(b), range(h)):
        times = drawn.view(b, h, samples)[i, j].bincount(minlength=n)
        counts = (query[i, j] @ key[i, j].T).exp() * times / chances[i, j]
        weights = counts / counts.sum(-1, keepdim=True)
        torch.testing.assert_close(attended.weights[i, j], weights, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(attended.values[i, j], weights @ value[i, j], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-60, 1.0, 1e60])
def test_probabilities_are_up_to_a_factor(factor: float) -> None:
    inputs = tensors(10, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    chances = torch.arange(11.0, dtype=torch.float64) / 16  # exact when scaled, so draws are the same
    one, same = (
        attend_sampled(*inputs, samples=5, probabilities=p, generator=torch.Generator().manual_seed(8))
        for p in (chances, factor * chances)
    )
    torch.testing.assert_close(one.values, same.values)


def test_the_same_generator_gives_the_same_sample() -> None:
    inputs = tensors(6, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    one, same, other = (
        attend_sampled(*inputs, samples=5, generator=torch.Generator().manual_seed(seed))
        for seed in (8, 8, 9)
    )
    assert torch.equal(one.values, same.values) and not torch.equal(one.values, other.values)


def test_gradients() -> None:
    inputs = [tensor.requires_grad_() for tensor in tensors(7, (1, 2, 3, 5), (1, 2, 7, 5), (1, 2, 7, 2))]

    def values_of(*x: Tensor) -> tuple[Tensor, ...]:
        return tuple(attend_sampled(*x, samples=4, generator=torch.Generator().manual_seed(2)))

    assert torch.autograd.gradcheck(values_of, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    query, key, value = ((300 * t).to(dtype) for t in tensors(8, (1, 2, 5, 64), (1, 2, 7, 64), (1, 2, 7, 3)))
    attended = attend_sampled(query, key, value, samples=3)
    assert attended.values.dtype == dtype and bool(attended.values.isfinite().all())


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    attended = attend_sampled(
        torch.rand(batch, 2, 3, 5), torch.rand(batch, 2, 7, 5), torch.rand(batch, 2, 7, 11), samples=3
    )
    assert attended.values.shape == (batch, 2, 3, 11) and attended.weights.shape == (batch, 2, 3, 7)


def test_invalid_input_raises_value_error() -> None:
    query, key, value = tensors(9, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    bad = torch.ones(11)
    bad[3] = -1.0
    for match, options in (
        ("expected samples as a whole number of at least 1, got 0", {"samples": 0}),
        (r"expected probabilities \[11\] or \[2, 3, 11\]", {"samples": 2, "probabilities": torch.ones(5)}),
        ("expected finite probabilities of at least 0, not all 0", {"samples": 2, "probabilities": bad}),
        (
            "expected finite probabilities of at least 0, not all 0",
            {"samples": 2, "probabilities": torch.zeros(11)},
        ),
        ("needs all keys at once", {"samples": 2, "score": "standardized"}),
        ("did you mean 'dot'", {"samples": 2, "score": "dott"}),
    ):
        with pytest.raises(ValueError, match=match):
            attend_sampled(query, key, value, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"same dimension .*, got 7 and 5"):
        attend_sampled(query, key[..., :5], value, samples=2)
