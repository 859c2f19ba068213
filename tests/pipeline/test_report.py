"""The report: one page that is complete, self-contained, and shows foreign text without obeying it."""

import math
import re
import tomllib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import charts, display
from pipeline.charts import FATES, Curve
from pipeline.report import render_report

Row = dict[str, Any]

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style></title><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\x00\x1b[31mred\x7f\x9b",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "javascript:alert(1)",
    "a" * 1500,
    "\U000e0041\ud800",
)

VOID = {"meta", "link", "br", "img", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed in order; keeps tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def make_arguments(text: str = "plain words", domains: int = 1) -> Row:
    """All arguments of `render_report`, every section filled, `text` wherever text from outside can stand."""
    names = [text] if domains == 1 else [f"domain {i:02}" for i in range(domains)]
    counts = {"read": 10, "kept": 5, "duplicate": 2, "dropped": 2, "quarantined": 1, "forgotten": 0}
    removed = [("read", text, 1), ("near_duplicates", "contained", 2), ("quality", "few_words", 2)]
    corpus = {
        "documents": 5, "validation_documents": 1, "num_bytes": 4000, "tokens": 1000,
        "languages": {text: 5}, "licenses": {text: 5},
        "length_log2": [0, 0, 2, 3], "toxicity_tenths": [4, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    }  # fmt: skip
    mix = {"tokens": 900, "weight": 1.0, "share": 1 / domains, "epochs": 1.0}
    manifest = {
        "name": "corpus", "version": 2, "status": "quarantined", "parent": "ab" * 32, "hash": "cd" * 32,
        "build_id": "ef" * 8, "recipe_fingerprint": "01" * 16, "code_version": text,
        "recipe": {"name": "corpus", "sources": [{"name": text, "path": text, "domain": text, "license": text}]},
        "inputs": [{"source": text, "uri": text, "num_bytes": 9, "fingerprint": "23" * 16, "version": 1}],
        "shards": [{"kind": "documents", "split": "", "rows": 5, "num_bytes": 99}],
        "tokenizer": {"path": "tokenizer.model", "checksum": "45" * 32, "vocab_size": 64},
        "funnel": dict.fromkeys(names, counts),
        "gates": [{"name": text, "value": 0.5, "limit": 0.2, "passed": False, "detail": text}],
        "commit": {"created_at": "2026-11-22T12:30:00+01:00", "seconds": 61.0},
        "summary": {
            "documents": 5 * domains, "text_bytes": 4000 * domains,
            "tokens": {"train": 900 * domains, "validation": 100 * domains},
            "domains": dict.fromkeys(names, corpus),
            "rules": [
                {"stage": stage, "rule": rule, "domain": name, "documents": documents}
                for name in names for stage, rule, documents in removed
            ],
            "normalize": {text: 3}, "pii": {text: 4},
            "near_duplicates": {"edges": 3, "jaccard_twentieths": [0] * 17 + [1, 0, 2]},
            "tokenizer": {"vocab_size": 64, "note": text, "bytes_per_token": dict.fromkeys(names, 4.0)},
            "mix": dict.fromkeys(names, mix),
        },
    }  # fmt: skip
    reject = {
        "uri": text, "domain": text, "fate": "quarantined", "stage": "read", "rule": text, "value": 0.5,
        "threshold": 0.2, "duplicate_of": text, "similarity": 0.75, "detail": text, "text": text + ".",
    }  # fmt: skip
    pair = {
        "uri_a": text, "text_a": text + ".", "uri_b": text, "text_b": text + ".", "similarity": 0.9, "rule": text,
    }  # fmt: skip
    figures = {
        "loss": 3.0,
        "bits_per_byte": 2.0,
        "unigram_bits_per_byte": 4.0,
        "tokens": 9,
        "bytes": 36,
    }
    run = {
        "name": text, "snapshot": "corpus@2", "config": {"preset": text, "lr": 0.001},
        "metrics": [{"step": i, "loss": 5 - i, "lr": 0.1, "tokens": 8 * i, "tokens_per_s": 9.5} for i in range(3)],
        "evaluations": [
            {"step": step, "bits_per_byte": 2.0, "domains": dict.fromkeys(names, figures)} for step in (0, 2)
        ],
        "samples": [{"step": 2, "prompt": text, "text": text + text}],
    }  # fmt: skip
    return {
        "manifest": manifest, "rejects": [reject], "duplicates": [pair], "run": run,
        "samples": [{"domain": text, "uri": text, "text": text + "."}],
    }  # fmt: skip


def test_page_shows_all_sections_and_the_exact_sum() -> None:
    page = Page(render_report(**make_arguments()))
    sections = [
        "funnel",
        "rules",
        "duplicates",
        "domains",
        "edits",
        "tokens",
        "training",
        "kept",
        "gates",
        "lineage",
    ]
    assert [id_ for id_ in page.values("id") if id_ in sections] == sections
    assert {f"#{id_}" for id_ in sections} < set(page.values("href"))
    text = " ".join(page.text.split())
    assert "10 read = 5 kept + 2 duplicate + 2 dropped + 1 quarantined + 0 forgotten." in text
    assert "2.00 bits per byte; token frequencies alone give 4.00" in text
    assert "2026-11-22 11:30 UTC" in text
    assert "measured 0.5, limit 0.2" in text


def test_page_is_self_contained_and_runs_nothing() -> None:
    html = render_report(**make_arguments())
    page = Page(html)
    assert "script" not in page.tags
    assert not {"iframe", "object", "form", "base", "audio", "video"} & set(page.tags)
    assert all(value.startswith(("#", "data:,")) for value in page.values("href"))
    assert page.values("src") == []
    assert "default-src 'none'" in " ".join(page.values("content"))
    assert not re.search(r"https?:|@import|url\(", html)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_changes_no_tag(text: str) -> None:
    html = render_report(**make_arguments(text))
    page = Page(html)
    assert page.tags == Page(render_report(**make_arguments())).tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert display.visible(text)[:40] in page.text
    assert display.visible(html.replace("\r\n", "\n")) == html
    html.encode()


@settings(max_examples=25, deadline=None)
@given(
    st.text(min_size=1, max_size=30).filter(
        lambda text: text.strip() == text and len(text.split()) == 1
    )
)
def test_any_text_changes_no_tag(text: str) -> None:
    plain, page = (
        Page(render_report(**make_arguments("word"))),
        Page(render_report(**make_arguments(text))),
    )
    assert page.tags == plain.tags


def test_empty_snapshot_without_a_run() -> None:
    arguments = make_arguments()
    empty = {
        **arguments["manifest"],
        "funnel": {},
        "summary": {},
        "inputs": [],
        "shards": [],
        "gates": [],
    }
    html = render_report(
        manifest={**empty, "commit": {}, "tokenizer": None, "recipe": {}, "parent": ""},
        rejects=[], samples=[], duplicates=[], run=None,
    )  # fmt: skip
    page = Page(html)
    assert "This snapshot read no documents." in page.text
    assert "training" not in page.values("id")
    assert "none: the first snapshot" in page.text


def test_domains_that_kept_nothing_and_run_without_evaluation() -> None:
    arguments = make_arguments()
    counts = {"read": 3, "kept": 0, "duplicate": 0, "dropped": 0, "quarantined": 0, "forgotten": 3}
    arguments["manifest"] |= {"funnel": {"web": counts}, "summary": {}}
    arguments["run"] |= {
        "evaluations": [],
        "samples": [],
        "metrics": [{"step": 1, "loss": math.nan}],
    }
    page = Page(render_report(**arguments))
    assert "0 of 3 kept" in page.text
    assert "3 were forgotten on request" in page.text


def test_fifty_domains_stay_readable() -> None:
    html = render_report(**make_arguments(domains=50))
    page = Page(html)
    assert all(f"domain {i:02}" in page.text for i in range(50))
    assert "other domains" in page.text
    assert page.tags.count("svg") < 300
    assert len(html) < 500_000


def test_report_is_a_function_of_its_arguments() -> None:
    assert render_report(**make_arguments(domains=3)) == render_report(**make_arguments(domains=3))


def test_colours_have_enough_contrast() -> None:
    """Text on its ground has a ratio of 4.5, fates on theirs one of 2, in light and dark (WCAG 2.2, 1.4.3)."""
    css = (Path(charts.__file__).parent / "report.css").read_text()
    light, dark = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))
        for block in (css[: css.index("@media")], css[css.index("@media") : css.index("* {")])
    ]
    for colours in (light, {**light, **dark}):
        for text, ground in (("ink", "ground"), ("soft", "ground"), ("soft", "faint"), ("link", "ground"),
                             ("ink", "raised"), ("old-ink", "old"), ("new-ink", "new")):  # fmt: skip
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert all(contrast(colours[fate], colours["ground"]) >= 2 for fate in FATES)


def contrast(one: str, other: str) -> float:
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


COUNTS = st.fixed_dictionaries({fate: st.integers(0, 10**9) for fate in FATES}).map(
    lambda counts: {**counts, "read": sum(counts.values())}
)


@given(st.lists(st.tuples(st.text(), COUNTS), max_size=5), st.sampled_from([None, 720]))
def test_funnel_is_sound_xml_and_its_bars_fill_their_rows(
    rows: list[tuple[str, Row]], width: int | None
) -> None:
    svg = ElementTree.fromstring(charts.funnel(rows, width=width))
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
    assert len(kept) <= max(most, 2)
    assert all(a[0] < b[0] for a, b in pairwise(kept))
    if values:
        assert {min(values), max(values)} <= {y for _, y in kept}


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
    assert pieces[-1] == ("cut", "the comparison ends here")
    assert len(pieces) < 10


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
        (display.moment, 0, "1970-01-01 00:00 UTC"), (display.moment, "soon", "soon"), (display.words, "few_words", "few words"),
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


def test_recipe_text_is_toml() -> None:
    recipe = {
        "name": "corpus", "sources": [{"path": 'a "b"\\c', "domain": "web"}, {"path": "d"}],
        "dedup": {"threshold": 0.7, "enabled": True, "weights": {"web": 1.0}, "languages": ["en", "de"]},
    }  # fmt: skip
    assert tomllib.loads(display.toml_text(recipe)) == recipe
