"""`gc --purge`: what it would remove and break, the question before it, and the work."""

import sys
from typing import Any

from flows.output import Output, say
from flows.progress import show_progress
from pipeline.display import plural
from storage.catalog import list_corpora
from storage.errors import ConfigError, Interrupted
from storage.lake import Entry, Lake
from storage.purge import PurgePlan, drop_older, plan_purge, publish_purged

Row = dict[str, Any]


def purge_lake(
    output: Output, lake: Lake, rows: list[Row], removed: list[Entry], *, dry_run: bool, yes: bool
) -> None:
    """Purge every corpus of a lake that has forgotten something; adds what was done, and the files removed.

    A dry run adds what would be. Raises ConfigError where it would have to ask and nobody can answer, Interrupted
    on a no. If it fails after it has published a snapshot, the last row says so (`is_complete` false).
    """
    for name in list_corpora(lake):
        if dry_run:
            plan = plan_purge(lake, name)
            if plan is not None and plan.is_needed:
                rows.append(_row(plan))
                removed += plan.files
            continue
        with lake.lock(f"build-{name}", doing=f"purging '{name}'"):
            plan = plan_purge(lake, name)
            if plan is None or not plan.is_needed:
                continue
            if not yes:
                _ask(output, _row(plan))
            with show_progress(output) as progress:
                stays = publish_purged(plan, progress=progress)
            rows.append(_row(plan) | {"in_their_place": stays.ref, "hash": stays.hash()})
            rows[-1]["is_complete"] = False
            removed += drop_older(plan, stays)
            rows[-1]["is_complete"] = True


def purge_lines(row: Row, *, dry_run: bool) -> list[str]:
    """What purging a corpus does, or would do, for people."""
    dropped = ", ".join(row["dropped"]) or "no snapshot"
    verb = "would drop" if dry_run else "dropped"
    if not row.get("is_complete", True):
        verb = "has not finished to drop"
    lines = [f"{row['corpus']}: {verb} {dropped}, where forgotten documents lie"]
    if row["rewritten"]:
        what = plural(row["rewritten"], "shard")
        again = f" as {row['in_their_place']}" if "in_their_place" in row else ""
        lines.append(f"  {what} written again without them{again}; all else stays as it is")
    for run in row["runs"]:
        lines.append(
            f"  run {run['run']} was trained on {run['snapshot']}: it can be sampled and evaluated, not trained further"
        )
    return lines


def _row(plan: PurgePlan) -> Row:
    name = plan.newest.manifest.name
    return {
        "corpus": name,
        "dropped": [f"{name}@{version}" for version in plan.drop],
        "rewritten": len(plan.rewrite),
        "runs": [{"run": run, "snapshot": f"{name}@{version}"} for run, version in plan.runs],
    }


def _ask(output: Output, row: Row) -> None:
    lines = purge_lines(row, dry_run=True)
    if output.as_json or not sys.stdin.isatty():
        raise ConfigError(
            "gc --purge: this cannot be undone, and nobody can be asked here; look with --dry-run and say --yes:\n  "
            + "\n  ".join(lines)
        )
    for line in lines:
        say(line, sys.stderr)
    say("go on? [y/N] ", sys.stderr)
    if input().strip().lower() not in ("y", "yes"):
        raise Interrupted("nothing was removed; if you change your mind")
