"""The page of an episode in a real browser: Chromium without a window, driven through Playwright."""

import base64
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

cv2 = pytest.importorskip("cv2")
pytest.importorskip("h5py")
sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import ID, ToyTask  # noqa: E402

from robot_attn import AttentionGrid, Percept, focus  # noqa: E402
from robot_attn.drawing import HeatScale  # noqa: E402
from robot_attn.episode import Episode  # noqa: E402
from robot_attn_policies.pages.page import View, half_level, write_page  # noqa: E402
from robot_attn_policies.recording.episode_file import record_episode  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def episode() -> Episode:
    """An episode of a policy that looks about at random; its target is out of view from step 3 to 4."""
    rng = np.random.default_rng(0)
    grid = AttentionGrid(np.arange(9) * 4 + 1.5, np.arange(11) * 4 + 1.5, (36, 44))

    def act(observation: Any) -> tuple[np.ndarray, Percept]:
        maps = rng.dirichlet(np.full(99, 0.2), 3).reshape(1, 3, 9, 11)
        return -observation["state"], Percept(torch.zeros(1, 0), torch.from_numpy(maps))

    recorded = record_episode(
        act, ToyTask(1), 5, grid, env_args={"env_name": ID}, best_head=1, policy="looks about"
    )
    values = np.linspace(9, 1, len(recorded))
    assert recorded.target_masks is not None
    masks = recorded.target_masks.copy()
    masks[3:5] = False
    return replace(recorded, target_masks=masks, values=values)


@pytest.fixture(scope="module")
def written(episode: Episode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "page.html"
    write_page(path, episode, title="A <b>small</b> task")
    return path


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser.new_page()
        browser.close()


@pytest.fixture
def show(tab: Any) -> Iterator[Any]:
    """Open a file as a page; at the end nothing may have been complained about or asked of a network."""
    complaints, requests = [], []
    heard = {
        "console": lambda message: complaints.append(message.text),
        "pageerror": lambda error: complaints.append(str(error)),
        "request": lambda request: requests.append(request.url),
    }
    for event, listener in heard.items():
        tab.on(event, listener)

    def opened(
        path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light", at: str = ""
    ) -> Any:
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)
        tab.goto("about:blank")  # so that nothing of what was shown before is left
        tab.goto(path.as_uri() + at)
        sync_api.expect(tab.locator("#clock")).to_contain_text("Step")  # drawn
        return tab

    yield opened
    for event, listener in heard.items():
        tab.remove_listener(event, listener)
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []


def step_of(page: Any) -> int:
    step: int = page.evaluate("replay.step()")
    assert page.locator("#scrub").input_value() == str(step)
    assert page.locator("#clock b").inner_text().startswith(f"Step {step} of ")
    return step


def until(page: Any, reached: Callable[[int], bool]) -> None:
    """Wait for a step; Playwright's own `wait_for_function` is what the page's policy forbids: eval."""
    for _ in range(2000):
        if reached(page.evaluate("replay.step()")):
            return
        page.wait_for_timeout(5)
    raise AssertionError(f"still at step {step_of(page)}")


def drawing(page: Any, canvas: str = "#frame") -> Any:
    """The large frame's pixels, or another canvas's, [height, width, 3]."""
    url = page.evaluate(f"document.querySelector('{canvas}').toDataURL('image/png')")
    data = np.frombuffer(base64.b64decode(url.removeprefix("data:image/png;base64,")), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def draw_as(page: Any, mode: str) -> None:
    page.get_by_role("radio", name=mode).check()


def test_it_shows_the_episode(show: Any, written: Path, episode: Episode) -> None:
    page = show(written)
    assert page.title() == "A <b>small</b> task"
    assert page.locator("h1").inner_text() == "A <b>small</b> task"
    assert f"{episode.rewards.sum():.1f}" in page.locator("#facts").inner_text()
    assert page.locator(".plot").count() == 4  # focus, reward, return, value
    assert page.locator("#bars li").count() == 2
    assert "up" in page.locator("#bars").inner_text()
    assert page.locator(".tile").count() == 3
    assert page.locator("#problem").is_hidden()


def test_the_frame_is_drawn_bit_for_bit(show: Any, written: Path, episode: Episode) -> None:
    page = show(written)
    page.locator("#choose-none").click()
    page.locator("#outline").uncheck()
    height, width = episode.image_size
    for step in (0, len(episode) - 1):
        page.evaluate(f"replay.go({step})")
        shown = drawing(page)
        scale = shown.shape[0] // height
        assert shown.shape[:2] == (height * scale, width * scale)
        assert np.array_equal(shown[scale // 2 :: scale, scale // 2 :: scale], episode.images[step])


def test_heat_lies_where_the_video_has_it(show: Any, written: Path, episode: Episode) -> None:
    page = show(written)
    size = (3 * episode.image_size[0], 2 * episode.image_size[1])
    scale = HeatScale(episode.grid, size)
    for step in (0, 2):
        expected = scale.levels(episode.attention[step]).astype(int)
        for head in range(3):
            levels = page.evaluate(f"replay.levels({step}, [{head}], {size[0]}, {size[1]})")
            assert np.abs(np.array(levels).reshape(size) - expected[head]).max() <= 1.01
        both = page.evaluate(f"replay.levels({step}, [0, 2], {size[0]}, {size[1]})")
        assert np.abs(np.array(both).reshape(size) - expected[[0, 2]].max(axis=0)).max() <= 1.01


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (18.06, 18.53, ["18.0", "18.2", "18.4", "18.6"]),
        (-143.0, -1.0, ["-150", "-100", "-50", "0"]),
        (-3.0, 0.5, ["-4", "-2", "0", "2"]),
        (5.0, 5.0, ["0", "2", "4", "6"]),
    ],
)
def test_the_axis_of_the_value_shows_its_changes(
    show: Any, episode: Episode, tmp_path: Path, low: float, high: float, ticks: list[str]
) -> None:
    write_page(tmp_path / "page.html", replace(episode, values=np.linspace(low, high, len(episode))))
    page = show(tmp_path / "page.html")
    plot = page.locator(".plot", has_text="Value estimate")
    assert plot.locator(".axis span").all_inner_texts() == ticks
    area, line = plot.locator(".inside").bounding_box(), plot.locator("path.best").bounding_box()
    assert line["y"] >= area["y"] - 2 and line["y"] + line["height"] <= area["y"] + area["height"] + 2
    if low < high:
        assert line["height"] > 0.5 * area["height"]
    labels = [plot.locator(".axis span").nth(i).bounding_box() for i in range(len(ticks))]
    assert all(above["y"] + 10 < below["y"] + 1 for below, above in itertools.pairwise(labels))


def test_heads_are_switched_on_and_off(show: Any, written: Path, episode: Episode) -> None:
    page = show(written)
    page.locator("#outline").uncheck()
    tiles = page.locator(".tile")
    pressed = lambda: [tiles.nth(i).get_attribute("aria-pressed") == "true" for i in range(3)]  # noqa: E731
    best = [head == episode.best_head for head in range(3)]
    assert pressed() == best
    with_best = drawing(page)
    tiles.nth(episode.best_head).focus()
    page.keyboard.press("Space")  # the button's own; it does not start the player
    assert pressed() == [False] * 3
    assert page.locator("#toggle").get_attribute("aria-label") == "Play"
    bare = drawing(page)
    assert not np.array_equal(bare, with_best)
    page.locator("#choose-all").click()
    assert pressed() == [True] * 3
    assert page.locator("path.chance").count() == 1
    page.locator("#choose-best").click()
    assert pressed() == best
    assert np.array_equal(drawing(page), with_best)
    draw_as(page, "Frame only")
    assert np.array_equal(drawing(page), bare)


def test_a_contour_holds_half_of_the_weight(show: Any, episode: Episode, tmp_path: Path) -> None:
    attention = np.zeros_like(episode.attention)
    attention[:, :, 1, 1] = 1  # all in one cell
    peaked = replace(episode, attention=attention)
    write_page(tmp_path / "page.html", peaked)
    page = show(tmp_path / "page.html")
    page.locator("#outline").uncheck()
    draw_as(page, "Frame only")
    bare = drawing(page)
    draw_as(page, "Contour")
    assert "half of its head's attention" in page.locator("#legend").inner_text()
    drawn = (drawing(page) != bare).any(axis=2)
    # The same in NumPy: the pixels at or above the level that half of the weight reaches.
    size = episode.image_size
    levels = HeatScale(episode.grid, size).levels(attention[0])[0]
    half = half_level(levels, peaked.attention_maps[0, 0].upsampled())
    inside = HeatScale(episode.grid, drawn.shape).levels(attention[0])[0] >= half
    assert 0 < inside.mean() < 0.2
    width = 4  # half of the line with its halo, and what the field's pixels leave open
    for axis in (0, 1):
        line, area = np.flatnonzero(drawn.any(axis=axis)), np.flatnonzero(inside.any(axis=axis))
        assert line[0] == pytest.approx(area[0], abs=width)
        assert line[-1] == pytest.approx(area[-1], abs=width)


def test_keys_step_and_jump(show: Any, written: Path, episode: Episode) -> None:
    last = len(episode) - 1
    page = show(written)
    press = page.keyboard.press
    for key, expected in [
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("Shift+ArrowRight", min(11, last)),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("End", last),
        ("ArrowRight", last),
        ("Shift+ArrowLeft", max(last - 10, 0)),
    ]:
        press(key)
        assert step_of(page) == expected, key
    page.locator("#scrub").focus()
    press("Home")
    press("ArrowRight")  # once, not once for the page and once for the slider
    assert step_of(page) == 1
    page.locator("#modes input").first.focus()
    press("ArrowRight")  # a choice keeps its keys
    assert page.locator("#modes input").nth(1).is_checked()
    assert step_of(page) == 1


def test_the_slider_and_the_plots_scrub(show: Any, written: Path, episode: Episode) -> None:
    last = len(episode) - 1
    page = show(written)
    box = page.locator("#scrub").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    assert step_of(page) == last
    page.locator("#scrub").fill("2")
    assert step_of(page) == 2
    inside = page.locator(".plot .inside").nth(1)
    inside.scroll_into_view_if_needed()
    box = inside.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 10)
    page.mouse.down()
    assert step_of(page) == 0
    page.mouse.move(box["x"] + box["width"] / last, box["y"] + 10)
    assert step_of(page) == 1
    page.mouse.up()
    page.mouse.move(box["x"] + box["width"], box["y"] + 10)
    assert step_of(page) == 1
    # The line under which a plot is read stands where the slider's knob does.
    page.locator("#scrub").fill(str(last // 2))
    line, area = page.locator(".cursor").first.bounding_box(), inside.bounding_box()
    middle = area["x"] + area["width"] * (last // 2) / last
    assert line["x"] + line["width"] / 2 == pytest.approx(middle, abs=1)


def test_it_plays_pauses_and_loops(show: Any, written: Path, episode: Episode) -> None:
    last = len(episode) - 1
    page = show(written)
    page.locator("#speed").select_option("4")
    toggle = page.locator("#toggle")
    assert toggle.get_attribute("aria-label") == "Play"
    page.locator("body").press("Space")
    until(page, lambda step: step == last)
    sync_api.expect(toggle).to_have_attribute("aria-label", "Play")  # to the end, and no farther
    page.locator("#loop").check()
    toggle.click()  # begins anew
    until(page, lambda step: 0 < step < last)
    until(page, lambda step: step >= last - 2)
    until(page, lambda step: step < last - 2)
    assert toggle.get_attribute("aria-label") == "Pause"
    toggle.click()
    stopped = step_of(page)
    page.wait_for_timeout(200)
    assert step_of(page) == stopped


def test_moments_are_buttons_that_jump(show: Any, written: Path) -> None:
    page = show(written)
    lost = page.locator("#moments button", has_text="Target lost from view for 2 steps")
    lost.press("Enter")
    assert step_of(page) == 3
    assert page.locator("#not-visible").is_visible()
    assert "not visible" in page.locator("#now").inner_text()
    steps = [int(item.get_attribute("data-step")) for item in page.locator("#moments button").all()]
    assert page.locator("#marks button").count() == len(steps) > 1
    assert steps == sorted(steps)
    page.keyboard.press("Home")
    for expected in sorted(set(steps) - {0}):
        page.locator("#later-moment").click()
        assert step_of(page) == expected
    assert page.locator("#later-moment").is_disabled()
    page.locator("#marks button").first.click()
    assert step_of(page) == steps[0]


def test_a_link_opens_at_its_step(show: Any, written: Path) -> None:
    page = show(written, at="#step=4")
    assert step_of(page) == 4
    page.evaluate("location.hash = '#step=2'")
    until(page, lambda step: step == 2)


def test_a_step_is_spoken_once_it_stands_still(show: Any, written: Path, episode: Episode) -> None:
    page = show(written)
    page.keyboard.press("ArrowRight")
    spoken = page.locator("#announcement")
    sync_api.expect(spoken).to_contain_text(f"Step 1 of {len(episode) - 1}, reward ")
    assert "value estimate" in spoken.inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    sync_api.expect(spoken).to_contain_text("Step 3")
    assert "target not visible" in spoken.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_is_accessible_and_fits(show: Any, written: Path, scheme: str, width: int) -> None:
    page = show(written, width=width, scheme=scheme)
    page.locator("#choose-all").click()
    rules = {"runOnly": STANDARDS, "rules": {"target-size": {"enabled": True}}}
    found = axe.Axe().run(page, options=rules)
    assert found.response["violations"] == []
    assert len(found.response["passes"]) > 20
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    light = sum(int(part) for part in ground[4:-1].split(",")) > 3 * 128
    assert light == (scheme == "light")


def test_the_mass_on_each_thing_is_stacked_for_the_chosen_heads(
    show: Any, episode: Episode, tmp_path: Path
) -> None:
    things = np.zeros(episode.images.shape[:3], np.uint8)
    things[:, :18], things[:, 18:30] = 1, 2
    words = ("backdrop", "red sphere", "green box")
    labelled = replace(
        episode, things=things, thing_names=("backdrop", "target", "distractor 1"), thing_descriptions=words
    )
    write_page(tmp_path / "page.html", labelled)
    mass = focus.mass_by_label(episode.attention_maps.normalised().upsampled(), things, 3)
    page = show(tmp_path / "page.html", width=360, at="#step=2")
    plot = page.locator(".plot", has_text="Mass by thing")
    items = plot.locator(".things li")
    shares = lambda: [float(text.rstrip(" %")) for text in items.locator("b").all_inner_texts()]  # noqa: E731
    assert items.first.inner_text().startswith("target: red sphere")
    page.locator("#choose-all").click()
    assert shares() == pytest.approx(100 * mass[2].mean(axis=0)[[1, 2, 0]], abs=1)
    assert "mean of 3 heads" in plot.locator(".label").inner_text()
    before = plot.locator("path.layer").first.get_attribute("d")
    page.locator("#choose-best").click()
    assert shares() == pytest.approx(100 * mass[2, episode.best_head][[1, 2, 0]], abs=1)
    assert plot.locator("path.layer").count() == 3
    assert plot.locator("path.layer").first.get_attribute("d") != before
    assert axe.Axe().run(page, options={"runOnly": STANDARDS}).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("height", [640, 800])
def test_a_phone_shows_frame_and_action_while_stepping(
    show: Any, episode: Episode, tmp_path: Path, height: int
) -> None:
    actions = np.tile(episode.actions, (1, 4))[:, :7]  # an arm and its gripper
    write_page(tmp_path / "page.html", replace(episode, actions=actions, action_names=()))
    page = show(tmp_path / "page.html", width=360, height=height)
    page.locator("#frame").evaluate("element => element.scrollIntoView()")
    box = lambda which: page.locator(which).bounding_box()  # noqa: E731
    before, text = page.evaluate("scrollY"), page.locator("#bars").inner_text()
    page.locator("#step-forward").click()
    assert step_of(page) == 1
    assert page.evaluate("scrollY") == before and page.locator("#bars").inner_text() != text
    frame, last, bar = box("#frame"), box("#bars li:last-child"), box(".transport")
    assert frame["y"] >= 0 and frame["height"] >= 256
    assert frame["y"] + frame["height"] <= last["y"]
    assert last["y"] + last["height"] <= bar["y"] and bar["y"] + bar["height"] <= height
    page.locator("#moments button").last.focus()  # what has the focus is not under the bar
    focused = box("#moments li:last-child button")
    assert focused["y"] + focused["height"] <= bar["y"]
    page.emulate_media(media="print")
    assert page.locator(".transport").evaluate("e => getComputedStyle(e).position") == "static"
    page.emulate_media(media="screen")


def test_another_camera_is_shown_beside_and_a_link_leads_on(
    show: Any, episode: Episode, tmp_path: Path
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (len(episode), 30, 40, 3), dtype=np.uint8)
    links = {"the other policy": "b 1.html"}
    for path in (tmp_path / "a.html", tmp_path / "b 1.html"):
        write_page(path, episode, view=View("top <b>", images), links=links)
    for width in (360, 800, 1400):
        page = show(tmp_path / "a.html", width=width)
        assert page.locator("#view-name").inner_text() == "Camera top <b>"
        for step in (0, 3):
            page.evaluate(f"replay.go({step})")
            assert np.array_equal(drawing(page, "#view"), images[step])
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert axe.Axe().run(page, options={"runOnly": STANDARDS}).response["violations"] == []
    page.locator("#links a", has_text="the other policy").click()
    sync_api.expect(page.locator("#clock")).to_contain_text("Step 0")
    assert page.url.endswith("/b%201.html")


@pytest.mark.parametrize(("maps", "name"), [("causal", "causal map"), ("gradient", "gradient")])
def test_other_maps_are_not_called_attention(
    maps: str, name: str, show: Any, episode: Episode, tmp_path: Path
) -> None:
    write_page(tmp_path / "page.html", replace(episode, maps=maps))
    page = show(tmp_path / "page.html")
    assert f"The maps are {name}s, not attention" in page.locator("#notes").inner_text()
    assert page.locator("#heads-name").inner_text() == f"{name} of the action".capitalize()
    assert page.locator(".tile").first.inner_text().startswith(name.capitalize())
    draw_as(page, "Contour")
    assert page.locator("#legend").inner_text() == f"Each line holds half of the {name}."
    for text in (page.locator("main").inner_text(), page.locator("#frame").get_attribute("aria-label")):
        assert "attention" not in text.lower()
        assert "head" not in text.lower()


@pytest.mark.parametrize("missing", ["masks", "everything"])
def test_what_is_missing_is_said_and_the_rest_works(
    show: Any, episode: Episode, tmp_path: Path, missing: str
) -> None:
    parts: dict[str, Any] = {"target_masks": None, "dt": None, "values": None}
    if missing == "everything":
        parts |= {"uniform": True, "attention": np.zeros_like(episode.attention)}
    write_page(tmp_path / "page.html", replace(episode, **parts))
    page = show(tmp_path / "page.html")
    assert "no outline and no focus" in page.locator("#notes").inner_text()
    assert page.locator("#outline-choice").is_hidden()
    assert page.locator(".plot").count() == 2  # reward and return
    if missing == "everything":
        assert "uniform by construction" in page.locator("#notes").inner_text()
        assert page.locator(".tile", has_text="no map at this step").count() == 3
    page.locator("#choose-all").click()
    draw_as(page, "Contour")
    page.keyboard.press("Home")
    page.keyboard.press("End")
    assert axe.Axe().run(page, options={"runOnly": STANDARDS}).response["violations"] == []


def test_an_episode_of_one_step_without_attention(show: Any, episode: Episode, tmp_path: Path) -> None:
    kept = ("images", "actions", "rewards", "dones", "state", "target_masks")
    first: dict[str, Any] = {name: getattr(episode, name)[:1] for name in kept}
    first |= {"attention": episode.attention[:1, :0], "best_head": 0}
    first |= {"values": None, "states": np.zeros((0, 0)), "simulator": {}}
    write_page(tmp_path / "page.html", replace(episode, **first))
    page = show(tmp_path / "page.html")
    assert "no attention maps" in page.locator("#heads").inner_text()
    assert page.locator("#modes").is_hidden()
    assert np.array_equal(drawing(page)[1, 1], episode.images[0, 0, 0])
    page.locator("body").press("Space")
    page.keyboard.press("ArrowRight")
    assert step_of(page) == 0


def test_150_steps_of_a_busy_scene_are_under_5_megabytes(episode: Episode, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(225), (150, 8)).reshape(150, 8, 15, 15).astype(np.float32)
    noise = Episode(
        images=rng.integers(0, 256, (150, 64, 64, 3), dtype=np.uint8),  # nothing packs worse
        actions=rng.normal(size=(150, 7)).astype(np.float32),
        rewards=rng.random(150),
        dones=np.arange(150) == 149,
        attention=attention,
        grid=AttentionGrid(np.arange(15) * 4 + 3.5, np.arange(15) * 4 + 3.5, (64, 64)),
        env_args=episode.env_args,
        seed=0,
        target_masks=rng.random((150, 64, 64)) < 0.5,
        values=rng.random(150),
    )
    write_page(tmp_path / "page.html", noise)
    assert (tmp_path / "page.html").stat().st_size < 5_000_000
