"""What is planted in a corpus of `near_duplicate_corpus.py`, and how what a tool removed compares with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from near_duplicate_corpus import PLANTED, open_corpus, shingle_set, similarities, words_of

THRESHOLD = 0.7
CONTAINMENT = 0.98


@dataclass(frozen=True)
class Corpus:
    """What is planted in a corpus; documents are row numbers."""

    path: Path
    table: pa.Table
    pairs: dict[int, tuple[int, float, float, str]]
    """Row -> (row of its original, jaccard, containment, kind), for all kinds but templates."""
    partners: dict[int, int]
    """Both ways."""

    @classmethod
    def open(cls, folder: Path, documents: int, seed: int) -> "Corpus":
        """Read a corpus, made if it is not there."""
        path = open_corpus(folder, documents, seed)
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        rows = {name: row for row, name in enumerate(table["id"].to_pylist())}
        columns = (
            table[name].to_pylist() for name in ("original", "jaccard", "containment", "kind")
        )
        pairs = {
            row: (rows[original], jaccard, containment, kind)
            for row, (original, jaccard, containment, kind) in enumerate(zip(*columns, strict=True))
            if original is not None and kind != "template"
        }
        # No document is the original of two.
        back = {pair[0]: row for row, pair in pairs.items()}
        return cls(path, table, pairs, back | {row: pair[0] for row, pair in pairs.items()})

    def text(self, row: int) -> str:
        """Of one document."""
        return self.table["text"][row].as_py()

    def similarity(self, row: int) -> tuple[float, bool]:
        """(Jaccard with its partner, whether the partner holds it whole); (0, False) without a partner."""
        if row not in self.partners:
            return 0.0, False
        partner = self.partners[row]
        _, jaccard, containment, _ = self.pairs.get(row) or self.pairs[partner]
        if jaccard >= THRESHOLD or containment < CONTAINMENT:
            return jaccard, False
        sizes = [len(shingle_set(words_of(self.text(i)), 5)) for i in (row, partner)]
        return jaccard, sizes[0] <= sizes[1]


@dataclass(frozen=True)
class Quality:
    """What a tool removed, against the truth."""

    by_bin: dict[tuple[float, float], tuple[int, int]]
    """Bin of true Jaccard -> (pairs found, pairs)."""
    by_kind: dict[str, tuple[int, int]]
    below: int
    wrong: int
    removed: int


def judge(
    corpus: Corpus,
    removed: Iterable[int],
    bins: Sequence[tuple[float, float]],
    *,
    keeps_one: bool = True,
    with_contained: bool = True,
) -> Quality:
    """Compare a list of removed rows with what was planted.

    A tool that names all members of a group (`keeps_one` false) has not lost a pair of which both are named. Without
    `with_contained` recall is counted over pairs that only their Jaccard similarity can find.
    """
    gone = set(removed)
    by_bin: dict[Any, tuple[int, int]] = dict.fromkeys(bins, (0, 0))
    by_kind: dict[Any, tuple[int, int]] = dict.fromkeys(PLANTED, (0, 0))
    for row, (original, jaccard, _, kind) in corpus.pairs.items():
        is_found = row in gone or original in gone
        of_bin = next((limits for limits in bins if limits[0] <= jaccard < limits[1]), None)
        if not with_contained and kind in ("frame", "contained"):
            continue
        for counts, key in ((by_bin, of_bin), (by_kind, kind)):
            if key is not None:
                found, all_of_them = counts[key]
                counts[key] = (found + is_found, all_of_them + 1)
    below = wrong = 0
    for row in gone:
        jaccard, is_held = corpus.similarity(row)
        is_lost = keeps_one and corpus.partners.get(row) in gone
        below += is_lost or (jaccard < THRESHOLD and not is_held)
        wrong += is_lost or (jaccard < 0.5 and not is_held)
    return Quality(by_bin, by_kind, below, wrong, len(gone))


def check_claims(corpus: Corpus, claims: Sequence[Sequence[Any]], removed: set[int]) -> str:
    """Compute by sets what ours says of each removed document: the kept one, and how similar they are."""
    bad = 0
    for row, kept, similarity, rule in claims:
        jaccard, _, containment = similarities(corpus.text(row), corpus.text(kept))
        true = containment if rule == "contained" else jaccard
        least = CONTAINMENT if rule == "contained" else THRESHOLD
        bad += abs(true - similarity) > 1e-6 or true < least or kept in removed
    return f"{len(claims):,} claims of ours computed again by sets: {bad} wrong"
