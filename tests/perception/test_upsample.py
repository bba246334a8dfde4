import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_attn import AttentionGrid, upsample_attention


def test_by_hand() -> None:
    # Rows centred on pixels 0.5 and 3.5 part at edge 2.5: row 2 of 5 is shared. Columns split 3 pixels 2 : 1.
    attention = torch.tensor([[[[0.5, 0.0], [0.25, 0.25]]]])
    spread = upsample_attention(attention, AttentionGrid([0.5, 3.5], [0.5, 2.5], (5, 3)))
    assert spread.shape == (1, 1, 5, 3)
    top, low, corner = 0.5 / 2.5 / 2, 0.25 / 2.5 / 2, 0.25 / 2.5
    expected = [[top, top, 0.0]] * 2 + [[(top + low) / 2] * 2 + [corner / 2]] + [[low, low, corner]] * 2
    torch.testing.assert_close(spread[0, 0], torch.tensor(expected))


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([7, 11, 64, 97]),
    st.sampled_from([7, 13, 32]),
    st.integers(0, 2**31),
)
def test_mass_is_preserved(rows: int, cols: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(2, 3, rows, cols, generator=generator, dtype=torch.float64)
    ys = torch.sort(torch.rand(rows, generator=generator, dtype=torch.float64)).values * (height - 1)
    xs = torch.sort(torch.rand(cols, generator=generator, dtype=torch.float64)).values * (width - 1)
    spread = upsample_attention(attention, AttentionGrid(ys, xs, (height, width)))
    assert spread.shape == (2, 3, height, width) and bool((spread >= 0).all())
    torch.testing.assert_close(spread.sum((2, 3)), attention.sum((2, 3)))


@pytest.mark.parametrize(
    ("ys", "match"),
    [
        ([1.0], "one weight per cell"),
        ([3.0, 1.0], "ascending ys"),
        ([1.0, 1.0], "ascending ys"),
        ([-2.0, 1.0], "within the frame"),
        ([1.0, 9.0], "within the frame"),
        ([1.0, float("nan")], "ascending ys"),
    ],
)
def test_invalid_centres_raise_value_error(ys: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        upsample_attention(torch.ones(1, 1, 2, 1), AttentionGrid(ys, [2.0], (5, 5)))
