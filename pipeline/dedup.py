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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.executor import Executor
from pipeline.minhash import NUM_PERM, Hash
from pipeline.nodes import Nodes, gather
from pipeline.runs import Published
from pipeline.similarity import CONTAINED, Edges, Slice, settle_slice
from pipeline.stage import Progress, no_progress
from pipeline.templates import find_templates
from storage.errors import ConfigError
from storage.schema import EDGES, TEMPLATES

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
        nodes, buckets = gather(groups, published, templates, config, scratch)
        total, done = len(buckets.clusters.nodes), 0
        progress("near_duplicates", done, total, "documents")
        found = []
        for begin, edges in _settle(buckets.slices(), config, executor, scratch):
            found.append((begin, edges.of(buckets.clusters.nodes[begin:])))
            done += edges.num_nodes
            progress("near_duplicates", done, total, "documents")
        del buckets  # their keys are a good part of what is held
        found.sort(key=lambda item: item[0])  # processes end in any order
        return _results(nodes, Edges.concat([edges for _, edges in found]), templates)


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


def _results(nodes: Nodes, edges: Edges, templates: pa.Table) -> NearDuplicates:
    is_probe = edges.second >= nodes.first_probe
    is_kept = np.ones(len(nodes.rows), np.bool_)
    is_kept[edges.second[edges.decides]] = False
    is_old = edges.second < len(nodes.published)
    pairs = edges.filter(~is_probe)
    one, other = nodes.ids_of(pairs.first), nodes.ids_of(pairs.second)
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
    validates = pc.equal(nodes.splits, "validation").to_numpy()[inherits.first]
    order = np.lexsort([inherits.first, ~validates, inherits.second])
    _, leading = np.unique(inherits.second[order], return_index=True)
    inherits = inherits.filter(order[leading])
    return NearDuplicates(
        edges=pa.Table.from_arrays(columns, schema=EDGES).sort_by(by_ids),
        removed=_removed(nodes, edges.filter(edges.decides & ~is_old & ~is_probe)),
        displaced=pa.array(np.sort(nodes.published[edges.second[edges.decides & is_old]])),
        inherits=pa.Table.from_arrays(
            [
                nodes.ids_of(inherits.second),
                nodes.ids_of(inherits.first),
                pc.take(nodes.splits, pa.array(inherits.first)),
            ],
            schema=INHERITS,
        ).sort_by("id"),
        probes=_removed(nodes, edges.filter(edges.decides & is_probe)),
        num_pairs=edges.num_pairs,
        num_templated=edges.num_templated,
        templates=templates,
    )


def _removed(nodes: Nodes, edges: Edges) -> pa.Table:
    similarities = np.where(edges.rules == CONTAINED, edges.containment, edges.jaccard)
    columns = [
        nodes.ids_of(edges.second),
        nodes.ids_of(edges.first),
        pa.array(similarities, pa.float32()),
        RULES.take(pa.array(edges.rules)),
        pa.array(edges.jaccard, pa.float32()),
        pa.array(edges.containment, pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=REMOVED).sort_by("id")
