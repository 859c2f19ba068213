"""The data card of a snapshot: one markdown page for Prefect's UI, picture included.

Pure functions of plain dictionaries. Texts in it come from anywhere, so they are shown as code, never as markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.markdown import code, join, mermaid, picture, plain, table
from flows.tables import totals
from pipeline import charts
from pipeline.display import DASH, moment, number, percent, short, size
from storage.schema import FATES_IN_ORDER

MAX_RULES = 12
"""Rules in the card; the report has all."""
SAMPLE_CHARACTERS = 160
"""Length of a removed text shown beside its rule."""
PICTURE_WIDTH = 720
"""Pixels; the width of Prefect's artifact page."""

Row = Mapping[str, Any]


def snapshot_card(
    manifest: Row,
    parent: Row | None,
    rejects: Sequence[Row],
    *,
    lineage: str = "",
    recipe_changes: Sequence[str] = (),
) -> str:
    """Markdown that tells what a snapshot is: funnel, domains, gates, rules with samples, change against its parent.

    `manifest` and `parent` are `Manifest.to_dict()`, `rejects` rows of the snapshot's rejects shards; `lineage` is the
    graph of `flows/lineage.py` (without it: this snapshot and its parent), `recipe_changes` lines such as
    "dedup.threshold 0.7 -> 0.8".
    """
    ref = f"{manifest['name']}@{manifest['version']}"
    all_counts = totals(manifest["funnel"])
    parts = [
        f"# {plain(ref)}: {manifest['status']}",
        f"**{number(all_counts['kept'])}** of {number(all_counts['read'])} documents kept "
        f"({percent(all_counts['kept'], all_counts['read'])}), made "
        f"{moment(manifest['commit'].get('created_at'))} by gristmill {plain(manifest['code_version'])}. "
        f"Hash `{manifest['hash']}`.",
        _picture(manifest["funnel"]),
        "## Domains",
        _domains(manifest, parent),
        "## Gates",
        _gates(manifest["gates"]),
        "## What was removed, and why",
        _rules(manifest["summary"].get("rules", []), rejects),
        "## What changed in the recipe" if recipe_changes else "",
        "\n".join(f"- {plain(change)}" for change in recipe_changes),
        "## Lineage",
        lineage or _lineage(manifest, parent),
    ]
    return join(parts)


def _picture(funnel: Mapping[str, Mapping[str, int]]) -> str:
    rows = [(domain, counts) for domain, counts in sorted(funnel.items()) if counts.get("read")]
    return picture(charts.funnel(rows, width=PICTURE_WIDTH), "funnel") if rows else ""


def _domains(manifest: Row, parent: Row | None) -> str:
    summary, before = manifest["summary"], (parent or {}).get("summary", {})
    lines = []
    for domain in sorted({*manifest["funnel"], *summary.get("domains", {})}):
        counts = manifest["funnel"].get(domain, {})
        corpus = summary.get("domains", {}).get(domain, {})
        old = before.get("domains", {}).get(domain, {})
        added = corpus.get("documents", 0) - old.get("documents", 0)
        fates = [number(counts.get(fate, 0)) for fate in ("read", *FATES_IN_ORDER[:-1])]
        share = summary.get("mix", {}).get(domain, {}).get("share")
        lines.append(
            [
                plain(domain),
                *fates,
                f"{number(corpus.get('documents', 0))} (+{number(added)})",
                size(corpus.get("num_bytes", 0)),
                short(corpus.get("tokens", 0)),
                DASH if share is None else percent(share, 1),
            ]
        )
    heads = ["domain", "read", *FATES_IN_ORDER[:-1], "in corpus", "text", "tokens", "mix"]
    return table(heads, lines)


def _gates(gates: Sequence[Row]) -> str:
    lines = [
        [
            plain(gate["name"]),
            number(gate["value"]),
            number(gate["limit"]),
            "passed" if gate["passed"] else "**failed**",
            plain(gate.get("detail", "")),
        ]
        for gate in gates
    ]
    return table(["gate", "value", "limit", "verdict", "detail"], lines)


def _rules(rules: Sequence[Row], rejects: Sequence[Row]) -> str:
    documents: dict[tuple[str, str], int] = {}
    for rule in rules:
        key = rule["stage"], rule["rule"]
        documents[key] = documents.get(key, 0) + rule["documents"]
    samples: dict[tuple[str, str], Row] = {}
    for row in rejects:
        samples.setdefault((row["stage"], row["rule"]), row)
    ranked = sorted(documents.items(), key=lambda item: (-item[1], item[0]))[:MAX_RULES]
    lines = []
    for (stage, rule), count in ranked:
        sample = samples.get((stage, rule), {"text": "", "uri": ""})
        shown = [code(sample["text"], SAMPLE_CHARACTERS), code(sample["uri"], 80)]
        example = " from ".join(part for part in shown if part)
        lines.append([f"{plain(rule)} ({plain(stage)})", number(count), example])
    return table(["rule (stage)", "documents", "for example"], lines)


def _lineage(manifest: Row, parent: Row | None) -> str:
    """A mermaid graph, which the UI draws: inputs and parent into the snapshot."""
    new = [item for item in manifest["inputs"] if item["version"] == manifest["version"]]
    volume = size(sum(item["num_bytes"] for item in new))
    edges = [f'inputs["{len(new)} new inputs, {volume}"] --> this["{_node(manifest)}"]']
    if parent is not None:
        edges.append(f'parent["{_node(parent)}"] --> this')
    return mermaid(["graph LR", *edges])


def _node(manifest: Row) -> str:
    return f"{manifest['name']}@{manifest['version']} {manifest['hash'][:8]}"  # checked names
