"""The data card of a snapshot: one Markdown page (GitHub's tables, one picture) for places that show Markdown.

Flows publish it as an artifact. Names and rules come from recipes and data, so each is escaped for HTML and Markdown.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.charts import FATES, funnel
from pipeline.display import (
    clip,
    fixed,
    moment,
    number,
    percent,
    plural,
    short,
    size,
    visible,
    words,
)

MAX_ROWS = 20
"""Domains and rules that a card lists; the rest counts as one line."""

_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~!:]")


def data_card(manifest: dict[str, Any]) -> str:
    """Return a manifest (as a dict) as Markdown: fates by domain as picture and table, rules, gates, lineage."""
    summary = manifest.get("summary") or {}
    rows = _largest(manifest.get("funnel") or {})
    totals = Counter(
        {fate: sum(counts.get(fate, 0) for _, counts in rows) for fate in ("read", *FATES)}
    )
    commit = manifest.get("commit") or {}
    tokens = summary.get("tokens") or {}
    facts = [
        f"**{_text(manifest.get('status', ''))}**",
        f"{plural(totals['read'], 'document')} read, {number(totals['kept'])} kept ({percent(totals['kept'], totals['read'])})",
        f"{size(summary.get('text_bytes'))} and {short((tokens.get('train') or 0) + (tokens.get('validation') or 0))} tokens in the corpus",
        _text(moment(commit["created_at"])) if commit.get("created_at") else "",
    ]
    parts = [
        f"# {_text(manifest.get('name', ''))}@{_text(manifest.get('version', ''))}",
        " \u00b7 ".join(fact for fact in facts if fact),
    ]
    if totals["read"]:
        picture = base64.b64encode(funnel(rows, width=720).encode()).decode()
        parts.append(f"![What became of the documents](data:image/svg+xml;base64,{picture})")
    parts += [
        _domains(rows, summary),
        _rules(summary, totals["read"]),
        _gates(manifest),
        _lineage(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _largest(funnel_by_domain: dict[str, dict[str, int]]) -> list[tuple[str, Counter[str]]]:
    """Domains by documents read, those beyond `MAX_ROWS` together."""
    ordered = sorted(funnel_by_domain.items(), key=lambda item: (-item[1].get("read", 0), item[0]))
    rows = [(name, Counter(counts)) for name, counts in ordered[:MAX_ROWS]]
    rest: Counter[str] = Counter()
    for _, counts in ordered[MAX_ROWS:]:
        rest.update(counts)
    return [*rows, ("other domains", rest)] if rest else rows


def _domains(rows: Sequence[tuple[str, Counter[str]]], summary: dict[str, Any]) -> str:
    per_token = (summary.get("tokenizer") or {}).get("bytes_per_token") or {}
    corpus = summary.get("domains") or {}
    cells = [
        [_text(name), *(number(counts[fate]) for fate in ("read", *FATES)),
         size(corpus.get(name, {}).get("num_bytes")), fixed(per_token.get(name))]
        for name, counts in rows
    ]  # fmt: skip
    return _table(
        "Domains", ["domain", "read", *FATES, "text in the corpus", "bytes a token"], cells
    )


def _rules(summary: dict[str, Any], read: int) -> str:
    found: Counter[tuple[str, str]] = Counter()
    for row in summary.get("rules") or []:
        found[row["stage"], row["rule"]] += row["documents"]
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    cells = [
        [_text(words(stage)), _text(words(rule)), number(count), percent(count, read)]
        for (stage, rule), count in ordered[:MAX_ROWS]
    ]
    if len(ordered) > MAX_ROWS:
        rest = sum(count for _, count in ordered[MAX_ROWS:])
        cells.append(["", f"{len(ordered) - MAX_ROWS} more", number(rest), percent(rest, read)])
    return _table(
        "What was taken out", ["stage", "rule", "documents", "of those read"], cells, words_first=2
    )


def _gates(manifest: dict[str, Any]) -> str:
    cells = [
        [_text(gate["name"]), "passed" if gate["passed"] else "**failed**", _text(gate.get("detail") or ""),
         number(gate["value"]), number(gate["limit"])]
        for gate in manifest.get("gates") or []
    ]  # fmt: skip
    return _table("Gates", ["gate", "verdict", "of", "measured", "limit"], cells, words_first=3)


def _lineage(manifest: dict[str, Any]) -> str:
    facts = {
        "hash": manifest.get("hash"),
        "parent": manifest.get("parent"),
        "inputs": plural(len(manifest.get("inputs") or []), "file"),
        "recipe": manifest.get("recipe_fingerprint"),
        "code": manifest.get("code_version"),
    }
    return "## Lineage\n\n" + "\n".join(
        f"- {name}: {_text(value)}" for name, value in facts.items() if value
    )


def _table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words_first: int = 1
) -> str:
    """A table whose first columns are words, to the left, and the others numbers, to the right."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    marks = [":---"] * words_first + ["---:"] * (len(head) - words_first)
    return "\n".join(
        [f"## {title}", "", f"| {' | '.join(head)} |", f"| {' | '.join(marks)} |", *lines]
    )


def _text(value: Any) -> str:
    """One line of bounded length in which nothing is HTML, Markdown or a link: special characters as entities."""
    line = " ".join(visible(clip(str(value), 120)).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", line)
