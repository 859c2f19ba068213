"""The progress card: how far each stage of a build is, how fast it goes, and how long it will take. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flows.markdown import PICTURE_WIDTH, image, page, plain
from pipeline import charts
from pipeline.charts import Track
from pipeline.display import clip, duration, number, plural, size
from pipeline.svg import Panel, sheet

State = Literal["waiting", "running", "done", "failed"]


_LINE = 92
"""Letters that fit beside each other above a bar."""


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
    tracks = [_track(stage) for stage in stages]
    words = f"{finished} of {plural(len(stages), 'stage')} done in {duration(seconds)}"
    panel = Panel(picture=charts.tracks(tracks, "Stages"))
    return page(
        [
            f"# {plain(title)}",
            " ".join([f"{words}.", *_news(stages)]),
            image(sheet([panel], title="Stages", description=words, width=PICTURE_WIDTH), words),
        ]
    )


def seconds_left(stage: StageProgress) -> float | None:
    """Time that a running stage needs at its rate so far; None while nobody can know."""
    if stage.state != "running" or not stage.total or stage.done <= 0 or stage.seconds <= 0:
        return None
    return stage.seconds * max(stage.total - stage.done, 0) / stage.done


def _track(stage: StageProgress) -> Track:
    figures = _figures(stage)
    return Track(
        label=clip(stage.title, max(_LINE - len(figures), 20)),
        figures=figures,
        share=_share(stage),
        look="dropped" if stage.state == "failed" else "kept",
    )


def _share(stage: StageProgress) -> float:
    if stage.state == "done":
        return 1.0
    return stage.done / stage.total if stage.total else 0.0


def _news(stages: Sequence[StageProgress]) -> list[str]:
    """What goes on now or went wrong, in words."""
    said = {"running": "Now: {}.", "failed": "**Failed: {}.**"}
    return [
        words.format(", ".join(plain(stage.title) for stage in stages if stage.state == state))
        for state, words in said.items()
        if any(stage.state == state for stage in stages)
    ]


def _figures(stage: StageProgress) -> str:
    """The words at the end of a stage's bar."""
    amount = _amount(stage)
    if stage.state == "waiting":
        return ""
    if stage.state == "done":
        told = f"{amount} in " if stage.done > 1 else ""
        return told + duration(stage.seconds)
    parts = [amount]
    if stage.state == "failed":
        parts.append("failed")
    elif (left := seconds_left(stage)) is not None:
        parts += [_rate(stage), f"{duration(left)} left"]
    else:
        parts.append(f"for {duration(stage.seconds)}")
    return " \u00b7 ".join(parts)


def _amount(stage: StageProgress) -> str:
    if stage.unit == "bytes":
        done, total = size(stage.done), size(stage.total)
        return done if stage.total is None or stage.state == "done" else f"{done} of {total}"
    done, total = number(stage.done), number(stage.total)
    if stage.total is None or stage.state == "done":
        return f"{done} {stage.unit}"
    return f"{done} of {total} {stage.unit}"


def _rate(stage: StageProgress) -> str:
    a_second = stage.done / stage.seconds
    if stage.unit == "bytes":
        return f"{size(a_second)}/s"
    return f"{number(a_second)}/s" if a_second >= 1 else f"{number(60 * a_second)}/min"
