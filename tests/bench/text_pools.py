"""Pieces of real text, of which `near_duplicate_corpus.py` makes documents: what is shipped, and what is installed."""

import json
import lzma
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import zstandard

POOL_BYTES = 40_000_000
"""Of prose, and of code, at most."""

_SHIPPED = Path(__file__).parents[2] / "flows/recipes/quickstart"
_WORD = re.compile(r"\w+")
_UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f]")


@dataclass(frozen=True)
class Pool:
    """Pieces of real text, all different, one behind the other."""

    text: str
    begins: np.ndarray
    """Where each piece begins in `text`, and the end of the last."""

    def runs(self, size: int, longest: int, rng: np.random.Generator) -> str:
        """Runs of pieces from random places, together `size` characters at least.

        A run ends with the piece that makes it as long as a random number from half of `longest` to all of it.
        """
        parts, length = [], 0
        while length < size:
            begins = self.begins[rng.integers(len(self.begins) - 1, size=8)]
            lengths = rng.integers(longest // 2, longest + 1, size=8)
            places = np.searchsorted(self.begins, begins + np.maximum(lengths, 1))
            ends = self.begins[np.minimum(places, len(self.begins) - 1)]
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                part = self.text[begin:end]
                parts.append(part if part.endswith("\n") else part + " ")
                length += len(part)
        return "".join(parts)


def read_pools(limit: int = POOL_BYTES) -> tuple[list[Pool], str]:
    """Give prose and code, and a digest of both.

    Files of packages are taken in the order of their names' hashes, so that a part of them is a mix of all.
    """
    folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    files = {
        str(path.relative_to(folder)): path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".py", ".rst", ".md", ".txt") and "__pycache__" not in path.parts
    }
    names = sorted(files, key=lambda name: blake2b(name.encode("utf8", "replace")).digest())
    prose = (files[name] for name in names if not name.endswith(".py"))
    code = (files[name] for name in names if name.endswith(".py"))
    pools = [
        _pool(_shipped_texts(_SHIPPED), _file_texts(prose), limit),
        _pool([], _file_texts(code), limit),
    ]
    digest = blake2b("\0".join(pool.text for pool in pools).encode(), digest_size=4)
    return pools, digest.hexdigest()


def shipped_pools(limit: int = POOL_BYTES) -> list[Pool]:
    """Only the shipped quick-start's texts: the same on every machine."""
    return [_pool(_shipped_texts(_SHIPPED), [], limit)]


def _shipped_texts(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if (
            path.suffixes[-2:] in ([".jsonl", ".xz"], [".jsonl", ".zst"])
            and "code" not in path.parts
        ):
            open_file = lzma.open if path.suffix == ".xz" else zstandard.open
            with open_file(path, "rt", encoding="utf8") as lines:
                yield from (json.loads(line)["text"] for line in lines)
        elif path.suffix == ".parquet":
            yield from pq.read_table(path, columns=["text"])["text"].to_pylist()
        elif path.suffix == ".txt":
            yield path.read_text("utf8")


def _file_texts(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            text = path.read_text("utf8")
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) < 200_000:  # longer ones are tables
            yield text


def _pool(first: Iterable[str], more: Iterable[str], limit: int) -> Pool:
    """Cut texts into pieces of 5 words and 150 characters or so, and keep the first of those with equal words."""
    pieces, seen, size = [], set(), 0
    for texts in (first, more):
        for text in texts:
            if size > limit:
                break
            for piece in _pieces(text):
                words = tuple(_WORD.findall(piece.lower()))
                if len(words) < 5 or words[:5] in seen or words[-5:] in seen:
                    continue
                seen |= {words[:5], words[-5:]}
                pieces.append(piece)
                size += len(piece)
    begins = np.cumsum([0, *map(len, pieces)])
    return Pool("".join(pieces), begins)


def _pieces(text: str) -> Iterator[str]:
    """Lines; short ones together with the next, long ones in parts."""
    held = ""
    for line in text.replace("\0", "").splitlines(keepends=True):
        held += line
        if len(held) < 50:
            continue
        while len(held) > 150:
            cut = held.find(" ", 100) + 1
            if not 0 < cut < 250:
                break
            yield held[:cut]
            held = held[cut:]
        if len(held) <= 250 and not _UNSPACED.search(held):  # no minified lines
            yield held
        held = ""
