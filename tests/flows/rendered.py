"""Cards as a browser gets them: markdown rendered to HTML, and what stands in it."""

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Pictures differ by what they show.
        self.tags.append(" ".join([tag, *(name for name, _ in attrs)]))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen(card: str) -> tuple[list[str], str]:
    """Tags with the names of their attributes, in order; and the text, its white space made single spaces."""
    parser = _Seen()
    parser.feed(_MARKDOWN.render(card))
    return parser.tags, re.sub(r"\s+", " ", "".join(parser.text))
