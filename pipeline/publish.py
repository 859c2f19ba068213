"""From documents worth keeping to the files of a snapshot: splits, tokenizer, shards, fates, and their summary."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import ingest, ledger, skipped
from pipeline.dedup import DedupConfig
from pipeline.executor import Executor
from pipeline.figures import (
    add,
    bytes_per_token,
    count_tokens,
    figures,
    figures_of,
    histogram,
    taken_away,
    totals,
)
from pipeline.mixture import MixConfig
from pipeline.runs import next_runs
from pipeline.shards import SplitConfig, assign_splits, encode_shard
from pipeline.stage import Progress, Workspace, run_tasks, total_counts
from pipeline.templates import stored_templates
from pipeline.tokenizer import TokenizerConfig, train_tokenizer
from storage.errors import InputError
from storage.schema import DOCUMENTS, DUPLICATES, FATES, REJECTS
from storage.shard import Shard, write_shard
from storage.snapshot import Snapshot
from storage.tombstones import tombstones_of

FATES_PER_SHARD = 1_000_000


def choose_splits(
    workspace: Workspace, parent: Snapshot | None, config: SplitConfig, progress: Progress
) -> dict[str, int]:
    """Stage 6: which documents validate. By hash of the text, so it never depends on order or on other documents."""
    records = run_tasks(
        workspace, "split", [("all", (parent, config))], _split_task, Executor(), progress, "steps"
    )
    return {"train": records[0]["train"], "validation": records[0]["validation"]}


def make_tokenizer(
    workspace: Workspace, parent: Snapshot | None, config: TokenizerConfig, progress: Progress
) -> dict[str, int]:
    """Stage 7: train the tokenizer on what was kept for training, or take the corpus's frozen one."""
    records = run_tasks(
        workspace,
        "tokenizer",
        [("all", (parent, config))],
        _tokenizer_task,
        Executor(),
        progress,
        "steps",
    )
    return {"vocab_size": records[0]["vocab_size"]}


def write_shards(
    workspace: Workspace, version: int, executor: Executor, progress: Progress
) -> dict[str, int]:
    """Stage 8: document, signature and token shards of what is kept, one of each a part; duplicates in theirs."""
    tasks = [(part.name, (part.documents, part.signatures, version)) for part in _parts(workspace)]
    records = run_tasks(workspace, "shards", tasks, _shard_task, executor, progress)
    return {
        "documents": sum(record["documents"] for record in records),
        "tokens": sum(shard["num_tokens"] for record in records for shard in record["shards"]),
    }


@dataclass(frozen=True)
class _Part:
    """Documents that a shard is made of, by the names of their tables."""

    name: str
    documents: str
    signatures: str


def _parts(workspace: Workspace) -> list[_Part]:
    """What was read, part by part; behind it the documents of earlier snapshots that were decided anew."""
    names = zip(workspace.records("filter"), workspace.records("sign"), strict=True)
    return [
        *(_Part(f"{n:05}", one["name"], two["name"]) for n, (one, two) in enumerate(names)),
        *(_Part(Path(name).name, name, f"{name}-signatures") for name in _again(workspace)),
    ]


def _again(workspace: Workspace) -> list[str]:
    """Names of the tables of documents that were decided anew (see `rebuild.py`)."""
    return [f"near/again-{number:05}" for number in range(workspace.records("near")[0]["again"])]


def write_fates(
    workspace: Workspace,
    parent: Snapshot | None,
    version: int,
    config: DedupConfig,
    progress: Progress,
) -> dict[str, int]:
    """Stage 9: one fate for every document read, samples of what was removed, near-duplicate pairs, sorted keys."""
    tasks = [("all", (parent, version, config))]
    records = run_tasks(workspace, "fates", tasks, _fates_task, Executor(), progress, "steps")
    return {"documents": records[0]["documents"]}


def new_shards(workspace: Workspace) -> list[Shard]:
    """Every shard that the finished stages wrote for the new snapshot."""
    records = [*workspace.records("shards"), *workspace.records("fates")]
    return [Shard(**shard) for record in records for shard in record["shards"]]


def all_shards(workspace: Workspace, parent: Snapshot | None) -> tuple[Shard, ...]:
    """The shards of the new snapshot: the parent's but for the runs that were merged into new ones, and the new ones."""
    replaced = set(workspace.records("fates")[0]["replaced"])
    before = parent.manifest.shards if parent is not None else ()
    return (
        *(shard for shard in before if shard.path not in replaced),
        *new_shards(workspace),
    )


def summarize(workspace: Workspace, parent: Snapshot | None, config: MixConfig) -> dict[str, Any]:
    """What the manifest tells of the corpus: figures that add up along the chain, and those of this snapshot alone."""
    before = parent.manifest.summary if parent is not None else {}
    shards = workspace.records("shards")
    fates = workspace.records("fates")[0]
    domains: dict[str, dict[str, Any]] = {}
    for added in [before.get("domains", {}), *(record["domains"] for record in shards)]:
        for domain, counts in added.items():
            add(domains.setdefault(domain, {}), counts)
    if fates["gone"]:
        domains = taken_away(domains, fates["gone"])
    read_records = workspace.records("read")
    skips = skipped.to_json(ingest.all_skipped(read_records))
    return totals(domains, config) | {
        "rules": fates["rules"],
        "normalize": dict(sorted(total_counts(read_records, "normalize").items())),
        "pii": dict(sorted(total_counts(workspace.records("filter"), "pii").items())),
        "near_duplicates": fates["near_duplicates"],
        "recall": workspace.records("near")[0]["recall"],
        "tokenizer": workspace.records("tokenizer")[0]
        | {"bytes_per_token": bytes_per_token(domains)},
        "stages": _stage_counts(workspace),
        **({"skipped": skips} if skips else {}),
        **({"rebuild": fates["rebuild"]} if fates["rebuild"] else {}),
    }


def copies_of_published(workspace: Workspace, parent: Snapshot | None) -> dict[str, dict[str, int]]:
    """By domain, the exact copies of earlier documents that the build and its parent have read: `new` and `parent`."""
    new = [workspace.open_shard(s) for s in new_shards(workspace) if s.kind == "fates"]
    before: list[pa.Table] = []
    if parent is not None:
        version = parent.manifest.version
        before = [parent.open(shard) for shard in parent.shards("fates", version=version)]
    return {"new": ledger.copies_of_published(new), "parent": ledger.copies_of_published(before)}


def new_domains(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Figures by domain of the new documents alone."""
    domains: dict[str, dict[str, Any]] = {}
    for record in _new_records(workspace):
        for domain, counts in record["domains"].items():
            add(domains.setdefault(domain, {}), counts)
    return domains


def _new_records(workspace: Workspace) -> list[dict[str, Any]]:
    """What was written of the new documents: the first parts, as `_parts` names them."""
    return workspace.records("shards")[: len(workspace.records("filter"))]


def _stage_counts(workspace: Workspace) -> list[dict[str, Any]]:
    read = workspace.records("read")
    quarantine = sum(record["quarantined"] for record in read)
    good = sum(part["rows"] for record in read for part in record["parts"])
    exact = workspace.records("exact")[0]
    unique = good - exact["duplicate"] - exact["forgotten"]
    judged = sum(record["documents"] for record in workspace.records("filter"))
    kept = sum(record["documents"] for record in _new_records(workspace))
    flow = [("read", good + quarantine, good), ("exact_duplicates", good, unique)]
    flow += [("filters", unique, judged), ("near_duplicates", judged, kept)]
    return [{"name": name, "documents_in": into, "documents_out": out} for name, into, out in flow]


def _kept(workspace: Workspace, name: str) -> pa.Table:
    """The documents of a filtered part that no near-duplicate replaced."""
    table = workspace.read_table(name)
    removed = workspace.read_table("near/removed")["id"].combine_chunks()
    return table.filter(pc.invert(pc.is_in(table["id"], removed)))


def _split_task(
    workspace: Workspace, _name: str, argument: tuple[Snapshot | None, SplitConfig]
) -> dict[str, Any]:
    parent, config = argument
    columns = ["id", "domain", "content_hash", "num_bytes"]
    tables = [_kept(workspace, part.documents).select(columns) for part in _parts(workspace)]
    documents = ledger.concat(tables, pa.schema([DOCUMENTS.field(name) for name in columns]))
    known = set(parent.manifest.summary["domains"]) if parent is not None else set()
    inherited = {
        row["id"]: row["split"] for row in workspace.read_table("near/inherits").to_pylist()
    }
    splits = assign_splits(documents, config.validation, known, inherited)
    workspace.write_table("split/all", pa.table({"id": documents["id"], "split": splits}))
    counts = Counter(splits.to_pylist())
    return {"train": counts["train"], "validation": counts["validation"]}


def _tokenizer_task(
    workspace: Workspace, _name: str, argument: tuple[Snapshot | None, TokenizerConfig]
) -> dict[str, Any]:
    parent, config = argument
    path = f"{workspace.data}/tokenizer.model"
    if parent is not None and parent.manifest.tokenizer is not None:
        workspace.lake.write_bytes(path, parent.tokenizer_bytes())
        return {key: parent.manifest.summary["tokenizer"][key] for key in _TOKENIZER_KEYS}
    splits = workspace.read_table("split/all")
    training = splits.filter(pc.equal(splits["split"], "train"))["id"].combine_chunks()
    tables = []
    for record in workspace.records("filter"):
        table = workspace.read_table(record["name"]).select(["id", "domain", "text"])
        tables.append(table.filter(pc.is_in(table["id"], training)))
    if not any(map(len, tables)):
        raise InputError(_nothing_kept(workspace))
    result = train_tokenizer(tables, config)
    workspace.lake.write_bytes(path, result.model)
    return {key: getattr(result, key) for key in _TOKENIZER_KEYS}


def _nothing_kept(workspace: Workspace) -> str:
    read = workspace.records("read")
    names = [record["fates"] for record in read]
    names += [f"{record['name']}-fates" for record in workspace.records("filter")]
    fates = ledger.concat(map(workspace.read_table, names), FATES)
    why = [ledger.reasons(fates), skipped.in_words(ingest.all_skipped(read))]
    return (
        "expected at least one document to keep and to train a tokenizer on, got none; removed: "
        f"{'; '.join(filter(None, why))}; nothing was published, repair the sources or the recipe's rules"
    )


_TOKENIZER_KEYS = ("vocab_size", "requested_vocab_size", "note")


def _shard_task(workspace: Workspace, name: str, argument: tuple[str, str, int]) -> dict[str, Any]:
    filtered, signed, version = argument
    lake, data = workspace.lake, workspace.data
    documents = _kept(workspace, filtered)
    splits = workspace.read_table("split/all")
    rows = pc.index_in(documents["id"], splits["id"].combine_chunks())
    column = documents.schema.get_field_index("split")
    documents = documents.set_column(column, DOCUMENTS.field("split"), splits["split"].take(rows))
    signatures = workspace.read_table(signed)
    signatures = signatures.filter(pc.is_in(signatures["id"], documents["id"].combine_chunks()))
    shards = _duplicate_shards(workspace, name, filtered, version)
    if not len(documents):
        return {"shards": [asdict(shard) for shard in shards], "documents": 0, "domains": {}}
    vocab_size = workspace.records("tokenizer")[0]["vocab_size"]
    tokens = encode_shard(documents, lake.read_bytes(f"{data}/tokenizer.model"), vocab_size)
    shards += [
        write_shard(
            lake, f"{data}/documents-{name}.arrow", documents.cast(DOCUMENTS), version=version
        ),
        write_shard(lake, f"{data}/signatures-{name}.arrow", signatures, version=version),
    ]
    for split, table in sorted(tokens.items()):
        if len(table):
            path = f"{data}/tokens-{split}-{name}.arrow"
            count = count_tokens(table)
            shards.append(
                write_shard(lake, path, table, version=version, split=split, num_tokens=count)
            )
    return {
        "shards": [asdict(shard) for shard in shards],
        "documents": len(documents),
        "domains": figures(documents, tokens),
    }


def _duplicate_shards(workspace: Workspace, name: str, filtered: str, version: int) -> list[Shard]:
    """The near-duplicates among the documents of a filtered part, whole, with the kept document that each repeats."""
    documents, removed = workspace.read_table(filtered), workspace.read_table("near/removed")
    rows = pc.index_in(documents["id"], removed["id"].combine_chunks())
    duplicates = documents.filter(pc.is_valid(rows))
    if not len(duplicates):
        return []
    reasons = removed.take(rows.drop_null())
    for column in ("duplicate_of", "similarity", "rule"):
        duplicates = duplicates.append_column(column, reasons[column])
    path = f"{workspace.data}/duplicates-{name}.arrow"
    return [write_shard(workspace.lake, path, duplicates.cast(DUPLICATES), version=version)]


def _fates_task(
    workspace: Workspace, _name: str, argument: tuple[Snapshot | None, int, DedupConfig]
) -> dict[str, Any]:
    parent, version, config = argument
    lake, data = workspace.lake, workspace.data
    read_records, filter_records = workspace.records("read"), workspace.records("filter")
    near, exact = workspace.read_table("near/removed"), workspace.read_table("exact/removed")
    again = _concat_again(workspace)
    is_again = pc.is_in(near["id"], value_set=again["id"].combine_chunks())
    fates = ledger.settle(
        ledger.concat(
            (ledger.identity_of(workspace.read_table(part)) for part in ingest.parts(workspace)),
            ledger.IDENTITY,
        ),
        ledger.concat((workspace.read_table(record["fates"]) for record in read_records), FATES),
        ledger.concat(
            (workspace.read_table(f"{record['name']}-fates") for record in filter_records), FATES
        ),
        exact,
        near.select(["id", "duplicate_of", "similarity", "rule"]).filter(pc.invert(is_again)),
        workspace.read_table("exact/blocked")["id"].to_pylist(),
    )
    shards = []
    for number, start in enumerate(range(0, len(fates), FATES_PER_SHARD)):
        path = f"{data}/fates-{number:05}.arrow"
        shards.append(write_shard(lake, path, fates.slice(start, FATES_PER_SHARD), version=version))

    samples = [workspace.read_table(record["rejects"]) for record in read_records]
    samples += [workspace.read_table(f"{record['name']}-rejects") for record in filter_records]
    samples.append(_duplicate_samples(workspace, fates))
    candidates = ledger.concat(samples, REJECTS)
    chosen = pa.array(ledger.choose_samples(candidates, 2 * ingest.SAMPLES_PER_RULE), pa.string())
    rejects = candidates.filter(pc.is_in(candidates["id"], chosen)).sort_by("id")
    shards.append(write_shard(lake, f"{data}/rejects-00000.arrow", rejects, version=version))

    edges = workspace.read_table("near/edges")
    shards.append(write_shard(lake, f"{data}/edges-00000.arrow", edges, version=version))
    runs, replaced = write_runs(workspace, parent, version, config)
    shards += runs
    templates = workspace.read_table("near/templates")
    if not templates.equals(stored_templates(parent)) and config.template_share is not None:
        path = f"{data}/templates-00000.arrow"
        shards.append(write_shard(lake, path, templates, version=version))
        replaced += [shard.path for shard in parent.shards("templates")] if parent else []
    gone, counts = {}, {}
    if parent is not None and len(again):
        changes = ledger.change(parent.fates(), again["id"].combine_chunks(), near)
        stones = tombstones_of(again.sort_by("id"), "displaced")
        for kind, table in (("tombstones", stones), ("changes", changes)):
            path = f"{data}/{kind}-00000.arrow"
            shards.append(write_shard(lake, path, table, version=version))
        was_kept = pc.is_null(again["duplicate_of"])
        gone = figures_of(parent, again["id"].filter(was_kept).combine_chunks())
        goes = pc.is_in(again["id"], value_set=near["id"].combine_chunks())
        counts = {
            "displaced": pc.sum(pc.and_(was_kept, goes)).as_py(),
            "restored": pc.sum(pc.invert(pc.or_(was_kept, goes))).as_py(),
            "moved": pc.sum(pc.and_(pc.invert(was_kept), goes)).as_py(),
        }
    similarities = edges["jaccard"].to_pylist()
    return {
        "shards": [asdict(shard) for shard in shards],
        "replaced": replaced,
        "gone": gone,
        "rebuild": counts,
        "documents": len(fates),
        "funnel": ledger.funnel(fates),
        "rules": ledger.rule_counts(fates),
        # Position k counts pairs of Jaccard similarity k/20 to (k+1)/20.
        "near_duplicates": {
            "edges": len(edges),
            "jaccard_twentieths": histogram(
                [min(int(value * 20), 19) for value in similarities], 20
            ),
            **_guarded(workspace, templates, config),
        },
    }


def _guarded(workspace: Workspace, templates: pa.Table, config: DedupConfig) -> dict[str, Any]:
    """What the guard against templates did: their shingles by source, and pairs that it kept apart; {} if it is off."""
    if config.template_share is None:
        return {}
    counts = Counter(templates["source"].to_pylist())
    return {
        "templates": dict(sorted(counts.items())),
        "kept_apart": workspace.records("near")[0]["templated"],
    }


def _concat_again(workspace: Workspace) -> pa.Table:
    """id, content_hash and duplicate_of (null if it was kept) of the documents that were decided anew."""
    names = ("id", "content_hash", "duplicate_of")
    empty = pa.schema([pa.field(name, pa.string()) for name in names]).empty_table()
    tables = [workspace.read_table(f"{name}-before") for name in _again(workspace)]
    return pa.concat_tables([empty, *(table.cast(empty.schema) for table in tables)])


def write_runs(
    workspace: Workspace, parent: Snapshot | None, version: int, config: DedupConfig
) -> tuple[list[Shard], list[str]]:
    """The runs of sorted keys that the new snapshot adds, and the paths of those that it replaces."""
    written = [
        Shard(**shard) for record in workspace.records("shards") for shard in record["shards"]
    ]
    signatures, documents = (
        [workspace.open_shard(shard) for shard in written if shard.kind == kind]
        for kind in ("signatures", "documents")
    )
    runs, replaced = next_runs(parent, signatures, documents, config)
    lake, data = workspace.lake, workspace.data
    shards = [
        write_shard(lake, f"{data}/{kind}-00000.arrow", run, version=version)
        for kind, run in runs.items()
    ]
    return shards, replaced


def _duplicate_samples(workspace: Workspace, fates: pa.Table) -> pa.Table:
    """Samples of documents removed as duplicates; their texts still lie in the parts of the read stage."""
    duplicates = fates.filter(pc.equal(fates["fate"], "duplicate"))
    chosen = pa.array(ledger.choose_samples(duplicates, 2 * ingest.SAMPLES_PER_RULE), pa.string())
    texts: dict[str, str | None] = {}
    for part in ingest.parts(workspace):
        table = workspace.read_table(part).select(["id", "text"])
        found = table.filter(pc.is_in(table["id"], chosen))
        texts |= dict(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))
    return ledger.rejects(duplicates, texts)
