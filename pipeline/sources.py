"""The files of a source, in a fixed order, and everything in their place that cannot be read.

No symbolic link is followed out of the named folder. What matches but is no readable file (a pipe, a dangling link, a
directory called x.jsonl) is found too, with its `problem`, and ends quarantined.
"""

import difflib
import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from pipeline.compression import open_regular
from pipeline.source_config import READER_ENDINGS, SourceConfig, inner_ending, is_pattern, show_path
from storage.disk import raise_for_machine
from storage.errors import InputError

_NOT_SOURCES = frozenset(
    {"node_modules", "vendor", "third_party", "site-packages", "__pycache__", "build", "dist"}
)
"""Folders of a source tree that hold other people's code or products of the build; the code reader leaves them out."""


@dataclass(frozen=True, kw_only=True)
class FoundInput:
    """One file of a source, or one thing in its place that cannot be read."""

    source: str
    """Name of the source."""
    uri: str
    """Path relative to the recipe's folder, absolute if it lies elsewhere, with /; bytes that are not UTF-8 and control
    characters are written %XX, whatever the locale."""
    path: Path
    num_bytes: int
    problem: str = ""
    """Why it cannot be read, one snake_case word; empty for a file to read."""
    detail: str = ""
    """The problem in words."""


def find_inputs(source: SourceConfig, root: Path) -> list[FoundInput]:
    """Find the files of a source, sorted by uri; `root` is the folder that relative paths start from.

    A path that exists is taken literally, also with glob characters in it. Of a folder, a named reader takes the files
    with its own endings, `auto` takes all; hidden files and folders are left out, links out of the tree are not
    followed. Raises InputError if nothing matches.
    """
    root = _plain(root)
    source = replace(source, path=canonical_path(source.path, root))
    start = root / to_os(source.path)
    kind = _kind(start)
    if kind == "directory":
        base, paths = start, list(_walk(start, source))
    elif kind == "missing":
        base, paths = _match(source, root)
    else:
        # Named in full, so a link is followed wherever it leads.
        return [_found(start, source, root, None)]
    real = base.resolve()
    inputs = [_found(path, source, root, real) for path in paths]
    if not inputs:
        raise InputError(_nothing_found(source, root, kind))
    return sorted(inputs, key=lambda found: (found.uri, os.fsencode(found.path)))


def canonical_path(path: str, root: Path) -> str:
    """One spelling of a recipe's path: relative to the recipe's folder `root` if it lies there, else absolute.

    `./x`, `x/`, `x//y`, `x/../x`, `~/x`, `file:///x` and links above the recipe's folder make no difference.
    """
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://").removeprefix("localhost"))
    root = _plain(root)
    start = root / (Path(to_os(path)).expanduser() if path.startswith("~/") else to_os(path))
    parts = start.parts
    end = len(parts)
    if _kind(start) == "missing":  # what exists is no pattern
        end = next((i for i, part in enumerate(parts) if is_pattern(part)), end)
    fixed, rest = Path(*parts[:end]), parts[end:]
    for file, folder in ((_plain(fixed), root), (_real(fixed), _real(root))):
        if file.is_relative_to(folder):
            return from_os(str(file.relative_to(folder).joinpath(*rest)))
    return from_os(str(_plain(fixed).joinpath(*rest)))


def _plain(path: Path) -> Path:
    """The absolute path without `x/..`, unless x is a link: then it leads elsewhere, and all links are resolved."""
    plain = Path(os.path.normpath(path.absolute()))
    return plain if _real(plain) == _real(path) else _real(path)


def _real(path: Path) -> Path:
    return Path(
        os.path.realpath(path)
    )  # unlike Path.resolve, never raises, not even for a loop of links


def other_spellings(found: FoundInput) -> set[str]:
    """Uris by which earlier versions named the same file: its absolute path, or one relative to where they ran."""
    path = os.path.normpath(found.path)
    return {_show(path), _show(str(_real(found.path))), _show(os.path.relpath(path))}


def from_os(name: str) -> str:
    """A name from the operating system as UTF-8 text; under another locale Python decodes its bytes in another way."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def to_os(name: str) -> str:
    """A name in UTF-8 text as the operating system's functions take it: the inverse of `from_os`."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def fingerprint(path: Path, num_bytes: int | None = None) -> str:
    """The blake2b-128 of a file's raw bytes, or of its first `num_bytes`, as 32 hex digits.

    Raises InputError if it cannot be read.
    """
    try:
        with open_regular(path, num_bytes) as file:
            return file.fingerprint()
    except OSError as error:
        raise_for_machine(error, show_path(path))
        raise InputError(
            f"{show_path(path)}: expected a readable file, got: {error.strerror or error}"
        ) from error


def _kind(path: Path) -> str:
    """What a path leads to, links followed."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "symlink_loop"
        if _is_link(path):
            return "dangling_link"
        return (
            "missing"
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
            else "unreadable"
        )
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "pipe" if stat.S_ISFIFO(mode) else "device" if not stat.S_ISSOCK(mode) else "socket"


def _is_link(path: Path) -> bool:
    try:
        return stat.S_ISLNK(path.lstat().st_mode)
    except OSError:  # Path.is_symlink raises where a folder above may not be searched
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise_for_machine(error, show_path(folder))
        raise


def _walk(folder: Path, source: SourceConfig) -> Iterator[Path]:
    """What lies below a folder and belongs to the source, at any depth."""
    base = folder.resolve()
    todo = [folder]
    while todo:
        here = todo.pop()
        try:
            entries = _entries(here)
        except OSError:
            yield here  # cannot be listed: reported
            continue
        below = []
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if source.reader != "code" or entry.name not in _NOT_SOURCES:
                    below.append(path)
            elif entry.is_symlink() and _kind(path) == "directory":
                # What it leads to inside the tree is found under its own name.
                if not _lies_in(path, base):
                    yield path
            elif (
                source.reader == "auto" or inner_ending(entry.name) in READER_ENDINGS[source.reader]
            ):
                yield path
        todo.extend(reversed(below))


def _match(source: SourceConfig, root: Path) -> tuple[Path, list[Path]]:
    """Give (folder before the first wildcard, paths that match the glob)."""
    parts = Path(to_os(source.path)).parts
    first = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    base = root.joinpath(*parts[:first])
    if first == len(parts) or _kind(base) != "directory":
        return base, []
    found: dict[Path, None] = {}
    # Folders to look at, each with the parts of the pattern that are left to match there.
    todo = [(base, parts[first:])]
    seen = set(todo)
    while todo:
        folder, (part, *rest) = todo.pop()
        try:
            entries = [e for e in _entries(folder) if not e.name.startswith(".") or part[0] == "."]
        except OSError:
            found[folder] = None  # cannot be listed: reported
            continue
        next_parts = []
        for entry in entries:
            path, is_folder = folder / entry.name, entry.is_dir(follow_symlinks=False)
            if part == "**":
                if is_folder and (source.reader != "code" or entry.name not in _NOT_SOURCES):
                    next_parts.append((path, (part, *rest)))
            elif not fnmatch.fnmatchcase(entry.name, part):
                continue
            elif rest:
                next_parts += [(path, tuple(rest))] if is_folder else []
            elif not (is_folder and part == "*"):  # * means the files, *.txt means this folder too
                found[path] = None
        if part == "**":
            next_parts.append((folder, tuple(rest) or ("*",)))
        todo += [item for item in next_parts if item not in seen]
        seen.update(next_parts)
    return base, list(found)


def _lies_in(path: Path, base: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(base)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, in Python 3.11 and 3.12
        return False


_PROBLEMS = {
    "directory": "expected a file, got a directory; write /** after it to read the files in it",
    "pipe": "expected a regular file, got a named pipe, which may never end",
    "socket": "expected a regular file, got a socket",
    "device": "expected a regular file, got a device, which may never end",
    "dangling_link": "expected a file, got a symbolic link to something that does not exist",
    "symlink_loop": "expected a file, got a symbolic link that leads back to itself",
    "missing": "expected a file, but it has gone since the folder was listed",
    "unreadable": "expected a readable file; the permissions of it or of its folder do not allow that",
    "outside_tree": "expected a file below the named folder, got a symbolic link that leads out of it; name its target "
    "as a source of its own to read it",
}


def _found(path: Path, source: SourceConfig, root: Path, base: Path | None) -> FoundInput:
    """Describe a path that matched; `base` is the folder that links must not lead out of, None if they may."""
    kind = _kind(path)
    is_link = _is_link(path)
    problem = "" if kind == "file" else kind
    if kind == "directory" and not is_link and not os.access(path, os.R_OK | os.X_OK):
        problem = "unreadable"
    if kind == "file" and not os.access(path, os.R_OK):
        problem = "unreadable"
    if is_link and base is not None and kind not in ("dangling_link", "symlink_loop"):
        problem = problem if _lies_in(path, base) else "outside_tree"
    return FoundInput(
        source=source.name,
        uri=_uri(path, root),
        # Links are not followed again when the file is opened: what was checked is what is read.
        path=path.resolve() if is_link and not problem else path,
        num_bytes=0 if problem else path.stat().st_size,
        problem=problem,
        detail=_PROBLEMS.get(problem, ""),
    )


def _uri(path: Path, root: Path) -> str:
    return _show(str(path).removeprefix(f"{str(root).rstrip('/')}/"))


def _show(path: str) -> str:
    return show_path(from_os(path))


def _nothing_found(source: SourceConfig, root: Path, kind: str) -> str:
    pattern = show_path(source.path)
    if kind == "directory":
        wanted = (
            "a file"
            if source.reader == "auto"
            else f"a file ending in {', '.join(READER_ENDINGS[source.reader][:6])}"
        )
        return (
            f"source '{source.name}': expected {wanted} in the folder {pattern} (below {show_path(root.resolve())}), "
            "got none; hidden files are left out"
        )
    nearest, missing = root, ""
    for part in Path(to_os(source.path)).parts:
        if is_pattern(part) or _kind(nearest / part) == "missing":
            missing = part
            break
        nearest = nearest / part
    hint = ""
    if _kind(nearest) == "directory":
        try:
            names = [entry.name for entry in _entries(nearest)]
        except OSError:
            names = []
        close = difflib.get_close_matches(missing, names, n=1, cutoff=0.6)
        if close:
            hint = f"; did you mean {show_path(close[0])}?"
        elif names:
            hint = f", which holds {', '.join(show_path(n) for n in names[:5])}{', ...' if len(names) > 5 else ''}"
        else:
            hint = ", which is empty"
    return (
        f"source '{source.name}': expected {pattern} (from {show_path(root.resolve())}) to match at least one file, got "
        f"none; the nearest thing that exists is {show_path(Path(os.path.normpath(nearest)))}{hint}"
    )
