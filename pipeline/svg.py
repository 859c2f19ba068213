"""SVG by hand: elements with everything escaped, pictures for a page, and sheets of pictures that stand alone.

A picture in a page has its colours from the page's style sheet. A sheet is a file of its own (a data card shows it as an
image), so it brings colours, ground and legend along, in light and dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipeline.display import visible

# The colours of report.css: after Okabe and Ito (jfly.uni-koeln.de/color), moved in lightness until any two are at
# least 20 apart (CIE76) for eyes without red, green or blue cones too; a test holds that.
_STYLE = """
:root { --ground: #fbfaf7; --ink: #22262b; --soft: #666b73; --line: #dedbd3;
  --kept: #2f78a3; --duplicate: #e3a008; --dropped: #c44d00; --quarantined: #67325e; --forgotten: #a0a4ab }
@media (prefers-color-scheme: dark) { :root { --ground: #17191c; --ink: #e8e6e1; --soft: #a2a6ad; --line: #34373c;
  --kept: #5fa8d3; --duplicate: #ffd166; --dropped: #d9621a; --quarantined: #a06fe0; --forgotten: #60646c } }
text { font: 13px -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; fill: var(--ink);
  font-variant-numeric: tabular-nums }
.soft { fill: var(--soft) } .strong { font-weight: 600 } .ground { fill: var(--ground) } .none { fill: var(--line) }
.kept { fill: var(--kept) } .duplicate { fill: var(--duplicate) } .dropped { fill: var(--dropped) }
.quarantined { fill: var(--quarantined) } .forgotten { fill: var(--forgotten) }
.axis { stroke: var(--soft) } .grid { stroke: var(--line) } .mark { stroke: var(--soft); stroke-width: 2 }
.ring { fill: var(--ground); stroke: var(--soft); stroke-width: 2 }
.chart { overflow: visible }
.curve { fill: none; stroke: var(--kept); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round }
.curve.raw { stroke-width: 1; opacity: 0.4 } .curve.dropped { stroke: var(--dropped) }
.curve.baseline { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4 }
"""

_PAD, _GAP, _TITLE, _LEGEND = 16, 28, 22, 26
_LETTER = 7.2
"""Pixels of a letter of the legend, on the wide side: fonts differ, and words must not run into each other."""


class Picture(Markup):
    """One `<svg>` element as wide as its place."""

    height: float = 0.0
    """In pixels."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture's place on a sheet."""

    picture: Picture
    title: str = ""
    figure: str = ""
    """Said at the right end of the title's line."""
    left: int = 0
    """Pixels beside the picture, for what it writes there: the numbers of an axis, labels of rows."""
    right: int = 0


def sheet(
    panels: Sequence[Panel],
    *,
    title: str,
    description: str,
    width: int,
    columns: int = 1,
    legend: Sequence[tuple[str, str]] = (),
) -> Markup:
    """A picture that stands alone: panels in columns, below them the legend of (look, words).

    A look is the class of an area, "curve ..." for a line, "dot ...", "ring" or "mark" for a point. Empty if there are no panels with a picture in them.
    """
    shown = [panel for panel in panels if panel.picture]
    if not shown:
        return Markup("")
    parts, y = [], float(_PAD)
    wide = (width - 2 * _PAD - (columns - 1) * _GAP) / columns
    for begin in range(0, len(shown), columns):
        row = shown[begin : begin + columns]
        headed = _TITLE if any(panel.title for panel in row) else 0
        parts += [
            _placed(panel, _PAD + i * (wide + _GAP), y, wide, headed) for i, panel in enumerate(row)
        ]
        y += headed + max(panel.picture.height for panel in row) + _PAD
    x = float(_PAD)
    for look, words in legend:
        parts.append(_swatch(look, x, y))
        parts.append(tag("text", words, x=x + 24, y=y + 9, class_="soft"))
        x += 44 + _LETTER * len(words)
    height = y + (_LEGEND if legend else 0)
    # The style is a constant.
    head = [
        Markup("<style>{}</style>").format(Markup(_STYLE)),
        tag("rect", width="100%", height="100%", rx=8, class_="ground"),
    ]
    alone = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height:g}"}
    return picture(title, description, height, [*head, *parts], width=width, **alone)


def _placed(panel: Panel, x: float, y: float, width: float, headed: int) -> Markup:
    inner = width - panel.left - panel.right
    place = {"x": x + panel.left, "y": y + headed, "width": inner, "height": panel.picture.height}
    parts = [tag("svg", panel.picture, overflow="visible", **place)]
    if panel.title:
        parts.append(tag("text", panel.title, x=x, y=y + 10, class_="strong"))
    if panel.figure:
        end = {"x": x + width, "y": y + 10, "text_anchor": "end", "class_": "soft"}
        parts.append(tag("text", panel.figure, **end))
    return joined(parts)


def _swatch(look: str, x: float, y: float) -> Markup:
    if look.startswith("curve"):
        return tag("line", x1=x, x2=x + 16, y1=y + 5, y2=y + 5, class_=look)
    if look == "mark":
        return tag("line", x1=x + 9, x2=x + 9, y1=y - 1, y2=y + 11, class_=look)
    if look == "ring" or look.startswith("dot"):
        return tag("circle", cx=x + 9, cy=y + 5, r=5, class_=look)
    return tag("rect", x=x + 4, y=y, width=10, height=10, rx=2, class_=look)


def picture(
    title: str,
    description: str,
    height: float,
    parts: Sequence[Markup],
    *,
    width: int | str = "100%",
    **attributes: str | float,
) -> Picture:
    """An `<svg>` with a title and a description for those who do not see it."""
    body = joined([tag("title", title), tag("desc", description), *parts])
    frame = {"class_": "chart", "role": "img", "width": width, "height": height}
    made = Picture(tag("svg", body, **frame, **attributes))
    made.height = height
    return made


def stretched(body: Markup, height: float, **place: str | float) -> Markup:
    """A part of a picture that is 1,000 units wide, whatever the picture is."""
    return tag(
        "svg",
        body,
        viewBox=f"0 0 1000 {height:g}",
        preserveAspectRatio="none",
        overflow="visible",
        height=height,
        **place,
    )


def tag(name: str, body: str = "", /, **attributes: str | float) -> Markup:
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


def joined(parts: Sequence[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)
