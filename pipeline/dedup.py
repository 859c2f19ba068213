"""Exact and near-duplicate removal: candidates by bands, every one verified exactly, one kept set whatever the order.

The kept set is the lexicographically-first maximal independent set of the verified graph by a total priority: published
documents first, then the longest (in shingles), the recipe's order of sources, content hash, id. So every removed
document names a kept one that it duplicates, no two kept ones are duplicates, nothing is removed through a chain, and
the order of input, batches and shards does not matter.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.minhash import (
    EMPTY,
    NUM_PERM,
    Hash,
    Hashes,
    Signatures,
    band_key_run,
    band_keys,
    read_signatures,
)
from pipeline.similarity import ComparedTexts, Edge
from pipeline.stage import Progress, no_progress
from storage.errors import ConfigError, GristmillError
from storage.schema import EDGES
from storage.snapshot import Snapshot

MAX_MEMBERS = 64
"""Kept documents of one bucket that later ones are compared with, the first by priority. A bucket of a million pages
made from one template would cost a million squared; a duplicate hidden there has 24 more bands to be found by."""
MAX_CANDIDATES = 16
"""Pairs verified for one document at most; of more candidates, those whose signatures agree most."""


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """Near-duplicates by MinHash and banded LSH (Broder 1997; Mining of Massive Datasets, ch. 3), verified exactly."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Whether near-duplicates are removed; exact duplicates always are."""
    threshold: float = 0.7
    """Jaccard similarity of shingle sets from which two documents are duplicates, in (0, 1]."""
    containment: float = 0.98
    """Share of a document's n-grams in a longer one from which the shorter goes, in (0, 1] (0.98: marin, 2025)."""
    ngram: int = 5
    """Words of a shingle, for the similarity."""
    containment_ngram: int = 3
    """Words of an n-gram, for the containment."""
    bands: int = 25
    """Bands of a signature. 25 x 5 finds a pair of similarity 0.7 with probability 0.99, of 0.5 with 0.55."""
    rows: int = 5
    """Values of a band; bands x rows is at most 128. A pair of similarity s is found with 1 - (1 - s^rows)^bands."""
    hash: Hash = "mix"
    """What shingles are hashed with for signatures: "mix" is fast; "sha1" gives the signatures of datasketch's defaults,
    at a fifth of the speed. Duplicates are verified exactly with either. All snapshots of a corpus must have the same."""
    policy: Literal["append"] = "append"
    """What is published stays: a new document never displaces an old one."""

    def __post_init__(self) -> None:
        for name in ("threshold", "containment"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"dedup.{name}: expected a number in (0, 1], got {getattr(self, name)}"
                )
        for name in ("ngram", "containment_ngram", "bands", "rows"):
            if not 1 <= getattr(self, name) <= 1000:
                raise ConfigError(f"dedup.{name}: expected 1 to 1000, got {getattr(self, name)}")
        if self.hash not in get_args(Hash):
            raise ConfigError(f"dedup.hash: expected mix or sha1, got {self.hash!r}")
        if self.bands * self.rows > NUM_PERM:
            raise ConfigError(
                f"dedup.bands x dedup.rows: expected at most {NUM_PERM} (values of a signature), "
                f"got {self.bands} x {self.rows} = {self.bands * self.rows}; lower one of them"
            )


@dataclass(frozen=True, kw_only=True)
class NewDocuments:
    """Documents that want to be published."""

    documents: Sequence[pa.Table]
    """DOCUMENTS tables."""
    signatures: Sequence[pa.Table]
    """SIGNATURES tables of the same documents, in any order."""
    sources: Sequence[str]
    """Names of the sources in the recipe's order: of equal texts, that of the first source stays."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Documents that earlier snapshots published."""

    runs: Callable[[], Iterable[tuple[pa.Table, pa.Table]]]
    """(SIGNATURES, BAND_KEYS) of each snapshot, the oldest first; only one snapshot's is held at a time."""
    documents: Callable[[], Iterable[pa.Table]]
    """DOCUMENTS tables; opened only if a new document shares a band with a published one."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Published":
        """Everything that a snapshot and its ancestors hold."""

        def concat(kind: str, version: int) -> pa.Table | None:
            shards = snapshot.shards(kind, version=version)
            return pa.concat_tables(map(snapshot.open, shards)) if shards else None

        def runs() -> Iterator[tuple[pa.Table, pa.Table]]:
            for version in range(1, snapshot.manifest.version + 1):
                signatures, keys = concat("signatures", version), concat("band_keys", version)
                if signatures is not None and keys is not None:
                    yield signatures, keys

        return cls(runs=runs, documents=snapshot.documents)


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """What `near_duplicates` found; each table sorted by its ids."""

    edges: pa.Table
    """EDGES: the verified pairs of each new document with kept documents that go before it."""
    removed: pa.Table
    """id, duplicate_of (kept), similarity, rule: "near_duplicate" (Jaccard), "contained", "exact" (equal content hash)."""
    inherits: pa.Table
    """id, split_of: new documents that are kept although they contain a published one, whose split they must share."""


REMOVED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
    ]
)
INHERITS = pa.schema(
    [pa.field("id", pa.string(), nullable=False), pa.field("split_of", pa.string(), nullable=False)]
)


def exact_duplicates(keys: pa.Table, published: pa.Table | None) -> pa.Table:
    """Find documents whose white-space-normalised text was seen before: a table (id, duplicate_of), sorted by id.

    `keys` has id, content_hash, domain, source_rank (int), `published` id and content_hash. Two new documents count only
    within one domain, because filters differ by domain: a text that web rules drop may be a fine poem. Against
    published documents the domain does not matter. The representative is the published one with the lowest id, else
    the new one with the lowest (source_rank, id); the order of rows does not matter. `O(n log n)`.
    """
    keys = keys.sort_by(
        [(name, "ascending") for name in ("content_hash", "domain", "source_rank", "id")]
    )
    ids, hashes, domains = (
        keys[name].combine_chunks() for name in ("id", "content_hash", "domain")
    )
    if not len(keys):
        return pa.table(
            {"id": pa.array([], pa.string()), "duplicate_of": pa.array([], pa.string())}
        )
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = pc.or_(
        pc.not_equal(hashes[1:], hashes[:-1]), pc.not_equal(domains[1:], domains[:-1])
    ).to_numpy(zero_copy_only=False)
    firsts = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    duplicate_of = pc.if_else(pa.array(is_first), None, ids.take(pa.array(firsts)))
    if published is not None and len(published):
        old = published.sort_by([("content_hash", "ascending"), ("id", "ascending")])
        found = pc.index_in(hashes, old["content_hash"].combine_chunks())
        duplicate_of = pc.coalesce(old["id"].combine_chunks().take(found), duplicate_of)
    table = pa.table({"id": ids, "duplicate_of": duplicate_of})
    return table.filter(pc.is_valid(table["duplicate_of"])).sort_by("id")


def near_duplicates(
    new: NewDocuments,
    published: Published | None,
    config: DedupConfig,
    progress: Progress = no_progress,
) -> NearDuplicates:
    """Decide which new documents go because they nearly equal, or lie within, one that stays.

    Candidates share a band (or, among new documents, their content hash). A candidate pair is a duplicate if the exact
    Jaccard similarity of its shingle sets reaches `threshold`; or if `containment` of the shorter one's n-grams lie in
    the longer one, and then only the shorter may go. `O(n log n)` plus at most MAX_CANDIDATES verifications a document;
    holds 512 bytes a new document and the shingles of those that share a band.
    """
    if not config.enabled or not any(map(len, new.documents)):
        return _result([], [], [])
    table, signatures = _join(new)
    nodes = _gather(table, signatures, published, config)
    texts = _read_texts(nodes, new, published, config)
    kept: dict[int, list[int]] = {}  # bucket -> its kept nodes, in order of priority
    pairs: list[dict[str, Any]] = []
    removed: list[dict[str, Any]] = []
    inherits: list[dict[str, str]] = []
    total = int(np.count_nonzero(np.diff(nodes.offsets)))
    for done, (node, buckets) in enumerate(nodes.in_buckets()):
        if done % 1024 == 0:
            progress("near_duplicates", done, total, "documents")
        found: list[Edge] = []
        if node >= nodes.num_published:
            candidates = nodes.most_alike(node, [kept.get(bucket, ()) for bucket in buckets])
            verified = (
                texts.compare(other, node, config.threshold, config.containment)
                for other in candidates
            )
            found = [edge for edge in verified if edge is not None]
        for edge in found:
            a, b = sorted((nodes.ids[edge.first], nodes.ids[edge.second]))
            similarities = {"jaccard": edge.jaccard, "containment": edge.containment}
            pairs.append({"id_a": a, "id_b": b, **similarities})
        reasons = [edge for edge in found if edge.removes]
        if reasons:
            best = max(reasons, key=lambda edge: (edge.similarity, -edge.first))
            kept_id, similarity = nodes.ids[best.first], best.similarity
            row = {"duplicate_of": kept_id, "similarity": similarity, "rule": best.rule}
            removed.append({"id": nodes.ids[node], **row})
            continue
        if found:  # it contains published documents; if one of them validates, so does this one
            shared = min(found, key=lambda edge: (not texts.validates(edge.first), edge.first))
            inherits.append({"id": nodes.ids[node], "split_of": nodes.ids[shared.first]})
        for bucket in buckets:
            members = kept.setdefault(bucket, [])
            if len(members) < MAX_MEMBERS:
                members.append(node)
    return _result(pairs, removed, inherits)


def _result(
    edges: list[dict[str, Any]], removed: list[dict[str, Any]], inherits: list[dict[str, str]]
) -> NearDuplicates:
    return NearDuplicates(
        edges=pa.Table.from_pylist(edges, EDGES).sort_by(
            [("id_a", "ascending"), ("id_b", "ascending")]
        ),
        removed=pa.Table.from_pylist(removed, REMOVED).sort_by("id"),
        inherits=pa.Table.from_pylist(inherits, INHERITS).sort_by("id"),
    )


def _join(new: NewDocuments) -> tuple[pa.Table, Signatures]:
    """The new documents by priority, as (id, content_hash, num_shingles), and their signatures."""
    columns = ["id", "content_hash", "source"]
    documents = pa.concat_tables([table.select(columns) for table in new.documents])
    signed = pa.concat_tables([table.select(["id", "num_shingles"]) for table in new.signatures])
    values = np.concatenate(
        [np.empty((0, NUM_PERM), np.uint32), *map(read_signatures, new.signatures)]
    )
    rows = pc.index_in(documents["id"], signed["id"].combine_chunks())
    if rows.null_count:
        missing = documents["id"].filter(pc.is_null(rows))[0].as_py()
        raise GristmillError(
            f"near-duplicates: document {missing} has no signature; "
            "sign the documents that are compared, all of them"
        )
    ranks = pc.index_in(documents["source"], pa.array(new.sources, pa.string()))
    table = pa.table(
        {
            "id": documents["id"],
            "content_hash": documents["content_hash"],
            "num_shingles": signed["num_shingles"].take(rows),
            "rank": pc.fill_null(ranks, len(new.sources)),
            "row": rows,
        }
    ).sort_by(
        [
            ("num_shingles", "descending"),
            ("rank", "ascending"),
            ("content_hash", "ascending"),
            ("id", "ascending"),
        ]
    )
    return table, values[table["row"].to_numpy()]


@dataclass(frozen=True)
class _Nodes:
    """Documents that may take part in an edge, numbered by priority: the published ones, then the new ones."""

    ids: list[str]
    signatures: Signatures
    text_keys: Hashes
    """Start of each new document's content hash; 0 for published ones, with which no new one shares its hash."""
    num_published: int
    buckets: NDArray[np.int64]
    """Bucket of each entry; entries are sorted by node."""
    offsets: NDArray[np.int64]
    """Entries of node i are offsets[i] to offsets[i + 1]."""

    def in_buckets(self) -> Iterator[tuple[int, list[int]]]:
        """The nodes that share a bucket with another, by priority, and their buckets."""
        for node in np.flatnonzero(np.diff(self.offsets)).tolist():
            yield node, self.buckets[self.offsets[node] : self.offsets[node + 1]].tolist()

    def most_alike(self, node: int, groups: list[Sequence[int]]) -> list[int]:
        """The nodes of the groups, without repeats, by priority; of too many, those with the most alike signatures."""
        found = sorted(set().union(*groups))
        if len(found) <= MAX_CANDIDATES:
            return found
        agreement = (self.signatures[found] == self.signatures[node]).sum(axis=1)
        agreement[self.text_keys[found] == self.text_keys[node]] = NUM_PERM
        best = np.argsort(-agreement, kind="stable")[:MAX_CANDIDATES]
        return [found[i] for i in sorted(best.tolist())]


def _gather(
    table: pa.Table, signatures: Signatures, published: Published | None, config: DedupConfig
) -> _Nodes:
    """Sort documents into buckets; buckets of one and published documents that meet no new one are left out."""
    is_signed = (signatures != EMPTY).any(axis=1)
    keys = band_keys(signatures[is_signed], bands=config.bands, rows=config.rows)
    rows = np.flatnonzero(is_signed)
    old_keys, old_nodes, old_ids, old_signatures = _meet(keys, published, config)
    num_published = len(old_ids)
    # The content hash is one band more: it also catches equal texts whose domains shingle them differently.
    text_keys = np.array(
        [int(text[:16], 16) for text in table["content_hash"].to_pylist()], np.uint64
    )
    all_keys = np.concatenate([old_keys, keys.ravel(), text_keys])
    all_nodes = np.concatenate(
        [
            old_nodes,
            np.repeat(rows, config.bands) + num_published,
            np.arange(len(table)) + num_published,
        ]
    )
    _, buckets, sizes = np.unique(all_keys, return_inverse=True, return_counts=True)
    is_shared = sizes[buckets] > 1
    buckets, all_nodes = buckets[is_shared], all_nodes[is_shared]
    order = np.lexsort((buckets, all_nodes))
    return _Nodes(
        ids=old_ids + table["id"].to_pylist(),
        signatures=np.concatenate([old_signatures, signatures]),
        text_keys=np.concatenate([np.zeros(num_published, np.uint64), text_keys]),
        num_published=num_published,
        buckets=buckets[order],
        offsets=np.searchsorted(all_nodes[order], np.arange(num_published + len(table) + 1)),
    )


def _meet(
    keys: Hashes, published: Published | None, config: DedupConfig
) -> tuple[Hashes, NDArray[np.int64], list[str], Signatures]:
    """Join the new band keys with the published runs: the shared keys, their nodes, and the nodes' ids and signatures."""
    found_keys, found_nodes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    ids: list[str] = []
    found_signatures = [np.empty((0, NUM_PERM), np.uint32)]
    wanted = np.sort(keys, axis=0)
    for table, run in published.runs() if published is not None else ():
        signatures = read_signatures(table)
        run = _usable_run(table, signatures, run, config)
        length = len(run) // config.bands
        run_keys, run_rows = run["key"].to_numpy(), run["row"].to_numpy()
        entries = []
        for band in range(config.bands):
            band_run = run_keys[band * length : (band + 1) * length]
            places = np.searchsorted(wanted[:, band], band_run)
            places[places == len(wanted)] = 0
            if len(wanted):
                entries.append(np.flatnonzero(wanted[places, band] == band_run) + band * length)
        entries = np.concatenate([np.empty(0, np.int64), *entries])
        rows, nodes = np.unique(run_rows[entries], return_inverse=True)
        found_keys.append(run_keys[entries])
        found_nodes.append(nodes + len(ids))
        found_signatures.append(signatures[rows])
        ids += table["id"].take(pa.array(rows)).to_pylist()
    return (
        np.concatenate(found_keys),
        np.concatenate(found_nodes),
        ids,
        np.concatenate(found_signatures),
    )


def _usable_run(
    table: pa.Table, signatures: Signatures, run: pa.Table, config: DedupConfig
) -> pa.Table:
    """The stored run, or one made anew where the recipe's bands have changed since it was written."""
    if len(run) == config.bands * np.count_nonzero((signatures != EMPTY).any(axis=1)):
        first = run.slice(0, 1).to_pylist()
        if not first:
            return run
        row = signatures[first[0]["row"]][None]
        if band_keys(row, bands=config.bands, rows=config.rows)[0, 0] == first[0]["key"]:
            return run
    return band_key_run([table], config)


def _read_texts(
    nodes: _Nodes, new: NewDocuments, published: Published | None, config: DedupConfig
) -> ComparedTexts:
    """Shingle the texts that will be compared, published and new."""
    numbers = {nodes.ids[node]: node for node, _ in nodes.in_buckets()}
    texts = ComparedTexts()
    if published is not None and nodes.num_published:
        for table in published.documents():
            texts.add(table, numbers, config.ngram, config.containment_ngram)
    for table in new.documents:
        texts.add(table, numbers, config.ngram, config.containment_ngram)
    return texts
