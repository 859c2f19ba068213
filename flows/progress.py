"""How far long work is: bars on a terminal, a line now and then on any other stderr and in logs.

Both are a `pipeline.stage.Progress`: called with stage, done, total and unit, as often as the work likes.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.output import Output, say
from pipeline.display import duration, number, size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from pipeline.stage import Progress

LINE_EVERY_S = 5.0
"""Seconds between the first lines of a stage; later a tenth of the time that it has taken, at most a minute."""

RATE_OVER_LINES = 6
"""Lines that a rate looks back on, so that time left follows a machine that others have made slow, or left."""


@contextmanager
def show_progress(output: Output) -> Iterator["Progress"]:
    """Yield the progress to hand to long work: bars, lines, or (with -q) nothing.

    A call raises KeyboardInterrupt once a signal has asked for the stop.
    """
    if output.quiet:
        yield _stopping(output, _silent)
    elif sys.stderr.isatty():
        bars = _bars(output)
        with bars:
            output.has_bars = True
            try:
                yield _stopping(output, BarProgress(bars))
            finally:
                output.has_bars = False
    else:
        lines = LineProgress(lambda line: say(line, sys.stderr))
        try:
            yield _stopping(output, lines)
        finally:
            lines.close()


def _stopping(output: Output, progress: "Progress") -> "Progress":
    def stop_or_tell(stage: str, done: int, total: int | None, unit: str, /) -> None:
        if output.must_stop:
            raise KeyboardInterrupt
        progress(stage, done, total, unit)

    return stop_or_tell


def _silent(stage: str, done: int, total: int | None, unit: str, /) -> None:
    """Progress that nobody wants to see."""


class BarProgress:
    """One bar a stage; the bar of a finished stage stays, with the time it took."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int | None, unit: str, /) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, unit=unit)
        self._bars.update(self._tasks[stage], completed=done, total=total, unit=unit)


def _bars(output: Output) -> "Bars":
    # late: rich costs 80 ms, and most commands are done before a bar would be seen
    from rich.console import RenderableType
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from flows.console import PlainConsole

    class AmountColumn(ProgressColumn):
        """`12/40 shards  3.1/s`."""

        def render(self, task: Any) -> Text:
            unit = task.fields["unit"]
            amount = _amount(task.completed, task.total, unit)
            speed = task.finished_speed or task.speed
            return Text(f"{amount}  {_rate(speed, unit)}" if speed else amount)

    class StoppableBars(Progress):
        """Bars, and below them that they are about to stop."""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            if output.stop_notice:
                yield Text(output.stop_notice)

    return StoppableBars(
        SpinnerColumn(
            finished_text=" "
        ),  # moves while a stage of few large tasks has nothing to tell
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(),
        AmountColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=PlainConsole(stderr=True),
    )


class LineProgress:
    """Plain lines: a stage's first news, then one now and then, then its end with the time it took."""

    def __init__(
        self, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._stage = self._unit = ""
        self._began = 0.0
        self._done = 0
        self._told: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_LINES)

    def __call__(self, stage: str, done: int, total: int | None, unit: str, /) -> None:
        now = self._clock()
        if stage != self._stage:
            self._finish(now)
            self._stage, self._began = stage, now
            self._told.clear()
        self._done, self._unit = done, unit
        every_s = min(60.0, max(LINE_EVERY_S, (now - self._began) / 10))
        if done == total or (self._told and now - self._told[-1][0] < every_s):
            return
        rate = 0.0
        if self._told and now > self._told[0][0]:
            rate = (done - self._told[0][1]) / (now - self._told[0][0])
        self._told.append((now, done))
        speed = f", {_rate(rate, unit)}" if rate else ""
        left = f", {duration((total - done) / rate)} left" if rate and total is not None else ""
        self._tell(f"{stage}: {_amount(done, total, unit)}{speed}{left}")

    def close(self) -> None:
        """Say how the last stage ended."""
        self._finish(self._clock())

    def _finish(self, now: float) -> None:
        if self._stage:
            took = duration(now - self._began)
            self._tell(f"{self._stage}: {_amount(self._done, None, self._unit)} in {took}")
        self._stage = ""


def _amount(done: float, total: float | None, unit: str) -> str:
    """`12/40 shards`, or `11.9 kB/21.8 MB`; without a total, what is done alone."""
    if unit == "bytes":
        return size(done) if total is None else f"{size(done)}/{size(total)}"
    return f"{done:,.0f} {unit}" if total is None else f"{done:,.0f}/{total:,.0f} {unit}"


def _rate(per_second: float, unit: str) -> str:
    return f"{size(per_second) if unit == 'bytes' else number(per_second)}/s"
