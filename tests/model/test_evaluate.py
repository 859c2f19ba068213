"""Bits per byte are what they say: counted over the text's own bytes, beside a unigram model of the training tokens."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.config import TrainConfig
from model.device import autocast
from model.evaluate import Evaluator, token_num_bytes
from model.gpt import GPT
from model.loader import open_streams
from model.sample import load_tokenizer
from storage.snapshot import Snapshot

TinyConfig = Callable[..., TrainConfig]
MakeSnapshot = Callable[..., Snapshot]
FP32 = autocast(torch.device("cpu"), torch.float32)


def test_bytes_of_tokens_sum_to_bytes_of_texts(make_snapshot: MakeSnapshot) -> None:
    """Letters without a token of their own, spaces, newlines and digits are all counted."""
    texts = [
        "a word  and   spaces\n\n\tmore 1234",
        "Gr\u00fc\u00dfe, \u4f60\u597d \U0001f600",
        "<s> \u2581 x",
    ]
    snapshot = make_snapshot([("web", text * 3, "train") for text in texts], vocab_size=330)
    num_bytes = token_num_bytes(load_tokenizer(snapshot))
    for shard in snapshot.shards("tokens", split="train"):
        table = snapshot.open(shard)
        counted = [int(num_bytes[row].sum()) for row in table["tokens"].to_pylist()]
        assert counted == table["num_bytes"].to_pylist()


def test_the_figures_are_those_of_their_definition(
    snapshot: Snapshot, tiny_config: TinyConfig
) -> None:
    """A model that guesses, scored on the whole split: log V nats a token; the unigram model counted by hand."""
    tokenizer = load_tokenizer(snapshot)
    model = GPT(tiny_config().model_config(tokenizer.vocab_size()))
    torch.nn.init.zeros_(model.embedding.weight)
    found = Evaluator(snapshot, tokenizer, 16).evaluate(model, max_tokens=10**9, autocast=FP32)
    assert found["loss"] == pytest.approx(math.log(tokenizer.vocab_size()))

    def texts(split: str) -> list[list[int]]:
        tables = [snapshot.open(shard) for shard in snapshot.shards("tokens", split=split)]
        return [row for table in tables for row in table["tokens"].to_pylist()]

    counts = Counter(token for row in texts("train") for token in row if token != 1)
    total = sum(counts.values()) + tokenizer.vocab_size() - 1
    bits, num_bytes = 0.0, 0
    for row in texts("validation"):
        bits -= sum(math.log2((counts[token] + 1) / total) for token in row[1:])
        num_bytes += int(token_num_bytes(tokenizer)[row].sum())
    assert found["bytes"] == num_bytes == sum(d["bytes"] for d in found["domains"].values())
    assert found["tokens"] == sum(len(row) - 1 for row in texts("validation"))
    assert found["unigram_bits_per_byte"] == pytest.approx(bits / num_bytes)
    assert found["bits_per_byte"] == pytest.approx(
        found["loss"] * found["tokens"] / math.log(2) / num_bytes
    )
    assert set(found["domains"]) == {"poetry", "science", "web"}


def test_a_part_stands_for_the_whole(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """Every domain is scored, and the mean over all weighs domains as the whole split does."""
    tokenizer = load_tokenizer(snapshot)
    model = GPT(tiny_config().model_config(tokenizer.vocab_size()))
    evaluator = Evaluator(snapshot, tokenizer, 8)
    whole = evaluator.evaluate(model, max_tokens=10**9, autocast=FP32)
    part = evaluator.evaluate(model, max_tokens=120, autocast=FP32)
    assert (
        part["tokens"] < whole["tokens"] / 2 and part["domains"].keys() == whole["domains"].keys()
    )
    assert part["unigram_bits_per_byte"] == pytest.approx(whole["unigram_bits_per_byte"], rel=0.1)


def test_without_a_validation_split_there_are_no_figures(
    make_snapshot: MakeSnapshot, tiny_config: TinyConfig
) -> None:
    snapshot = make_snapshot([("poetry", "some words " * 9, "train")], num_shards=1, vocab_size=330)
    tokenizer = load_tokenizer(snapshot)
    model = GPT(tiny_config().model_config(tokenizer.vocab_size()))
    assert Evaluator(snapshot, tokenizer, 16).evaluate(model, max_tokens=9, autocast=FP32) == {}
    assert np.array_equal([s.domain for s in open_streams(snapshot, "train")], ["poetry"])
