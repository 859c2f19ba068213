"""From signatures to clusters: documents whose signatures agree in a band are joined, band by band.

Nodes are documents by priority. Every document has a key a band, and one more from its content hash; equal keys make a
bucket, documents that buckets connect make a cluster. Keys lie in files and are gone through band by band; of the rest
some 50 bytes a document are held.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import kernels
from pipeline.minhash import Hashes, read_signatures, write_band_keys
from pipeline.runs import BandRun, Published, Rows, find_keys
from storage.errors import GristmillError


@dataclass(frozen=True)
class Keys:
    """Band keys of new documents, which come by priority."""

    values: Hashes
    """Shape (bands + 1, documents); the last row is of content hashes."""
    is_signed: NDArray[np.bool_]
    """Documents that have shingles: only these have keys of bands."""

    def of_band(self, band: int) -> Rows:
        """The documents sorted by their key of the band; those without one are left out."""
        values = self.values[band]
        if band == len(self.values) - 1 or self.is_signed.all():
            return np.argsort(values)
        signed = np.flatnonzero(self.is_signed)
        return signed[np.argsort(values[signed])]


@dataclass(frozen=True)
class Meetings:
    """Published documents that share a key with new ones, an entry for each such key of each; ascending by rows."""

    keys: Hashes
    rows: Rows
    """Number of the published document."""
    nodes: Rows
    """A new document that has the key."""


@dataclass(frozen=True)
class Clusters:
    """Documents that buckets connect, cluster by cluster; alone standing ones are left out."""

    nodes: Rows
    """Nodes by cluster, and by priority within each."""
    ends: Rows
    """Cluster c has nodes[ends[c] : ends[c + 1]]."""

    def sorted_by(self, priority: Rows) -> "Clusters":
        """The same clusters, with the nodes of each by their `priority`, the lowest first."""
        owners = np.repeat(np.arange(len(self.ends) - 1), np.diff(self.ends))
        return Clusters(self.nodes[np.lexsort((priority[self.nodes], owners))], self.ends)


def rows_of_ids(ids: pa.ChunkedArray, signatures: Sequence[pa.Table]) -> Rows | None:
    """Where each id lies in SIGNATURES tables; None if they have the very same order. Raises GristmillError without one."""
    signed = pa.chunked_array(
        [chunk for table in signatures for chunk in table["id"].chunks], pa.string()
    )
    if signed.equals(ids):
        return None
    rows = pc.index_in(ids, signed.combine_chunks())
    if rows.null_count:
        missing = ids.filter(pc.is_null(rows))[0].as_py()
        raise GristmillError(
            f"near-duplicates: document {missing} has no signature; "
            "sign the documents that are compared, all of them"
        )
    return rows.to_numpy().astype(np.int64)


def make_keys(
    signatures: Sequence[pa.Table],
    places: Rows,
    content: Hashes,
    bands: int,
    rows: int,
    file: Path,
) -> Keys:
    """Compute all keys, into a file. Row r of SIGNATURES tables, one after the other, is of document places[r], if any.

    `content` has the content hashes of the documents, shape (documents, 2).
    """
    memory_map = np.lib.format.open_memmap(file, "w+", np.uint64, (bands + 1, len(content)))
    if hasattr(os, "posix_fallocate"):  # not on macOS
        # A full disk is an error here; at a write into the map it would be a SIGBUS, which ends the process.
        with file.open("r+b") as made:
            os.posix_fallocate(made.fileno(), 0, file.stat().st_size)
    values = memory_map.view(np.ndarray)
    is_signed = np.zeros(len(content), np.bool_)
    start = 0
    for table in signatures:
        part = read_signatures(table)
        nodes = places[start : start + len(part)]
        write_band_keys(part, rows, nodes, values[:bands])
        is_here = nodes >= 0
        is_signed[nodes[is_here]] = table["num_shingles"].to_numpy()[is_here] > 0
        start += len(table)
    values[bands] = content[:, 0]
    return Keys(values, is_signed)


def meet(keys: Keys, runs: Sequence[BandRun], at_most: int) -> Meetings:
    """Look the bands' keys up in the published runs; of a key, at most so many published documents a run."""
    parts = [Meetings(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))]
    for band in range(len(keys.values) - 1 if runs else 0):
        order = keys.of_band(band)
        wanted = keys.values[band][order]
        is_first = np.ones(len(wanted), np.bool_)
        is_first[1:] = wanted[1:] != wanted[:-1]
        wanted, nodes = wanted[is_first], order[is_first]
        for run in runs:
            rows, owners = find_keys(run, band, wanted, at_most)
            parts.append(Meetings(wanted[owners], rows, nodes[owners]))
    return _join(parts)


def meet_copies(meetings: Meetings, content: Hashes, published: Published) -> Meetings:
    """Add the published documents that have a new one's content hash; `content` has shape (documents, 2)."""
    wanted, nodes = np.unique(content, axis=0, return_index=True)
    rows, owners = published.copies(wanted)
    return _join([meetings, Meetings(wanted[owners, 0], rows, nodes[owners])])


def _join(parts: Sequence[Meetings]) -> Meetings:
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    return Meetings(
        np.concatenate([part.keys for part in parts])[order],
        rows[order],
        np.concatenate([part.nodes for part in parts])[order],
    )


def find_clusters(keys: Keys, meetings: Meetings, published: Rows) -> Clusters:
    """Join all that share a key. Nodes: `published` documents first, in their order, then those of `keys`."""
    num_new, num_published = keys.values.shape[1], len(published)
    # The new ones first: their numbers are the keys' columns.
    parents = np.arange(num_new + num_published)
    for band in range(len(keys.values)):
        kernels.link_equal(keys.values[band], keys.of_band(band), parents)
    kernels.link_pairs(meetings.nodes, num_new + np.searchsorted(published, meetings.rows), parents)
    kernels.find_roots(parents)
    members = np.flatnonzero(np.bincount(parents, minlength=len(parents))[parents] > 1)
    nodes = np.where(members < num_new, members + num_published, members - num_new)
    order = np.lexsort((nodes, parents[members]))
    roots = parents[members][order]
    begins = (
        np.flatnonzero(np.concatenate([[True], roots[1:] != roots[:-1]])) if len(roots) else roots
    )
    return Clusters(nodes[order], np.append(begins, len(roots)))
