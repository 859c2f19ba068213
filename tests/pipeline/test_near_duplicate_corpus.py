"""The benchmark's corpus says the truth: its labels against a slow computation, and the engine against its labels."""

import importlib
import sys
import unicodedata
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.dedup import DedupConfig, NewDocuments, near_duplicates
from pipeline.minhash import sign_documents
from storage.schema import DOCUMENTS

BENCH = Path(__file__).parents[1] / "bench"
DOCUMENTS_MADE = 400


@pytest.fixture(scope="module")
def corpus() -> pa.Table:
    """A small corpus of the shipped texts alone."""
    return make(seed=0)


def make(seed: int) -> pa.Table:
    """The generator's table, from the first few MB of the shipped texts."""
    sys.path.insert(0, str(BENCH))
    try:
        module = importlib.import_module("near_duplicate_corpus")
        pools = importlib.import_module("text_pools").shipped_pools(3_000_000)
    finally:
        sys.path.remove(str(BENCH))
    return module.with_similarities(list(module.make_corpus(pools, DOCUMENTS_MADE, seed)))


def rows_by_kind(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Rows of each kind, with the text of their original."""
    texts = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["kind"], []).append(
            row | {"original_text": texts.get(row["original"])}
        )
    return found


def slow_words(text: str, *, with_marks: bool) -> list[str]:
    """Words, character by character."""
    words = [""]
    for character in text:
        is_mark = with_marks and unicodedata.category(character)[0] == "M"
        if character.isalnum() or character == "_" or is_mark:
            folded = character.casefold() if with_marks else character.lower()
            words[-1] += folded if len(folded) == 1 else character.lower()[0]
        elif words[-1]:
            words.append("")
    return [word for word in words if word]


def slow_grams(words: list[str], n: int) -> list[list[str]]:
    """Distinct runs of n words, in lists."""
    runs = sorted(words[i : i + n] for i in range(max(1, len(words) - n + 1)))
    return [run for i, run in enumerate(runs) if i == 0 or run != runs[i - 1]]


def num_in_both(a: list[list[str]], b: list[list[str]]) -> int:
    """How many runs are in both, by walking through the two sorted lists."""
    i = j = common = 0
    while i < len(a) and j < len(b):
        common += a[i] == b[j]
        i, j = i + (a[i] <= b[j]), j + (b[j] <= a[i])
    return common


def slow_jaccard(a: list[list[str]], b: list[list[str]]) -> float:
    """Of two sorted lists."""
    common = num_in_both(a, b)
    return common / (len(a) + len(b) - common)


def test_labelled_similarities_are_what_a_slow_computation_gives(corpus: pa.Table) -> None:
    """Jaccard by both definitions of a word, and the containment of the shorter text."""
    checked = 0
    for kind, rows in rows_by_kind(corpus).items():
        for row in rows[:6] if kind != "natural" else ():
            if row["original"] is None:
                continue
            pair = [slow_words(row[name], with_marks=True) for name in ("text", "original_text")]
            plain = [slow_words(row[name], with_marks=False) for name in ("text", "original_text")]
            a, b = (slow_grams(words, 5) for words in pair)
            assert row["jaccard"] == slow_jaccard(a, b)
            assert row["jaccard_plain"] == slow_jaccard(*(slow_grams(w, 5) for w in plain))
            first, second = (slow_grams(words, 3) for words in pair)
            common = num_in_both(first, second)
            if len(a) == len(b):
                assert row["containment"] == common / min(len(first), len(second))
            else:
                assert row["containment"] == common / len(first if len(a) < len(b) else second)
            checked += 1
    assert checked >= 50


def test_kinds_are_what_they_say(corpus: pa.Table) -> None:
    """Shares, and what holds for every document of a kind."""
    kinds = rows_by_kind(corpus)
    shares = {kind: len(rows) / DOCUMENTS_MADE for kind, rows in kinds.items()}
    assert shares == pytest.approx(
        {"exact": 0.06, "layout": 0.04, "edits_1": 0.04, "edits_5": 0.04, "edits_10": 0.04}
        | {"edits_20": 0.03, "edits_30": 0.03, "frame": 0.04, "contained": 0.03}
        | {"template": 0.05, "natural": 0.6},
        abs=0.003,
    )
    assert all(row["text"] == row["original_text"] for row in kinds["exact"])
    assert all(row["jaccard"] == 1 for row in kinds["layout"])
    assert all(row["text"] != row["original_text"] for row in kinds["layout"])
    assert all(row["original_text"] in row["text"] for row in kinds["frame"])
    assert all(row["text"] in row["original_text"] for row in kinds["contained"])
    assert all(0 < row["jaccard"] < 1 for row in kinds["edits_5"] + kinds["edits_30"])
    assert all(row["jaccard"] < 0.5 for row in kinds["template"] if row["original"])
    originals = [name for name in corpus["original"].to_pylist() if name]
    copied = [row["original"] for kind in kinds if kind != "template" for row in kinds[kind]]
    assert set(originals) <= set(corpus["id"].to_pylist())
    assert len([name for name in copied if name]) == len({name for name in copied if name})


def test_strangers_have_little_in_common(corpus: pa.Table) -> None:
    """Documents that are not planted as a pair, those of one template included, are far below any threshold."""
    rows = corpus.to_pylist()
    grams = [
        {tuple(gram) for gram in slow_grams(slow_words(row["text"], with_marks=True), 5)}
        for row in rows
    ]
    worst = 0.0
    for a, b in combinations(range(len(rows)), 2):
        if rows[a]["kind"] != "template" and rows[b]["kind"] != "template":
            ends = [rows[i]["original"] or rows[i]["id"] for i in (a, b)]
            if ends[0] == ends[1]:
                continue
        common = len(grams[a] & grams[b])
        worst = max(worst, common / (len(grams[a]) + len(grams[b]) - common))
    assert 0.2 < worst < 0.5


def test_the_seed_alone_decides(corpus: pa.Table) -> None:
    """The same seed gives the same table, another one other texts."""
    assert make(seed=0).equals(corpus)
    assert set(make(seed=1)["text"].to_pylist()).isdisjoint(corpus["text"].to_pylist())


def test_engine_finds_what_is_planted_and_nothing_else(corpus: pa.Table) -> None:
    """Every pair from 0.8 on is found; each removed document names its own partner, which is kept."""
    given = {"id": corpus["id"], "text": corpus["text"], "content_hash": corpus["id"]}
    columns = [
        given.get(name, pa.repeat(pa.scalar("" if type_ == pa.string() else 0, type_), len(corpus)))
        for name, type_ in zip(DOCUMENTS.names, DOCUMENTS.types, strict=True)
    ]
    table, config = pa.Table.from_arrays(columns, schema=DOCUMENTS), DedupConfig()
    signatures = [sign_documents(table, config)]
    new = NewDocuments(documents=[table], signatures=signatures, sources=[""])
    removed = {
        row["id"]: row["duplicate_of"]
        for row in near_duplicates(new, None, config).removed.to_pylist()
    }
    rows = {row["id"]: row for row in corpus.to_pylist()}
    for name, kept in removed.items():
        pair = next((rows[a] for a, b in ((name, kept), (kept, name)) if rows[a]["original"] == b))
        assert kept not in removed
        assert pair["jaccard"] >= config.threshold or pair["containment"] >= config.containment
    for row in rows.values():
        if row["original"] and row["jaccard"] >= 0.8:
            assert row["id"] in removed or row["original"] in removed
