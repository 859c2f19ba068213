"""Figures of kept documents by domain: they add up over parts, shards and snapshots, and can be taken away again."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.mixture import MixConfig, mix
from pipeline.shards import SPLITS
from storage.schema import DOCUMENTS
from storage.snapshot import Snapshot

TOXICITY_EDGES = tuple(number / 10 for number in range(11))


def figures(documents: pa.Table, tokens: dict[str, pa.Table]) -> dict[str, dict[str, Any]]:
    """Figures by domain that add up over shards and snapshots."""
    found: dict[str, dict[str, Any]] = {}
    for domain in sorted(pc.unique(documents["domain"]).to_pylist()):
        table = documents.filter(pc.equal(documents["domain"], domain))
        by_split = {
            split: count_tokens(rows.filter(pc.equal(rows["domain"], domain)))
            for split, rows in tokens.items()
        }
        sizes = table["num_bytes"].to_numpy()
        toxicity = table["toxicity"].to_numpy()
        top = len(TOXICITY_EDGES) - 2
        found[domain] = {
            "documents": len(table),
            "validation_documents": pc.sum(pc.equal(table["split"], "validation")).as_py(),
            "num_bytes": int(sizes.sum()),
            "tokens": sum(by_split.values()),
            "train_tokens": by_split.get("train", 0),
            "validation_tokens": by_split.get("validation", 0),
            "languages": dict(sorted(Counter(table["lang"].to_pylist()).items())),
            "licenses": dict(sorted(Counter(table["license"].to_pylist()).items())),
            # Position k counts documents of 2^k to 2^(k+1) - 1 bytes.
            "length_log2": histogram([int(size).bit_length() - 1 for size in sizes]),
            "toxicity_tenths": histogram(
                [min(int(score * 10), top) for score in toxicity], top + 1
            ),
        }
    return found


def figures_of(snapshot: Snapshot, ids: pa.Array) -> dict[str, dict[str, Any]]:
    """Figures by domain of the kept documents with these ids."""

    def rows(kind: str, split: str | None, columns: list[str]) -> pa.Table:
        tables = []
        for shard in snapshot.shards(kind, split=split):
            table = snapshot.open(shard, columns)
            tables.append(table.filter(pc.is_in(table["id"], ids)))
        return pa.concat_tables(tables) if tables else pa.table({})

    columns = [name for name in DOCUMENTS.names if name not in ("text", "uri", "source")]
    documents = rows("documents", None, columns)
    tokens = {split: rows("tokens", split, ["id", "domain", "tokens"]) for split in SPLITS}
    tokens = {split: table for split, table in tokens.items() if len(table)}
    return figures(documents, tokens) if len(documents) else {}


def summarize_change(
    before: dict[str, Any],
    gone: dict[str, dict[str, Any]],
    added: dict[str, dict[str, Any]],
    config: MixConfig,
) -> dict[str, Any]:
    """The summary of a snapshot that reads nothing, from its parent's: without the figures of `gone`, with `added`."""
    domains: dict[str, dict[str, Any]] = {}
    for figures_by_domain in (before["domains"], added):
        for domain, counts in figures_by_domain.items():
            add(domains.setdefault(domain, {}), counts)
    domains = taken_away(domains, gone)
    return totals(domains, config) | {
        "rules": [],
        "normalize": {},
        "pii": {},
        "near_duplicates": {},
        "recall": {},
        "tokenizer": before["tokenizer"] | {"bytes_per_token": bytes_per_token(domains)},
        "stages": [],
    }


def totals(domains: dict[str, dict[str, Any]], config: MixConfig) -> dict[str, Any]:
    """Figures of the whole corpus from those of its domains."""
    domains = dict(sorted(domains.items()))
    train_tokens = {domain: counts["train_tokens"] for domain, counts in domains.items()}
    return {
        "documents": sum(counts["documents"] for counts in domains.values()),
        "text_bytes": sum(counts["num_bytes"] for counts in domains.values()),
        "tokens": {
            "train": sum(train_tokens.values()),
            "validation": sum(counts["validation_tokens"] for counts in domains.values()),
            "by_domain": {domain: counts["tokens"] for domain, counts in domains.items()},
        },
        "domains": domains,
        "mix": mix(train_tokens, config),
    }


def taken_away(
    domains: dict[str, dict[str, Any]], gone: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Figures by domain without those of documents that are not kept any more."""
    for domain, counts in gone.items():
        add(domains[domain], counts, -1)
    return {domain: _tidy(counts) for domain, counts in domains.items() if counts["documents"]}


def _tidy(counts: dict[str, Any]) -> dict[str, Any]:
    """Counters as if those that came to nothing had never been: no zeros in tables, none at the end of lengths."""
    lengths = counts["length_log2"]
    while lengths and not lengths[-1]:
        lengths = lengths[:-1]
    named = {key: {k: n for k, n in counts[key].items() if n} for key in ("languages", "licenses")}
    return counts | named | {"length_log2": lengths}


def bytes_per_token(domains: dict[str, dict[str, Any]]) -> dict[str, float]:
    """UTF-8 bytes that a token stands for, by domain."""
    return {
        domain: round(counts["num_bytes"] / counts["tokens"], 4)
        for domain, counts in domains.items()
        if counts["tokens"]
    }


def add(total: dict[str, Any], more: dict[str, Any], sign: int = 1) -> None:
    """Add nested counters in place, or take them away: numbers sum, lists sum by position, dicts recurse."""
    for key, value in more.items():
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value, sign)
        elif isinstance(value, list):
            old = total.get(key, [])
            length = max(len(old), len(value))
            padded = [*old, *[0] * (length - len(old))], [*value, *[0] * (length - len(value))]
            total[key] = [a + sign * b for a, b in zip(*padded, strict=True)]
        else:
            total[key] = total.get(key, 0) + sign * value


def histogram(positions: Sequence[int], length: int = 0) -> list[int]:
    """How often each position occurs, from 0 to the highest, or to `length` if that is more."""
    counts = Counter(positions)
    return [counts[position] for position in range(max(length, max(positions, default=-1) + 1))]


def count_tokens(table: pa.Table) -> int:
    """Tokens of a table that has a list of them a document."""
    return pc.sum(pc.list_value_length(table["tokens"])).as_py() or 0
