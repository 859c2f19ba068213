"""Splits by content, and token shards that say what the documents say."""

import random
from collections import Counter
from hashlib import blake2b

import pyarrow as pa
import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards import SplitConfig, assign_splits, encode_shard, split_of
from pipeline.tokenizer import BOS, TokenizerConfig, train_tokenizer
from storage.errors import ConfigError
from storage.schema import tokens_schema


def table_of(sizes: list[tuple[str, int]]) -> pa.Table:
    """Documents by (domain, size), with hashes for names."""
    names = [blake2b(str(i).encode(), digest_size=16).hexdigest() for i in range(len(sizes))]
    return pa.table(
        {
            "id": pa.array(names, pa.string()),
            "domain": pa.array([domain for domain, _ in sizes], pa.string()),
            "content_hash": pa.array([name[::-1] for name in names], pa.string()),
            "num_bytes": pa.array([size for _, size in sizes], pa.int64()),
        }
    )


DOCUMENTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1000)), max_size=30)


@given(DOCUMENTS, st.sampled_from([0.0, 0.05, 0.5]), st.sets(st.sampled_from("abc")), st.integers())
@settings(max_examples=200, deadline=None)
def test_splits_follow_content_and_domain(
    sizes: list[tuple[str, int]], fraction: float, known: set[str], seed: int
) -> None:
    """By hash alone in known domains; at least one of each in new ones; the same in any order."""
    table = table_of(sizes)
    splits = assign_splits(table, fraction, known, {}).to_pylist()
    by_hash = [
        split_of(content_hash, fraction) for content_hash in table["content_hash"].to_pylist()
    ]
    domains = table["domain"].to_pylist()
    for domain in set(domains):
        rows = [row for row, other in enumerate(domains) if other == domain]
        found = Counter(splits[row] for row in rows)
        if domain in known or not fraction:
            assert [splits[row] for row in rows] == [by_hash[row] for row in rows]
        else:
            assert found["train"] >= 1
            assert found["validation"] >= (len(rows) > 1)
            assert sum(splits[row] != by_hash[row] for row in rows) <= 1
    order = random.Random(seed).sample(range(len(sizes)), len(sizes))
    shuffled = assign_splits(table.take(pa.array(order, pa.int64())), fraction, known, {})
    assert shuffled.to_pylist() == [splits[row] for row in order]


def test_a_fraction_of_the_documents_validates() -> None:
    """Hashes are even: of 20,000 documents 5 % within half a per cent."""
    hashes = [blake2b(str(i).encode(), digest_size=16).hexdigest() for i in range(20_000)]
    share = sum(split_of(name, 0.05) == "validation" for name in hashes) / len(hashes)
    assert share == pytest.approx(0.05, abs=0.005)
    assert {split_of(name, 0) for name in hashes} == {"train"}
    assert all(
        split_of(n, 0.1) == "validation" for n in hashes if split_of(n, 0.05) == "validation"
    )


def test_inherited_splits_win() -> None:
    """A document that contains a published one has its split, whatever its hash and its domain say."""
    table = table_of([("a", 10)] * 6)
    ids = table["id"].to_pylist()
    for split in ("train", "validation"):
        splits = assign_splits(table, 0.5, set(), dict.fromkeys(ids, split)).to_pylist()
        assert splits == [split] * 6


def test_the_validation_document_of_a_new_domain_is_not_most_of_it() -> None:
    """Of a novel and a few poems the poem validates."""
    sizes = [("a", 1_000_000), ("a", 10), ("a", 12)]
    splits = assign_splits(table_of(sizes), 1e-9, set(), {}).to_pylist()
    assert splits[0] == "train"
    assert Counter(splits)["validation"] == 1


def documents() -> pa.Table:
    """Documents of two splits."""
    texts = ["The mill grinds.", "", "Grain\nand flour \u2581.", "The last one validates."]
    return table_of([("a", len(text.encode())) for text in texts]).append_column(
        "text", pa.array(texts)
    ).append_column("split", pa.array(["train", "train", "train", "validation"]))  # fmt: skip


def test_token_rows_are_the_documents() -> None:
    """Each kept document is one row of its split's table, in order, BOS first, and decodes to its text."""
    table = documents()
    result = train_tokenizer([table], TokenizerConfig(vocab_size=330))
    shards = encode_shard(table, result.model, result.vocab_size)
    assert sorted(shards) == ["train", "validation"]
    processor = spm.SentencePieceProcessor(model_proto=result.model)
    for split, shard in shards.items():
        assert shard.schema.equals(tokens_schema(result.vocab_size), check_metadata=True)
        expected = [row for row in table.to_pylist() if row["split"] == split]
        for row, document in zip(shard.to_pylist(), expected, strict=True):
            assert row["tokens"][0] == BOS
            assert processor.decode(row["tokens"][1:]) == document["text"]
            assert (row["id"], row["num_bytes"]) == (document["id"], document["num_bytes"])


def test_a_split_without_documents_is_an_empty_table() -> None:
    """Nothing to validate on, or no document at all, is no special case."""
    table = documents()
    result = train_tokenizer([table], TokenizerConfig(vocab_size=330))
    assert not len(encode_shard(table[:3], result.model, result.vocab_size)["validation"])
    assert not len(encode_shard(table[:0], result.model, result.vocab_size)["train"])


@pytest.mark.parametrize("fraction", [-0.1, 0.6])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    """The error names the key, what is expected and what came."""
    with pytest.raises(ConfigError, match=r"split.validation: expected a number in \[0, 0.5\]"):
        SplitConfig(validation=fraction)
