"""Exact similarity of two texts: Jaccard of their shingle sets, and how much of the shorter lies in the longer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.minhash import Hashes, shingle_texts


@dataclass(frozen=True)
class Edge:
    """A verified pair of documents; `first` goes before `second` in priority and is kept."""

    first: int
    second: int
    jaccard: float
    containment: float
    """Share of the shorter one's n-grams that the longer holds."""
    rule: str
    """"near_duplicate" (by Jaccard), "contained", or "exact" (equal content hash)."""
    removes: bool
    """Whether `second` goes because of `first`: containment removes only the shorter one."""

    @property
    def similarity(self) -> float:
        """What the rule measured."""
        return self.containment if self.rule == "contained" else self.jaccard


@dataclass(frozen=True)
class ComparedTexts:
    """Shingles of the documents that are compared, by number; 8 bytes a shingle, of two kinds."""

    shingles: dict[int, Hashes] = field(default_factory=dict)
    grams: dict[int, Hashes] = field(default_factory=dict)
    """Shorter shingles, for the containment: an edit spoils fewer of them."""
    content_hashes: dict[int, str] = field(default_factory=dict)
    splits: dict[int, str] = field(default_factory=dict)

    def add(
        self, table: pa.Table, numbers: Mapping[str, int], ngram: int, containment_ngram: int
    ) -> None:
        """Read those documents of a DOCUMENTS table that have a number."""
        columns = ["id", "text", "domain", "content_hash", "split"]
        rows = table.select(columns).filter(pc.is_in(table["id"], pa.array(numbers, pa.string())))
        for batch in rows.to_batches(max_chunksize=1024):
            texts, domains = batch["text"], batch["domain"]
            shingles, ends = shingle_texts(texts, domains, ngram=ngram)
            grams, stops = shingle_texts(texts, domains, ngram=containment_ngram)
            ids, hashes, splits = (
                batch[name].to_pylist() for name in ("id", "content_hash", "split")
            )
            for i, identity in enumerate(ids):
                number = numbers[identity]
                self.shingles[number] = shingles[ends[i] : ends[i + 1]]
                self.grams[number] = grams[stops[i] : stops[i + 1]]
                self.content_hashes[number] = hashes[i]
                self.splits[number] = splits[i]

    def validates(self, number: int) -> bool:
        """Whether a published document belongs to the validation split."""
        return self.splits[number] == "validation"

    def compare(
        self, first: int, second: int, threshold: float, containment_threshold: float
    ) -> Edge | None:
        """Verify a candidate pair; None if the two are no duplicates. `first` goes before `second` in priority."""
        if self.content_hashes[first] == self.content_hashes[second]:
            return Edge(first, second, 1.0, 1.0, "exact", True)
        num_first, num_second = len(self.shingles[first]), len(self.shingles[second])
        common = num_common(self.shingles[first], self.shingles[second])
        jaccard = common / max(num_first + num_second - common, 1)
        second_is_shorter = num_second <= num_first  # of equally long ones, the later in priority
        num_grams = len(self.grams[second if second_is_shorter else first])
        containment = num_common(self.grams[first], self.grams[second]) / max(num_grams, 1)
        if jaccard >= threshold:
            return Edge(first, second, jaccard, containment, "near_duplicate", True)
        if containment >= containment_threshold:
            return Edge(first, second, jaccard, containment, "contained", second_is_shorter)
        return None


def num_common(a: Hashes, b: Hashes) -> int:
    """Size of the intersection of two sorted sets, `O(m log n)` with m the smaller."""
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    if not len(small):
        return 0
    places = np.searchsorted(large, small)
    places[places == len(large)] = 0
    return int(np.count_nonzero(large[places] == small))
