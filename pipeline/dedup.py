"""Exact and near-duplicate removal: candidates by bands, every one verified exactly, one kept set whatever the order.

The kept set is the lexicographically-first maximal independent set of the verified graph by a total priority: published
documents first, then the longest (in shingles), the recipe's order of sources, content hash, id. So every removed
document names a kept one that it duplicates, nothing is removed through a chain, and the order of input, batches and
shards does not matter. No two kept ones are duplicates, as far as they share a band, and a bucket of thousands that are
all but alike has been compared (`similarity.py` says how far). With `template_share`, two documents are no duplicates
either that only their sites' templates make alike (`templates.py`). With the policy "rebuild" (`rebuild.py`) published
documents have no precedence, and so it does not matter either what came in which build.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

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
from pipeline.executor import Executor
from pipeline.minhash import NUM_PERM, Hash, Hashes, check_signatures
from pipeline.runs import Published, Rows, hex_words
from pipeline.similarity import (
    CONTAINED,
    MAX_MEMBERS,
    NEW,
    PROBE,
    PUBLISHED,
    SLICE_BYTES,
    Edges,
    Slice,
    Texts,
    settle_slice,
)
from pipeline.stage import Progress, no_progress
from pipeline.templates import find_templates, shingles_of
from storage.errors import ConfigError
from storage.schema import DOCUMENTS, EDGES, TEMPLATES

Policy = Literal["append", "rebuild"]


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
    policy: Policy = "append"
    """"append": what is published stays, a new document never displaces an old one. "rebuild": what is kept is what one
    build of everything would keep, so a new document may displace published ones, and others come back for them."""
    template_share: float | None = None
    """Share of a source's documents, in (0, 1), from which on a shingle counts as part of its template (50 documents at
    least). Two documents must be alike beside their templates, too, where they have a sentence or two there. Off if left
    out; for pages that are mostly navigation or licence, 0.05. Only with the policy "append": templates change."""

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
        if self.policy not in get_args(Policy):
            raise ConfigError(f"dedup.policy: expected append or rebuild, got {self.policy!r}")
        self._check_template_share()
        if self.policy == "rebuild" and not self.enabled:
            raise ConfigError(
                'dedup.policy: expected "append" where dedup.enabled is false, got "rebuild"; '
                "without near-duplicates there is nothing to decide anew"
            )
        if self.bands * self.rows > NUM_PERM:
            raise ConfigError(
                f"dedup.bands x dedup.rows: expected at most {NUM_PERM} (values of a signature), "
                f"got {self.bands} x {self.rows} = {self.bands * self.rows}; lower one of them"
            )

    def _check_template_share(self) -> None:
        share = self.template_share
        if share is None:
            return
        if not 0 < share < 1:
            raise ConfigError(f"dedup.template_share: expected a number in (0, 1), got {share}")
        if self.policy == "rebuild":
            raise ConfigError(
                f'dedup.template_share: expected none with dedup.policy = "rebuild", got {share}; what is a template '
                "depends on what came together with it, and what is kept must not: leave out one of the two"
            )
        if not self.enabled:
            raise ConfigError(
                f"dedup.template_share: expected none where dedup.enabled is false, got {share}; without near-duplicates "
                "there is nothing to guard"
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
class NearDuplicates:
    """What `near_duplicates` found; each table sorted by its ids."""

    edges: pa.Table
    """EDGES: the verified pairs of each new document with kept documents that go before it."""
    removed: pa.Table
    """REMOVED: new documents; rule is "near_duplicate" (Jaccard), "contained" or "exact" (equal content hash)."""
    displaced: pa.Array
    """Numbers of the published documents that go, ascending; none with the policy "append"."""
    inherits: pa.Table
    """INHERITS: new documents that are kept although they contain a published one, whose split they must share."""
    probes: pa.Table
    """REMOVED: the probes that would go, and for which kept document."""
    num_pairs: int
    """Pairs of documents that were compared."""
    num_templated: int
    """Those of them that only their templates make alike, and that are no edges therefore."""
    templates: pa.Table
    """TEMPLATES: those that are published, and those found; none with the guard off."""


REMOVED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),  # kept
        pa.field("similarity", pa.float32(), nullable=False),  # what the rule measured
        pa.field("rule", pa.string(), nullable=False),
        pa.field("jaccard", pa.float32(), nullable=False),
        pa.field("containment", pa.float32(), nullable=False),
    ]
)
INHERITS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split_of", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
RULES = pa.array(["exact", "near_duplicate", "contained", "contains"])
"""By their numbers in `similarity.py`."""


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
    *,
    probes: NewDocuments | None = None,
    folder: Path | None = None,
    executor: Executor | None = None,
    finds_templates: bool = True,
) -> NearDuplicates:
    """Decide which new documents go because they nearly equal, or lie within, one that stays.

    Candidates share a band (or, among new documents, their content hash; with the policy "rebuild" among all). A
    candidate pair is a duplicate if the exact Jaccard similarity of its shingle sets reaches `threshold`; or if
    `containment` of the shorter one's n-grams lie in the longer one, and then only the shorter may go. With
    `template_share`, what is beside their templates must be so, too: those that are stored with the published documents
    and, if `finds_templates`, those of the new ones. `probes` come after all others, and are only compared with what is
    kept. Files of the work, the texts for other processes among them, lie in a folder inside `folder` and go at the end.

    `O(n log n)` plus at most MAX_CANDIDATES verifications a document. Holds some 100 bytes a document beside the tables,
    200 in files that are memory-mapped, and the shingles of SLICE_BYTES of text, or of one cluster.
    """
    groups = [new] if probes is None else [new, probes]
    templates = _templates(new, published, config, finds_templates)
    if not config.enabled or not any(map(len, new.documents)):
        nothing = REMOVED.empty_table()
        return NearDuplicates(
            edges=EDGES.empty_table(),
            removed=nothing,
            displaced=pa.array([], pa.int64()),
            inherits=INHERITS.empty_table(),
            probes=nothing,
            num_pairs=0,
            num_templated=0,
            templates=templates,
        )
    executor = executor or Executor()
    with TemporaryDirectory(prefix="near-", dir=folder) as name:
        scratch = Path(name)
        corpus = _gather(groups, published, templates, config, scratch)
        total, done = len(corpus.clusters.nodes), 0
        progress("near_duplicates", done, total, "documents")
        found = []
        for begin, edges in _settle(corpus.slices(), config, executor, scratch):
            found.append((begin, edges.of(corpus.clusters.nodes[begin:])))
            done += edges.num_nodes
            progress("near_duplicates", done, total, "documents")
        found.sort(key=lambda item: item[0])  # processes end in any order
        return _results(corpus, Edges.concat([edges for _, edges in found]))


def _templates(
    new: NewDocuments, published: Published | None, config: DedupConfig, finds: bool
) -> pa.Table:
    """What counts as a template: nothing with the guard off."""
    if config.template_share is None:
        return TEMPLATES.empty_table()
    stored = published.templates() if published is not None else TEMPLATES.empty_table()
    documents = new.documents if finds else ()
    return find_templates(documents, stored, config.template_share, config.ngram)


def _settle(
    slices: Iterable[tuple[int, Slice]], config: DedupConfig, executor: Executor, scratch: Path
) -> Iterator[tuple[int, Edges]]:
    """The edges of each slice, with the number of its first node; other processes read the slices from files."""
    if executor.is_here:
        yield from ((begin, settle_slice(part, config)) for begin, part in slices)
        return
    tasks = []
    for begin, part in slices:
        tasks.append((scratch / f"{begin:012}.npz", begin, config))
        part.save(tasks[-1][0])
    yield from executor.map(_settle_file, tasks)


def _settle_file(task: tuple[Path, int, DedupConfig]) -> tuple[int, Edges]:
    file, begin, config = task
    return begin, settle_slice(Slice.load(file), config)


@dataclass(frozen=True)
class _Corpus:
    """All documents that may take part, as nodes: published ones, then new ones, then probes."""

    published: Rows
    """Numbers, in the runs, of the published documents that share a key with a new one; ascending."""
    is_fixed: bool
    """Whether published documents stay whatever comes."""
    num_new: int
    rows: Rows
    """Row of each node in `texts` and `ids`."""
    content: Hashes
    """Content hash of each node, shape (nodes, 2)."""
    texts: Texts
    ids: pa.ChunkedArray
    splits: pa.ChunkedArray
    """Splits of the published documents."""
    keys: Keys
    """Of the new documents and the probes."""
    meetings: Meetings
    """Of the published documents; ascending by `rows`."""
    clusters: Clusters
    templates: pa.Table

    @property
    def first_probe(self) -> int:
        """Number of the first probe: the new documents end there."""
        return len(self.published) + self.num_new

    def slices(self) -> Iterator[tuple[int, Slice]]:
        """Stretches of `clusters.nodes`, whole clusters of about SLICE_BYTES of text, each with its first place."""
        ends = self.clusters.ends
        if len(ends) < 2:
            return
        begins, stops, _ = self.texts.find(self.rows[self.clusters.nodes])
        sizes = np.cumsum(stops - begins)[ends[1:] - 1]
        numbers = sizes // SLICE_BYTES  # of the slice in which a cluster ends
        cuts = np.flatnonzero(np.append(numbers[1:] != numbers[:-1], True))
        templates = shingles_of(self.templates)
        for begin, end in pairwise([0, *ends[cuts + 1].tolist()]):
            yield begin, self._slice(begin, end, templates)

    def _slice(self, begin: int, end: int, templates: Hashes) -> Slice:
        """Everything about a stretch of `clusters.nodes`."""
        nodes = self.clusters.nodes[begin:end]
        ends = self.clusters.ends
        begins, stops, codes = self.texts.find(self.rows[nodes])
        keys, key_ends = self._keys_of(nodes)
        roles = np.full(len(nodes), NEW, np.uint8)
        if self.is_fixed:
            roles[nodes < len(self.published)] = PUBLISHED
        roles[nodes >= self.first_probe] = PROBE
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
            templates=templates,
        )

    def _keys_of(self, nodes: Rows) -> tuple[Hashes, Rows]:
        """Bucket keys of nodes, end to end, and where each node's begin."""
        is_old = nodes < len(self.published)
        columns = nodes[~is_old] - len(self.published)
        of_new = self.keys.values[:, columns].T
        has_key = np.ones(of_new.shape, np.bool_)
        has_key[:, :-1] = self.keys.is_signed[columns][:, None]
        old_begins, old_ends = (
            np.searchsorted(self.meetings.rows, self.published[nodes[is_old]], side)
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


def _gather(
    groups: Sequence[NewDocuments],
    published: Published | None,
    templates: pa.Table,
    config: DedupConfig,
    scratch: Path,
) -> _Corpus:
    """Number the documents and find the clusters."""
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
    corpus = _Corpus(
        published=numbers,
        is_fixed=is_fixed,
        num_new=sum(map(len, groups[0].documents)),
        rows=np.concatenate([np.arange(len(numbers)), order + len(numbers)]),
        content=np.concatenate([hex_words(_column(old, "content_hash")), content]),
        texts=Texts.of(everything),
        ids=_column(everything, "id"),
        splits=_column(old, "split"),
        keys=keys,
        meetings=meetings,
        clusters=find_clusters(keys, meetings, numbers),
        templates=templates,
    )
    if is_fixed or published is None or not len(numbers):
        return corpus
    competing = np.concatenate([published.num_shingles(numbers), lengths[1]])
    sources = pc.take(_column(everything, "source"), pa.array(corpus.rows[: corpus.first_probe]))
    by = _priority(
        competing,
        _ranks(sources, groups[0].sources),
        corpus.content[: corpus.first_probe],
        hex_words(_ids(corpus, np.arange(corpus.first_probe))),
    )
    priority = np.arange(len(corpus.rows))  # probes stay behind
    priority[np.lexsort(by)] = np.arange(corpus.first_probe)
    return replace(corpus, clusters=corpus.clusters.sorted_by(priority))


def _prioritize(group: NewDocuments) -> tuple[Rows, Rows, Rows]:
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


def _results(corpus: _Corpus, edges: Edges) -> NearDuplicates:
    is_probe = edges.second >= corpus.first_probe
    is_kept = np.ones(len(corpus.rows), np.bool_)
    is_kept[edges.second[edges.decides]] = False
    is_old = edges.second < len(corpus.published)
    pairs = edges.filter(~is_probe)
    one, other = _ids(corpus, pairs.first), _ids(corpus, pairs.second)
    is_ordered = pc.less(one, other)
    columns = [
        pc.if_else(is_ordered, one, other),
        pc.if_else(is_ordered, other, one),
        pa.array(pairs.jaccard, pa.float32()),
        pa.array(pairs.containment, pa.float32()),
    ]
    by_ids = [("id_a", "ascending"), ("id_b", "ascending")]
    # What is kept and has an edge contains something published; of several, one that validates decides.
    inherits = edges.filter(~is_probe & is_kept[edges.second])
    validates = pc.equal(corpus.splits, "validation").to_numpy()[inherits.first]
    order = np.lexsort([inherits.first, ~validates, inherits.second])
    _, leading = np.unique(inherits.second[order], return_index=True)
    inherits = inherits.filter(order[leading])
    return NearDuplicates(
        edges=pa.Table.from_arrays(columns, schema=EDGES).sort_by(by_ids),
        removed=_removed(corpus, edges.filter(edges.decides & ~is_old & ~is_probe)),
        displaced=pa.array(np.sort(corpus.published[edges.second[edges.decides & is_old]])),
        inherits=pa.Table.from_arrays(
            [
                _ids(corpus, inherits.second),
                _ids(corpus, inherits.first),
                pc.take(corpus.splits, pa.array(inherits.first)),
            ],
            schema=INHERITS,
        ).sort_by("id"),
        probes=_removed(corpus, edges.filter(edges.decides & is_probe)),
        num_pairs=edges.num_pairs,
        num_templated=edges.num_templated,
        templates=corpus.templates,
    )


def _removed(corpus: _Corpus, edges: Edges) -> pa.Table:
    similarities = np.where(edges.rules == CONTAINED, edges.containment, edges.jaccard)
    columns = [
        _ids(corpus, edges.second),
        _ids(corpus, edges.first),
        pa.array(similarities, pa.float32()),
        RULES.take(pa.array(edges.rules)),
        pa.array(edges.jaccard, pa.float32()),
        pa.array(edges.containment, pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=REMOVED).sort_by("id")


def _ids(corpus: _Corpus, nodes: Rows) -> pa.Array | pa.ChunkedArray:
    return pc.take(corpus.ids, pa.array(corpus.rows[nodes]))
