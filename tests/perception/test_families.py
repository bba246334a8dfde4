"""The contract of every family; a new one is covered automatically through FAMILIES."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from robot_attn import FAMILIES, SCORES, AttentionGrid, Percept, Perception, build, upsample_attention
from robot_attn.attention import LEARNED_SCORES
from robot_attn.families._cnn import Cnn

WITHOUT_QUERIES = {"cnn", "mask"}
"""The families without queries and keys, which have no `score` option."""

pytestmark = pytest.mark.parametrize("family", sorted(FAMILIES))


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (64, 64), (97, 33), (32, 512)])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_any_size(family: str, size: tuple[int, int], channels: int) -> None:
    module = build(family, (channels, *size), 5, features_dim=11)
    percept = module(torch.rand(2, channels, *size), torch.randn(2, 5))
    assert isinstance(percept, Percept)
    assert percept.features.shape == (2, 11) == (2, module.features_dim)
    assert percept.attention.shape == (2, module.num_heads, *module.grid.shape)
    assert bool((percept.attention >= 0).all())
    torch.testing.assert_close(percept.attention.sum((2, 3)), torch.ones(2, module.num_heads))
    spread = upsample_attention(percept.attention, module.grid)
    assert spread.shape == (2, module.num_heads, *size)
    torch.testing.assert_close(spread.sum((2, 3)), torch.ones(2, module.num_heads))


def test_numpy_integers_are_accepted(family: str) -> None:
    sizes = {
        name: parameter.default
        for name, parameter in inspect.signature(FAMILIES[family]).parameters.items()
        if type(parameter.default) is int and name != "context_dim"
    }
    modules = []
    for whole in (int, np.int64, np.int32):
        torch.manual_seed(0)
        given = {name: whole(size) for name, size in sizes.items()}
        modules.append(build(family, (whole(3), whole(32), whole(40)), whole(5), **given))
    frames, context = torch.rand(2, 3, 32, 40), torch.randn(2, 5)
    expected = modules[0](frames, context)
    for module in modules[1:]:
        for one, other in zip(module(frames, context), expected, strict=True):
            assert torch.equal(one, other)
    with pytest.raises(ValueError, match="whole number"):
        build(family, (3, 32, 40), np.float64(5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole number"):
        build(family, (3, 32, 40), features_dim=np.True_)


def test_the_largest_frame(family: str) -> None:
    module = build(family, (3, 512, 512), features_dim=2)
    percept = module(torch.randint(0, 256, (1, 3, 512, 512), dtype=torch.uint8))
    percept.features.sum().backward()
    torch.testing.assert_close(percept.attention.sum((2, 3)), torch.ones(1, module.num_heads))


@pytest.mark.parametrize("score", sorted({*SCORES, *LEARNED_SCORES}))
def test_any_score(family: str, score: str) -> None:
    if "score" not in inspect.signature(FAMILIES[family]).parameters:
        assert family in WITHOUT_QUERIES
        return
    torch.manual_seed(0)
    module = build(family, (3, 48, 40), 2, score=score)
    percept = module(torch.rand(2, 3, 48, 40), torch.randn(2, 2))
    torch.testing.assert_close(
        percept.attention.sum((2, 3)), torch.ones(2, module.num_heads), rtol=0, atol=1e-5
    )
    percept.features.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_cell_centres_ascend_within_the_frame(family: str) -> None:
    module = build(family, (3, 47, 83))
    grid = module.grid
    assert isinstance(grid, AttentionGrid) and grid.image_size == (47, 83)
    for centers, cells, pixels in zip((grid.ys, grid.xs), grid.shape, (47, 83), strict=True):
        assert centers.shape == (cells,) and centers.dtype == np.float32
        assert bool((np.diff(centers) > 0).all())
        assert float(centers[0]) >= 0 and float(centers[-1]) <= pixels - 1


def test_the_context_reaches_the_features(family: str) -> None:
    torch.manual_seed(0)
    module = build(family, (3, 32, 32), 2)
    frames = torch.rand(1, 3, 32, 32)
    one, other = (module(frames, torch.tensor([values])) for values in ([0.0, 0.0], [3.0, -3.0]))
    assert not torch.equal(one.features, other.features)
    assert torch.equal(one.attention, other.attention)


def test_every_parameter_learns(family: str) -> None:
    torch.manual_seed(0)
    module = build(family, (3, 48, 48), 2)
    percept = module(torch.rand(4, 3, 48, 48), torch.randn(4, 2))
    percept.features.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_a_frame_has_the_same_percept_alone_and_in_a_batch(family: str) -> None:
    torch.manual_seed(0)
    module = build(family, (3, 40, 56)).double()
    frames = torch.rand(5, 3, 40, 56, dtype=torch.float64)
    together = module(frames)
    for index in range(5):
        alone = module(frames[index : index + 1])
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], other[index])


def test_an_empty_batch(family: str) -> None:
    module = build(family, (3, 32, 32))
    percept = module(torch.rand(0, 3, 32, 32))
    assert percept.features.shape == (0, module.features_dim)
    assert percept.attention.shape == (0, module.num_heads, *module.grid.shape)


def test_frames_can_be_explained_by_their_gradient(family: str) -> None:
    torch.manual_seed(0)
    frames = torch.rand(2, 3, 36, 36).requires_grad_()
    build(family, (3, 36, 36))(frames).features.sum().backward()
    assert frames.grad is not None and bool((frames.grad != 0).any())


def test_uniform_says_whether_the_map_is_flat(family: str) -> None:
    torch.manual_seed(0)
    module = build(family, (3, 64, 64))
    spread = upsample_attention(module(torch.rand(1, 3, 64, 64)).attention, module.grid)
    flat = torch.allclose(spread, torch.full_like(spread, 1 / 4096), rtol=1e-3, atol=0)
    assert flat == module.uniform


def test_every_family_has_a_description(family: str) -> None:
    assert 10 < len(FAMILIES[family].good_for) <= 90


def test_building_by_class_equals_building_by_name(family: str) -> None:
    torch.manual_seed(7)
    by_name = build(family, (3, 32, 32))
    torch.manual_seed(7)
    by_class = build(FAMILIES[family], (3, 32, 32))
    assert type(by_name) is type(by_class)
    for one, other in zip(by_name.parameters(), by_class.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"feature_size": 3}, "did you mean 'features_dim'"),
        ({"features_dim": 0}, "at least 1, got 0"),
        ({"features_dim": True}, "at least 1, got True"),
        ({"features_dim": "64"}, "got '64'"),
        ({"features_dim": [10**9]}, "expected features_dim as a whole number"),
        ({"context_dim": -1}, "expected context_dim as"),
    ],
)
def test_invalid_options_raise_value_error(family: str, options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(family, (3, 32, 32), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda name: name[:-1] + "x", "did you mean"),
        (lambda _: nn.Linear, "expected a perception family, .*Linear"),
        (lambda _: 3, "expected a perception family, .* got 3"),
    ],
)
def test_objects_that_are_not_families_are_refused(family: str, wrong: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(wrong(family), (3, 32, 32))  # type: ignore[operator]
    assert issubclass(FAMILIES[family], Perception) and issubclass(Cnn, Perception)
