"""Finds documents in a snapshot by id, uri or content hash; their fates over the chain, their place, their cluster.

For `gristmill why`. A corpus of millions answers in seconds, because only the columns that are asked for are unpacked,
and texts only of the shards that hold a document to be shown.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.schema import FATES
from storage.shard import Shard, scan_shard
from storage.snapshot import Snapshot

MIN_PREFIX = 6
"""Digits of an id that may stand for it: 16 million ids on average before two begin alike."""

MAX_CLUSTER = 10_000
"""Documents of a cluster that are gathered; of a page copied a million times nobody reads the rest."""

ONE = ("id", "beginning of an id", "uri", "content hash")
"""Ways of naming a document that mean one; a file and a pattern may mean many."""


@dataclass(frozen=True)
class Matches:
    """What a user's word stands for in a snapshot."""

    how: str
    """One of ONE, or "file" or "pattern"; empty if nothing matches."""
    ids: tuple[str, ...]
    """Newest first: those whose fate was decided last."""


@dataclass(frozen=True)
class Place:
    """Where a document lies."""

    shard: Shard
    row: int


@dataclass(frozen=True)
class Cluster:
    """Documents that are connected through verified pairs and through what they duplicate."""

    ids: tuple[str, ...]
    """The one asked for first, then by distance from it."""
    edges: dict[tuple[str, str], tuple[float, float]]
    """(smaller id, larger id) -> Jaccard similarity and containment."""
    is_whole: bool
    """False if it was cut at MAX_CLUSTER."""


def count_fates(snapshot: Snapshot) -> int:
    """How many fates a search looks through."""
    return sum(shard.rows for shard in snapshot.shards("fates"))


def fate_shards(snapshot: Snapshot, version: int | None = None) -> list[Shard]:
    """Shards of fates, the first ones and those that later snapshots changed; the oldest first."""
    shards = (s for kind in ("fates", "changes") for s in snapshot.shards(kind, version=version))
    return sorted(shards, key=lambda shard: shard.version)


def find_documents(snapshot: Snapshot, word: str) -> Matches:
    """What a word stands for: an id or the beginning of one, a uri, a file, a pattern of uris, a content hash.

    The first of these that anything matches counts, in this order. O(fates); a content hash also needs that column of
    all document shards.
    """
    uri = word.removeprefix("./")
    ways: list[tuple[str, Callable[[pa.Table], Any]]] = []
    if re.fullmatch(f"[0-9a-f]{{{MIN_PREFIX},32}}", word.lower()):
        how = "id" if len(word) == 32 else "beginning of an id"
        ways.append((how, lambda t: pc.starts_with(t["id"], word.lower())))
    ways.append(("uri", lambda t: pc.equal(t["uri"], uri)))
    ways.append(("file", lambda t: _is_in_file(t["uri"], uri)))
    if re.search(r"[*?[]", uri):
        pattern = _pattern(uri)
        ways.append(("pattern", lambda t: pc.match_substring_regex(t["uri"], pattern)))
    found: list[dict[str, None]] = [{} for _ in ways]
    for shard in reversed(fate_shards(snapshot)):
        table = snapshot.open_whole(shard, ["id", "uri"])
        for ids, (_, mask) in zip(found, ways, strict=True):
            ids.update(dict.fromkeys(table["id"].filter(mask(table)).to_pylist()))
    for ids, (how, _) in zip(found, ways, strict=True):
        if ids:
            return Matches(how, tuple(ids))
    if len(word) == 32 and ways[0][0] == "id":
        ids = tuple(dict.fromkeys(_with_content_hash(snapshot, word.lower())))
        return Matches("content hash" if ids else "", ids)
    return Matches("", ())


def _is_in_file(uris: pa.ChunkedArray, file: str) -> Any:
    line, offset, member = (pc.starts_with(uris, file + mark) for mark in ":#!")
    return pc.or_(line, pc.or_(offset, member))


def _literal(text: str) -> str:
    """A regular expression (RE2) for the text itself."""
    return "".join(f"\\x{{{ord(c):x}}}" for c in text)


def _pattern(glob: str) -> str:
    """A regular expression (RE2) for a pattern with `*` (also over folders), `?`, `[...]` and `[!...]`."""
    # Possessive: a ] that opens a set is in it, even where no other one closes it and so there is no set.
    parts = re.findall(r"\[!?+\]?+[^\]]*\]|.", glob, re.DOTALL)
    return "(?s)^" + "".join(map(_pattern_part, parts)) + "$"


def _pattern_part(part: str) -> str:
    if len(part) == 1:
        return {"*": ".*", "?": "."}.get(part, _literal(part))
    inside = part[1:-1].removeprefix("!")
    ranges = re.findall("(.)-(.)|(.)", inside, re.DOTALL)
    chosen = [
        _literal(one) if one else f"{_literal(a)}-{_literal(b)}"
        for a, b, one in ranges
        if one or a <= b
    ]
    if not chosen:  # [z-a]: matches nothing, or with ! anything
        return "." if part[1] == "!" else r"[^\x{0}-\x{10ffff}]"
    return f"[{'^' if part[1] == '!' else ''}{''.join(chosen)}]"


def _with_content_hash(snapshot: Snapshot, content_hash: str) -> Iterator[str]:
    for kind in ("documents", "duplicates"):
        for shard in reversed(snapshot.shards(kind)):
            table = scan_shard(snapshot.lake, shard, ["id", "content_hash"])
            yield from table["id"].filter(pc.equal(table["content_hash"], content_hash)).to_pylist()


def nearest(snapshot: Snapshot, word: str) -> tuple[str, int] | None:
    """The id or uri that shares the longest beginning with a word, and how many characters; None if less than 4 do.

    O(fates log characters).
    """
    is_hex = re.fullmatch(r"[0-9a-f]{4,32}", word.lower()) is not None
    column, word = ("id", word.lower()) if is_hex else ("uri", word)
    best: tuple[str, int] | None = None
    for shard in snapshot.shards("fates"):
        values = snapshot.open_whole(shard, [column])[column]
        low = (best[1] if best else 3) + 1
        high = len(word)
        while low <= high:
            middle = (low + high) // 2
            like = values.filter(pc.starts_with(values, word[:middle]))
            if len(like):
                best, low = (pc.min(like).as_py(), middle), middle + 1
                values = like
            else:
                high = middle - 1
    return best


def histories(snapshot: Snapshot, ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """For each id its rows of fates, the oldest first, each with the `version` of the snapshot that wrote it."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    rows: dict[str, list[dict[str, Any]]] = {}
    for shard in fate_shards(snapshot):
        is_wanted = pc.is_in(snapshot.open_whole(shard, ["id"])["id"], wanted)
        if not pc.any(is_wanted).as_py():
            continue
        for row in snapshot.open_whole(shard, FATES.names).filter(is_wanted).to_pylist():
            rows.setdefault(row["id"], []).append(row | {"version": shard.version})
    return rows


def duplicates_of(snapshot: Snapshot, id_: str) -> list[str]:
    """Ids of the documents of which some fate says that they duplicate this one, sorted."""
    found: set[str] = set()
    for shard in fate_shards(snapshot):
        table = snapshot.open_whole(shard, ["id", "duplicate_of"])
        found.update(table["id"].filter(pc.equal(table["duplicate_of"], id_)).to_pylist())
    return sorted(found)


def find_cluster(snapshot: Snapshot, id_: str) -> Cluster:
    """Everything connected with a document; O(edges + duplicates) for each step away from it."""
    pairs = [snapshot.open(shard) for shard in snapshot.shards("edges")]
    links = [table.select(["id_a", "id_b"]).rename_columns(["a", "b"]) for table in pairs]
    for shard in fate_shards(snapshot):
        table = snapshot.open_whole(shard, ["id", "duplicate_of"])
        table = table.filter(pc.is_valid(table["duplicate_of"]))
        links.append(table.rename_columns(["a", "b"]))
    found: dict[str, None] = {id_: None}
    edge = [id_]
    while edge and len(found) < MAX_CLUSTER:
        here = pa.array(edge, pa.string())
        next_ids: set[str] = set()
        for number, table in enumerate(links):
            in_a, in_b = pc.is_in(table["a"], here), pc.is_in(table["b"], here)
            next_ids.update(table["b"].filter(in_a).to_pylist())
            next_ids.update(table["a"].filter(in_b).to_pylist())
            links[number] = table.filter(pc.invert(pc.or_(in_a, in_b)))
        edge = sorted(next_ids - found.keys())[: MAX_CLUSTER - len(found)]
        found.update(dict.fromkeys(edge))
    is_whole = len(found) < MAX_CLUSTER
    members = pa.array(list(found), pa.string())
    edges = {}
    for table in pairs:
        inside = pc.and_(pc.is_in(table["id_a"], members), pc.is_in(table["id_b"], members))
        for row in table.filter(inside).to_pylist():
            edges[row["id_a"], row["id_b"]] = (row["jaccard"], row["containment"])
    return Cluster(tuple(found), edges, is_whole)


def in_tree(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Members with their `depth` below the document that they duplicate; the first member's tree comes first."""
    by_id = {member["id"]: member for member in members}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for member in members:
        parent = member["duplicate_of"] if member["fate"] == "duplicate" else None
        below.setdefault(parent if parent in by_id else None, []).append(member)
    for rows in below.values():
        rows.sort(key=lambda row: (-(row["similarity"] or 0), row["uri"], row["id"]))
    first = members[0]["id"]
    seen = {first}
    while (parent := by_id[first]["duplicate_of"]) in by_id and parent not in seen:
        first = parent
        seen.add(first)
    roots = sorted(below.get(None, []), key=lambda row: (row["id"] != first, row["fate"] != "kept"))
    tree: list[dict[str, Any]] = []
    todo = [(root, 0) for root in reversed(roots)]
    while todo:
        row, depth = todo.pop()
        tree.append({**row, "depth": depth})
        todo += [(child, depth + 1) for child in reversed(below.get(row["id"], []))]
    shown = {row["id"] for row in tree}
    return tree + [{**row, "depth": 0} for row in members if row["id"] not in shown]


def locate(
    snapshot: Snapshot, id_: str, kind: str = "documents", *, version: int, number: str = ""
) -> Place | None:
    """The shard and row that hold a document; None if none does. Shards of `version` and with `number` come first.

    A row that a tombstone hides is none. Looks at unverified ids; what is then read from the place is verified.
    """
    shards = sorted(
        snapshot.shards(kind),
        key=lambda shard: (
            shard.version != version,
            shard_number(shard) != number,
            -shard.version,
        ),
    )
    for shard in shards:
        if snapshot.hides(shard, id_):
            continue
        row = pc.index(scan_shard(snapshot.lake, shard, ["id"])["id"], id_).as_py()
        if row >= 0:
            return Place(shard, row)
    return None


def locate_kept(snapshot: Snapshot, id_: str, version: int) -> Place | None:
    """The same of a document that `version` kept. Mostly looks into one shard, which in a bucket is a download."""
    return locate(snapshot, id_, version=version, number=_likely_number(snapshot, id_, version))


def shard_number(shard: Shard) -> str:
    """The number in a shard's name: shards of several kinds that hold the same documents share it."""
    return shard.path.removesuffix(".arrow").rpartition("-")[2]


def _likely_number(snapshot: Snapshot, id_: str, version: int) -> str:
    """Of the document shard that holds as many documents before it as the fates say were kept: both are in order of input."""
    before = 0
    for shard in fate_shards(snapshot, version):
        table = snapshot.open_whole(shard, ["id", "fate"])
        row = pc.index(table["id"], id_).as_py()
        is_kept = pc.equal(table["fate"] if row < 0 else table["fate"][:row], "kept")
        before += pc.sum(is_kept).as_py() or 0
        if row >= 0:
            break
    for shard in snapshot.shards("documents", version=version):
        if before < shard.rows:
            return shard_number(shard)
        before -= shard.rows
    return ""


def read_row(snapshot: Snapshot, place: Place, names: Sequence[str]) -> dict[str, Any]:
    """Some values of one row of a shard, verified."""
    return snapshot.open_whole(place.shard, names).slice(place.row, 1).to_pylist()[0]
