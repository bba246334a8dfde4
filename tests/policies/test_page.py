"""Episode pages without a browser: their content, and the notable steps."""

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

cv2 = pytest.importorskip("cv2")

from robot_attn import AttentionGrid, AttentionMaps, focus  # noqa: E402
from robot_attn.drawing import HEAT_LINE, blend_heat, colors  # noqa: E402
from robot_attn.episode import Episode  # noqa: E402
from robot_attn.explain import Drop, largest_drop  # noqa: E402
from robot_attn_policies.pages.moments import (  # noqa: E402
    attention_left,
    find_moments,
    focus_falls,
    largest_jump,
    target_lost,
)
from robot_attn_policies.pages.page import View, build_page, half_level, write_page  # noqa: E402

T, H, W, HEADS, ROWS, COLS = 5, 12, 20, 2, 3, 5
GRID = AttentionGrid(np.arange(ROWS) * 4 + 1.5, np.arange(COLS) * 4 + 1.5, (H, W))
NAN = float("nan")


def make(**changes: Any) -> Episode:
    rng = np.random.default_rng(0)
    attention = np.zeros((T, HEADS, ROWS, COLS), dtype=np.float32)
    attention[:, 0, 1, 2] = 1  # rows 4 to 7, columns 8 to 11: the target
    attention[:, 1] = 1 / (ROWS * COLS)
    masks = np.zeros((T, H, W), dtype=bool)
    masks[:, 4:8, 8:12] = True
    parts: dict[str, Any] = {
        "images": rng.integers(0, 256, (T, H, W, 3), dtype=np.uint8),
        "actions": np.linspace(-1, 1, 2 * T, dtype=np.float32).reshape(T, 2),
        "rewards": np.array([0.5, 1.0, 0.25, 0.0, 0.75]),
        "attention": attention,
        "env_args": {"env_name": "RobotAttn/Track-v0", "env_kwargs": {"distractors": 6}},
        "seed": 7,
        "target_masks": masks,
        "success": True,
        "dt": 0.05,
        "best_head": 0,
        "uniform": False,
        "action_names": ("pan", "tilt"),
        "policy": "runs/track/query-0 (best)",
        "values": np.zeros(T),
        "maps": "attention",
        "cut": None,
    }
    parts |= changes
    parts["dones"] = np.arange(len(parts["images"])) == len(parts["images"]) - 1
    return Episode(**parts, grid=GRID.resized(parts["images"].shape[1:3]))


class Reader(HTMLParser):
    """Collects a page's tags and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1][0] if self.tags else "", data))


def content(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def unpack(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)


# ---- Content ----


def test_heads_have_the_colours_of_pictures() -> None:
    page = build_page(make())
    assert content(page)["colors"] == {
        "heads": ["#{:02x}{:02x}{:02x}".format(*color) for color in colors.HEADS],
        "target": "#40ffd6",
    }
    dark = page[page.index("prefers-color-scheme: dark") :]
    assert re.findall(r"--head-(\d): (#\w+);", dark) == [
        (str(i), "#{:02x}{:02x}{:02x}".format(*color)) for i, color in enumerate(colors.HEADS)
    ]


def test_frames_are_stored_without_loss() -> None:
    episode = make()
    frames = content(build_page(episode))["frames"]
    assert (frames["columns"], frames["rows"], frames["lossless"]) == (3, 2, True)  # 5 frames on 2 x 3
    (sheet,) = frames["sheets"]
    data = np.frombuffer(base64.b64decode(sheet.removeprefix("data:image/png;base64,")), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    for step in range(T):
        y, x = step // 3 * H, step % 3 * W
        assert np.array_equal(picture[y : y + H, x : x + W], episode.images[step])


def test_focus_chance_and_mask_by_hand() -> None:
    data = content(build_page(make()))
    assert data["focus"] == [[1.0, pytest.approx(1 / 15, rel=1e-5)]] * T  # one of 15 cells is the target
    assert data["chance"] == [pytest.approx(16 / 240, rel=1e-5)] * T
    bits = np.unpackbits(unpack(data["masks"]))[: T * H * W].reshape(T, H, W).astype(bool)
    assert np.array_equal(bits, make().target_masks)
    assert data["returns"] == [0.5, 1.5, 1.75, 1.75, 2.5]
    assert [action["name"] for action in data["actions"]] == ["pan", "tilt"]


def test_the_mass_on_each_thing_in_view_is_kept() -> None:
    things = np.zeros((T, H, W), np.uint8)
    things[:, 4:8, 8:12], things[:, 0:4, 0:4] = 1, 3
    names = ("backdrop", "target", "distractor 1", "distractor 2")
    episode = make(
        things=things, thing_names=names, thing_descriptions=("backdrop", "red sphere", "", "blue box")
    )
    data = content(build_page(episode))["things"]
    assert data["names"] == ["backdrop", "target: red sphere", "distractor 2: blue box"]
    assert data["labels"] == [0, 1, 3]
    mass = unpack(data["mass"]).reshape(T, HEADS, 3)
    assert mass[0].tolist() == [[0, 255, 0], [221, 17, 17]]  # uniform over 15 cells: 13, 1 and 1 of them
    assert content(build_page(make()))["things"] is None


def test_the_palette_gives_the_colours_of_the_video() -> None:
    attention = content(build_page(make()))["attention"]
    palette = np.array(attention["palette"], dtype=np.float64)
    assert palette.shape == (256, 4) and attention["line"] == HEAT_LINE
    alpha = palette[:, 3:] / 255
    ours = palette[:, :3] * alpha + np.array([200, 90, 30]) * (1 - alpha)
    for level in range(256):  # each alone: no edge, so no line
        shown = blend_heat(np.full((1, 1, 3), (200, 90, 30), np.uint8), np.full((1, 1), level, np.uint8))
        assert np.abs(ours[level] - shown[0, 0]).max() <= 2


def test_half_of_the_weight_is_at_or_above_the_level() -> None:
    levels = np.array([[200, 100], [100, 0]], dtype=np.uint8)
    assert half_level(levels, np.array([[0.5, 0.25], [0.25, 0.0]])) == 200
    assert half_level(levels, np.array([[0.4, 0.1], [0.2, 0.3]])) == 100
    assert half_level(levels, np.array([[0.1, 0.1], [0.1, 0.7]])) == 0
    assert half_level(levels, np.zeros((2, 2))) == 0


@given(st.integers(0, 2**32 - 1))
def test_no_higher_level_holds_half_of_the_weight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, (4, 6), dtype=np.uint8)
    weights = rng.random((4, 6))
    half = half_level(levels, weights)
    assert weights[levels >= half].sum() >= 0.5 * weights.sum() * (1 - 1e-12)
    higher = levels[levels > half]
    if higher.size > 0:
        assert weights[levels >= higher.min()].sum() < 0.5 * weights.sum()


# ---- Safety ----

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'{{script}}\u2028"


def test_names_are_escaped_everywhere() -> None:
    episode = make(
        env_args={"env_name": NASTY, "env_kwargs": {NASTY: NASTY}},
        policy=NASTY,
        action_names=(NASTY, "b"),
    )
    page = build_page(episode, title=NASTY, notes=[NASTY])
    plain, nasty = Reader(build_page(make())), Reader(page)
    assert [tag for tag, _ in nasty.tags] == [tag for tag, _ in plain.tags]
    assert next(text for tag, text in nasty.texts if tag == "title") == NASTY
    assert next(text for tag, text in nasty.texts if tag == "h1") == NASTY
    data = content(page)
    assert data["actions"][0]["name"] == NASTY
    assert data["notes"][0] == NASTY
    assert dict(data["facts"])["Policy"] == NASTY


def test_the_page_loads_nothing_and_runs_its_own_script_only() -> None:
    page = build_page(make())
    reader = Reader(page)
    (policy,) = [a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        source = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert len(source) == 1
        digest = base64.b64encode(hashlib.sha256(source[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for tag, attributes in reader.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}, tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert re.findall(r"(?<!www\.w3\.org/2000/svg)https?://(?!www\.w3\.org/2000/svg)", page) == []


# ---- Missing data ----


def notes(episode: Episode, **options: Any) -> list[str]:
    found: list[str] = content(build_page(episode, **options))["notes"]
    return found


def test_a_complete_episode_has_no_notes() -> None:
    assert notes(make()) == []
    assert notes(make(), notes=["Rendered again."]) == ["Rendered again."]
    assert notes(make(cut=150)) == ["The file was cut after step 5 of 150: what follows is lost."]


def test_missing_attention_is_noted() -> None:
    data = content(build_page(make(attention=np.zeros((T, 0, ROWS, COLS), np.float32))))
    assert data["attention"] is None
    assert data["focus"] is None
    assert "This episode has no attention maps" in data["notes"][0]


def test_missing_masks_and_values_are_noted() -> None:
    data = content(build_page(make(target_masks=None, values=None)))
    assert (data["masks"], data["focus"], data["chance"], data["values"]) == (None, None, None, None)
    assert "no outline and no focus" in data["notes"][0]
    assert "value estimates are not recorded" in data["notes"][1]
    invisible = make(target_masks=np.zeros((T, H, W), dtype=bool))
    assert content(build_page(invisible))["focus"] == [[None, None]] * T
    assert "never visible" in notes(invisible)[0]


def test_uniform_attention_gives_no_moments_of_attention() -> None:
    moving = make().attention
    moving[3:, 0] = 0
    moving[3:, 0, 0, 0] = 1
    kinds = {moment["kind"] for moment in content(build_page(make(attention=moving)))["moments"]}
    assert {"left", "jump"} <= kinds
    data = content(build_page(make(attention=moving, uniform=True)))
    assert not {moment["kind"] for moment in data["moments"]} & {"left", "jump"}
    assert "uniform by construction" in data["notes"][0]


def test_gradients_are_labelled_and_give_no_moments_of_attention() -> None:
    moving = make().attention
    moving[3:, 0] = 0
    moving[3:, 0, 0, 0] = 1
    data = content(build_page(make(attention=moving, maps="gradient")))
    assert data["notes"] == [
        "The maps are gradients, not attention: they show which parts of the frame would change the action "
        "most if they changed a little."
    ]
    assert data["attention"]["kind"] == "gradient"
    assert not {moment["kind"] for moment in data["moments"]} & {"left", "jump"}
    assert data["focus"][0][0] == 1.0  # still scored against the target
    assert content(build_page(make()))["attention"]["kind"] == "attention"


def test_another_camera_is_added_next_to_the_frames() -> None:
    images = np.random.default_rng(1).integers(0, 256, (T, 6, 8, 3), dtype=np.uint8)
    data = content(build_page(make(), view=View("top", images)))
    view = data["view"]
    assert (view["name"], view["size"], view["columns"], view["lossless"]) == ("top", [6, 8], 3, True)
    bytes_of = np.frombuffer(base64.b64decode(view["sheets"][0].partition(",")[2]), np.uint8)
    assert np.array_equal(cv2.imdecode(bytes_of, cv2.IMREAD_COLOR)[6:12, 8:16, ::-1], images[4])
    assert data["size"] == [H, W]
    assert content(build_page(make()))["view"] is None


def test_links_lead_only_to_files_in_the_folder_of_the_page() -> None:
    links = {"the other": "run b#1.html", NASTY: "javascript:alert(1)", "far": "//example.org/a?b"}
    data = content(build_page(make(), links=links))
    assert data["links"] == [
        ["the other", "run%20b%231.html"],
        [NASTY, "javascript%3Aalert%281%29"],
        ["far", "%2F%2Fexample.org%2Fa%3Fb"],
    ]


@pytest.mark.parametrize("bad", [0.0, NAN, float("inf"), -1.0])
def test_unusable_maps_are_omitted_and_counted(bad: float) -> None:
    attention = make().attention
    attention[1:3, 1] = bad
    data = content(build_page(make(attention=attention)))
    assert (
        data["notes"][0]
        == "Maps that are zero everywhere or not finite are not drawn: head 1 at 2 of 5 steps."
    )
    assert unpack(data["attention"]["usable"]).reshape(T, HEADS).tolist() == [
        [1, 1],
        [1, 0],
        [1, 0],
        [1, 1],
        [1, 1],
    ]
    assert [row[1] is None for row in data["focus"]] == [False, True, True, False, False]
    assert [row[0] for row in data["focus"]] == [1.0] * T
    assert not unpack(data["attention"]["levels"]).reshape(T, HEADS, ROWS, COLS)[1:3, 1].any()


def test_maps_of_any_sum_are_normalised() -> None:
    attention = make().attention
    assert content(build_page(make(attention=1000 * attention)))["focus"][0][0] == 1.0


def test_rewards_that_are_not_finite_are_rejected() -> None:
    with pytest.raises(ValueError, match="expected rewards of finite numbers, got NaN or infinity"):
        make(rewards=np.array([1.0, NAN, 1.0, 1.0, 1.0]))


def test_an_action_beyond_its_range_widens_the_bar() -> None:
    actions = np.array([[0.5, -3.0]] * T, dtype=np.float32)
    first, second = content(build_page(make(actions=actions)))["actions"]
    assert (first["low"], first["high"]) == (-1, 1)
    assert (second["low"], second["high"]) == (-3, 1)


def test_large_frames_are_compressed_with_loss_on_several_sheets() -> None:
    images = np.zeros((T, 900, 1000, 3), dtype=np.uint8)
    images[4] = 200
    episode = make(images=images, target_masks=None)
    page = build_page(episode)
    assert not content(page)["frames"]["lossless"]
    lossy = "The frames{} are compressed with loss (WebP), to keep this page small."
    assert content(page)["notes"][-1] == lossy.format("")
    beside = build_page(make(), view=View("top", images))
    assert content(beside)["notes"] == [lossy.format(" of the other camera")]
    assert len(page) < 1_000_000
    large = make(
        images=np.zeros((3, 2100, 2100, 3), np.uint8),
        attention=np.zeros((3, 0, ROWS, COLS), np.float32),
        target_masks=None,
        actions=np.zeros((3, 1), np.float32),
        rewards=np.zeros(3),
        values=None,
        action_names=(),
    )
    frames = content(build_page(large))["frames"]
    assert (frames["columns"], frames["rows"], len(frames["sheets"])) == (1, 1, 3)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"images": np.zeros((0, H, W, 3), np.uint8)}, {}, r"\[T, H, W, 3\] .*, got \[0, 12, 20, 3\]"),
        ({"rewards": np.zeros(T - 1)}, {}, r"expected rewards float64 \[5\], got float64 \[4\]"),
        ({"values": np.zeros(T + 1)}, {}, r"expected values float64 \[5\], got float64 \[6\]"),
        ({}, {"view": View("top", np.zeros((T - 1, 6, 8, 3), np.uint8))}, "another camera, .* got 4"),
        ({"best_head": HEADS}, {}, "expected best_head from 0 to 1, got 2"),
    ],
)
def test_inconsistent_parts_are_rejected(
    changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_page(make(**changes), **options)


def test_an_episode_may_have_one_step() -> None:
    whole = make()
    one = replace(
        whole,
        **{
            name: getattr(whole, name)[:1]
            for name in ("images", "actions", "rewards", "dones", "values", "attention")
        },
        target_masks=whole.target_masks[:1] if whole.target_masks is not None else None,
    )
    assert content(build_page(one))["steps"] == 1


def test_a_page_is_written_in_one_piece_or_not_at_all(tmp_path: Path) -> None:
    episode = make()
    write_page(tmp_path / "a.html", episode)
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == build_page(episode)
    with pytest.raises(ValueError, match="expected 5 frames from another camera"):
        write_page(tmp_path / "a.html", episode, view=View("top", episode.images[1:]))
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == build_page(episode)
    with pytest.raises(OSError, match="does not exist: create it first"):
        write_page(tmp_path / "none" / "a.html", episode)
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


# ---- Notable steps, computed by hand ----


def masks_of(*flags: int) -> NDArray[np.bool_]:
    masks = np.zeros((len(flags), 4, 5), dtype=bool)
    masks[:, 1, 1] = flags
    return masks


def test_a_target_is_lost_once_it_was_visible() -> None:
    assert target_lost(masks_of(0, 0, 1, 1, 0, 0, 0, 1, 0)) == [(4, 7), (8, 9)]
    assert target_lost(masks_of(0, 0)) == target_lost(masks_of(1, 1)) == target_lost(masks_of(0, 1)) == []


def test_attention_must_reach_the_target_to_leave_it() -> None:
    chance = np.full(10, 0.1)  # leaves below 0.2, arrives above 0.4
    mass = np.array([0.3, 0.1, 0.5, 0.25, 0.1, 0.3, 0.1, 0.5, 0.3, 0.15])
    assert attention_left(mass, chance) == [4, 9]
    hidden = np.array([0.5, NAN, 0.1, 0.5, 0.1])
    assert attention_left(hidden, np.full(5, 0.1)) == [4]
    assert attention_left(mass, chance, factor=1.2) == [1, 4, 6]


def test_a_fall_of_focus_is_found_far_above_chance() -> None:
    # The focus of a replay that tracks its target, with the fall that its curve shows near step 29.
    mass = np.array(
        [0.92, 0.87, 0.84, 0.84, 0.83, 0.85, 0.93, 0.83, 0.7, 0.33, 0.25, 0.2, 0.24, 0.94, 0.98, 0.97]
    )
    assert focus_falls(mass) == [(6, 11, 13)]
    masks = np.zeros((len(mass), 20, 20), dtype=bool)
    masks[:, :2, :2] = True
    assert attention_left(mass, masks.mean(axis=(1, 2))) == []  # 0.2 is 20 times chance
    still = np.zeros(len(mass))
    assert find_moments(still, masks=masks, mass=mass) == [
        (11, "left", "Attention on the target fell from 93 % to 20 % within 5 steps, to 20.0 × chance")
    ]
    masks[9:13, 0] = False  # half of its pixels
    assert find_moments(still, masks=masks, mass=mass)[0].text.endswith(
        "to 40.0 × chance; the target shrank to 50 % of its pixels"
    )


def test_flicker_and_a_target_out_of_view_are_no_falls_of_focus() -> None:
    steady = np.full(30, 0.8)
    for at in (0, 7, 8, 29):
        one = steady.copy()
        one[at] = 0.1
        assert focus_falls(one) == []
    two = steady.copy()
    two[10:12] = 0.1, 0.05
    assert focus_falls(two) == [(9, 11, 12)]
    hidden = two.copy()
    hidden[10:] = NAN
    assert focus_falls(hidden) == []
    hidden[20:] = 0.1  # back in view and not attended: no fall
    assert focus_falls(hidden) == []
    slow = np.concatenate([np.linspace(0.9, 0.1, 60), np.full(20, 0.1)])
    assert [(fall.lowest < 70, fall.stop) for fall in focus_falls(slow)] == [(True, 80)]
    assert focus_falls(0.1 * two) == []  # 0.08 to 0.005: what flickers below a tenth is not worth a look
    assert focus_falls(np.zeros(0)) == focus_falls(np.array([0.5])) == focus_falls(np.full(3, NAN)) == []


def test_one_fall_of_focus_is_one_moment() -> None:
    mass = np.array([0.9, 0.9, 0.9, 0.04, 0.03, 0.9, 0.9])
    masks = masks_of(*[1] * 7)
    assert [tuple(moment) for moment in find_moments(np.zeros(7), masks=masks, mass=mass)] == [
        (4, "left", "Attention on the target fell from 90 % to 3 % within 2 steps, to 0.6 × chance")
    ]


@given(st.lists(st.floats(0, 1) | st.just(NAN), max_size=40))
def test_falls_of_focus_are_ordered_and_fall(values: list[float]) -> None:
    mass = np.array(values)
    falls = focus_falls(mass)
    for fall in falls:
        assert 0 <= fall.start < fall.lowest < fall.stop <= len(mass)
        assert mass[fall.lowest] < mass[fall.start]
        assert np.isfinite(mass[fall.start : fall.stop]).all()
    assert [fall.stop for fall in falls] == sorted({fall.stop for fall in falls})


def test_the_largest_jump_of_the_centre_of_mass() -> None:
    maps = np.zeros((4, ROWS, COLS))
    maps[0, 0, 0] = maps[1, 0, 1] = maps[2, 2, 4] = 1
    maps[3, 2, 4], maps[3, 2, 3] = 0.5, 0.5
    step, pixels = largest_jump(AttentionMaps(maps, GRID)) or (0, 0.0)
    assert step == 2
    assert pixels == pytest.approx(np.hypot(8, 12))  # two rows and three columns of 4 pixels
    maps[2] = 0  # no map, so no jump to or from it
    assert largest_jump(AttentionMaps(maps, GRID)) == (1, 4.0)
    assert largest_jump(AttentionMaps(np.zeros((4, ROWS, COLS)), GRID)) is None
    assert largest_jump(AttentionMaps(maps[:1], GRID)) is None
    assert largest_jump(AttentionMaps(np.repeat(maps[:1], 4, axis=0), GRID)) is None


def test_the_largest_drop_within_a_window() -> None:
    assert largest_drop(np.array([0.0, 1.0, 0.9, 0.2, 0.8])) == Drop(1, 3)
    assert largest_drop(np.array([1.0, 1.0, 0.0])) == Drop(1, 2)  # from the last of equal heights
    slow = np.arange(20.0, -1.0, -1.0)
    assert largest_drop(slow, window=4) == Drop(0, 4)
    assert largest_drop(np.array([1.0, 0.95, 1.0])) is None  # less than a tenth
    assert largest_drop(np.arange(5.0)) is None
    assert largest_drop(np.array([1.0, NAN, 0.2])) == Drop(0, 2)
    assert largest_drop(np.array([NAN, NAN])) is None
    assert largest_drop(np.array([5.0])) is None


def test_moments_are_described_in_the_order_of_steps() -> None:
    masks = masks_of(1, 1, 1, 0, 0)
    maps = np.zeros((5, ROWS, COLS))
    maps[:2, 0, 0] = maps[2:, 0, 2] = 1
    moments = find_moments(
        np.array([0.5, 1.0, 0.25, 0.0, 0.0]),
        values=np.array([3.0, 3.0, 3.0, 3.0, 1.0]),
        masks=masks,
        maps=AttentionMaps(maps, GRID),
        mass=np.array([0.9, 0.9, 0.06, NAN, NAN]),
    )
    assert [tuple(moment) for moment in moments] == [
        (1, "reward", "Reward dropped from 1.00 to 0.00 within 2 steps"),
        (2, "left", "Attention left the target: 1.2 × chance"),  # of 1 in 20 pixels
        (2, "jump", "Largest attention jump: 8 pixels"),
        (3, "lost", "Target lost from view until the end"),
        (3, "value", "Value estimate dropped from 3.00 to 1.00 within 1 step"),
    ]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_capture_is_marked_with_what_took_attention_and_what_came_of_it(labelled: bool) -> None:
    steps = 24
    things = np.zeros((steps, H, W), np.uint8)
    things[:15, 0:3, 0:3] = 1
    things[:, 8:12, 16:20] = 2
    attention = np.zeros((steps, 1, ROWS, COLS), np.float32)
    attention[:6, 0, 0, 0] = attention[6:, 0, 2, 4] = 1.0
    labels: dict[str, Any] = {
        "things": things,
        "thing_names": ("backdrop", "target", "distractor 1"),
        "thing_descriptions": ("backdrop", "green box", "red cup"),
    }
    episode = make(
        images=np.array([(90, 90, 90), (30, 200, 30), (220, 20, 20)], np.uint8)[things],
        attention=attention,
        target_masks=things == 1,
        actions=np.zeros((steps, 2), np.float32),
        rewards=np.zeros(steps),
        values=None,
        **(labels if labelled else {}),
    )
    what = "the red cup" if labelled else "a red region"
    assert [moment for moment in content(build_page(episode))["moments"] if moment["kind"] == "captured"] == [
        {
            "step": 6,
            "kind": "captured",
            "text": f"Attention captured by {what} at the bottom right, target lost 9 steps later, not back",
        }
    ]


def test_focus_equals_that_of_the_evaluation() -> None:
    rng = np.random.default_rng(3)
    attention = rng.dirichlet(np.ones(ROWS * COLS), (T, HEADS)).reshape(T, HEADS, ROWS, COLS)
    masks = rng.random((T, H, W)) < 0.2
    data = content(build_page(make(attention=attention.astype(np.float32), target_masks=masks)))
    expected = focus.mass_on_target(AttentionMaps(attention, GRID).upsampled(), masks)
    assert np.array(data["focus"]) == pytest.approx(expected, abs=1e-5)
