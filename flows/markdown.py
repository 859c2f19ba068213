"""Markdown for cards: tables, pictures, graphs, and foreign text that stays text.

What is written here is shown by Prefect's UI (GitHub's markdown with HTML, cleaned; mermaid graphs; data-URI images) and
by whatever shows the same file from the lake.
"""

import base64
import html
from collections.abc import Sequence

from markupsafe import Markup

from pipeline.display import clip, visible


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], align: str = "") -> str:
    """A table of cells that are markdown already; `align` has l or r for each column (default: l). Empty if no lines."""
    rules = ["---:" if side == "r" else "---" for side in align.ljust(len(heads), "l")]
    rows = [heads, rules, *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) if lines else ""


def plain(text: str) -> str:
    """Text that markdown and HTML leave as it is, on one line."""
    return html.escape(" ".join(visible(str(text)).split()), quote=False).translate(_MARKDOWN)


# html.escape has done <, > and &, and its "&lt;" must stay, so neither & nor ; is here, and one pass is a must for #.
_MARKDOWN = {ord(character): f"&#{ord(character)};" for character in "\\`*_[](){}|~#!:"}


def code(text: str, characters: int) -> str:
    """Foreign text as inline code on one line; nothing in it can end the code or the table's cell."""
    shown = plain(clip(text, characters))
    return f"<code>{shown}</code>" if shown else ""


def picture(svg: Markup, words: str) -> str:
    """An SVG that stands alone, as an image; `words` for those who do not see it."""
    if not svg:
        return ""
    return f"![{plain(words)}](data:image/svg+xml;base64,{base64.b64encode(str(svg).encode()).decode()})"


def mermaid(lines: Sequence[str]) -> str:
    """A graph that the UI draws, from top-down or left-right `lines`."""
    return "\n".join(["```mermaid", *lines, "```"])


def join(parts: Sequence[str]) -> str:
    """A page of the parts that are not empty."""
    return "\n\n".join(part for part in parts if part) + "\n"
