"""The data card is sound markdown whatever stands in the texts, and says what the manifest says."""

import html
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.card import snapshot_card
from pipeline.skipped import Skipped, to_json
from storage.schema import FATES_IN_ORDER

from .rendered import seen

FOREIGN = st.text(min_size=1, max_size=60).filter(lambda text: text.strip())


def manifest(version: int = 1, **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(FATES_IN_ORDER, 0) | {"read": 10, "kept": 7, "dropped": 3}
    return {
        "name": "tiny",
        "version": version,
        "hash": f"{version:064x}",
        "status": "promoted",
        "code_version": "1.0",
        "commit": {"created_at": "2026-11-22T10:00:00+00:00"},
        "funnel": {"web": counts},
        "gates": [
            {"name": "documents kept", "value": 7, "limit": 1, "passed": True, "detail": "at least"}
        ],
        "inputs": [{"version": version, "num_bytes": 1000}],
        "summary": {
            "rules": [{"stage": "quality", "rule": "few_words", "domain": "web", "documents": 3}],
            "domains": {"web": {"documents": 7 * version, "num_bytes": 500, "tokens": 100}},
        },
    } | changes


def reject(text: str, uri: str = "a.txt") -> dict[str, Any]:
    return {"stage": "quality", "rule": "few_words", "text": text, "uri": uri}


def test_card_says_what_the_manifest_says() -> None:
    """Status, figures, the gate, the rule with a sample, and the parent that it grew from."""
    card = snapshot_card(manifest(2), manifest(1), [reject("too short")])
    assert card.startswith("# tiny@2: promoted\n")
    assert "**7** of 10 documents kept" in card
    assert "| 14\u00a0(+7) |" in card
    assert "| passed | documents kept | 7 | 1 | at least |" in card
    assert "<code>too short</code>" in card
    assert "(data:image/svg+xml;base64," in card
    assert 'parent["tiny@1 00000000"] --> this' in card


def test_card_tells_what_was_skipped() -> None:
    """How much is no document, and from which source, why and where, whatever stands in the names."""
    skipped = [
        Skipped("si|te", "unsupported_type", 1200, (("a.warc#<b>1", "got image/png"),), 1300)
    ]
    summary = manifest()["summary"] | {"skipped": to_json(skipped)}
    card = snapshot_card(manifest(summary=summary), None, [])
    assert "1,200 records skipped, being no documents: 1,200 unsupported type" in seen(card)[1]
    assert "a.warc#<b>1: got image/png" in seen(card)[1]
    assert "skipped" not in seen(snapshot_card(manifest(), None, []))[1]


def test_card_tells_of_planted_duplicates() -> None:
    """One line: how many were found again, and what was found wrongly."""
    recall = {
        "planted": [{"planted": 12, "found": 11}, {"planted": 40, "found": 40}],
        "contained": {"planted": 0, "found": 0},
        "below_threshold": {"planted": 30, "found": 1, "wrongly_found": 0},
        "random_pairs": {"pairs": 200, "missed": 2},
    }
    made = manifest()
    made["summary"]["recall"] = recall
    _, shown = seen(snapshot_card(made, None, []))
    assert (
        "Found again: 51 of 52 planted near-duplicates; taken for one though less alike: none of 30; "
        "duplicates among 200 random pairs of what was kept: 2."
    ) in shown
    made["summary"]["recall"] = {}
    assert "Found again" not in snapshot_card(made, None, [])


def test_card_tells_of_templates() -> None:
    """One line where the guard against them is on, whatever a source is called."""
    made = manifest()
    assert "Templates of sites" not in snapshot_card(made, None, [])
    told = {"templates": {"<b>crawl</b>": 1200}, "kept_apart": 31}
    made["summary"]["near_duplicates"] = told
    _, shown = seen(snapshot_card(made, None, []))
    assert (
        "Templates of sites, in shingles: <b>crawl</b> 1,200; 31 pairs were alike by them alone and kept apart."
    ) in shown
    made["summary"]["near_duplicates"] = told | {"templates": {}}
    assert "Templates of sites: none found." in seen(snapshot_card(made, None, []))[1]


def test_first_snapshot_says_nothing_of_growth() -> None:
    """All of it is new."""
    assert "(+" not in snapshot_card(manifest(1), None, [])


@pytest.mark.parametrize(
    "text", ["http://a.example/b", "HTTPS://a.example", "www.a.example", "somebody@mail.example"]
)
def test_address_is_no_link(text: str) -> None:
    """GitHub's markdown makes links of addresses in text; here they are broken, and references of ours are whole."""
    _, shown = seen(snapshot_card(manifest(2), manifest(1), [reject(f"see {text} for tiny@2")]))
    assert text not in shown
    assert f"see {text} for tiny@2" in shown.replace("\u200b", "")
    assert "tiny@2" in shown


def test_failed_gate_stands_out() -> None:
    """A quarantined snapshot shows which gate refused it."""
    gate = {"name": "removed share", "value": 1, "limit": 0.9, "passed": False, "detail": "web"}
    assert "| **failed** |" in snapshot_card(manifest(status="quarantined", gates=[gate]), None, [])


@given(FOREIGN, FOREIGN)
def test_foreign_text_stays_text(text: str, name: str) -> None:
    """Whatever documents, files, licences, rules and changes are called, the page has the same tags."""

    def card(text: str, name: str) -> str:
        domains = {"web": {"documents": 7, "num_bytes": 5, "tokens": 1, "licenses": {name: 3}}}
        rules = [{"stage": "quality", "rule": name, "domain": "web", "documents": 3}]
        made = manifest(
            summary={"rules": rules, "domains": domains}, recipe={"sources": [{"path": text}]}
        )
        removed = {"stage": "quality", "rule": name, "text": text, "uri": name}
        return snapshot_card(made, manifest(), [removed], recipe_changes=[text])

    assert seen(card(text, name))[0] == seen(card("x", "y"))[0]


def test_size_is_bounded() -> None:
    """Thousands of domains, rules and changes with texts that grow sixfold by escaping stay under 200 kB."""
    names = [f"{i}<|`" for i in range(3000)]
    domains = {
        name: {"documents": 1, "num_bytes": 9, "tokens": 1, "licenses": {name * 40: 1}}
        for name in names
    }
    rules = [{"stage": "quality", "rule": name, "domain": "web", "documents": 1} for name in names]
    funnel = {name: {"read": 2, "kept": 1, "dropped": 1} for name in names}
    huge = manifest(
        2,
        funnel=funnel,
        summary={"domains": domains, "rules": rules},
        recipe={"sources": [{"path": "`" * 900}] * 999},
    )
    rejects = [
        {"stage": "quality", "rule": name, "text": "<" * 5000, "uri": "|" * 5000} for name in names
    ]
    card = snapshot_card(huge, huge, rejects, recipe_changes=["<" * 999] * 999)
    assert len(card.encode()) < 200_000
    assert "and 2960 more domains" in card


def test_a_refused_snapshot_says_why_and_what_to_do() -> None:
    gate = {
        "name": "removed share",
        "value": 0.97,
        "limit": 0.95,
        "passed": False,
        "detail": "highest in web",
    }
    _, text = seen(snapshot_card(manifest(status="quarantined", gates=[gate]), None, []))
    assert "Refused by 1 gate: removed share 0.97, limit 0.95 (highest in web)" in text
    assert "set gates.max_removed=0.98 in the recipe" in text


def test_change_against_the_parent_stands_below_the_figures() -> None:
    _, text = seen(snapshot_card(manifest(3), manifest(1), []))
    assert "21 500 B 100 5.00 1 +14 +0 B +0" in text


def test_markup_is_shown_as_it_was_written() -> None:
    """Entities are made once: the browser shows the original characters."""
    text = "a #b | `c` <script>alert('x')</script> [l](javascript:x) & &#35; \\"
    row = next(
        line
        for line in snapshot_card(manifest(), None, [reject(text)]).splitlines()
        if line.startswith("| few")
    )
    shown = re.search(r"<code>(.*?)</code>", row)
    assert shown is not None
    # But for places where a long run may break.
    assert html.unescape(shown[1]).replace("\u200b", "") == text
