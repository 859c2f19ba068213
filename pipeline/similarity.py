"""From clusters to verified pairs: the texts of a few clusters at a time are shingled and compared exactly."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import kernels
from pipeline.characters import character_tables
from pipeline.minhash import Hashes, is_code, multiplier
from pipeline.runs import Rows
from pipeline.templates import LEAST_OWN

if TYPE_CHECKING:  # dedup holds the config and settles clusters here
    from pipeline.dedup import DedupConfig

PUBLISHED, NEW, PROBE = range(3)
"""Roles: kept whatever comes; kept if nothing before it removes it; compared with what is kept, and never kept."""
EXACT, NEAR, CONTAINED, CONTAINS = range(4)
"""Rules of an edge. By the last one nothing goes: the later document contains the earlier one, which is published."""

MAX_MEMBERS = 256
"""Kept documents of one bucket that later ones are compared with, the first by priority. A bucket of a million pages
made from one template would cost a million squared; a duplicate hidden there has 24 more bands to be found by."""
MAX_CANDIDATES = 256
"""Pairs verified for one document at most, at about a microsecond each; of more, those that share the most bands."""
MAX_EDGES = 16
"""Verified pairs that are recorded of one document at most, the one among them by which it goes."""
OWN_KEYS = 16
"""Keys that a page has of what is not its site's template."""
SLICE_BYTES = 16 << 20
"""Text that is compared at a time, or one cluster."""


@dataclass(frozen=True)
class Slice:
    """Whole clusters with all that is needed to settle them; nodes are numbered from 0, cluster by cluster."""

    data: NDArray[np.uint8]
    """UTF-8 of all texts, and whatever else lies between them."""
    begins: Rows
    """Where each text begins."""
    ends: Rows
    is_code: NDArray[np.bool_]
    content: Hashes
    """Content hashes, shape (nodes, 2)."""
    keys: Hashes
    """Bucket keys of all nodes, end to end."""
    key_ends: Rows
    clusters: Rows
    """Where each cluster begins, and the end."""
    roles: NDArray[np.uint8]
    """PUBLISHED, NEW or PROBE, see above."""
    templates: Hashes
    """Shingles by which alone two documents are not alike, see `templates.py`; none with the guard off."""

    def save(self, file: Path) -> None:
        """Write it for another process, the texts end to end."""
        sizes = self.ends - self.begins
        ends = np.cumsum(sizes)
        data = np.empty(sizes.sum(), np.uint8)
        kernels.copy_texts(self.data, self.begins, sizes, ends - sizes, data)
        np.savez(file, **vars(self) | {"data": data, "begins": ends - sizes, "ends": ends})

    @classmethod
    def load(cls, file: Path) -> "Slice":
        """Read what `save` wrote."""
        with np.load(file) as arrays:
            return cls(**arrays)


@dataclass(frozen=True)
class Edges:
    """Verified pairs of nodes; `first` goes before `second` in priority and is kept."""

    first: Rows
    second: Rows
    jaccard: NDArray[np.float64]
    containment: NDArray[np.float64]
    """Share of the shorter one's n-grams that the longer holds."""
    rules: NDArray[np.uint8]
    """See above."""
    decides: NDArray[np.bool_]
    """Whether it is the edge by which `second` goes."""
    num_nodes: int
    """Documents that were compared with others."""
    num_pairs: int
    """Pairs that were compared."""
    num_templated: int
    """Those of them that only their templates make alike, and that are no edges therefore."""

    def of(self, nodes: Rows) -> "Edges":
        """The same edges between nodes[i] instead of i."""
        return replace(self, first=nodes[self.first], second=nodes[self.second])

    def filter(self, chosen: NDArray[Any]) -> "Edges":
        """Those of a mask, or with these numbers."""
        columns = [getattr(self, name)[chosen] for name in _COLUMNS]
        return Edges(*columns, **{name: getattr(self, name) for name in _COUNTS})

    @classmethod
    def concat(cls, parts: "Sequence[Edges]") -> "Edges":
        """All edges of several."""
        columns: list[Any] = [
            np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
            for name, kind in _COLUMNS.items()
        ]
        counts = {name: sum(getattr(part, name) for part in parts) for name in _COUNTS}
        return cls(*columns, **counts)


_COLUMNS = {
    "first": np.int64,
    "second": np.int64,
    "jaccard": np.float64,
    "containment": np.float64,
    "rules": np.uint8,
    "decides": np.bool_,
}
_COUNTS = ("num_nodes", "num_pairs", "num_templated")


def settle_slice(part: Slice, config: "DedupConfig") -> Edges:
    """Compare the documents of each cluster by priority. `O(text)`, plus MAX_CANDIDATES intersections a document."""
    size = len(part.roles) * MAX_EDGES
    pairs, similarities = np.empty((size, 2), np.int64), np.empty((size, 2), np.float64)
    rules, best = np.empty(size, np.uint8), np.empty(len(part.roles), np.int64)
    settle, templates = kernels.settle, None
    if len(part.templates):
        settle, templates = kernels.settle_guarded, part.templates
        part = _with_own_keys(part, config)
    count, num_pairs, num_templated = settle(
        *(part.data, part.begins, part.ends, part.is_code),
        (config.ngram, config.containment_ngram),
        *(character_tables(), multiplier(), part.content, part.keys, part.key_ends, part.clusters),
        *(part.roles, (config.threshold, config.containment)),
        (MAX_MEMBERS, MAX_CANDIDATES, MAX_EDGES),
        *(templates, LEAST_OWN),
        *(pairs, similarities, rules, best),
    )
    decides = np.zeros(count, np.bool_)
    decides[best[best >= 0]] = True
    # Copies: views would hold the room for edges that were not found.
    first, second = pairs[:count].T.copy()
    jaccard, containment = similarities[:count].T.copy()
    columns = [first, second, jaccard, containment, rules[:count].copy(), decides]
    counts = {"num_pairs": num_pairs, "num_templated": num_templated}
    return Edges(*columns, num_nodes=len(part.roles), **counts)


def _with_own_keys(part: Slice, config: "DedupConfig") -> Slice:
    """Give pages the lowest of their own shingles as further keys.

    Of thousands in one frame, most buckets are of the frame alone, and hold MAX_MEMBERS others. Two documents alike by
    0.7 beside it share one of OWN_KEYS keys at least, but for one pair in 10^8 (0.3^16).
    """
    keys = np.empty((len(part.roles), OWN_KEYS), np.uint64)
    counts = np.empty(len(part.roles), np.int64)
    kernels.own_keys(
        *(part.data, part.begins, part.ends, part.is_code, config.ngram, part.templates),
        *(character_tables(), multiplier(), LEAST_OWN, keys, counts),
    )
    own = keys[np.arange(OWN_KEYS) < counts[:, None]]
    return replace(
        part,
        keys=np.insert(part.keys, np.repeat(part.key_ends[1:], counts), own),
        key_ends=part.key_ends + np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
    )


@dataclass(frozen=True)
class Texts:
    """Texts of documents by number, where their tables hold them: nothing is copied.

    They have to be valid UTF-8, which signing has verified.
    """

    chunks: Sequence[tuple[pa.Array, NDArray[np.bool_]]]
    """Texts, and which are of the domain "code"."""
    starts: Rows
    """Number of each chunk's first document, and the end."""
    data: NDArray[np.uint8]
    """All memory from the first chunk's text to the last one's; what lies between chunks is not to be touched."""
    address: int
    """Of the memory."""

    @classmethod
    def of(cls, tables: Sequence[pa.Table]) -> "Texts":
        """The texts of DOCUMENTS tables, numbered one table after the other."""
        chunks = [
            (batch["text"], is_code(batch["domain"]))
            for table in tables
            for batch in table.select(["text", "domain"]).to_batches()
        ]
        sizes = [len(texts) for texts, _ in chunks]
        buffers = [data for texts, _ in chunks if (data := texts.buffers()[2]) and data.size]
        first = min((buffer.address for buffer in buffers), default=0)
        last = max((buffer.address + buffer.size for buffer in buffers), default=0)
        memory: Any = (ctypes.c_uint8 * (last - first)).from_address(first) if buffers else b""
        data = np.frombuffer(memory, np.uint8)
        return cls(chunks, np.cumsum([0, *sizes], dtype=np.int64), data, first)

    def find(self, rows: Rows) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """Where in `data` the texts begin and end, and which are code."""
        begins, ends = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        codes = np.empty(len(rows), np.bool_)
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(owners, kind="stable")
        numbers, firsts = np.unique(owners[order], return_index=True)
        for number, places in zip(
            numbers.tolist(), np.split(order, firsts[1:]) if len(rows) else [], strict=True
        ):
            texts, is_code_here = self.chunks[number]
            _, offsets, data = texts.buffers()
            if data is not None and data.size:
                width = np.int32 if pa.types.is_string(texts.type) else np.int64
                bounds = np.frombuffer(offsets, width)
                at = rows[places] - self.starts[number] + texts.offset
                shift = np.int64(data.address - self.address)
                begins[places] = bounds[at] + shift
                ends[places] = bounds[at + 1] + shift
            codes[places] = is_code_here[rows[places] - self.starts[number]]
        return begins, ends, codes
