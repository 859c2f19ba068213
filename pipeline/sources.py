"""Where texts come from: what a recipe's source names, and the files found there.

Files are found in a fixed order and never through a symbolic link that leaves the named folder. What matches but cannot
be read (a pipe, a dangling link, a directory called x.jsonl) is found too, with its `problem`, and ends quarantined.
"""

import codecs
import difflib
import errno
import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.compression import ENDINGS, open_regular, read_chunks
from storage.errors import ConfigError, InputError

Reader = Literal["auto", "text", "jsonl", "csv", "parquet", "arrow", "warc", "html", "code"]

# fmt: off
READER_ENDINGS: dict[str, tuple[str, ...]] = {
    "text": (".txt", ".text", ".md", ".markdown", ".rst"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".jsonlines"),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc", ".arrows"),
    "warc": (".warc", ".wet"),
    "html": (".html", ".htm", ".xhtml"),
    "code": (
        ".py", ".pyi", ".pyx", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".cu", ".java", ".kt", ".scala",
        ".groovy", ".go", ".rs", ".zig", ".nim", ".d", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".rb",
        ".php", ".pl", ".pm", ".lua", ".tcl", ".sh", ".bash", ".zsh", ".ps1", ".r", ".jl", ".m", ".mm", ".swift",
        ".dart", ".cs", ".fs", ".vb", ".hs", ".ml", ".mli", ".clj", ".ex", ".exs", ".erl", ".el", ".lisp", ".scm",
        ".sql", ".f", ".f90", ".pas", ".v", ".sv", ".vhd", ".asm", ".s", ".cmake", ".proto", ".toml", ".yaml", ".yml",
    ),
}
# fmt: on
"""Endings, before those of compression, by which a file's reader is guessed; any other file is read as text."""

_NOT_SOURCES = frozenset(
    {"node_modules", "vendor", "third_party", "site-packages", "__pycache__", "build", "dist"}
)
"""Folders of a source tree that hold other people's code or products of the build; the code reader leaves them out."""

_TEXT_FIELD_READERS = ("auto", "jsonl", "csv", "parquet", "arrow")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One place that texts come from."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    path: str
    """File, folder or glob (`**` for folders of any depth), relative to the recipe. In a folder, hidden files are left out."""
    name: str = ""
    """Name of the source in reports and documents; by default made from the path."""
    reader: Reader = "auto"
    """How to read the files; `auto` goes by each file's ending and first bytes."""
    domain: str = ""
    """Kind of text: web, books, poetry, code, science, ... It chooses the quality profile. Default: code for the reader
    `code`, else web."""
    license: str = "unknown"
    """Licence of the texts, where a record does not name its own."""
    text_field: str = "text"
    """Field or column that holds the text (JSONL, CSV, Parquet, Arrow)."""
    license_field: str = "license"
    """Field or column that holds a record's licence, if it is there (JSONL, CSV, Parquet, Arrow)."""
    domain_field: str = ""
    """Field or column that holds a record's domain; empty: the source's domain for all."""
    encoding: str = "utf-8"
    """Encoding of text, code, JSONL and CSV files without a byte order mark; HTML says its own."""
    split_bytes: int = 0
    """Cut a text file into documents of at least this many bytes, at blank lines; 0 keeps a file one document."""

    def __post_init__(self) -> None:
        where = f"sources: path = {self.path!r}"
        if not self.path.strip():
            raise ConfigError(
                "sources: expected `path` to name a file, a folder or a glob, got an empty string"
            )
        if "\0" in self.path:
            raise ConfigError(f"{where}: expected a path, got one with a NUL character in it")
        if "://" in self.path:
            raise ConfigError(
                f"{where}: expected a local path, got a URL; download the files first"
            )
        if not self.name:
            object.__setattr__(self, "name", _name_from(self.path))
        if not self.domain:
            object.__setattr__(self, "domain", "code" if self.reader == "code" else "web")
        if not is_domain(self.domain):
            raise ConfigError(
                f"{where}: expected `domain` of lower-case letters, digits, - and _ (at most 64), got {self.domain!r}"
            )
        if not self.text_field:
            raise ConfigError(
                f"{where}: expected `text_field` to name a field, got an empty string"
            )
        for field, default in (
            ("text_field", "text"),
            ("license_field", "license"),
            ("domain_field", ""),
        ):
            if self.reader not in _TEXT_FIELD_READERS and getattr(self, field) != default:
                raise ConfigError(
                    f"{where}: `{field}` has no effect with reader = {self.reader!r}; take it out"
                )
        try:
            "".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"{where}: expected `encoding` to be a text encoding that Python knows, such as utf-8, latin-1 or "
                f"cp1252, got {self.encoding!r}"
            ) from error
        if self.encoding != "utf-8" and self.reader in ("parquet", "arrow", "warc", "html"):
            raise ConfigError(
                f"{where}: `encoding` has no effect with reader = {self.reader!r}; take it out"
            )
        if self.split_bytes < 0:
            raise ConfigError(
                f"{where}: expected `split_bytes` of at least 0, got {self.split_bytes}"
            )
        if self.split_bytes and self.reader not in ("auto", "text"):
            raise ConfigError(
                f"{where}: `split_bytes` has no effect with reader = {self.reader!r}; take it out"
            )


@dataclass(frozen=True, kw_only=True)
class FoundInput:
    """One file of a source, or one thing in its place that cannot be read."""

    source: str
    """Name of the source."""
    uri: str
    """Path relative to the recipe, with /; bytes that are no text and control characters are written %XX."""
    path: Path
    num_bytes: int
    problem: str = ""
    """Why it cannot be read, one snake_case word; empty for a file to read."""
    detail: str = ""
    """The problem in words."""


def is_domain(name: str) -> bool:
    """Whether a domain may be called this."""
    return re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name) is not None


def find_inputs(source: SourceConfig, root: Path) -> list[FoundInput]:
    """Find the files of a source, sorted by uri; `root` is the folder that relative paths start from.

    A path that exists is taken literally, also with glob characters in it. Of a folder, a named reader takes the files
    with its own endings, `auto` takes all; hidden files and folders are left out, links out of the tree are not
    followed. Raises InputError if nothing matches.
    """
    start = root / source.path
    kind = _kind(start)
    if kind == "directory":
        base, paths = start, list(_walk(start, source))
    elif kind == "missing":
        base, paths = _match(source.path, root)
    else:
        # Named in full, so a link is followed wherever it leads.
        return [_found(start, source, root, None)]
    inputs = [_found(path, source, root, base.resolve()) for path in paths]
    if not inputs:
        raise InputError(_nothing_found(source, root, kind))
    return sorted(inputs, key=lambda found: (found.uri, os.fsencode(found.path)))


def fingerprint(path: Path) -> str:
    """Give the blake2b-128 of a file's raw bytes as 32 hex digits. Raises InputError if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_regular(path) as file:
            for chunk in read_chunks(file):
                digest.update(chunk)
    except OSError as error:
        raise InputError(
            f"{show_path(path)}: expected a readable file, got: {error.strerror or error}"
        ) from error
    return digest.hexdigest()


def show_path(path: Path | str) -> str:
    """Give a path as text that is safe to print: control characters and undecodable bytes as %XX, / for folders."""
    text = path.as_posix() if isinstance(path, Path) else path
    if text.isascii() and text.isprintable() and "%" not in text:
        return text
    # A % that would read as an escape is escaped too, so that two names never look the same.
    text = re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", text)
    return "".join(
        c if c.isprintable() else "".join(f"%{b:02X}" for b in c.encode("utf-8", "surrogateescape"))
        for c in text
    )


def inner_ending(name: str) -> str:
    """Give a file name's ending before that of its compression, in lower case: .jsonl of x.jsonl.gz."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in ENDINGS else path.suffix


def _name_from(path: str) -> str:
    fixed = [
        part for part in Path(path).parts if not _is_pattern(part) and part not in ("/", "..", ".")
    ]
    name = fixed[-1] if fixed else "source"
    for _ in range(2):
        suffix = Path(name.lower()).suffix
        if suffix in ENDINGS or any(suffix in endings for endings in READER_ENDINGS.values()):
            name = Path(name).stem
    return show_path(name) or "source"


def _is_pattern(part: str) -> bool:
    return any(c in part for c in "*?[")


def _kind(path: Path) -> str:
    """What a path leads to, links followed."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "symlink_loop"
        if path.is_symlink():
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


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


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


def _match(pattern: str, root: Path) -> tuple[Path, list[Path]]:
    """Give (folder before the first wildcard, paths that match the glob)."""
    parts = Path(pattern).parts
    first = next((i for i, part in enumerate(parts) if _is_pattern(part)), len(parts))
    base = root.joinpath(*parts[:first])
    if first == len(parts) or _kind(base) != "directory":
        return base, []
    return base, list(dict.fromkeys(_match_parts(base, parts[first:])))


def _match_parts(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    part, rest = parts[0], parts[1:]
    try:
        entries = _entries(folder)
    except OSError:
        return
    if part == "**":
        yield from _match_parts(folder, rest or ("*",))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _match_parts(folder / entry.name, parts)
        return
    for entry in entries:
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        if not fnmatch.fnmatchcase(entry.name, part):
            continue
        if rest:
            if entry.is_dir(follow_symlinks=False):
                yield from _match_parts(folder / entry.name, rest)
        else:
            yield folder / entry.name


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
    is_link = path.is_symlink()
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
    path = Path(os.path.normpath(path))
    base = Path(os.path.normpath(root))
    return show_path(path.relative_to(base) if path.is_relative_to(base) else path)


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
    for part in Path(source.path).parts:
        if _is_pattern(part) or _kind(nearest / part) == "missing":
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
