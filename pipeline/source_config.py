"""What a recipe says of a place that texts come from: the path, and how the files there are to be read."""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.compression import ENDINGS
from storage.errors import ConfigError

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
    """Field or column that holds the text (JSONL, CSV, Parquet, Arrow); `data.text` is the field `text` in `data`."""
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
            # Not shown: there may be a password in it.
            raise ConfigError(
                "sources: expected `path` to be local, got a URL; download the files first"
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


def is_domain(name: str) -> bool:
    """Whether a domain may be called this."""
    return re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name) is not None


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
        part for part in Path(path).parts if not is_pattern(part) and part not in ("/", "..", ".")
    ]
    name = fixed[-1] if fixed else "source"
    for _ in range(2):
        suffix = Path(name.lower()).suffix
        if suffix in ENDINGS or any(suffix in endings for endings in READER_ENDINGS.values()):
            name = Path(name).stem
    return show_path(name) or "source"


def is_pattern(part: str) -> bool:
    """Whether a part of a path is to be matched, not taken as it is."""
    return any(c in part for c in "*?[")
