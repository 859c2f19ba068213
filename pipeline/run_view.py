"""What the report shows of a training run: its curves, its last evaluation, and the texts it wrote on the way."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import charts, display
from pipeline.charts import Curve

Row = dict[str, Any]

MAX_PANELS = 12
"""Domains that get a picture of their own; tables list them all."""
SAMPLE_CHARACTERS = 700
"""Length of a text shown as a sample."""


def run_view(run: Row, domains: Sequence[str]) -> Row:
    """Return figures, curves as SVG, the last evaluation domain by domain (in the order of `domains`), texts by step.

    `run` holds name, snapshot, config, metrics (a row a step), evaluations and samples, each of which may be missing.
    """
    metrics, evaluations = run.get("metrics") or [], run.get("evaluations") or []
    loss = [(row["step"], row["loss"]) for row in metrics if row.get("loss") is not None]
    loss_curves = [
        Curve(name="loss of each step", points=loss, look="raw"),
        Curve(name="smoothed", points=charts.smooth(loss), look="kept"),
    ]
    last = (evaluations[-1].get("domains") or {}) if evaluations else {}
    order = [name for name in domains if name in last]
    order += sorted(set(last) - set(order))
    tops = [
        figures.get(key)
        for figures in last.values()
        for key in ("bits_per_byte", "unigram_bits_per_byte")
    ]
    top = max((value for value in tops if value is not None and math.isfinite(value)), default=None)
    rates = sorted(row["tokens_per_s"] for row in metrics if row.get("tokens_per_s"))
    texts: dict[int, list[Row]] = defaultdict(list)
    for text in run.get("samples") or []:
        texts[text["step"]].append(_continuation(text))
    return {
        "name": run.get("name", ""),
        "snapshot": run.get("snapshot", ""),
        "steps": metrics[-1]["step"] if metrics else 0,
        "tokens": metrics[-1].get("tokens") if metrics else None,
        "tokens_per_s": rates[len(rates) // 2] if rates else None,
        "last_loss": loss[-1][1] if loss else None,
        "loss": charts.lines(loss_curves, title="Training loss, nats per token", height=200)
        if loss
        else None,
        "panels": [_bits_panel(name, evaluations, top) for name in order[:MAX_PANELS]],
        "final": [_final(name, last[name]) for name in order],
        "bits_per_byte": evaluations[-1].get("bits_per_byte") if evaluations else None,
        "unigram": _weighted(last, "unigram_bits_per_byte"),
        "texts": [{"step": step, "texts": texts[step]} for step in sorted(texts, reverse=True)][
            :MAX_PANELS
        ],
        "config": display.toml_text(run.get("config") or {}),
    }


def _continuation(text: Row) -> Row:
    """Split a generated text into its prompt and what the model added."""
    prompt, whole = (
        text.get("prompt") or "",
        display.clip(text.get("text") or "", SAMPLE_CHARACTERS),
    )
    return {"prompt": prompt, "rest": whole.removeprefix(prompt)}


def _bits_panel(name: str, evaluations: Sequence[Row], top: float | None) -> Row:
    def curve(key: str, label: str, look: str) -> Curve:
        points = [
            (row["step"], row["domains"][name][key])
            for row in evaluations
            if (row.get("domains") or {}).get(name, {}).get(key) is not None
        ]
        return Curve(name=label, points=points, look=look)

    curves = [
        curve("unigram_bits_per_byte", "unigram", "baseline"),
        curve("bits_per_byte", "validation", "kept"),
    ]
    picture = charts.lines(
        curves, title=f"Bits per byte on held-out text, {name}", height=96, from_zero=True, top=top
    )
    return {"picture": picture, **_final(name, evaluations[-1]["domains"][name])}


def _final(name: str, figures: Row) -> Row:
    bits, unigram = figures.get("bits_per_byte"), figures.get("unigram_bits_per_byte")
    row = {
        "name": name,
        "loss": None,
        "tokens": None,
        "bits_per_byte": None,
        "unigram_bits_per_byte": None,
        **figures,
    }
    return {**row, "ratio": bits / unigram if bits is not None and unigram else None}


def _weighted(domains: Mapping[str, Row], key: str) -> float | None:
    """Mean of a figure over domains, by their bytes."""
    rows = [(row[key], row.get("bytes", 0)) for row in domains.values() if row.get(key) is not None]
    total = sum(weight for _, weight in rows)
    return sum(value * weight for value, weight in rows) / total if total else None
