"""From clusters to verified pairs: the texts of a few clusters at a time are gathered, shingled, and compared exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.minhash import Hashes, characters, is_code, kernels, multiplier, utf8
from pipeline.runs import Rows

if (
    TYPE_CHECKING
):  # dedup holds the config and settles clusters here; only the annotations look back
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
SLICE_BYTES = 16 << 20
"""Text that is compared at a time, or one cluster."""


@dataclass(frozen=True)
class Slice:
    """Whole clusters with all that is needed to settle them; nodes are numbered from 0, cluster by cluster."""

    data: NDArray[np.uint8]
    """UTF-8 of all texts, end to end."""
    begins: Rows
    """Where each text begins, and the end."""
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

    def save(self, file: Path) -> None:
        """Write it for another process."""
        np.savez(file, **vars(self))

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

    def of(self, nodes: Rows) -> "Edges":
        """The same edges between nodes[i] instead of i."""
        return replace(self, first=nodes[self.first], second=nodes[self.second])

    def filter(self, chosen: NDArray[Any]) -> "Edges":
        """Those of a mask, or with these numbers."""
        columns = [getattr(self, name)[chosen] for name in _COLUMNS]
        return Edges(*columns, num_nodes=self.num_nodes, num_pairs=self.num_pairs)

    @classmethod
    def concat(cls, parts: "Sequence[Edges]") -> "Edges":
        """All edges of several."""
        columns: list[Any] = [
            np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
            for name, kind in _COLUMNS.items()
        ]
        num_nodes, num_pairs = (
            sum(getattr(part, name) for part in parts) for name in ("num_nodes", "num_pairs")
        )
        return cls(*columns, num_nodes=num_nodes, num_pairs=num_pairs)


_COLUMNS = {
    "first": np.int64,
    "second": np.int64,
    "jaccard": np.float64,
    "containment": np.float64,
    "rules": np.uint8,
    "decides": np.bool_,
}


def settle_slice(part: Slice, config: "DedupConfig") -> Edges:
    """Compare the documents of each cluster by priority. `O(text)`, plus MAX_CANDIDATES intersections a document."""
    buffers = [None, pa.py_buffer(part.begins), pa.py_buffer(part.data)]
    text, offsets = utf8(pa.Array.from_buffers(pa.large_string(), len(part.roles), buffers))
    size = len(part.roles) * MAX_EDGES
    pairs, similarities = np.empty((size, 2), np.int64), np.empty((size, 2), np.float64)
    rules, best = np.empty(size, np.uint8), np.empty(len(part.roles), np.int64)
    count, num_pairs = kernels().settle(
        *(text, offsets, part.is_code, (config.ngram, config.containment_ngram)),
        *(characters(), multiplier(), part.content, part.keys, part.key_ends, part.clusters),
        *(part.roles, (config.threshold, config.containment)),
        (MAX_MEMBERS, MAX_CANDIDATES, MAX_EDGES),
        *(pairs, similarities, rules, best),
    )
    decides = np.zeros(count, np.bool_)
    decides[best[best >= 0]] = True
    first, second = pairs[:count].T
    jaccard, containment = similarities[:count].T
    columns = [first, second, jaccard, containment, rules[:count], decides]
    return Edges(*columns, num_nodes=len(part.roles), num_pairs=num_pairs)


@dataclass(frozen=True)
class Texts:
    """Texts of documents by number, wherever their tables hold them."""

    chunks: Sequence[tuple[pa.Array, NDArray[np.bool_]]]
    """Texts, and which are of the domain "code"."""
    starts: Rows
    """Number of each chunk's first document, and the end."""

    @classmethod
    def of(cls, tables: Sequence[pa.Table]) -> "Texts":
        """The texts of DOCUMENTS tables, numbered one table after the other."""
        chunks = [
            (batch["text"], is_code(batch["domain"]))
            for table in tables
            for batch in table.select(["text", "domain"]).to_batches()
        ]
        sizes = [len(texts) for texts, _ in chunks]
        return cls(chunks, np.cumsum([0, *sizes], dtype=np.int64))

    def sizes(self, rows: Rows) -> Rows:
        """UTF-8 bytes of documents."""
        sizes = np.empty(len(rows), np.int64)
        for number, places in self._by_chunk(rows):
            begins, ends, _ = self._stretches(number, rows[places])
            sizes[places] = ends - begins
        return sizes

    def gather(
        self, rows: Rows, out: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], Rows, NDArray[np.bool_]]:
        """Copy texts end to end into `out`: (bytes, where each begins and the end, which are code)."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes(rows))])
        data, codes = out[: offsets[-1]], np.empty(len(rows), np.bool_)
        for number, places in self._by_chunk(rows):
            begins, ends, source = self._stretches(number, rows[places])
            kernels().copy_texts(source, begins, ends - begins, offsets[places], data)
            codes[places] = self.chunks[number][1][rows[places] - self.starts[number]]
        return data, offsets, codes

    def _by_chunk(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Chunks that hold some of the rows, and where in `rows` these are."""
        if not len(rows):
            return
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(owners, kind="stable")
        numbers, begins = np.unique(owners[order], return_index=True)
        yield from zip(numbers.tolist(), np.split(order, begins[1:]), strict=True)

    def _stretches(self, number: int, rows: Rows) -> tuple[Rows, Rows, NDArray[np.uint8]]:
        """Where the texts begin and end in a chunk's bytes."""
        texts = self.chunks[number][0]
        _, offsets, data = texts.buffers()
        width = np.int32 if pa.types.is_string(texts.type) else np.int64
        places = rows - self.starts[number] + texts.offset
        ends = np.frombuffer(offsets, width)
        begins = ends[places].astype(np.int64)
        return begins, ends[places + 1].astype(np.int64), np.frombuffer(data or b"", np.uint8)
