"""How many near-duplicates a build finds: of its canaries, by similarity, and among random pairs of what it kept."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.canaries import Planted, draw
from pipeline.dedup import DedupConfig, NearDuplicates
from pipeline.minhash import Hashes, shingle_texts
from pipeline.recall_view import found_probability
from pipeline.templates import alike_beside, columns_of, shingles_of

MAX_PAIRS = 1000
"""Random pairs of kept documents, and as many of similar length; each at most one for each forty documents."""
SURE = 0.9999
"""Canaries that the bands find with at least this probability are found in every build: a gate counts them."""

_BIN = 0.05
_COUNTS = ("planted", "found")


def measure(
    planted: Planted, found: NearDuplicates, documents: Sequence[pa.Table], config: DedupConfig
) -> dict[str, Any]:
    """Count the canaries found by their true similarity, and random pairs of kept documents that were missed.

    A canary's similarity is that with its original or, where the original was removed, with the document that stays in
    its place; canaries of which that one was published earlier are left out. It is found if the engine would remove it
    in favour of any kept document; wrongly, if those two, compared again by their texts, are no duplicates: with the
    guard against templates on, those that it keeps apart are none, and counted as such. `documents` are the new ones,
    those removed included. Returns plain numbers; {} if near-duplicates are not looked for.
    """
    if not config.enabled:
        return {}
    replaced = _as_dict(found.removed, "id", "duplicate_of")
    hits = _as_dict(found.probes, "id", "duplicate_of")
    rows = planted.truth.to_pylist()
    for row in rows:
        row["kept"] = replaced.get(row["original"], row["original"])
        row["found"] = hits.get(row["id"])
    texts = _texts_of(documents, {name for row in rows for name in (row["kept"], row["found"])})
    texts |= _texts_of(planted.probes.documents, {row["id"] for row in rows})
    pairs = {(row["id"], row[name]) for row in rows for name in ("kept", "found")}
    known = sorted(pair for pair in pairs if pair[1] in texts)
    overlaps = _overlaps(texts, known, config.ngram)
    templates = shingles_of(found.templates)
    alike = _are_duplicates(texts, overlaps, config, templates)
    judged = [
        _Canary(
            jaccard=overlaps[row["id"], row["kept"]].jaccard,
            is_duplicate=(row["id"], row["kept"]) in alike,
            is_found=row["found"] is not None,
            is_wrong=row["found"] is not None and (row["id"], row["found"]) not in alike,
        )
        for row in rows
        if row["kept"] in texts and (row["found"] is None or row["found"] in texts)
    ]
    return {
        **{key: getattr(config, key) for key in ("threshold", "bands", "rows")},
        **_planted_figures(judged, config),
        "left_out": len(rows) - len(judged),
        "random_pairs": _random_pairs(documents, found.removed, config, templates),
    }


@dataclass(frozen=True, kw_only=True)
class _Overlap:
    jaccard: float
    held: float
    """Share of the first one's shingles that the second holds."""
    first_is_shorter: bool


@dataclass(frozen=True, kw_only=True)
class _Canary:
    jaccard: float
    is_duplicate: bool
    is_found: bool
    is_wrong: bool


def _planted_figures(canaries: Sequence[_Canary], config: DedupConfig) -> dict[str, Any]:
    def probability(canary: _Canary) -> float:
        return found_probability(canary.jaccard, bands=config.bands, rows=config.rows)

    def counts(some: Sequence[_Canary]) -> dict[str, Any]:
        expected = [probability(canary) for canary in some]
        return {
            "planted": len(some),
            "found": sum(canary.is_found for canary in some),
            "expected": round(math.fsum(expected) / len(some), 4) if some else None,
        }

    duplicates = [canary for canary in canaries if canary.is_duplicate]
    alike = [canary for canary in duplicates if canary.jaccard >= config.threshold]
    contained = [canary for canary in duplicates if canary.jaccard < config.threshold]
    apart, others = (
        [c for c in canaries if not c.is_duplicate and (c.jaccard >= config.threshold) == is_alike]
        for is_alike in (True, False)
    )
    sure = [canary for canary in alike if probability(canary) >= SURE]
    bins: dict[int, list[_Canary]] = defaultdict(list)
    last = math.ceil(round(1 / _BIN, 6)) - 1
    for canary in alike:
        bins[min(int(canary.jaccard / _BIN + 1e-9), last)].append(canary)
    hits = sum(canary.is_found for canary in canaries)
    wrong = sum(canary.is_wrong for canary in canaries)
    return {
        "planted": [
            {
                "from": max(round(k * _BIN, 2), config.threshold),
                "to": round((k + 1) * _BIN, 2),
                "jaccard": round(math.fsum(c.jaccard for c in bins[k]) / len(bins[k]), 4),
                **counts(bins[k]),
            }
            for k in sorted(bins)
        ],
        "contained": counts(contained),
        "below_threshold": {
            "planted": len(others),
            "found": sum(canary.is_found for canary in others),
            "wrongly_found": sum(canary.is_wrong for canary in others),
        },
        **({"kept_apart": {key: counts(apart)[key] for key in _COUNTS}} if apart else {}),
        "sure": {key: counts(sure)[key] for key in _COUNTS},
        "precision": round(1 - wrong / hits, 6) if hits else None,
    }


def _as_dict(table: pa.Table, key: str, value: str) -> dict[str, str]:
    return dict(zip(table[key].to_pylist(), table[value].to_pylist(), strict=True))


def _texts_of(documents: Iterable[pa.Table], names: set[str | None]) -> dict[str, tuple[str, str]]:
    """Text and domain of the documents with these ids."""
    wanted = pa.array(sorted(name for name in names if name is not None), pa.string())
    found: dict[str, tuple[str, str]] = {}
    for table in documents:
        rows = table.select(["id", "text", "domain"]).filter(pc.is_in(table["id"], wanted))
        for identity, text, domain in zip(*(rows[i].to_pylist() for i in range(3)), strict=True):
            found[identity] = text, domain
    return found


def _are_duplicates(
    texts: Mapping[str, tuple[str, str]],
    pairs: Mapping[tuple[str, str], _Overlap],
    config: DedupConfig,
    templates: Hashes,
) -> set[tuple[str, str]]:
    """The pairs alike by Jaccard, or whose first, no longer than the second, lies nearly wholly in the second."""
    near = [pair for pair, overlap in pairs.items() if overlap.jaccard >= config.threshold]
    found = alike_beside(templates, texts, near, config)
    shorter = [p for p, overlap in pairs.items() if p not in found and overlap.first_is_shorter]
    grams = _overlaps(texts, shorter, config.containment_ngram)
    held = [pair for pair in shorter if grams[pair].held >= config.containment]
    return found | alike_beside(templates, texts, held, config, is_held=True)


def _overlaps(
    texts: Mapping[str, tuple[str, str]], pairs: Sequence[tuple[str, str]], ngram: int
) -> dict[tuple[str, str], _Overlap]:
    """Compare the shingles of pairs by definition, apart from the engine; holds those of 256 pairs at a time."""
    found: dict[tuple[str, str], _Overlap] = {}
    for start in range(0, len(pairs), 256):
        some = pairs[start : start + 256]
        places, (bodies, domains) = columns_of(texts, some)
        shingles, ends = shingle_texts(bodies, domains, ngram=ngram)
        sets = {name: shingles[ends[i] : ends[i + 1]] for name, i in places.items()}
        for one, other in some:
            a, b = sets[one], sets[other]
            common = len(np.intersect1d(a, b, assume_unique=True))
            found[one, other] = _Overlap(
                jaccard=common / max(len(a) + len(b) - common, 1),
                held=common / max(len(a), 1),
                first_is_shorter=len(a) <= len(b),
            )
    return found


def _random_pairs(
    documents: Sequence[pa.Table], removed: pa.Table, config: DedupConfig, templates: Hashes
) -> dict[str, Any]:
    """Compare kept documents drawn at random two by two, and as many again with the one next in length."""
    limits = {"least": 64, "one_in": 20, "most": 2 * MAX_PAIRS}
    limits["without"] = removed["id"].combine_chunks()
    at_random, others = (draw(documents, digit, **limits) for digit in (8, 0))
    by_length = sorted(others, key=lambda row: (row["num_bytes"], row["key"], row["id"]))
    pairs = [
        (one["id"], other["id"])
        for rows in (at_random, by_length)
        for one, other in zip(rows[::2], rows[1::2], strict=False)
    ]
    texts = {row["id"]: (row["text"], row["domain"]) for row in (*at_random, *by_length)}
    overlaps = _overlaps(texts, pairs, config.ngram)
    similarities = [overlap.jaccard for overlap in overlaps.values()]
    alike = [
        pair if overlap.first_is_shorter else (pair[1], pair[0])
        for pair, overlap in overlaps.items()
        if overlap.jaccard >= config.threshold
    ]
    missed = len(alike_beside(templates, texts, alike, config))
    return {
        "pairs": len(pairs),
        "of_similar_length": len(by_length) // 2,
        "missed": missed,
        "highest": round(max(similarities, default=0.0), 4),
        # 95 % sure; the rule of three where none was missed (Hanley and Lippman-Hand 1983).
        "missed_share_at_most": round(min(_poisson_bound(missed) / len(pairs), 1.0), 6)
        if pairs
        else None,
    }


def _poisson_bound(count: int) -> float:
    """The highest mean at which a Poisson variable is `count` or less in 5 % of cases: 3.0 for none."""
    low, high = 0.0, 3.0 * count + 10
    for _ in range(50):
        mean = (low + high) / 2
        terms = (k * math.log(mean) - math.lgamma(k + 1) for k in range(count + 1))
        at_most = math.fsum(math.exp(term - mean) for term in terms)
        low, high = (mean, high) if at_most > 0.05 else (low, mean)
    return high
