"""Snapshots: `name@version`, immutable. A snapshot exists when its manifest does, and the manifest is written last.

The manifest is canonical JSON. What a snapshot *is* enters its hash; where and when it was made (`commit`), and how the
shards were compressed, do not: the same inputs under the same recipe have the same hash everywhere.
"""

import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import fence
from storage.errors import (
    ConfigError,
    ConflictError,
    CorruptError,
    GristmillError,
    LakeError,
    NotFoundError,
)
from storage.lake import Lake
from storage.published import after_publishing
from storage.schema import FATES_IN_ORDER, HIDES
from storage.shard import REMEDY, Shard, damaged_file, missing_file, open_shard
from storage.times import now
from storage.tombstones import (
    hidden_ids,
    join_tombstones,
    overlay_changes,
    visible_rows,
)

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

MANIFEST_FORMAT = 1
"""Version of the manifest's form; readers refuse any other."""

STATUSES = ("promoted", "quarantined")
"""A snapshot passed its gates, or did not and is kept to be looked at."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file that was read into the corpus."""

    source: str
    """Name of the recipe's source."""
    uri: str
    """File, relative to the recipe's folder if inside it."""
    num_bytes: int
    """Size."""
    fingerprint: str
    """BLAKE2b-128 of the raw bytes, 32 hex digits."""
    version: int
    """Version of the snapshot that consumed it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a snapshot is. Checked when made: raises GristmillError for what cannot be true."""

    name: str
    """The corpus."""
    version: int
    """Number in the corpus, from 1."""
    build_id: str
    """16 hex digits: hash of what was to be built; names the folder of the shards that this snapshot adds."""
    status: str
    """promoted or quarantined."""
    parent: str = ""
    """Hash of the snapshot that this one adds to, empty for the first."""
    recipe_fingerprint: str = ""
    """Hash of the recipe's sections that decide what is built."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Those sections."""
    code_version: str = ""
    """Version of gristmill that built it."""
    shards: tuple[Shard, ...] = ()
    """All shards of the corpus: the parent's and the new ones."""
    inputs: tuple[Input, ...] = ()
    """All files ever consumed."""
    tokenizer: dict[str, Any] | None = None
    """path and checksum (SHA-256) of the model file, vocab_size, ..."""
    funnel: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each domain of what this snapshot read: documents read, and of each fate."""
    gates: list[dict[str, Any]] = field(default_factory=list)
    """name, value, limit, passed and detail of each gate."""
    summary: dict[str, Any] = field(default_factory=dict)
    """What the pipeline tells of the corpus: domains, rules, lengths, tokens, mix, ..."""
    commit: dict[str, Any] = field(default_factory=dict)
    """id, created_at, host, pid, seconds: where and when; no part of the hash."""
    format: int = MANIFEST_FORMAT
    """Version of the manifest's form."""

    def __post_init__(self) -> None:
        check_name(self.name)
        where = f"{self.name}@{self.version}"
        if self.format != MANIFEST_FORMAT:
            raise GristmillError(
                f"{where}: expected a manifest of format {MANIFEST_FORMAT}, got {self.format}"
            )
        if self.version < 1:
            raise GristmillError(f"{where}: expected a version from 1")
        if self.status not in STATUSES:
            raise GristmillError(
                f"{where}: expected the status {' or '.join(STATUSES)}, got {self.status!r}"
            )
        for key in ("recipe", "tokenizer", "funnel", "gates", "summary", "commit"):
            object.__setattr__(self, key, _plain(getattr(self, key), f"{where}: {key}"))
        check_funnel(self.funnel, where)
        if self.tokenizer is not None and not {"path", "checksum"} <= self.tokenizer.keys():
            raise GristmillError(
                f"{where}: tokenizer: expected path and checksum, got {self.tokenizer}"
            )
        paths = [shard.path for shard in self.shards]
        if len(set(paths)) != len(paths):
            raise GristmillError(f"{where}: expected each shard once, got some twice")
        if any(not 1 <= item.version <= self.version for item in (*self.shards, *self.inputs)):
            raise GristmillError(
                f"{where}: expected shards and inputs of versions 1 to {self.version}"
            )

    @property
    def ref(self) -> str:
        """name@version."""
        return f"{self.name}@{self.version}"

    @property
    def folder(self) -> str:
        """Name of the folder of the files that this snapshot adds; see `storage/fence.py`."""
        folders = map(fence.folder_of, self.paths())
        mine = (folder for folder in folders if folder.split("-")[0] == self.build_id)
        return next(mine, self.build_id)

    def paths(self) -> list[str]:
        """Every file that it needs, relative to the lake: its shards, sorted, and the tokenizer."""
        tokenizer = [self.tokenizer["path"]] if self.tokenizer else []
        return [*sorted(shard.path for shard in self.shards), *tokenizer]

    def hash(self) -> str:
        """BLAKE2b-256 (64 hex digits) of everything but `commit` and the shards' sizes and file checksums.

        Nor does it matter in which place a build began again after `gc` had removed its files.
        """
        return self._hash

    @functools.cached_property
    def _hash(self) -> str:
        body = self._body()
        del body["commit"]
        for shard in body["shards"]:
            del shard["num_bytes"], shard["checksum"]
            shard["path"] = fence.as_first_built(shard["path"])
        if body["tokenizer"]:
            body["tokenizer"]["path"] = fence.as_first_built(body["tokenizer"]["path"])
        return hashlib.blake2b(_canonical(body), digest_size=32).hexdigest()

    def _body(self) -> dict[str, Any]:
        """The fields; shards and inputs as dicts of their own, without the copy of each value that `asdict` makes."""
        body = {item.name: getattr(self, item.name) for item in fields(self)}
        return body | {
            name: [vars(item).copy() for item in body[name]] for name in ("shards", "inputs")
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values, with `hash`."""
        return _plain(self._body(), self.ref) | {"hash": self.hash()}

    def to_json(self) -> bytes:
        """The file's bytes: canonical JSON with `hash`, and a `checksum` over all the rest."""
        body = self.to_dict()
        return _canonical(body | {"checksum": _checksum(body)})

    @classmethod
    def from_json(cls, data: bytes, where: str = "manifest") -> "Manifest":
        """Read what `to_json` wrote. Raises CorruptError, naming `where`, unless every byte is as it was."""
        try:
            body = json.loads(data)
            expected, format_ = body.pop("checksum"), body["format"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptError(
                f"{where}: expected a manifest in JSON with its checksum, got {len(data)} bytes "
                f"beginning with {data[:40]!r}; {REMEDY}"
            ) from error
        if format_ != MANIFEST_FORMAT:
            raise CorruptError(
                f"{where}: expected a manifest of format {MANIFEST_FORMAT}, got {format_!r}; if a newer gristmill "
                f"wrote it, upgrade; otherwise {REMEDY}"
            )
        if (found := _checksum(body)) != expected:
            raise damaged_file(where, str(expected), found)
        try:
            hash_ = body.pop("hash")
            body["shards"] = tuple(Shard(**shard) for shard in body["shards"])
            body["inputs"] = tuple(Input(**item) for item in body["inputs"])
            manifest = cls(**body)
        except (TypeError, KeyError, GristmillError) as error:
            raise CorruptError(
                f"{where}: expected a sound manifest, got: {error}; {REMEDY}"
            ) from error
        if (found := manifest.hash()) != hash_:
            raise CorruptError(
                f"{where}: expected a manifest with hash {hash_}, got {found}; {REMEDY}"
            )
        return manifest


def is_name(name: str) -> bool:
    """Whether a corpus or run may have the name: it can name a folder everywhere, and stand before '@'."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


def check_name(name: str) -> str:
    """The name, if a corpus or run may have it; raises ConfigError if not."""
    if not is_name(name):
        raise ConfigError(
            "name: expected 1 to 100 letters, digits, dots, dashes or underscores, the first a letter or digit; got "
            f"{name!r}"
        )
    return name


def check_funnel(funnel: Mapping[str, Mapping[str, int]], where: str) -> None:
    """Raise GristmillError unless in every domain, and so in all, each document that was read has one fate."""
    expected = {"read", *FATES_IN_ORDER}
    for domain, counts in funnel.items():
        if set(counts) != expected or any(type(n) is not int or n < 0 for n in counts.values()):
            raise GristmillError(
                f"{where}: funnel of '{domain}': expected counts of {', '.join(sorted(expected))}; got {dict(counts)}"
            )
        total = sum(counts[fate] for fate in FATES_IN_ORDER)
        if total != counts["read"]:
            raise GristmillError(
                f"{where}: funnel of '{domain}': expected the fates of {counts['read']} documents that were read, got "
                f"{total}: {dict(counts)}; this is a bug of gristmill, nothing was published"
            )


def manifest_path(name: str, version: int) -> str:
    """File of a manifest; that it exists is what makes the snapshot exist."""
    return f"corpora/{check_name(name)}/snapshots/{version:06}.json"


def commit_snapshot(lake: Lake, manifest: Manifest) -> Manifest:
    """Publish a snapshot: put its manifest if there is none of its version. Returns the manifest that is there now.

    `commit` gets an id, and time, host and pid where they are missing. If another process has meanwhile published the
    very same snapshot (equal hash), that one is returned. Raises ConflictError if it published another one, and
    LakeError if a shard is missing or the version before is. Once it is published, nothing is raised.
    """
    name, version = manifest.name, manifest.version
    announcement = fence.announce(lake, name, version, manifest.folder)

    def withdraw() -> None:
        with after_publishing("removing the announcement of a commit", "'gristmill gc' does it"):
            lake.delete(announcement)

    try:
        fence.check_not_condemned(lake, name, manifest.folder)
        _check_files(lake, manifest)
    except GristmillError:
        withdraw()
        raise
    here = {
        "created_at": now(),
        "host": os.uname().nodename,
        "pid": os.getpid(),
    }
    manifest = replace(manifest, commit=here | manifest.commit | {"id": os.urandom(16).hex()})
    path = manifest_path(name, version)
    # A build that goes on takes over files of one that was killed, maybe before it had synced their folder.
    new = [shard.path for shard in manifest.shards if shard.version == version]
    lake.sync_names([*new, *([manifest.tokenizer["path"]] if manifest.tokenizer else []), path])
    try:
        # If this fails without saying that it was not done, the announcement stays: it may be done yet.
        lake.commit_bytes(path, manifest.to_json(), manifest.commit["id"])
    except ConflictError:
        withdraw()
        winner = Manifest.from_json(lake.read_bytes(path), lake.where(path))
        if winner.hash() != manifest.hash():
            raise
        logger.info("%s was published by another process meanwhile, the very same", manifest.ref)
        return winner
    if lake.exists(fence.dropped_path(name, version)):
        # Another process published this version and a purge has dropped it, all since we looked.
        lake.delete(path)
        withdraw()
        raise ConflictError(
            f"{manifest.ref}: expected a version that was never there, but another process published and dropped it "
            "meanwhile; run the same command again"
        )
    withdraw()
    logger.info("published %s (%s), hash %s", manifest.ref, manifest.status, manifest.hash())
    return manifest


def _check_files(lake: Lake, manifest: Manifest) -> None:
    """A manifest is the proof that its files are there, so look before it is written."""
    sizes = {
        entry.path: entry.num_bytes
        for folder in sorted({shard.path.rsplit("/", 1)[0] for shard in manifest.shards})
        for entry in lake.list(folder)
    }
    for shard in manifest.shards:
        if sizes.get(shard.path) != shard.num_bytes:
            found = sizes.get(shard.path, "none")
            remedy = REMEDY
            if shard.version == manifest.version:  # those of the build, which knows it as finished
                folders = (
                    lake.where(f"corpora/{manifest.name}/{part}/{manifest.folder}")
                    for part in ("work", "data")
                )
                remedy = f"remove {' and '.join(folders)}, then run the same command again"
            raise LakeError(
                f"{lake.where(shard.path)}: expected a shard of {shard.num_bytes} bytes, got {found}; nothing was "
                f"published: {remedy}"
            )
    if manifest.tokenizer and not lake.exists(manifest.tokenizer["path"]):
        raise missing_file(lake.where(manifest.tokenizer["path"]))
    before = manifest.version - 1
    if before and not (
        lake.exists(manifest_path(manifest.name, before))
        or lake.exists(fence.dropped_path(manifest.name, before))
    ):
        raise ConflictError(
            f"{manifest.ref}: expected version {manifest.version - 1} to exist, it does not; run the same command again"
        )


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot: its manifest and the lake that holds its shards."""

    lake: Lake
    manifest: Manifest

    @property
    def ref(self) -> str:
        """name@version."""
        return self.manifest.ref

    @functools.cached_property
    def hash(self) -> str:
        """What it is, in 64 hex digits."""
        return self.manifest.hash()

    def shards(
        self, kind: str, *, split: str | None = None, version: int | None = None
    ) -> list[Shard]:
        """Shards of a kind in the manifest's order; of one split, or written by one version, if asked for."""
        return [
            shard
            for shard in self.manifest.shards
            if shard.kind == kind
            and split in (None, shard.split)
            and version in (None, shard.version)
        ]

    def open(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a shard that count: all but those that tombstones hide; see `open_shard`.

        Where nothing is hidden, that is the shard itself, over its memory map.
        """
        table = self.open_whole(shard, columns)
        visible = self.visible(shard, table if columns is None or "id" in columns else None)
        return table if visible is None else table.filter(visible)

    def open_whole(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard's table as it was written, hidden rows too; see `open_shard`."""
        return open_shard(self.lake, shard, columns)

    def visible(self, shard: Shard, table: pa.Table | None = None) -> pa.BooleanArray | None:
        """Which rows of a shard count, None for all of them. `table` is the shard as it was written, if it is at hand."""
        hidden = self._hidden.get(shard.version) if shard.kind in HIDES else None
        if hidden is None:
            return None
        return visible_rows(self.open_whole(shard, ["id"]) if table is None else table, hidden)

    def hides(self, shard: Shard, id_: str) -> bool:
        """Whether a tombstone hides a document's row, if there is one, in a shard."""
        hidden = self._hidden.get(shard.version) if shard.kind in HIDES else None
        return hidden is not None and pc.index(hidden, id_).as_py() >= 0

    def documents(self) -> Iterator[pa.Table]:
        """The kept documents, one table a shard."""
        return map(self.open, self.shards("documents"))

    def fates(self) -> Iterator[pa.Table]:
        """What became of every document that was ever read, as it holds now; one table a shard, a row a document."""
        changes = [self.open(shard) for shard in self.shards("changes")]
        return overlay_changes(map(self.open, self.shards("fates")), changes)

    @functools.cached_property
    def tombstones(self) -> pa.Table:
        """TOMBSTONES of the snapshot and those before it, the oldest first, each with its `version`."""
        shards = self.shards("tombstones")
        return join_tombstones((shard.version, self.open_whole(shard)) for shard in shards)

    def forgotten(self) -> pa.Table:
        """TOMBSTONES of the documents that were forgotten: neither they nor their texts are taken in again."""
        return self.tombstones.filter(pc.equal(self.tombstones["reason"], "forgotten"))

    @functools.cached_property
    def _hidden(self) -> dict[int, pa.Array]:
        versions = {shard.version for shard in self.manifest.shards}
        return hidden_ids(self.tombstones, sorted(versions))

    def tokenizer_bytes(self) -> bytes:
        """The SentencePiece model. Raises CorruptError unless its checksum is right, NotFoundError without one."""
        tokenizer = self.manifest.tokenizer
        if tokenizer is None:
            raise NotFoundError(f"{self.ref}: expected a tokenizer, the snapshot has none")
        where = self.lake.where(tokenizer["path"])
        try:
            data = self.lake.read_bytes(tokenizer["path"])
        except NotFoundError as error:
            raise missing_file(where) from error
        if (found := hashlib.sha256(data).hexdigest()) != tokenizer["checksum"]:
            raise damaged_file(where, tokenizer["checksum"], found)
        return data

    def as_hf(self, kind: str = "documents", *, split: str | None = None) -> "datasets.Dataset":
        """A `datasets.Dataset` over the shards' own memory, without a copy and without the `datasets` cache.

        Raises NotFoundError if the snapshot has no shards of the kind.
        """
        import datasets  # half a second and much memory, for those who ask for it
        from datasets.table import InMemoryTable

        shards = self.shards(kind, split=split)
        if not shards:
            kinds = sorted({shard.kind for shard in self.manifest.shards})
            raise NotFoundError(
                f"{self.ref}: expected shards of kind {kind!r}, it has {', '.join(kinds) or 'none'}"
            )
        table = InMemoryTable(pa.concat_tables(map(self.open, shards)))
        # Without a fingerprint, datasets would pickle the whole table to find one.
        what = f"{self.hash} {kind} {split}".encode()
        return datasets.Dataset(table, fingerprint=hashlib.blake2b(what, digest_size=8).hexdigest())


def _canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces; floats in their shortest exact form. Equal values, equal bytes."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )
    return text.encode()


def _plain(value: Any, where: str) -> Any:
    """A copy in plain JSON values: what reading it back will give."""
    try:
        return json.loads(_canonical(value))
    except (TypeError, ValueError) as error:
        raise GristmillError(
            f"{where}: expected text, finite numbers, lists and dicts; {error}"
        ) from error


def _checksum(body: Any) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()
