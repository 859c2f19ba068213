"""What a site puts around each of its pages: navigation, licence, cookie banner. Two pages are not alike by that alone.

A shingle is a template's if it occurs in more than a share of a source's documents. Where two documents reach the
Jaccard similarity or the containment, what is beside the templates must reach it too, or they are kept apart
(`kernels/templates.py`). Templates of all sources count together, so that a page is compared in the same way with a copy
that came by another source. They are stored with the corpus: the next build may be too small to show them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import kernels
from pipeline.characters import character_tables
from pipeline.minhash import Hashes, Offsets, is_code, multiplier, shingle_texts, utf8
from storage.schema import DOCUMENTS, TEMPLATES
from storage.snapshot import Snapshot

if TYPE_CHECKING:  # dedup holds the config and uses templates
    from pipeline.dedup import DedupConfig

MIN_DOCUMENTS = 50
"""Documents of the sample that have a template's shingle, at least: of fewer, a text copied some times looks like one."""
SAMPLE_DOCUMENTS = 4096
"""Documents of a source that are looked at: a share of 0.05 is then known to 0.007 (twice the standard error)."""
SAMPLE_BYTES = 16 << 20
"""And their text at most: while it is counted, that of prose takes three times as much of memory, of code sixteen times."""
MAX_BYTES = 1 << 16
"""Longer documents are no pages, and are not looked at."""
LEAST_OWN = (20, 60)
"""Own shingles from which two texts can be told apart, of words and of characters. That is 24 words or 83 characters in
a row: a sentence or two, or two lines of code. A date, a name or a title may differ without making a page another."""


def find_templates(
    documents: Sequence[pa.Table], stored: pa.Table, share: float, ngram: int
) -> pa.Table:
    """Give the TEMPLATES of DOCUMENTS tables and those that are stored, sorted.

    Of each source, the documents with the lowest content hashes are looked at: a function of the set of documents.
    `O(n)` to draw them; what is held depends on the sample alone.
    """
    tables = [stored]
    for source in sorted(set().union(*(pc.unique(t["source"]).to_pylist() for t in documents))):
        texts, domains = _sample(documents, source)
        if len(texts) < MIN_DOCUMENTS:
            continue
        hashes, _ = shingle_texts(texts, domains, ngram=ngram)
        hashes.sort()
        begins = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else []
        counts = np.diff(np.append(begins, len(hashes)))
        is_frequent = (counts >= MIN_DOCUMENTS) & (counts > share * len(texts))
        shingles = hashes[begins][is_frequent]
        tables.append(pa.table([pa.repeat(source, len(shingles)), shingles], schema=TEMPLATES))
    found = pa.concat_tables(tables).group_by(TEMPLATES.names).aggregate([])
    order = [(name, "ascending") for name in TEMPLATES.names]
    return found.select(TEMPLATES.names).sort_by(order).cast(TEMPLATES)


def _sample(documents: Sequence[pa.Table], source: str) -> tuple[pa.Array, pa.Array]:
    """Texts and domains of the source's documents with the lowest content hashes, as many as the limits allow."""
    order = [("content_hash", "ascending"), ("id", "ascending")]
    parts = [DOCUMENTS.empty_table().select(_SAMPLED)]
    for table in documents:
        is_page = pc.less_equal(pc.binary_length(table["text"]), MAX_BYTES)
        keys = table.select(["content_hash", "id"]).append_column("row", [np.arange(len(table))])
        keys = keys.filter(pc.and_(pc.equal(table["source"], source), is_page))
        lowest = pc.select_k_unstable(keys, SAMPLE_DOCUMENTS, order)
        parts.append(table.select(_SAMPLED).take(keys["row"].take(lowest)).cast(parts[0].schema))
    drawn = pa.concat_tables(parts)
    drawn = drawn.take(pc.select_k_unstable(drawn, SAMPLE_DOCUMENTS, order)).combine_chunks()
    size = np.cumsum(pc.binary_length(drawn["text"]).to_numpy())
    drawn = drawn.slice(0, np.searchsorted(size, SAMPLE_BYTES, side="right"))
    return drawn["text"].combine_chunks(), drawn["domain"].combine_chunks()


_SAMPLED = ["content_hash", "id", "text", "domain"]


def stored_templates(snapshot: Snapshot | None) -> pa.Table:
    """The TEMPLATES that a snapshot stores."""
    tables = [snapshot.open(shard) for shard in snapshot.shards("templates")] if snapshot else []
    return pa.concat_tables([TEMPLATES.empty_table(), *tables])


def shingles_of(templates: pa.Table) -> Hashes:
    """The distinct shingle hashes of TEMPLATES."""
    return np.unique(templates["shingle"].to_numpy())


def own_shingles(
    texts: pa.Array, domains: pa.Array, templates: Hashes, *, ngram: int, template_ngram: int
) -> tuple[Hashes, Offsets, NDArray[np.bool_]]:
    """Give the shingle hashes of each text that share no word with a template's, sorted, in one flat array.

    Text i has `hashes[offsets[i] : offsets[i + 1]]`; the third array tells which texts have too few to be told apart.
    """
    data, begins = utf8(texts)
    hashes = np.empty(begins[-1] - begins[0] + len(texts), np.uint64)
    counts, by_character = np.empty(len(texts), np.int64), np.empty(len(texts), np.bool_)
    filled = kernels.own_texts(
        *(data, begins, is_code(domains), (template_ngram, ngram), templates),
        *(character_tables(), multiplier(), hashes, counts, by_character),
    )
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return hashes[:filled].copy(), offsets, counts < np.where(by_character, *LEAST_OWN[::-1])


def alike_beside(
    templates: Hashes,
    texts: Mapping[str, tuple[str, str]],
    pairs: Sequence[tuple[str, str]],
    config: "DedupConfig",
    *,
    is_held: bool = False,
) -> set[tuple[str, str]]:
    """Those of alike pairs that are so beside the templates, too, or whose first has too little there to tell.

    `texts` has text and domain of each document. The pairs are alike by Jaccard similarity, or (`is_held`) because the
    second holds the first's n-grams. For a few pairs, by definition: it is what `settle` does with all.
    """
    ngram, least = config.ngram, config.threshold
    if is_held:
        ngram, least = config.containment_ngram, config.containment
    found = set(pairs)
    for start in range(0, len(pairs) if len(templates) else 0, 256):
        some = pairs[start : start + 256]
        places, (bodies, domains) = columns_of(texts, some)
        own, ends, is_short = own_shingles(
            bodies, domains, templates, ngram=ngram, template_ngram=config.ngram
        )
        others, other_ends = own, ends
        if is_held:
            others, other_ends = shingle_texts(bodies, domains, ngram=ngram)
        for one, other in some:
            i, j = places[one], places[other]
            a, b = own[ends[i] : ends[i + 1]], others[other_ends[j] : other_ends[j + 1]]
            common = len(np.intersect1d(a, b, assume_unique=True))
            of = len(a) if is_held else len(a) + len(b) - common
            if not is_short[i] and common / of < least:
                found.discard((one, other))
    return found


def columns_of(
    texts: Mapping[str, tuple[str, str]], pairs: Iterable[tuple[str, str]]
) -> tuple[dict[str, int], tuple[pa.Array, pa.Array]]:
    """The place of each document of pairs in two columns, texts and domains."""
    names = sorted({name for pair in pairs for name in pair})
    bodies, domains = (pa.array([texts[name][i] for name in names], pa.string()) for i in (0, 1))
    return {name: i for i, name in enumerate(names)}, (bodies, domains)
