"""Reports without a browser: the page's content, the JSON and the charts."""

import base64
import hashlib
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from toy_report import toy_report

cv2 = pytest.importorskip("cv2")

from robot_attn_policies.evaluation.statistics import Interval  # noqa: E402
from robot_attn_policies.pages import chart as ch  # noqa: E402
from robot_attn_policies.pages import chart_axes, chart_drawing  # noqa: E402
from robot_attn_policies.pages.report import (  # noqa: E402
    Chart,
    Picture,
    Report,
    Section,
    Series,
    Table,
    render_report,
    report_json,
    write_report,
)
from robot_attn_policies.probing.verdicts import Check, Verdict  # noqa: E402

NAN = float("nan")
NASTY = "<script>alert(1)</script>\"'&"
PIXEL = np.array([[[10, 20, 30]]], dtype=np.uint8)


class Reader(HTMLParser):
    """Collects a page's tags with their attributes, the tags open at its end, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data

    def all(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        """Attributes of the tags with this name and class."""
        return [a for t, a in self.tags if t == tag and (not name or name in (a.get("class") or "").split())]


def report_of(*sections: Section, **parts: Any) -> Report:
    return Report(**{"title": "Title", "facts": (), "summary": (), "sections": sections} | parts)


def section_of(**parts: Any) -> Section:
    return Section(**{"name": "part", "title": "Part", "text": ()} | parts)


def verdict_of(*figures: tuple[float, float, float], limit: float = 0.5) -> Verdict:
    return Verdict(
        "Good?", tuple(Check(f"check {i}", Interval(*f), limit, True) for i, f in enumerate(figures))
    )


YES, NO, OPEN = (0.9, 0.8, 1.0), (0.1, 0.0, 0.2), (0.5, 0.4, 0.6)


def test_a_page_is_well_formed_and_runs_and_loads_nothing() -> None:
    page = render_report(toy_report())
    reader = Reader(page)
    assert reader.open == []
    (policy,) = [a["content"] for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    style = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'sha256-{digest}'"
    )
    assert reader.all("script") == []
    for tag, attributes in reader.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}, tag
        for name in ("href", "src"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), tag
    ids = Counter(a["id"] for _, a in reader.tags if "id" in a)
    assert set(ids.values()) == {1}
    assert {a["href"] for a in reader.all("a")} | {a["href"] for a in reader.all("use")} <= {
        f"#{i}" for i in ids
    }


def test_names_are_escaped_everywhere() -> None:
    series = (Series(NASTY, [0.0, 1.0], [1.0, 2.0]), Series(NASTY, [0.0, 1.0], [1.0, 2.0]))
    bars = Chart(NASTY, NASTY, NASTY, (Series(NASTY, [NASTY], [1.0]),), "bars", ((NASTY, 1.0),))
    report = Report(
        NASTY,
        ((NASTY, NASTY),),
        (NASTY,),
        (
            Section(
                "part", NASTY, (NASTY,), Verdict(NASTY, (Check(NASTY, Interval(*YES), 0.5, True),)),
                (Table(NASTY, (NASTY,), ((NASTY,),)),),
                (Chart(NASTY, NASTY, NASTY, series, limits=((NASTY, 1.0),)), bars),
                (Picture(PIXEL, NASTY),),
            ),
            section_of(name="other", title=NASTY),
        ),
    )  # fmt: skip
    reader = Reader(render_report(report))
    assert reader.open == []
    assert reader.all("script") == []
    assert reader.words.count(NASTY) > 20
    assert reader.all("img")[0]["alt"] == NASTY


def test_a_card_shows_the_outcome_and_the_checks_that_decide_it() -> None:
    words = Reader(render_report(report_of(section_of(verdict=verdict_of(YES, NO, OPEN, YES))))).words
    answer = words[words.index("The answer") : words.index("Part")]
    assert "Good? No" in answer and "2 of 4 checks met, 1 not met, 1 undecided" in answer
    assert "check 1: 0.10 [0.00, 0.20], at least 0.5 required" in answer
    assert "check 2: 0.50 [0.40, 0.60], at least 0.5 required" in answer
    assert "check 0" not in answer and "check 3" not in answer


def test_a_card_shows_the_closest_check_or_at_most_three_failures() -> None:
    near, far = (0.7, 0.51, 0.9), (0.75, 0.7, 0.8)
    words = Reader(render_report(report_of(section_of(verdict=verdict_of(far, near))))).words
    assert "Good? Yes2 of 2 checks metclosest: check 1: 0.70" in words
    words = Reader(render_report(report_of(section_of(verdict=verdict_of(*[NO] * 5))))).words
    assert words.index("check 2") < words.index("and 2 more") < words.index("check 3")


def test_outcomes_do_not_rely_on_colour() -> None:
    parts = {"yes": YES, "no": NO, "undecided": OPEN}
    sections = [
        section_of(name=name, title=name, verdict=verdict_of(figure)) for name, figure in parts.items()
    ]
    page = render_report(report_of(*sections))
    reader = Reader(page)
    for name in parts:
        assert sum(name in (a["class"] or "").split() for a in reader.all("li", "card")) == 1
        # Contents, card, the check on it, the section's heading and its check: a sign of their own each.
        assert sum(a["href"] == f"#{name.capitalize()}" for a in reader.all("use")) == 5
        assert f"Good? {name}" in reader.words


def test_qualifiers_and_reasons_are_told_on_the_card_and_with_the_check() -> None:
    check = Check("mass", Interval(*YES), 0.5, True, reason="too few frames")
    verdict = Verdict(
        "Good?", (check,), ("coarsely: of twice the size", "late by <10> steps"), "too few episodes"
    )
    reader = Reader(render_report(report_of(section_of(verdict=verdict))))
    for words in ("Too few episodes.", "Coarsely: of twice the size.", "Late by <10> steps."):
        assert words in reader.words
    assert "at least 0.5 required; too few frames" in reader.words
    assert len(reader.all("li", "undecided")) == 2  # the card and the check


def test_empty_parts_are_reported() -> None:
    reader = Reader(render_report(report_of()))
    assert reader.open == [] and reader.all("section") == [] and reader.all("nav") == []
    assert "There is nothing in this report." in reader.words
    parts = {
        "tables": (Table("Table", ("a",), ()),),
        "charts": (Chart("Chart", "x", "y", ()), Chart("Gaps", "x", "y", (Series("s", [1.0], [NAN]),))),
        "verdict": Verdict("Good?", ()),
    }
    reader = Reader(render_report(report_of(section_of(**parts))))
    assert reader.words.count("No data.") == 2
    assert "No rows." in reader.words and "0 of 0 checks met" in reader.words
    assert reader.all("nav") == []  # of one section
    assert reader.all("div", "pictures") == [] and reader.all("ol", "checks") == []


def test_json_has_every_value_with_its_interval_limit_and_outcome() -> None:
    check = Check("mass", Interval(0.5, 0.25, NAN), 0.25, False, reason="too few frames")
    found = report_json(
        report_of(
            section_of(
                text=("One.",),
                verdict=Verdict("Good?", (check,), ("late by 10 steps",), "too few episodes"),
                tables=(
                    Table("T", ("a", "b", "c", "d"), (("x", np.int64(3), None, Interval(1, NAN, NAN)),)),
                ),
                charts=(
                    Chart(
                        "C",
                        "x, s",
                        "y, m",
                        (Series("s", [0, 1], [NAN, 2.0], [0, 1], [1, 3]),),
                        limits=(("l", 1),),
                    ),
                    Chart("B", "head", "y", (Series("s", ["0"], np.array([np.inf])),), "bars"),
                ),
                pictures=(Picture(PIXEL, "a frame"),),
            ),
            facts=(("Task", "Track"),),
            summary=("Yes.",),
        )
    )
    checks = [
        {"text": "mass", "value": 0.5, "low": 0.25, "high": None, "limit": 0.25, "at_least": False,
         "outcome": "undecided", "reason": "too few frames"}
    ]  # fmt: skip
    assert found == {
        "title": "Title",
        "facts": {"Task": "Track"},
        "summary": ["Yes."],
        "sections": {
            "part": {
                "title": "Part",
                "text": ["One."],
                "verdict": {
                    "question": "Good?", "outcome": "undecided", "qualifiers": ["late by 10 steps"],
                    "reason": "too few episodes", "checks": checks,
                },
                "tables": [
                    {
                        "title": "T",
                        "columns": ["a", "b", "c", "d"],
                        "rows": [["x", 3, None, {"value": 1, "low": None, "high": None}]],
                    }
                ],
                "charts": [
                    {
                        "title": "C", "kind": "lines", "x_label": "x, s", "y_label": "y, m",
                        "limits": {"l": 1},
                        "series": [
                            {"name": "s", "x": [0, 1], "y": [None, 2.0], "low": [0, 1], "high": [1, 3]}
                        ],
                    },
                    {
                        "title": "B", "kind": "bars", "x_label": "head", "y_label": "y", "limits": {},
                        "series": [{"name": "s", "x": ["0"], "y": [None]}],
                    },
                ],
                "pictures": ["a frame"],
            }
        },
    }  # fmt: skip
    json.dumps(found, allow_nan=False)


def test_both_files_are_written_in_one_piece_or_not_at_all(tmp_path: Path) -> None:
    report = toy_report()
    write_report(tmp_path / "out.html", report)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.json"]
    assert json.loads((tmp_path / "out.json").read_text()) == report_json(report)
    before = (tmp_path / "out.html").read_text()
    assert before == render_report(report)
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        write_report(tmp_path / "none" / "out.html", report)
    with pytest.raises(ValueError, match=r"use .*out\.html, and the JSON is written next to it"):
        write_report(tmp_path / "out.json", report)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.json"]


def decoded(page: str) -> list[np.ndarray]:
    data = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(d), np.uint8), 1)[..., ::-1] for d in data]


def test_pictures_are_lossless_up_to_a_size_limit() -> None:
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (320, 320, 3), dtype=np.uint8) for _ in range(30)
    ]  # noise does not compress
    pictures = tuple(Picture(image, f"{place}") for place, image in enumerate(images))
    page = render_report(
        report_of(section_of(pictures=pictures[:3]), section_of(name="b", pictures=pictures[3:5]))
    )
    assert all(np.array_equal(shown, image) for shown, image in zip(decoded(page), images[:5], strict=True))
    page = render_report(report_of(section_of(pictures=pictures)))
    assert len(page) < 5_000_000
    shown = decoded(page)
    assert len(shown) == 30 and shown[7].shape == (320, 320, 3)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Series("s", [1, 2], [1.0]), "vectors of one length for series 's', got {'x': .2., 'y'"),
        (lambda: Series("s", [1, 2], [1, 2], [1], [1]), "'low': .1."),
        (lambda: Series("s", [[1]], [[2]]), "expected vectors"),
        (lambda: Series("s", 1, 2), "expected vectors"),
        (lambda: Series("s", [1], [2], low=[1]), "give both, low and high"),
        (lambda: Series("s", [1], [2], [3], [1]), "swap them"),
        (lambda: Chart("c", "x", "y", (), "pie"), "'lines' or 'bars', got 'pie'"),  # type: ignore[arg-type]
        (lambda: Chart("c", "x", "y", (Series("s", ["a"], [1]),)), "finite numbers.*'s'.*draw bars"),
        (lambda: Chart("c", "x", "y", (Series("s", [NAN], [1]),)), "finite numbers"),
        (lambda: Chart("c", "x", "y", (Series("s", ["a", "a"], [1, 2]),), "bars"), "'s' with one of them tw"),
        (lambda: Chart("c", "x", "y", (), limits=(("l", NAN),)), "finite limit 'l', got nan: leave it out"),
        (lambda: Table("t", ("a", "b"), ((1,),)), "rows of 2 cells in the table 't', got one of 1"),
        (lambda: Picture(np.zeros((2, 2, 3)), "a frame"), "'a frame', got float64 .2, 2, 3."),  # type: ignore[arg-type]
        (lambda: Picture(np.zeros((2, 2), np.uint8), "a"), "uint8 .h, w, 3. .*got uint8 .2, 2."),
        (lambda: Picture(np.zeros((0, 2, 3), np.uint8), "a"), "uint8"),
        (lambda: section_of(name="No name"), "got 'No name'"),
        (lambda: report_of(section_of(), section_of()), "'part' more than once"),
    ],
)  # fmt: skip
def test_bad_input_is_rejected_in_one_sentence(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "0.50"), (0.0123, "0.012"), (-0.0001, "-1.0e-04"), (12.34, "12.3"), (9.996, "10.0"),
     (102.4, "102"), (-3.0, "-3.00"), (123456.0, "1.2e+05"), (NAN, "–"), (math.inf, "–")],
)  # fmt: skip
def test_numbers_have_about_three_digits(value: float, text: str) -> None:
    assert ch.number(value) == text


def test_an_interval_has_the_digits_of_its_largest_end() -> None:
    assert ch.interval_text(Interval(0.123, 0.0691, 0.17)) == "<b>0.12</b> <small>[0.07, 0.17]</small>"
    assert ch.interval_text(Interval(101.9, 98.76, 105)) == "<b>102</b> <small>[99, 105]</small>"
    assert ch.interval_text(Interval(0.5, -0.001, 0.9)) == "<b>0.50</b> <small>[0.00, 0.90]</small>"
    assert ch.interval_text(Interval(0.5, NAN, NAN)) == "<b>0.50</b>"
    assert ch.interval_text(Interval(NAN, NAN, NAN)) == "<b>–</b>"


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 6))
def test_ticks_are_round_and_cover_the_range(low: float, width: float, count: int) -> None:
    assume(width > 1e-9 * abs(low))  # otherwise the ends are equal up to rounding
    high = low + width
    marks = chart_axes.ticks(low, high, count)
    step = marks[1] - marks[0]
    assert marks[0] <= low + 1e-5 * step and marks[-1] >= high - 1e-5 * step
    assert 2 <= len(marks) <= count + 2
    assert float(f"{step:.1e}"[:3]) in (1.0, 2.0, 2.5, 5.0) or abs(low) > 1e5 * step


def test_ticks_computed_by_hand() -> None:
    assert chart_axes.ticks(0, 1, 4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert chart_axes.ticks(-3, 17, 4).tolist() == [-5, 0, 5, 10, 15, 20]
    assert chart_axes.ticks(2, 2, 4).tolist() == [1, 1.5, 2, 2.5, 3]
    assert chart_axes.tick_texts(np.array([0.0, 100e3, 200e3])) == ["0", "100k", "200k"]
    assert chart_axes.tick_texts(np.array([0.0, 1.5e6])) == ["0", "1.5M"]
    assert chart_axes.tick_texts(0.1 * np.arange(4)) == ["0", "0.1", "0.2", "0.3"]


def drawn(*series: Series, kind: str = "lines", **parts: Any) -> Reader:
    return Reader(chart_drawing.draw_chart(Chart("Title", "step", "reward", series, kind, **parts)))  # type: ignore[arg-type]


def test_a_line_follows_its_values_and_breaks_at_gaps() -> None:
    # From 0 to 4 with 3 % of room above: 4.12 at the top of 220 pixels.
    reader = drawn(Series("s", [0, 1, 2, 3, 4], [0, 4, NAN, 2, NAN]))
    (line,) = reader.all("path", "line")
    top = 220 * (1 - 4 / 4.12)
    assert line["d"] == f"M0.0 220.0L250.0 {top:.1f}"
    dots = [(float((a["cx"] or "").rstrip("%")), float(a["cy"] or "")) for a in reader.all("circle")]
    assert dots == [
        (0, 220),
        (25, pytest.approx(top, abs=0.06)),
        (75, pytest.approx(220 * (1 - 2 / 4.12), abs=0.06)),
    ]
    reader = drawn(Series("s", np.arange(50), np.sin(np.arange(50))))
    assert reader.all("circle") == []  # too many for dots


def test_bands_and_limits_lie_within_the_axes() -> None:
    reader = drawn(
        Series("s", [0, 10], [1.0, 1.0], [0.5, NAN], [1.5, 2.0]),
        Series("t", [0, 10], [1.0, 2.0], [0.0, 1.0], [2.0, 3.0]),
        limits=(("chance", 4.0),),
    )
    (band,) = reader.all("path", "band")  # of the second series: the first has one interval
    heights = [float(h) for h in re.findall(r" ([\d.]+)", band["d"] or "")]
    assert heights == pytest.approx([220 * (1 - y / 4.12) for y in (2, 3, 1, 0)], abs=0.06)
    (limit,) = reader.all("line", "limit")
    assert float(limit["y1"] or "") == pytest.approx(220 * (1 - 4 / 4.12), abs=0.06)
    assert reader.words.count("chance") == 2  # next to the line and, for narrow pages, below


def test_names_next_to_lines_are_a_line_of_text_apart() -> None:
    series = [Series(f"s{i}", [0, 1], [0, 1 + 0.001 * i]) for i in range(6)]
    reader = drawn(*series)
    names = [a for a in reader.all("text") if a.get("x") == "18"]
    heights = sorted(float(a["y"] or "") for a in names)
    assert len(heights) == 6 and min(np.diff(heights)) == pytest.approx(16)
    assert heights[0] > 0 and heights[-1] <= 224
    assert reader.all("ul", "short")
    # At the bottom they are moved up.
    reader = drawn(*(Series(f"s{i}", [0, 1], [1, 0]) for i in range(3)))
    assert sorted(float(a["y"] or "") for a in reader.all("text") if a.get("x") == "18") == [192, 208, 224]


@pytest.mark.parametrize("other", [
    Series("a name that is too long to stand", [0, 1], [1, 1]), Series("ends early", [0, 0.5], [1, 1]),
    Series("ends in a gap", [0, 1], [1, NAN]), Series("empty", [], []),
])  # fmt: skip
def test_names_are_below_the_chart_if_they_do_not_fit_next_to_it(other: Series) -> None:
    reader = drawn(Series("s", [0, 1], [0, 1]), other)
    assert reader.all("svg", "names") == []
    assert reader.words.count(other.name) == 1


def test_twenty_lines_have_different_styles() -> None:
    reader = drawn(*(Series(f"s{i}", [0, 1], [i, i]) for i in range(20)))
    styles = [a["class"] for a in reader.all("svg") if re.fullmatch(r"c\d d\d", a.get("class") or "")]
    assert len(styles) == len(set(styles)) == 20


def test_bars_start_at_zero_and_gaps_stay_empty() -> None:
    reader = drawn(
        Series("s", ["a", "b"], [-1.0, 3.0], [-1.5, 2.0], [-0.5, 3.0]), Series("t", ["b", "c"], [NAN, 0.5]),
        kind="bars", limits=(("half", 0.5),),
    )  # fmt: skip
    low, high = -1.5 - 0.135, 3 + 0.135  # 3 % of room at both ends
    share = lambda y: pytest.approx(100 * (y - low) / (high - low), abs=0.01)  # noqa: E731
    bars = [tuple(float((a[k] or "").rstrip("%")) for k in ("x", "width")) for a in reader.all("rect", "bar")]
    unit = 100 / (high - low)
    assert bars == [
        (share(-1), pytest.approx(unit, abs=0.01)), (share(0), pytest.approx(3 * unit, abs=0.01)),
        (share(0), pytest.approx(0.5 * unit, abs=0.01)),
    ]  # fmt: skip
    assert len(reader.all("g", "whisker")) == 2
    assert "a-1.00 [-1.50, -0.50]b3.00 [2.00, 3.00]–c0.50" in reader.words


def test_one_wide_interval_does_not_flatten_bars() -> None:
    values, low, high = [0.5, 0.6, 0.7, 0.55], [0.4, 0.5, 0.6, -30], [0.6, 0.7, 0.8, 40]
    reader = drawn(Series("s", list("abcd"), values, low, high), kind="bars")
    widths = [float((bar["width"] or "").rstrip("%")) for bar in reader.all("rect", "bar")]
    assert max(widths) > 40  # of the whole width; 1 without clipping
    arrows = reader.all("path", "cut")
    assert len(arrows) == 2  # one at either end
    assert "0.55 [-30.00, 40.00]" in reader.words or "[-30.0, 40.0]" in reader.words
    lines = [float((line["x2"] or "").rstrip("%")) for line in reader.all("line") if "x1" in line]
    assert min(lines) >= 0 and max(lines) <= 100
    # An interval of the usual width is not clipped, nor is one that is as long as the chart.
    for end in (1.0, 1.4):
        reader = drawn(Series("s", list("abcd"), values, [*low[:3], 0.2], [*high[:3], end]), kind="bars")
        assert reader.all("path", "cut") == []
    assert drawn(Series("s", ["a"], [0.5], [-30], [40]), kind="bars").all("path", "cut") == []


def test_a_band_beyond_the_axis_ends_in_an_arrow_with_its_value() -> None:
    x, y = np.arange(30), np.sin(np.arange(30) / 5)
    low, high = y - 0.1, y + 0.1
    high[10:13] = 20, 35, 20
    low[20] = -12
    reader = drawn(Series("s", x, y, low, high))
    (line,) = reader.all("path", "line")
    heights = [float(h) for h in re.findall(r" ([\d.]+)", line["d"] or "")]
    assert max(heights) - min(heights) > 110  # half of the chart's height
    (band,) = reader.all("path", "band")
    ends = [float(h) for h in re.findall(r" (-?[\d.]+)", band["d"] or "")]
    assert min(ends) == 0 and max(ends) == 220
    assert len(reader.all("path", "cut")) == 2
    assert "to 35.0" in reader.words and "to -12.0" in reader.words


def test_an_interval_is_drawn_against_the_required_side() -> None:
    reader = Reader(chart_drawing.draw_interval(Interval(0.5, 0.4, 0.7), 0.25, at_least=False))
    (required,) = reader.all("rect", "required")
    assert (required["x"], required["width"]) == ("0.00%", "25.00%")
    assert reader.all("circle")[0]["cx"] == "50.00%"
    assert [(a["x1"], a["x2"]) for a in reader.all("line")][1] == ("40.00%", "70.00%")
    assert reader.words == "0.2501"
    (required,) = Reader(chart_drawing.draw_interval(Interval(0.5, 0.4, 0.7), 0.25, at_least=True)).all(
        "rect", "required"
    )
    assert (required["x"], required["width"]) == ("25.00%", "75.00%")
    (required,) = Reader(chart_drawing.draw_interval(Interval(NAN, NAN, NAN), -2, at_least=True)).all(
        "rect", "required"
    )
    assert (required["x"], required["width"]) == ("0.00%", "100.00%")


def test_a_chart_has_a_table_with_all_x_in_order() -> None:
    chart = Chart(
        "t", "step", "y", (Series("s", [2, 0], [1.0, NAN], [0, 0], [2, 0]), Series("t", [1], [5.0]))
    )
    columns, rows = ch.figures_of(chart)
    assert columns == ("step", "s", "t")
    assert [row[0] for row in rows] == [0, 1, 2]
    assert rows[1:] == [(1, None, 5.0), (2, Interval(1.0, 0.0, 2.0), None)]
    long = Chart("t", "step", "y", (Series("s", np.arange(150), np.arange(150)),))
    reader = Reader(render_report(report_of(section_of(charts=(long,)))))
    assert len(reader.all("tr")) == 1 + 50
    assert "One row in 3; all are in the JSON." in reader.words


FIGURE = st.floats(-1e12, 1e12) | st.sampled_from([NAN, math.inf, 0.0])


@given(st.lists(st.lists(FIGURE, max_size=6), min_size=1, max_size=3), st.sampled_from(["lines", "bars"]))
def test_any_values_can_be_drawn(rows: list[list[float]], kind: str) -> None:
    series = []
    for index, row in enumerate(rows):
        figures = np.array(row)
        series.append(Series(f"s{index}", np.arange(len(row)), figures, figures, figures + 1))
    reader = drawn(*series, kind=kind)
    assert reader.open == []
    for _, attributes in reader.tags:
        assert not re.search(r"\b(nan|inf)\b", " ".join(filter(None, attributes.values())))
    if not any(math.isfinite(figure) for row in rows for figure in row):
        assert reader.words == "No data."
