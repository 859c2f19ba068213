"""Normalisation: what a text looks like before any rule sees it. The second stage of a build, an edit of texts.

Mojibake is repaired line by line, and only in lines that ftfy's own badness measure calls bad; line ends become LF,
control characters go, characters are composed (NFC), spaces at line ends and runs of blank lines are cut. Normalising a
normalised text changes nothing. Code keeps its characters and its white space: only line ends and controls change.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import ftfy
import pyarrow as pa
from ftfy.badness import is_bad

from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class NormalizeConfig:
    """What normalisation does to a text."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    mojibake: bool = True
    """Repair text that was decoded with a wrong encoding (ftfy), line by line, where it is recognised."""
    max_blank_lines: int = 2
    """Blank lines in a row that are kept; more become this many."""
    code_domains: tuple[str, ...] = ("code",)
    """Domains whose texts keep their characters and inner white space."""

    def __post_init__(self) -> None:
        if self.max_blank_lines < 1:
            raise ConfigError(
                f"normalize.max_blank_lines: expected at least 1 (a blank line ends a paragraph), got {self.max_blank_lines}"
            )


_LINE_ENDS = re.compile("\r\n?|\u2028")
# C0 but tab and LF, DEL, C1, the byte order mark inside a text, and the two code points that are no characters.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_TRAILING = re.compile(r"[^\S\n]+(?=\n|\Z)")


def normalize(
    texts: pa.Array, domains: pa.Array, config: NormalizeConfig, stats: Counter[str]
) -> pa.Array:
    """Give the normalised texts; `stats` counts the documents that each step changed. A null stays null."""
    changed = [
        text
        if text is None
        else _normalize_code(text, stats)
        if domain in config.code_domains
        else _normalize_text(text, config, stats)
        for text, domain in zip(texts.to_pylist(), domains.to_pylist(), strict=True)
    ]
    return pa.array(changed, pa.string())


def content_hash(texts: pa.Array) -> pa.Array:
    """Give 32 hex digits for each text: blake2b-128 of its words joined by single spaces."""
    return pa.array(
        [
            hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).hexdigest()
            for text in texts.to_pylist()
        ],
        pa.string(),
    )


def _normalize_code(text: str, stats: Counter[str]) -> str:
    after = _strip_controls(_unify_line_ends(text, stats), stats)
    return after.rstrip() + "\n" if after.strip() else ""


def _normalize_text(text: str, config: NormalizeConfig, stats: Counter[str]) -> str:
    # What one round uncovers (a character of mojibake behind a control character) the next one repairs.
    for _ in range(8):
        before = text
        text = _unify_line_ends(text, stats)
        if config.mojibake and not text.isascii():
            text = _repair(text, stats)
        text = _strip_controls(text, stats)
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            stats["composed"] += 1
        if text == before:
            break
    text = _TRAILING.sub("", text)
    longest = config.max_blank_lines + 1
    text = re.sub(f"\n{{{longest + 1},}}", "\n" * longest, text)
    return text.strip("\n")


def _unify_line_ends(text: str, stats: Counter[str]) -> str:
    if "\r" not in text and (text.isascii() or ("\u2028" not in text and "\u2029" not in text)):
        return text
    stats["line_ends"] += 1
    return _LINE_ENDS.sub("\n", text).replace("\u2029", "\n\n")


def _repair(text: str, stats: Counter[str]) -> str:
    if not is_bad(text):
        return text
    lines = text.split("\n")
    repaired = [
        line if line.isascii() or not is_bad(line) else ftfy.fix_encoding(line) for line in lines
    ]
    if repaired == lines:
        return text
    stats["mojibake"] += 1
    return "\n".join(repaired)


def _strip_controls(text: str, stats: Counter[str]) -> str:
    after = _CONTROLS.sub("", text)
    if after != text:
        stats["controls"] += 1
    return after
