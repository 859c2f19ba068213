"""Pictures, figures and differences of the report: sound for any input, and true to what they show."""

import math
import re
import tomllib
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import charts, display
from pipeline.charts import FATES, Curve
from pipeline.svg import Panel, sheet

Row = dict[str, Any]

# What is left of linear RGB without cones for long, middle or short waves (Machado et al. 2009, severity 1).
VISIONS = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def palettes() -> list[dict[str, str]]:
    """Colours of the style sheet in light and in dark."""
    css = (Path(charts.__file__).parent / "report.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))
        for block in (css[: css.index("@media")], css[css.index("@media") : css.index("* {")])
    )
    return [light, {**light, **dark}]


def linear_rgb(colour: str) -> np.ndarray:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB, white point D65."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = to_xyz @ np.clip(linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = [float(np.cbrt(t)) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted(float(weights @ linear_rgb(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_on_its_ground() -> None:
    """A contrast of 4.5, in light and dark (WCAG 2.2, 1.4.3)."""
    pairs = [
        ("ink", "ground"), ("soft", "ground"), ("soft", "faint"), ("link", "ground"), ("ink", "raised"),
        ("old-ink", "old"), ("new-ink", "new"),
    ]  # fmt: skip
    for palette in palettes():
        assert min(contrast(palette[text], palette[ground]) for text, ground in pairs) >= 4.5


def test_fates_are_told_apart_whatever_the_eye() -> None:
    """Any two fates are 20 apart in CIELAB (a difference of 2 is just seen), and stand out from the ground."""
    for palette in palettes():
        assert min(contrast(palette[fate], palette["ground"]) for fate in FATES) >= 2
        for matrix in VISIONS.values():
            seen = [lab(np.array(matrix) @ linear_rgb(palette[fate])) for fate in FATES]
            assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= 19.5


def test_pictures_that_stand_alone_have_the_colours_of_the_page() -> None:
    panel = Panel(picture=charts.funnel([("web", {"read": 1, "kept": 1})]))
    alone = sheet([panel], title="Documents", description="", width=720)
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)) for block in alone.split("@media")
    )
    for own, page in zip((light, {**light, **dark}), palettes(), strict=True):
        assert own == {name: page[name] for name in own}


COUNTS = st.fixed_dictionaries({fate: st.integers(0, 10**9) for fate in FATES}).map(
    lambda counts: {**counts, "read": sum(counts.values())}
)


@given(st.lists(st.tuples(st.text(), COUNTS), max_size=5))
def test_funnel_is_sound_xml_and_its_bars_fill_their_rows(rows: list[tuple[str, Row]]) -> None:
    svg = ElementTree.fromstring(charts.funnel(rows))
    tags = [element.tag.rpartition("}")[2] for element in svg.iter()]
    assert tags[1:3] == ["title", "desc"]
    bars = [
        e for e in svg.iter() if e.get("class") in FATES and (e.get("width") or "").endswith("%")
    ]
    total = sum(float((bar.get("width") or "").rstrip("%")) for bar in bars)
    full = sum(counts["read"] > 0 for _, counts in rows)
    # A fate of next to no documents is widened to 0.15 %, so a row may stick out by that much a fate.
    assert 100 * full - 0.1 <= total <= 100.7 * full + 0.1


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats()), max_size=30))
def test_lines_take_any_numbers(points: list[tuple[float, float]]) -> None:
    svg = charts.lines([Curve(name="loss", points=points, look="kept")], title="Loss")
    if any(abs(y) < 1e15 for _, y in points):
        assert "nan" not in svg
        assert "inf" not in svg
        ElementTree.fromstring(svg)
    else:
        assert svg == ""


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_histogram_names_every_bin_that_is_not_empty(counts: list[int]) -> None:
    svg = ElementTree.fromstring(
        charts.histogram(range(len(counts) + 1), counts, display.number, title="Sizes")
    )
    told = (svg[1].text or "").split("; ")
    assert len([part for part in told if part]) == sum(count > 0 for count in counts)


@given(st.lists(st.floats(-1e6, 1e6), max_size=3000), st.integers(10, 600))
def test_thin_keeps_order_and_extremes(values: list[float], most: int) -> None:
    points = [(float(i), value) for i, value in enumerate(values)]
    kept = charts.thin(points, most)
    assert len(kept) <= most
    assert all(a[0] < b[0] for a, b in pairwise(kept))
    if values:
        assert {min(values), max(values)} <= {y for _, y in kept}
        assert (kept[0], kept[-1]) == (points[0], points[-1])


@given(st.lists(st.floats(-100, 100), max_size=200))
def test_smooth_equals_the_mean_of_each_window(values: list[float]) -> None:
    points = [(float(i), value) for i, value in enumerate(values)]
    widest = round(0.05 * len(values) / 2)
    for i, (_, found) in enumerate(charts.smooth(points)):
        reach = min(widest, i, len(values) - 1 - i)
        window = values[i - reach : i + reach + 1]
        assert found == pytest.approx(sum(window) / len(window), abs=1e-9)


@given(st.text(), st.text())
def test_word_diff_gives_back_both_texts(old: str, new: str) -> None:
    pieces = display.word_diff(old, new, context=10**6)
    for kind, text in (("old", old), ("new", new)):
        joined = "".join(piece for found, piece in pieces if found in (kind, "same"))
        assert "".join(joined.split()) == "".join(text.split())


def test_word_diff_says_what_it_leaves_out() -> None:
    words = [f"word{i}" for i in range(2000)]
    changed = [*words[:100], "other", *words[101:]]
    pieces = display.word_diff(" ".join(words), " ".join(changed))
    assert pieces[0] == ("skip", "88 equal words")
    assert ("old", "word100 ") in pieces
    assert ("new", "other ") in pieces
    assert pieces[-1] == ("skip", "the comparison ends here")
    assert len(pieces) < 10


def test_word_diff_finds_the_place_of_a_contained_text() -> None:
    words = [f"word{i}" for i in range(3000)]
    pieces = display.word_diff(" ".join(words), " ".join(words[1000:1100]))
    assert pieces[0] == ("skip", "1,000 words before, in one text only")
    assert pieces[1] == ("skip", "88 equal words")
    assert not [kind for kind, _ in pieces if kind in ("old", "new")]


def test_word_diff_of_a_cut_text_does_not_report_its_end() -> None:
    assert not [
        kind
        for kind, _ in display.word_diff("a b c d e", "a b c", cut=True)
        if kind in ("old", "new")
    ]


@given(st.text(st.characters(exclude_categories=())))
def test_visible_text_can_be_printed_anywhere(text: str) -> None:
    shown = display.visible(text)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown
    )
    assert display.visible(shown) == shown
    ElementTree.fromstring(charts.funnel([(text, {"read": 1, "kept": 1})]))


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (display.number, 1204, "1,204"), (display.number, -0.25, "\u22120.25"), (display.number, math.nan, "\u2013"),
        (display.short, 9999, "9,999"), (display.short, 12345, "12.3k"), (display.short, 999_999, "1.00M"),
        (display.size, 999, "999 B"), (display.size, 4830000, "4.83 MB"), (display.size, None, "\u2013"),
        (display.binary_size, 4096, "4 KiB"), (display.fixed, 1.7, "1.70"), (display.fixed, None, "\u2013"),
        (display.duration, 8.25, "8.2 s"), (display.duration, 252, "4 min 12 s"), (display.duration, 11100, "3 h 05 min"),
        (display.words, "few_words", "few words"),
    ],
)  # fmt: skip
def test_figures_are_written_for_reading(function: Any, value: Any, expected: str) -> None:
    assert function(value) == expected


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_percent_says_nothing_and_all_only_when_true(part: int, whole: int) -> None:
    part = min(part, whole)
    shown = display.percent(part, whole)
    assert (shown == "0\u00a0%") == (part == 0)
    assert (shown == "100\u00a0%") == (part == whole)


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (-1, 20_000, ">\u22120.1 %"),
        (-3, 200, "\u22121.5 %"),
        (-1_999, 2_000, "<\u221299.9 %"),
        (-0.0, 5, "0 %"),
        (-5, 5, "\u2212100 %"),
        (1, 20_000, "<0.1 %"),
        (1_999, 2_000, ">99.9 %"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_all(part: float, whole: int, expected: str) -> None:
    """Of losses too, and with one minus sign: there is no -0.0 %."""
    assert display.percent(part, whole) == expected.replace(" ", "\u00a0")


def test_recipe_text_is_toml() -> None:
    recipe = {
        "name": "corpus", "sources": [{"path": 'a "b"\\c', "domain": "web"}, {"path": "d"}],
        "dedup": {"threshold": 0.7, "enabled": True, "weights": {"web": 1.0}, "languages": ["en", "de"]},
    }  # fmt: skip
    assert tomllib.loads(display.toml_text(recipe)) == recipe


NUMBERS = st.floats() | st.integers(0, 10)


@given(st.lists(st.tuples(st.text(), NUMBERS, st.none() | NUMBERS, NUMBERS), max_size=5))
def test_changes_take_any_numbers(rows: list[tuple[str, float, float | None, float]]) -> None:
    told = [
        charts.Change(label=label, new=new, old=old, baseline=baseline, figures=label)
        for label, new, old, baseline in rows
    ]
    picture = charts.changes(told, "Changes")
    panels = [Panel(picture=picture, title="t", figure="f", left=100, right=40)]
    legend = [("ring", "former"), ("mark", "unigram"), ("dot kept", "better")]
    drawn = sheet(panels, title="Changes", description="", width=690, legend=legend)
    assert bool(drawn) == bool(picture)
    if drawn:
        root = ElementTree.fromstring(drawn)
        values = [v for e in root.iter() for v in e.attrib.values()]
        assert not any("nan" in value or "inf" in value for value in values)


@given(st.lists(st.tuples(st.text(), st.floats(0, 2)), max_size=5))
def test_tracks_are_filled_as_far_as_they_are_done(rows: list[tuple[str, float]]) -> None:
    told = [charts.Track(label=label, figures=label, share=s, look="kept") for label, s in rows]
    root = ElementTree.fromstring(charts.tracks(told, "Stages"))
    bars = [e for e in root.iter() if e.get("class") == "kept"]
    widths = [float((bar.get("width") or "").rstrip("%")) for bar in bars]
    shares = [100 * min(max(share, 0.012), 1) for _, share in rows if share > 0]
    assert widths == pytest.approx(shares, abs=0.01)
