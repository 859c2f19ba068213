"""Batches are a function of snapshot, seed and number; every token is learnt from, and every sample has an origin."""

import functools
import operator
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.loader import Loader, Stream, open_streams
from model.loss import IGNORE
from storage.errors import CorruptError, InputError
from storage.snapshot import Snapshot

MakeSnapshot = Callable[..., Snapshot]


def load(snapshot: Snapshot, seq_len: int = 16, batch_size: int = 4, seed: int = 0) -> Loader:
    return Loader(snapshot, batch_size=batch_size, seq_len=seq_len, seed=seed)


def samples_of_epoch(loader: Loader, epoch: int) -> list[int]:
    """The samples from the positions of one epoch, wherever batches begin and end."""
    size = loader.samples_per_epoch
    batches = range(epoch * size // loader.batch_size, (epoch + 1) * size // loader.batch_size + 1)
    drawn = np.concatenate([loader.samples(k) for k in batches])
    begin = epoch * size - batches[0] * loader.batch_size
    return drawn[begin : begin + size].tolist()


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_has_each_sample_exactly_once(snapshot: Snapshot, epoch: int) -> None:
    loader = load(snapshot)
    samples = samples_of_epoch(loader, epoch)
    assert sorted(samples) == list(range(loader.samples_per_epoch))
    assert samples != samples_of_epoch(loader, epoch + 1)
    assert samples != samples_of_epoch(load(snapshot, seed=1), epoch)


def test_batches_can_be_asked_for_in_any_order(snapshot: Snapshot) -> None:
    """The loader has no state: a new one gives the same batch without the ones before."""
    loader = load(snapshot)
    batches = [loader.batch(k) for k in range(30)]
    for k in [29, 3, 17]:
        fresh = load(snapshot).batch(k)
        assert torch.equal(fresh.tokens_BT, batches[k].tokens_BT)
        assert torch.equal(fresh.documents_BT, batches[k].documents_BT)
        assert torch.equal(fresh.targets_BT, batches[k].targets_BT)


def test_the_order_does_not_depend_on_the_batch_size(snapshot: Snapshot) -> None:
    small, large = load(snapshot, batch_size=3), load(snapshot, batch_size=12)
    ordered = np.concatenate([small.samples(k) for k in range(12)])
    assert np.array_equal(ordered, np.concatenate([large.samples(k) for k in range(3)]))


@pytest.mark.parametrize("seq_len", [2, 16, 1000])
def test_every_token_but_a_streams_first_is_a_target_once(snapshot: Snapshot, seq_len: int) -> None:
    loader = load(snapshot, seq_len=seq_len, batch_size=1)
    found: Counter[int] = Counter()
    for k in range(loader.samples_per_epoch):
        targets = loader.batch(k).targets_BT
        found.update(targets[targets != IGNORE].tolist())
    expected: Counter[int] = Counter()
    for stream in open_streams(snapshot, "train"):
        ends = stream.offsets + np.diff(stream.starts)
        tokens = [
            token
            for begin, end in zip(stream.offsets, ends, strict=True)
            for token in stream.flat[begin:end].tolist()
        ]
        expected.update(tokens[1:])
    assert found == expected


def test_a_sample_is_what_its_origin_says(snapshot: Snapshot) -> None:
    """The rows that provenance names hold the sample's tokens, in that order; documents change where rows do."""
    loader = load(snapshot, seq_len=40)
    tables = {shard.path: snapshot.open(shard) for shard in snapshot.shards("tokens")}
    for k in range(10):
        batch = loader.batch(k)
        for origin, tokens, documents, sample in zip(
            loader.provenance(k),
            batch.tokens_BT,
            batch.documents_BT,
            loader.samples(k),
            strict=True,
        ):
            assert origin.sample == sample
            table = tables[origin.path]
            rows = [row for first, last in origin.rows for row in range(first, last)]
            assert set(table["domain"].take(rows).to_pylist()) == {origin.domain}
            text = [(row, token) for row in rows for token in table["tokens"][row].as_py()]
            seen = [
                (int(row), int(token))
                for row, token in zip(documents, tokens, strict=True)
                if row >= 0
            ]
            begins = [n for n in range(len(text)) if text[n : n + len(seen)] == seen]
            assert begins and {row for row, _ in seen} <= set(rows)


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_mix_is_honoured(make_snapshot: MakeSnapshot, epoch: int) -> None:
    """Half an epoch of one domain, two and a half of another, none of a third, one of the one not named."""
    documents = [
        (domain, f"{domain} text number {n} with some words", "train")
        for domain in ("half", "more", "none", "unnamed")
        for n in range(20)
    ]
    epochs = {"half": 0.5, "more": 2.5, "none": 0.0, "absent": 1.0}
    loader = load(make_snapshot(documents, epochs=epochs), seq_len=8)
    sizes = dict(zip(loader.domains, loader.sizes.tolist(), strict=True))
    origins = Counter(
        (loader.origin(sample).domain, sample) for sample in samples_of_epoch(loader, epoch)
    )
    by_domain: Counter[str] = Counter()
    for (domain, _), times in origins.items():
        by_domain[domain] += times
        assert times in {"half": (1,), "more": (2, 3), "unnamed": (1,)}[domain]
    assert by_domain == {
        "half": round(sizes["half"] / 2),
        "more": round(sizes["more"] * 2.5),
        "unnamed": sizes["unnamed"],
    }


def test_half_epochs_take_turns(make_snapshot: MakeSnapshot) -> None:
    """What one epoch leaves out the next one takes, before anything comes again."""
    documents = [("only", f"text number {n} with some words", "train") for n in range(40)]
    loader = load(make_snapshot(documents, epochs={"only": 0.5}, num_shards=1), seq_len=8)
    size = int(loader.sizes[0])
    drawn = functools.reduce(
        operator.iadd, (samples_of_epoch(loader, epoch) for epoch in range(4)), []
    )
    assert max(Counter(drawn).values()) - min(Counter(drawn).values()) <= 1
    assert set(drawn) == set(range(size))


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    gaps=st.lists(st.booleans(), min_size=12, max_size=12),
    seq_len=st.integers(2, 20),
)
def test_windows_cut_a_stream_without_loss(
    lengths: list[int], gaps: list[bool], seq_len: int
) -> None:
    """Rows of one domain with rows of another between them: windows put end to end are the rows put end to end."""
    offsets = np.cumsum([0, *lengths])
    flat = np.arange(offsets[-1], dtype=np.uint16)
    rows = np.array([row for row in range(len(lengths)) if gaps[row]] or [0])
    starts = np.concatenate([[0], np.cumsum(np.diff(offsets)[rows])])
    stream = Stream("path", "domain", rows, starts, offsets[rows], flat)
    tokens, owners = stream.read(np.arange(stream.num_windows(seq_len)), seq_len)
    whole = np.concatenate([flat[offsets[row] : offsets[row + 1]] for row in rows])
    is_target = owners[:, 1:] >= 0
    assert np.array_equal(tokens[:, 1:][is_target], whole[1:])
    for window, (its_tokens, its_owners) in enumerate(zip(tokens, owners, strict=True)):
        for token, owner in zip(its_tokens, its_owners, strict=True):
            assert owner < 0 or offsets[owner] <= token < offsets[owner + 1]
        named = [
            row for first, last in stream.row_ranges(window, seq_len) for row in range(first, last)
        ]
        assert set(its_owners[its_owners >= 0]) <= set(named) <= set(rows)


def test_tokens_are_not_copied(snapshot: Snapshot) -> None:
    for stream in open_streams(snapshot, "train"):
        assert not stream.flat.flags.owndata and not stream.flat.flags.writeable


def test_a_damaged_shard_is_named_before_training(snapshot: Snapshot) -> None:
    shard = snapshot.shards("tokens", split="train")[1]
    path = snapshot.lake.local_path(shard.path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=f"{shard.path}: expected sha256 {shard.checksum}, got"):
        load(snapshot)


def test_nothing_to_train_on_is_said(make_snapshot: MakeSnapshot) -> None:
    documents = [("poetry", "some words to validate on", "validation")]
    with pytest.raises(InputError, match=r"tiny@1: expected tokens to train on, found none"):
        load(make_snapshot(documents, num_shards=1, vocab_size=330))
