"""Commands that keep a lake in order: verify, gc."""

import time
from typing import TYPE_CHECKING

from flows.output import Output
from flows.progress import show_progress
from flows.purging import Row, purge_lake, purge_lines
from pipeline.display import duration, plural, size
from storage.catalog import gc, verify
from storage.errors import ConfigError, CorruptError, LakeError, NotFoundError
from storage.lake import Entry, Lake

if TYPE_CHECKING:
    from rich.console import Console


def verify_lake(output: Output, location: str, ref: str | None) -> None:
    """Read everything that a snapshot needs, without `ref` all snapshots and checkpoints, and compare checksums.

    Raises CorruptError with every problem found, after the result is printed.
    """
    lake = Lake.open(location)
    if ref is None and not lake.list_folders("corpora") and not lake.list_folders("runs"):
        raise NotFoundError(
            f"{lake}: expected a lake with corpora or runs, found nothing to verify"
        )
    start = time.monotonic()
    with show_progress(output) as progress:
        problems = verify(lake, ref, progress)
        if ref is None and lake.list_folders("runs"):
            from model.checkpoint import verify_runs  # late: torch takes more than a second

            problems += verify_runs(lake)
    what = ref or lake.url
    took = duration(time.monotonic() - start)

    def show(console: "Console") -> None:
        if not problems:
            console.print(f"{what}: sound, all checksums agree ({took})")

    output.result({"verified": what, "sound": not problems, "problems": problems}, show)
    if problems:
        raise CorruptError(
            f"{what}: {plural(len(problems), 'problem')}:\n  " + "\n  ".join(problems)
        )


def collect_lake(
    output: Output,
    location: str,
    *,
    dry_run: bool,
    min_age_s: float,
    purge: bool = False,
    yes: bool = False,
) -> None:
    """Remove what nothing reaches and is older than `min_age_s` seconds; with `purge`, first what was forgotten."""
    if yes and not purge:
        raise ConfigError("--yes: expected --purge with it; plain gc never asks")
    lake = Lake.open(location)
    purged: list[Row] = []
    found: list[Entry] = []
    failure = None
    try:
        if purge:
            purge_lake(output, lake, purged, found, dry_run=dry_run, yes=yes)
        found += gc(lake, dry_run=dry_run, min_age_s=min_age_s)
    except LakeError as error:
        if not purged:
            raise
        failure = error  # what was published is told all the same
    removed = sorted(set(found), key=lambda entry: entry.path)
    num_bytes = sum(entry.num_bytes for entry in removed)
    document = ({"purged": purged} if purge else {}) | {
        "dry_run": dry_run,
        "removed": [{"path": entry.path, "num_bytes": entry.num_bytes} for entry in removed],
        "num_bytes": num_bytes,
    }

    def show(console: "Console") -> None:
        for row in purged:
            for line in purge_lines(row, dry_run=dry_run):
                console.print(line, soft_wrap=True)
        if purge and not purged:
            console.print("nothing to purge: no file holds a forgotten document")
        for entry in removed:
            console.print(f"{entry.path}  {size(entry.num_bytes)}", soft_wrap=True)
        verb = "would remove" if dry_run else "removed"
        console.print(f"{verb} {plural(len(removed), 'file')}, {size(num_bytes)}")

    output.result(document, show)
    if failure is not None:
        raise failure
