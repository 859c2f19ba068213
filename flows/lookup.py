"""Commands that only read: inspect, dump, hash."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flows.output import Output
from flows.runs import is_run, newest_run, run_in_folder
from flows.tables import (
    domains_table,
    funnel_table,
    gates_table,
    rules_table,
    skipped_table,
    totals,
)
from pipeline.display import size
from pipeline.domain_notes import domain_notes
from pipeline.recall_view import guard_in_words, in_words
from pipeline.skipped import in_summary
from storage.catalog import list_corpora, read_manifest, resolve, versions
from storage.errors import ConfigError, InputError, NotFoundError
from storage.lake import Lake
from storage.snapshot import Manifest
from storage.times import moment

if TYPE_CHECKING:
    from rich.console import Console

DUMPED = ("id", "text", "domain", "uri")
"""Columns of a kept document that `dump` prints."""

ROWS_AT_ONCE = 1024
"""Rows turned into Python objects at a time; a shard has up to some 100,000."""


def inspect_snapshot(output: Output, ref: str, location: str, *, report: str | None) -> None:
    """Show what a snapshot is and where its documents went; with `report`, write the HTML page there as well."""
    lake = Lake.open(location)
    snapshot = resolve(lake, ref)
    if report is not None:
        from flows.report import render  # late: jinja2, and every reject of the snapshot

        page = render(lake, snapshot, newest_run(lake, snapshot.ref))
        try:
            Path(report).write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--report {report}: cannot be written: {error.strerror}") from error
        output.note(f"report: {report}")
    manifest = snapshot.manifest
    output.result(describe(manifest), lambda console: _show(console, manifest))


def inspect_lake(output: Output, location: str, *, report: str | None) -> None:
    """List the corpora, their snapshots and the runs of a lake."""
    if report is not None:
        raise ConfigError("--report: expected a snapshot to report on; name one, such as corpus@3")
    lake = Lake.open(location)
    corpora = {
        name: [_line(read_manifest(lake, name, version)) for version in versions(lake, name)]
        for name in list_corpora(lake)
    }
    runs = lake.list_folders("runs")
    document = {"lake": lake.url, "corpora": corpora, "runs": runs}

    def show(console: "Console") -> None:
        console.print(f"lake {lake.url}")
        for lines in corpora.values():
            for line in lines:
                console.print(
                    f"  {line['snapshot']}  {line['status']}  {line['documents']:,} documents  "
                    f"{line['tokens']:,} tokens  {moment(line['created_at'], None)}"
                )
        for run in runs:
            console.print(f"  run {run}")
        if not corpora and not runs:
            console.print("  nothing yet; 'gristmill run quickstart' is a start")

    output.result(document, show)


def _line(manifest: Manifest) -> dict[str, Any]:
    domains = manifest.summary["domains"].values()
    return {
        "snapshot": f"{manifest.name}@{manifest.version}",
        "status": manifest.status,
        "documents": sum(domain["documents"] for domain in domains),
        "tokens": sum(domain["tokens"] for domain in domains),
        "created_at": manifest.commit.get("created_at"),
    }


def describe(manifest: Manifest) -> dict[str, Any]:
    """A manifest without its long lists: what `inspect --json` prints."""
    return {
        "snapshot": f"{manifest.name}@{manifest.version}",
        "hash": manifest.hash(),
        "status": manifest.status,
        "parent": manifest.parent,
        "code_version": manifest.code_version,
        "recipe_fingerprint": manifest.recipe_fingerprint,
        "documents": totals(manifest.funnel),
        "funnel": manifest.funnel,
        "gates": list(manifest.gates),
        "inputs": {
            "files": len(manifest.inputs),
            "num_bytes": sum(found.num_bytes for found in manifest.inputs),
        },
        "shards": {
            "files": len(manifest.shards),
            "num_bytes": sum(shard.num_bytes for shard in manifest.shards),
        },
        "tokenizer": manifest.tokenizer,
        "commit": dict(manifest.commit),
        "summary": manifest.summary,
        "notes": domain_notes(manifest),
    }


def _show(console: "Console", manifest: Manifest) -> None:
    about = describe(manifest)
    console.print(f"{about['snapshot']}  {manifest.status}  {about['hash']}")
    console.print(
        f"made {moment(manifest.commit.get('created_at'), None)} by gristmill {manifest.code_version}, "
        f"{about['inputs']['files']:,} inputs ({size(about['inputs']['num_bytes'])}), "
        f"{about['shards']['files']:,} shards ({size(about['shards']['num_bytes'])})",
        soft_wrap=True,
    )
    for table in (
        funnel_table(manifest.funnel),
        skipped_table(in_summary(manifest.summary)),
        rules_table(manifest.summary.get("rules", [])),
        domains_table(manifest.summary),
        gates_table(manifest.gates),
    ):
        if table.row_count:
            console.print()
            console.print(table)
    summary = manifest.summary
    for told in (
        in_words(summary.get("recall", {})),
        guard_in_words(summary.get("near_duplicates", {})),
    ):
        if told:
            console.print()
            console.print(told, soft_wrap=True)
    for note in [*manifest.summary.get("notes", []), *domain_notes(manifest)]:
        console.print(f"note: {note}", soft_wrap=True)


def dump_snapshot(output: Output, ref: str, location: str, *, fates: bool) -> None:
    """Print documents or fates of a snapshot, its parents' included, a JSON line each (with --json, one array)."""
    snapshot = resolve(Lake.open(location), ref)
    tables = snapshot.fates() if fates else (t.select(DUMPED) for t in snapshot.documents())
    rows = (
        row for t in tables for batch in t.to_batches(ROWS_AT_ONCE) for row in batch.to_pylist()
    )
    before = b"[\n" if output.as_json else b""
    for row in rows:
        output.write_json(before + orjson.dumps(row))
        before = b",\n" if output.as_json else b"\n"
    if output.as_json:
        output.write(b"\n]\n" if before == b",\n" else b"[]\n")
    else:
        output.write(b"\n" if before else b"")
    output.flush()
    output.has_result = True


def hash_of(output: Output, ref: str, location: str) -> None:
    """Print the hash of a snapshot (`corpus`, `corpus@3`) or of a run (its name, or its folder)."""
    lake = Lake.open(location)
    in_folder = run_in_folder(ref)
    if in_folder is not None:
        found = _run_hash(*in_folder)
    elif ref not in list_corpora(lake) and is_run(lake, ref):
        found = _run_hash(lake, ref)
    else:
        try:
            found = resolve(lake, ref).hash
        except NotFoundError as error:
            runs = lake.list_folders("runs")
            known = f"; runs: {', '.join(runs)}" if runs and "@" not in ref else ""
            raise NotFoundError(f"{error}{known}") from error
    output.result({"ref": ref, "hash": found}, lambda console: console.print(found))


def _run_hash(lake: Lake, run: str) -> str:
    from model.checkpoint import run_hash  # late: torch, and snapshots need none

    return run_hash(lake, run)
