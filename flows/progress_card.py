"""The progress card: how far each stage of a build is, how fast it goes, and how long it will take. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flows.markdown import join, plain, table
from pipeline.display import DASH, duration, number, percent, short

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """How far one stage is."""

    title: str
    done: int
    total: int | None
    """Of how many; None if nobody knows."""
    unit: str
    """What is counted: documents, shards, bytes."""
    seconds: float
    """Since the stage began."""
    state: State


def progress_card(title: str, stages: Sequence[StageProgress], seconds: float) -> str:
    """Markdown that shows each stage's share done, rate and time left; `seconds` since the work began."""
    finished = sum(stage.state == "done" for stage in stages)
    lines = [
        [
            plain(stage.title),
            stage.state,
            _amount(stage),
            percent(stage.done, stage.total or 0),
            DASH if not stage.seconds else f"{short(stage.done / stage.seconds)}/s",
            duration(stage.seconds),
            duration(seconds_left(stage)),
        ]
        for stage in stages
    ]
    heads = ["stage", "state", "done", "", "rate", "time", "left"]
    return join(
        [
            f"# {plain(title)}",
            f"{finished} of {len(stages)} stages done in {duration(seconds)}.",
            table(heads, lines, "llrrrrr"),
        ]
    )


def seconds_left(stage: StageProgress) -> float | None:
    """Time that a running stage needs at its rate so far; None while nobody can know."""
    if stage.state != "running" or not stage.total or not stage.done or not stage.seconds:
        return None
    return stage.seconds * max(stage.total - stage.done, 0) / stage.done


def _amount(stage: StageProgress) -> str:
    if stage.total is None:
        return f"{number(stage.done)} {plain(stage.unit)}"
    return f"{number(stage.done)} of {number(stage.total)} {plain(stage.unit)}"
