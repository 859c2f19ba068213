"""Fates: every document that was read ends in exactly one, with its reason.

Stages leave small tables of those they removed; `settle` joins them with the list of all documents read and proves
the sum `read = kept + dropped + duplicate + quarantined + forgotten`, per domain and in all.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import GristmillError
from storage.schema import FATES, FATES_IN_ORDER, REJECTS

IDENTITY = pa.schema([FATES.field(name) for name in ("id", "uri", "source", "domain")])
"""What is remembered of each document that was read."""

REJECT_CHARACTERS = 2000
"""Length of the text kept as a sample of what a rule removes."""


def quarantined(identity: pa.Table, errors: pa.Array, details: pa.Array) -> pa.Table:
    """Fates of records that could not be read."""
    return _fates(identity, fate="quarantined", stage="read", rule=errors, detail=details)


def dropped(batch: pa.RecordBatch, stage: str, verdicts: pa.StructArray) -> pa.Table:
    """Fates of the documents of `batch` whose verdict names a rule."""
    is_dropped = pc.is_valid(verdicts.field("rule"))
    columns = {name: verdicts.field(name).filter(is_dropped) for name in verdicts.type.names}
    return _fates(identity_of(batch).filter(is_dropped), fate="dropped", stage=stage, **columns)


def identity_of(batch: pa.RecordBatch | pa.Table) -> pa.Table:
    """The identity columns of documents."""
    chosen = batch.select(IDENTITY.names)
    table = chosen if isinstance(chosen, pa.Table) else pa.Table.from_batches([chosen])
    return table.cast(IDENTITY)


def settle(
    read: pa.Table,
    quarantine: pa.Table,
    drops: pa.Table,
    exact: pa.Table,
    near: pa.Table,
    blocked: Iterable[str] = (),
) -> pa.Table:
    """Give every document that was read its one fate; rows in the order of `read`, quarantined records last.

    `read` has the identity columns of all good records, `exact` (id, duplicate_of), `near` (id, duplicate_of,
    similarity, rule), `blocked` the ids of forgotten texts that came again. An exact copy shares what befell its representative: if that one was dropped, so was the copy; if
    it duplicates a third document, the copy duplicates that one. Raises GristmillError if a fate is missing or double.
    """
    fates: dict[str, dict[str, Any]] = {}
    for row in drops.select(["id", "stage", "rule", "value", "threshold", "detail"]).to_pylist():
        fates[row.pop("id")] = {"fate": "dropped", **row}
    for id_ in blocked:
        fates[id_] = {"fate": "forgotten", "stage": "exact_duplicates", "rule": "forgotten"}
    for row in near.to_pylist():
        if row["id"] in fates:
            raise GristmillError(f"document {row['id']} was dropped and a duplicate; this is a bug")
        fates[row.pop("id")] = {"fate": "duplicate", "stage": "near_duplicates", **row}
    for row in exact.to_pylist():
        if row["id"] in fates:
            raise GristmillError(
                f"document {row['id']} was a copy and judged as well; this is a bug"
            )
        representative = fates.get(row["duplicate_of"])
        if representative is None:
            fate = {
                "fate": "duplicate",
                "stage": "exact_duplicates",
                "rule": "exact",
                "similarity": 1.0,
            }
            fates[row["id"]] = fate | {"duplicate_of": row["duplicate_of"]}
        elif representative["fate"] == "dropped":
            detail = f"exact copy of {row['duplicate_of']}"
            fates[row["id"]] = representative | {"detail": detail, "copy_of": row["duplicate_of"]}
        else:
            fates[row["id"]] = representative | {"copy_of": row["duplicate_of"]}
    kept: dict[str, Any] = {"fate": "kept"}
    rows = [fates.get(id_, kept) for id_ in read["id"].to_pylist()]
    decided = (
        "fate",
        "stage",
        "rule",
        "value",
        "threshold",
        "duplicate_of",
        "similarity",
        "detail",
        "copy_of",
    )
    columns = {name: [row.get(name) for row in rows] for name in decided}
    settled = pa.concat_tables([_fates(read, **columns), quarantine])
    if len(pc.unique(settled["id"])) != len(settled):
        raise GristmillError(
            "two documents have the same id; a reader gave one uri twice, this is a bug"
        )
    if settled["fate"].to_pylist().count("kept") != len(read) - len(fates):
        raise GristmillError("a fate was given to a document that was never read; this is a bug")
    return settled


def funnel(fates: pa.Table) -> dict[str, dict[str, int]]:
    """Documents by domain and fate, with their sum as `read`."""
    counts: dict[str, Counter[str]] = {}
    for row in fates.group_by(["domain", "fate"]).aggregate([([], "count_all")]).to_pylist():
        counts.setdefault(row["domain"], Counter())[row["fate"]] += row["count_all"]
    return {
        domain: {
            "read": counts[domain].total(),
            **{fate: counts[domain][fate] for fate in FATES_IN_ORDER},
        }
        for domain in sorted(counts)
    }


def reasons(fates: pa.Table, most: int = 3) -> str:
    """What removed documents, in a line: the commonest rules with how often they struck and one example each."""
    examples: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for row in fates.filter(pc.is_valid(fates["rule"])).sort_by("uri").to_pylist():
        counts[row["rule"]] += 1
        measured = (
            f"{row['value']:g} against {row['threshold']:g}" if row["value"] is not None else ""
        )
        said = row["detail"] or measured
        examples.setdefault(row["rule"], f"{row['uri']}: {said}" if said else row["uri"])
    named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} by {rule} ({examples[rule]})" for rule, count in named[:most]]
    return "; ".join(shown + (["..."] if len(named) > most else []))


def copies_of_published(tables: Iterable[pa.Table]) -> dict[str, int]:
    """By domain, the documents in a snapshot's fates that are exact copies of what an earlier snapshot keeps."""
    fates = concat(tables, FATES)
    is_exact = pc.and_(pc.equal(fates["fate"], "duplicate"), pc.equal(fates["rule"], "exact"))
    exact = fates.filter(pc.fill_null(is_exact, False))
    is_new = pc.is_in(exact["duplicate_of"], fates["id"].combine_chunks())
    return dict(Counter(exact.filter(pc.invert(is_new))["domain"].to_pylist()))


def rule_counts(fates: pa.Table) -> list[dict[str, Any]]:
    """How many documents of each domain each rule removed, sorted."""
    removed = fates.filter(pc.not_equal(fates["fate"], "kept"))
    groups = (
        removed.group_by(["stage", "rule", "domain"]).aggregate([([], "count_all")]).to_pylist()
    )
    rows = [
        {
            "stage": row["stage"],
            "rule": row["rule"],
            "domain": row["domain"],
            "documents": row["count_all"],
        }
        for row in groups
    ]
    return sorted(rows, key=lambda row: (row["stage"], row["rule"], row["domain"]))


def rejects(fates: pa.Table, texts: dict[str, str | None]) -> pa.Table:
    """Samples of what was removed: the rows of `fates` whose text is given, cut to 2,000 characters."""
    chosen = fates.filter(pc.is_in(fates["id"], pa.array(list(texts), pa.string())))
    cut = [(texts[id_] or "")[:REJECT_CHARACTERS] for id_ in chosen["id"].to_pylist()]
    columns = [chosen[name] for name in REJECTS.names if name != "text"]
    return pa.Table.from_arrays([*columns, pa.array(cut, pa.string())], names=REJECTS.names).cast(
        REJECTS
    )


def choose_samples(fates: pa.Table, per_rule: int) -> list[str]:
    """Ids of up to `per_rule` removed documents of each (domain, rule): the smallest ids, which are hashes."""
    taken: Counter[tuple[str, str]] = Counter()
    chosen = []
    for row in fates.select(["id", "domain", "rule"]).sort_by("id").to_pylist():
        if row["rule"] is not None and taken[row["domain"], row["rule"]] < per_rule:
            taken[row["domain"], row["rule"]] += 1
            chosen.append(row["id"])
    return chosen


def concat(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table of many, of the given schema even where there are none."""
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


def _fates(identity: pa.Table, **columns: str | Sequence[Any] | pa.Array) -> pa.Table:
    arrays = []
    for field in FATES:
        if field.name in IDENTITY.names:
            arrays.append(identity[field.name])
        else:
            value = columns.get(field.name)
            if value is None or isinstance(value, str):
                value = [value] * len(identity)
            is_arrow = isinstance(value, pa.Array | pa.ChunkedArray)
            arrays.append(value.cast(field.type) if is_arrow else pa.array(value, field.type))
    return pa.Table.from_arrays(arrays, schema=FATES)
