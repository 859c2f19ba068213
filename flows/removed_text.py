"""The text of a document that was not kept, from wherever it still is. For `gristmill why`.

A corpus stores the texts it keeps. Of what it removed it has samples, each cut to 2,000 characters; the rest still lies
in the source's files, which are read again as the build read them, if their bytes are the ones that the build saw.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from flows.document_search import Place, locate, locate_kept, read_row
from flows.recipe import shipped_recipes
from pipeline.display import size, visible
from pipeline.ingest import NewInput, document_id
from pipeline.ledger import REJECT_CHARACTERS
from pipeline.normalize import NormalizeConfig, normalize
from pipeline.pii import PiiConfig, redact
from pipeline.readers import (
    FoundInput,
    InputChangedError,
    ReadLimits,
    SourceConfig,
    find_inputs,
    fingerprint,
    read_rows,
)
from pipeline.source_config import show_path
from storage.catalog import read_manifest
from storage.errors import ConfigError, GristmillError, InputError
from storage.snapshot import Input, Snapshot

UNASKED_BYTES = 256 << 20
"""Size of an input up to which it is read again without being told where it lies: a second or two."""

Section = TypeVar("Section")


@dataclass(frozen=True)
class RemovedText:
    """What could be had of a text."""

    text: str | None
    """The text, or its beginning; None if nothing of it could be had."""
    origin: str
    """Where it comes from, in words."""
    is_whole: bool
    """Whether nothing of it is missing."""
    note: str = ""
    """Why it is not whole, or not there, and what to do about it."""


def removed_text(
    snapshot: Snapshot, fate: Mapping[str, Any], folder: Path | None, kept_in: Sequence[int] = ()
) -> RemovedText:
    """The text of a document that was dropped, quarantined or a duplicate, normalised where the build normalised it.

    `fate` is its row of fates with the `version` that wrote it, `folder` the one that paths of the recipe start from,
    `kept_in` the versions that kept it before.
    """
    version = fate["version"]
    for old in reversed(kept_in):
        if (place := locate_kept(snapshot, fate["id"], old)) is not None:
            return RemovedText(_text_at(snapshot, place), f"kept in version {old}", True)
    if (place := locate(snapshot, fate["id"], "duplicates", version=version)) is not None:
        return RemovedText(_text_at(snapshot, place), "kept in the lake", True)
    sample = None
    if (place := locate(snapshot, fate["id"], "rejects", version=version)) is not None:
        sample = _text_at(snapshot, place)
        if len(sample) < REJECT_CHARACTERS and (sample or fate["fate"] != "quarantined"):
            return RemovedText(_redacted(snapshot, fate, sample), "sample in the lake", True)
    try:
        text, origin = _read_again(snapshot, fate, folder)
        return RemovedText(_redacted(snapshot, fate, text), origin, True)
    except _NotThere as problem:
        if not sample:
            return RemovedText(None, "", False, str(problem))
        note = f"only its first {REJECT_CHARACTERS:,} characters are in the lake; {problem}"
        return RemovedText(_redacted(snapshot, fate, sample), "sample in the lake", False, note)


def _text_at(snapshot: Snapshot, place: Place) -> str:
    return read_row(snapshot, place, ["text"])["text"]


def find_input(snapshot: Snapshot, fate: Mapping[str, Any]) -> Input | None:
    """The file that a document was read from: the one whose fingerprint, with its uri, makes the document's id."""
    for item in reversed(snapshot.manifest.inputs):
        if item.source == fate["source"] and fate["uri"].startswith(item.uri):
            found = FoundInput(source=item.source, uri=item.uri, path=Path(), num_bytes=0)
            new = NewInput(found, SourceConfig(path="-"), item.fingerprint)
            if document_id(new, fate["uri"]) == fate["id"]:
                return item
    return None


class _NotThere(Exception):
    """Why a text cannot be read again, and what to do."""


def recipe_of(snapshot: Snapshot, version: int) -> dict[str, Any]:
    """The recipe by which a snapshot of the chain was built."""
    if version == snapshot.manifest.version:
        return snapshot.manifest.recipe
    try:
        return read_manifest(snapshot.lake, snapshot.manifest.name, version).recipe
    except GristmillError:
        return snapshot.manifest.recipe


def _section(type_: type[Section], values: Any) -> Section:
    try:
        return TypeAdapter(type_).validate_python(values)
    except (ValidationError, ConfigError) as error:
        raise _NotThere(
            "the recipe in the manifest is another version's, so its source cannot be read again; ask the gristmill that "
            "built it"
        ) from error


def _redacted(snapshot: Snapshot, fate: Mapping[str, Any], text: str) -> str:
    """With personal data replaced, as in what is kept; only such texts were compared, and nobody need see the rest."""
    try:
        config = _section(PiiConfig, recipe_of(snapshot, fate["version"]).get("pii", {}))
    except _NotThere:
        config = PiiConfig()
    if not config.enabled:
        return text
    domain = fate["domain"]
    kinds = [k for k in config.kinds if k != "phone" or domain not in config.no_phone_domains]
    return redact(text, kinds)[0]


def _read_again(
    snapshot: Snapshot, fate: Mapping[str, Any], folder: Path | None
) -> tuple[str, str]:
    """The text in its source, and the file's name. Raises _NotThere."""
    item = find_input(snapshot, fate)
    if item is None:
        raise _NotThere("no input in the manifest is the one that it was read from")
    shown = visible(item.uri)
    recipe = recipe_of(snapshot, item.version)
    sources = [s for s in recipe.get("sources", []) if s.get("name") == item.source]
    if not sources:
        raise _NotThere(
            f"{shown}: the recipe in the manifest has no source '{item.source}' any more"
        )
    source = _section(SourceConfig, sources[0])
    found = _find_file(snapshot, item, source, folder)
    limits = _section(ReadLimits, recipe.get("read", {}))
    try:
        rows = read_rows(found, source, limits, item.fingerprint)
        row = next((row for row in rows if row.uri == fate["uri"]), None)
    except InputChangedError as error:
        raise _NotThere(f"{shown} changes while it is read: {error}") from error
    if row is not None:
        if row.text is None:
            raise _NotThere(f"{shown}: there is no text in the record")
        if fate["fate"] == "quarantined":
            return row.text, f"{shown}, read again"
        config = _section(NormalizeConfig, recipe.get("normalize", {}))
        texts, domains = pa.array([row.text], pa.string()), pa.array([fate["domain"]], pa.string())
        return normalize(texts, domains, config, Counter())[0].as_py(), f"{shown}, read again"
    raise _NotThere(f"{shown}: the record is not found by this version of gristmill")


def _find_file(
    snapshot: Snapshot, item: Input, source: SourceConfig, folder: Path | None
) -> FoundInput:
    """The very file that was read, its bytes compared. Raises _NotThere."""
    shown = visible(item.uri)
    if folder is None and item.num_bytes > UNASKED_BYTES:
        raise _NotThere(
            f"the rest is in {shown} ({size(item.num_bytes)}); to read that again, say --recipe PATH of the recipe"
        )
    has_changed = False
    for root in _folders(snapshot, folder):
        for found in _candidates(item, source, root):
            try:
                if fingerprint(found.path) == item.fingerprint:
                    return replace(found, num_bytes=item.num_bytes)
            except InputError:
                continue
            has_changed = True
    if has_changed:
        raise _NotThere(f"{shown} has changed since it was read")
    if folder is not None:
        raise _NotThere(f"{shown} is not there, seen from {show_path(folder.absolute())}")
    raise _NotThere(
        f"the rest is in {shown}; say --recipe PATH of the recipe, from whose folder that leads there"
    )


def _folders(snapshot: Snapshot, folder: Path | None) -> Iterator[Path]:
    """Folders that the recipe's paths may start from; a wrong one does no harm, since bytes are compared."""
    if folder is not None:
        yield folder
        return
    yield Path()
    shipped = shipped_recipes().get(snapshot.manifest.name)
    if shipped is not None:
        yield shipped.parent


def _candidates(item: Input, source: SourceConfig, root: Path) -> Iterator[FoundInput]:
    """The file of that name; found as a build finds it where the name alone does not lead to a plain file."""
    path = root / item.uri
    parts = Path(item.uri).parts
    if ".." not in parts and re.fullmatch(r"[ -~]+", item.uri) and "%" not in item.uri:
        try:
            # A link may lead anywhere by now; only a build's own search says whether it may be followed.
            if path.is_file() and not any(p.is_symlink() for p in _below(path, root)):
                yield FoundInput(
                    source=item.source, uri=item.uri, path=path, num_bytes=item.num_bytes
                )
                return
        except OSError:
            return
    try:
        wanted = [found for found in find_inputs(source, root) if found.uri == item.uri]
    except GristmillError:
        return
    yield from (replace(found, source=item.source) for found in wanted if not found.problem)


def _below(path: Path, root: Path) -> Iterator[Path]:
    """A path and its parents up to the root, without it."""
    while path not in (root, path.parent):
        yield path
        path = path.parent
