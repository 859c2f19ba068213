"""The documents that may be near-duplicates, as numbered nodes, and what brings them together: keys, clusters, texts.

Nodes are numbered by priority, the longest first (in shingles), then by the recipe's order of sources, content hash and
id; published documents come before all, and probes, which are never kept, behind. `dedup.py` compares them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.candidates import (
    Clusters,
    Keys,
    Meetings,
    find_clusters,
    make_keys,
    meet,
    meet_copies,
    rows_of_ids,
)
from pipeline.minhash import Hashes, check_signatures
from pipeline.runs import Published, Rows, hex_words
from pipeline.similarity import MAX_MEMBERS, NEW, PROBE, PUBLISHED, SLICE_BYTES, Slice, Texts
from pipeline.templates import shingles_of
from storage.schema import DOCUMENTS

if TYPE_CHECKING:  # dedup defines both and compares these nodes; only the annotations look back
    from pipeline.dedup import DedupConfig, NewDocuments


@dataclass(frozen=True)
class Nodes:
    """All documents that may take part: published ones, then new ones, then probes."""

    published: Rows
    """Numbers, in the runs, of the published documents that share a key with a new one; ascending."""
    num_new: int
    rows: Rows
    """Row of each node in `ids`, and in the texts."""
    ids: pa.ChunkedArray
    splits: pa.ChunkedArray
    """Splits of the published documents."""

    @property
    def first_probe(self) -> int:
        """Number of the first probe: the new documents end there."""
        return len(self.published) + self.num_new

    def ids_of(self, nodes: Rows) -> pa.ChunkedArray:
        """The documents' ids."""
        return pc.take(self.ids, pa.array(self.rows[nodes]))


@dataclass(frozen=True)
class Buckets:
    """What is known of the nodes beside who they are: by what they met, and their texts."""

    nodes: Nodes
    is_fixed: bool
    """Whether published documents stay whatever comes."""
    content: Hashes
    """Content hash of each node, shape (nodes, 2)."""
    texts: Texts
    keys: Keys
    """Of the new documents and the probes."""
    meetings: Meetings
    """Of the published documents; ascending by `rows`."""
    clusters: Clusters
    templates: Hashes
    """Shingles by which alone two documents are not alike."""

    def slices(self) -> Iterator[tuple[int, Slice]]:
        """Stretches of `clusters.nodes`, whole clusters of about SLICE_BYTES of text, each with its first place."""
        ends = self.clusters.ends
        if len(ends) < 2:
            return
        begins, stops, _ = self.texts.find(self.nodes.rows[self.clusters.nodes])
        sizes = np.cumsum(stops - begins)[ends[1:] - 1]
        numbers = sizes // SLICE_BYTES  # of the slice in which a cluster ends
        cuts = np.flatnonzero(np.append(numbers[1:] != numbers[:-1], True))
        for begin, end in pairwise([0, *ends[cuts + 1].tolist()]):
            yield begin, self._slice(begin, end)

    def _slice(self, begin: int, end: int) -> Slice:
        """Everything about a stretch of `clusters.nodes`."""
        nodes = self.clusters.nodes[begin:end]
        ends = self.clusters.ends
        begins, stops, codes = self.texts.find(self.nodes.rows[nodes])
        keys, key_ends = self._keys_of(nodes)
        roles = np.full(len(nodes), NEW, np.uint8)
        if self.is_fixed:
            roles[nodes < len(self.nodes.published)] = PUBLISHED
        roles[nodes >= self.nodes.first_probe] = PROBE
        return Slice(
            data=self.texts.data,
            begins=begins,
            ends=stops,
            is_code=codes,
            content=self.content[nodes],
            keys=keys,
            key_ends=key_ends,
            clusters=ends[np.searchsorted(ends, begin) : np.searchsorted(ends, end) + 1] - begin,
            roles=roles,
            templates=self.templates,
        )

    def _keys_of(self, nodes: Rows) -> tuple[Hashes, Rows]:
        """Bucket keys of nodes, end to end, and where each node's begin."""
        is_old = nodes < len(self.nodes.published)
        columns = nodes[~is_old] - len(self.nodes.published)
        of_new = self.keys.values[:, columns].T
        has_key = np.ones(of_new.shape, np.bool_)
        has_key[:, :-1] = self.keys.is_signed[columns][:, None]
        old_begins, old_ends = (
            np.searchsorted(self.meetings.rows, self.nodes.published[nodes[is_old]], side)
            for side in ("left", "right")
        )
        counts = np.empty(len(nodes), np.int64)
        counts[~is_old] = has_key.sum(axis=1)
        counts[is_old] = old_ends - old_begins
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        keys, is_old_key = np.empty(ends[-1], np.uint64), np.repeat(is_old, counts)
        keys[~is_old_key] = of_new[has_key]
        within = np.arange(ends[-1]) - np.repeat(ends[:-1], counts)
        entries = np.repeat(old_begins, counts[is_old]) + within[is_old_key]
        keys[is_old_key] = self.meetings.keys[entries]
        return keys, ends


def gather(
    groups: Sequence["NewDocuments"],
    published: Published | None,
    templates: pa.Table,
    config: "DedupConfig",
    scratch: Path,
) -> tuple[Nodes, Buckets]:
    """Number the documents and find the clusters; `groups` are the new documents and, if any, the probes.

    Holds some 100 bytes a document beside its tables, and as much again in files in `scratch` that are memory-mapped.
    """
    orders, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    lengths = [np.empty(0, np.int64)]
    start = 0
    for group in groups:
        order, place, num_shingles = _prioritize(group)
        orders.append(order + start)
        places.append(np.where(place < 0, place, place + start))
        lengths.append(num_shingles[order])
        start += len(order)
        for number, table in enumerate(group.signatures):
            check_signatures(table.schema, config, f"near-duplicates: signatures, table {number}")
    order = np.concatenate(orders)
    documents = [table for group in groups for table in group.documents]
    content = hex_words(_column(documents, "content_hash"))[order]
    keys = make_keys(
        [table for group in groups for table in group.signatures],
        np.concatenate(places),
        content,
        config.bands,
        config.rows,
        scratch / "keys.npy",
    )
    is_fixed = config.policy == "append"
    meetings = meet(keys, published.runs(config) if published else (), MAX_MEMBERS)
    if published is not None and not is_fixed:
        meetings = meet_copies(meetings, content, published)
    numbers = np.unique(meetings.rows)
    old = _fetch(published, numbers, scratch / "published.arrow")
    everything = [*old, *documents]
    nodes = Nodes(
        published=numbers,
        num_new=sum(map(len, groups[0].documents)),
        rows=np.concatenate([np.arange(len(numbers)), order + len(numbers)]),
        ids=_column(everything, "id"),
        splits=_column(old, "split"),
    )
    buckets = Buckets(
        nodes=nodes,
        is_fixed=is_fixed,
        content=np.concatenate([hex_words(_column(old, "content_hash")), content]),
        texts=Texts.of(everything),
        keys=keys,
        meetings=meetings,
        clusters=find_clusters(keys, meetings, numbers),
        templates=shingles_of(templates),
    )
    if is_fixed or published is None or not len(numbers):
        return nodes, buckets
    competing = slice(0, nodes.first_probe)  # whoever came when
    sources = pc.take(_column(everything, "source"), pa.array(nodes.rows[competing]))
    by = _priority(
        np.concatenate([published.num_shingles(numbers), lengths[1]]),
        _ranks(sources, groups[0].sources),
        buckets.content[competing],
        hex_words(nodes.ids_of(np.arange(nodes.first_probe))),
    )
    priority = np.arange(len(nodes.rows))  # probes stay behind
    priority[np.lexsort(by)] = np.arange(nodes.first_probe)
    return nodes, replace(buckets, clusters=buckets.clusters.sorted_by(priority))


def _prioritize(group: "NewDocuments") -> tuple[Rows, Rows, Rows]:
    """Rows of the documents by priority, the place of each signature's row in it, and each document's number of shingles."""
    ids = _column(group.documents, "id")
    rows = rows_of_ids(ids, group.signatures)
    lengths = [table["num_shingles"].to_numpy() for table in group.signatures]
    num_shingles = np.concatenate([np.empty(0, np.int64), *lengths])
    num_signed = len(num_shingles)
    if rows is not None:
        num_shingles = num_shingles[rows]
    ranks = _ranks(_column(group.documents, "source"), group.sources)
    hashes = hex_words(_column(group.documents, "content_hash"))
    order = np.lexsort(_priority(num_shingles, ranks, hashes, hex_words(ids)))
    places = np.full(num_signed, -1)  # a signature that belongs to none of the documents has none
    places[order if rows is None else rows[order]] = np.arange(len(order))
    return order, places, num_shingles


def _priority(num_shingles: Rows, ranks: Rows, hashes: Hashes, ids: Hashes) -> list[NDArray[Any]]:
    """The keys to sort documents by, the last one first: longest, source rank, content hash, id."""
    return [ids[:, 1], ids[:, 0], hashes[:, 1], hashes[:, 0], ranks, -num_shingles]


def _ranks(column: pa.ChunkedArray, sources: Sequence[str]) -> Rows:
    """Place of each document's source in the recipe; behind all others if it is not there any more."""
    ranks = pc.index_in(column, pa.array(sources, pa.string()))
    return pc.fill_null(ranks, len(sources)).to_numpy()


def _fetch(published: Published | None, numbers: Rows, file: Path) -> list[pa.Table]:
    """Published documents by number, memory-mapped: unpacked once, for many slices."""
    if published is None or not len(numbers):
        return []
    columns = ["id", "text", "source", "domain", "content_hash", "split"]
    schema = pa.schema([DOCUMENTS.field(name) for name in columns])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in published.documents(numbers):
            writer.write_table(table.select(columns).cast(schema))
    return [pa.ipc.open_file(pa.memory_map(str(file))).read_all()]


def _column(tables: Iterable[pa.Table], name: str) -> pa.ChunkedArray:
    """A column of DOCUMENTS tables, one after the other."""
    chunks = [chunk for table in tables for chunk in table[name].chunks]
    return pa.chunked_array(chunks, pa.string())
