"""Commits against collection: a file goes only if no snapshot names it, and none can come to.

Locks hold among the processes of one machine; two machines that share a lake meet in these files alone, by steps of
which each is whole (a put, a delete, a list):

    commit                                       gc
    1. announce: version and folder of its files 1. condemn the folder, for good
    2. stop if the folder is condemned           2. spare it if an announced commit is still open
    3. look whether all files are there          3. spare it if a snapshot names one of its files
    4. put the manifest, if absent               4. delete
    5. stop if the version was dropped
    6. withdraw the announcement

Each writes before it reads, so at least one of the two sees the other, whatever the order; no clock decides. A condemned
folder is never used again: the next build of the same inputs takes FOLDER-1, and its snapshot has the same hash. What a
killed process leaves hinders no one: an announcement is closed once its version exists, which only the winner of that
version can have made; until then its files stay.
"""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import ConflictError, GristmillError, NotFoundError
from storage.lake import Lake
from storage.seal import sealed, unsealed


def dropped_path(name: str, version: int) -> str:
    """The record that a snapshot was dropped. That it exists is what ends the snapshot; its version is never reused."""
    return f"corpora/{name}/dropped/{version:06}.json"


def build_folder(lake: Lake, name: str, build_id: str) -> str:
    """Name of the folder for a build's files: `build_id`, or the first of `build_id`-1, -2, ... not condemned."""
    folders = itertools.chain([build_id], (f"{build_id}-{n}" for n in itertools.count(1)))
    return next(folder for folder in folders if not lake.exists(_condemned(name, folder)))


def as_first_built(path: str) -> str:
    """The path as it is without any collection: what enters a snapshot's hash."""
    return re.sub(r"^(corpora/[^/]+/data/[^/-]+)-[0-9]+/", r"\1/", path)


def folder_of(path: str) -> str:
    """The build folder that a path in a lake lies in; empty if in none."""
    found = re.match(r"corpora/[^/]+/(?:data|work)/([^/]+)/", path)
    return found[1] if found else ""


def condemn(lake: Lake, name: str, folder: str) -> None:
    """Rule out that a snapshot is ever published from the folder, unless its commit is announced already."""
    body = {"folder": folder, "host": os.uname().nodename, "pid": os.getpid()}
    lake.create_bytes(_condemned(name, folder), sealed(body))


def check_not_condemned(lake: Lake, name: str, folder: str) -> None:
    """Raise ConflictError if gc has condemned the folder."""
    if lake.exists(_condemned(name, folder)):
        raise ConflictError(
            f"{lake.where(f'corpora/{name}/data/{folder}')}: expected the files of this build, but 'gristmill gc' has "
            "removed them meanwhile, because nothing had been written there for long; nothing was published: run the "
            "same command again, and it begins from the start"
        )


@contextmanager
def explains_collection(lake: Lake, name: str, folder: str) -> Iterator[None]:
    """Raise ConflictError in place of an error during the block if its cause is that gc has removed the files."""
    try:
        yield
    except GristmillError:
        check_not_condemned(lake, name, folder)
        raise


def announce(lake: Lake, name: str, version: int, folder: str) -> str:
    """Say that a manifest of that version, with files in the folder, may be put from now on; returns what to withdraw."""
    path = f"{_announced(name)}/{version:06}-{os.urandom(8).hex()}.json"
    lake.write_bytes(path, sealed({"version": version, "folder": folder}))
    return path


def announcements(lake: Lake, name: str) -> dict[str, tuple[int, str]]:
    """Path -> (version, folder) of all announced commits."""
    found = {}
    for entry in lake.list(_announced(name)):
        try:
            data = lake.read_bytes(entry.path)
        except NotFoundError:  # withdrawn since it was listed
            continue
        remedy = "if no build is at work, remove the file"
        body = unsealed(data, lake.where(entry.path), remedy)
        found[entry.path] = (body["version"], body["folder"])
    return found


def _announced(name: str) -> str:
    return f"corpora/{name}/announced"


def _condemned(name: str, folder: str) -> str:
    return f"corpora/{name}/condemned/{folder}.json"
