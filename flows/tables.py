"""Manifests and runs as tables for the terminal. Pure: plain dictionaries in, rich tables out."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.display import DASH, clip, number, percent, size, visible
from pipeline.skipped import Skipped
from storage.schema import FATES_IN_ORDER

MAX_RULES = 20
"""Rules shown; `--json` and the report have all of them."""

Funnel = Mapping[str, Mapping[str, int]]
"""Domain -> documents by fate, and their sum as `read`."""


def totals(funnel: Funnel) -> dict[str, int]:
    """The sum of a funnel over its domains."""
    return {
        column: sum(counts.get(column, 0) for counts in funnel.values())
        for column in ("read", *FATES_IN_ORDER)
    }


def funnel_table(funnel: Funnel) -> Table:
    """Where the documents of each domain went; no row if none was read."""
    columns = ["read", *FATES_IN_ORDER]
    rows = {domain: dict(counts) for domain, counts in sorted(funnel.items())}
    if len(rows) > 1:
        rows["all"] = totals(funnel)
    if not any(counts.get("forgotten") for counts in rows.values()):
        columns.remove("forgotten")
    table = _table("Documents", "domain", [*columns, "kept %"])
    for domain, counts in rows.items():
        figures = [number(counts.get(column, 0)) for column in columns]
        kept = percent(counts.get("kept", 0), counts.get("read", 0))
        _row(table, domain, [*figures, kept], is_total=domain == "all")
    return table


def domains_table(summary: Mapping[str, Any]) -> Table:
    """What the corpus holds of each domain, all snapshots together."""
    table = _table(
        "Corpus",
        "domain",
        ["documents", "validation", "text", "tokens", "bytes/token", "share of mix"],
    )
    bytes_per_token = summary.get("tokenizer", {}).get("bytes_per_token", {})
    mix = summary.get("mix", {})
    for domain, figures in summary.get("domains", {}).items():
        share = mix.get(domain, {}).get("share")
        _row(
            table,
            domain,
            [
                number(figures.get("documents")),
                number(figures.get("validation_documents")),
                size(figures.get("num_bytes")),
                number(figures.get("tokens")),
                number(bytes_per_token.get(domain)),
                DASH if share is None else percent(share, 1),
            ],
        )
    return table


def rules_table(rules: Sequence[Mapping[str, Any]]) -> Table:
    """Which rule removed how many documents, over all domains, most first."""
    documents: dict[tuple[str, str], int] = {}
    for rule in rules:
        key = rule["stage"], rule["rule"]
        documents[key] = documents.get(key, 0) + rule["documents"]
    ranked = sorted(documents.items(), key=lambda item: (-item[1], item[0]))
    table = Table(title="Removed by", title_justify="left", box=None)
    for name in ("stage", "rule"):
        table.add_column(name)
    table.add_column("documents", justify="right")
    for (stage, rule), count in ranked[:MAX_RULES]:
        table.add_row(Text(stage), Text(rule), number(count))
    if len(ranked) > MAX_RULES:
        table.add_row(Text(f"... and {len(ranked) - MAX_RULES} more rules"))
    return table


def skipped_table(skipped: Sequence[Skipped]) -> Table:
    """What was looked at and is no document, by source and reason, each with an example."""
    table = _table("Skipped, being no documents", "source", ["records"])
    for name in ("reason", "for example"):
        table.add_column(name)
    for part in skipped:
        uri, detail = part.examples[0]
        shown = visible(clip(f"{uri}: {detail}", 120))
        table.add_row(
            Text(visible(part.source)), number(part.records), Text(part.reason), Text(shown)
        )
    return table


def gates_table(gates: Sequence[Mapping[str, Any]]) -> Table:
    """Every gate with its figure, its limit and its verdict."""
    table = _table("Gates", "gate", ["value", "limit", "verdict"])
    table.add_column("detail")
    for gate in gates:
        verdict = "passed" if gate["passed"] else "FAILED"
        table.add_row(
            Text(gate["name"]),
            number(gate["value"]),
            number(gate["limit"]),
            Text(verdict, style="" if gate["passed"] else "bold red"),
            Text(gate.get("detail", "")),
        )
    return table


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """Validation bits per byte of each domain, the model's beside a unigram model's of the same tokens."""
    table = _table(
        "Validation, bits per byte",
        "domain",
        ["model", "unigram", "saved", "loss (nats/token)", "tokens"],
    )
    rows = dict(evaluation.get("domains", {}))
    if "bits_per_byte" in evaluation and len(rows) > 1:
        rows["all"] = {key: value for key, value in evaluation.items() if key != "domains"}
    for domain, figures in rows.items():
        model, unigram = figures.get("bits_per_byte"), figures.get("unigram_bits_per_byte")
        saved = percent(unigram - model, unigram) if model and unigram else DASH
        _row(
            table,
            domain,
            [
                DASH if model is None else f"{model:.3f}",
                DASH if unigram is None else f"{unigram:.3f}",
                saved,
                DASH if figures.get("loss") is None else f"{figures['loss']:.3f}",
                number(figures.get("tokens")),
            ],
            is_total=domain == "all",
        )
    return table


def shown_text(text: str, characters: int = 600) -> Text:
    """A text of the corpus or the model, fit for a terminal: escape sequences in it are shown, not obeyed."""
    return Text(visible(clip(text, characters)))


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _row(table: Table, name: str, figures: Sequence[str], *, is_total: bool = False) -> None:
    style = "bold" if is_total else ""
    table.add_row(Text(visible(name)), *figures, style=style)
