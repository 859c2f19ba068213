"""The report: one page that is complete, self-contained, and shows foreign text without obeying it."""

import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import display
from pipeline.report import render_report
from pipeline.skipped import Skipped, to_json

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

RECALL = {
    "threshold": 0.7, "bands": 25, "rows": 5, "left_out": 0, "precision": 1.0,
    "planted": [
        {"from": 0.7, "to": 0.75, "jaccard": 0.72, "planted": 12, "found": 9, "expected": 0.9943},
        {"from": 0.95, "to": 1.0, "jaccard": 0.98, "planted": 40, "found": 40, "expected": 1.0},
    ],
    "contained": {"planted": 8, "found": 7, "expected": 0.87},
    "below_threshold": {"planted": 30, "found": 0, "wrongly_found": 0},
    "sure": {"planted": 40, "found": 40},
    "random_pairs": {
        "pairs": 200, "of_similar_length": 100, "missed": 0, "highest": 0.1, "missed_share_at_most": 0.014978,
    },
}  # fmt: skip

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
            "near_duplicates": {
                "edges": 3, "jaccard_twentieths": [0] * 17 + [1, 0, 2],
                "templates": {text: 1200, "b": 3, "c": 4, "d": 5}, "kept_apart": 1,
            },
            "recall": RECALL,
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
            {"step": step, **figures, "domains": dict.fromkeys(names, figures)} for step in (0, 2)
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
    assert "Found again: 49 of 52 planted near-duplicates and 7 of 8 pieces of a text; " in text
    assert "d 5, c 4 and 1 more; 1 pair was alike by them alone and kept apart." in text
    assert "0.7 to 0.75: 9 of 12 found" in text
    assert "0.70 to 0.75" + "12" + "9" + "99.4 %" in text  # cells of a row


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


def test_what_was_skipped_is_shown() -> None:
    """In words, and by source and reason with an example; nothing where nothing was."""
    arguments = make_arguments()
    assert "Skipped, by source" not in render_report(**arguments)
    skipped = [Skipped("site", "redirect", 30, (("a.warc#17", "got status 301"),), 90)]
    arguments["manifest"]["summary"]["skipped"] = to_json(skipped)
    page = render_report(**arguments)
    assert "30 records skipped, being no documents: 30 redirect" in page
    assert "<bdi>a.warc#17</bdi>: got status 301" in page


def test_a_snapshot_without_planted_duplicates_says_nothing_of_them() -> None:
    arguments = make_arguments()
    for recall in ({}, {**RECALL, "planted": []}):
        arguments["manifest"]["summary"]["recall"] = recall
        assert "Found again" not in render_report(**arguments)


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
    assert "39 others" in page.text
    assert page.tags.count("svg") < 300
    assert len(html) < 500_000


@pytest.mark.parametrize("domains", [1, 2, 9, 12, 13, 49, 300])
def test_the_largest_and_those_that_lost_most_are_named(domains: int) -> None:
    """Of more domains than a picture has room for, the small and sound ones are counted together, and that is said."""
    arguments = make_arguments(domains=domains)
    manifest = arguments["manifest"]
    names = sorted(manifest["funnel"])
    big, lossy = names[-1], names[domains // 2]
    corpus, funnel = manifest["summary"]["domains"], manifest["funnel"]
    corpus[big] = corpus[big] | {"num_bytes": 25_000_000}
    funnel[lossy] = funnel[lossy] | {"read": 1010, "dropped": 1002}
    html = render_report(**arguments)
    picture = html[html.index('class="flows"') : html.index("Shares by domain")]
    named = {name for name in names if f">{name}<" in picture}
    assert {big, lossy} <= named
    if domains <= 12:
        assert len(named) == domains
        assert "shown by name" not in picture
    else:
        assert len(named) == 11
        assert f">{domains - 11} others<" in picture
        assert f"11 of {domains} domains shown by name" in picture
        assert f"12 of {domains} domains shown, the largest." in html


def test_lists_that_are_cut_say_so() -> None:
    """Pairs and samples are a choice, and the reader learns of how many."""
    arguments = make_arguments(domains=2)
    text = Page(render_report(**arguments)).text
    removed = sum(row["documents"] for row in arguments["manifest"]["summary"]["rules"] if row["stage"] == "near_duplicates")  # fmt: skip
    pairs = len(arguments["duplicates"])
    assert pairs < removed
    assert f"{pairs} of {removed} removed near-duplicates shown" in text


def test_report_is_a_function_of_its_arguments() -> None:
    assert render_report(**make_arguments(domains=3)) == render_report(**make_arguments(domains=3))
