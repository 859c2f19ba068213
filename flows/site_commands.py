"""Commands around a site: up, down, status."""

import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flows.output import Output
from flows.server import prefect_answers
from flows.site_secret import LOCK, site_folder
from flows.site_settings import SiteOptions, check_versions
from pipeline.display import duration, plural
from storage.errors import GristmillError, NotFoundError
from storage.lake import Lake

if TYPE_CHECKING:
    from rich.console import Console

LAST_S = 5.0
"""Time for the last of a process that has stopped its work and released the lake."""


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
    with lake.lock(LOCK, doing=f"running the site of {lake}"):
        site = Site(output, lake, loaded, options)
        site.check()
        file = site.folder / "site.json"
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
            site.stop()
            file.unlink(missing_ok=True)
    output.note("stopped; nothing is left running")


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
    """Stop the site of a lake from elsewhere, and wait until it has ended."""
    lake = Lake.open(location)
    start = time.monotonic()
    found = _running(lake)
    if found is None:
        raise NotFoundError(f"{lake}: expected a running site, found none; nothing to stop")
    with suppress(ProcessLookupError):
        os.kill(found["pid"], signal.SIGTERM)
    while lake.lock_holder(LOCK):
        if time.monotonic() - start > timeout_s:
            raise GristmillError(
                f"the site (pid {found['pid']}) has not ended within {timeout_s:.0f} s: it waits for running work; "
                "call 'gristmill down' again to wait on, or end the process at once with 'kill -9' (nothing is lost)"
            )
        time.sleep(0.1)
    released = time.monotonic()
    # It is its interpreter that still ends; or a zombie, if whoever started it does not ask how it ended.
    while _exists(found["pid"]) and time.monotonic() - released < LAST_S:
        time.sleep(0.1)
    document = {"stopped": found["pid"], "seconds": round(time.monotonic() - start, 1)}
    output.result(
        document,
        lambda console: console.print(f"stopped after {duration(document['seconds'])}"),
    )


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (
        ProcessLookupError,
        PermissionError,
    ):  # gone; or, its number given away, somebody else's
        return False
    return True


def show_status(output: Output, location: str) -> None:
    """Print what the site of a lake is doing. Raises NotFoundError if none runs."""
    lake = Lake.open(location)
    site = _running(lake)
    if site is None:
        raise NotFoundError(
            f"{lake}: expected a running site, found none; start one with 'gristmill up RECIPE'"
        )
    document = site | {"answers": prefect_answers(site.get("api_url", ""), 2.0)}
    if document["answers"]:
        from flows.site_status import site_status  # late: prefect

        document |= site_status(site_folder(lake), site)
    output.result(document, lambda console: _show_status(console, document))


def _running(lake: Lake) -> dict[str, Any] | None:
    """What the running site says of itself, None if there is none; it holds a lock as long as it lives."""
    holder = lake.lock_holder(LOCK)
    if not holder:
        return None
    try:
        return json.loads((site_folder(lake) / "site.json").read_text())
    except PermissionError as error:
        raise GristmillError(f"{lake}: another user runs its site; ask as that user") from error
    except (OSError, ValueError):  # not written yet
        pass
    pid = holder.partition("(pid ")[2].partition(" ")[0]
    if not pid.isdigit():
        raise GristmillError(f"{lake}: the site has just begun to start; try again in a second")
    return {"pid": int(pid), "lake": lake.url, "starting": True}


def _show_status(console: "Console", document: dict[str, Any]) -> None:
    from rich.table import Table  # late: --json does without

    if document.get("starting"):
        console.print(f"starting or stopping (pid {document['pid']})")
        return
    console.print(f"{document['ui']}  (pid {document['pid']}, since {document['since']})")
    _show_entrance(console, document)
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
        table.add_row(row["name"], last["name"], last["state"], row["next"] or "-")
    console.print(table)
