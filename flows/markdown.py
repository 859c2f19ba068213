"""Markdown for cards: tables, pictures, graphs, and foreign text that stays text.

What is written here is shown by Prefect's UI (GitHub's markdown with HTML, cleaned; mermaid graphs; data-URI images) and
by whatever shows the same file from the lake.
"""

import base64
import html
import re
from collections.abc import Sequence

from markupsafe import Markup

from pipeline.display import clip, fixed, visible

PICTURE_WIDTH = 690
"""Pixels; the width of a text column in Prefect's artifact page at its usual size."""


def page(parts: Sequence[str]) -> str:
    """A card of the parts that are not empty."""
    return "\n\n".join(part for part in parts if part) + "\n"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], align: str = "") -> str:
    """A table of cells that are markdown already; `align` has l or r for each column, l if it is short.

    Figures do not break across lines: spaces of right-aligned cells are kept together. Empty if there are no lines.
    """
    sides = align.ljust(len(heads), "l")
    rules = ["---:" if side == "r" else "---" for side in sides]
    rows = [
        [cell.replace(" ", "\u00a0") if side == "r" else cell for side, cell in zip(sides, line, strict=True)]
        for line in lines
    ]  # fmt: skip
    cells = [heads, rules, *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) if lines else ""


def plain(text: object) -> str:
    """Text that markdown and HTML leave as it is, on one line."""
    return _escaped(_one_line(text))


def wrapping(text: object) -> str:
    """The same, with places to break lines in runs without spaces: binary data or a long path would widen the page."""
    return _escaped(re.sub(r"\S{24}(?=\S)", f"\\g<0>{_BREAK}", _one_line(text)))


def _one_line(text: object) -> str:
    return " ".join(visible(str(text)).split())


def _escaped(text: str) -> str:
    return html.escape(_LINK.sub(f"\\g<0>{_BREAK}", text), quote=False).translate(_MARKDOWN)


_BREAK = "\u200b"
"""A place where a line may break, without width."""

# Viewers make links of addresses even if their signs are written as entities; with a break inside they are none.
_LINK = re.compile(r"https?:(?=//)|www(?=\.)|(?<=[\w.+-])(?=@[\w-]+\.)", re.IGNORECASE)

# html.escape has done <, > and &, and its "&lt;" must stay, so neither & nor ; is here, and one pass is a must for #.
_MARKDOWN = {ord(character): f"&#{ord(character)};" for character in "\\`*_[](){}|~#!:"}


def paragraph(text: object) -> str:
    """The same as a block of its own, or an item of a list: no dash, sign or number at its beginning makes it a list."""
    shown = plain(text)
    return f"&#{ord(shown[0])};{shown[1:]}" if re.match(r"[-+=\d]", shown) else shown


def code(text: str, characters: int) -> str:
    """Foreign text as inline code on one line; nothing in it can end the code or the table's cell."""
    shown = wrapping(clip(text, characters))
    return f"<code>{shown}</code>" if shown else ""


def signed(value: float, decimals: int) -> str:
    """A change, with its sign."""
    shown = round(value, decimals) + 0.0  # no minus before a zero
    return f"{'+' if shown > 0 else ''}{fixed(shown, decimals)}"


def folded(head: str, body: str) -> str:
    """Markdown that opens at a click; nothing if there is no body."""
    return f"<details>\n<summary>{plain(head)}</summary>\n\n{body}\n\n</details>" if body else ""


def toml_block(text: str) -> str:
    """TOML as a block; a fence in its strings cannot end it, because it is longer than any."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}toml\n{visible(text)}\n{fence}" if text else ""


def image(svg: Markup, words: str) -> str:
    """An SVG that stands alone, as a data-URI; `words` for those who do not see it. Empty without a picture."""
    if not svg:
        return ""
    return f"![{plain(words)}](data:image/svg+xml;base64,{base64.b64encode(str(svg).encode()).decode()})"


def mermaid(lines: Sequence[str]) -> str:
    """A graph that the UI draws."""
    return "\n".join(["```mermaid", *lines, "```"])
