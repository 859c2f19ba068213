"""The data card is sound markdown whatever stands in the texts, and says what the manifest says."""

import html
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.card import snapshot_card
from storage.schema import FATES_IN_ORDER


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


def test_failed_gate_stands_out() -> None:
    """A quarantined snapshot shows which gate refused it."""
    gate = {"name": "removed share", "value": 1, "limit": 0.9, "passed": False, "detail": "web"}
    assert "| **failed** |" in snapshot_card(manifest(status="quarantined", gates=[gate]), None, [])


@given(st.text(max_size=80), st.text(max_size=40))
def test_foreign_text_stays_text(text: str, uri: str) -> None:
    """Whatever a document holds, its cell is one cell, its code is code, and reading it gives the text back."""
    plain = snapshot_card(manifest(), None, [reject("x", "y")])
    card = snapshot_card(manifest(), None, [reject(text, uri)])
    assert card.count("\n") == plain.count("\n")
    row = next(line for line in card.splitlines() if line.startswith("| few"))
    assert row.count("|") == 4
    cell = row.split("|")[3].strip()
    inner = re.sub("</?code>|<br>", "", cell)
    assert not re.search(r"[<>`*_\[\]\\]", inner)


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
    assert html.unescape(shown[1]) == text
