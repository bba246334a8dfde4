"""`robot-attn benchmark attention`: its figures, and the arithmetic and the clockwork behind them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("stable_baselines3")

import robot_attn
from robot_attn_scripts import _timing
from robot_attn_scripts.benchmarks import attention
from robot_attn_scripts.benchmarks.attention import Options


@pytest.mark.slow
def test_figures_have_units_and_targets_and_are_written_as_they_are_returned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    figures = attention.run(Options(tokens=(1100, 256, 1024), rounds=2, json=path))
    assert json.loads(path.read_text()) == figures
    folded, blockwise, local, families = (
        figures[section] for section in ("folded", "blockwise", "local", "families")
    )
    assert isinstance(folded, dict) and isinstance(blockwise, dict)
    assert isinstance(local, dict) and isinstance(families, dict)
    sizes = ["256 tokens", "1024 tokens", "1100 tokens"]
    assert list(folded) == sizes
    assert list(blockwise) == list(local) == [*sizes, "growth from 1024 tokens"]
    assert sorted(families) == sorted(set(robot_attn.FAMILIES) - {"cnn"})

    assert [folded[size]["batch"]["value"] for size in sizes] == [64, 4, 3]
    for peer in ("self-attention", "learned queries"):
        ratio = folded["256 tokens"][f"attend_folded is faster than {peer} by"]
        times = folded["256 tokens"][peer], folded["256 tokens"]["attend_folded"]
        assert ratio["rounds"] == [
            one / other for one, other in zip(*(t["rounds"] for t in times), strict=True)
        ]
        assert ratio["min"] <= ratio["median"] <= ratio["max"] and ratio["unit"] == "x"
    for variant in attention.VARIANTS:
        told = blockwise["256 tokens"]
        ratio = told[f"time, to that of scaled_dot_product_attention{variant}"]
        own, other = (
            told[f"{name}{variant}"]["rounds"]
            for name in ("attend_blockwise", "scaled_dot_product_attention")
        )
        assert ratio["rounds"] == [one / two for one, two in zip(own, other, strict=True)]
        memory = [blockwise[size][f"memory of one sequence{variant}"] for size in sizes[1:]]
        assert all(figure["unit"] == "MB" and figure["value"] > 0 for figure in memory)
        slope = _timing.log_log_slope([1024, 1100], [figure["value"] for figure in memory])
        assert blockwise["growth from 1024 tokens"][f"memory of one sequence{variant}"]["median"] == slope
    assert local["256 tokens"]["attend_local"]["unit"] == "ms"

    slope = local["growth from 1024 tokens"]["attend_local"]
    rounds = zip(*(local[size]["attend_local"]["rounds"] for size in sizes[1:]), strict=True)
    assert slope["rounds"] == [_timing.log_log_slope([1024, 1100], values) for values in rounds]
    printed = capsys.readouterr().out
    targets = [entry["target"] for entry in entries(figures) if "target" in entry]
    assert targets.count(">= 20") == 1 and targets.count("<= 1.3") == 9 and targets.count("<= 1.1") == 4
    for name in families:
        target = "<= 1.0" if name in ("query", "keypoints", "mask", "hierarchical") else "<= 3"
        assert families[name]["time, to that of cnn"]["target"] == target
    assert set(targets) == {target for target in set(targets) if target in printed}


def entries(node: object) -> list[dict[str, object]]:
    """All dictionaries within."""
    if not isinstance(node, dict):
        return []
    return [node, *(entry for child in node.values() for entry in entries(child))]


def test_a_peer_that_would_fill_the_memory_is_left_out_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "MOST_BYTES", 64 * 4 * 6**2 * 4 - 1)
    told = attention.measure_folded(6, 1)
    assert re.fullmatch(r"its weights alone take \d+\.\d GB", str(told["self-attention"]["skipped"]))
    assert "attend_folded is faster than self-attention by" not in told
    assert "attend_folded is faster than learned queries by" in told
    assert "skipped" not in attention.measure_folded(5, 1)["self-attention"]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"tokens": ()}, {"tokens": (64, 0)}])
def test_nothing_to_measure(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected --[a-z-]+ (from 1 to|with at least one value)"):
        attention.run(Options(**wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_the_slope_is_the_power_of_the_size(power: float) -> None:
    sizes = [64, 256, 1000, 16384]
    figures = [7e-3 * size**power for size in sizes]
    assert _timing.log_log_slope(sizes, figures) == pytest.approx(power, abs=1e-12)


def test_the_slope_is_the_least_squares_line_of_the_logarithms() -> None:
    # Logarithms to the base 2: sizes 0, 1, 2 and figures 0, 3, 0, whose line is flat, then 0, 0, 3.
    assert _timing.log_log_slope([1, 2, 4], [1, 8, 1]) == pytest.approx(0, abs=1e-12)
    assert _timing.log_log_slope([1, 2, 4], [1, 1, 8]) == pytest.approx(1.5)


@pytest.mark.parametrize(("sizes", "figures"), [([4], [1.0]), ([4, 4], [1.0, 2.0]), ([4, 8], [0.0, 1.0])])
def test_no_slope(sizes: list[float], figures: list[float]) -> None:
    with pytest.raises(ValueError, match="two sizes or more, and figures above 0"):
        _timing.log_log_slope(sizes, figures)


class Clock:
    """A clock that goes on when it is told to: how long a step takes does not depend on the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(_timing.time, "perf_counter", lambda: self.now)


def test_all_take_turns_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = Clock(monkeypatch), []

    def step(name: str) -> None:
        turns.append(name)
        clock.now += {"a": 1.5, "b": 2.0}[name] * _timing.LEAST_SECONDS  # taken once in a round

    times = _timing.take_turns({name: lambda name=name: step(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert turns == [*"aabb", *"ab" * 3]
    assert times == {"a": pytest.approx([30.0] * 3), "b": pytest.approx([40.0] * 3)}


def test_what_is_quick_is_repeated_and_its_mean_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(monkeypatch), 0

    def step() -> None:
        nonlocal calls
        calls += 1
        clock.now += 0.003 if calls < 5 else 0.001

    (value,) = _timing.take_turns({"quick": step}, 1)["quick"]
    assert calls == 2 + 7  # the first, the one that is measured, and ceil(0.02 / 0.003) of a round
    assert value == pytest.approx((2 * 3 + 5 * 1) / 7)


def test_forward_and_backward_reaches_all_leaves() -> None:
    one, other = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([5.0, 7.0], requires_grad=True)
    torch.manual_seed(0)
    step = _timing.forward_and_backward(lambda: one * other, [one, other])
    torch.manual_seed(0)
    gradient = torch.randn(2)
    by_one, by_other = step()  # type: ignore[misc]
    assert torch.equal(by_one, gradient * other) and torch.equal(by_other, gradient * one)
    assert one.grad is None


def test_one_thread_within_and_as_many_as_before_after_it() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with _timing.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), _timing.one_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_memory_is_that_of_the_peak_and_not_of_what_stays() -> None:
    code = """
import torch
from robot_attn_scripts._timing import peak_bytes
held = torch.ones(25_000_000)  # 100 MB, freed before and so not the peak of what follows
del held
print(peak_bytes(lambda: torch.ones(10_000_000).sum()), peak_bytes(lambda: None))
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not forget the peak of a process so far")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    forty, nothing = map(int, done.stdout.split())
    assert forty == pytest.approx(40e6, rel=0.1)
    assert nothing < 1e6
