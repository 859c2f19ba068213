"""Commands around a site: up, down, status."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.output import Output
from flows.server import prefect_answers
from flows.site_processes import (
    HAS_PROC,
    ROLES,
    SiteProcess,
    ask_to_end,
    end_processes,
    following,
    founding,
    held_roles,
    kill_processes,
    site_processes,
)
from flows.site_secret import LOCK, site_folder
from flows.site_settings import SiteOptions, check_versions
from pipeline.display import duration, plural
from storage.errors import BusyError, GristmillError, NotFoundError
from storage.lake import Lake
from storage.times import moment

if TYPE_CHECKING:
    from rich.console import Console

STOPPING = "site-down"
"""Lock of the one `gristmill down` that stops a site."""


def run_site(
    output: Output,
    recipes: Sequence[str],
    location: str,
    options: SiteOptions,
    *,
    build_now: bool,
) -> None:
    """Run a site until Ctrl-C or SIGTERM, which is its ordinary end. Raises BusyError if the lake has one."""
    start = time.monotonic()
    check_versions()
    from flows.site import Site, load_recipes  # late: pipeline and recipes, after the cheap checks

    loaded = load_recipes(recipes)
    lake = Lake.open(location)
    with lake.lock(LOCK, doing=f"running the site of {lake}"), founding(lake.locks):
        site = Site(output, lake, loaded, options)
        file = site.folder / "site.json"
        file.unlink(missing_ok=True)  # of a site that was killed
        _end_leftovers(output, lake)
        site.check()
        left: list[SiteProcess] = []
        try:
            output.note(f"starting the site of {lake} ...")
            site.start()
            site.write_description()
            document = site.describe() | {"ready_s": round(time.monotonic() - start, 1)}
            output.result(document, lambda console: _show_ready(console, document))
            if build_now:
                site.build_now()
            site.watch()
        except KeyboardInterrupt:
            output.note("stopping ...")
        finally:
            left = site.stop()
            file.unlink(missing_ok=True)
    _check_that_nothing_is_left(lake, left)
    output.note("stopped; nothing is left running")


def _end_leftovers(output: Output, lake: Lake) -> None:
    """End what an earlier site of the lake has left: its `up` was killed, and two workers or servers are one too many."""
    if left := [process for process in site_processes(lake.locks) if process.pid != os.getpid()]:
        output.note(f"an earlier site was not stopped in order; ending {_names(left)} ...")
        _check_that_nothing_is_left(lake, end_processes(lake.locks, output.note))


def _check_that_nothing_is_left(lake: Lake, left: Sequence[SiteProcess]) -> None:
    """Raise GristmillError, with names, if processes of the lake's site live on; the kernel is asked, not the caller."""
    if left:
        raise GristmillError(
            f"{lake}: not everything has ended, although it was killed: {_names(left)}; it waits for a disk or a device, "
            "or is another user's: look at it with 'ps', then call 'gristmill down' again"
        )
    if roles := [role for role in held_roles(lake.locks) if _is_foreign(lake, role)]:
        raise GristmillError(
            f"{lake}: not everything has ended: {', '.join(ROLES[role] for role in roles)}, held by a process that is "
            f"not shown here (another user, another container or machine); call 'gristmill down' there ({lake.locks})"
        )


def _is_foreign(lake: Lake, role: str) -> bool:
    """Whether a role is held by others than us, who may be `up` itself."""
    return role not in {p.role for p in site_processes(lake.locks) if p.pid == os.getpid()}


def _names(processes: Sequence[SiteProcess]) -> str:
    return ", ".join(map(str, processes))


def _show_ready(console: "Console", document: dict[str, Any]) -> None:
    console.print(f"ready after {document['ready_s']} s: {document['ui']}", soft_wrap=True)
    _show_entrance(console, document)
    console.print(
        "Ctrl-C stops it; 'gristmill status' and 'gristmill down' work from elsewhere.",
        soft_wrap=True,
    )


def _show_entrance(console: "Console", document: dict[str, Any]) -> None:
    if document.get("open"):
        console.print(f"log in by opening {document['open']}", soft_wrap=True)
        console.print(
            f"(from another machine, with what {document['auth_file']} holds)", soft_wrap=True
        )


def stop_site(output: Output, location: str, *, timeout_s: float) -> None:
    """Stop the site of a lake from elsewhere, in order, and return when nothing of it is left.

    `gristmill up` does that itself, if it lives and is done in time; what is left then is ended from here.
    """
    lake = Lake.open(location)
    start = time.monotonic()
    found = site_processes(lake.locks)
    if not _is_there(lake, found):
        raise NotFoundError(f"{lake}: expected a running site, found none; nothing to stop")
    with _only_one(lake, timeout_s):
        if (up := _supervisor(lake)) is not None:
            with following(up) as has_ended:
                if _described(lake).get("state") != "stopping":
                    ask_to_end(lake.locks, up)  # once: a second SIGTERM means "at once"
                if not has_ended(timeout_s - (time.monotonic() - start)):
                    output.note(f"{up} has not ended within {timeout_s:.0f} s; killing it")
                    kill_processes(lake.locks, ["up"])
        _check_that_nothing_is_left(lake, end_processes(lake.locks, output.note))
        (site_folder(lake) / "site.json").unlink(missing_ok=True)
    document = {
        "stopped": up.pid if up else None,
        "processes": [asdict(process) for process in found],
        "seconds": round(time.monotonic() - start, 1),
    }
    output.result(
        document,
        lambda console: console.print(
            f"stopped after {duration(document['seconds'])}; nothing is left running"
        ),
    )


@contextmanager
def _only_one(lake: Lake, timeout_s: float) -> Iterator[None]:
    """Be the one that stops the site; wait for another that is at it. Raises BusyError if it takes too long."""
    end = time.monotonic() + timeout_s
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lake.lock(STOPPING, doing=f"stopping the site of {lake}"))
                break
            except BusyError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)
        yield


def show_status(output: Output, location: str) -> None:
    """Print what the site of a lake is doing. Raises NotFoundError if nothing of one runs."""
    lake = Lake.open(location)
    processes = site_processes(lake.locks)
    if not _is_there(lake, processes):
        raise NotFoundError(
            f"{lake}: expected a running site, found none; start one with 'gristmill up RECIPE'"
        )
    up = _supervisor(lake)
    document = _described(lake) | {
        "processes": [asdict(process) for process in processes],
        "work": _work(lake),
    }
    if not lake.lock_holder(LOCK):
        document |= {"state": "left over", "pid": None}
    elif "state" not in document:
        document |= {"state": "starting", "pid": up.pid if up else None, "lake": lake.url}
    document["answers"] = prefect_answers(document.get("api_url", ""), 2.0)
    if document["answers"] and document["state"] == "running":
        from flows.site_status import site_status  # late: prefect

        document |= site_status(site_folder(lake), document)
    output.result(document, lambda console: _show_status(console, document))


def _is_there(lake: Lake, found: Sequence[SiteProcess]) -> bool:
    """Whether any process of a site lives, whether or not it is shown to us."""
    return bool(found or lake.lock_holder(LOCK) or held_roles(lake.locks))


def _supervisor(lake: Lake) -> SiteProcess | None:
    """The `gristmill up` that lives, None if none does."""
    for process in site_processes(lake.locks):
        if process.role == "up":
            return process
    # No Linux: no process is shown, but the holder of the lock has written who it is.
    pid = lake.lock_holder(LOCK).partition("(pid ")[2].partition(" ")[0]
    return SiteProcess(int(pid), "up", "") if pid.isdigit() and not HAS_PROC else None


def _described(lake: Lake) -> dict[str, Any]:
    """What the site says of itself; empty while it starts."""
    try:
        return json.loads((site_folder(lake) / "site.json").read_text())
    except PermissionError as error:
        raise GristmillError(f"{lake}: another user runs its site; ask as that user") from error
    except (OSError, ValueError):  # not written yet
        return {}


def _work(lake: Lake) -> list[str]:
    """Who is at work in the lake, of the site or not, as the holders of its locks say."""
    names = sorted(path.stem for path in lake.locks.glob("*.lock"))
    held = [lake.lock_holder(name) for name in names if not name.startswith("site")]
    return list(filter(None, held))


def _show_status(console: "Console", document: dict[str, Any]) -> None:
    from rich.table import Table  # late: --json does without

    state = document["state"]
    if state == "left over":
        console.print(
            "'gristmill up' has ended without stopping the rest; 'gristmill down' ends it, and so does the next 'up'",
            soft_wrap=True,
        )
    elif state == "running":
        since = moment(document["since"], None)
        console.print(f"{document['ui']}  (pid {document['pid']}, since {since})")
        _show_entrance(console, document)
    else:
        console.print(f"{state} (pid {document['pid']})")
    table = Table(box=None, header_style="bold")
    for head in ("process", "pid", "since", ""):
        table.add_column(head, no_wrap=bool(head))
    for row in document["processes"]:
        told = row["command"] if row["role"] == "work" else ""
        table.add_row(ROLES[row["role"]], str(row["pid"]), moment(row["since"], None), told)
    console.print(table)
    for line in document["work"]:
        console.print(f"at work: {line}", soft_wrap=True)
    if state != "running":
        return
    if not document["answers"]:
        console.print("the Prefect server does not answer just now; the site starts it again")
        return
    console.print(
        f"{plural(document['workers'], 'worker')} online, {plural(document['automations'], 'automation')}"
    )
    table = Table(box=None, header_style="bold")
    for head in ("deployment", "last run", "state", "next run"):
        table.add_column(head)
    for row in document["deployments"]:
        last = row["last"] or {"name": "-", "state": "-"}
        upcoming = moment(row["next"], None) if row["next"] else "-"
        table.add_row(row["name"], last["name"], last["state"], upcoming)
    console.print(table)
