"""Forgetting: documents leave a corpus by the next snapshot, and their best near-duplicates come back in their place.

Shards never change, so a forgotten document gets a tombstone, which every reader of this and later snapshots honours.
Its text stays blocked: a build that meets it again gives it the fate "forgotten". Near-duplicates that were removed in
favour of a forgotten document compete once more, by the rules of the recipe, against what stays.

A forgetting is a build without inputs: the same workspace and stages, so a killed one goes on to the same snapshot.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from importlib.metadata import version as package_version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import curate, ledger, publish
from pipeline.dedup import DedupConfig
from pipeline.display import plural
from pipeline.executor import Executor
from pipeline.figures import figures_of, summarize_change
from pipeline.mixture import MixConfig
from pipeline.prepare import compile_loops
from pipeline.rebuild import duplicates_of
from pipeline.selection import Selection
from pipeline.stage import Progress, Workspace, no_progress, run_tasks
from pipeline.tokenizer import TokenizerConfig
from storage.catalog import next_version, read_manifest, versions
from storage.errors import NotFoundError
from storage.fence import build_folder
from storage.lake import Lake
from storage.schema import CHANGES, DOCUMENTS, FATES
from storage.shard import Shard, write_shard
from storage.snapshot import Manifest, Snapshot, commit_snapshot
from storage.tombstones import tombstones_of

logger = logging.getLogger(__name__)

CANDIDATES_PER_PART = 50_000
"""Documents that compete, in one part: as many as a shard of a build has at most, roughly."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One forgetting: what goes, from which snapshot, and where the files of the next one go."""

    parent: Snapshot
    version: int
    build_id: str
    selection: Selection
    workspace: Workspace


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What a forgetting did."""

    manifest: Manifest
    restored: list[dict[str, str]]
    """id, uri and in_place_of of each document that came back."""


BeforeCommit = Callable[[Plan, Manifest, list[dict[str, str]]], None]
"""Called with all that will be published, just before it is."""


def newest_promoted(lake: Lake, name: str) -> Snapshot:
    """The snapshot that the next one of a corpus goes on top of. Raises NotFoundError if there is none."""
    for number in reversed(versions(lake, name)):
        manifest = read_manifest(lake, name, number)
        if manifest.status == "promoted":
            return Snapshot(lake, manifest)
    raise NotFoundError(
        f"{name}: expected a promoted snapshot in {lake}, found none; there is nothing to forget in"
    )


def make_plan(parent: Snapshot, selection: Selection) -> Plan:
    """Name the forgetting after what goes and from what: the same one has the same files, and goes on where it stopped."""
    lake, name = parent.lake, parent.manifest.name
    what = {
        "forget": selection.documents["id"].to_pylist(),
        "parent": parent.hash,
        "code_version": package_version("gristmill"),
    }
    build_id = blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8).hexdigest()
    corpus, folder = f"corpora/{name}", build_folder(lake, name, build_id)
    return Plan(
        parent=parent,
        version=next_version(lake, name),
        build_id=build_id,
        selection=selection,
        workspace=Workspace(lake, f"{corpus}/work/{folder}", f"{corpus}/data/{folder}"),
    )


def forget(
    plan: Plan,
    *,
    executor: Executor | None = None,
    progress: Progress = no_progress,
    before_commit: BeforeCommit = lambda _plan, _manifest, _restored: None,
) -> Forgotten:
    """Publish the snapshot without the selected documents; the caller holds the corpus's build lock."""
    start = time.monotonic()
    workspace, parent, version = plan.workspace, plan.parent, plan.version
    executor = executor or Executor()
    recipe = parent.manifest.recipe
    # What stays was published and stays so, whatever the policy of builds.
    config = replace(DedupConfig(**recipe["dedup"]), policy="append")
    sources = [source["name"] for source in recipe["sources"]]

    def alone(stage: str, task: Callable[..., dict[str, Any]]) -> None:
        run_tasks(workspace, stage, [("all", plan)], task, Executor(), progress, "steps")

    compile_loops(config, executor, progress, filters=False)
    alone("candidates", _candidates_task)
    parts = [f"{i:05}" for i in range(workspace.records("candidates")[0]["parts"])]
    run_tasks(workspace, "filter", [(p, None) for p in parts], _part_task, Executor(), progress)
    alone("tombstones", _tombstones_task)
    stays = _what_stays(plan)
    curate.sign_all(workspace, config, executor, progress)
    # What a source's template is, few of its documents cannot tell: the corpus has it.
    curate.find_near_duplicates(
        workspace, stays, config, sources, executor, progress, finds_templates=False
    )
    alone("split", _split_task)
    publish.make_tokenizer(workspace, parent, TokenizerConfig(), progress)
    publish.write_shards(workspace, version, executor, progress)
    alone("fates", _changes_task)
    manifest = _manifest(plan, start)
    restored = workspace.records("fates")[0]["restored"]
    before_commit(plan, manifest, restored)
    manifest = commit_snapshot(workspace.lake, manifest)
    workspace.remove()
    return Forgotten(manifest=manifest, restored=restored)


def _candidates_task(workspace: Workspace, _name: str, plan: Plan) -> dict[str, Any]:
    """Copy out the stored near-duplicates of what is forgotten."""
    gone = plan.selection.documents["id"].combine_chunks()
    candidates = duplicates_of(plan.parent, gone)
    candidates = candidates.filter(pc.invert(pc.is_in(candidates["id"], gone))).sort_by("id")
    workspace.write_table("candidates/rows", candidates)
    return {"documents": len(candidates), "parts": -(-len(candidates) // CANDIDATES_PER_PART)}


def _part_task(workspace: Workspace, name: str, _nothing: None) -> dict[str, Any]:
    candidates = workspace.read_table("candidates/rows").select(DOCUMENTS.names)
    part = candidates.slice(int(name) * CANDIDATES_PER_PART, CANDIDATES_PER_PART)
    workspace.write_table(f"filter/{name}", part.cast(DOCUMENTS))
    return {"name": f"filter/{name}", "documents": len(part), "dropped": 0, "pii": {}}


def _tombstones_task(workspace: Workspace, _name: str, plan: Plan) -> dict[str, Any]:
    """The rows that no longer count: of what is forgotten, and of candidates, which are written anew."""
    gone, candidates = plan.selection.documents, workspace.read_table("candidates/rows")
    tables = [tombstones_of(gone, "forgotten"), tombstones_of(candidates, "displaced")]
    stones = pa.concat_tables(tables).sort_by("id")
    path = f"{workspace.data}/tombstones-00000.arrow"
    shard = write_shard(workspace.lake, path, stones, version=plan.version)
    return {"shards": [asdict(shard)]}


def _what_stays(plan: Plan) -> Snapshot:
    """The parent under the new tombstones: what candidates compete with."""
    stones = Shard(**plan.workspace.records("tombstones")[0]["shards"][0])
    before = plan.parent.manifest
    manifest = replace(
        before,
        version=plan.version,
        build_id=plan.build_id,
        shards=(*before.shards, stones),
        funnel={},
    )
    return Snapshot(plan.parent.lake, manifest)


def _split_task(workspace: Workspace, _name: str, plan: Plan) -> dict[str, Any]:
    """A document that comes back has the split of the one it duplicated, or validates with one that it contains."""
    candidates = workspace.read_table("candidates/rows").select(["id", "duplicate_of"])
    inherits = workspace.read_table("near/inherits")
    wanted = {*candidates["duplicate_of"].to_pylist(), *inherits["split_of"].to_pylist()}
    split_of: dict[str, str] = {}
    for table in plan.parent.documents() if wanted else ():
        found = table.select(["id", "split"]).filter(pc.is_in(table["id"], _ids(wanted)))
        split_of |= dict(zip(found["id"].to_pylist(), found["split"].to_pylist(), strict=True))
    splits = {row["id"]: split_of[row["duplicate_of"]] for row in candidates.to_pylist()}
    for row in inherits.to_pylist():
        if split_of[row["split_of"]] == "validation":
            splits[row["id"]] = "validation"
    table = pa.table(
        {"id": pa.array(list(splits), pa.string()), "split": pa.array(splits.values(), pa.string())}
    )
    workspace.write_table("split/all", table)
    return {"documents": len(table)}


def _changes_task(workspace: Workspace, _name: str, plan: Plan) -> dict[str, Any]:
    """Every fate that changes: of what is forgotten, of candidates, and of their exact copies, which share theirs."""
    fates = _concat((t for t in plan.parent.fates()), FATES, FATES.names)
    candidates = workspace.read_table("candidates/rows")
    removed = {row["id"]: row for row in workspace.read_table("near/removed").to_pylist()}
    gone = plan.selection.documents
    why = dict(zip(gone["id"].to_pylist(), gone["why"].to_pylist(), strict=True))
    in_place_of = dict(
        zip(candidates["id"].to_pylist(), candidates["duplicate_of"].to_pylist(), strict=True)
    )
    ids = _ids({*why, *in_place_of})
    touched = fates.filter(pc.or_(pc.is_in(fates["id"], ids), pc.is_in(fates["copy_of"], ids)))
    blank: dict[str, Any] = dict.fromkeys(FATES.names)
    rows, restored = [], []
    for old in touched.sort_by("id").to_pylist():
        identity = {name: old[name] for name in ledger.IDENTITY.names}
        if old["id"] in why:
            new = {"fate": "forgotten", "stage": "forget", "rule": why[old["id"]]}
            rows.append(blank | identity | new)
            continue
        original = old["copy_of"] or old["id"]  # an exact copy shares what befell it
        rows.append(ledger.changed(old, original, removed.get(original)))
        if rows[-1]["fate"] == "kept":
            represented = in_place_of[old["id"]]
            restored.append({"id": old["id"], "uri": old["uri"], "in_place_of": represented})
    changes = pa.Table.from_pylist(rows, CHANGES)
    lake, data, version = workspace.lake, workspace.data, plan.version
    shards = [
        Shard(**workspace.records("tombstones")[0]["shards"][0]),
        write_shard(lake, f"{data}/changes-00000.arrow", changes, version=version),
    ]
    replaced: list[str] = []
    if restored:
        config = DedupConfig(**plan.parent.manifest.recipe["dedup"])
        runs, replaced = publish.write_runs(workspace, plan.parent, version, config)
        shards += runs
    edges = workspace.read_table("near/edges")
    if len(edges):
        shards.append(write_shard(lake, f"{data}/edges-00000.arrow", edges, version=version))
    return {
        "shards": [asdict(shard) for shard in shards],
        "replaced": replaced,
        "restored": restored,
    }


def _manifest(plan: Plan, start: float) -> Manifest:
    workspace, before = plan.workspace, plan.parent.manifest
    restored = workspace.records("fates")[0]["restored"]
    config = MixConfig(**before.recipe["mix"])
    added = publish.new_domains(workspace)
    gone = figures_of(plan.parent, plan.selection.documents["id"].combine_chunks())
    summary = summarize_change(before.summary, gone, added, config)
    competed = workspace.records("candidates")[0]["documents"]
    model = f"{workspace.data}/tokenizer.model"
    return replace(
        before,
        version=plan.version,
        parent=plan.parent.hash,
        build_id=plan.build_id,
        code_version=package_version("gristmill"),
        shards=publish.all_shards(workspace, plan.parent),
        tokenizer=before.tokenizer and before.tokenizer | {"path": model},
        funnel={},
        gates=[],
        summary=summary
        | {
            "forget": {
                "forgotten": len(plan.selection.documents),
                "restored": len(restored),
                "moved": competed - len(restored),
            },
            "notes": [_sentence(len(plan.selection.documents), len(restored))],
        },
        commit={"seconds": round(time.monotonic() - start, 3)},
    )


def _sentence(num_forgotten: int, num_restored: int) -> str:
    back = f"; {num_restored:,} came back in their place" if num_restored else ""
    gone = plural(num_forgotten, "document was", "documents were")
    return f"this snapshot read nothing: {gone} forgotten{back}"


def _concat(tables: Iterator[pa.Table], schema: pa.Schema, columns: list[str]) -> pa.Table:
    return ledger.concat(tables, pa.schema([schema.field(name) for name in columns]))


def _ids(values: set[str]) -> pa.Array:
    return pa.array(sorted(values), pa.string())


def _ids_where(table: pa.Table, column: str, values: set[str]) -> set[str]:
    return set(table.filter(pc.is_in(table[column], _ids(values)))["id"].to_pylist())
