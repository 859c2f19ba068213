"""From raw files to documents: read, normalise, name, and find exact copies. The first two stages of a build."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import ledger, skipped
from pipeline.dedup import Policy, exact_duplicates
from pipeline.display import plural
from pipeline.executor import Executor
from pipeline.normalize import NormalizeConfig, content_hash, normalize
from pipeline.raw import Row, gather_batches
from pipeline.readers import FoundInput, InputChangedError, ReadLimits, SourceConfig, read_rows
from pipeline.runs import published_copies
from pipeline.skipped import Skipped
from pipeline.stage import Progress, Workspace, run_tasks, total_counts
from storage.errors import ConfigError, InputError
from storage.schema import DOCUMENTS, FATES
from storage.snapshot import Snapshot

logger = logging.getLogger(__name__)

SAMPLES_PER_RULE = 5
"""Removed documents of each domain and rule whose text is kept to be looked at."""

_KEYS = pa.schema([DOCUMENTS.field(name) for name in ("id", "content_hash", "domain", "source")])


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How work is cut; it decides shard borders, so it belongs to what a snapshot is."""

    input_bytes: int = 8 << 20
    """Input files are read in groups of about this many bytes, as they lie on disk."""
    text_bytes: int = 64 << 20
    """Most bytes of text in a shard (one document may exceed it)."""

    def __post_init__(self) -> None:
        for name in ("input_bytes", "text_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"shards.{name}: expected at least 1 byte, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class NewInput:
    """An input file that no snapshot has consumed."""

    found: FoundInput
    source: SourceConfig
    fingerprint: str


@dataclass(frozen=True)
class ChangedInput:
    """A new input that was not read, because its bytes are no longer those that were found; the next build takes it."""

    source: str
    uri: str
    why: str
    """In words."""


@dataclass(frozen=True)
class _ReadTask:
    inputs: tuple[NewInput, ...]
    limits: ReadLimits
    normalize: NormalizeConfig
    text_bytes: int


def read_documents(
    workspace: Workspace,
    inputs: Sequence[NewInput],
    limits: ReadLimits,
    normalize_config: NormalizeConfig,
    shards: ShardConfig,
    executor: Executor,
    progress: Progress,
) -> dict[str, int]:
    """Stage 1: read and normalise every new input into document parts; unreadable records become fates."""
    tasks = [
        (f"{number:05}", _ReadTask(group, limits, normalize_config, shards.text_bytes))
        for number, group in enumerate(_groups(inputs, shards.input_bytes))
    ]
    records = run_tasks(workspace, "read", tasks, _read_group, executor, progress, "input groups")
    good = sum(part["rows"] for record in records for part in record["parts"])
    bad = sum(record["quarantined"] for record in records)
    if bad:
        fates = ledger.concat((workspace.read_table(record["fates"]) for record in records), FATES)
        logger.warning("%d records cannot be used: %s", bad, ledger.reasons(fates))
    changed = changed_inputs(workspace)
    if changed and len(changed) == len(inputs):
        workspace.clear()  # else the same bytes would find these records again
        raise InputError(
            f"{changed_in_words(changed)}; there is nothing else to read, so nothing was published"
        )
    counts = {"documents": good, "quarantined": bad}
    found = all_skipped(records)
    if found:
        logger.info("%s", skipped.in_words(found))
        counts["skipped"] = sum(part.records for part in found)
    return counts


def all_skipped(records: Sequence[dict[str, Any]]) -> list[Skipped]:
    """What the tasks with these records skipped."""
    parts = [part for record in records for part in skipped.from_json(record["skipped"])]
    return skipped.with_totals(skipped.total(parts), total_counts(records, "looked_at"))


def find_exact_duplicates(
    workspace: Workspace,
    parent: Snapshot | None,
    sources: Sequence[str],
    policy: Policy,
    progress: Progress,
) -> dict[str, int]:
    """Stage 2: documents whose white-space-normalised text was seen before, here or in an earlier snapshot.

    Those whose text was forgotten are taken out too: with `forget` a text is gone for good, not until it comes again.
    `sources` are the names of the recipe's sources: of equal texts, the one of the earliest source stays.

    With the policy "rebuild" only texts go that equal another new one byte for byte: whatever judges the one judges the
    other alike, so that nothing depends on what came together. Near-duplicates take care of all other copies.
    """
    tasks = [("all", (parent, tuple(sources), policy))]
    records = run_tasks(workspace, "exact", tasks, _exact_task, Executor(), progress, "steps")
    return {"documents": records[0]["documents"], "duplicate": records[0]["duplicate"]}


def parts(workspace: Workspace) -> list[str]:
    """Names of the tables that the read stage wrote, in order of input."""
    return [part["name"] for record in workspace.records("read") for part in record["parts"]]


def changed_inputs(workspace: Workspace) -> list[ChangedInput]:
    """The inputs that the read stage left out, because they changed between being found and being read."""
    records = workspace.records("read")
    return [ChangedInput(**item) for record in records for item in record["changed"]]


def changed_in_words(changed: Sequence[ChangedInput]) -> str:
    """What is left out and why, in one line."""
    shown = ", ".join(f"{item.uri} ({item.why})" for item in changed[:3])
    return (
        f"{plural(len(changed), 'input')} changed between being found and being read and "
        f"{'is' if len(changed) == 1 else 'are'} left out, to be read by the next build: {shown}"
        f"{', ...' if len(changed) > 3 else ''}"
    )


def taken_out(workspace: Workspace) -> pa.Array:
    """Ids of the documents that the second stage removed: copies, and those that were forgotten."""
    tables = [workspace.read_table(f"exact/{name}")["id"] for name in ("removed", "blocked")]
    return pa.concat_arrays([chunk for column in tables for chunk in column.chunks] or [_NO_IDS])


_NO_IDS = pa.array([], pa.string())


def _groups(inputs: Sequence[NewInput], limit: int) -> Iterator[tuple[NewInput, ...]]:
    group: list[NewInput] = []
    size = 0
    for item in inputs:
        if group and size + item.found.num_bytes > limit:
            yield tuple(group)
            group, size = [], 0
        group.append(item)
        size += item.found.num_bytes
    if group:
        yield tuple(group)


def _read_group(workspace: Workspace, name: str, task: _ReadTask) -> dict[str, Any]:
    """Read a group without the inputs that have changed since they were found.

    That an input has changed is known when all of it has been read. Then the group is read again without it, so that
    none of its documents remains.
    """
    inputs, changed = task.inputs, list[ChangedInput]()
    while True:
        record, found = _read_inputs(workspace, name, inputs, task)
        if not found:
            return record | {"changed": [asdict(item) for item in changed]}
        changed += [
            ChangedInput(inputs[i].found.source, inputs[i].found.uri, why)
            for i, why in found.items()
        ]
        inputs = tuple(item for i, item in enumerate(inputs) if i not in found)


def _read_inputs(
    workspace: Workspace, name: str, inputs: Sequence[NewInput], task: _ReadTask
) -> tuple[dict[str, Any], dict[int, str]]:
    """Write the documents of some inputs as parts; return their record, and why which inputs do not count."""
    stats: Counter[str] = Counter()
    written: list[dict[str, Any]] = []
    waiting: list[pa.RecordBatch] = []
    waiting_bytes = 0
    bad: list[pa.Table] = []
    bad_texts: dict[str, str | None] = {}
    skips: list[Skipped] = []
    looked_at: Counter[str] = Counter()
    changed: dict[int, str] = {}
    ids: list[str] = []

    def write_part() -> None:
        nonlocal waiting_bytes
        if waiting:
            part = workspace.write_table(
                f"read/{name}-{len(written):03}", pa.Table.from_batches(waiting)
            )
            written.append({"name": part, "rows": sum(map(len, waiting))})
            waiting.clear()
            waiting_bytes = 0

    def rows(of_source: Iterable[tuple[int, NewInput]]) -> Iterator[Row]:
        for index, item in of_source:
            try:
                for row in read_rows(item.found, item.source, task.limits, item.fingerprint):
                    ids.append(document_id(item, row.uri))
                    yield row
            except InputChangedError as error:
                changed[index] = str(error)

    # A batch holds the records of many small files, but of one source: what it costs is paid by the batch.
    for source, of_source in groupby(enumerate(inputs), key=lambda pair: pair[1].source):
        for raw in gather_batches(rows(of_source)):
            documents, quarantine, texts, more = _finish_batch(
                raw, ids[: len(raw)], source, task.normalize, stats
            )
            del ids[: len(raw)]
            skips = skipped.total([*skips, *more])
            looked_at[source.name] += len(raw)
            waiting.append(documents)
            waiting_bytes += pc.sum(documents["num_bytes"]).as_py() or 0
            bad.append(quarantine)
            bad_texts |= texts
            if waiting_bytes >= task.text_bytes:
                write_part()
    write_part()
    fates = ledger.concat(bad, FATES)
    samples = {id_: bad_texts[id_] for id_ in ledger.choose_samples(fates, SAMPLES_PER_RULE)}
    record = {
        "parts": written,
        "fates": workspace.write_table(f"read/{name}-fates", fates),
        "rejects": workspace.write_table(f"read/{name}-rejects", ledger.rejects(fates, samples)),
        "quarantined": len(fates),
        "skipped": skipped.to_json(skips),
        "looked_at": dict(sorted(looked_at.items())),
        "normalize": dict(sorted(stats.items())),
    }
    return record, changed


def _finish_batch(
    raw: pa.RecordBatch,
    row_ids: Sequence[str],
    source_config: SourceConfig,
    config: NormalizeConfig,
    stats: Counter[str],
) -> tuple[pa.RecordBatch, pa.Table, dict[str, str | None], list[Skipped]]:
    """Split a raw batch of one source into documents, quarantined records with their texts, and what is neither."""
    skips = skipped.from_rows(raw.filter(raw["is_skipped"]), source_config.name)
    is_record = pc.invert(raw["is_skipped"])
    ids = pa.array(row_ids, pa.string()).filter(is_record)
    raw = raw.filter(is_record)
    rows = len(raw)
    source = pa.array([source_config.name] * rows, pa.string())
    domains = pc.fill_null(raw["domain"], source_config.domain)
    errors, details = raw["error"], raw["detail"]
    has_text = pc.is_null(errors)
    texts = normalize(
        pc.fill_null(pc.if_else(has_text, raw["text"], ""), ""), domains, config, stats
    )
    is_empty = pc.and_(has_text, pc.equal(pc.utf8_trim_whitespace(texts), ""))
    detail = "expected text, got none that is left after normalisation"
    skips += [
        Skipped(source_config.name, "empty", 1, ((uri, detail),))
        for uri in raw["uri"].filter(is_empty).to_pylist()
    ]
    identity = pa.Table.from_arrays([ids, raw["uri"], source, domains], schema=ledger.IDENTITY)

    is_bad = pc.is_valid(errors)
    quarantine = ledger.quarantined(
        identity.filter(is_bad), errors.filter(is_bad), details.filter(is_bad)
    )
    bad_texts = dict(
        zip(ids.filter(is_bad).to_pylist(), raw["text"].filter(is_bad).to_pylist(), strict=True)
    )

    good = pc.invert(pc.or_(is_bad, is_empty))
    kept = texts.filter(good)
    count = len(kept)
    columns = {
        "id": ids.filter(good),
        "text": kept,
        "source": source.filter(good),
        "uri": raw["uri"].filter(good),
        "domain": domains.filter(good),
        "license": pc.fill_null(raw["license"], source_config.license).filter(good),
        "lang": pa.array([""] * count, pa.string()),
        "lang_score": pa.array([0.0] * count, pa.float32()),
        "toxicity": pa.array([0.0] * count, pa.float32()),
        "content_hash": content_hash(kept),
        "num_bytes": pc.cast(pc.binary_length(kept), pa.int64()),
        "split": pa.array([""] * count, pa.string()),
    }
    documents = pa.RecordBatch.from_arrays(
        [columns[field.name] for field in DOCUMENTS], schema=DOCUMENTS
    )
    return documents, quarantine, bad_texts, skips


def document_id(item: NewInput, uri: str) -> str:
    """Name of a document: blake2b-128 of where it lies, so it never depends on order or on other documents."""
    key = "\0".join((item.found.source, uri, item.fingerprint))
    return blake2b(key.encode("utf8", "surrogatepass"), digest_size=16).hexdigest()


def _exact_task(
    workspace: Workspace, _name: str, argument: tuple[Snapshot | None, tuple[str, ...], Policy]
) -> dict[str, Any]:
    parent, sources, policy = argument
    columns = ["id", "content_hash", "domain", "source"]
    keys = ledger.concat(
        (workspace.read_table(part).select(columns) for part in parts(workspace)), _KEYS
    )
    ranks = pc.index_in(keys["source"], pa.array(sources, pa.string()))
    keys = keys.drop_columns(["source"]).append_column("source_rank", ranks)
    published, blocked = None, keys.slice(0, 0)
    if parent is not None:
        blocked = _blocked(keys, parent.forgotten())
        if policy == "append":
            published = published_copies(parent, keys["content_hash"])
    if policy == "rebuild":
        column = keys.schema.get_field_index("content_hash")
        keys = keys.set_column(column, "content_hash", _text_hashes(workspace))
    keys = keys.filter(pc.invert(pc.is_in(keys["id"], blocked["id"].combine_chunks())))
    removed = exact_duplicates(keys, published)
    workspace.write_table("exact/removed", removed)
    workspace.write_table("exact/blocked", blocked.select(["id"]))
    return {
        "documents": len(keys) + len(blocked),
        "duplicate": len(removed),
        "forgotten": len(blocked),
    }


def _text_hashes(workspace: Workspace) -> pa.Array:
    """BLAKE2b-128 of every text as it is, white space too, in the order of `parts`."""
    hashes = [
        blake2b(text.encode(), digest_size=16).hexdigest()
        for part in parts(workspace)
        for batch in workspace.read_table(part).select(["text"]).to_batches()
        for text in batch["text"].to_pylist()
    ]
    return pa.array(hashes, pa.string())


def _blocked(keys: pa.Table, forgotten: pa.Table) -> pa.Table:
    """The documents that were forgotten, or whose text was."""
    same_id, same_text = (
        pc.is_in(keys[name], forgotten[name].combine_chunks()) for name in ("id", "content_hash")
    )
    return keys.filter(pc.or_(same_id, same_text))
