"""What the report shows of a training run: its curves, its last evaluation, and the texts it wrote on the way."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline import charts, display
from pipeline.charts import Curve

Row = dict[str, Any]

MAX_PANELS = 12
"""Domains that get a picture of their own; tables list them all."""
SAMPLE_CHARACTERS = 700
"""Length of a text shown as a sample."""


def run_view(run: Row, domains: Sequence[str]) -> Row:
    """Return the run's figures, curves as SVG, last evaluation (in the order of `domains`), and texts by step.

    `run` holds name, snapshot, config, metrics (a row a step), evaluations and samples (any of the three may be empty).
    """
    metrics, evaluations = run["metrics"], run["evaluations"]
    final = evaluations[-1] if evaluations else {"domains": {}}
    order = [name for name in domains if name in final["domains"]]
    figures = [{"name": name, **final["domains"][name]} for name in order]
    rates = sorted(row["tokens_per_s"] for row in metrics if "tokens_per_s" in row)
    texts: dict[int, list[Row]] = defaultdict(list)
    for text in run["samples"]:
        texts[text["step"]].append(_continuation(text))
    steps = sorted(texts, reverse=True)[:MAX_PANELS]
    return {
        "name": run["name"],
        "snapshot": run["snapshot"],
        "steps": metrics[-1]["step"] if metrics else 0,
        "tokens": metrics[-1].get("tokens") if metrics else None,
        "tokens_per_s": rates[len(rates) // 2] if rates else None,
        "last_loss": metrics[-1]["loss"] if metrics else None,
        "loss": _loss_picture(metrics),
        "panels_shown": display.shown(min(len(figures), MAX_PANELS), len(figures), "domain"),
        "texts_shown": display.shown(len(steps), len(texts), "step"),
        "panels": _bits_panels(figures[:MAX_PANELS], comparable(evaluations)),
        "final": [
            {**row, "ratio": row["bits_per_byte"] / (row["unigram_bits_per_byte"] or math.nan)}
            for row in figures
        ],
        "scored_on": scored_on(final) if evaluations else None,
        "bits_per_byte": final.get("bits_per_byte"),
        "unigram": final.get("unigram_bits_per_byte"),
        "texts": [{"step": step, "texts": texts[step]} for step in steps],
        "config": display.toml_text(run["config"]),
    }


def comparable(evaluations: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Those over the same sample of the validation split, which make a curve: the last may be over all of it."""
    return [row for row in evaluations if row.get("share") == evaluations[0].get("share")]


def scored_on(evaluation: Mapping[str, Any]) -> str:
    """What an evaluation scored, in words: all of the validation split or a sample."""
    share = evaluation.get("share")
    part = "" if share is None else "all " if share == 1 else "a sample of "
    return f"{part}{display.number(evaluation.get('tokens'))} validation tokens"


def _continuation(text: Row) -> Row:
    """Split a generated text into its prompt and what the model added."""
    whole = display.clip(text["text"], SAMPLE_CHARACTERS)
    return {"prompt": text["prompt"], "rest": whole.removeprefix(text["prompt"])}


def _loss_picture(metrics: Sequence[Row]) -> Markup:
    loss = [(row["step"], row["loss"]) for row in metrics]
    curves = [
        Curve(name="loss of each step", points=loss, look="raw"),
        Curve(name="smoothed", points=charts.smooth(loss), look="kept"),
    ]
    return charts.lines(curves, title="Training loss, nats per token", height=200)


def _bits_panels(figures: Sequence[Row], evaluations: Sequence[Row]) -> list[Row]:
    """One small picture a domain, all with the same axes; the unigram baseline is a line across."""
    looks = {"unigram_bits_per_byte": "baseline", "bits_per_byte": "kept"}
    top = max((row[key] for row in figures for key in looks if math.isfinite(row[key])), default=0)
    panels = []
    for row in figures:
        name = row["name"]
        curves = []
        for key, look in looks.items():
            scored = [one for one in evaluations if name in one["domains"]]
            points = [(one["step"], one["domains"][name][key]) for one in scored]
            curves.append(Curve(name=display.words(key), points=points, look=look))
        title = f"Bits per byte on held-out text, {name}"
        picture = charts.lines(curves, title=title, height=96, from_zero=True, top=top)
        panels.append({**row, "picture": picture})
    return panels
