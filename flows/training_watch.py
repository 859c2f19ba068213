"""What a training process tells, row by row, made into the training card that the UI shows while it goes on.

Rows come in the flow's main thread and are only kept; the card is drawn and published in a thread of its own, because a
slow Prefect server must not slow the training down.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, Literal

from flows.artifacts import CARD_S, Throttle, card_key, publish_card
from flows.report import read_run
from flows.training_card import TrainingStatus, training_card
from storage.errors import Interrupted, LakeError
from storage.lake import Lake
from storage.snapshot import Snapshot

MAX_ROWS = 4096
"""Steps whose metrics are kept for the curves; beyond, every second one goes. A picture is some hundred pixels wide."""

Row = dict[str, Any]


@contextmanager
def watch_training(lake: Lake, run: str, snapshot: Snapshot) -> Iterator["TrainingWatch"]:
    """Yield what takes the rows; meanwhile the card is refreshed, and at the end it says how the block ended."""
    watch, is_over = TrainingWatch(lake, run, snapshot), threading.Event()

    def keep_publishing() -> None:
        throttle = Throttle(CARD_S)
        while not is_over.wait(0.5):
            if watch.was_told and throttle.is_due():
                with suppress(LakeError):  # the training's own next write says it better
                    watch.publish("training")

    # A copy of the context, so that the card belongs to this flow run there, too.
    thread = threading.Thread(target=copy_context().run, args=(keep_publishing,), daemon=True)
    thread.start()
    state: Literal["finished", "stopped", "failed"] = "stopped"
    try:
        yield watch
        state = "finished"
    except Interrupted as error:
        watch.note = str(error)
        raise
    except Exception as error:
        state, watch.note = "failed", str(error)
        raise
    finally:
        is_over.set()
        thread.join()
        watch.publish(state)


class TrainingWatch:
    """A training run so far; call it with each row that the training process sends."""

    def __init__(self, lake: Lake, run: str, snapshot: Snapshot) -> None:
        self.lake, self.run, self.snapshot = lake, run, snapshot
        self.note = ""
        self.was_told = False
        self._config: Row = {}
        self._metrics: list[Row] = []
        self._evaluations: list[Row] = []
        self._samples: list[Row] = []
        self._recent: deque[tuple[float, int]] = deque(maxlen=100)

    def __call__(self, row: Row) -> None:
        """Take a row of `model.train.train`'s on_step or on_event."""
        what = {key: value for key, value in row.items() if key not in ("event", "message")}
        match row.get("event"):
            case None:
                self._metrics.append(what)
                self._recent.append((time.monotonic(), what["step"]))
                if len(self._metrics) > MAX_ROWS:
                    del self._metrics[1::2]
            case "start" | "resumed" | "finished":
                self._take_over(row.get("step"))
            case "evaluation":
                self._evaluations.append(what)
            case "sample":
                self._samples.append(what)
            case "damaged" | "uncompiled":
                self.note = row["message"]
        self.was_told = True

    def _take_over(self, last_step: int | None) -> None:
        """What the lake knows of the run: all if it is finished, else what came before the checkpoint."""
        found = read_run(self.lake, self.run)
        self._config = found["config"]
        for mine, rows in (
            (self._metrics, found["metrics"]),
            (self._evaluations, found["evaluations"]),
            (self._samples, found["samples"]),
        ):
            mine[:] = [row for row in rows if last_step is None or row["step"] <= last_step]
        while len(self._metrics) > MAX_ROWS:
            del self._metrics[1::2]

    def status(self, state: Literal["training", "finished", "stopped", "failed"]) -> TrainingStatus:
        """The run at this moment."""
        metrics = list(self._metrics)
        steps = self._config.get("steps", 0)
        step = metrics[-1]["step"] if metrics else 0
        recent = list(self._recent)
        speed = left = None
        if len(recent) > 1:
            (began, first), (now, last) = recent[0], recent[-1]
            per_s = (last - first) / max(now - began, 1e-9)
            speed = per_s * self._config.get("batch_tokens", 0)
            left = (steps - step) / per_s if state == "training" else None
        return TrainingStatus(
            run=self.run,
            snapshot=self.snapshot.ref,
            state=state,
            step=step,
            steps=steps,
            seconds_left=left,
            tokens_per_s=speed,
            metrics=metrics,
            evaluations=list(self._evaluations),
            samples=list(self._samples),
            config=self._config,
            note=self.note,
        )

    def publish(self, state: Literal["training", "finished", "stopped", "failed"]) -> None:
        """Bring the card up to date, in Prefect and in the lake; nothing, if nothing was ever told."""
        if not self.was_told:
            return
        publish_card(
            self.lake,
            card_key("training-card", self.snapshot.manifest.name),
            training_card(self.status(state)),
            f"{self.run}: {state}",
            f"runs/{self.run}/card.md",
            is_refresh=state in ("training", "stopped"),
        )
