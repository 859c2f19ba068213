"""Which documents a request to forget means: by id, by where they lay, by their text, or by its likeness."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from re import compile as compile_pattern

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import ledger
from pipeline.dedup import DedupConfig
from pipeline.minhash import Hashes, shingle_texts
from pipeline.normalize import content_hash
from pipeline.templates import alike_beside, shingles_of, stored_templates
from storage.errors import ConfigError, NotFoundError
from storage.schema import DOCUMENTS, FATES
from storage.snapshot import Snapshot

_FATES = ["id", "uri", "source", "domain", "fate", "stage", "rule", "duplicate_of", "copy_of"]
_STORED = ["id", "content_hash", "split", "num_bytes"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which documents to forget: those that any of these means."""

    ids: tuple[str, ...] = ()
    """Ids."""
    uris: tuple[str, ...] = ()
    """Patterns of uris, in which * stands for anything, ? for a character and [abc] for one of these."""
    content_hashes: tuple[str, ...] = ()
    """Hashes of white-space-normalised texts."""
    like: str | None = None
    """A text: documents that nearly equal it, lie within it or hold it, by the thresholds of the recipe."""

    def __post_init__(self) -> None:
        if not (self.ids or self.uris or self.content_hashes or self.like is not None):
            raise ConfigError(
                "forget: expected at least one of --id, --uri, --content-hash and --like; got none"
            )
        for option, values in (("--id", self.ids), ("--content-hash", self.content_hashes)):
            for value in values:
                if len(value) != 32 or set(value) - set("0123456789abcdef"):
                    raise ConfigError(f"{option}: expected 32 lower-case hex digits, got {value!r}")
        if not all(self.uris):
            raise ConfigError("--uri: expected a pattern such as 'mail/*.txt', got an empty one")
        if self.like is not None and not self.like.split():
            raise ConfigError("--like: expected a text, got nothing but white space")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a request means in a snapshot."""

    documents: pa.Table
    """What would be forgotten, sorted by (uri, id): SELECTED."""
    num_known: int
    """Documents that the request means too and that were forgotten before."""


SELECTED = pa.schema(
    [
        *(FATES.field(name) for name in ("id", "uri", "source", "domain", "fate")),
        pa.field("why", pa.string(), nullable=False),  # asked, or same_text as one that was
        pa.field("stored", pa.bool_(), nullable=False),  # its text lies in a shard
        pa.field("content_hash", pa.string(), nullable=False),  # empty if its text is not stored
        pa.field("split", pa.string(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),  # 0 if not stored
    ]
)


def select(snapshot: Snapshot, request: Request) -> Selection:
    """Find what a request means: the documents it names, and with each all others that have the very same text.

    A document that was read and not kept is found too, because a sample of its text may be stored. Raises
    NotFoundError for an id, pattern or hash that means nothing. Reads the fates of the corpus and its documents' ids
    and hashes, with `like` also all texts; holds a few hundred bytes a document.
    """
    fates = _concat((t.select(_FATES) for t in snapshot.fates()), FATES, _FATES)
    stored = _stored(snapshot)
    asked: set[str] = set()
    known = set(fates["id"].to_pylist())
    for id_ in request.ids:
        if id_ not in known:
            raise NotFoundError(
                f"--id {id_}: expected a document that {snapshot.ref} or one before it has read; {_HINT}"
            )
        asked.add(id_)
    ids, uris = fates["id"].to_pylist(), fates["uri"].to_pylist()
    for pattern in request.uris:
        is_meant = compile_pattern(translate(pattern)).match
        found = {id_ for id_, uri in zip(ids, uris, strict=True) if is_meant(uri)}
        if not found:
            raise NotFoundError(
                f"--uri {pattern!r}: expected a pattern that some document of {snapshot.ref} fits; {_HINT}"
            )
        asked |= found
    blocked = snapshot.forgotten()
    for wanted in request.content_hashes:
        found = _ids_where(stored, "content_hash", {wanted}) | _ids_where(
            blocked, "content_hash", {wanted}
        )
        if not found:
            raise NotFoundError(
                f"--content-hash {wanted}: expected the hash of a document of {snapshot.ref}; {_HINT}"
            )
        asked |= found
    if request.like is not None:
        config = DedupConfig(**snapshot.manifest.recipe["dedup"])
        templates = shingles_of(stored_templates(snapshot if config.template_share else None))
        asked |= find_alike(_texts(snapshot), request.like, config, templates)
    return _with_same_texts(fates, stored, asked)


_HINT = "'gristmill dump REF --fates' lists the documents, with id and uri"


def _with_same_texts(fates: pa.Table, stored: pa.Table, asked: set[str]) -> Selection:
    """Take in every document with the same text as one of `asked`; leave out what was forgotten before."""
    copies = fates.filter(_is_copy(fates))
    original = pc.coalesce(copies["copy_of"], copies["duplicate_of"])
    chosen = set(original.filter(pc.is_in(copies["id"], _ids(asked))).to_pylist()) | asked
    hashes = set(stored.filter(pc.is_in(stored["id"], _ids(chosen)))["content_hash"].to_pylist())
    chosen |= _ids_where(stored, "content_hash", hashes)
    chosen |= set(copies["id"].filter(pc.is_in(original, _ids(chosen))).to_pylist())

    rows = fates.filter(pc.is_in(fates["id"], _ids(chosen)))
    is_known = pc.equal(rows["fate"], "forgotten")
    num_known = len(rows.filter(pc.and_(is_known, pc.is_in(rows["id"], _ids(asked)))))
    rows = rows.filter(pc.invert(is_known))
    places = pc.index_in(rows["id"], stored["id"].combine_chunks())
    is_asked = pc.is_in(rows["id"], _ids(asked))
    columns = [rows[name] for name in ("id", "uri", "source", "domain", "fate")]
    columns += [pc.if_else(is_asked, "asked", "same_text"), pc.is_valid(places)]
    blanks = {"content_hash": "", "split": "", "num_bytes": 0}
    columns += [
        pc.fill_null(stored[name].combine_chunks().take(places), blank)
        for name, blank in blanks.items()
    ]
    documents = pa.Table.from_arrays(columns, names=SELECTED.names).cast(SELECTED)
    order = [("uri", "ascending"), ("id", "ascending")]
    return Selection(documents=documents.sort_by(order).combine_chunks(), num_known=num_known)


def _is_copy(fates: pa.Table) -> pa.ChunkedArray:
    """Which fates are those of exact copies, found as such before anything judged them."""
    is_duplicate = pc.and_(
        pc.equal(fates["fate"], "duplicate"), pc.equal(fates["stage"], "exact_duplicates")
    )
    return pc.or_(pc.fill_null(is_duplicate, False), pc.is_valid(fates["copy_of"]))


def _stored(snapshot: Snapshot) -> pa.Table:
    """id, content hash, split and size of the documents whose text lies in a shard: kept ones and duplicates."""
    tables = (
        snapshot.open(shard, _STORED)
        for kind in ("documents", "duplicates")
        for shard in snapshot.shards(kind)
    )
    return _concat(tables, DOCUMENTS, _STORED)


def _texts(snapshot: Snapshot) -> Iterator[pa.Table]:
    for kind in ("documents", "duplicates"):
        yield from map(snapshot.open, snapshot.shards(kind))


_ROWS_AT_ONCE = 1024


def find_alike(
    tables: Iterable[pa.Table], text: str, config: DedupConfig, templates: Hashes
) -> set[str]:
    """Ids of the documents that nearly equal `text`, lie within it or hold it, by the thresholds of the recipe.

    Exact, not by signatures: the Jaccard similarity of shingle sets reaches `threshold`, or `containment` of the
    n-grams of the shorter lie in the longer, beside `templates` (shingles, if there are any) as well; or the
    white-space-normalised texts are equal. One pass over the texts.
    """
    return {id_ for table in tables for id_ in _alike(table, text, config, templates)}


def _alike(table: pa.Table, text: str, config: DedupConfig, templates: Hashes) -> Iterator[str]:
    same = content_hash(pa.array([text]))[0]
    for domain in pc.unique(table["domain"]).to_pylist():
        # Each domain shingles in its own way, so the text is shingled as if it belonged to it.
        (probe, grams), _ = _shingles(pa.array([text]), pa.array([domain]), config)
        rows = table.filter(pc.equal(table["domain"], domain))
        for batch in rows.select(["id", "text", "domain", "content_hash"]).to_batches(
            _ROWS_AT_ONCE
        ):
            is_same = pc.equal(batch["content_hash"], same).to_pylist()
            (shingles, short), (ends, stops) = _shingles(batch["text"], batch["domain"], config)
            for i, id_ in enumerate(batch["id"].to_pylist()):
                its, its_grams = shingles[ends[i] : ends[i + 1]], short[stops[i] : stops[i + 1]]
                common = _num_common(its, probe)
                jaccard = common / max(len(its) + len(probe) - common, 1)
                shorter = len(its_grams if len(its) <= len(probe) else grams)
                contained = _num_common(its_grams, grams) / max(shorter, 1)
                is_near, is_held = jaccard >= config.threshold, contained >= config.containment
                if len(templates) and (is_near or is_held):
                    texts = {id_: (batch["text"][i].as_py(), domain), "": (text, domain)}
                    pair = (id_, "") if len(its) <= len(probe) else ("", id_)
                    near, held = (
                        alike_beside(templates, texts, [pair] * is_alike, config, is_held=by_share)
                        for by_share, is_alike in ((False, is_near), (True, is_held))
                    )
                    is_near, is_held = bool(near), bool(held)
                if is_same[i] or is_near or is_held:
                    yield id_


def _num_common(a: Hashes, b: Hashes) -> int:
    """Size of the intersection of two sorted sets."""
    if not len(a) or not len(b):
        return 0
    places = np.searchsorted(b, a)
    places[places == len(b)] = 0
    return int(np.count_nonzero(b[places] == a))


def _shingles(texts: pa.Array, domains: pa.Array, config: DedupConfig):
    """Hashes and offsets of shingles and of the shorter n-grams."""
    hashes, ends = shingle_texts(texts, domains, ngram=config.ngram)
    grams, stops = shingle_texts(texts, domains, ngram=config.containment_ngram)
    return (hashes, grams), (ends, stops)


def _concat(tables: Iterator[pa.Table], schema: pa.Schema, columns: list[str]) -> pa.Table:
    return ledger.concat(tables, pa.schema([schema.field(name) for name in columns]))


def _ids(values: set[str]) -> pa.Array:
    return pa.array(sorted(values), pa.string())


def _ids_where(table: pa.Table, column: str, values: set[str]) -> set[str]:
    return set(table.filter(pc.is_in(table[column], _ids(values)))["id"].to_pylist())
