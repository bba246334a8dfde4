"""From attention maps to objects: peaks, regions and tracks."""

import math
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from robot_attn import AttentionGrid, upsample_attention
from robot_attn.regions import Region, Track, Tracker, peaks, regions

Map = NDArray[np.float64]


def blob(x: float, y: float, size: tuple[int, int] = (41, 67), width: float = 2.0) -> Map:
    """A Gaussian hill of height 1 in a frame of `size` (H, W)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))


def square(x: int, y: int, side: int = 5, size: tuple[int, int] = (41, 67)) -> Region:
    """One square region: its first column and row, and its side."""
    map = np.zeros(size)
    map[y : y + side, x : x + side] = 1.0
    (region,) = regions(map)
    return region


def paint(*objects: tuple[Region, tuple[int, int, int]]) -> NDArray[np.uint8]:
    frame = np.full((41, 67, 3), 120, dtype=np.uint8)
    for region, colour in objects:
        frame[region.mask] = colour
    return frame


def quantised_map(seed: int, size: tuple[int, int], levels: int) -> Map:
    """A map of few different values, so that there are plateaus and ties."""
    return np.random.default_rng(seed).integers(0, levels, size).astype(np.float64)


maps = st.builds(
    quantised_map,
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 13), st.integers(1, 17)),
    st.sampled_from([2, 3, 5, 1000]),
)


def test_two_blobs_by_hand() -> None:
    map = np.zeros((7, 11))
    map[1:3, 1:4] = [[2.0, 4.0, 2.0], [0.0, 2.0, 0.0]]
    map[5, 7:9] = [3.0, 1.0]
    first, second = regions(map)
    assert (first.box, second.box) == ((1, 1, 3, 2), (7, 5, 2, 1))
    assert (first.mass, second.mass) == (10 / 14, 4 / 14)
    assert first.centroid == (2.0, 1.2) and second.centroid == (7.25, 5.0)
    assert first.peak[::2] == (2.0, 4.0) and second.peak[1:] == (5.0, 3.0)
    # Through 0, 4, 2 and through 0, 3, 1: the vertex lies towards the higher neighbour.
    assert first.peak.y == pytest.approx(1 + 1 / 6) and second.peak.x == pytest.approx(7 + 1 / 10)
    assert first.mask.sum() == 4 and second.mask.sum() == 2
    assert first.mask[1, 1:4].all() and first.mask[2, 2]


def test_regions_exceed_a_share_of_the_maximum_and_a_multiple_of_the_mean() -> None:
    map = np.full((10, 10), 0.5)
    map[2, 2], map[7, 7] = 10.0, 3.0  # the mean is 0.62
    assert [region.peak.height for region in regions(map)] == [10.0, 3.0]
    assert [region.peak.height for region in regions(map, threshold=0.3)] == [10.0, 3.0]
    assert [region.peak.height for region in regions(map, threshold=0.31)] == [10.0]
    assert [region.peak.height for region in regions(map, mean_factor=4.8)] == [10.0, 3.0]
    assert [region.peak.height for region in regions(map, mean_factor=4.9)] == [10.0]
    assert regions(map, mean_factor=17) == []
    (whole,) = regions(map, threshold=0.05, mean_factor=0)
    assert whole.box == (0, 0, 10, 10) and whole.mass == pytest.approx(1.0)
    assert [peak.height for peak in peaks(map)] == [10.0, 3.0]
    assert [peak.height for peak in peaks(map, threshold=0.31)] == [10.0]


def test_small_regions_are_dropped_and_corners_connect() -> None:
    map = np.zeros((8, 8))
    map[0, 0] = map[1, 1] = 1.0
    map[5, 5] = 1.0
    assert [region.mask.sum() for region in regions(map)] == [2, 1]
    assert [region.mask.sum() for region in regions(map, min_area=2)] == [2]


@given(x=st.floats(12, 50), y=st.floats(12, 28), width=st.floats(1.5, 3))
def test_peaks_have_subpixel_accuracy(x: float, y: float, width: float) -> None:
    (peak,) = peaks(blob(x, y, width=width))
    assert abs(peak.x - x) < 0.06 and abs(peak.y - y) < 0.06


@given(x=st.floats(3, 9), y=st.floats(3, 9), cell=st.integers(1, 6))
def test_cells_and_their_upsampled_map_have_the_same_peak(x: float, y: float, cell: int) -> None:
    cells = torch.from_numpy(blob(x, y, size=(13, 13)))
    centers = torch.arange(13) * cell + (cell - 1) / 2
    grid = AttentionGrid(centers, centers, (13 * cell, 13 * cell))
    frame = upsample_attention(cells[None, None], grid)[0, 0]
    (coarse,), (fine,) = peaks(cells), peaks(frame)
    assert fine.x == pytest.approx(coarse.x * cell + (cell - 1) / 2)
    assert fine.y == pytest.approx(coarse.y * cell + (cell - 1) / 2)


def test_a_shoulder_is_not_a_peak() -> None:
    map = np.zeros((5, 9))
    map[2] = [0, 1, 2, 2, 2, 3, 2, 2, 0]
    assert [(peak.x, peak.y) for peak in peaks(map)] == [(5.0, 2.0)]


@given(map=maps)
def test_peaks_equal_a_flood_fill_of_local_maxima(map: Map) -> None:
    """Plateaus grown pixel by pixel, compared with the morphology of opencv."""
    high = map.max() * 0.2
    wanted, visited = [], np.zeros(map.shape, dtype=bool)
    for start in np.ndindex(*map.shape):
        if visited[start] or map[start] <= 0:
            continue
        patch, rim, waiting = {start}, {0.0}, [start]
        while waiting:
            row, column = waiting.pop()
            for near in np.ndindex(3, 3):
                other = row + near[0] - 1, column + near[1] - 1
                if 0 <= other[0] < map.shape[0] and 0 <= other[1] < map.shape[1] and other not in patch:
                    if map[other] == map[start]:
                        patch.add(other)
                        waiting.append(other)
                    else:
                        rim.add(map[other])
        for pixel in patch:
            visited[pixel] = True
        if max(rim) < map[start] and map[start] >= high:
            wanted.append(map[start])
    found = peaks(map, mean_factor=0)
    assert [peak.height for peak in found] == pytest.approx(sorted(wanted, reverse=True))


@given(map=maps, threshold=st.floats(0, 1), mean_factor=st.sampled_from([0, 1, 1.5]))
def test_regions_are_disjoint_tight_and_complete(map: Map, threshold: float, mean_factor: float) -> None:
    found = regions(map, threshold=threshold, mean_factor=mean_factor)
    covered = np.zeros(map.shape, dtype=int)
    for region in found:
        covered += region.mask
        x, y, w, h = region.box
        inside = region.mask[y : y + h, x : x + w]
        assert inside.sum() == region.mask.sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        assert region.mass == pytest.approx(map[region.mask].sum() / map.sum())
        assert region.peak.height == pytest.approx(map[region.mask].max())
        rows, columns = np.nonzero(region.mask)
        weights = map[region.mask] / map[region.mask].sum()
        assert region.centroid == pytest.approx((weights @ columns, weights @ rows))
    assert covered.max(initial=0) <= 1
    if map.max() > 0:
        clear = 2 / 2**20 * map.max()  # pixels this close to a threshold may be in or out
        limit = max(threshold * map.max(), mean_factor * map.mean())
        assert covered[(map > limit + clear) & (map > clear)].all()
        assert not covered[(map < limit - clear) | (map == 0)].any()
    assert [region.mass for region in found] == sorted((region.mass for region in found), reverse=True)


def test_regions_are_scale_invariant() -> None:
    map = blob(20, 20) + 0.7 * blob(50, 10)
    for scale in (1e-300, 1e-9, 1e300):
        for one, other in zip(regions(map), regions(scale * map), strict=True):
            assert one.box == other.box and one.mass == pytest.approx(other.mass)
            assert other.peak == pytest.approx((*one.peak[:2], scale * one.peak.height))


def test_heads_are_averaged_and_tensors_equal_arrays() -> None:
    heads = np.stack([blob(20, 20), blob(50, 10)])
    tensor = torch.from_numpy(heads).float().requires_grad_()
    half = torch.from_numpy(heads).to(torch.bfloat16)
    wanted = regions(heads.mean(axis=0))
    assert len(wanted) == 2
    for given_frame in (heads, tensor):
        for one, other in zip(regions(given_frame), wanted, strict=True):
            assert one.box == other.box and isinstance(one.mask, np.ndarray)
            assert one.peak[:2] == pytest.approx(other.peak[:2], abs=1e-3)
    assert len(regions(half)) == 2
    assert peaks(tensor)[0].height == pytest.approx(0.5)


@pytest.mark.parametrize("value", [0.0, 1.0, 1 / 3, 1e-320])
def test_a_constant_map_has_no_region(value: float) -> None:
    assert regions(np.full((5, 7), value)) == [] and peaks(np.full((3, 5, 7), value)) == []


def test_uniform_attention_has_no_region() -> None:
    centers = torch.arange(15) * 4 + 3.5
    even = torch.full((1, 8, 15, 15), 1 / 225)
    assert regions(upsample_attention(even, AttentionGrid(centers, centers, (64, 64)))[0]) == []
    grid = AttentionGrid(centers[:7], centers[:7], (32, 32))
    assert regions(upsample_attention(even[..., :7, :7], grid)[0]) == []


def test_invalid_maps_and_options_raise_value_error() -> None:
    map = np.ones((5, 7))
    for function in (peaks, regions):
        for match, wrong, options in (
            (r"expected map \[H, W\], or .* got shape \[7\]", map[0], {}),
            (r"got shape \[1, 1, 5, 7\]", map[None, None], {}),
            (r"got shape \[0, 5, 7\]", np.ones((0, 5, 7)), {}),
            ("expected map of finite numbers", map * math.nan, {}),
            ("expected map of finite numbers", torch.full((5, 7), math.inf), {}),
            ("expected a non-negative map, got a minimum of -1", -map, {}),
            (r"expected threshold in \[0, 1\].* got 1.5", map, {"threshold": 1.5}),
            ("expected threshold in", map, {"threshold": math.nan}),
            ("expected mean_factor of 0 or more", map, {"mean_factor": -1}),
        ):
            with pytest.raises(ValueError, match=match):
                function(wrong, **options)
    with pytest.raises(ValueError, match="expected min_area as a whole number"):
        regions(map, min_area=0)


def ids(tracks: Sequence[Track]) -> dict[tuple[int, int], int]:
    """(x, y) of the box -> id, of the objects visible in this frame."""
    return {track.region.box[:2]: track.id for track in tracks if track.missed == 0}


def test_births_ages_misses_and_deletion() -> None:
    tracker = Tracker(patience=2)
    here, there = square(10, 10), square(50, 20)
    (first,) = tracker.update([here])
    assert (first.id, first.age, first.missed, first.appearance) == (0, 0, 0, None)
    one, two = tracker.update([square(11, 10), there])
    assert (one.id, one.age, two.id, two.age) == (0, 1, 1, 0)
    states = []
    for _ in range(4):
        states.append([(track.id, track.age, track.missed) for track in tracker.update([there])])
    assert states == [
        [(0, 2, 1), (1, 1, 0)],
        [(0, 3, 2), (1, 2, 0)],
        [(1, 3, 0)],  # missed for more than 2 frames
        [(1, 4, 0)],
    ]
    back = tracker.update([there, here])
    assert ids(back) == {(50, 20): 1, (10, 10): 2}  # ids are never reused


def test_an_object_occluded_within_patience_keeps_its_id() -> None:
    for hidden, kept in ((1, True), (3, True), (4, False)):
        tracker = Tracker(patience=3)
        tracker.update([square(10, 10)])
        for _ in range(hidden):
            tracker.update([])
        (track,) = tracker.update([square(14, 12)])
        assert (track.id == 0, track.missed) == (kept, 0)
        assert track.age == (hidden + 1 if kept else 0)


def test_objects_that_swap_positions_keep_their_ids_by_appearance() -> None:
    red, blue = (200, 40, 40), (40, 40, 200)
    for described in ("frames", "descriptors", "nothing"):
        tracker = Tracker()
        left, right = square(20, 10), square(28, 10)
        for one, other in ((left, right), (right, left)):
            frame = paint((one, red), (other, blue)) if described == "frames" else None
            descriptors = [[0.0, 3.0], [3.0, 0.0]] if described == "descriptors" else None
            tracks = tracker.update([one, other], frame, descriptors=descriptors)
        # The red one started on the left, where the same mass comes first in the order of new ids.
        stays = ids(tracks)
        assert stays == ({(20, 10): 0, (28, 10): 1} if described == "nothing" else {(20, 10): 1, (28, 10): 0})


def test_the_position_cost_is_distance_and_overlap() -> None:
    tracker = Tracker()
    tracker.update([square(20, 10), square(28, 10)])
    # No box overlaps another; the one on the right is first in the order of regions, as it is higher up.
    assert ids(tracker.update([square(20, 16), square(28, 4)])) == {(20, 16): 0, (28, 4): 1}
    tracker = Tracker()
    tracker.update([square(20, 10, side=5), square(31, 5, side=15)])
    # The small and the large one are now centred between where they were, 8 pixels from either.
    assert ids(tracker.update([square(28, 10, side=5), square(23, 5, side=15)])) == {(28, 10): 0, (23, 5): 1}


def test_the_weight_of_appearance_against_position() -> None:
    """Two descriptors that could be of one object: 0.47 apart, where the maximum is 0.5."""
    left, right, descriptors = square(20, 10), square(28, 10), [[1.0, 0.3], [0.3, 1.0]]
    for weight, wanted in ((0.0, {(20, 10): 0, (28, 10): 1}), (2.0, {(20, 10): 1, (28, 10): 0})):
        tracker = Tracker(appearance_weight=weight)
        tracker.update([left, right], descriptors=descriptors)
        assert ids(tracker.update([right, left], descriptors=descriptors)) == wanted


def test_two_crossing_objects() -> None:
    """They merge into one region for some frames, and keep their ids when they separate."""
    tracker = Tracker(patience=5)
    red, blue = (200, 40, 40), (40, 40, 200)
    for step in range(0, 41, 4):
        one, other = square(10 + step, 10), square(50 - step, 12)
        map = one.mask + 0.8 * other.mask
        found = regions(map)
        assert len(found) == (1 if abs(40 - 2 * step) <= 5 else 2)
        tracks = tracker.update(found, paint((other, blue), (one, red)))
        if step == 0:
            first = ids(tracks)
    last = ids(tracks)
    assert first == {(10, 10): 0, (50, 12): 1} and last == {(50, 10): 0, (10, 12): 1}


def test_too_far_or_too_different_starts_a_new_track() -> None:
    tracker = Tracker(max_displacement=0.1)  # 6.7 pixels
    tracker.update([square(10, 10)])
    assert ids(tracker.update([square(16, 10)])) == {(16, 10): 0}
    assert ids(tracker.update([square(23, 10)])) == {(23, 10): 1}
    # Missed once, it may have moved twice as far.
    assert ids(tracker.update([square(3, 10)])) == {(3, 10): 0}
    tracker = Tracker(max_appearance_distance=0.3)
    tracker.update([square(10, 10)], descriptors=[[1.0, 0.0]])
    assert ids(tracker.update([square(10, 10)], descriptors=[[1.0, 0.5]])) == {(10, 10): 0}
    assert ids(tracker.update([square(10, 10)], descriptors=[[0.0, 1.0]])) == {(10, 10): 1}


def test_the_number_of_matches_is_maximal() -> None:
    """The nearest pair would leave the other object without a region within its maximum displacement."""
    tracker = Tracker(max_displacement=0.15)  # 10 pixels
    tracker.update([square(20, 10), square(26, 10)])
    assert ids(tracker.update([square(25, 10), square(34, 10)])) == {(25, 10): 0, (34, 10): 1}


def test_appearance_is_a_moving_average_of_the_mean_colour() -> None:
    tracker = Tracker(appearance_momentum=0.75)
    region = square(10, 10)
    frames = [paint((region, (200, 40, 80))), paint((region, (160, 40, 120)))]
    (track,) = tracker.update([region], frames[0])
    assert track.appearance == pytest.approx(np.array([200, 40, 80]) / 255)
    (track,) = tracker.update([region], torch.from_numpy(frames[1]).float() / 255)
    assert track.appearance == pytest.approx(np.array([190, 40, 90]) / 255, abs=1e-6)
    (track,) = tracker.update([region])
    assert track.appearance == pytest.approx(np.array([190, 40, 90]) / 255, abs=1e-6)


@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    described=st.booleans(),
)
def test_the_order_of_regions_does_not_matter(seed: int, counts: list[int], described: bool) -> None:
    generator = np.random.default_rng(seed)
    one, other = Tracker(patience=1), Tracker(patience=1)
    for count in counts:
        places = generator.integers(0, 4, (count, 2)) * 9  # ties, and two at one place
        found = [square(int(x), int(y), 3 + int(generator.integers(2))) for x, y in places]
        descriptors = generator.random((count, 2)).round(1)
        order = generator.permutation(count)
        here = one.update(found, descriptors=descriptors if described else None)
        there = other.update(
            [found[index] for index in order], descriptors=descriptors[order] if described else None
        )
        assert [track.id for track in here] == sorted(track.id for track in here)
        assert len({track.id for track in here}) == len(here)
        assert sum(track.missed == 0 for track in here) == count
        for a, b in zip(here, there, strict=True):
            assert (a.id, a.age, a.missed, a.region.box) == (b.id, b.age, b.missed, b.region.box)
            assert described is (a.appearance is not None) and (
                not described or np.array_equal(a.appearance, b.appearance)
            )


def test_invalid_tracker_input_raises_value_error_and_changes_nothing() -> None:
    region, small = square(10, 10), square(1, 1, size=(11, 13))
    frame = paint((region, (200, 40, 40)))
    tracker = Tracker()
    tracker.update([region], frame)
    for match, found, given_frame, descriptors in (
        ("frames of one size", [region, small], None, None),
        ("frames of one size", [small], None, None),
        (r"expected frame \[41, 67, C\], got shape \[41, 67\]", [region], frame[..., 0], None),
        (r"expected frame \[41, 67, C\]", [region], frame[:40], None),
        ("expected frame of finite", [region], frame * math.nan, None),
        ("expected a frame or descriptors, got both", [region], frame, [[1.0]]),
        (r"expected descriptors \[1, D\].* got shape \[2, 1\]", [region], None, [[1.0], [2.0]]),
        ("expected descriptors of finite", [region], None, [[math.nan] * 3]),
        (r"of one dimension, got \[2, 3\]", [region], None, [[1.0, 2.0]]),
    ):
        with pytest.raises(ValueError, match=match):
            tracker.update(found, given_frame, descriptors=descriptors)
    (track,) = tracker.update([region], frame)
    assert (track.id, track.age) == (0, 1)
    for match, options in (
        ("expected patience as a whole number", {"patience": -1}),
        ("expected patience as a whole number", {"patience": 1.5}),
        ("expected max_displacement greater than 0", {"max_displacement": 0.0}),
        ("expected appearance_weight of 0 or more", {"appearance_weight": math.nan}),
        (r"expected max_appearance_distance in \[0, 1\]", {"max_appearance_distance": 2.0}),
        (r"expected appearance_momentum in \[0, 1\)", {"appearance_momentum": 1.0}),
    ):
        with pytest.raises(ValueError, match=match):
            Tracker(**options)  # type: ignore[arg-type]


def test_without_optional_libraries_it_imports_and_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["cv2"] = sys.modules["scipy"] = None
import numpy as np
from robot_attn.regions import Peak, Region, Tracker, regions
region = Region(np.ones((3, 3), bool), (0, 0, 3, 3), (1.0, 1.0), 1.0, Peak(1.0, 1.0, 1.0))
tracker = Tracker()
tracker.update([region])
for missing, needs_it in (("cv2", lambda: regions(np.eye(3))), ("scipy", lambda: tracker.update([region]))):
    try:
        needs_it()
    except ModuleNotFoundError as error:
        print(error)
    del sys.modules[missing]  # the next one is missing alone
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    opencv, scipy = done.stdout.splitlines()
    assert 'pip install "robot-attn[video]"' in opencv
    assert 'pip install "robot-attn[train]"' in scipy
