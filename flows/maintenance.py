"""Prefect flow `maintain-lake`: read everything that matters and compare checksums, then remove what nothing needs.

A build or a training at work is not disturbed: it holds locks, and what it writes is young.
"""

import time
from collections.abc import Callable
from typing import Any

from prefect import flow, get_run_logger, runtime

from flows.deadline import deadline
from flows.parameters import Effort, Maintenance
from flows.progress import LineProgress
from flows.states import begun, end_state, rename_run
from flows.steps import RETRY_DELAYS_S, step
from flows.watch import show_logs
from model.records import read_object
from pipeline.display import plural, size
from storage.catalog import gc, verify
from storage.errors import CorruptError, GristmillError, OutOfTime
from storage.lake import Entry, Lake

EVENTS_KEPT_S = 90 * 86400.0
"""Age from which the record of a sent event is removed, unless it is the newest of its kind: it may be looked up yet."""
SHOWN_PROBLEMS = 10
"""Problems named in the run's state; the log has all."""


def _run_name() -> str:
    lake = Lake.open(runtime.flow_run.parameters["lake"])
    return f"{_name(lake)}-{begun()}"


def _name(lake: Lake) -> str:
    return lake.url.rsplit("/", 1)[-1]


@flow(name="maintain-lake", flow_run_name=_run_name, persist_result=False)
def maintain_lake(
    lake: str,
    maintenance: Maintenance = Maintenance(),  # noqa: B008 (frozen)
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Verify a lake and remove what nothing needs; gives what was found and done."""
    return end_state(lambda: _maintain(Lake.open(lake), maintenance, effort), _sentence)


def _maintain(lake: Lake, maintenance: Maintenance, effort: Effort) -> dict[str, Any]:
    show_logs(effort.log)
    done: dict[str, Any] = {}
    min_age_s = maintenance.min_age_hours * 3600
    name = f"{_name(lake)}-{begun()}"
    try:
        with deadline(effort.timeout_hours, f"looking after {lake}"):
            if maintenance.verify:
                done |= _step("Read and verify", lambda: _verify(lake))
            # Only in a sound lake: what nothing needs may be of use for a repair.
            if maintenance.collect:
                done |= _step("Remove what nothing needs", lambda: _collect(lake, min_age_s))
                done |= _step("Trim the records of events", lambda: _trim(lake))
    except GristmillError as error:
        is_damaged = isinstance(error, CorruptError)
        what = (
            "damaged" if is_damaged else "out of time" if isinstance(error, OutOfTime) else "failed"
        )
        rename_run(f"{name} {what}")
        raise
    rename_run(f"{name} {_sentence(done)}")
    return done


def _step(title: str, body: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return step(title, body, _sentence, retry_delays_s=RETRY_DELAYS_S)


def _verify(lake: Lake) -> dict[str, Any]:
    lines = LineProgress(lambda line: get_run_logger().info(line))
    problems = verify(lake, None, lines)
    lines.close()
    if lake.list_folders("runs"):
        from model.checkpoint import verify_runs  # late: torch takes more than a second

        problems += verify_runs(lake)
    for problem in problems:
        get_run_logger().error(problem)
    if problems:
        shown = "\n".join(f"- {problem}" for problem in problems[:SHOWN_PROBLEMS])
        raise CorruptError(
            f"{lake}: {plural(len(problems), 'problem')}, and nothing was removed. Repair what is named, then start this "
            f"run again:\n{shown}"
        )
    return {"sound": True}


def _collect(lake: Lake, min_age_s: float) -> dict[str, Any]:
    return {"removed": _told(gc(lake, min_age_s=min_age_s))}


def _trim(lake: Lake) -> dict[str, Any]:
    old = [entry for corpus in lake.list_folders("corpora") for entry in _old_events(lake, corpus)]
    for entry in old:
        lake.delete(entry.path)
    return {"events": _told(old)}


def _old_events(lake: Lake, corpus: str) -> list[Entry]:
    """Records of sent events that nobody asks for any more."""
    newest_first = sorted(lake.list(f"corpora/{corpus}/events"), key=lambda e: -e.modified)
    seen: set[str] = set()
    old = []
    for entry in newest_first:
        event = read_object(lake, entry.path, "remove the file")["event"]
        if event in seen and entry.modified < time.time() - EVENTS_KEPT_S:
            old.append(entry)
        seen.add(event)
    return old


def _told(entries: list[Entry]) -> dict[str, int]:
    return {"files": len(entries), "num_bytes": sum(entry.num_bytes for entry in entries)}


def _sentence(done: dict[str, Any]) -> str:
    parts = ["sound"] if "sound" in done else []
    if removed := done.get("removed"):
        parts.append(f"{plural(removed['files'], 'file')} removed ({size(removed['num_bytes'])})")
    if trimmed := done.get("events"):
        parts.append(f"{plural(trimmed['files'], 'event record')} trimmed")
    return ", ".join(parts) or "nothing asked for"
