"""Attention in several real processes over loopback, compared with `attend` in a single one.

For each world size the processes are started once, by running this file, and do all checks. A failure on any
rank fails the test with that rank's message; a hang fails it after `TIMEOUT` seconds.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from robot_attn import SCORES, Attended, attend, build_score
from robot_attn.attention import LEARNED_SCORES
from robot_attn.attention.distributed import attend_heads_parallel, attend_sequence_parallel

TIMEOUT = 60.0
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


class Case(NamedTuple):
    """The inputs of one process, and the coefficients of a loss on values and weights."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor
    by_value: Tensor
    by_weight: Tensor

    def loss(self, attended: Attended, keys: slice = slice(None)) -> Tensor:
        by_value = (attended.values.square() * self.by_value).sum()
        return by_value + (attended.weights * self.by_weight[..., keys]).sum()


def sample(
    b: int, h: int, q: int, n: int, d: int, v: int, shared: bool = False, dtype: torch.dtype = torch.float64
) -> Case:
    """Random inputs whose last query is fully masked; the heads share keys and values where `shared`.

    In float32 the numbers are smaller: with those of float64, "dot" gives logits of 10 and the gradients of a
    single process already have an error of 5e-6 (measured against float64), above the tolerance of 1e-6.
    """
    generator = torch.Generator().manual_seed(b + 10 * h + 100 * n)
    some = partial(torch.randn, generator=generator, dtype=torch.float64)
    by_head = 1 if shared else h
    mask = some(b, h, q, n) > -0.5
    mask[:, :, -1] = False
    tensors = some(b, h, q, d), some(b, by_head, n, d), some(b, by_head, n, v)
    scale = 0.4 if dtype == torch.float32 else 1.0
    query, key, value = ((scale * tensor).to(dtype).requires_grad_() for tensor in tensors)
    by_value, by_weight = ((scale * tensor).to(dtype) for tensor in (some(b, h, q, v), some(b, h, q, n)))
    return Case(query, key, value, mask, by_value, by_weight)


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float64):
        yield sample(2, 3, 5, 11, 7, 13, dtype=dtype)
        yield sample(2, 7, 3, 13, 5, 1, shared=True, dtype=dtype)
    for sizes in ((3, 1, 2, 5, 3, 2), (1, 4, 1, 7, 5, 3), (0, 3, 5, 11, 7, 2)):
        yield sample(*sizes)


def own_keys(n: int, group: dist.ProcessGroup | None = None) -> slice:
    """The slice of this rank's keys: rank 0 has all but one for each of the others."""
    others = dist.get_world_size(group) - 1
    rank = dist.get_rank(group)
    return slice(0, n - others) if rank == 0 else slice(n - others + rank - 1, n - others + rank)


def cut(case: Case, keys: slice) -> tuple[Tensor, Tensor, Tensor]:
    """The query, keys and values of a rank, as leaves."""
    tensors = case.query, case.key[:, :, keys], case.value[:, :, keys]
    query, key, value = (tensor.detach().clone().requires_grad_() for tensor in tensors)
    return query, key, value


def assert_close(ours: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(ours, expected, strict=True):
        close = CLOSE[other.dtype]
        torch.testing.assert_close(one, other, rtol=close, atol=close)


def variations() -> Iterator[tuple[Case, str, Tensor | None]]:
    """Every case with every score, and each score with no mask, a full one and a broadcast one."""
    for count, (case, score) in enumerate(product(cases(), sorted(SCORES))):
        yield case, score, (None, case.mask, case.mask[:, 0].any(dim=0))[count % 3]


def check_heads() -> None:
    for case, score, mask in variations():
        tensors = case.query, case.key, case.value
        expected = attend(*tensors, score=score, mask=mask)
        attended = attend_heads_parallel(*tensors, score=score, mask=mask)
        assert_close(attended, expected)
        assert_close(*(torch.autograd.grad(case.loss(each), tensors) for each in (attended, expected)))


def check_sequence(group: dist.ProcessGroup | None = None) -> None:
    for case, score, mask in variations():
        keys = own_keys(case.key.shape[2], group)
        ours, tensors = cut(case, keys), (case.query, case.key, case.value)
        gather = mask is case.mask
        mine = slice(None) if gather else keys
        shard = None if mask is None else mask[..., keys]
        expected = attend(*tensors, score=score, mask=mask)
        attended = attend_sequence_parallel(
            *ours, score=score, mask_shard=shard, group=group, gather_weights=gather
        )
        assert_close(attended, (expected.values, expected.weights[..., mine]))
        if mask is not None:
            assert not bool(attended.values[:, :, -1].any() or attended.weights[:, :, -1].any())
        by_query, by_key, by_value = torch.autograd.grad(case.loss(expected), tensors)
        gradients = torch.autograd.grad(case.loss(attended, mine), ours)
        assert_close(gradients, (by_query, by_key[:, :, keys], by_value[:, :, keys]))


def check_values_are_the_same_bits_everywhere() -> None:
    case = sample(2, 3, 5, 11, 7, 13, dtype=torch.float32)
    values = attend_sequence_parallel(*cut(case, own_keys(11))).values.detach()
    everyone = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, values)
    assert all(torch.equal(values, each) for each in everyone)


def check_parameters_of_a_score() -> None:
    case = sample(2, 3, 5, 11, 7, 13)
    keys = own_keys(11)
    for name in sorted(LEARNED_SCORES):
        torch.manual_seed(3)
        score = build_score(name, 7, 3)
        assert isinstance(score, nn.Module)
        score.double()
        parameters = tuple(score.parameters())

        def outcome(attended: Attended, keys: slice, also: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(case.loss(attended, keys), (also, *parameters))  # noqa: B023

        expected = outcome(attend(case.query, case.key, case.value, score=score), slice(None), case.query)
        assert all(bool(gradient.any()) for gradient in expected)
        heads = attend_heads_parallel(case.query, case.key, case.value, score=score)
        assert_close(outcome(heads, slice(None), case.query), expected)
        ours = cut(case, keys)
        assert_close(outcome(attend_sequence_parallel(*ours, score=score), keys, ours[0]), expected)


def check_second_derivatives() -> None:
    case = sample(2, 3, 2, 5, 3, 2)
    keys = own_keys(5)

    def outcome(attended: Attended, query: Tensor, key: Tensor, mine: slice) -> tuple[Tensor, ...]:
        (first,) = torch.autograd.grad(case.loss(attended, mine), query, create_graph=True)
        return (first, *torch.autograd.grad(first.square().sum(), (query, key)))

    tensors = case.query, case.key, case.value
    expected = outcome(attend(*tensors, mask=case.mask), case.query, case.key, slice(None))
    heads = attend_heads_parallel(*tensors, mask=case.mask)
    assert_close(outcome(heads, case.query, case.key, slice(None)), expected)
    ours = cut(case, keys)
    attended = attend_sequence_parallel(*ours, mask_shard=case.mask[..., keys])
    assert_close(outcome(attended, ours[0], ours[1], keys), (*expected[:2], expected[2][:, :, keys]))


def check_gradcheck() -> None:
    """Finite differences change a shared number on every rank at once, as a single process does."""
    case = sample(1, 3, 2, 5, 2, 2)
    keys = own_keys(5)
    _, key, value = (tensor.detach() for tensor in cut(case, keys))
    for mask in (None, case.mask):

        def by_heads(*tensors: Tensor) -> tuple[Tensor, ...]:
            return tuple(attend_heads_parallel(*tensors, mask=mask))  # type: ignore[misc]  # noqa: B023

        def by_keys(query: Tensor) -> tuple[Tensor, ...]:
            shard = None if mask is None else mask[..., keys]  # noqa: B023
            return tuple(attend_sequence_parallel(query, key, value, mask_shard=shard, gather_weights=True))

        assert torch.autograd.gradcheck(by_heads, (case.query, case.key, case.value), fast_mode=True)
        assert torch.autograd.gradcheck(by_keys, (case.query,), fast_mode=True)


def check_half_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        case = sample(2, 3, 5, 11, 64, 7, dtype=dtype)
        query, key, value = (300 * each.detach() for each in (case.query, case.key, case.value))
        keys = own_keys(11)
        for score in sorted(SCORES):
            expected = attend(query, key, value, score=score)
            heads = attend_heads_parallel(query, key, value, score=score)
            attended = attend_sequence_parallel(query, key[:, :, keys], value[:, :, keys], score=score)
            assert heads.values.dtype == attended.values.dtype == attended.weights.dtype == dtype
            assert_close(heads, expected)
            assert_close(attended, (expected.values, expected.weights[..., keys]))


def check_own_weights_of_heads() -> None:
    case = sample(2, 7, 3, 5, 2, 2)
    ranks, rank = dist.get_world_size(), dist.get_rank()
    mine = torch.arange(7).tensor_split(ranks)[rank]
    attended = attend_heads_parallel(case.query, case.key, case.value, gather_weights=False)
    assert_close(attended, (attended.values, attend(case.query, case.key, case.value).weights[:, mine]))


def check_refusals() -> None:
    """An invalid input on the last rank raises on all, and the next call succeeds."""
    case = sample(2, 3, 5, 11, 7, 13)
    last = dist.get_rank() == dist.get_world_size() - 1
    query, key, value = cut(case, own_keys(11))
    other = f"expected valid inputs on all ranks, got on rank {dist.get_world_size() - 1}: "
    for mine, theirs, wrong in (
        (
            "same shape of query on all ranks, got in order of rank",
            "same shape of query on all ranks, got in order of rank",
            {"query": query[:, :, 1:]},
        ),
        (
            "same shape of key_shard",
            "same shape of key_shard",
            {"key_shard": key[:, :1], "value_shard": value[:, :1]},
        ),
        ("same dtype of value_shard", "same dtype of value_shard", {"value_shard": value.float()}),
        ("same requires_grad of key_shard", "same requires_grad", {"key_shard": key.detach()}),
        (
            "^expected query .* that agree on B",
            other + "expected query .* that agree",
            {"key_shard": key[:1]},
        ),
        (
            "^expected at least 1 key",
            other + "expected at least 1 key",
            {"key_shard": key[:, :, :0], "value_shard": value[:, :, :0]},
        ),
        ("^expected value of finite", other + "expected value of finite", {"value_shard": value / 0}),
        (
            "^expected mask of bool",
            other + "expected mask of bool",
            {"mask_shard": torch.ones(5, key.shape[2])},
        ),
        ("same score", "same score on all ranks, got in order of rank dot", {"score": "cosine"}),
        ("same gather_weights", "same gather_weights", {"gather_weights": True}),
    ):
        arguments = {"query": query, "key_shard": key, "value_shard": value, "score": "dot"}
        with pytest.raises(ValueError, match=mine if last else theirs):
            attend_sequence_parallel(**(arguments | (wrong if last else {})))  # type: ignore[arg-type]
    for match, arguments in (
        ("did you mean 'scaled_dot'", {"score": "scaled_dott"}),
        ("got 'additive', which has some", {"score": "additive"}),
    ):
        for each in (attend_heads_parallel, attend_sequence_parallel):
            with pytest.raises(ValueError, match=match):
                each(query, key[:, :, :1], value[:, :, :1], **arguments)
    with pytest.raises(ValueError, match=r"queries and keys of the same dimension .*, got 7 and 6"):
        attend_sequence_parallel(query, key[..., :6], value)
    with pytest.raises(ValueError, match=r"each parameter of the score to be \[heads, ...\] with 3 heads"):
        attend_heads_parallel(case.query, case.key, case.value, score=build_score("cosine", 7, 5))
    function = attend_heads_parallel if last else attend_sequence_parallel
    with pytest.raises(ValueError, match="same function"):
        function(query, key, value)
    check_values_are_the_same_bits_everywhere()


def check_a_group_of_some() -> None:
    group = dist.new_group(list(range(1, dist.get_world_size())))
    if dist.get_rank() == 0:
        case = sample(2, 3, 5, 11, 7, 13)
        with pytest.raises(ValueError, match="expected a process of the group"):
            attend_sequence_parallel(case.query, case.key, case.value, group=group)
        return
    check_sequence(group)


CHECKS = (
    check_heads,
    check_sequence,
    check_values_are_the_same_bits_everywhere,
    check_parameters_of_a_score,
    check_second_derivatives,
    check_gradcheck,
    check_half_precision,
    check_own_weights_of_heads,
    check_refusals,
    check_a_group_of_some,
)


def run_checks(rank: int, ranks: int, store: Path) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", f"file://{store}", timeout, world_size=ranks, rank=rank)
    for check in CHECKS:
        check()
    dist.barrier()
    dist.destroy_process_group()


def start_world(ranks: int, store: Path) -> list[int | None]:
    """Run all checks in `ranks` processes and return their exit codes; None for one not waited for.

    They are forked, from a process that has done nothing yet, so that torch is imported once and not by each.
    """
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run_checks, args=(rank, ranks, store)) for rank in range(ranks)]
    for process in processes:
        process.start()
    until = time.monotonic() + TIMEOUT
    codes: list[int | None] = [None]
    # A failed process leaves the others waiting: stop at the first failure.
    while None in codes and not any(codes) and time.monotonic() < until:
        time.sleep(0.01)
        codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_processes_equal_a_single_one(ranks: int, tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(ranks), str(tmp_path / "store")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * TIMEOUT)
    assert done.stdout.strip() == str([0] * ranks), done.stderr


@pytest.mark.parametrize("function", [attend_heads_parallel, attend_sequence_parallel])
def test_a_single_process_without_a_group_is_refused(function: Callable[..., Attended]) -> None:
    case = sample(2, 3, 5, 11, 7, 13)
    with pytest.raises(ValueError, match=r"call torch\.distributed\.init_process_group first"):
        function(case.query, case.key, case.value)


if __name__ == "__main__":
    print(start_world(int(sys.argv[1]), Path(sys.argv[2])))
