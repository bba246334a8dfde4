import itertools
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

cv2 = pytest.importorskip("cv2")

import robot_attn.overlay  # noqa: E402
from robot_attn import AttentionGrid, AttentionMaps  # noqa: E402
from robot_attn.drawing import (  # noqa: E402
    HEAT_LINE,
    HeatScale,
    Replay,
    blend_heat,
    colors,
    contact_sheet,
    draw_outline,
    find_outline,
    heat_palette,
    moments,
    overlay,
    plan,
    scale_frame,
    write_png,
)
from robot_attn.drawing import _replay as replay_module  # noqa: E402
from robot_attn.episode import Episode  # noqa: E402

H, W = 40, 56
YS, XS = np.arange(5) * 8 + 3.5, np.arange(7) * 8 + 3.5  # cells of 8 x 8 pixels that tile the frame
GRID = AttentionGrid(YS, XS, (H, W))
T = 6


def one_hot(head_cells: list[tuple[int, int]]) -> np.ndarray:
    attention = np.zeros((len(head_cells), 5, 7), dtype=np.float32)
    for head, cell in enumerate(head_cells):
        attention[(head, *cell)] = 1.0
    return attention


def make_replay(size: int = 720, **changes: Any) -> Replay:
    masks = np.zeros((T, H, W), dtype=bool)
    masks[:, 8:16, 16:32] = True
    masks[2] = False
    parts: dict[str, Any] = {
        "images": np.full((T, H, W, 3), 100, dtype=np.uint8),
        "attention": np.repeat(one_hot([(1, 3), (4, 0)])[None], T, axis=0),
        "actions": np.linspace(-1, 1, 2 * T, dtype=np.float32).reshape(T, 2),
        "rewards": np.linspace(0, 1, T),
        "dones": np.arange(T) == T - 1,
        "grid": GRID,
        "env_args": {},
        "seed": 0,
        "target_masks": masks,
        "dt": 0.1,
    }
    return Replay(Episode(**{**parts, **changes}), size=size)


def count(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == np.array(color)).all(axis=2).sum())


def test_heat_levels_by_hand() -> None:
    scale = HeatScale(GRID, (H, W))
    uniform = np.full((1, 5, 7), 1 / 35, dtype=np.float32)
    assert scale.levels(uniform).max() <= 1  # nothing to see
    all_in_one = scale.levels(one_hot([(1, 3)]))[0]
    # Between the pixels 11 and 12, the centre of row 1 lies at 11.5; column 3 at 27.5.
    near = (1 - 0.5 / 8) ** 2 * (3 - 2 * (1 - 0.5 / 8))
    assert all_in_one.max() == pytest.approx(255 * near**2, abs=1)
    assert np.unravel_index(all_in_one.argmax(), (H, W)) in {(11, 27), (11, 28), (12, 27), (12, 28)}
    assert all_in_one[3, :].max() == 0
    assert all_in_one[:, 36:].max() == 0
    # Twice the square root of the weight of uniform attention: half of the logarithm.
    half = np.full((1, 5, 7), 0.0, dtype=np.float32)
    half[0, 2, 2] = 35**0.5 / 35
    assert scale.levels(half)[0].max() == pytest.approx(255 / 2 * near**2, abs=1)


def test_levels_of_cells_are_those_of_their_centres() -> None:
    weights = np.random.default_rng(0).dirichlet(np.full(35, 0.3)).reshape(1, 5, 7)
    # In a picture of three pixels a cell, the middle one of them has the cell's own centre.
    scale = HeatScale(GRID, (15, 21))
    assert np.array_equal(scale.levels(weights)[:, 1::3, 1::3], scale.cell_levels(weights))
    assert scale.cell_levels(np.full((2, 1, 5, 7), 1 / 35)).max() <= 1
    assert scale.cell_levels(one_hot([(4, 6)])).reshape(-1).tolist() == [0] * 34 + [255]
    # 1 / sqrt(35) is the square root of 35 times uniform: the middle of the logarithm.
    assert scale.cell_levels(np.full((5, 7), 35**-0.5))[2, 2] == 128
    with pytest.raises(ValueError, match=r"5, 7\], one weight per cell"):
        scale.levels(np.zeros((1, 1, 7)))


def test_heat_is_where_the_attention_is_at_any_size() -> None:
    for size in ((31, 43), (H * 7, W * 7), (97, 211)):
        levels = HeatScale(GRID, size).levels(one_hot([(4, 0), (0, 6), (2, 3)]))
        for head, (row, column) in enumerate([(4, 0), (0, 6), (2, 3)]):
            y, x = np.unravel_index(levels[head].argmax(), size)
            assert levels[head].max() > 200
            assert abs((y + 0.5) * H / size[0] - 0.5 - YS[row]) <= 4
            assert abs((x + 0.5) * W / size[1] - 0.5 - XS[column]) <= 4


def test_cells_of_several_sizes_share_uniform_attention() -> None:
    grid = AttentionGrid([1.0, 5.0, 30.0], [10.0, 50.0], (H, W))
    cells = AttentionMaps(np.eye(6).reshape(6, 3, 2), grid).upsampled()
    areas = 1 / cells.max(axis=(1, 2))
    uniform = (areas / areas.sum()).reshape(1, 3, 2).astype(np.float32)  # equal density, not equal weight
    assert HeatScale(grid, (H, W)).levels(uniform).max() <= 1


def test_blend_keeps_the_frame_where_there_is_no_heat_and_shows_it_through() -> None:
    image = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    levels = np.zeros((11, 13), dtype=np.uint8)
    levels[5, 6] = 255
    blended = blend_heat(image, levels)
    changed = (blended != image).any(axis=2)
    assert changed[5, 6]
    assert changed.sum() == 1
    # The hottest colour is opaque enough to see, and lets the frame through.
    black, white = (blend_heat(np.full((1, 1, 3), v, np.uint8), levels[5:6, 6:7])[0, 0] for v in (0, 255))
    assert 20 < int(white[0]) - int(black[0]) < 80


def blend_alone(color: tuple[int, int, int], level: int) -> NDArray[np.uint8]:
    """One pixel of a ground under heat, without neighbours and so without a line."""
    return blend_heat(np.full((1, 1, 3), color, np.uint8), np.full((1, 1), level, np.uint8))


def lab(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIE Lab of RGB colours [..., 3]."""
    return cv2.cvtColor((pictures.reshape(1, -1, 3) / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]


def test_heat_grows_lighter_and_more_opaque_with_the_level() -> None:
    palette = heat_palette()
    assert palette.shape == (256, 4) and palette[0, 3] == 0
    assert (np.diff(lab(palette[:, :3])[:, 0]) > -0.2).all()
    assert (np.diff(palette[:, 3].astype(int)) >= 0).all()
    for level in range(0, 256, 5):
        shown = blend_alone((200, 90, 30), level)[0, 0]
        alpha = palette[level, 3] / 255
        assert shown == pytest.approx(
            palette[level, :3] * alpha + np.array([200, 90, 30]) * (1 - alpha), abs=2
        )


GROUNDS = {
    "orange": (230, 130, 40), "brown": (120, 75, 40), "wood": (190, 150, 110), "grey": (128, 128, 128),
    "green": (60, 140, 60), "sky": (157, 189, 222), "white": (255, 255, 255), "black": (0, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("ground", GROUNDS)
def test_high_heat_differs_from_the_ground(ground: str) -> None:
    color = GROUNDS[ground]
    shown = np.stack([blend_alone(color, level)[0, 0] for level in range(HEAT_LINE, 256)])
    distances = np.linalg.norm(lab(shown) - lab(np.array([color], np.uint8)), axis=1)
    assert distances.min() > 45  # 10 are a clear difference


def test_heat_differs_from_any_ground() -> None:
    blob = np.exp(-((np.arange(64) - 31.5) ** 2) / 150)
    levels = np.rint(255 * blob[:, None] * blob).astype(np.uint8)
    for color in itertools.product((0, 51, 102, 153, 204, 255), repeat=3):
        ground = np.full((64, 64, 3), color, np.uint8)
        shown = blend_heat(ground, levels)[levels >= HEAT_LINE // 2]
        assert np.linalg.norm(lab(shown) - lab(np.array([color], np.uint8)), axis=1).max() > 50, color


def test_blending_only_the_heated_part_equals_blending_all() -> None:
    generator = np.random.default_rng(1)
    image = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    levels = generator.integers(0, 256, (40, 50), dtype=np.uint8)  # heat everywhere
    some = levels.copy()
    some[:7], some[30:], some[:, :11], some[:, 45:] = 0, 0, 0, 0
    whole = some.copy()
    whole[0, 0] = whole[-1, -1] = 1  # heat from corner to corner
    expected = blend_heat(image, whole)
    expected[0, 0], expected[-1, -1] = image[0, 0], image[-1, -1]
    before = image.copy()
    assert np.array_equal(blend_heat(image, some), expected)
    assert np.array_equal(image, before)
    assert np.array_equal(blend_heat(image, np.zeros_like(levels)), image)


def test_outline_runs_along_the_mask() -> None:
    mask = np.zeros((H, W), dtype=bool)
    mask[8:16, 16:32] = True
    mask[30, 50] = True
    polygons = find_outline(mask, (H * 5, W * 5))
    boxes = sorted((p[:, 0].min(axis=0).tolist(), p[:, 0].max(axis=0).tolist()) for p in polygons)
    assert boxes == [([80, 40], [159, 79]), ([250, 150], [254, 154])]
    assert find_outline(np.zeros((H, W), dtype=bool), (10, 10)) == ()


def test_the_large_panel_shows_the_best_heads_heat_and_the_target() -> None:
    replay = make_replay(best_head=1)
    panel = replay.large(0)
    scale = panel.shape[0] // H
    assert panel.shape == (H * scale, W * scale, 3)
    heat = (panel != 100).any(axis=2)
    # Head 1 attends to cell (4, 0): rows 32 to 39, columns 0 to 7.
    assert heat[36 * scale, 3 * scale]
    assert not heat[36 * scale, 30 * scale]
    outline = (panel == np.array(colors.TARGET)).all(axis=2)
    ys, xs = np.nonzero(outline)
    assert abs(ys.min() - 8 * scale) <= 3
    assert abs(ys.max() - 16 * scale) <= 3
    assert abs(xs.min() - 16 * scale) <= 3
    assert abs(xs.max() - 32 * scale) <= 3
    assert not outline[12 * scale, 24 * scale]  # an outline, not a filling
    assert count(replay.large(2), colors.TARGET) == 0  # not visible: no outline


def test_mass_is_that_of_focus() -> None:
    replay = make_replay()
    assert replay.mass[0].tolist() == pytest.approx([1.0, 0.0])  # the mask covers cell (1, 3) whole
    assert np.isnan(replay.mass[2]).all()


def test_every_part_is_drawn_in_its_box() -> None:
    replay = make_replay(best_head=0)
    first, last = replay.draw(0), replay.draw(T - 1)
    layout = replay.layout
    assert first.shape == (720, layout.width, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(layout.main.of(first), replay.large(0))
    camera = layout.tiles[0].of(first)
    assert (camera == 100).all()
    for head, tile in enumerate(layout.tiles[1:]):
        hot = (tile.of(first) != 100).any(axis=2)
        y, x = [(12, 27), (36, 3)][head]
        assert hot[y * tile.h // H, x * tile.w // W]
    # The action bars: both negative at first, both positive at last.
    assert count(layout.actions.of(first), colors.RED) > count(layout.actions.of(last), colors.RED) == 0
    assert count(layout.actions.of(last), colors.BLUE) > 0
    # The curves grow.
    returns = layout.plots[0]
    assert count(returns.of(last), colors.BLUE) > count(returns.of(first), colors.BLUE)


def test_drawing_a_step_twice_gives_the_same_picture() -> None:
    replay = make_replay()
    first = replay.draw(3)
    replay.draw(5)
    assert np.array_equal(replay.draw(3), first)


@pytest.mark.parametrize("size", [600, 720, 1080])
@pytest.mark.parametrize("num_heads", [1, 2, 4, 5, 8, 16])
@pytest.mark.parametrize("image_size", [(64, 64), (32, 97), (480, 360)])
def test_nothing_overlaps_or_leaves_the_picture(
    image_size: tuple[int, int], num_heads: int, size: int
) -> None:
    layout = plan(image_size, num_heads, size)
    assert layout.width % 2 == 0
    assert len(layout.tiles) == num_heads + 1
    taken = np.zeros((layout.height, layout.width), dtype=int)
    for box in (layout.main, *layout.tiles, *layout.plots, layout.actions):
        assert min(box.x, box.y) >= 0
        assert box.x + box.w <= layout.width
        assert box.y + box.h <= layout.height
        box.of(taken)[:] += 1  # type: ignore[arg-type]
    assert taken.max() == 1
    for box in layout.tiles:
        assert box.w / box.h == pytest.approx(image_size[1] / image_size[0], rel=0.05)


def test_uniform_attention_has_no_heat_and_no_percentages() -> None:
    replay = make_replay(attention=np.full((T, 1, 5, 7), 1 / 35, np.float32), uniform=True)
    assert (replay.large(2) == 100).all()
    assert "%" not in replay.caption(0)
    assert count(replay.draw(0), colors.ACCENT) == 0


def test_captions() -> None:
    replay = make_replay(best_head=0)
    assert replay.caption(1) == "0.1 s   reward 0.20   on target 100%"
    assert replay.caption(2) == "0.2 s   reward 0.40   target not visible"
    assert make_replay(dt=None, target_masks=None).caption(5) == "step 6   reward 1.00"
    assert make_replay(maps="gradient").caption(1) == "0.1 s   reward 0.20   gradient on target 100%"


def with_bad_maps() -> np.ndarray:
    """Attention in which the maps of head 0 are unusable in steps 0, 1, 3 and 4; head 1 is usable."""
    attention = np.repeat(one_hot([(1, 3), (4, 0)])[None], T, axis=0)
    attention[0, 0] = 0
    attention[1, 0, 2, 2] = np.nan
    attention[3, 0, 2, 2] = -0.1
    attention[4, 0, 2, 2] = np.inf
    return attention


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("known", [True, False])
def test_an_unusable_map_is_omitted_and_labelled(known: bool) -> None:
    masks = {} if known else {"target_masks": None}
    attention = with_bad_maps()
    replay, good = make_replay(attention=attention, **masks), make_replay(**masks)
    bad = [0, 1, 3, 4]
    assert AttentionMaps(attention, GRID).usable.tolist() == [[step not in bad, True] for step in range(T)]
    for step in range(T):
        assert replay.caption(step).endswith("no map") == (step in bad)
        drawn = replay.draw(step)
        if step in bad:
            assert np.array_equal(replay.large(step), make_replay(uniform=True, **masks).large(step))
            assert np.isnan(replay.mass[step, 0])
        else:
            assert np.array_equal(replay.large(step), good.large(step))
        tiles = [tile.of(drawn) for tile in replay.layout.tiles]
        expected = [tile.of(good.draw(step)) for tile in replay.layout.tiles]
        assert np.array_equal(tiles[1], expected[1]) == (step not in bad)
        assert np.array_equal(tiles[2], expected[2])
    nothing = make_replay(attention=np.zeros((T, 2, 5, 7), np.float32), **masks)
    assert nothing.draw(0).shape == good.draw(0).shape


@pytest.mark.parametrize(("maps", "name"), [("causal", "causal map"), ("gradient", "gradient")])
def test_other_maps_are_not_called_attention(maps: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = replay_module.draw_text

    def write(image: np.ndarray, text: str, *rest: Any) -> None:
        written.append(text)
        real(image, text, *rest)

    monkeypatch.setattr(replay_module, "draw_text", write)
    attention = np.repeat(one_hot([(1, 3)])[None], T, axis=0)
    make_replay(attention=attention).draw(0)
    assert not any(name in text for text in written)
    assert {"head 0 (best): 100% on the target", "head 0", "attention on target"} <= set(written)
    written.clear()
    make_replay(attention=attention, maps=maps).draw(0)
    own = {f"{name} of the action: 100% on the target", name, f"{name} on target"}
    assert {*own, f"heat: {name} relative to a uniform one"} <= set(written)
    assert not any("attention" in text or "head" in text for text in written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((T, H, W), np.uint8)}, r"expected obs/image \[T, H, W, 3\]"),
        ({"images": np.zeros((0, H, W, 3), np.uint8)}, r"expected obs/image \[T, H, W, 3\]"),
        ({"rewards": np.zeros(T + 1)}, r"expected rewards float64 \[6\]"),
        ({"target_masks": np.zeros((T, W, H), bool)}, "expected target_mask bool"),
        ({"attention": np.zeros((T, 0, 5, 7), np.float32)}, "attention maps, got one without"),
        ({"size": 721}, "expected an even height of at least 600 pixels, got 721"),
        ({"size": 300}, "at least 600 pixels, got 300"),
        ({"best_head": 2}, "expected best_head from 0 to 1, got 2"),
        ({"maps": "saliency"}, "got 'saliency'"),
        ({"action_names": ("pan",)}, "2 action dimensions"),
    ],
)
def test_an_inconsistent_episode_or_replay_raises_value_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_replay(**changes)
    with pytest.raises(ValueError, match="expected step from 0 to 5, got 6"):
        make_replay().draw(T)


def test_contact_sheet_contains_every_picture() -> None:
    pictures = [np.full((30, 50, 3), 20 * i, dtype=np.uint8) for i in range(1, 8)]
    sheet = contact_sheet(pictures, [f"moment {i}" for i in range(7)], columns=3, title="an episode")
    for picture in pictures:
        assert count(sheet, tuple(picture[0, 0])) >= 30 * 50  # type: ignore[arg-type]
    small = contact_sheet([np.full((400, 800, 3), 7, dtype=np.uint8)], ["wide"], most_width=200)
    assert small.shape[1] < 250
    with pytest.raises(ValueError, match="one caption each"):
        contact_sheet(pictures, ["too few"])


def test_moments_span_the_episode() -> None:
    assert moments(150) == [0, 14, 27, 41, 54, 68, 81, 95, 108, 122, 135, 149]
    assert moments(3) == [0, 1, 2]


def test_png_round_trip_keeps_colours(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], image)
    with pytest.raises(OSError, match="does not exist: create it first"):
        write_png(tmp_path / "none" / "a.png", image)


FRAME = np.random.default_rng(3).integers(0, 256, (H, W, 3), dtype=np.uint8)


def heat(frame: np.ndarray, weights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    levels = HeatScale(GRID, size).levels(weights[None])[0]
    return blend_heat(scale_frame(frame, size), levels)


def test_the_facade_gives_the_same_function() -> None:
    assert robot_attn.overlay.overlay is overlay


def test_an_overlay_of_attention_maps_is_on_their_grid() -> None:
    grid = AttentionGrid([1.0, 5.0, 30.0], [10.0, 50.0], (H, W))
    weights = np.random.default_rng(5).dirichlet(np.full(6, 0.3), 2).reshape(2, 3, 2)
    drawn = overlay(FRAME, AttentionMaps(weights, grid), head=1)
    assert np.array_equal(drawn, overlay(FRAME, weights, grid=grid, head=1))
    assert not np.array_equal(drawn, overlay(FRAME, weights, head=1))
    even = AttentionGrid.even((3, 2), (H, W))
    assert np.array_equal(overlay(FRAME, AttentionMaps(weights, grid), grid=even), overlay(FRAME, weights))


@pytest.mark.parametrize(
    ("ys", "xs", "message"),
    [(YS, XS[::-1], "ascending xs"), (YS, XS + W, "frame's 56 pixels"), (YS + H, XS, "frame's 40 pixels")],
)
def test_centres_outside_the_frame_raise_value_error(ys: np.ndarray, xs: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionGrid(ys, xs, (H, W))


def test_an_overlay_is_the_large_panel_of_a_replay() -> None:
    attention = np.random.default_rng(4).dirichlet(np.full(35, 0.1), 3).reshape(3, 5, 7).astype(np.float32)
    mask = np.zeros((H, W), dtype=bool)
    mask[8:16, 16:32] = True
    drawn = overlay(FRAME, attention, grid=GRID, head=1, mask=mask)
    assert drawn.shape == (11 * H, 11 * W, 3) and drawn.dtype == np.uint8  # 12 * 56 is more than 640
    expected = heat(FRAME, attention[1], (11 * H, 11 * W))
    draw_outline(expected, find_outline(mask, (11 * H, 11 * W)), 2)
    assert np.array_equal(drawn, expected)
    # Cells that share the frame evenly have the centres of YS and XS; a map may have any sum.
    assert np.array_equal(overlay(FRAME, 1000 * attention, head=1, mask=mask), expected)
    mean = overlay(FRAME, attention)
    assert np.array_equal(mean, heat(FRAME, attention.mean(axis=0), mean.shape[:2]))
    assert np.array_equal(overlay(FRAME, attention[2]), overlay(FRAME, attention, head=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])
def test_tensors_give_the_same_overlay_as_arrays(dtype: torch.dtype) -> None:
    attention = torch.zeros(2, 5, 7, dtype=dtype)
    attention[0, 1, 3], attention[1, 4, 0] = 1, 3
    expected = overlay(FRAME, np.asarray(attention.double()))
    given = attention.requires_grad_(dtype.is_floating_point)
    mask = np.ones((H, W), bool)
    assert np.array_equal(overlay(torch.from_numpy(FRAME), given, grid=GRID), expected)
    assert np.array_equal(
        overlay(FRAME, given, mask=torch.from_numpy(mask)), overlay(FRAME, given, mask=mask)
    )


def test_grey_frames_and_other_sizes() -> None:
    weights = one_hot([(1, 3)])
    grey = FRAME[..., 0]
    expected = overlay(np.stack([grey] * 3, axis=2), weights)
    assert np.array_equal(overlay(grey, weights), expected)
    assert np.array_equal(overlay(grey[..., None], weights), expected)
    for size, shape in ((80, (80, 112, 3)), (30, (30, 42, 3)), ((50, 60), (50, 60, 3))):
        assert overlay(FRAME, weights, size=size).shape == shape  # type: ignore[arg-type]
    assert overlay(np.zeros((700, 30, 3), np.uint8), weights).shape == (700, 30, 3)


def test_a_map_of_the_frames_own_size() -> None:
    weights = np.zeros((H, W))
    weights[20, 30] = 2.0
    changed = (overlay(FRAME, weights, size=(H, W)) != FRAME).any(axis=2)
    assert changed[20, 30] and changed.sum() == 1
    large = overlay(np.zeros((480, 640, 3), np.uint8), np.arange(480 * 640).reshape(480, 640))
    assert large.shape == (480, 640, 3) and large[0].max() == 0 < large[-1].min(axis=0).max()


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 1e300),
    ),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_any_map_that_is_not_all_zero_is_drawn(
    attention: np.ndarray, height: int, width: int, size: int
) -> None:
    frame = np.full((height, width, 3), 90, np.uint8)
    if attention.max() == 0:
        with pytest.raises(ValueError, match="all zero"):
            overlay(frame, attention, size=size)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert overlay(frame, attention, size=size).shape[0] == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": np.moveaxis(FRAME, -1, 0)}, "got uint8 .3, 40, 56.: put the channels last"),
        ({"frame": FRAME / 255}, "got float64"),
        ({"frame": FRAME[None]}, "expected frame uint8"),
        ({"frame": FRAME[:0]}, "expected frame uint8"),
        ({"attention": np.full((2, 2, 5, 7), 1 / 35)}, "of a batch, give one row"),
        ({"attention": np.zeros((0, 5, 7))}, "expected attention"),
        ({"attention": np.full((5, 7), "a")}, "expected attention"),
        ({"attention": np.zeros((5, 7))}, "all zero"),
        ({"attention": np.full((5, 7), np.nan)}, "expected attention of finite"),
        ({"attention": np.full((5, 7), np.inf)}, "expected attention of finite"),
        ({"attention": np.eye(5, 7) - 0.1}, "non-negative weights, got -0.1 to 0.9"),
        ({"head": 1}, "expected head from 0 to 0, got 1"),
        ({"head": -1}, "expected head from 0 to 0, got -1"),
        (
            {"grid": AttentionGrid(YS[:3], XS, (H, W))},
            "3, 7., one weight per cell of the grid, got .1, 5, 7.",
        ),
        (
            {"grid": GRID.resized((H, 2 * W))},
            "frames of 40 x 56 pixels, as this frame, got one in frames of 40 x 112",
        ),
        ({"mask": np.ones((H, W))}, "mask bool .40, 56."),
        ({"mask": np.ones((W, H), bool)}, "mask bool .40, 56."),
        ({"size": 0}, "each at least 1, got 0"),
        ({"size": (40, 50, 3)}, "or .h, w."),
    ],
)
def test_an_invalid_overlay_raises_value_error(changes: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"frame": FRAME, "attention": np.full((5, 7), 1 / 35)}
    parts |= changes
    with pytest.raises(ValueError, match=message):
        overlay(parts.pop("frame"), parts.pop("attention"), **parts)


def test_opencv_is_imported_only_to_draw() -> None:
    code = """
import sys
sys.modules["cv2"] = None
import numpy as np
from robot_attn import drawing
try:
    drawing.scale_frame(np.zeros((4, 4, 3), np.uint8), (8, 8))
except ModuleNotFoundError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert 'pip install "robot-attn[video]"' in output
