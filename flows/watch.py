"""What a watcher sees of a build while it runs: a task a stage, task runs of shard ranges, a progress card, log lines.

All of it follows the two things that `pipeline.build` tells, the stage that begins and the progress within it, so that
the work is cut up no differently than without Prefect.
"""

import logging
import time
from collections.abc import Callable
from threading import Event
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed
from prefect.transactions import BaseTransaction

from flows.artifacts import PROGRESS_S, Throttle, card_key, publish_card
from flows.progress import LineProgress
from flows.progress_card import StageProgress, State, progress_card
from flows.steps import RETRY_DELAYS_S, step
from pipeline.build import STAGES, Stage
from pipeline.display import counts_in_words
from storage.lake import Lake

PACKAGES = ("storage", "pipeline", "model")
"""Loggers whose lines belong into the UI; PREFECT_LOGGING_EXTRA_LOGGERS names them, too."""

MAX_RANGES = 16
"""Task runs of shard ranges in a stage: a task run costs 20 kB of the server's database."""
RANGE_SHARDS = 4
"""Least shards in a range; a stage of less than two such ranges has its shards in its own name instead."""


def show_logs(detail: Literal["normal", "detailed"]) -> None:
    """Let the log lines of the pure packages pass; where to is up to Prefect's settings, which set no level."""
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.DEBUG if detail == "detailed" else logging.INFO)


class BuildWatch:
    """Shows one build; its methods are what `pipeline.build.build` takes as `run_stage` and `progress`."""

    def __init__(
        self, lake: Lake, corpus: str, retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S
    ) -> None:
        self._lake, self._corpus, self._retry_delays_s = lake, corpus, retry_delays_s
        self._began = time.monotonic()
        self._throttle = Throttle(PROGRESS_S)
        self._stages = {stage.name: _StageState(stage.title) for stage in STAGES}
        self._now: _StageState | None = None
        self._range: _Range | None = None
        self._lines = LineProgress(lambda line: get_run_logger().info(line))

    def run_stage(self, stage: Stage, run: Callable[[], dict[str, int]]) -> dict[str, int]:
        """Run a stage as a task of its own; ranges of its shards are task runs within it."""
        self._now = state = self._stages[stage.name]

        def run_and_show() -> dict[str, int]:
            state.begin()
            self._show()
            try:
                counts = run()
                state.end("done")
            finally:
                if state.state != "done":
                    state.end("failed")
                self._close_range()
                self._lines.close()
            return counts

        try:
            return step(
                stage.title,
                run_and_show,
                counts_in_words,
                name=stage.name,
                retry_delays_s=self._retry_delays_s,
            )
        finally:
            if state.state == "failed" or stage is STAGES[-1]:
                self._publish()

    def progress(self, stage: str, done: int, total: int | None, unit: str, /) -> None:
        """Take note of how far the stage at work is; tells of it now and then, and at the borders of a range."""
        if total != 1:  # one step has no middle to tell of
            self._lines(stage, done, total, unit)
        state = self._now
        if state is None:  # loops are compiled before the first stage
            return
        is_first = state.total is None
        state.done, state.total, state.unit = done, total, unit
        if total is not None and total >= 2 * RANGE_SHARDS:
            self._show_range(state, done, total)
        elif is_first and total is not None and total > 1:
            context = TaskRunContext.get()
            assert context is not None
            # The server learns it with the task run's next state.
            context.task_run.name = f"{state.title}, {unit} 1-{total}"
        self._show()

    def _show_range(self, state: "_StageState", done: int, total: int) -> None:
        if self._range is not None and done >= self._range.end:
            self._close_range()
        if self._range is None and done < total:
            count = min(MAX_RANGES, total // RANGE_SHARDS)
            ends = (number * total // count for number in range(1, count + 1))
            end = next(end for end in ends if end > done)
            title = f"{state.title}, {state.unit} {done + 1}-{end} of {total}"
            self._range = _Range(title, end)
            self._range.open()

    def _close_range(self) -> None:
        if self._range is not None and self._now is not None:
            self._range.close(self._now.done)
            self._range = None

    def _show(self) -> None:
        if self._throttle.is_due():
            self._publish()

    def _publish(self) -> None:
        stages = [stage.shown() for stage in self._stages.values()]
        card = progress_card(f"Building {self._corpus}", stages, time.monotonic() - self._began)
        key, description = card_key("progress", self._corpus), f"{self._corpus}: how far it is"
        publish_card(self._lake, key, card, description, is_refresh=True)


class _StageState:
    """How far a stage is, with its clock."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.done, self.unit = 0, ""
        self.total: int | None = None
        self.state: State = "waiting"
        self._began = self._ended = 0.0

    def begin(self) -> None:
        self.state, self._began = "running", time.monotonic()

    def end(self, state: State) -> None:
        self.state, self._ended = state, time.monotonic()

    def shown(self) -> StageProgress:
        end = time.monotonic() if self.state == "running" else self._ended
        return StageProgress(
            title=self.title,
            done=self.done,
            total=self.total,
            unit=self.unit,
            seconds=end - self._began,
            state=self.state,
        )


class _Range:
    """A task run that lasts as long as its range of shards: a thread that waits, while others do the work."""

    def __init__(self, title: str, end: int) -> None:
        self.title, self.end = title, end
        self._done = 0
        self._is_over = Event()
        self._future: PrefectFuture[Any] | None = None

    def open(self) -> None:
        as_task = task(
            name="shards", task_run_name=self.title, cache_policy=NO_CACHE, persist_result=False
        )
        # Out of the stage's transaction: Prefect 3.9 would show all ranges of a stage that fails as rolled back, although
        # their work is kept.
        outer = BaseTransaction.__var__.set(None)  # pyright: ignore[reportArgumentType] read with None as default
        try:
            self._future = as_task(self._wait).submit()
        finally:
            BaseTransaction.__var__.reset(outer)

    def close(self, done: int) -> None:
        self._done = done
        self._is_over.set()
        if self._future is not None:
            self._future.wait()

    def _wait(self) -> Any:
        self._is_over.wait()
        if self._done >= self.end:
            return Completed(message=self.title)
        return Cancelled(name="Stopped", message=f"{self.end - self._done} of them are left to do")
