"""How a flow run ends: with one sentence that says what happened, as its state's message.

An error of ours becomes a Failed state instead of an exception, because Prefect would log a page of traceback for it;
the flow's caller gets the exception all the same.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect import get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.states import Completed, Failed

from flows.deadline import TimeIsUp
from storage.errors import CorruptError, GateError, GristmillError, OutOfTime, SourceGoneError


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line says what the run's state does not: its own error with a page of traceback is none."""
    return not (record.exc_info and isinstance(record.exc_info[1], GristmillError))


for _name in ("prefect.flow_runs", "prefect.engine"):  # the flow's caller in a worker's process
    logging.getLogger(_name).addFilter(_is_news)


class Quarantined(GateError):
    """A build whose snapshot was refused by a gate; carries the build's result, which exists all the same."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


class Refused(GateError):
    """A trained model that is worse than the corpus's release."""


_NAMES: dict[type[GristmillError], str] = {
    OutOfTime: "TimedOut",
    Quarantined: "Quarantined",
    Refused: "Refused",
    SourceGoneError: "Source gone",
    CorruptError: "Damaged",
}
"""What the state of a failed run is called; "Failed" where the message says all."""


def end_state(
    body: Callable[[], dict[str, Any]],
    sentence: Callable[[dict[str, Any]], str],
    name: Callable[[dict[str, Any]], str | None] = lambda result: None,
) -> Any:
    """Run a flow's or task's body: Completed with `sentence(result)` and the result, or Failed with the error.

    `name(result)` is what the Completed state is called, None for "Completed". To be returned by the flow or task.
    Typed Any because its caller gets the result itself, or the exception.
    """
    try:
        result = body()
    except GristmillError as error:
        return Failed(name=_NAMES.get(type(error), "Failed"), message=str(error), data=error)
    except TimeIsUp:
        error = OutOfTime("interrupted at the run's limit of hours; what is finished is kept")
        return Failed(name=_NAMES[OutOfTime], message=str(error), data=error)
    return Completed(name=name(result) or "Completed", message=sentence(result), data=result)


def begun() -> str:
    """When the flow run begins, for its name: 2026-11-22-0038Z, to the minute and in UTC.

    A worker starts a run's process, and Prefect names the run, some seconds before the time that it waits for.
    """
    context = FlowRunContext.get()
    now = context.start_time if context else datetime.now(UTC)
    at = max(now, runtime.flow_run.scheduled_start_time or now).astimezone(UTC)
    return f"{at:%Y-%m-%d-%H%MZ}"


def rename_run(name: str) -> None:
    """Let the flow run's name say what happened. It is for people only, so trouble with it is no trouble."""
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, name=name)
    except (httpx.HTTPError, OSError, PrefectException) as error:
        get_run_logger().warning(f"the run could not be renamed to '{name}': {error}")
