"""Pictures of the report and of data cards: small functions that each return one inline SVG.

Horizontal positions are percentages and text has a fixed size, so one picture fits a phone and a wide page; curves and
shapes live in a nested `<svg>` that stretches (`preserveAspectRatio="none"`). Colours are CSS classes that the page
defines for light and dark; a picture that stands alone brings its own style.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from pipeline.display import clip, number, percent, plural, visible

FATES = ("kept", "duplicate", "dropped", "quarantined", "forgotten")
"""Fates in the order in which a bar shows them."""

Point = tuple[float, float]

# Okabe and Ito's colours (jfly.uni-koeln.de/color), which the common forms of colour blindness keep apart; the blue
# and the amber are toned so that they also differ in lightness on both grounds.
_STANDALONE_STYLE = """
:root { --ground: #fbfaf7; --ink: #22262b; --soft: #666b73; --line: #dedbd3;
  --kept: #2a6f97; --duplicate: #e3a008; --dropped: #cc5500; --quarantined: #b0689a; --forgotten: #8a8f98 }
@media (prefers-color-scheme: dark) { :root { --ground: #17191c; --ink: #e8e6e1; --soft: #a2a6ad; --line: #34373c;
  --kept: #5fa8d3; --duplicate: #f0b541; --dropped: #ee7f37; --quarantined: #d394bd; --forgotten: #8a8f98 } }
text { font: 13px -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; fill: var(--ink);
  font-variant-numeric: tabular-nums }
.soft { fill: var(--soft) } .strong { font-weight: 600 } .ground { fill: var(--ground) } .none { fill: var(--line) }
.kept { fill: var(--kept) } .duplicate { fill: var(--duplicate) } .dropped { fill: var(--dropped) }
.quarantined { fill: var(--quarantined) } .forgotten { fill: var(--forgotten) }
"""


def funnel(rows: Sequence[tuple[str, Mapping[str, int]]], *, width: int | None = None) -> Markup:
    """Draw one bar a row (label, counts: `read` and the fates), split by fate, each bar as wide as its `read` is whole.

    With a `width` in pixels the picture stands alone (own colours, legend, namespace); without, it fills its place.
    """
    step, top = 46, 0 if width is None else 14
    parts = [
        _fate_row(clip(label, 30), counts, top + step * i) for i, (label, counts) in enumerate(rows)
    ]
    height = top + step * len(rows) - 8
    description = "; ".join(f"{label}: {_fates_in_words(counts)}" for label, counts in rows[:60])
    if width is None:
        return _picture("What became of the documents", description, height, parts)
    legend = [
        _tag("rect", x=f"{i * 20}%", y=height + 13, width=10, height=10, rx=2, class_=fate)
        + _tag("text", fate, x=f"{i * 20 + 2.4}%", y=height + 22, class_="soft")
        for i, fate in enumerate(FATES)
    ]
    inner = _tag(
        "svg",
        _join([*parts, *legend]),
        x=16,
        width=width - 32,
        height=height + 34,
        overflow="visible",
    )
    ground = _tag("rect", width="100%", height="100%", rx=8, class_="ground")
    style = Markup("<style>{}</style>").format(Markup(_STANDALONE_STYLE))  # a constant
    body = [style, ground, inner]
    return _picture("What became of the documents", description, height + 42, body, width=width)


def _fate_row(label: str, counts: Mapping[str, int], y: int) -> Markup:
    read, kept = counts.get("read", 0), counts.get("kept", 0)
    figures = f"{number(kept)} of {number(read)} kept" + (
        f" \u00b7 {percent(kept, read)}" if read else ""
    )
    parts = [
        _tag("text", label, x=0, y=y + 13, class_="strong"),
        _tag("text", figures, x="100%", y=y + 13, text_anchor="end", class_="soft"),
        _tag("rect", x=0, y=y + 21, width="100%", height=12, rx=2, class_="none"),
    ]
    x = 0.0
    for fate in FATES:
        if (count := counts.get(fate, 0)) and read:
            share = 100 * count / read
            tip = _tag("title", f"{label}: {number(count)} {fate} ({percent(count, read)})")
            # A fate of few documents still shows, as a sliver.
            parts.append(
                _tag(
                    "rect",
                    tip,
                    x=f"{x:.3f}%",
                    y=y + 21,
                    width=f"{max(share, 0.15):.3f}%",
                    height=12,
                    class_=fate,
                )
            )
            x += share
            if x < 99.9:
                parts.append(
                    _tag("rect", x=f"{x:.3f}%", y=y + 21, width=1, height=12, class_="ground")
                )
    return _join(parts)


def _fates_in_words(counts: Mapping[str, int]) -> str:
    named = [f"{number(counts[fate])} {fate}" for fate in FATES if counts.get(fate)]
    return f"{number(counts.get('read', 0))} read" + (": " + ", ".join(named) if named else "")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of the mill: what went in, what came out, and the fate of the rest."""

    name: str
    documents_in: int
    documents_out: int
    fate: str


def mill(steps: Sequence[Step]) -> Markup:
    """Draw the stream of documents from top to bottom, losing at each stage what the stage takes out.

    Widths are proportional to documents; a stage that took out any shows at least a thread.
    """
    row, left = 42, 40
    whole = max((step.documents_in for step in steps), default=0) or 1
    labels, shapes = [], []
    scale, drift = 840 / whole, 110
    for i, step in enumerate(steps):
        y, lost = row * i, step.documents_in - step.documents_out
        x0, x1 = scale * step.documents_out, scale * step.documents_in
        shapes.append(_tag("rect", x=0, y=y - 0.5, width=x0, height=row + 1, class_="kept"))
        labels.append(
            _tag("text", clip(step.name, 22), x=0, y=y + 17, class_="strong" if lost else "soft")
        )
        if lost > 0:
            x1 = max(x1, x0 + 2)
            path = (
                f"M{x0:.1f} {y} C{x0:.1f} {y + 20} {x0 + drift * 0.4:.1f} {y + 26} {x0 + drift:.1f} {y + 38} "
                f"L{x1 + drift:.1f} {y + 38} C{x1 + drift * 0.4:.1f} {y + 26} {x1:.1f} {y + 20} {x1:.1f} {y} Z"
            )
            tip = _tag("title", f"{step.name}: {plural(lost, 'document')} {step.fate}")
            shapes.append(_tag("path", tip, d=path, fill=f"url(#fall-{step.fate})"))
            labels.append(
                _tag(
                    "text",
                    f"\u2212{number(lost)} \u00b7 {percent(lost, whole)}",
                    x=0,
                    y=y + 33,
                    class_="soft",
                )
            )
    height = row * len(steps)
    fades = [
        _tag(
            "linearGradient",
            _tag("stop", offset="0.15", class_=f"stop-{fate}") + _tag("stop", offset="1", class_=f"stop-{fate}", stop_opacity=0),
            id=f"fall-{fate}", x1=0, y1=0, x2=0, y2=1,
        )
        for fate in FATES[1:]
    ]  # fmt: skip
    stream = _stretched(_join(shapes), height, x=f"{left}%", width=f"{100 - left}%")
    description = "; ".join(
        f"{step.name}: {number(step.documents_in)} in, {number(step.documents_out)} out"
        for step in steps
    )
    return _picture(
        "The stream of documents through the stages",
        description,
        height,
        [_tag("defs", _join(fades)), stream, *labels],
    )


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    label: Callable[[float], str],
    *,
    title: str,
    height: int = 64,
) -> Markup:
    """Draw `counts` as bars between `edges` (one more than counts), with `label` writing the edges."""
    most = max(counts, default=0) or 1
    step = 100 / max(len(counts), 1)
    parts = []
    for i, count in enumerate(counts):
        # A bin that is not empty is never invisible.
        tall = max(height * count / most, 1.5) if count else 0
        tip = _tag("title", f"{label(edges[i])} to {label(edges[i + 1])}: {number(count)}")
        parts.append(
            _tag(
                "rect",
                tip,
                x=f"{step * (i + 0.06):.2f}%",
                y=height - tall,
                width=f"{step * 0.88:.2f}%",
                height=tall,
                class_="kept",
            )
        )
    parts.append(_tag("line", x1=0, x2="100%", y1=height, y2=height, class_="axis"))
    for i, anchor in ((0, "start"), (len(counts) // 2, "middle"), (len(counts), "end")):
        if counts:
            parts.append(
                _tag(
                    "text",
                    label(edges[i]),
                    x=f"{step * i:.2f}%",
                    y=height + 15,
                    text_anchor=anchor,
                    class_="soft",
                )
            )
    description = "; ".join(
        f"{label(a)} to {label(b)}: {number(n)}"
        for (a, b), n in zip(pairwise(edges), counts, strict=True)
        if n
    )
    return _picture(title, description, height + 18, parts)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A named curve; `look` is the CSS class of its line."""

    name: str
    points: Sequence[Point]
    look: str


def lines(
    curves: Sequence[Curve],
    *,
    title: str,
    height: int = 150,
    from_zero: bool = False,
    top: float | None = None,
) -> Markup:
    """Draw curves over a common pair of axes; points that are not finite are left out.

    `top` extends the vertical axis, so that neighbouring pictures share it. The numbers of the axis stand left of the
    picture, in a margin that the page provides.
    """
    drawn = [
        (curve, [p for p in curve.points if math.isfinite(p[0]) and math.isfinite(p[1])])
        for curve in curves
    ]
    points = [point for _, kept in drawn for point in kept]
    if not points:
        return Markup("")
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    ys = [y for _, y in points] + ([0.0] if from_zero else []) + ([top] if top is not None else [])
    ticks = _ticks(min(ys), max(ys))
    low, high = min(ticks[0], *ys), max(ticks[-1], *ys)
    x_span, y_span = (x_high - x_low) or 1, (high - low) or 1
    parts = []
    for tick in ticks:
        y = 6 + height * (1 - (tick - low) / y_span)
        parts.append(
            _tag("line", x1=0, x2="100%", y1=y, y2=y, class_="axis" if tick == low else "grid")
        )
        parts.append(_tag("text", f"{tick:g}", x=-8, y=y + 4, text_anchor="end", class_="soft"))
    shapes = []
    for curve, kept in drawn:
        at = [
            (1000 * (x - x_low) / x_span, height * (1 - (y - low) / y_span)) for x, y in thin(kept)
        ]
        if len(at) == 1:
            at.append((1000.0, at[0][1]))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        shapes.append(_tag("polyline", points=path, class_=f"curve {curve.look}"))
    parts.append(_stretched(_join(shapes), height, y=6, width="100%"))
    for x, anchor in ((x_low, "start"), (x_high, "end")) if x_high > x_low else ((x_low, "start"),):
        text = f"step {number(x)}" if anchor == "start" else number(x)
        parts.append(
            _tag(
                "text",
                text,
                x="0" if anchor == "start" else "100%",
                y=height + 22,
                text_anchor=anchor,
                class_="soft",
            )
        )
    ends = "; ".join(
        f"{curve.name} from {number(kept[0][1])} to {number(kept[-1][1])}"
        for curve, kept in drawn
        if kept
    )
    return _picture(title, f"{ends}; steps {number(x_low)} to {number(x_high)}", height + 26, parts)


def thin(points: Sequence[Point], most: int = 600) -> list[Point]:
    """Leave at most `most` points, keeping the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(len(points) / (most // 2))
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {
            part.index(min(part, key=lambda p: p[1])),
            part.index(max(part, key=lambda p: p[1])),
        }
        kept += [part[i] for i in sorted(ends)]
    return kept


def smooth(points: Sequence[Point], weight: float = 0.95) -> list[Point]:
    """Exponential moving average of the second coordinate, corrected for its start (as Adam does)."""
    average, total, out = 0.0, 0.0, []
    for x, y in points:
        if math.isfinite(y):
            average, total = weight * average + (1 - weight) * y, weight * total + (1 - weight)
            out.append((x, average / total))
    return out


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) that cover [low, high]."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]


def bar(part: float, whole: float, look: str = "kept") -> Markup:
    """Draw a share as a bar for a table cell; decoration beside its number, so hidden from screen readers."""
    share = min(max(part / whole, 0), 1) if whole and math.isfinite(part) else 0
    rect = _tag(
        "rect",
        width=f"{max(100 * share, 0.8 if share else 0):.1f}%",
        height="100%",
        rx=1.5,
        class_=look,
    )
    return _tag("svg", rect, class_="bar", aria_hidden="true")


def _picture(
    title: str, description: str, height: float, parts: Sequence[Markup], width: int | None = None
) -> Markup:
    head = [_tag("title", title), _tag("desc", description)]
    alone = (
        {}
        if width is None
        else {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height:g}"}
    )
    return _tag(
        "svg",
        _join([*head, *parts]),
        class_="chart",
        role="img",
        width=width or "100%",
        height=height,
        **alone,
    )


def _stretched(body: Markup, height: float, **place: str | float) -> Markup:
    return _tag(
        "svg",
        body,
        viewBox=f"0 0 1000 {height:g}",
        preserveAspectRatio="none",
        height=height,
        **place,
    )


def _tag(name: str, body: str = "", /, **attributes: str | float) -> Markup:
    """One element: text and attributes escaped, `class_` for class, `text_anchor` for text-anchor, two decimals."""
    written = [
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"),
            f"{value:.2f}".rstrip("0").rstrip(".")
            if isinstance(value, float)
            else visible(str(value)),
        )
        for key, value in attributes.items()
    ]
    inner = body if isinstance(body, Markup) else escape(visible(body))
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(written), inner)


def _join(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)
