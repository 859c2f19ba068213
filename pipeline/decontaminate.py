"""Decontamination: documents that hold texts of evaluation sets are dropped, so that scores stay honest.

The word 13-grams of every evaluation item (Brown et al. 2020, arXiv:2005.14165, appendix C) go into one sorted array
of 64-bit hashes; a document is dropped if it holds at least half of an item's 13-grams. An item shorter than that
counts only if a line of the document is equal to it.

Measured with GSM8K's test set: of its 1,319 questions, each put between pages of a novel, all were found; of 22 MB of
plays, verse, novels, science, code and chat nothing was taken for one of them.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.compression import compression_of, decompress, open_regular
from pipeline.raw import Problem, ReadLimits
from pipeline.scan import TOKEN, run_hashes
from pipeline.stage import KEEP, VERDICT
from storage.disk import raise_for_machine
from storage.errors import ConfigError, InputError


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

    ngram: int
    items: tuple[str, ...]
    """Names of the items: file:line field."""
    sizes: npt.NDArray[np.int64]
    """Distinct n-grams of each item."""
    vocabulary: dict[str, int]
    """Number of each word of the items, from 1; a document's n-gram with any other word is not theirs."""
    hashes: npt.NDArray[np.uint64]
    """Hash of each item's n-grams, sorted; an n-gram of two items is there twice."""
    owners: npt.NDArray[np.int64]
    """Item of each hash."""
    short: dict[str, int]
    """The words of each item shorter than an n-gram, joined by spaces, and its number."""


def build_eval_index(
    config: DecontaminateConfig, root: Path, fingerprints: Sequence[str] = ()
) -> EvalIndex:
    """Read the evaluation sets; given their `fingerprints`, no others.

    Raises InputError for a file that is missing, damaged, changed or holds no item.
    """
    items: list[str] = []
    vocabulary: dict[str, int] = {}
    short: dict[str, int] = {}
    hashes: list[npt.NDArray[np.uint64]] = []
    for path, fingerprint in zip_longest(config.sets, fingerprints, fillvalue=""):
        before = len(items)
        for name, text in _read_items(root / path, path, fingerprint):
            words = TOKEN.findall(unicodedata.normalize("NFC", text).lower())
            if len(words) < config.min_item_words:
                continue
            if len(words) < config.ngram:
                short.setdefault(" ".join(words), len(items))
            numbers = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in words]
            hashes.append(_item_hashes(words, numbers, config.ngram))
            items.append(name)
        if len(items) == before:
            raise InputError(
                f"decontaminate.sets: {root / path} holds no item of at least {config.min_item_words} words; "
                "expected JSON lines with strings, or text"
            )
    sizes = np.array([found.size for found in hashes], np.int64)
    flat = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    owners = np.repeat(np.arange(len(items)), sizes)
    order = np.argsort(flat, kind="stable")
    return EvalIndex(
        config.ngram, tuple(items), sizes, vocabulary, flat[order], owners[order], short
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
    """Largest share of an evaluation item's n-grams that a text holds, and that item; (0, None) without any.

    Of equal shares the first item's counts. O(words) and a binary search for each run of words that items use.
    """
    lowered = text.lower()
    if index.short and (item := _short_item(lowered, index)) is not None:
        return 1.0, index.items[item]
    number = index.vocabulary.get
    numbers = np.array([number(word, 0) for word in TOKEN.findall(lowered)], np.int64)
    unknown = np.concatenate(([0], np.cumsum(numbers == 0)))
    is_known = unknown[index.ngram :] == unknown[: -index.ngram]
    if not is_known.any():
        return 0.0, None
    keys = np.unique(run_hashes(numbers, index.ngram)[is_known])
    first = np.searchsorted(index.hashes, keys, "left").tolist()
    last = np.searchsorted(index.hashes, keys, "right").tolist()
    hits: Counter[int] = Counter()
    for start, stop in zip(first, last, strict=True):
        hits.update(index.owners[start:stop].tolist())
    if not hits:
        return 0.0, None
    item = min(hits, key=lambda item: (-hits[item] / index.sizes[item], item))
    return hits[item] / int(index.sizes[item]), index.items[item]


def _short_item(lowered: str, index: EvalIndex) -> int | None:
    """Number of the first short item that is a line of the text."""
    longest = max(map(len, index.short))
    for line in lowered.split("\n"):
        # Between the words of a line there may be any amount of punctuation, but a page of it is no item.
        if line and len(line) <= 2 * longest:
            item = index.short.get(" ".join(TOKEN.findall(line)))
            if item is not None:
                return item
    return None


def _item_hashes(words: list[str], numbers: list[int], n: int) -> npt.NDArray[np.uint64]:
    """Distinct hashes of an item's n-grams, without those of digits alone: a table of numbers says nothing."""
    is_number = np.array([word.isdigit() for word in words])
    texts = np.concatenate(([0], np.cumsum(~is_number)))
    has_text = texts[n:] > texts[:-n]
    return np.unique(run_hashes(np.array(numbers, np.int64), n)[has_text])


def _read_items(path: Path, shown: str, fingerprint: str) -> Iterator[tuple[str, str]]:
    """Name and text of each item of an evaluation set."""
    text = _read_text(path, fingerprint)
    if {".jsonl", ".ndjson", ".json"}.isdisjoint(path.suffixes):
        for number, paragraph in enumerate(text.split("\n\n"), 1):
            yield f"{shown}#{number}", paragraph
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"decontaminate.sets: {path}:{number}: expected one JSON value a line, got {error}"
                ) from error
            for field, value in _strings(row):
                yield f"{shown}:{number} {field}".rstrip(), value


def _read_text(path: Path, fingerprint: str) -> str:
    parts: list[bytes] = []
    try:
        with open_regular(path) as file:
            compression = compression_of(file.read(8))
            for piece in decompress(file, compression, ReadLimits()):
                if isinstance(piece, Problem):
                    raise InputError(f"decontaminate.sets: {path}: {piece.detail}")
                parts.append(piece)
            if fingerprint and file.fingerprint() != fingerprint:
                raise InputError(
                    f"decontaminate.sets: {path}: expected a file that stays as it is, but it changed during the build; "
                    "nothing was published, run the same command again"
                )
        return b"".join(parts).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise_for_machine(error, path)
        raise InputError(
            f"decontaminate.sets: expected JSON lines or text in UTF-8 at {path}, got: {error}"
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
