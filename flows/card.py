"""The data card of a snapshot: one markdown page for Prefect's UI, and beside the snapshot in the lake.

Pure functions of plain dictionaries. Texts in it come from anywhere, so they are shown as code, never as markup.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flows.markdown import (
    PICTURE_WIDTH,
    code,
    folded,
    image,
    mermaid,
    page,
    paragraph,
    plain,
    signed,
    table,
    toml_block,
    wrapping,
)
from flows.tables import totals
from pipeline import charts, skipped
from pipeline.display import (
    DASH,
    clip,
    duration,
    number,
    percent,
    plural,
    short,
    size,
    toml_text,
    words,
)
from pipeline.gates import override
from pipeline.recall_view import guard_in_words, in_words
from pipeline.skipped import Skipped
from pipeline.svg import Panel, sheet
from storage.schema import FATES_IN_ORDER
from storage.times import moment

MAX_RULES = 14
"""Rules in the card; the report has all."""
MAX_DOMAINS = 40
"""Domains in the card's tables, the largest; the picture has `MAX_BARS`."""
MAX_BARS = 12
MAX_CHANGES = 40
"""Changed keys of the recipe that are listed."""
SAMPLE_CHARACTERS = 160
"""Length of a removed text shown beside its rule."""
RECIPE_CHARACTERS = 12_000
"""Length of the recipe as shown."""

Row = Mapping[str, Any]


def snapshot_card(
    manifest: Row,
    parent: Row | None,
    rejects: Sequence[Row],
    *,
    lineage: str = "",
    recipe_changes: Sequence[str] = (),
) -> str:
    """Markdown that tells what a snapshot is: figures, funnel, gates, domains, what was removed and why, lineage.

    `manifest` and `parent` are `Manifest.to_dict()`, `rejects` rows of the snapshot's rejects shards; `lineage` is the
    graph of `flows/lineage.py` (without it: this snapshot and its parent), `recipe_changes` lines such as
    "dedup.threshold 0.7 -> 0.8". The page's size is bounded: long lists and texts are cut, and say so.
    """
    return page(
        [
            f"# {_ref(manifest)}: {manifest['status']}",
            _refused(manifest),
            _figures(manifest, parent),
            "## What became of what was read",
            _lede(manifest),
            _funnel(manifest["funnel"]),
            _fates(manifest["funnel"]),
            _skipped(skipped.in_summary(manifest["summary"])),
            "## The corpus",
            _domains(manifest, parent),
            _licences(manifest["summary"]),
            "## Gates" if manifest["gates"] else "",
            _gates(manifest["gates"]),
            "## What was removed, and why" if manifest["summary"].get("rules") else "",
            _rules(manifest["summary"].get("rules", []), rejects),
            _redacted(manifest["summary"]),
            _recall(manifest["summary"]),
            plain(guard_in_words(manifest["summary"].get("near_duplicates", {}))),
            "## What changed in the recipe" if recipe_changes else "",
            _changes(recipe_changes),
            "## Lineage",
            lineage or _lineage(manifest, parent),
            folded("How it was made", _facts(manifest)),
            folded("Recipe", _recipe(manifest)),
        ]
    )


def _ref(manifest: Row) -> str:
    # A checked name, so the @ of a reference may stay as it is.
    return f"{manifest['name']}@{manifest['version']}"


def _refused(manifest: Row) -> str:
    """Why nothing trains on the snapshot, and what to do; empty if it passed."""
    failed = [gate for gate in manifest["gates"] if not gate["passed"]]
    if not failed:
        return ""
    why = "; ".join(
        f"**{plain(gate['name'])} {number(gate['value'])}**, limit {number(gate['limit'])} "
        f"({plain(gate.get('detail', ''))})"
        for gate in failed
    )
    settings = ", ".join(f"`{override(gate)}`" for gate in failed)
    return (
        f"Refused by {plural(len(failed), 'gate')}: {why}. Nothing trains on it, and the next build starts from the "
        f"snapshot before it. If the corpus is as it should be, set {settings} in the recipe, or for one run alone in "
        "its overrides, and build again."
    )


def _figures(manifest: Row, parent: Row | None) -> str:
    """The whole corpus in a row, and what this snapshot added to it."""
    now, before = _sizes(manifest), _sizes(parent)
    shown = {"documents": number, "text": size, "tokens": short}
    heads = [*shown, "bytes a token", "domains"]
    lines = [
        [f"**{show(now[key])}**" for key, show in shown.items()]
        + [_per_token(now), number(len(manifest["summary"].get("domains", {})))]
    ]
    if parent is not None:
        added = [f"+{show(now[key] - before[key])}" for key, show in shown.items()]
        old = [_per_token(before), number(len(parent["summary"].get("domains", {})))]
        lines.append([*added, *(f"before: {figure}" for figure in old)])
    return table(heads, lines, "rrrrr")


def _sizes(manifest: Row | None) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in (manifest or {"summary": {}})["summary"].get("domains", {}).values():
        found["documents"] += row.get("documents", 0)
        found["text"] += row.get("num_bytes", 0)
        found["tokens"] += row.get("tokens", 0)
    return found


def _per_token(sizes: Counter[str]) -> str:
    return f"{sizes['text'] / sizes['tokens']:.2f}" if sizes["tokens"] else DASH


def _lede(manifest: Row) -> str:
    counts = totals(manifest["funnel"])
    new = [item for item in manifest["inputs"] if item["version"] == manifest["version"]]
    volume = size(sum(item["num_bytes"] for item in new))
    return (
        f"**{number(counts['kept'])}** of {number(counts['read'])} documents kept "
        f"({percent(counts['kept'], counts['read'])}), from {plural(len(new), 'new input')} of {volume}; made "
        f"{plain(moment(manifest['commit'].get('created_at')))}."
    )


def _funnel(funnel: Mapping[str, Mapping[str, int]]) -> str:
    read = {domain: counts for domain, counts in funnel.items() if counts.get("read")}
    ranked = sorted(read.items(), key=lambda item: (-item[1]["read"], item[0]))
    rows: list[tuple[str, Mapping[str, int]]] = list(ranked[:MAX_BARS])
    if len(ranked) > MAX_BARS:
        others = ranked[MAX_BARS - 1 :]
        rows[MAX_BARS - 1 :] = [(f"{len(others)} other domains", totals(dict(others)))]
    told = "bars of each domain's documents, split into kept, duplicate, dropped, quarantined"
    legend = [(fate, fate) for fate in charts.FATES if any(counts.get(fate) for _, counts in rows)]
    drawn = sheet(
        [Panel(picture=charts.funnel(rows))] if rows else [],
        title="What became of the documents",
        description=told,
        width=PICTURE_WIDTH,
        legend=legend,
    )
    return image(drawn, told)


def _fates(funnel: Mapping[str, Mapping[str, int]]) -> str:
    """The picture's figures, at a click."""
    rows = {domain: funnel[domain] for domain in sorted(funnel)[:MAX_DOMAINS]}
    heads = ["domain", "read", *FATES_IN_ORDER]
    lines = [
        [plain(domain), *(number(counts.get(fate, 0)) for fate in heads[1:])]
        for domain, counts in rows.items()
    ]
    if len(funnel) > 1:
        whole = totals(funnel)
        lines.append(["**all**", *(number(whole[fate]) for fate in heads[1:])])
    more = _more(len(funnel) - len(rows), "domain")
    return folded("In figures", table(heads, lines, "l" + "r" * (len(heads) - 1)) + more)


def _skipped(parts: Sequence[Skipped]) -> str:
    """What is no document and so has no fate: how much, and at a click from which source and why."""
    if not parts:
        return ""
    lines = [
        [
            plain(clip(part.source, 60)),
            plain(words(part.reason)),
            number(part.records),
            wrapping(clip(": ".join(part.examples[0]), SAMPLE_CHARACTERS)),
        ]
        for part in sorted(parts, key=lambda part: -part.records)[:MAX_DOMAINS]
    ]
    rows = table(["source", "reason", "records", "for example"], lines, "llr")
    more = _more(len(parts) - MAX_DOMAINS, "reason")
    return f"{paragraph(skipped.in_words(parts))}.\n\n{folded('Skipped, by source', rows + more)}"


def _domains(manifest: Row, parent: Row | None) -> str:
    """What the corpus holds of each domain, the largest first, and how its share moved."""
    summary, before = manifest["summary"], (parent or {}).get("summary", {})
    now, old = summary.get("domains", {}), before.get("domains", {})
    whole, former = _sizes(manifest)["text"], _sizes(parent)["text"]
    ranked = sorted(now, key=lambda domain: (-now[domain].get("num_bytes", 0), domain))
    heads = ["domain", "documents", "text", "tokens", "of the text", "of the mix"]
    lines = []
    for domain in ranked[:MAX_DOMAINS]:
        row, was = now[domain], old.get(domain, {})
        documents = number(row.get("documents", 0))
        share = percent(row.get("num_bytes", 0), whole)
        if parent is not None:
            documents += f" ({row.get('documents', 0) - was.get('documents', 0):+,})"
            moved = row.get("num_bytes", 0) / (whole or 1) - was.get("num_bytes", 0) / (former or 1)
            share += f" ({signed(100 * moved, 1)})" if abs(moved) >= 0.0005 else ""
        mix = summary.get("mix", {}).get(domain, {}).get("share")
        lines.append(
            [
                plain(domain),
                documents,
                size(row.get("num_bytes", 0)),
                short(row.get("tokens", 0)),
                share,
                DASH if mix is None else percent(mix, 1),
            ]
        )
    return table(heads, lines, "lrrrrr") + _more(len(ranked) - MAX_DOMAINS, "domain")


def _licences(summary: Row) -> str:
    found: Counter[str] = Counter()
    for row in summary.get("domains", {}).values():
        found.update(row.get("licenses", {}))
    listed = [f"{plain(clip(name or 'none said', 60))} ({number(count)})" for name, count in found.most_common(12)]  # fmt: skip
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return f"Licences, by documents: {', '.join(listed)}{more}." if found else ""


def _gates(gates: Sequence[Row]) -> str:
    lines = [
        [
            "passed" if gate["passed"] else "**failed**",
            plain(gate["name"]),
            number(gate["value"]),
            number(gate["limit"]),
            plain(gate.get("detail", "")),
        ]
        for gate in gates
    ]
    return table(["", "gate", "value", "limit", "detail"], lines, "llrr")


def _rules(rules: Sequence[Row], rejects: Sequence[Row]) -> str:
    documents: Counter[tuple[str, str]] = Counter()
    for rule in rules:
        documents[rule["stage"], rule["rule"]] += rule["documents"]
    samples: dict[tuple[str, str], Row] = {}
    for row in rejects:
        samples.setdefault((row["stage"], row["rule"]), row)
    ranked = sorted(documents.items(), key=lambda item: (-item[1], item[0]))
    lines = []
    for (stage, rule), count in ranked[:MAX_RULES]:
        sample = samples.get((stage, rule), {"text": "", "uri": ""})
        shown = [code(sample["text"] or "", SAMPLE_CHARACTERS), wrapping(clip(sample["uri"], 80))]
        lines.append(
            [f"{plain(words(rule))}<br><em>{plain(words(stage))}</em>", number(count), "<br>".join(filter(None, shown))]
        )  # fmt: skip
    heads = ["rule", "documents", "for example"]
    return table(heads, lines, "lr") + _more(len(ranked) - MAX_RULES, "rule")


def _redacted(summary: Row) -> str:
    kinds = ", ".join(f"{number(n)} {plain(words(kind))}" for kind, n in summary.get("pii", {}).items() if n)  # fmt: skip
    return f"Personal data replaced by placeholders: {kinds}." if kinds else ""


def _recall(summary: Row) -> str:
    return plain(in_words(summary.get("recall", {})))


def _changes(changes: Sequence[str]) -> str:
    listed = "\n".join(f"- {paragraph(clip(change, 300))}" for change in changes[:MAX_CHANGES])
    return listed + _more(len(changes) - MAX_CHANGES, "key")


def _lineage(manifest: Row, parent: Row | None) -> str:
    """A mermaid graph, which the UI draws: inputs and parent into the snapshot."""
    new = [item for item in manifest["inputs"] if item["version"] == manifest["version"]]
    volume = size(sum(item["num_bytes"] for item in new))
    edges = [f'inputs["{plural(len(new), "new input")}, {volume}"] --> this["{_node(manifest)}"]']
    if parent is not None:
        edges.append(f'parent["{_node(parent)}"] --> this')
    return mermaid(["graph LR", *edges])


def _node(manifest: Row) -> str:
    return f"{_ref(manifest)} {manifest['hash'][:8]}"  # checked names


def _facts(manifest: Row) -> str:
    commit, tokenizer = manifest["commit"], manifest.get("tokenizer") or {}
    facts = {
        "hash": f"`{manifest['hash']}`",
        "parent": f"`{manifest['parent']}`" if manifest.get("parent") else "none: the first",
        "recipe": f"`{plain(manifest.get('recipe_fingerprint') or DASH)}`",
        "tokenizer": f"`{plain(tokenizer['checksum'])}`, {number(tokenizer['vocab_size'])} pieces"
        if tokenizer
        else DASH,
        "gristmill": plain(manifest["code_version"]),
        "took": duration(commit.get("seconds")),
        "on": plain(commit.get("host", DASH)),
    }
    return table(["", ""], [[key, value] for key, value in facts.items()])


def _recipe(manifest: Row) -> str:
    return toml_block(clip(toml_text(dict(manifest.get("recipe", {}))), RECIPE_CHARACTERS))


def _more(count: int, what: str) -> str:
    return f"\n\nand {count} more {what}{'s' if count > 1 else ''}" if count > 0 else ""
