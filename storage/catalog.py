"""The catalog: what a lake holds, found by looking. References, verification, and collection of unreachable files."""

import difflib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from storage import fence
from storage.disk import is_temporary
from storage.errors import BusyError, ConfigError, CorruptError, LakeError, NotFoundError
from storage.fence import dropped_path
from storage.lake import Entry, Lake
from storage.seal import unsealed
from storage.shard import damaged_file, missing_file
from storage.snapshot import Manifest, Snapshot, is_name, manifest_path

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None, str], None]
"""Told what is being done, how much is done, of how much, in which unit."""


def list_corpora(lake: Lake) -> list[str]:
    """Names of the corpora with at least one snapshot, sorted."""
    return [name for name in _corpora(lake) if versions(lake, name)]


def _corpora(lake: Lake) -> list[str]:
    """Folders of corpora, also of those that have no snapshot yet."""
    return [name for name in lake.list_folders("corpora") if is_name(name)]


def versions(lake: Lake, name: str) -> list[int]:
    """Versions of a corpus that exist, ascending; empty if there is no such corpus."""
    found = _numbered(lake, manifest_path(name, 1))
    return sorted(set(found) - set(_numbered(lake, dropped_path(name, 1)))) if found else []


def _numbered(lake: Lake, first: str) -> list[int]:
    """The numbers of the files that are named as `first`, which is the one of number 1; ascending."""
    folder = first.rsplit("/", 1)[0]
    found = (re.fullmatch(r"([0-9]+)\.json", e.path[len(folder) + 1 :]) for e in lake.list(folder))
    return sorted(
        int(match[1]) for match in found if match and f"{int(match[1]):06}.json" == match[0]
    )


def read_manifest(lake: Lake, name: str, version: int) -> Manifest:
    """The manifest of a snapshot. Raises NotFoundError, or CorruptError if it is damaged."""
    path = manifest_path(name, version)
    try:
        data = lake.read_bytes(path)
    except NotFoundError as error:
        raise NotFoundError(_was_dropped(lake, name, version) or str(error)) from error
    manifest = Manifest.from_json(data, lake.where(path))
    if (manifest.name, manifest.version) != (name, version):
        raise CorruptError(
            f"{lake.where(path)}: expected the manifest of {name}@{version}, got that of {manifest.ref}; "
            "a file was copied or renamed: put the right one back"
        )
    return manifest


def next_version(lake: Lake, name: str) -> int:
    """The version of the snapshot that a corpus gets next: above all that it has or had."""
    had = [*_numbered(lake, manifest_path(name, 1)), *_numbered(lake, dropped_path(name, 1))]
    return max(had, default=0) + 1


def dropped_versions(lake: Lake, name: str) -> dict[int, dict[str, Any]]:
    """What stands of the snapshots of a corpus that were dropped for good, by version: hash, why, paths, ..."""
    numbers = _numbered(lake, dropped_path(name, 1))
    return {number: _dropped(lake, name, number) for number in numbers}


_GOOD_COPY = "put back a good copy of the file"

_RECORDED = ("hash", "dropped_at", "why", "in_its_place", "tokenizer", "paths")


def _dropped(lake: Lake, name: str, version: int) -> dict[str, Any]:
    path = dropped_path(name, version)
    body = unsealed(lake.read_bytes(path), lake.where(path), _GOOD_COPY)
    try:
        return {key: body[key] for key in _RECORDED}
    except KeyError as error:
        raise CorruptError(
            f"{lake.where(path)}: expected a record that says why the snapshot was dropped, got none; {_GOOD_COPY}"
        ) from error


def _was_dropped(lake: Lake, name: str, version: int) -> str:
    """What to say of a snapshot that was dropped; empty if it was not."""
    if not lake.exists(dropped_path(name, version)):
        return ""
    about = _dropped(lake, name, version)
    return (
        f"{name}@{version}: expected a snapshot, but 'gristmill gc --purge' dropped it on {about['dropped_at']}: "
        f"{about['why']}; in its place there is {about['in_its_place']}, and what was trained on it can be "
        "sampled and evaluated, not trained further"
    )


def resolve(lake: Lake, ref: str) -> Snapshot:
    """The snapshot that `name`, `name@latest` (both: the newest promoted one) or `name@3` (any) refers to.

    Raises ConfigError for what is no reference, NotFoundError, saying what there is, if it refers to nothing.
    """
    name, at, wanted = ref.partition("@")
    if not re.fullmatch(r"latest|[1-9]\d*", wanted or ("" if at else "latest")):
        raise ConfigError(f"{ref}: expected a snapshot as name, name@latest or name@3, got {ref!r}")
    found = versions(lake, name)
    if not found:
        raise NotFoundError(_no_such_corpus(lake, name))
    if wanted not in ("", "latest"):
        if int(wanted) not in found:
            raise NotFoundError(
                _was_dropped(lake, name, int(wanted))
                or f"{ref}: expected one of {_refs(name, found)} in {lake}, got version {wanted}"
            )
        return Snapshot(lake, read_manifest(lake, name, int(wanted)))
    for version in reversed(found):
        manifest = read_manifest(lake, name, version)
        if manifest.status == "promoted":
            return Snapshot(lake, manifest)
    raise NotFoundError(
        f"{ref}: expected a promoted snapshot in {lake}, but none of {_refs(name, found)} passed its gates; "
        f"name one to use it all the same, or see why with 'gristmill inspect {name}@{found[-1]}'"
    )


def resolve_tokenizer(lake: Lake, ref: str) -> Snapshot:
    """A snapshot with the tokenizer of `ref`: itself, or if it was dropped, the one that came in its place.

    Raises what `resolve` raises; NotFoundError too if the one in its place has another tokenizer.
    """
    name, _, version = ref.partition("@")
    if not version.isdecimal() or not lake.exists(dropped_path(name, int(version))):
        return resolve(lake, ref)
    about = _dropped(lake, name, int(version))
    found = resolve_tokenizer(lake, about["in_its_place"])
    if (found.manifest.tokenizer or {}).get("checksum") != about["tokenizer"]:
        raise NotFoundError(_was_dropped(lake, name, int(version)))
    return found


def _no_such_corpus(lake: Lake, name: str) -> str:
    corpora = list_corpora(lake)
    if not corpora:
        return f"{name}: expected a corpus in {lake}, but it holds none yet; build one or choose another --lake"
    close = difflib.get_close_matches(name, corpora, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"{name}: expected a corpus of {lake}, which holds {', '.join(corpora)}{hint}"


def _refs(name: str, found: list[int]) -> str:
    shown = [f"{name}@{version}" for version in found[-5:]]
    return ", ".join((["..."] if len(found) > 5 else []) + shown)


def verify(lake: Lake, ref: str | None = None, progress: Progress | None = None) -> list[str]:
    """Read every file that a snapshot reaches, or all snapshots, and say what is wrong; an empty list is a sound lake.

    Checked: manifests, the chain of parents, checksums of shards and tokenizers, and that runs refer to snapshots that
    exist. A file that many snapshots share is read once.
    """
    problems: list[str] = []
    if ref is not None:
        try:
            manifests = [resolve(lake, ref).manifest]
        except CorruptError as error:
            return [str(error)]
    else:
        manifests = list(_sound_manifests(lake, problems))
        problems += _broken_references(lake)
    files = {(s.path, s.checksum): s.num_bytes for m in manifests for s in m.shards}
    files |= {(t["path"], t["checksum"]): 0 for m in manifests if (t := m.tokenizer)}
    done, total = 0, sum(files.values())
    for (path, checksum), num_bytes in sorted(files.items()):
        try:
            found, _ = lake.digest(path)
            if found != checksum:
                problems.append(str(damaged_file(lake.where(path), checksum, found)))
        except NotFoundError:
            problems.append(str(missing_file(lake.where(path))))
        except LakeError as error:
            problems.append(str(error))
        done += num_bytes
        if progress is not None:
            progress("verify", done, total, "bytes")
    return problems


def _sound_manifests(lake: Lake, problems: list[str]) -> Iterator[Manifest]:
    for name in list_corpora(lake):
        found = versions(lake, name)
        dropped = dropped_versions(lake, name)
        hashes = {"", *(about["hash"] for about in dropped.values())}
        for version in range(1, found[-1] + 1):
            if version in dropped:
                continue
            try:
                manifest = read_manifest(lake, name, version)
            except (CorruptError, NotFoundError) as error:
                problems.append(str(error))
                continue
            if manifest.parent not in hashes:
                problems.append(
                    f"{manifest.ref}: expected its parent {manifest.parent} among the versions before it, found none"
                )
            hashes.add(manifest.hash())
            yield manifest


def _broken_references(lake: Lake) -> list[str]:
    problems = []
    for run in lake.list_folders("runs"):
        try:
            name, version, expected = _snapshot_of(lake, run)
            dropped = dropped_versions(lake, name).get(version) if name else None
            if dropped is not None and dropped["hash"] == expected:
                continue
            if (
                name
                and (found := read_manifest(lake, name, version).hash()) != expected
                and expected
            ):
                problems.append(
                    f"run {run}: expected {name}@{version} with hash {expected}, got {found}: "
                    "the corpus was built again; train again or put the old one back"
                )
        except (LakeError, NotFoundError) as error:
            problems.append(f"run {run}: {error}")
    return problems


def _snapshot_of(lake: Lake, run: str) -> tuple[str, int, str]:
    """(corpus, version, hash) that a run was trained on; ("", 0, "") if it has not begun."""
    path = f"runs/{run}/run.json"
    if not lake.exists(path):
        return "", 0, ""
    data = lake.read_bytes(path)
    try:
        body = json.loads(data)
        name, _, version = body["snapshot"].partition("@")
        if not is_name(name):
            raise ValueError(f"snapshot {body['snapshot']!r}")
        return name, int(version), body.get("snapshot_hash", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError(
            f"{lake.where(path)}: expected JSON with the run's snapshot, got {data[:40]!r}; remove or repair the run"
        ) from error


def training_runs(lake: Lake) -> list[tuple[str, str, int]]:
    """Each training run that has begun, with the corpus and version it was begun on."""
    found = [(run, *_snapshot_of(lake, run)[:2]) for run in lake.list_folders("runs")]
    return [item for item in found if item[1]]


def gc(lake: Lake, *, dry_run: bool = False, min_age_s: float = 86400) -> list[Entry]:
    """Remove files that nothing reaches and that are older than `min_age_s` seconds; return them, sorted by path.

    Never touched: what a snapshot reaches, a corpus of which a run names a snapshot that is not there, a build whose
    newest file is younger than `min_age_s`, a corpus that is being built on this machine, and whatever gristmill did
    not put there. A damaged manifest or run record no longer says what it reaches: CorruptError is raised before
    anything is removed.
    """
    too_young = time.time() - min_age_s
    corpora = _corpora(lake)
    for name in corpora:
        _reachable(lake, name)  # for its errors
    runs = [_snapshot_of(lake, run) for run in lake.list_folders("runs")]
    lost = {
        name
        for name, version, _ in runs
        if name
        and not lake.exists(manifest_path(name, version))
        and not lake.exists(dropped_path(name, version))
    }

    removed = [
        entry
        for entry in lake.list("runs", temporary=True)
        if _is_leftover(entry) and entry.modified < too_young
    ]
    if not dry_run:
        delete_entries(lake, removed)
    for name in corpora:
        if name in lost:
            continue
        try:
            # A build that goes on uses its old files again, so their age says nothing while it is at work; and what
            # it has published by now must be looked up once it is done.
            lock = lake.lock(f"build-{name}", doing=f"collecting garbage in '{name}'")
            with nullcontext() if dry_run else lock:
                found = unreachable(lake, name, too_young)
                if not dry_run:
                    found = collect(lake, name, found)
        except BusyError as error:
            logger.info("%s: left alone (%s)", name, error)
            continue
        removed += found
    return sorted(removed, key=lambda entry: entry.path)


def _reachable(lake: Lake, name: str) -> set[str]:
    """Files that the snapshots of a corpus name. Raises CorruptError."""
    paths: set[str] = set()
    for manifest in (read_manifest(lake, name, version) for version in versions(lake, name)):
        paths.update(manifest.paths())
    return paths


def unreachable(lake: Lake, name: str, too_young: float) -> list[Entry]:
    """Files of a corpus that no snapshot names, of builds that did nothing since `too_young` (seconds since 1970)."""
    reachable = _reachable(lake, name)
    builds: dict[str, list[Entry]] = {}
    unreachable = []
    for entry in lake.list(f"corpora/{name}", temporary=True):
        _, _, part, *rest = entry.path.split("/")
        if part in ("data", "work") and len(rest) > 1:
            builds.setdefault(rest[0], []).append(entry)
        elif _is_leftover(entry) and entry.modified < too_young:
            unreachable.append(entry)
    for entries in builds.values():
        if max(entry.modified for entry in entries) < too_young:
            unreachable += [entry for entry in entries if entry.path not in reachable]
    closed, _ = _announced(lake, name)
    over = closed | {p for v in dropped_versions(lake, name) for p in paths_of_dropped(name, v)}
    folders = ("announced", "snapshots", "reports")
    entries = (entry for part in folders for entry in lake.list(f"corpora/{name}/{part}"))
    return unreachable + [entry for entry in entries if entry.path in over]


def paths_of_dropped(name: str, version: int) -> set[str]:
    """What goes with a snapshot that is dropped, besides the files that its manifest names."""
    pages = {f"corpora/{name}/reports/{version:06}.{ending}" for ending in ("html", "md")}
    return {manifest_path(name, version)} | pages


def collect(lake: Lake, name: str, entries: list[Entry]) -> list[Entry]:
    """Remove files that `unreachable` found, but those that a commit has come to need; return those removed.

    `storage/fence.py` says why no order of this and a commit on another machine removes a file of a snapshot.
    """
    in_use = {fence.folder_of(path) for path in _reachable(lake, name)}
    for folder in sorted({fence.folder_of(entry.path) for entry in entries} - in_use - {""}):
        fence.condemn(lake, name, folder)
    # In this order: an announcement is withdrawn only after its snapshot is there.
    _, coming = _announced(lake, name)
    reachable = _reachable(lake, name)
    goes = [e for e in entries if e.path not in reachable and fence.folder_of(e.path) not in coming]
    delete_entries(lake, goes)
    return goes


def _announced(lake: Lake, name: str) -> tuple[set[str], set[str]]:
    """(Announcements whose version is taken, so that they come to nothing any more; build folders of the others)."""
    found = fence.announcements(lake, name)
    last = next_version(lake, name) - 1
    closed = {path for path, (version, _) in found.items() if version <= last}
    return closed, {folder for path, (_, folder) in found.items() if path not in closed}


def _is_leftover(entry: Entry) -> bool:
    return is_temporary(entry.path.rsplit("/", 1)[-1])


def delete_entries(lake: Lake, entries: list[Entry]) -> None:
    """Remove files, and the folders of builds that are empty then."""
    for entry in entries:
        logger.info("removed %s (%d bytes): nothing needs it", entry.path, entry.num_bytes)
        lake.delete(entry.path)
    builds = {re.match(r"corpora/[^/]+/(data|work)/[^/]+/", entry.path) for entry in entries}
    for build in sorted(match[0] for match in builds if match):
        if not lake.list(build, temporary=True):
            lake.delete_prefix(build)
