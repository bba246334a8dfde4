"""Layer-by-layer randomisation of parameters."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

import robot_attn
from robot_attn.explain import randomised


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 5), nn.Linear(5, 3))


def changed(before: nn.Module, after: nn.Module) -> list[str]:
    now = dict(after.named_parameters())
    return [name for name, parameter in before.named_parameters() if not torch.equal(parameter, now[name])]


def test_cascade_randomises_layers_from_the_output_on() -> None:
    module = chain()
    original = copy.deepcopy(module)
    visited = [(name, changed(module, copy_)) for name, copy_ in randomised(module)]
    assert visited == [
        ("3", ["3.weight", "3.bias"]),
        ("2", ["2.weight", "2.bias", "3.weight", "3.bias"]),
        ("0", ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"]),
    ]
    assert changed(original, module) == [], "the module itself stays"


def test_independent_randomises_one_layer_and_restores_it() -> None:
    module = chain()
    original = copy.deepcopy(module)
    visited = [(name, changed(module, copy_)) for name, copy_ in randomised(module, order="independent")]
    assert visited == [
        ("3", ["3.weight", "3.bias"]),
        ("2", ["2.weight", "2.bias"]),
        ("0", ["0.weight", "0.bias"]),
    ]
    assert changed(original, module) == [], "the module itself stays"


def test_both_orders_sample_the_same_weights() -> None:
    last = [copy_ for _, copy_ in randomised(chain())][-1]
    for name, copy_ in randomised(chain(), order="independent"):
        assert changed(last.get_submodule(name), copy_.get_submodule(name)) == []


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected an order among cascade, independent, got 'random'$"):
        next(randomised(chain(), order="random"))  # type: ignore[arg-type]


def test_weights_keep_their_mean_and_standard_deviation() -> None:
    module = nn.Sequential(nn.Linear(300, 200))
    with torch.no_grad():
        module[0].weight.normal_(3.0, 0.5)
        module[0].bias.zero_()
    ((_, randomised_module),) = randomised(module)
    layer = randomised_module.get_submodule("0")
    assert isinstance(layer, nn.Linear)
    # 5 standard errors of 60,000 samples.
    assert abs(layer.weight.mean().item() - 3.0) < 5 * 0.5 / 60_000**0.5
    assert abs(layer.weight.std().item() - 0.5) < 5 * 0.5 / (2 * 60_000) ** 0.5
    assert_array_equal(layer.bias.detach(), np.zeros(200))


def test_the_seed_determines_the_weights() -> None:
    last = {seed: [m for _, m in randomised(chain(), seed=seed)][-1] for seed in (0, 1)}
    again = [m for _, m in randomised(chain(), seed=0)][-1]
    assert changed(last[0], again) == []
    assert len(changed(last[0], last[1])) == 6


def test_every_parameter_of_every_family_is_randomised() -> None:
    for family in robot_attn.FAMILIES:
        torch.manual_seed(0)
        module = robot_attn.build(family, image_shape=(3, 37, 43))
        randomised_module = [m for _, m in randomised(module)][-1]
        constant = [
            name
            for name, parameter in module.named_parameters()
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
        ]
        free = [name for name, p in module.named_parameters() if p.numel() > 1 and name not in constant]
        assert set(free) <= set(changed(module, randomised_module))
