import numpy as np
import pytest
import torch

from robot_attn import FAMILIES, build, to_channels_first, to_float
from robot_attn.frames import channel_axis, channels_to_back, channels_to_front

SHAPE = (5, 32, 37)


def frames(*batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*batch, 32, 37, 5), dtype=np.uint8)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_channels_come_first_without_a_copy(batch: tuple[int, ...]) -> None:
    last = frames(*batch)
    first = to_channels_first(last)
    assert isinstance(first, np.ndarray) and first.shape == (*batch, 5, 32, 37)
    assert np.shares_memory(first, last)
    assert first[..., 4, 31, 7].tolist() == last[..., 31, 7, 4].tolist()
    tensor = to_channels_first(torch.from_numpy(last))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.numpy().tolist() == first.tolist()


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 5, 32, 37), -3),
        ((2, 32, 37, 5), -1),
        ((5, 32, 37), -3),
        ((32, 37, 5), -1),
        ((32, 37, 32, 37), -3),  # both fit
        ((2, 37, 32, 5), None),
        ((32, 37), None),
        ((), None),
    ],
)
def test_channel_axis_follows_from_the_position_of_height_and_width(
    shape: tuple[int, ...], axis: int | None
) -> None:
    assert channel_axis(shape, (32, 37)) == axis


def test_channels_move_to_the_back_and_to_the_front() -> None:
    last = frames(2)
    first = channels_to_front(last)
    assert first.shape == (2, 5, 32, 37) and np.shares_memory(first, last)
    assert np.array_equal(channels_to_back(first), last)
    tensor = channels_to_front(torch.from_numpy(last))
    assert np.array_equal(tensor.numpy(), first)
    assert np.array_equal(channels_to_back(tensor).numpy(), last)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (frames(2).astype(np.float32), "got dtype float32: convert them to uint8"),
        (frames()[..., 0], r"got shape \[32, 37\]: add the missing axes"),
        (np.zeros((2, 3, 64, 64), np.uint8), "got shape .* look channel-first already"),
        (np.zeros((64, 2049, 3), np.uint8), "from 32 to 2048, got shape .*: crop, pad or resize"),
    ],
)
def test_to_channels_first_rejects_other_frames(bad: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        to_channels_first(bad)


def test_to_float_has_the_bits_of_sb3() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_float(every), every.float() / 255.0)
    assert to_float(every).dtype == torch.float32
    assert to_float(every)[[0, 255]].tolist() == [0.0, 1.0]
    assert int(every[17]) == 17  # the frames are as they were


@pytest.mark.parametrize("family", ["cnn", "keypoints", "query"])
def test_uint8_and_float_frames_give_the_same_bits(family: str) -> None:
    module = build(family, SHAPE)
    first = torch.from_numpy(np.ascontiguousarray(to_channels_first(frames(3))))
    for one, other in zip(module(first), module(to_float(first)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_frames_give_equal_bits_in_any_memory_layout(family: str, channels: int) -> None:
    torch.manual_seed(0)
    module = build(family, (channels, 32, 37))
    last = frames(4)[..., :channels].copy()
    view = torch.from_numpy(to_channels_first(last))
    contiguous = view.clone(memory_format=torch.contiguous_format)
    part = torch.stack([contiguous, contiguous], dim=1)[:, 0]
    shifted = torch.cat([contiguous.new_zeros(1), contiguous.flatten()])[1:].view(contiguous.shape)  # a byte
    expected = module(contiguous)
    assert view.stride() != contiguous.stride()
    for laid in (view, part, shifted):
        for given in (laid, to_float(laid)):
            found = module(given)
            assert torch.equal(found.features, expected.features)
            assert torch.equal(found.attention, expected.attention)


RAMP = torch.linspace(0, 1, 2 * 5 * 32 * 37).view(2, 5, 32, 37)


def floats(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.5)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (floats(2, 32, 37, 5), r"got shape \[2, 32, 37, 5\]: convert channel-last frames"),
        (floats(5, 32, 37), r"got shape \[5, 32, 37\]: add a batch axis"),
        (
            floats(2, 3, 32, 37),
            r"got shape \[2, 3, 32, 37\]: resize them, or build the module for their shape$",
        ),
        (floats(2, 5, 37, 32), r"expected frames \[B, 5, 32, 37\] .* got shape \[2, 5, 37, 32\]: resize"),
        (floats(2, 5, 32, 37).double(), "got dtype torch.float64: convert"),
        (floats(2, 5, 32, 37).long(), "got dtype torch.int64: convert"),
        (floats(2, 5, 32, 37).index_put((torch.tensor(1),), torch.tensor(float("nan"))), "NaN or infinity"),
        (floats(2, 5, 32, 37).index_put((torch.tensor(1),), torch.tensor(float("inf"))), "NaN or infinity"),
        (floats(2, 5, 32, 37) * 255, r"in \[0, 1\], got numbers from 127.5 to 127.5: give uint8"),
        (floats(2, 5, 32, 37) - 1, r"in \[0, 1\], got numbers from -0.5 to -0.5"),
        (2 * RAMP - 1, r"in \[0, 1\], got numbers from -1 to 1: give"),
        ((RAMP - 0.449) / 0.226, r"in \[0, 1\], got numbers from -1.987 to 2.438: give"),  # ImageNet's green
        (floats(2, 5, 32, 37).index_put((torch.tensor(1),), torch.tensor(1.01)), "from 0.5 to 1.01"),
        (np.zeros((2, 5, 32, 37), np.float32), "torch.Tensor, got ndarray: convert"),
    ],
)
def test_invalid_frames_raise_value_error(bad: torch.Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build("query", SHAPE)(bad)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (None, r"\[2, 3\] \(context_dim=3\), got None: pass a context"),
        (floats(2, 4), r"got torch.float32 \[2, 4\]"),
        (floats(1, 3), r"expected context torch.float32 \[2, 3\].* got torch.float32 \[1, 3\]"),
        (floats(2, 3).double(), "got torch.float64"),
        (torch.tensor([[0.0, 1.0, 2.0], [0.0, float("nan"), 2.0]]), "NaN or infinity"),
        ([[0.0] * 3] * 2, "got list"),
    ],
)
def test_an_invalid_context_raises_value_error(bad: torch.Tensor | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build("query", SHAPE, 3)(floats(2, 5, 32, 37), bad)


def test_a_context_for_a_module_without_one_raises_value_error() -> None:
    with pytest.raises(ValueError, match="context_dim=0"):
        build("query", SHAPE)(floats(2, 5, 32, 37), floats(2, 3))


@pytest.mark.parametrize(
    "shape", [(3, 31, 64), (3, 64, 2049), (0, 64, 64), (64, 64), (64, 64, 3), (1, 3, 64, 64)]
)
def test_an_invalid_image_shape_raises_value_error(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"expected image_shape as .*, got .*: "):
        build("query", shape)
