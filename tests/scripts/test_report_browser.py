"""The report in a real browser: Chromium without a window, driven through Playwright."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

sys.path.insert(0, str(Path(__file__).parents[1] / "policies"))
from toy_report import toy_report  # noqa: E402

from robot_attn_policies.evaluation.statistics import Interval  # noqa: E402
from robot_attn_policies.pages.report import (  # noqa: E402
    Chart,
    Picture,
    Report,
    Section,
    Series,
    Table,
    write_report,
)
from robot_attn_policies.probing.verdicts import Check, Verdict  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")

RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"target-size": {"enabled": True}},
}
LONG = "a_name_without_any_place_to_break_it" * 5
NAN = float("nan")


def odd_report() -> Report:
    """Names that never end, figures that are missing, and figures of any size."""
    figures = {"none": (NAN, NAN, NAN), "huge": (2.3e9, -2.2e9, 2.5e9), "tiny": (2e-7, 1e-7, 3e-7)}
    checks = tuple(Check(name + LONG, Interval(*figure), 1e6, True) for name, figure in figures.items())
    lines = tuple(Series(LONG + str(i), np.arange(50) * 1e9, np.arange(50.0) * i) for i in range(20))
    gaps = Series("s", [0, 1, 2, 3], [1e-9, NAN, 2e-9, 1e-9], [0, NAN, 1e-9, 0], [2e-9, NAN, 3e-9, 2e-9])
    charts = (
        Chart(LONG, LONG, LONG, lines, limits=((LONG, 1.0),)),
        Chart("Gaps", "x", "y", (gaps, Series("t", [3], [2e-9]))),
        Chart("Bars", LONG, LONG, (Series("s", [LONG, "b"], [-1e9, NAN], [-2e9, NAN], [1e9, NAN]),), "bars"),
        Chart("None", "x", "y", ()),
    )
    table = Table(LONG, tuple(LONG + str(i) for i in range(12)), ((LONG, 1.5, None, 10**9, *["b"] * 8),))
    picture = Picture(np.zeros((10, 90, 3), np.uint8), LONG)
    verdict = Verdict(LONG, checks)
    sections = (
        Section("odd", LONG, (LONG,), verdict, (table,), charts, (picture,)),
        Section("empty", "Empty", ()),
    )
    return Report(LONG, ((LONG, LONG),), (LONG,), sections)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    reports = {"usual": toy_report(), "odd": odd_report(), "empty": Report("Empty", (), (), ())}
    for name, report in reports.items():
        write_report(folder / f"{name}.html", report)
    return {name: folder / f"{name}.html" for name in reports}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    """Open a file as a page; at the end nothing may have been complained about or asked of a network."""
    contexts, complaints, requests = [], [], []

    def opened(path: Path, *, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("usual", 360, "dark"), ("odd", 1280, "light"), ("empty", 360, "light")]
)
def test_it_is_accessible(show: Any, written: dict[str, Path], name: str, width: int, scheme: str) -> None:
    page = show(written[name], width=width, color_scheme=scheme)
    found = axe.Axe().run(page, options=RULES)
    assert found.response["violations"] == []
    assert len(found.response["passes"]) > 10
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    light = sum(int(part) for part in ground[4:-1].split(",")) > 3 * 128
    assert light == (scheme == "light")


def wide_table() -> Table:
    """A table of long words and figures, wider than a phone."""
    row = ("characteristically counterproductive", Interval(0.512, 0.483, 0.541), "straightforwardly")
    return Table("Wide", ("misinterpretation", "interdependence of weights", "responsibilities", "b") * 2,
                 (((*row, 1) * 2),) * 3)  # fmt: skip


BROKEN_WORDS = """scroll => {
  const broken = [], walker = document.createTreeWalker(scroll, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    for (const word of node.data.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (range.getClientRects().length > 1) broken.push(word[0]);
    }
  }
  return broken;
}"""


def test_a_wide_table_breaks_no_word_and_hints_that_it_scrolls(show: Any, tmp_path: Path) -> None:
    report = Report("Wide", (), (), (Section("wide", "Wide", (), None, (wide_table(),)),))
    write_report(tmp_path / "wide.html", report)
    page = show(tmp_path / "wide.html", width=360)
    scroll = page.locator(".scroll")
    assert scroll.evaluate("e => e.scrollWidth > e.clientWidth")
    assert scroll.evaluate(BROKEN_WORDS) == []
    page.set_viewport_size({"width": 1280, "height": 900})  # one section has no contents beside it
    assert page.locator("#wide").bounding_box()["width"] > 1000
    page.set_viewport_size({"width": 360, "height": 900})
    box = page.locator(".scroll tbody tr").nth(1).bounding_box()
    outer = scroll.bounding_box()
    clip = {"x": outer["x"] + 1, "y": box["y"] + 4, "width": outer["width"] - 2, "height": 6}

    def edges() -> tuple[float, float]:
        """Lightness of the left and right edge of a row, from 0 to 255."""
        shown = cv2.imdecode(np.frombuffer(page.screenshot(clip=clip), np.uint8), cv2.IMREAD_GRAYSCALE)
        return float(shown[:, :3].mean()), float(shown[:, -3:].mean())

    left, right = edges()
    assert left > 250 and right < 220
    scroll.evaluate("e => { e.scrollLeft = 60 }")
    assert max(edges()) < 220
    scroll.evaluate("e => { e.scrollLeft = 1e5 }")
    left, right = edges()
    assert left < 220 and right > 250
    scroll.focus()  # by its keys
    page.keyboard.press("Home")
    assert axe.Axe().run(page, options=RULES).response["violations"] == []
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 794, "height": 900})
    assert scroll.evaluate("e => e.scrollWidth <= e.clientWidth")


@pytest.mark.parametrize("name", ["usual", "odd"])
def test_it_fits(show: Any, written: dict[str, Path], name: str) -> None:
    page = show(written[name])
    for closed in page.locator("summary").all():
        closed.press("Enter")
    for width in (1280, 900, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_keys_lead_from_the_answer_to_its_section_and_scroll_tables(
    show: Any, written: dict[str, Path]
) -> None:
    page = show(written["usual"], width=360)
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.inner_text() == "Localised"
    assert focused.evaluate("e => getComputedStyle(e.closest('.card')).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.url.endswith("#focus")
    assert page.locator("#focus").bounding_box()["y"] == pytest.approx(16, abs=1)
    page.keyboard.press("Tab")  # from there on, the first that it meets: a table that is wider than the phone
    assert page.locator(":focus").get_attribute("aria-label") == "Each head"
    page.keyboard.press("ArrowRight")
    table = page.locator("#focus .scroll")
    sync_api.expect(table).not_to_have_js_property("scrollLeft", 0)


def test_the_answer_comes_first_and_contents_stay_beside_it_where_there_is_room(
    show: Any, written: dict[str, Path]
) -> None:
    tops = {}
    for width in (360, 1280):
        page = show(written["usual"], width=width)
        tops[width] = [
            page.locator(which).first.bounding_box() for which in ("main > section", "nav", "#focus")
        ]
    answer, contents, focus = tops[360]
    assert answer["y"] + answer["height"] < contents["y"] < focus["y"]
    answer, contents, focus = tops[1280]
    assert contents["x"] + contents["width"] < answer["x"] == focus["x"]
    page.locator("nav a", has_text="How does attention move?").click()
    assert page.url.endswith("#time")
    page.wait_for_timeout(50)
    assert page.locator("nav").bounding_box()["y"] == pytest.approx(20, abs=1)


def test_charts_keep_the_size_of_their_text_and_their_place(show: Any, written: dict[str, Path]) -> None:
    for width, named in ((360, False), (1280, True)):
        page = show(written["usual"], width=width)
        chart = page.locator("#time figure").nth(1)
        texts = chart.locator("text").first
        assert texts.evaluate("e => getComputedStyle(e).fontSize") == "12px"
        assert 8 < texts.bounding_box()["height"] < 20  # as large as it says: nothing is stretched
        assert chart.locator(".names").is_visible() == named
        assert chart.locator(".legend").is_visible() != named
        box, card = chart.locator(".names" if named else ".lines > svg").bounding_box(), chart.bounding_box()
        assert card["x"] <= box["x"] and box["x"] + box["width"] <= card["x"] + card["width"]


def test_it_prints_on_white_without_what_only_screens_can_do(show: Any, written: dict[str, Path]) -> None:
    page = show(written["usual"], width=794, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden() and page.locator("summary").first.is_hidden()
    assert page.locator(".card").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 794
