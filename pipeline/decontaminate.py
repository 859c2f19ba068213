"""Decontamination: documents that hold texts of evaluation sets are dropped, so that scores stay honest.

Word 13-grams (Brown et al. 2020, arXiv:2005.14165, appendix C) of every evaluation item go into one sorted array of
64-bit hashes; a document is dropped if it holds at least half of an item's 13-grams. Items shorter than that
count only if a line of the document is equal to them.
"""

import bz2
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard

from pipeline.scan import TOKEN
from pipeline.stage import KEEP, VERDICT
from storage.errors import ConfigError, InputError

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_OPEN: dict[str, Callable[..., IO[Any]]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": zstandard.open,
}


@dataclass(frozen=True, kw_only=True)
class DecontaminateConfig:
    """Evaluation sets that must not be trained on."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    sets: tuple[str, ...] = ()
    """Files of evaluation items, relative to the recipe: JSON lines (each string in a row is an item) or text (each
    paragraph is one), plain or .gz .xz .bz2 .zst."""
    ngram: int = 13
    """Words of an n-gram (GPT-3: 13)."""
    min_overlap: float = 0.5
    """Share of an item's n-grams in (0, 1] from which a document counts as holding it."""
    min_item_words: int = 5
    """Shorter items are ignored: a line of four words says nothing."""

    def __post_init__(self) -> None:
        if not 0 < self.min_overlap <= 1:
            raise ConfigError(
                f"decontaminate.min_overlap: expected a number in (0, 1], got {self.min_overlap}"
            )
        if not 1 <= self.min_item_words <= self.ngram:
            raise ConfigError(
                "decontaminate: expected 1 <= min_item_words <= ngram, "
                f"got min_item_words = {self.min_item_words}, ngram = {self.ngram}"
            )


@dataclass(frozen=True)
class EvalIndex:
    """N-grams of evaluation items, ready to be looked up."""

    items: tuple[str, ...]
    """Names of the items: file:line field."""
    sizes: npt.NDArray[np.int64]
    """Distinct n-grams of each item."""
    hashes: npt.NDArray[np.uint64]
    """Hash of each (n-gram, item) pair's n-gram, sorted; an n-gram of two items is there twice."""
    owners: npt.NDArray[np.int64]
    """Item of each hash."""
    short: dict[str, int]
    """Words of each short item, joined by spaces, and its number."""
    ngram: int


def build_eval_index(config: DecontaminateConfig, root: Path) -> EvalIndex:
    """Read the evaluation sets. Raises InputError for a file that is missing, unreadable or holds no item."""
    items: list[str] = []
    sizes: list[int] = []
    hashes: list[npt.NDArray[np.uint64]] = []
    short: dict[str, int] = {}
    for path in config.sets:
        before = len(items)
        for name, text in _read_items(root / path, path):
            words = TOKEN.findall(text.lower())
            if len(words) < config.min_item_words:
                continue
            if len(words) < config.ngram:
                short.setdefault(" ".join(words), len(items))
            found = np.unique(_ngram_hashes(words, config.ngram)[0])
            items.append(name)
            sizes.append(found.size)
            hashes.append(found)
        if len(items) == before:
            raise InputError(
                f"decontaminate.sets: {root / path} holds no item of at least {config.min_item_words} words; "
                "expected JSON lines or paragraphs of text"
            )
    flat = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    owners = np.repeat(np.arange(len(items)), sizes)
    order = np.argsort(flat, kind="stable")
    return EvalIndex(
        tuple(items), np.array(sizes, np.int64), flat[order], owners[order], short, config.ngram
    )


def judge_contamination(
    batch: pa.RecordBatch, index: EvalIndex, config: DecontaminateConfig
) -> pa.StructArray:
    """One VERDICT a document: `contaminated` with the share of the item's n-grams found and the item's name."""
    verdicts = [_judge(text.as_py(), index, config.min_overlap) for text in batch["text"]]
    return pa.array(verdicts, VERDICT)


def _judge(text: str, index: EvalIndex, min_overlap: float) -> dict[str, Any]:
    overlap, item = find_overlap(text, index)
    if item is None or overlap < min_overlap:
        return KEEP
    return {"rule": "contaminated", "value": overlap, "threshold": min_overlap, "detail": item}


def find_overlap(text: str, index: EvalIndex) -> tuple[float, str | None]:
    """Largest share of an evaluation item's n-grams that a text holds, and the item; the first one of equals."""
    lowered = text.lower()
    if index.short:
        for line in lowered.split("\n"):
            # A line of n words has at least n characters; longer lines cannot be a short item.
            words = TOKEN.findall(line) if len(line) < 400 else []
            if (
                0 < len(words) < index.ngram
                and (item := index.short.get(" ".join(words))) is not None
            ):
                return 1.0, index.items[item]
    if not index.hashes.size:
        return 0.0, None
    keys = np.unique(_ngram_hashes(TOKEN.findall(lowered), index.ngram)[0])
    first = np.searchsorted(index.hashes, keys, "left")
    last = np.searchsorted(index.hashes, keys, "right")
    hits: Counter[int] = Counter()
    for start, stop in zip(first[last > first].tolist(), last[last > first].tolist(), strict=True):
        hits.update(index.owners[start:stop].tolist())
    if not hits:
        return 0.0, None
    overlap, negative = max((count / int(index.sizes[item]), -item) for item, count in hits.items())
    return overlap, index.items[-negative]


def _ngram_hashes(words: list[str], n: int) -> tuple[npt.NDArray[np.uint64], int]:
    """64-bit hashes of the n-grams that hold a letter (tables of numbers say nothing), and how many there are."""
    if len(words) < n:
        return np.zeros(0, np.uint64), 0
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
    word_hashes = np.array([_word_hash(word) for word in numbers], np.uint64)[ids]
    is_text = np.array([not word.isdigit() for word in numbers], np.int64)[ids]
    size = len(words) - n + 1
    keys = np.zeros(size, np.uint64)
    letters = np.zeros(size, np.int64)
    for k in range(n):
        keys *= _MULTIPLIER
        keys += word_hashes[k : k + size]
        letters += is_text[k : k + size]
    keys = keys[letters > 0]
    return keys, keys.size


def _word_hash(word: str) -> int:
    return int.from_bytes(
        blake2b(word.encode("utf8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def _read_items(path: Path, shown: str) -> Iterator[tuple[str, str]]:
    """Name and text of each item of an evaluation set."""
    opener = _OPEN.get(path.suffix, open)
    is_json = ".jsonl" in path.suffixes or ".json" in path.suffixes
    try:
        with opener(path, "rt", encoding="utf8") as file:
            if is_json:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        for field, text in _strings(json.loads(line)):
                            yield f"{shown}:{number} {field}".rstrip(), text
            else:
                for number, text in enumerate(file.read().split("\n\n"), 1):
                    yield f"{shown}#{number}", text
    except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise InputError(
            f"decontaminate.sets: expected JSON lines or text in {path}, got: {error}; correct the path or the file"
        ) from error


def _strings(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Every string inside a JSON value with the names of the fields that lead to it."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, name)
