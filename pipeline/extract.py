"""HTML to plain text: the main content of a page, by resiliparse."""

from dataclasses import dataclass
from typing import Literal

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import HTMLTree

from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """How text is taken out of HTML."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    extractor: Literal["resiliparse"] = "resiliparse"
    """The extractor; resiliparse keeps the main content by simple rules, at some 1,000 pages a second."""

    def __post_init__(self) -> None:
        if self.extractor != "resiliparse":
            raise ConfigError(f"extract.extractor: expected 'resiliparse', got {self.extractor!r}")


def html_to_text(data: bytes, charset: str | None = None) -> tuple[str, str]:
    """Give (text of the main content, title) of a page; `charset` is what the HTTP header says.

    The page's own byte order mark or meta tag goes before a guess; a charset that nobody knows counts as none.
    """
    tree = HTMLTree.parse(decode_html(data, charset))
    text = extract_plain_text(tree, main_content=True, alt_texts=False, preserve_formatting=True)
    return text.strip(), " ".join((tree.title or "").split())


def decode_html(data: bytes, charset: str | None = None) -> str:
    """Decode a page by its byte order mark, the header's charset, its meta tag, or else a guess."""
    encoding = charset or detect_encoding(data, from_html_meta=True)
    return bytes_to_str(
        data, encoding or "utf-8", errors="replace", fallback_encodings=("utf-8", "windows-1252")
    )
