"""The training card: one markdown page that shows a training run while it goes on, and when it is over. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.markdown import (
    PICTURE_WIDTH,
    code,
    folded,
    image,
    page,
    paragraph,
    plain,
    table,
    toml_block,
    wrapping,
)
from pipeline import charts
from pipeline.charts import Curve, Track
from pipeline.display import (
    DASH,
    clip,
    duration,
    fixed,
    number,
    percent,
    plural,
    short,
    toml_text,
)
from pipeline.run_view import comparable, scored_on
from pipeline.svg import Panel, sheet

MAX_DOMAINS = 12
"""Domains with a curve of their own, the largest; the table lists `MAX_ROWS`."""
MAX_ROWS = 60
MAX_TEXTS = 4
"""Prompts of which texts are shown."""
TEXT_CHARACTERS = 420
"""Length of the newest text shown of a prompt; earlier ones get a third."""
CURVE_POINTS = 240
"""Points of a curve: one in three pixels."""
_AXIS = 40  # pixels for the numbers left of a picture

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingStatus:
    """A training run at one moment."""

    run: str
    snapshot: str
    """Reference of what it trains on."""
    state: Literal["training", "finished", "stopped", "failed"]
    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    seconds_left: float | None = None
    tokens_per_s: float | None = None
    metrics: Sequence[Row] = ()
    """Rows of metrics.jsonl, one a step."""
    evaluations: Sequence[Row] = ()
    """Rows of metrics.jsonl that have `domains`."""
    samples: Sequence[Row] = ()
    """Rows of samples.jsonl: step, prompt, text."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The [train] section that the run was begun with."""
    note: str = ""
    """One sentence that belongs at the top: why it stopped, say."""


def training_card(status: TrainingStatus) -> str:
    """Markdown with progress, curves of loss and bits per byte, the last evaluation, texts that the model wrote.

    Its size is bounded: curves are thinned to `CURVE_POINTS`, texts clipped, lists cut and said to be.
    """
    last = status.evaluations[-1] if status.evaluations else None
    return page(
        [
            f"# {plain(status.run)}: {status.state}",
            paragraph(clip(status.note, 600)),
            _progress(status),
            _figures(status, last),
            "## Loss",
            _loss(status.metrics) or "No step is done yet.",
            "## Bits per byte on held-out text" if last else "",
            _panels(status.evaluations),
            _evaluation(last),
            "## What the model writes" if status.samples else "",
            _texts(status.samples),
            folded("Settings", toml_block(clip(toml_text(dict(status.config)), 8000))),
        ]
    )


def _progress(status: TrainingStatus) -> str:
    share = status.step / status.steps if status.steps else 0.0
    words = f"{percent(status.step, status.steps)} of {plural(status.steps, 'step')}"
    left = status.seconds_left
    if status.state == "training" and left is not None:
        words += f", {duration(left)} left"
    look = "dropped" if status.state == "failed" else "kept"
    track = Track(label=f"step {number(status.step)}", figures=words, share=share, look=look)
    panel = Panel(picture=charts.tracks([track], "Progress"))
    drawn = sheet([panel], title="Progress", description=words, width=PICTURE_WIDTH)
    return image(drawn, f"step {number(status.step)}: {words}")


def _figures(status: TrainingStatus, last: Row | None) -> str:
    """The run in one row of figures."""
    step = status.metrics[-1] if status.metrics else {}
    figures = {
        "trained on": plain(status.snapshot),
        "tokens": short(step.get("tokens")),
        "epochs": fixed(step.get("epoch")),
        "tokens/s": short(status.tokens_per_s),
        "loss": f"**{fixed(step.get('loss'), 3)}**" if step else DASH,
        "bits per byte": f"**{fixed(last.get('bits_per_byte'), 3)}**" if last else DASH,
        "unigram": fixed(last.get("unigram_bits_per_byte"), 3) if last else DASH,
    }
    return table(list(figures), [list(figures.values())], "l" + "r" * (len(figures) - 1))


def _loss(metrics: Sequence[Row]) -> str:
    loss = [(row["step"], row["loss"]) for row in metrics]
    if len(loss) < 2:
        return ""
    curves = [
        Curve(name="each step", points=charts.thin(loss, CURVE_POINTS), look="raw"),
        Curve(name="smoothed", points=charts.thin(charts.smooth(loss), CURVE_POINTS), look="kept"),
    ]
    picture = charts.lines(curves, title="Training loss", height=200)
    legend = [("curve raw", "each step"), ("curve", "smoothed")]
    words = f"training loss in nats per token, steps {number(loss[0][0])} to {number(loss[-1][0])}"
    return image(
        sheet(
            [Panel(picture=picture, title="nats per token", left=_AXIS, right=12)],
            title="Training loss",
            description=words,
            width=PICTURE_WIDTH,
            legend=legend,
        ),
        words,
    ) + _health(metrics)


def _health(metrics: Sequence[Row]) -> str:
    """Small curves that tell why a loss does what it does."""
    panels = []
    for key, title in (("lr", "learning rate"), ("grad_norm", "gradient norm"), ("tokens_per_s", "tokens/s")):  # fmt: skip
        points = [(row["step"], row[key]) for row in metrics if key in row]
        thinned = charts.thin(points, CURVE_POINTS // 3)
        curve = Curve(name=title, points=thinned, look="kept")
        picture = charts.lines([curve], title=title, height=70, from_zero=True)
        figure = short(points[-1][1]) if key == "tokens_per_s" and points else ""
        if not figure and points:
            figure = number(points[-1][1])
        panels.append(Panel(picture=picture, title=title, figure=figure, left=_AXIS + 8, right=4))
    words = "learning rate, gradient norm and tokens per second of each step"
    drawn = sheet(panels, title="Health", description=words, width=PICTURE_WIDTH, columns=3)
    return f"\n\n{image(drawn, words)}" if drawn else ""


def _panels(evaluations: Sequence[Row]) -> str:
    """One small picture a domain, all with the same axes; the unigram model is a line across."""
    evaluations = comparable(evaluations)
    if len(evaluations) < 2:
        return ""
    domains = _largest_first(evaluations[-1])[:MAX_DOMAINS]
    keys = {"unigram_bits_per_byte": "baseline", "bits_per_byte": "kept"}
    scored = [[row["domains"].get(name) for row in evaluations] for name in domains]
    values = [row[key] for rows in scored for row in rows if row for key in keys]
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    panels = []
    for name, rows in zip(domains, scored, strict=True):
        curves = [
            Curve(
                name=key,
                points=charts.thin(
                    [(one["step"], row[key]) for one, row in zip(evaluations, rows, strict=True) if row],
                    CURVE_POINTS // 4,
                ),
                look=look,
            )
            for key, look in keys.items()
        ]  # fmt: skip
        figure = fixed(next(row["bits_per_byte"] for row in reversed(rows) if row))
        picture = charts.lines(curves, title=name, height=80, from_zero=True, top=top)
        panels.append(Panel(picture=picture, title=clip(name, 14), figure=figure, left=24, right=4))
    words = "bits per byte of each domain over the steps, beside a unigram model's"
    legend = [("curve", "this model"), ("curve baseline", "unigram model of the same tokens")]
    drawn = sheet(
        panels,
        title="Bits per byte",
        description=words,
        width=PICTURE_WIDTH,
        columns=4,
        legend=legend,
    )
    return image(drawn, words)


def _largest_first(evaluation: Row) -> list[str]:
    domains = evaluation["domains"]
    return sorted(domains, key=lambda name: (-domains[name].get("bytes", 0), name))


def _evaluation(last: Row | None) -> str:
    if last is None:
        return ""
    names = _largest_first(last)
    rows = [(plain(clip(name, 40)), last["domains"][name]) for name in names[:MAX_ROWS]]
    if len(rows) > 1:
        rows.append(("**all**", last))
    lines = [
        [
            name,
            fixed(row.get("bits_per_byte"), 3),
            fixed(row.get("unigram_bits_per_byte"), 3),
            saved(row),
            number(row.get("tokens")),
        ]
        for name, row in rows
    ]
    heads = ["domain", "bits per byte", "unigram", "saved", "tokens scored"]
    more = f"\n\nand {len(names) - MAX_ROWS} more domains" if len(names) > MAX_ROWS else ""
    return f"After step {number(last.get('step'))}, on {scored_on(last)}:\n\n{table(heads, lines, 'lrrrr')}{more}"


def saved(row: Row) -> str:
    """Share of a unigram model's bits that the model does without."""
    model, unigram = row.get("bits_per_byte"), row.get("unigram_bits_per_byte")
    return percent(unigram - model, unigram) if model is not None and unigram else DASH


def _texts(samples: Sequence[Row]) -> str:
    """Of each prompt the newest texts, so that one can see the model learn."""
    prompts: dict[str, list[Row]] = {}
    for row in samples:
        prompts.setdefault(row["prompt"], []).append(row)
    parts = []
    for prompt, rows in list(prompts.items())[:MAX_TEXTS]:
        head = f"After {code(prompt, 120)}:" if prompt else "From nothing:"
        lines = [
            [number(row["step"]), _written(row, TEXT_CHARACTERS if i == 0 else TEXT_CHARACTERS // 3)]
            for i, row in enumerate(rows[:-4:-1])
        ]  # fmt: skip
        parts.append(f"{head}\n\n{table(['step', 'text'], lines, 'rl')}")
    return "\n\n".join(parts)


def _written(row: Row, characters: int) -> str:
    return wrapping(clip(row["text"].removeprefix(row["prompt"]), characters)) or DASH
