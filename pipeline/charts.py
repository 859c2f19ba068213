"""Pictures of the report and of data cards: small functions that each return one inline SVG.

Horizontal positions are percentages and text has a fixed size, so one picture fits a phone and a wide page; curves and
shapes live in a nested `<svg>` that stretches (`preserveAspectRatio="none"`). Colours are CSS classes that the page
defines for light and dark, or the sheet (`pipeline/svg.py`) on which a picture stands alone.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeGuard

from markupsafe import Markup

from pipeline.display import clip, number, percent, short
from pipeline.svg import Picture, joined, picture, stretched, tag

FATES = ("kept", "duplicate", "dropped", "quarantined", "forgotten")
"""Fates in the order in which a bar shows them."""

Point = tuple[float, float]

_BAR_STEP = 46
"""Pixels from one bar with its label to the next."""


def funnel(rows: Sequence[tuple[str, Mapping[str, int]]]) -> Picture:
    """Draw one bar a row (label, counts: `read` and the fates), split by fate, each bar as wide as its `read` is whole."""
    parts = [
        _fate_row(_both_ends(label, 22), counts, _BAR_STEP * i)
        for i, (label, counts) in enumerate(rows)
    ]
    description = "; ".join(
        f"{label}: {_in_words(counts, ('read', *FATES))}" for label, counts in rows[:60]
    )
    height = _BAR_STEP * len(rows) - 8
    return picture("What became of the documents", description, height, parts)


def _both_ends(name: str, characters: int) -> str:
    """A long name without its middle: names that begin alike often differ at their ends."""
    if len(name) <= characters:
        return name
    tail = (characters - 1) // 2
    return f"{name[: characters - 1 - tail]}\u2026{name[-tail:]}"


def _fate_row(label: str, counts: Mapping[str, int], y: int) -> Markup:
    read, kept = counts.get("read", 0), counts.get("kept", 0)
    figures = f"{number(kept)} of {number(read)} kept" + (
        f" \u00b7 {percent(kept, read)}" if read else ""
    )
    parts = [
        tag("text", label, x=0, y=y + 13, class_="strong"),
        tag("text", figures, x="100%", y=y + 13, text_anchor="end", class_="soft"),
        tag("rect", x=0, y=y + 21, width="100%", height=12, rx=2, class_="none"),
    ]
    x = 0.0
    for fate in FATES:
        if (count := counts.get(fate, 0)) and read:
            share = 100 * count / read
            tip = tag("title", f"{label}: {number(count)} {fate} ({percent(count, read)})")
            # A fate of few documents still shows, as a sliver.
            parts.append(
                tag(
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
                    tag("rect", x=f"{x:.3f}%", y=y + 21, width=1, height=12, class_="ground")
                )
    return joined(parts)


def _in_words(counts: Mapping[str, int], names: Iterable[str] = FATES) -> str:
    return (
        ", ".join(f"{number(counts[name])} {name}" for name in names if counts.get(name)) or "none"
    )


def flow(rows: Mapping[str, Mapping[str, int]], ends: Sequence[tuple[str, str]]) -> Picture:
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
                tip = tag("title", f"{name}: {number(count)} {end}")
                shapes.append(
                    tag(
                        "path", tip, d=_ribbon(y, to_y[end], max(thick, 0.8)), class_=f"flow {fate}"
                    )
                )
                y, to_y[end] = y + thick, to_y[end] + thick
        tall = max(y - left[name], 1.5)
        parts.append(tag("rect", x=-4, y=left[name], width=4, height=tall, class_="node"))
        middle = left[name] + tall / 2 + 4
        parts.append(
            tag("text", _both_ends(name, 14), x=-10, y=middle, text_anchor="end", class_="strong")
        )
    for end, fate in ends:
        tall = max(scale * sums[end], 1.5)
        parts.append(tag("rect", x="100%", y=right[end], width=4, height=tall, class_=fate))
        figures = tag("tspan", f" {number(sums[end])}", class_="soft")
        label = tag("tspan", clip(end, 17), class_="strong") + figures
        parts.append(tag("text", label, x="100%", dx=10, y=right[end] + tall / 2 + 4))
    ribbons = stretched(joined(shapes), height, width="100%")
    told = "; ".join(f"{name}: " + _in_words(counts, counts) for name, counts in rows.items())
    return picture("Where the documents of each domain went", told, height, [ribbons, *parts])


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
) -> Picture:
    """Draw `counts` as bars between `edges` (one more than counts), with `label` writing the edges.

    Of several equally tall bars the first carries its count; the others' are in their tips.
    """
    most = max(counts, default=0) or 1
    step = 100 / max(len(counts), 1)
    top, height = 16, height + 16
    parts = []
    if any(counts):
        peak = counts.index(most)
        middle = step * (peak + 0.5)
        # At an edge of the picture the figure stays within it.
        place, anchor = (0.0, "start") if middle < 12 else (100.0, "end") if middle > 88 else (middle, "middle")  # fmt: skip
        parts.append(
            tag("text", short(most), x=f"{place:.2f}%", y=12, text_anchor=anchor, class_="soft")
        )
    for i, count in enumerate(counts):
        # A bin that is not empty is never invisible.
        tall = max((height - top) * count / most, 1.5) if count else 0
        tip = tag("title", f"{label(edges[i])} to {label(edges[i + 1])}: {number(count)}")
        parts.append(
            tag(
                "rect",
                tip,
                x=f"{step * (i + 0.06):.2f}%",
                y=height - tall,
                width=f"{step * 0.88:.2f}%",
                height=tall,
                class_="kept",
            )
        )
    parts.append(tag("line", x1=0, x2="100%", y1=height, y2=height, class_="axis"))
    for i, anchor in ((0, "start"), (len(counts) // 2, "middle"), (len(counts), "end")):
        if counts:
            parts.append(
                tag(
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
    return picture(title, description, height + 18, parts)


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
) -> Picture:
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
        return Picture("")
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    ys = (
        [y for _, y in points]
        + ([0.0] if from_zero else [])
        + ([top] if top is not None and abs(top) < 1e15 else [])
    )
    ticks = _ticks(min(ys), max(ys))
    low, high = min(ticks[0], *ys), max(ys)
    ticks = [tick for tick in ticks if tick <= high] or ticks[:1]
    x_span, y_span = (x_high - x_low) or 1, (high - low) or 1
    parts = []
    for tick in ticks:
        y = 6 + height * (1 - (tick - low) / y_span)
        parts.append(
            tag("line", x1=0, x2="100%", y1=y, y2=y, class_="axis" if tick == low else "grid")
        )
        parts.append(tag("text", f"{tick:g}", x=-8, y=y + 4, text_anchor="end", class_="soft"))
    shapes = []
    for curve, kept in drawn:
        at = [
            (1000 * (x - x_low) / x_span, height * (1 - (y - low) / y_span)) for x, y in thin(kept)
        ]
        if len(at) == 1:
            at.append((1000.0, at[0][1]))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        shapes.append(tag("polyline", points=path, class_=f"curve {curve.look}"))
    parts.append(stretched(joined(shapes), height, y=6, width="100%"))
    for x, anchor in ((x_low, "start"), (x_high, "end")) if x_high > x_low else ((x_low, "start"),):
        text = f"step {number(x)}" if anchor == "start" else number(x)
        parts.append(
            tag(
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
    return picture(title, f"{ends}; steps {number(x_low)} to {number(x_high)}", height + 26, parts)


def thin(points: Sequence[Point], most: int = 600) -> list[Point]:
    """Leave at most `most` (4 or more) points: the ends, and the lowest and highest of each stretch, so no spike is lost."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(len(points) / ((most - 2) // 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        kept |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


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
    rect = tag(
        "rect",
        width=f"{max(100 * share, 0.8 if share else 0):.1f}%",
        height="100%",
        rx=1.5,
        class_=look,
    )
    return tag("svg", rect, class_="bar", aria_hidden="true")


@dataclass(frozen=True, kw_only=True)
class Track:
    """How far something is: a bar with a label at its left end and figures at its right end."""

    label: str
    figures: str
    share: float
    """Part that is done, in [0, 1]."""
    look: str


def tracks(rows: Sequence[Track], title: str) -> Picture:
    """Draw one bar a row, filled as far as it is done."""
    parts = []
    for i, row in enumerate(rows):
        y = _BAR_STEP * i
        parts.append(tag("text", clip(row.label, 60), x=0, y=y + 13, class_="strong"))
        parts.append(tag("text", row.figures, x="100%", y=y + 13, text_anchor="end", class_="soft"))
        bar_at: dict[str, str | float] = {"x": 0, "y": y + 21, "height": 8, "rx": 4}
        parts.append(tag("rect", width="100%", class_="none", **bar_at))
        if row.share > 0:
            # What has begun shows.
            wide = f"{100 * min(max(row.share, 0.012), 1):.2f}%"
            parts.append(tag("rect", width=wide, class_=row.look, **bar_at))
    told = "; ".join(f"{row.label}: {row.figures}" for row in rows)
    return picture(title, told, _BAR_STEP * len(rows) - 12, parts)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A figure that should be low, before and after, beside a baseline."""

    label: str
    new: float
    old: float | None
    baseline: float
    figures: str


def changes(rows: Sequence[Change], title: str) -> Picture:
    """Draw each row's figures on a common axis: a dot for the new one, a ring for the old, a mark for the baseline.

    Figures that are not finite, or beyond 1e15, are left out.

    Labels stand left and figures right of the picture, in margins that the sheet provides.
    """
    step = 30
    given = [(row.new, row.old, row.baseline) for row in rows]
    values = [value for row in given for value in row if _can_stand(value)]
    if not values:
        return Picture("")
    ticks = _ticks(min(values), max(values), 6)
    low, high = ticks[0], ticks[-1]

    def at(value: float) -> str:
        return f"{100 * (value - low) / ((high - low) or 1):.2f}%"

    bottom = step * len(rows) + 6
    parts = []
    for tick in ticks:
        parts.append(tag("line", x1=at(tick), x2=at(tick), y1=0, y2=bottom, class_="grid"))
        label = {"x": at(tick), "y": bottom + 16, "text_anchor": "middle", "class_": "soft"}
        parts.append(tag("text", f"{tick:g}", **label))
    for i, row in enumerate(rows):
        y = step * i + step / 2 + 3
        look = "kept" if row.old is None or row.new <= row.old else "dropped"
        parts.append(
            tag("text", clip(row.label, 18), x=-14, y=y + 4, text_anchor="end", class_="strong")
        )
        parts.append(tag("text", row.figures, x="100%", dx=14, y=y + 4, class_="soft"))
        if _can_stand(row.baseline):
            x = at(row.baseline)
            parts.append(tag("line", x1=x, x2=x, y1=y - 6, y2=y + 6, class_="mark"))
        if _can_stand(row.old) and _can_stand(row.new):
            ends = {"x1": at(row.old), "x2": at(row.new), "y1": y, "y2": y}
            parts.append(tag("line", class_=f"curve {look}", **ends))
            parts.append(tag("circle", cx=at(row.old), cy=y, r=5, class_="ring"))
        if _can_stand(row.new):
            parts.append(tag("circle", cx=at(row.new), cy=y, r=6, class_=look))
    told = "; ".join(f"{row.label}: {row.figures}" for row in rows)
    return picture(title, told, bottom + 20, parts)


def _can_stand(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) < 1e15
