"""What a program wrote shortly before it ended, and which of these lines say why."""

import re
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

RECENT_S = 10.0
"""What was written longer before the end than this is not its cause."""

MAX_LINES = 8

_PROBLEM = re.compile(
    r"error|exception|critical|fatal|traceback|not found|no module", re.IGNORECASE
)
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Warning)\b")
"""The last line of a traceback starts so."""


class ProgramLog:
    """A log file that outlives its program; only what the present one wrote, and when it wrote that, counts."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self._marks: deque[tuple[float, int]] = deque()

    def begin(self) -> None:
        """The program starts: what the file holds already is not its own."""
        self._marks.clear()
        self.look()

    def look(self) -> None:
        """Remember how long the file is now; to be called every few seconds at least."""
        now = self._clock()
        self._marks.append((now, self.path.stat().st_size if self.path.exists() else 0))
        while len(self._marks) > 1 and self._marks[1][0] < now - RECENT_S:
            self._marks.popleft()

    def recent(self) -> list[str]:
        """Lines that the program wrote lately; the file may have been emptied by somebody."""
        begin = self._marks[0][1] if self._marks else 0
        try:
            with self.path.open("rb") as file:
                file.seek(begin if begin <= self.path.stat().st_size else 0)
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()]


def how_it_ended(code: int | None, log: ProgramLog) -> str:
    """How a program ended, with the lines of its log that say why; none of SIGKILL, which leaves no time to write."""
    if code is not None and code < 0:
        how = f"killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            return f"{how}: out of memory, or by somebody; its log is {log.path}"
    else:
        how = f"exit code {code}"
    if lines := _cause(log.recent()):
        return f"{how}; {log.path} says why:\n  " + "\n  ".join(lines)
    return f"{how}, without a word in {log.path}"


def _cause(lines: list[str]) -> list[str]:
    """The last exception, else the last line of trouble and what follows it, else the last lines."""
    raised = [index for index, line in enumerate(lines) if _RAISED.match(line)]
    trouble = [index for index, line in enumerate(lines) if _PROBLEM.search(line)]
    first = max((raised or trouble)[-1:], default=len(lines) - MAX_LINES)
    return lines[max(first, 0) :][:MAX_LINES]
