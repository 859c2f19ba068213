"""Planted near-duplicates are what they are said to be, and the figures made of them tell a good engine from a bad one."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import recall
from pipeline.build import BuildConfig, build
from pipeline.canaries import Planted, plant
from pipeline.dedup import (
    INHERITS,
    REMOVED,
    DedupConfig,
    NearDuplicates,
    NewDocuments,
    near_duplicates,
)
from pipeline.filters import QualityConfig
from pipeline.ingest import ShardConfig
from pipeline.minhash import sign_documents
from pipeline.normalize import content_hash
from pipeline.readers import SourceConfig
from pipeline.recall_view import found_probability, in_words, recall_picture
from pipeline.tokenizer import TokenizerConfig
from storage.catalog import resolve
from storage.lake import Lake
from storage.schema import DOCUMENTS, EDGES, TEMPLATES

CONFIG = DedupConfig()
WORDS = tuple(f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "ei", "o", "u") for c in "klmnst")
CLAIM = {"similarity": 0.9, "rule": "near_duplicate", "jaccard": 0.9, "containment": 0.9}
HAN = "".join(map(chr, range(0x4E00, 0x4F00)))


def table_of(texts: Sequence[str], domain: str = "web") -> pa.Table:
    """DOCUMENTS with these texts."""
    empty = {field.name: "" if field.type == pa.string() else 0 for field in DOCUMENTS}
    hashes = content_hash(pa.array(texts, pa.string())).to_pylist()
    rows = [
        empty
        | {"id": f"{hash[::-1]}", "text": text, "domain": domain, "content_hash": hash}
        | {"num_bytes": len(text.encode())}
        for text, hash in zip(texts, hashes, strict=True)
    ]
    return pa.Table.from_pylist(rows, DOCUMENTS)


def corpus(count: int = 120, seed: int = 0) -> pa.Table:
    """Documents of 60 to 400 words that have nothing in common, some of them code, some without spaces."""
    generator = random.Random(seed)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(60, 400))) for _ in range(count)]
    code = [
        "\n".join(f"{' ' * (i % 3)}{generator.choice(WORDS)} = f({i})" for i in range(60))
        for _ in range(count // 10)
    ]
    han = ["".join(generator.choices(HAN, k=300)) for _ in range(count // 10)]
    return pa.concat_tables([table_of(texts), table_of(code, "code"), table_of(han)])


def look_for(
    planted: Planted, documents: Sequence[pa.Table], config: DedupConfig = CONFIG
) -> NearDuplicates:
    """What the engine finds of the documents and of the canaries."""
    signatures = [sign_documents(table, config) for table in documents]
    new = NewDocuments(documents=documents, signatures=signatures, sources=())
    return near_duplicates(new, None, config, probes=planted.probes)


def claimed(
    removed: Mapping[str, str] | None = None, probes: Mapping[str, str] | None = None
) -> NearDuplicates:
    """What an engine would say that removes these ids in favour of those."""

    def table(pairs: Mapping[str, str] | None) -> pa.Table:
        rows = [{"id": i, "duplicate_of": kept, **CLAIM} for i, kept in (pairs or {}).items()]
        return pa.Table.from_pylist(rows, REMOVED)

    return NearDuplicates(
        edges=EDGES.empty_table(),
        removed=table(removed),
        displaced=pa.array([], pa.int64()),
        inherits=INHERITS.empty_table(),
        probes=table(probes),
        num_pairs=0,
        num_templated=0,
        templates=TEMPLATES.empty_table(),
    )


def figures(tables: Sequence[pa.Table], config: DedupConfig = CONFIG) -> dict[str, Any]:
    """Plant, look, measure."""
    planted = plant(tables, config)
    return recall.measure(planted, look_for(planted, tables, config), tables, config)


def grams(text: str, *, by_character: bool) -> set[tuple[str, ...]]:
    """Shingles as tuples: of 5 words, or of 24 characters."""
    units, width = re.findall(r"\w+", text.lower()), 5
    if by_character:
        units, width = [char for char in text.lower() if not char.isspace()], 24
    return {tuple(units[i : i + width]) for i in range(len(units) - width + 1)}


def test_canaries_are_as_similar_as_they_are_meant_to_be() -> None:
    """Layout changes nothing; a piece lies wholly in its text; edits come near the similarities aimed at."""
    documents = corpus(1000)
    planted = plant([documents], CONFIG)
    originals = {row["id"]: row for row in documents.to_pylist()}
    copies = {row["id"]: row for row in planted.probes.documents[0].to_pylist()}
    truth = planted.truth.to_pylist()
    assert len(truth) == len(copies) == 11 * 7
    assert not copies.keys() & originals.keys()
    edited: dict[float, list[float]] = {}
    for row in truth:
        copy, original = copies[row["id"]], originals[row["original"]]
        assert copy["text"] != original["text"]
        by_character = original["domain"] == "code" or original["text"][0] in HAN
        a, b = (grams(text["text"], by_character=by_character) for text in (copy, original))
        jaccard = len(a & b) / len(a | b)
        if row["kind"] == "layout":
            assert jaccard == 1
        elif row["kind"] == "contained":
            assert a < b
            assert jaccard == pytest.approx(0.6, abs=0.03)
        else:
            edited.setdefault(row["aim"], []).append(jaccard)
    assert sorted(edited) == pytest.approx(
        [0.315, 0.49, 0.595, 0.715, 0.76, 0.805, 0.85, 0.895, 0.955]
    )
    for aim, found in edited.items():
        assert sum(found) / len(found) == pytest.approx(aim, abs=0.05)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_figures_depend_on_the_set_of_documents_alone(seed: int, parts: int) -> None:
    """Any order and any split into tables: the same canaries, the same pairs, the same figures."""
    documents = corpus(40)
    rows = list(range(len(documents)))
    random.Random(seed).shuffle(rows)
    tables = [documents.take(rows[i::parts]) for i in range(parts)]
    one, other = plant([documents], CONFIG), plant(tables, CONFIG)
    assert one.truth == other.truth
    assert one.probes.documents[0] == other.probes.documents[0]
    measured = recall.measure(one, claimed(), [documents], CONFIG)
    assert measured == recall.measure(other, claimed(), tables, CONFIG)


def test_the_engine_finds_what_its_bands_promise() -> None:
    """All that cannot be missed by chance is found, nothing below the threshold is, and every pair is a true one."""
    found = figures([corpus(400)])
    assert found["sure"]["planted"] >= 20
    assert found["sure"]["found"] == found["sure"]["planted"]
    for row in found["planted"]:
        assert CONFIG.threshold <= row["from"] <= row["jaccard"] <= row["to"] <= 1
        assert abs(row["found"] / row["planted"] - row["expected"]) <= 3 / row["planted"]
    assert sum(row["planted"] for row in found["planted"]) >= 20
    assert found["contained"]["planted"] > 0
    assert found["below_threshold"]["planted"] >= 9
    assert found["below_threshold"]["wrongly_found"] == 0
    assert found["precision"] == 1
    assert found["left_out"] == 0
    assert found["random_pairs"]["missed"] == 0


def test_an_engine_that_finds_nothing_is_seen() -> None:
    """Without any hit all counts of found are zero, and duplicates that were kept are among the pairs of like length."""
    documents = corpus(60)
    copies = [f"{text}." for text in documents["text"].to_pylist()]
    tables = [documents, table_of(copies)]
    planted = plant(tables, CONFIG)
    found = recall.measure(planted, claimed(), tables, CONFIG)
    assert [row["found"] for row in found["planted"]] == [0] * len(found["planted"])
    assert found["sure"]["found"] == found["contained"]["found"] == 0
    assert found["precision"] is None
    pairs = found["random_pairs"]
    assert pairs["missed"] > 0
    assert pairs["highest"] == 1
    assert pairs["missed"] / pairs["pairs"] < pairs["missed_share_at_most"] <= 1
    assert f"random pairs of what was kept: {pairs['missed']}." in in_words(found)


def test_an_engine_that_takes_anything_for_a_duplicate_is_seen() -> None:
    """Canaries found in favour of documents that they do not resemble are counted as wrong, whatever is claimed."""
    documents = corpus(60)
    planted = plant([documents], CONFIG)
    names, ids = planted.truth["id"].to_pylist(), documents["id"].to_pylist()
    claims = claimed(probes=dict(zip(names, ids, strict=False)))
    found = recall.measure(planted, claims, [documents], CONFIG)
    assert found["below_threshold"]["wrongly_found"] > 0
    assert found["precision"] < 0.2


def test_a_removed_original_is_stood_for_by_what_was_kept() -> None:
    """A copy counts by its similarity to the document that stays; if that one was published before, not at all."""
    documents = corpus(60)
    planted = plant([documents], CONFIG)
    ids = documents["id"].to_pylist()
    longer = table_of([f"{text} and some more" for text in documents["text"].to_pylist()])
    claims = claimed(removed=dict(zip(ids, longer["id"].to_pylist(), strict=True)))
    both = recall.measure(planted, claims, [documents, longer], CONFIG)
    assert both["left_out"] == 0
    assert both["sure"]["planted"] > 0
    assert max(row["jaccard"] for row in both["planted"]) < 1
    alone = recall.measure(planted, claims, [documents], CONFIG)
    assert alone["left_out"] == len(planted.truth)
    assert alone["planted"] == []


@pytest.mark.parametrize(
    "texts", [[], [""], ["word"], ["a b c " * 10], ["word " * 10**5], [" ".join(WORDS)]]
)
def test_corpora_too_small_to_measure(texts: list[str]) -> None:
    """No document, or none fit to be copied: figures of nothing, no failure; of a single one, copies of it."""
    tables = [table_of(texts)]
    found = figures(tables)
    assert found["random_pairs"]["pairs"] == 0
    assert bool(found["planted"]) == (texts == [" ".join(WORDS)])
    assert bool(in_words(found)) == bool(found["planted"])
    assert figures(tables, DedupConfig(enabled=False)) == {}
    assert in_words({}) == ""


@pytest.mark.parametrize("threshold", [1e-300, 0.05, 0.5, 0.93, 1.0])
def test_any_threshold_can_be_measured(threshold: float) -> None:
    """Similarities aimed at follow the threshold; no copy is more than a copy."""
    config = replace(CONFIG, threshold=threshold, ngram=1)
    found = figures([corpus(40)], config)
    assert found["precision"] == 1
    assert sum(row["planted"] for row in found["planted"]) >= 4
    assert all(row["from"] <= row["jaccard"] <= row["to"] for row in found["planted"])
    assert "<svg" in recall_picture(found)


def test_probability_of_the_bands() -> None:
    """1 - (1 - s^r)^b, as it stands in the documentation of the settings."""
    assert found_probability(0.7, bands=25, rows=5) == pytest.approx(0.99, abs=0.001)
    assert found_probability(0.5, bands=25, rows=5) == pytest.approx(0.55, abs=0.01)
    assert found_probability(0.0, bands=25, rows=5) == 0
    assert found_probability(1.0, bands=1, rows=128) == 1


@pytest.mark.parametrize(("count", "bound"), [(0, 2.996), (1, 4.744), (5, 10.513), (50, 63.287)])
def test_upper_bound_of_a_count(count: int, bound: float) -> None:
    """The exact 95 % limits of a Poisson mean (Garwood 1936)."""
    assert recall._poisson_bound(count) == pytest.approx(bound, abs=0.001)


def test_a_build_tells_what_it_found_and_publishes_no_canary(tmp_path: Path) -> None:
    """The figures stand in the manifest, the same for any split into parts, and a gate looks at them."""
    texts = corpus(60).filter(pc.equal(corpus(60)["domain"], "web"))["text"].to_pylist()
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02}.txt").write_text(text, "utf8")
    found = []
    for size in (1 << 20, 1 << 14):
        config = BuildConfig(
            name="measured",
            sources=(SourceConfig(path="*.txt", name="texts", domain="books", license="CC0-1.0"),),
            quality=QualityConfig(enabled=False),
            tokenizer=TokenizerConfig(vocab_size=400),
            shards=ShardConfig(input_bytes=size),
        )
        lake = Lake.open(tmp_path / f"lake{size}")
        result = build(config, lake, root=tmp_path)
        assert result.documents["read"] == result.documents["kept"] == len(texts)
        shown = resolve(lake, "measured")
        rows = [row for shard in shown.shards("documents") for row in shown.open(shard).to_pylist()]
        assert sorted(row["text"] for row in rows) == sorted(texts)
        found.append(result.manifest.summary["recall"])
        assert result.manifest.gates[-1]["name"] == "planted duplicates found"
        assert result.manifest.gates[-1]["value"] == 1
    assert found[0] == found[1]
    assert found[0]["sure"]["planted"] >= 20
    assert found[0]["precision"] == 1
