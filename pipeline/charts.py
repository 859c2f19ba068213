"""Pictures of the report and of data cards: small functions that each return one inline SVG.

Horizontal positions are percentages and text has a fixed size, so one picture fits a phone and a wide page; curves and
shapes live in a nested `<svg>` that stretches (`preserveAspectRatio="none"`). Colours are CSS classes that the page
defines for light and dark; a picture that stands alone brings its own style.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from markupsafe import Markup, escape

from pipeline.display import clip, number, percent, visible

FATES = ("kept", "duplicate", "dropped", "quarantined", "forgotten")
"""Fates in the order in which a bar shows them."""

Point = tuple[float, float]

# The colours of report.css: after Okabe and Ito (jfly.uni-koeln.de/color), moved in lightness until any two are at
# least 20 apart (CIE76) for eyes without red, green or blue cones too; a test holds that.
_STANDALONE_STYLE = """
:root { --ground: #fbfaf7; --ink: #22262b; --soft: #666b73; --line: #dedbd3;
  --kept: #2f78a3; --duplicate: #e3a008; --dropped: #c44d00; --quarantined: #67325e; --forgotten: #a0a4ab }
@media (prefers-color-scheme: dark) { :root { --ground: #17191c; --ink: #e8e6e1; --soft: #a2a6ad; --line: #34373c;
  --kept: #5fa8d3; --duplicate: #ffd166; --dropped: #d9621a; --quarantined: #a06fe0; --forgotten: #60646c } }
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
    description = "; ".join(
        f"{label}: {_in_words(counts, ('read', *FATES))}" for label, counts in rows[:60]
    )
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


def _in_words(counts: Mapping[str, int], names: Iterable[str] = FATES) -> str:
    return (
        ", ".join(f"{number(counts[name])} {name}" for name in names if counts.get(name)) or "none"
    )


def flow(rows: Mapping[str, Mapping[str, int]], ends: Sequence[tuple[str, str]]) -> Markup:
    """Draw where documents went: domains on the left, `ends` (name, fate) on the right, ribbons between them.

    `rows` gives the documents of each domain by name of end. Heights are proportional to documents; a node that is too
    thin for its label gets room around it, a ribbon of few documents stays visible.
    """
    whole = sum(sum(counts.values()) for counts in rows.values()) or 1
    scale = 250 / whole
    sums = {end: sum(counts.get(end, 0) for counts in rows.values()) for end, _ in ends}
    left, left_height = _stack(
        {name: scale * sum(counts.values()) for name, counts in rows.items()}
    )
    right, right_height = _stack({end: scale * total for end, total in sums.items()})
    height = max(left_height, right_height)
    shapes, parts = [], []
    to_y = dict(right)
    for name, counts in rows.items():
        y = left[name]
        for end, fate in ends:
            if count := counts.get(end, 0):
                thick = scale * count
                tip = _tag("title", f"{name}: {number(count)} {end}")
                shapes.append(
                    _tag(
                        "path", tip, d=_ribbon(y, to_y[end], max(thick, 0.8)), class_=f"flow {fate}"
                    )
                )
                y, to_y[end] = y + thick, to_y[end] + thick
        tall = max(y - left[name], 1.5)
        parts.append(_tag("rect", x=-4, y=left[name], width=4, height=tall, class_="node"))
        middle = left[name] + tall / 2 + 4
        parts.append(
            _tag("text", clip(name, 14), x=-10, y=middle, text_anchor="end", class_="strong")
        )
    for end, fate in ends:
        tall = max(scale * sums[end], 1.5)
        parts.append(_tag("rect", x="100%", y=right[end], width=4, height=tall, class_=fate))
        figures = _tag("tspan", f" {number(sums[end])}", class_="soft")
        label = _tag("tspan", clip(end, 17), class_="strong") + figures
        parts.append(_tag("text", label, x="100%", dx=10, y=right[end] + tall / 2 + 4))
    ribbons = _stretched(_join(shapes), height, width="100%")
    told = "; ".join(f"{name}: " + _in_words(counts, counts) for name, counts in rows.items())
    return _picture("Where the documents of each domain went", told, height, [ribbons, *parts])


def _stack(heights: Mapping[str, float], pitch: float = 19) -> tuple[dict[str, float], float]:
    """Top of each node when they stand one below the other, labels at least `pitch` apart; and the height of all."""
    tops, y = {}, 0.0
    for name, tall in heights.items():
        room = max(tall + 5, pitch)
        tops[name] = y + (room - tall) / 2
        y += room
    return tops, y


def _ribbon(y0: float, y1: float, thick: float) -> str:
    return (
        f"M0 {y0:.1f} C500 {y0:.1f} 500 {y1:.1f} 1000 {y1:.1f} v{thick:.2f} "
        f"C500 {y1 + thick:.1f} 500 {y0 + thick:.1f} 0 {y0 + thick:.1f} Z"
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
    """Draw curves over a common pair of axes; points that are not finite, or beyond 1e15, are left out.

    `top` extends the vertical axis, so that neighbouring pictures share it. The numbers of the axis stand left of the
    picture, in a margin that the page provides.
    """
    drawn = [
        (curve, [p for p in curve.points if abs(p[0]) < 1e15 and abs(p[1]) < 1e15])
        for curve in curves
    ]
    drawn = [(curve, kept) for curve, kept in drawn if kept]
    points = [point for _, kept in drawn for point in kept]
    if not points:
        return Markup("")
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    ys = [y for _, y in points] + ([0.0] if from_zero else []) + ([top] if top is not None else [])
    ticks = _ticks(min(ys), max(ys))
    low, high = min(ticks[0], *ys), max(ys)
    ticks = [tick for tick in ticks if tick <= high] or ticks[:1]
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
        f"{curve.name} from {number(kept[0][1])} to {number(kept[-1][1])}" for curve, kept in drawn
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


def smooth(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """Moving average over `share` of the points, centred (so that it does not lag), narrower towards both ends."""
    finite = [point for point in points if math.isfinite(point[1])]
    sums = list(accumulate((y for _, y in finite), initial=0.0))
    widest = round(share * len(finite) / 2)
    out = []
    for i, (x, _) in enumerate(finite):
        reach = min(widest, i, len(finite) - 1 - i)
        out.append((x, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1)))
    return out


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) that cover [low, high]."""
    # A constant still has an axis, and a span that is next to nothing stays within floating point.
    span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-12)
    power = 10 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.12g}") for i in range(first, last + 1)]


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
        overflow="visible",
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
