"""Blockwise attention, compared with `attend`, which allocates all weights, and with torch's own."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import _blockwise, attend, attend_blockwise, build_score

SCORES = ["additive", "cosine", "dot", "learned cosine", "scaled_dot"]


def tensors(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def score_of(name: str, size: int, num_heads: int) -> object:
    torch.manual_seed(0)
    if name in ("additive", "learned cosine"):
        module = build_score(name.split()[-1], size, num_heads)
        assert isinstance(module, nn.Module)
        return module.double()
    return name


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 x 16, so that small tensors have several."""
    monkeypatch.setattr(_blockwise, "BLOCK_LOGITS", 1)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_equals_attention_with_its_gradients(name: str, masked: bool, shared: bool) -> None:
    h = 1 if shared else 3
    inputs = tensors(1, (2, 3, 37, 5), (2, h, 41, 5), (2, h, 41, 7))
    mask = None
    if masked:
        mask = tensors(2, (2, 1, 37, 41))[0] > 0
        mask[0, 0, 19] = False
    rows = torch.tensor([36, 19, 0])
    results = []
    for blockwise in (True, False):
        query, key, value = (tensor.clone().requires_grad_() for tensor in inputs)
        score = score_of(name, 5, 3)
        learned = list(score.parameters()) if isinstance(score, nn.Module) else []
        if blockwise:
            attended = attend_blockwise(query, key, value, score=score, mask=mask, rows=rows)  # type: ignore[arg-type]
        else:
            whole = attend(query, key, value, score=score, mask=mask)  # type: ignore[arg-type]
            attended = whole._replace(weights=whole.weights[:, :, rows])
        (attended.values.square().sum() + attended.weights.square().sum()).backward()
        results.append([*attended, *(each.grad for each in (query, key, value, *learned))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7, 17, 33])] * 6),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_torchs_attention(sizes: tuple[int, ...], masked: bool, seed: int) -> None:
    b, h, q, n, d, v = sizes
    query, key, value, chance = tensors(
        seed, (b, h, q, d), (b, h, n, d), (b, h, n, v), (b, 1, q, n), dtype=torch.float32
    )
    mask = chance > 0 if masked else None
    if mask is not None:
        mask[..., 0] = True  # torch's own is undefined for a fully masked row
    attended = attend_blockwise(query, key, value, mask=mask)
    expected = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=mask)
    torch.testing.assert_close(attended.values.double(), expected, rtol=1e-6, atol=1e-6)
    assert attended.weights.shape == (b, h, 0, n)


@pytest.mark.parametrize("name", ["additive", "learned cosine", "masked dot", "scaled_dot"])
def test_gradients(name: str) -> None:
    query, key, value = tensors(3, (1, 2, 18, 3), (1, 2, 19, 3), (1, 2, 19, 2))
    mask = tensors(4, (18, 19))[0] > 0 if name == "masked dot" else None
    score = score_of(name.split()[-1] if mask is not None else name, 3, 2)
    learned = list(score.parameters()) if isinstance(score, nn.Module) else []
    inputs = [tensor.requires_grad_() for tensor in (query, key, value, *learned)]
    rows = torch.tensor([3, 17])

    def both(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(attend_blockwise(q, k, v, score=score, mask=mask, rows=rows))  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(both, inputs, fast_mode=True)


def test_logits_far_apart_do_not_overflow() -> None:
    """A later block whose logits are far above, or far below, those of the blocks before it."""
    query = torch.ones(1, 1, 2, 1)
    query[0, 0, 1] = -1.0
    key = torch.linspace(-900.0, 900.0, 40).view(1, 1, 40, 1)
    value = torch.arange(40.0).view(1, 1, 40, 1)
    # A function, so that it is evaluated block by block.
    attended = attend_blockwise(query, key, value, score=lambda q, k: q @ k.transpose(2, 3))
    torch.testing.assert_close(attended.values.flatten(), torch.tensor([39.0, 0.0]))


def test_scores_that_ignore_an_input() -> None:
    """Scores of the keys alone, constant scores, and modules with frozen parameters."""
    inputs = tensors(7, (2, 3, 37, 5), (2, 3, 41, 5), (2, 3, 41, 7))
    frozen = score_of("additive", 5, 3)
    assert isinstance(frozen, nn.Module)
    frozen.to_key.requires_grad_(False)

    def keys_alone(query: Tensor, key: Tensor) -> Tensor:
        return key.sum(dim=-1)[:, :, None].expand(-1, -1, query.shape[2], -1)

    def nothing(query: Tensor, key: Tensor) -> Tensor:
        return query.new_zeros(*query.shape[:3], key.shape[2])

    for score in (frozen, keys_alone, nothing):
        results = []
        for how in (attend_blockwise, attend):
            query, key, value = (tensor.clone().requires_grad_() for tensor in inputs)
            frozen.zero_grad()
            values = how(query, key, value, score=score).values  # type: ignore[operator]
            values.square().sum().backward()
            zero = torch.zeros_like
            grads = [t.grad if t.grad is not None else zero(t) for t in (query, key, value)]
            results.append([values, *grads, *(w.grad for w in frozen.parameters() if w.grad is not None)])
        assert len(results[0]) == len(results[1]) == (6 if score is frozen else 4)
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


WAYS = ["plain", "transposed", "masked", "own blocks"]
PEAK = """
import os, resource, sys, torch
from robot_attn.attention import SCORES, attend_blockwise
count = int(sys.argv[1])
torch.set_num_threads(1)

def peak(way):
    tokens = torch.randn(1, 4, 16, count).mT if way == "transposed" else torch.randn(1, 4, count, 16)
    tokens.requires_grad_()
    options = {"score": SCORES["scaled_dot"]} if way == "own blocks" else {}
    few = tokens[:, :, :256]
    attend_blockwise(few, few, few, **options).values.sum().backward()  # loads torch's code
    if way == "masked":
        options["mask"] = (torch.arange(count) % 5 != 1)[None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attended = attend_blockwise(tokens, tokens, tokens, rows=torch.tensor([0, count - 1]), **options)
    (attended.values.square().sum() + attended.weights.square().sum()).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

for way in sys.argv[2:]:
    if os.fork() == 0:
        print(peak(way), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def test_memory_is_far_below_that_of_the_full_weights() -> None:
    """In separate processes: 4 heads of 4,096 x 4,096 weights would take 268 MB, and gradients as much.

    They are forked: torch is imported once, and a peak is theirs. To one that is started, Linux hands down
    the peak of who started it.
    """
    run = subprocess.run(
        [sys.executable, "-c", PEAK, "4096", *WAYS], check=True, capture_output=True, text=True
    )
    peaks = dict(zip(WAYS, map(int, run.stdout.split()), strict=True))
    assert {way: peak for way, peak in peaks.items() if not 0 < peak < 50_000} == {}  # kB


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype, masked: bool) -> None:
    query, key, value = (300 * tensor for tensor in tensors(5, (2, 3, 5, 64), (2, 3, 19, 64), (2, 3, 19, 7)))
    mask = torch.ones(5, 19, dtype=torch.bool) if masked else None
    half = [tensor.to(dtype) for tensor in (query, key, value)]
    attended = attend_blockwise(*half, mask=mask)
    assert attended.values.dtype == dtype
    torch.testing.assert_close(attended.values, attend(*half, mask=mask).values, rtol=0.02, atol=2.0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int, masked: bool) -> None:
    mask = torch.ones(3, 7, dtype=torch.bool) if masked else None
    query = torch.rand(batch, 2, 3, 5, requires_grad=True)
    attended = attend_blockwise(query, torch.rand(batch, 2, 7, 5), torch.rand(batch, 1, 7, 11), mask=mask)
    assert attended.values.shape == (batch, 2, 3, 11)
    attended.values.sum().backward()


def test_invalid_input_raises_value_error() -> None:
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)

    def holds_a_tensor_that_learns(query: Tensor, key: Tensor) -> Tensor:
        return factor * (query @ key.transpose(2, 3))

    query, key, value = tensors(6, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    for match, arguments, options in (
        ("did you mean 'scaled_dot'", (query, key, value), {"score": "scaled_dott"}),
        ("needs all keys at once", (query, key, value), {"score": "standardized"}),
        ("needs all keys at once", (query, key, value), {"score": build_score("standardized", 7, 3)}),
        ("expected at least 1 key", (query, key[:, :, :0], value[:, :, :0]), {}),
        ("same dimension .*, got 7 and 5", (query, key[..., :5], value), {}),
        ("make it an nn.Module with parameters", (query, key, value), {"score": holds_a_tensor_that_learns}),
        ("expected mask that broadcasts", (query, key, value), {"mask": torch.ones(7, 11, dtype=torch.bool)}),
        ("indices of the 5 queries, got .* from 0 to 5", (query, key, value), {"rows": torch.tensor([0, 5])}),
        ("indices of the 5 queries", (query, key, value), {"rows": torch.tensor([True])}),
    ):
        with pytest.raises(ValueError, match=match):
            attend_blockwise(*arguments, **options)  # type: ignore[arg-type]
