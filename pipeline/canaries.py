"""Canaries: near-duplicates of known similarity that a build plants among its documents, to see whether it finds them.

They are edited copies of a few of the documents and go the way of every other (signed, banded, verified), but displace
nothing and are never published. `recall.py` counts those that were found. They depend on the set of documents alone:
what is random is drawn from content hashes.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dedup import DedupConfig, NewDocuments
from pipeline.minhash import shingle_texts, sign_documents
from pipeline.normalize import content_hash
from storage.schema import DOCUMENTS

MAX_PLANTED = 64
"""Canaries of one kind; in all kinds together one for each sixteen documents, and 66 in a corpus of fewer than 1,050."""
MIN_BYTES, MAX_BYTES = 200, 1 << 15
"""Documents that are copied or compared: long enough to be edited, short enough to cost little."""
MIN_SHINGLES = 24
"""An edited word spoils five shingles, so fewer leave no room between one similarity and the next."""

_ABOVE = (0.85, 0.65, 0.5, 0.35, 0.2, 0.05)
"""Similarities aimed at, as parts of the way from the threshold to 1: at 0.7 they are 0.955 to 0.715."""
_BELOW = (0.85, 0.7, 0.45)
"""And below it, as parts of the threshold: at 0.7 they are 0.595 to 0.315."""
_SHINGLE_CHARACTERS = 24

_TRUTH = pa.schema(
    [*(pa.field(name, pa.string()) for name in ("id", "original", "kind")), ("aim", pa.float64())]
)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Canaries, and what each was made from."""

    probes: NewDocuments
    """Their ids are made by a hash function of their own, so that no document's is the same."""
    truth: pa.Table
    """id, original (the document that was copied), kind (layout, edited, contained), aim (of edits: Jaccard similarity)."""


def plant(
    documents: Sequence[pa.Table], config: DedupConfig, sources: Sequence[str] = ()
) -> Planted:
    """Make canaries of DOCUMENTS tables: layout and case changed, words edited at nine rates, the middle 60 % alone.

    Order and split of the documents do not matter. `O(n)` for the choice; holds at most 938 texts and 704 copies.
    Empty if near-duplicates are not looked for, or if no document is long enough.
    """
    kinds = [("layout", 1.0)]
    kinds += [("edited", config.threshold + (1 - config.threshold) * part) for part in _ABOVE]
    kinds += [("edited", config.threshold * part) for part in _BELOW]
    kinds += [("contained", 0.6)]
    drawn = []
    if config.enabled:
        # A third more than are wanted: some have too few shingles.
        most = 4 * MAX_PLANTED * len(kinds) // 3
        drawn = draw(documents, 16, least=8 * len(kinds), one_in=12, most=most)
    originals = _with_shingles(drawn, config)[: max(len(drawn) * 3 // 4, 6 * len(kinds))]
    count = min(MAX_PLANTED, math.ceil(len(originals) / len(kinds)))
    rows, truth = [], []
    for level, (kind, similarity) in enumerate(kinds):
        for i in range(level * count, (level + 1) * count):
            row, other = (originals[k % len(originals)] for k in (i, i + 1))
            name = _name(row["id"], level)
            text = _variant(row, other["text"], kind, similarity, config)
            rows.append(row | {"id": name, "text": text, "num_bytes": len(text.encode())})
            truth.append({"id": name, "original": row["id"], "kind": kind, "aim": similarity})
    table = pa.Table.from_pylist(rows, DOCUMENTS)
    hashes = content_hash(table["text"].combine_chunks())
    column = DOCUMENTS.get_field_index("content_hash")
    table = table.set_column(column, DOCUMENTS.field(column), hashes)
    return Planted(
        probes=NewDocuments(
            documents=[table], signatures=[sign_documents(table, config)], sources=sources
        ),
        truth=pa.Table.from_pylist(truth, _TRUTH),
    )


def _name(original: str, level: int) -> str:
    return blake2b(f"{level} {original}".encode(), digest_size=16, person=b"canary").hexdigest()


def _variant(row: Mapping[str, Any], other: str, kind: str, aim: float, config: DedupConfig) -> str:
    """A copy of a document of about that Jaccard similarity to it, the same whenever it is made."""
    text, words = row["text"], row["text"].split()
    by_character = row["domain"] == "code" or _SHINGLE_CHARACTERS * len(words) < len(text)
    generator = random.Random(f"{row['content_hash']} {kind} {aim:.6f}")
    if kind == "layout":
        return _other_layout(words, by_character, generator)
    units, between = (list("".join(words)), "") if by_character else (words, " ")
    if kind == "contained":
        fifth = len(units) // 5
        return between.join(units[fifth : len(units) - fifth])
    # Of a text without spaces, a whole paragraph is one word.
    words_of_other = [word[:_SHINGLE_CHARACTERS] for word in other.split()]
    pool = list("".join(words_of_other)) if by_character else words_of_other
    width = _SHINGLE_CHARACTERS if by_character else config.ngram
    # Each edit spoils as many shingles as one has units. Of the union, s = f / (2 - f) is left if a share f survives.
    rate = (1 - 2 * aim / (1 + aim)) / width
    return between.join(_edit(units, pool or units, rate, generator))


def _other_layout(words: Sequence[str], by_character: bool, generator: random.Random) -> str:
    """Lines of another width, letters of the other case, and (where words are shingled) marks after some words."""
    pieces = []
    for word in words:
        chance = generator.random()
        shown = word.translate(_OTHER_CASE) if chance < 0.3 else word
        pieces.append(shown + ("," if chance < 0.1 and not by_character else ""))
        pieces.append("\n" if chance > 0.9 else "  " if chance > 0.85 else " ")
    return "".join(pieces)


_LOWER = "abcdefghijklmnopqrstuvwxyz"
# ASCII alone: elsewhere letters change their number with their case.
_OTHER_CASE = str.maketrans(_LOWER + _LOWER.upper(), _LOWER.upper() + _LOWER)


def _edit(
    units: Sequence[str], pool: Sequence[str], rate: float, generator: random.Random
) -> list[str]:
    """Replace (half of the edits), drop or insert units, one in 1 / `rate` and at least one; apart, not to spoil the same.

    Of a generator, only `random()` gives the same numbers in every version of Python.
    """
    if not rate:
        return list(units)
    edited: list[str] = []
    begin, at = 0, int(generator.random() * min(1 / rate, len(units)))
    while at < len(units):
        choice, unit = generator.random(), pool[int(generator.random() * len(pool))]
        edited += units[begin:at]
        if choice < 0.5:
            edited.append(unit)
        elif choice >= 0.75:
            edited += [unit, units[at]]
        begin = at + 1
        at += max(int((0.5 + generator.random()) / rate), 1)
    return [*edited, *units[begin:]]


def draw(
    documents: Sequence[pa.Table],
    digit: int,
    *,
    least: int,
    one_in: int,
    most: int,
    without: pa.Array | None = None,
) -> list[dict[str, Any]]:
    """Draw one document in `one_in` (`least` to `most` of them), the same for any order and split into tables.

    They are those whose content hashes, read from a digit on, are the lowest; rows of DOCUMENTS with that `key`, in its
    order. Documents in `without`, very short ones and very long ones are never drawn.
    """
    usable = []
    for table in documents:
        sizes = table["num_bytes"]
        mask = pc.and_(pc.greater_equal(sizes, MIN_BYTES), pc.less_equal(sizes, MAX_BYTES))
        if without is not None and len(without):
            mask = pc.and_(mask, pc.invert(pc.is_in(table["id"], without)))
        usable.append(mask)
    total = sum(pc.sum(mask).as_py() or 0 for mask in usable)
    limit = min(most, max(least, total // one_in))
    order = [("key", "ascending"), ("id", "ascending")]
    drawn: list[dict[str, Any]] = []
    for table, mask in zip(documents, usable, strict=True):
        keys = pc.utf8_slice_codeunits(table["content_hash"], digit, digit + 16)
        places = pa.table({"key": keys, "id": table["id"], "row": np.arange(len(table))})
        lowest = places.filter(mask)
        lowest = lowest.take(pc.select_k_unstable(lowest, limit, order))
        rows = table.take(lowest["row"]).append_column("key", lowest["key"])
        drawn = sorted([*drawn, *rows.to_pylist()], key=lambda row: (row["key"], row["id"]))[:limit]
    return drawn


def _with_shingles(rows: Sequence[dict[str, Any]], config: DedupConfig) -> list[dict[str, Any]]:
    """Those with shingles enough to be edited."""
    texts, domains = (
        pa.array([row[key] for row in rows], pa.string()) for key in ("text", "domain")
    )
    _, ends = shingle_texts(texts, domains, ngram=config.ngram)
    return [row for row, count in zip(rows, np.diff(ends), strict=True) if count >= MIN_SHINGLES]
