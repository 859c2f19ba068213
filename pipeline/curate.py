"""From documents to those worth keeping: judge each one, then find near-duplicates among all of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import ingest, ledger
from pipeline.canaries import plant
from pipeline.decontaminate import (
    DecontaminateConfig,
    EvalIndex,
    build_eval_index,
    judge_contamination,
)
from pipeline.dedup import DedupConfig, NewDocuments, near_duplicates
from pipeline.executor import Executor
from pipeline.filters import QualityConfig, judge_quality
from pipeline.language import LanguageConfig, identify_language, judge_language
from pipeline.minhash import sign_documents
from pipeline.pii import PiiConfig, redact_pii
from pipeline.rebuild import duplicates_of, rebuild
from pipeline.recall import measure
from pipeline.runs import Published
from pipeline.stage import Progress, Workspace, run_tasks
from pipeline.toxicity import ToxicityConfig, judge_toxicity, score_toxicity
from storage.schema import DOCUMENTS, FATES, REJECTS
from storage.snapshot import Snapshot


@dataclass(frozen=True)
class Filters:
    """The sections of a recipe that judge documents one by one, in the order in which they are applied."""

    quality: QualityConfig
    language: LanguageConfig
    toxicity: ToxicityConfig
    pii: PiiConfig
    decontaminate: DecontaminateConfig
    root: Path
    """Folder of the recipe: paths of evaluation sets are relative to it."""
    evaluation_sets: tuple[str, ...] = ()
    """Fingerprints of the evaluation sets, in the recipe's order; empty: they are taken as they are."""


def filter_documents(
    workspace: Workspace, filters: Filters, executor: Executor, progress: Progress
) -> dict[str, int]:
    """Stage 3: quality, language, toxicity, personal data and contamination, document by document."""
    tasks = [
        (f"{number:05}", (part, filters)) for number, part in enumerate(ingest.parts(workspace))
    ]
    records = run_tasks(workspace, "filter", tasks, _filter_part, executor, progress)
    return {
        "documents": sum(record["documents"] for record in records),
        "dropped": sum(record["dropped"] for record in records),
    }


def sign_all(
    workspace: Workspace, config: DedupConfig, executor: Executor, progress: Progress
) -> dict[str, int]:
    """Stage 4: MinHash signatures of what is left."""
    names = [record["name"] for record in workspace.records("filter")]
    tasks = [(f"{number:05}", (name, config)) for number, name in enumerate(names)]
    records = run_tasks(workspace, "sign", tasks, _sign_part, executor, progress)
    return {"documents": sum(record["documents"] for record in records)}


def find_near_duplicates(
    workspace: Workspace,
    parent: Snapshot | None,
    config: DedupConfig,
    sources: Sequence[str],
    executor: Executor,
    progress: Progress,
    *,
    finds_templates: bool = True,
) -> dict[str, int]:
    """Stage 5: near-duplicates among the new documents and against the published ones, and how many are found."""
    tasks = [("all", (parent, config, tuple(sources), executor, finds_templates))]
    records = run_tasks(workspace, "near", tasks, _near_task, Executor(), progress, "steps")
    return {key: records[0][key] for key in ("documents", "duplicate", "edges")}


def _filter_part(workspace: Workspace, name: str, argument: tuple[str, Filters]) -> dict[str, Any]:
    part, filters = argument
    table = workspace.read_table(part)
    copies = ingest.taken_out(workspace)
    stats: Counter[str] = Counter()
    kept: list[pa.RecordBatch] = []
    fates: list[pa.Table] = []
    samples: list[pa.Table] = []
    for batch in table.filter(pc.invert(pc.is_in(table["id"], copies))).to_batches():
        survivors, dropped, texts = _judge(batch, filters, stats)
        kept.append(survivors)
        fates.append(dropped)
        samples.append(texts)
    drops = ledger.concat(fates, FATES)
    survivors = pa.Table.from_batches(kept, DOCUMENTS)
    workspace.write_table(f"filter/{name}", survivors)
    workspace.write_table(f"filter/{name}-fates", drops)
    workspace.write_table(f"filter/{name}-rejects", ledger.concat(samples, REJECTS))
    return {
        "name": f"filter/{name}",
        "documents": len(survivors),
        "dropped": len(drops),
        "pii": {key: count for key, count in sorted(stats.items()) if count},
    }


def _judge(
    batch: pa.RecordBatch, filters: Filters, stats: Counter[str]
) -> tuple[pa.RecordBatch, pa.Table, pa.Table]:
    """The survivors of a batch, the fates of the others, and samples of their texts."""
    fates: list[pa.Table] = []
    original = batch

    def apply(stage: str, verdicts: pa.StructArray) -> None:
        nonlocal batch
        fates.append(ledger.dropped(batch, stage, verdicts))
        batch = batch.filter(pc.is_null(verdicts.field("rule")))

    if filters.quality.enabled:
        apply("quality", judge_quality(batch, filters.quality))
    if filters.language.detect:
        batch = identify_language(batch, filters.language)
        apply("language", judge_language(batch, filters.language))
    if filters.toxicity.enabled:
        batch = _with_column(batch, "toxicity", score_toxicity(batch))
        apply("toxicity", judge_toxicity(batch, filters.toxicity))
    if filters.decontaminate.sets:
        index = _eval_index(filters.decontaminate, filters.root, filters.evaluation_sets)
        apply("decontaminate", judge_contamination(batch, index, filters.decontaminate))
    if filters.pii.enabled:
        batch = redact_pii(batch, filters.pii, stats)
    dropped = ledger.concat(fates, FATES)
    chosen = pa.array(ledger.choose_samples(dropped, ingest.SAMPLES_PER_RULE), pa.string())
    shown = original.filter(pc.is_in(original["id"], chosen))
    texts = dict(zip(shown["id"].to_pylist(), shown["text"].to_pylist(), strict=True))
    return batch, dropped, ledger.rejects(dropped, texts)


@lru_cache(maxsize=1)
def _eval_index(
    config: DecontaminateConfig, root: Path, fingerprints: tuple[str, ...]
) -> EvalIndex:
    """The index is built once a process; the recipe's fingerprint holds the content of the sets."""
    return build_eval_index(config, root, fingerprints)


def _with_column(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    columns = [values if field.name == name else batch[field.name] for field in DOCUMENTS]
    return pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS)


def _sign_part(
    workspace: Workspace, name: str, argument: tuple[str, DedupConfig]
) -> dict[str, Any]:
    source, config = argument
    signatures = sign_documents(workspace.read_table(source), config)
    workspace.write_table(f"sign/{name}", signatures)
    return {"name": f"sign/{name}", "documents": len(signatures)}


def _near_task(
    workspace: Workspace,
    _name: str,
    argument: tuple[Snapshot | None, DedupConfig, tuple[str, ...], Executor, bool],
) -> dict[str, Any]:
    parent, config, sources, executor, finds_templates = argument
    documents = [workspace.read_table(record["name"]) for record in workspace.records("filter")]
    signatures = [workspace.read_table(record["name"]) for record in workspace.records("sign")]
    new = NewDocuments(documents=documents, signatures=signatures, sources=sources)
    published = Published.of(parent) if parent is not None else None
    planted = plant(documents, config, sources)
    # Elsewhere, the files of a lake in a bucket are not to be seen.
    is_seen = workspace.lake.is_local or executor.is_local
    options: dict[str, Any] = {
        "probes": planted.probes,
        "executor": executor if is_seen else Executor(),
    }
    again: Sequence[pa.Table] = ()
    with workspace.scratch("near") as folder:
        options["folder"] = folder
        if parent is None or published is None or config.policy == "append":
            options["finds_templates"] = finds_templates
            found = near_duplicates(new, published, config, **options)
        else:
            rebuilt = rebuild(new, published, partial(duplicates_of, parent), config, **options)
            found, again = rebuilt.found, rebuilt.again
            for number, tables in enumerate(zip(again, rebuilt.signatures, strict=True)):
                _write_again(workspace, number, *tables)
    workspace.write_table("near/edges", found.edges)
    workspace.write_table("near/removed", found.removed)
    workspace.write_table("near/inherits", found.inherits)
    workspace.write_table("near/templates", found.templates)
    count = sum(len(table) for table in documents)
    removed = found.removed["id"].combine_chunks()
    again_removed = sum(pc.sum(pc.is_in(table["id"], removed)).as_py() or 0 for table in again)
    return {
        "documents": count,
        "duplicate": len(found.removed) - again_removed,
        "edges": len(found.edges),
        "pairs": found.num_pairs,
        "templated": found.num_templated,
        "again": len(again),
        "recall": measure(planted, found, [*documents, *again], config),
    }


def _write_again(workspace: Workspace, number: int, table: pa.Table, signatures: pa.Table) -> None:
    """Write a part of documents that compete again: as if they were new, and what they were before."""
    documents = table.select(DOCUMENTS.names)
    column = DOCUMENTS.get_field_index("split")
    blank = pa.array([""] * len(table), pa.string())
    workspace.write_table(
        f"near/again-{number:05}", documents.set_column(column, DOCUMENTS.field(column), blank)
    )
    workspace.write_table(f"near/again-{number:05}-signatures", signatures)
    before = table.select(["id", "content_hash", "duplicate_of"])
    workspace.write_table(f"near/again-{number:05}-before", before)
