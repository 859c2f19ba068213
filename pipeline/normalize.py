"""Normalisation: what a text looks like before any rule sees it. The second stage of a build, an edit of texts.

Mojibake is repaired line by line, and only in lines that ftfy's own badness measure calls bad for more than a capital
before a closing mark, which clean text has too; line ends become LF,
control characters go, characters are composed (NFC), spaces at line ends and runs of blank lines are cut. Normalising a
normalised text changes nothing. Code keeps its characters and its white space: only line ends and controls change.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES
from ftfy.chardata import CHARMAP_ENCODINGS
from numpy.typing import NDArray

from pipeline import kernels
from pipeline.characters import unsettled_table
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
# C0 but tab and LF, DEL, C1, a byte order mark inside a text, and two code points that are no characters.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")

# Every sequence that ftfy's BADNESS_RE calls bad holds a C1 control, an A-tilde or A-circumflex before white space, an
# oe ligature, or two neighbours beyond ASCII of which one is "telling". Letters of Greek and Cyrillic and common
# punctuation are not telling, so text in most scripts passes this check untouched; a test holds it to BADNESS_RE.
_TELLING = (
    "".join(
        MOJIBAKE_CATEGORIES[name]
        for name in [
            "c1",
            "bad",
            "law",
            "currency",
            "start_punctuation",
            "end_punctuation",
            "numeric",
            "upper_accented",
            "lower_accented",
            "box",
        ]
    )
    + "\u00b0\u00d9\u0402\u045e"
)
# Begins with one set of characters, which `re` can look for ten times as fast as for alternatives.
_SUSPECT = re.compile(
    f"[{_TELLING}]"
    r"(?:(?=[^\x00-\x7f])|(?<=[^\x00-\x7f].)|(?<=[\x80-\x9f\u0152\u0153])|(?<=[\u00c2\u00c3])(?= ))",
    re.DOTALL,
)
_REACH = 6
"""Characters of the longest sequence in BADNESS_RE: how far around a suspect one has to look."""

# What text holds right behind a word: closing quotes, dashes, an ellipsis, signs, a space that does not break.
_MARKS = "\u201d\u201c\u2019\u2018\xbb\xab\u203a\u2039\u2026\u2013\u2014\u2122\xae\xa9\xb0\xb2\xb3\xb9\xba\xaa\xb7\u2022\u2020\xa7\xa0"
_UPPER, _LOWER = (
    "".join(c for c in map(chr, range(0xC0, 0x2000)) if getattr(c, test)())
    for test in ("isupper", "islower")
)
# Such a pair is UTF-8 read as Windows-1252 or its kin by chance: "IRM\xc3\u201d" is Portuguese, or "IRM\xd4" gone wrong.
# No letter may follow, so that "S\xc3\xb3lo" is none, but for an apostrophe or a dash, which join words.
# "O\xc3" is the start of no word but of a broken "O\xd9", the French one.
_AFTER_CAPITAL = f"(?<!\\bO(?=\xc3))(?<=[A-Z{_UPPER}])[{_UPPER}]"
_ALONE = f"(?:(?<![^\\s\"'(\\[\u201c\u2018\u201e\xab]))[{_UPPER}]"
_END = r"(?![^\x00-\x7f]|[^\W_])"
_LETTER_AND_MARK = (
    f"(?:{_AFTER_CAPITAL}|(?![\xc2\xc3]){_ALONE}|[{_LOWER}])[{_MARKS}]+{_END}"
    f"|{_AFTER_CAPITAL}(?:[\u2019\u2014]|[\u2018\u2013\u2026](?![A-Z{_UPPER}]))"
)
_DOUBTFUL = re.compile(f"({_LETTER_AND_MARK})")
# Alone, these two are hardly ever a word, so they are doubtful only where the rest of the line speaks against mojibake.
_MORE_DOUBTFUL = re.compile(
    f"({_LETTER_AND_MARK}|(?=[\xc2\xc3]){_ALONE}(?:[\u2013-\u203a\u2122]+|(?<=[\u201c\u2018\u201e\xab].)[{_MARKS}]+){_END})"
)

_MAX_ROUNDS = 8
"""Rounds after which a text that still changes is left as it is; two do for all text seen so far."""


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


def comparable(texts: pa.Array, domain: str) -> pa.Array:
    """The texts as they are compared with those of a build: composed, without controls; white space as it is.

    For texts that do not go through a build. Mojibake stays what it is: where nothing is rewritten, a sound copy is
    worth more than a repaired one. Most texts are passed on as they are, after one look at their bytes.
    """
    data, begins = _utf8(texts)
    suspects = np.empty(len(texts), np.bool_)
    kernels.find_unsettled(data, begins, unsettled_table(), suspects)
    if not suspects.any():
        return texts
    config = NormalizeConfig(mojibake=False)
    found = [
        text
        if unicodedata.is_normalized("NFC", text) and not _CONTROLS.search(text)
        else _normalize_code(text, Counter())
        if domain in config.code_domains
        else _normalize_text(text, config, Counter())
        for text in texts.filter(pa.array(suspects)).to_pylist()
    ]
    return pc.replace_with_mask(texts, pa.array(suspects), pa.array(found, texts.type))


def content_hash(texts: pa.Array) -> pa.Array:
    """Give 32 hex digits for each text: blake2b-128 of its words joined by single spaces.

    Characters that show nothing, such as soft hyphens and zero-width spaces, are left out: `characters.IGNORED_RANGES`.
    """
    data, begins = _utf8(texts)
    joined = np.empty(begins[-1] - begins[0], np.uint8)
    ends = np.empty(len(texts), np.int64)
    kernels.squeeze(data, begins, joined, ends)
    view, begin = joined.data, 0
    hashes = []
    for end in ends.tolist():
        hashes.append(hashlib.blake2b(view[begin:end], digest_size=16).hexdigest())
        begin = end
    return pa.array(hashes, pa.string())


def _utf8(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of texts, and where each begins."""
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    begins = np.zeros(1, np.int64)
    if len(texts):  # an array without rows need not have offsets
        begins = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", np.uint8), begins


def looks_like_mojibake(text: str) -> bool:
    """Say the same as ftfy.badness.is_bad, ten to fifty times as fast on clean text."""
    searched = 0
    for suspect in _SUSPECT.finditer(text):
        # Ahead by a few more characters, so that where suspects are many each place is searched once, not ten times.
        if suspect.end() + _REACH > searched:
            searched = suspect.end() + 3 * _REACH
            if BADNESS_RE.search(text, max(0, suspect.start() - _REACH), searched):
                return True
    return False


def _normalize_code(text: str, stats: Counter[str]) -> str:
    return _drop_controls(_unify_line_ends(text, stats), stats).rstrip()


def _normalize_text(text: str, config: NormalizeConfig, stats: Counter[str]) -> str:
    text = _unify_line_ends(text, stats)
    for _ in range(_MAX_ROUNDS):
        text = _tidy(text, config)
        before = text
        if config.mojibake and not text.isascii() and looks_like_mojibake(text):
            text = _repair(text, stats)
        text = _drop_controls(_unify_line_ends(text, stats), stats)
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            stats["composed"] += 1
        # What one step uncovers (mojibake behind a control character, say) the next round repairs.
        if text == before:
            break
    return text


def _unify_line_ends(text: str, stats: Counter[str]) -> str:
    if "\r" not in text and (text.isascii() or ("\u2028" not in text and "\u2029" not in text)):
        return text
    stats["line_ends"] += 1
    return _LINE_ENDS.sub("\n", text).replace("\u2029", "\n\n")


def _repair(text: str, stats: Counter[str]) -> str:
    """Undo mojibake in the lines that have it: one line in a wrong encoding says nothing of the next.

    A letter before a closing mark is no evidence. It is repaired where other evidence is found in a line of which all
    can be decoded again, or in a text of which each line can.
    """
    lines = text.split("\n")
    is_bad = [looks_like_mojibake(line) for line in lines]
    is_sure = [bad and _is_sure(line) for bad, line in zip(is_bad, lines, strict=True)]
    if not any(is_sure):
        return text
    is_all = all(line.isascii() or _is_wholly_wrong(line) for line in lines)
    repaired = [
        _repair_line(line) if sure or (bad and is_all) else line
        for line, bad, sure in zip(lines, is_bad, is_sure, strict=True)
    ]
    if repaired == lines:
        return text
    stats["mojibake"] += 1
    return "\n".join(repaired)


def _is_sure(line: str) -> bool:
    """Whether a bad line has evidence of mojibake beyond letters that stand before closing marks."""
    if _is_wholly_wrong(line):
        # Whatever is left is UTF-8 as well, and stands where clean text has no marks.
        return not _DOUBTFUL.sub("x", line).isascii()
    return looks_like_mojibake(_MORE_DOUBTFUL.sub("x", line))


def _repair_line(line: str) -> str:
    if _is_wholly_wrong(line):
        return ftfy.fix_encoding(line)
    pieces = _MORE_DOUBTFUL.split(line)  # the odd ones are letters before closing marks
    pieces[::2] = [ftfy.fix_encoding(p) if looks_like_mojibake(p) else p for p in pieces[::2]]
    return "".join(pieces)


def _is_wholly_wrong(line: str) -> bool:
    """Whether a line is UTF-8 from end to end once it is put back into a wrong encoding it may have been read in."""
    for encoding in CHARMAP_ENCODINGS:
        try:
            line.encode(encoding).decode("utf-8-variants")
        except UnicodeError:
            continue
        return True
    return False


def _drop_controls(text: str, stats: Counter[str]) -> str:
    after = _CONTROLS.sub("", text)
    if len(after) != len(text):
        stats["controls"] += 1
    return after


def _tidy(text: str, config: NormalizeConfig) -> str:
    """Cut white space at line ends, blank lines at both ends, and long runs of blank lines. Linear in any text."""
    text = "\n".join([line.rstrip() for line in text.split("\n")]).strip("\n")
    longest = "\n" * (config.max_blank_lines + 1)
    if longest + "\n" in text:
        text = re.sub(longest + "\n+", longest, text)
    return text
