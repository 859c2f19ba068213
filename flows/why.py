"""`gristmill why DOC`: what became of a document, through which rule or beside which other document, and its cluster.

Facts are gathered into one plain dictionary, which --json prints and `flows.why_view` shows.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.document_search import (
    MAX_CLUSTER,
    MIN_PREFIX,
    ONE,
    Cluster,
    Matches,
    Place,
    count_fates,
    duplicates_of,
    find_cluster,
    find_documents,
    histories,
    in_tree,
    locate,
    locate_kept,
    nearest,
    read_row,
    shard_number,
)
from flows.output import Output
from flows.recipe import find_recipe
from flows.removed_text import RemovedText, find_input, recipe_of, removed_text
from flows.rule_words import rule_in_words
from flows.text_diff import compare_texts, count_changes
from flows.why_view import one_line, show_document, show_matches
from model.records import read_object
from pipeline.display import clip, number
from pipeline.source_config import READER_ENDINGS, inner_ending
from storage.catalog import list_corpora, read_manifest, resolve, versions
from storage.errors import ConfigError, GristmillError, InputError, NotFoundError
from storage.lake import Lake
from storage.snapshot import Snapshot

Facts = dict[str, Any]

MAX_WORD = 4096
"""Characters of what names a document: a path on Linux has no more, and a longer pattern no engine takes."""


def explain(
    output: Output, word: str, location: str, *, within: str | None, recipe: str | None, full: bool
) -> None:
    """Say what became of the document that `word` names: an id or its beginning, a uri, or a content hash.

    A file or a pattern of uris lists its documents. `within` is the snapshot to look in; default: the newest promoted
    one of each corpus, with all that came before it. `recipe` says where the texts of removed documents lie.
    """
    if not word.strip():
        raise ConfigError("DOC: expected an id, a uri or a content hash, got an empty text")
    if len(word) > MAX_WORD:
        raise ConfigError(
            f"DOC: expected at most {MAX_WORD:,} characters, got {len(word):,}; is it a text? Give its uri"
        )
    word = word.encode("utf-8", "surrogateescape").decode(
        "utf-8", "replace"
    )  # no uri is undecodable
    lake = Lake.open(location)
    folder = find_recipe(recipe).parent if recipe is not None else None
    snapshots, unsearched = _snapshots(lake, within)
    matches = [(snapshot, find_documents(snapshot, word)) for snapshot in snapshots]
    found = _best(matches)
    if not found:
        raise NotFoundError(_nothing_found(word, snapshots, unsearched))
    ids = {id_ for _, match in found for id_ in match.ids}
    if len(ids) > 1:
        _list(output, word, found, full=full)
        return
    snapshot, match = found[0]
    facts = document_facts(snapshot, match.ids[0], folder)
    facts["elsewhere"] = [other.ref for other, _ in found[1:]]
    output.result(facts, lambda console: show_document(console, facts, full=full))


def _snapshots(lake: Lake, within: str | None) -> tuple[list[Snapshot], list[str]]:
    """The snapshots to look in, the newest first, and references of newer ones that no gate let pass."""
    if within is not None:
        return [resolve(lake, within)], []
    corpora = list_corpora(lake)
    if not corpora:
        raise NotFoundError(
            f"{lake}: expected a lake with a snapshot, it holds none yet; build one or choose another --lake"
        )
    snapshots, unsearched = [], []
    for name in corpora:
        for version in reversed(versions(lake, name)):
            manifest = read_manifest(lake, name, version)
            if manifest.status == "promoted":
                snapshots.append(Snapshot(lake, manifest))
                break
            unsearched.append(manifest.ref)
    if not snapshots:
        raise NotFoundError(
            f"{lake}: expected a promoted snapshot, but none of {', '.join(unsearched)} passed its gates; say "
            f"--snapshot {unsearched[0]} to look in it all the same"
        )
    newest_first = sorted(
        snapshots, key=lambda s: str(s.manifest.commit.get("created_at", "")), reverse=True
    )
    return newest_first, unsearched


def _best(matches: Sequence[tuple[Snapshot, Matches]]) -> list[tuple[Snapshot, Matches]]:
    """The matches by the way of naming that comes first, so that an id in one corpus is not mixed with a file of another."""
    order = [*ONE[:3], "file", "pattern", ONE[3]]
    hows = [match.how for _, match in matches if match.ids]
    if not hows:
        return []
    best = min(hows, key=order.index)
    return [(snapshot, match) for snapshot, match in matches if match.ids and match.how == best]


def _nothing_found(word: str, snapshots: Sequence[Snapshot], unsearched: Sequence[str]) -> str:
    searched = sum(map(count_fates, snapshots))
    where = ", ".join(snapshot.ref for snapshot in snapshots)
    close = [found for found in (nearest(snapshot, word) for snapshot in snapshots) if found]
    hint = ""
    if close:
        value, length = max(close, key=lambda found: found[1])
        hint = f"; nearest: {one_line(value)} (the first {length} characters agree)"
    elif re.fullmatch("[0-9a-fA-F]+", word) and len(word) < MIN_PREFIX:
        hint = f"; of an id, give at least {MIN_PREFIX} digits"
    if unsearched:
        hint += f"; not searched: {', '.join(unsearched)}, which passed no gate (--snapshot {unsearched[0]})"
    return (
        f"{clip(one_line(word), 200)}: expected the id, uri or content hash of a document, but none of the {number(searched)} fates in "
        f"{where} is one{hint}"
    )


def _list(
    output: Output, word: str, found: Sequence[tuple[Snapshot, Matches]], *, full: bool
) -> None:
    how = found[0][1].how
    rows = []
    for snapshot, match in found:
        fates = histories(snapshot, match.ids)
        rows += [
            {"corpus": snapshot.manifest.name, **_fate_facts(snapshot, fates[id_][-1])}
            for id_ in match.ids
        ]
    document = {"doc": word, "matched": how, "documents": rows}
    output.result(document, lambda console: show_matches(console, rows, full=full))
    if how in ONE:
        raise InputError(
            f"{one_line(word)}: expected one document, but this {how} is that of {number(len(rows))}; name one by its id"
        )


# --- facts of one document ---------------------------------------------------------------------


def document_facts(snapshot: Snapshot, id_: str, folder: Path | None) -> Facts:
    """All that a snapshot and its chain know of a document, as JSON values. `folder` is the recipe's."""
    cluster = find_cluster(snapshot, id_)
    rows = histories(snapshot, cluster.ids)
    history = [_fate_facts(snapshot, row) for row in rows[id_]]
    row = rows[id_][-1]
    now = {member: found[-1] for member, found in rows.items()}
    facts: Facts = {
        **history[-1],
        "corpus": snapshot.manifest.name,
        "searched": snapshot.ref,
        "history": history,
        "kept": None,
        "stands_for": [],
        "representative": None,
        "quarantine": None,
        "text": None,
        "diff": None,
        "cluster": _cluster_facts(cluster, now),
        "notes": [],
    }
    if row["fate"] == "kept":
        _add_kept(facts, snapshot, row, cluster, now)
    elif row["fate"] == "forgotten":
        facts["notes"].append("its text is no part of the corpus any more")
    else:
        was_kept = [old["version"] for old in rows[id_] if old["fate"] == "kept"]
        text = removed_text(snapshot, row, folder, kept_in=was_kept)
        facts["text"] = _text_facts(text)
        if row["fate"] == "duplicate":
            _add_representative(facts, snapshot, row, cluster, now, text)
        elif row["fate"] == "quarantined":
            facts["quarantine"] = _quarantine_facts(snapshot, row)
    return facts


def _fate_facts(snapshot: Snapshot, row: Mapping[str, Any]) -> Facts:
    """A row of fates, with the snapshot that decided and what the rule means."""
    facts = {key: value for key, value in row.items() if key != "version"}
    facts["decided_in"] = f"{snapshot.manifest.name}@{row['version']}"
    dedup = recipe_of(snapshot, row["version"]).get("dedup", {})
    facts["meaning"] = rule_in_words(row, dedup)
    return facts


def _add_kept(
    facts: Facts,
    snapshot: Snapshot,
    row: Mapping[str, Any],
    cluster: Cluster,
    now: Mapping[str, Mapping[str, Any]],
) -> None:
    place = locate_kept(snapshot, row["id"], row["version"])
    if place is None:
        facts["notes"].append(
            "no document shard of the snapshot holds it, though its fate says kept"
        )
        return
    document = read_row(snapshot, place, _SHOWN)
    facts["text"] = _text_facts(RemovedText(document.pop("text"), "the corpus", True))
    tokens = _tokens(snapshot, row["id"], place)
    runs = _runs(snapshot, place)
    facts["kept"] = {
        "since": f"{snapshot.manifest.name}@{place.shard.version}",
        "shard": place.shard.path,
        "row": place.row,
        **document,
        **tokens,
        "trained_on_by": runs if document["split"] == "train" else [],
        "validated_on_by": runs if document["split"] == "validation" else [],
    }
    facts["stands_for"] = [
        {
            **{
                key: now[other][key]
                for key in ("id", "uri", "source", "fate", "rule", "similarity")
            },
            **_pair(cluster, row["id"], other),
        }
        for other in duplicates_of(snapshot, row["id"])
        if other in now and now[other]["duplicate_of"] == row["id"]
    ]


_SHOWN = (
    "text", "license", "lang", "lang_score", "toxicity", "content_hash", "num_bytes", "split",
)  # fmt: skip
"""Columns of a kept document that its fate does not have."""


def _tokens(snapshot: Snapshot, id_: str, place: Place) -> Facts:
    """How many tokens a kept document has, and where they lie."""
    shard = place.shard
    found = locate(snapshot, id_, "tokens", version=shard.version, number=shard_number(shard))
    if found is None:
        return {"num_tokens": None, "token_shard": None, "token_row": None}
    tokens = snapshot.open_whole(found.shard, ["tokens"])["tokens"][found.row]
    return {
        "num_tokens": len(tokens.values),
        "token_shard": found.shard.path,
        "token_row": found.row,
    }


def _runs(snapshot: Snapshot, place: Place) -> list[str]:
    """Runs that trained on a snapshot which holds the shard. A run whose record is damaged is left out."""
    name, lake = snapshot.manifest.name, snapshot.lake
    holds: dict[int, bool] = {}
    runs = []
    for run in lake.list_folders("runs"):
        try:
            trained, _, version = read_object(lake, f"runs/{run}/run.json")["snapshot"].partition(
                "@"
            )
            if trained != name or int(version) < place.shard.version:
                continue
            if int(version) not in holds:
                shards = read_manifest(lake, name, int(version)).shards
                holds[int(version)] = any(shard.path == place.shard.path for shard in shards)
        except (GristmillError, KeyError, ValueError, AttributeError):
            continue
        if holds[int(version)]:
            runs.append(run)
    return runs


def _add_representative(
    facts: Facts,
    snapshot: Snapshot,
    row: Mapping[str, Any],
    cluster: Cluster,
    now: Mapping[str, Mapping[str, Any]],
    text: RemovedText,
) -> None:
    """The document that this one duplicates, the chain to the one that is kept today, and what their texts differ in."""
    chain: list[str] = []
    at: str | None = row["duplicate_of"]
    while at is not None and at in now and at not in chain:
        chain.append(at)
        at = now[at]["duplicate_of"] if now[at]["fate"] == "duplicate" else None
    if not chain:
        facts["notes"].append(
            f"{row['duplicate_of']}, which it duplicates, is in no fate of the chain"
        )
        return
    last = now[chain[-1]]
    keys = ("id", "uri", "source", "domain", "fate")
    facts["representative"] = {
        **{key: last[key] for key in keys},
        "chain": [{key: now[id_][key] for key in keys} for id_ in chain],
        **_pair(cluster, row["id"], chain[0]),
    }
    if last["fate"] != "kept":
        facts["notes"].append(
            "the document that it duplicates is not kept any more, so there is nothing to compare"
        )
        return
    place = locate_kept(snapshot, last["id"], last["version"])
    if place is None or text.text is None:
        return
    other = read_row(snapshot, place, ["text"])["text"]
    pieces = compare_texts(other, text.text)
    if not text.is_whole:
        pieces = _cut(pieces)
    facts["diff"] = {
        "old": last["id"],
        "new": row["id"],
        "is_whole": text.is_whole,
        "words": count_changes(pieces),
        "is_equal": text.is_whole and other == text.text,
        "pieces": [{"op": op, "text": piece} for op, piece in pieces],
    }


def _cut(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without what follows the end of a text that was cut: it is missing here, and not from the document."""
    while pieces and pieces[-1][0] in ("old", "skip"):
        pieces = pieces[:-1]
    return [*pieces, ("skip", "the comparison ends here, with the text that is known")]


def _pair(cluster: Cluster, a: str, b: str) -> Facts:
    jaccard, containment = cluster.edges.get((min(a, b), max(a, b)), (None, None))
    return {"jaccard": jaccard, "containment": containment}


def _text_facts(text: RemovedText) -> Facts:
    return {
        "text": text.text,
        "origin": text.origin,
        "is_whole": text.is_whole,
        "note": text.note,
    }


def _quarantine_facts(snapshot: Snapshot, row: Mapping[str, Any]) -> Facts:
    """The file, and where in it: `line`, `row`, `offset` (bytes) or `member`."""
    item = find_input(snapshot, row)
    if item is None:
        return {"file": row["uri"], "at": None, "unit": None}
    mark, at = row["uri"][len(item.uri) :][:1], row["uri"][len(item.uri) + 1 :]
    tables = (*READER_ENDINGS["parquet"], *READER_ENDINGS["arrow"])
    is_table = inner_ending(item.uri) in tables
    unit = {":": "line", "!": "member", "#": "row" if is_table else "offset"}.get(mark)
    return {"file": item.uri, "at": at or None, "unit": unit, "num_bytes": item.num_bytes}


def _cluster_facts(cluster: Cluster, now: Mapping[str, Mapping[str, Any]]) -> Facts:
    """Members in the order in which they are read: each kept document, and below it what it stands for."""
    keys = ("id", "uri", "source", "fate", "rule", "similarity", "duplicate_of")
    members = [{key: now[id_][key] for key in keys} for id_ in cluster.ids if id_ in now]
    edges = [
        {"id_a": a, "id_b": b, "jaccard": jaccard, "containment": containment}
        for (a, b), (jaccard, containment) in cluster.edges.items()
    ]
    limit = None if cluster.is_whole else MAX_CLUSTER
    return {
        "documents": len(members),
        "cut_at": limit,
        "members": in_tree(members),
        "edges": edges,
    }
