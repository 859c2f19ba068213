"""From token shards to batches: batch k is a function of snapshot, seed and k, so the loader's state is one integer.

Samples are windows of seq_len tokens over the rows of one domain in one shard, computed, never stored: the shard's flat
token buffer stays a memory map. A keyed permutation orders them; see `Loader` for the mix of domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.loss import IGNORE
from model.permutation import permute
from storage.errors import InputError
from storage.snapshot import Snapshot

# Dimensions: B samples, T time


@dataclass(frozen=True)
class Batch:
    """Samples as tensors, all (B, T) and int64."""

    tokens_BT: Tensor
    """Token ids; 0 where a stream has ended."""
    targets_BT: Tensor
    """The token that follows, IGNORE where there is none."""
    documents_BT: Tensor
    """Row of the token's document in its shard, -1 where there is none: attention stays within equal numbers."""


@dataclass(frozen=True, eq=False)
class Stream:
    """The documents of one domain in one shard, end to end. Each begins with BOS, so the BOS after it ends it."""

    path: str
    """Shard."""
    domain: str
    rows: NDArray[np.int64]
    """Rows of the shard, ascending."""
    starts: NDArray[np.int64]
    """Position in this stream at which each row begins, and the stream's length."""
    offsets: NDArray[np.int64]
    """Position in `flat` at which each row begins."""
    flat: NDArray[np.integer]
    """All tokens of the shard, memory-mapped."""

    @property
    def num_tokens(self) -> int:
        return int(self.starts[-1])

    def num_windows(self, seq_len: int) -> int:
        """Windows that predict each token but the first once; the last may be shorter than seq_len."""
        return -(-max(self.num_tokens - 1, 0) // seq_len)

    def read(
        self, windows: NDArray[np.int64], seq_len: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of windows with the one after, and the shard's row of each, (n, T + 1); 0 and -1 past the end."""
        positions = windows[:, None] * seq_len + np.arange(seq_len + 1)
        is_inside = positions < self.num_tokens
        positions = np.minimum(positions, self.num_tokens - 1)
        index = np.searchsorted(self.starts, positions, side="right") - 1
        tokens = self.flat[self.offsets[index] + positions - self.starts[index]].astype(np.int64)
        return np.where(is_inside, tokens, 0), np.where(is_inside, self.rows[index], -1)

    def row_ranges(self, window: int, seq_len: int) -> list[tuple[int, int]]:
        """Rows of the shard, as [first, last) ranges, that a window and its last target take tokens from."""
        first, last = window * seq_len, min((window + 1) * seq_len, self.num_tokens - 1)
        begin, end = np.searchsorted(self.starts, [first, last], side="right") - 1
        rows = self.rows[begin : end + 1]
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        return [(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, cuts)]


def open_streams(snapshot: Snapshot, split: str) -> list[Stream]:
    """The streams of a split, by domain, then in the order of the manifest, without the rows that tombstones hide.

    Checksums are verified; nothing is copied.
    """
    streams = []
    for shard in snapshot.shards("tokens", split=split):
        table = snapshot.open_whole(shard)  # whole, so that a row's number is that in the file
        if not len(table):
            continue
        visible = snapshot.visible(shard, table)
        counts = True if visible is None else visible.to_numpy(zero_copy_only=False)
        tokens = table["tokens"].chunk(0)
        flat = tokens.values.to_numpy(zero_copy_only=True)
        offsets = tokens.offsets.to_numpy().astype(np.int64)
        domains = table["domain"].to_numpy(zero_copy_only=False)
        for domain in sorted(set(domains)):
            rows = np.flatnonzero((domains == domain) & (np.diff(offsets) > 0) & counts)
            starts = np.concatenate([[0], np.cumsum(np.diff(offsets)[rows])])
            streams.append(Stream(shard.path, domain, rows, starts, offsets[rows], flat))
    return sorted(streams, key=lambda stream: stream.domain)  # stable


def batch_of(tokens: NDArray[np.int64], rows: NDArray[np.int64]) -> Batch:
    """What `Stream.read` gave, as tensors of inputs and targets."""
    targets = np.where(rows[:, 1:] < 0, IGNORE, tokens[:, 1:])
    arrays = tokens[:, :-1], targets, rows[:, :-1]
    return Batch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


@dataclass(frozen=True)
class SampleOrigin:
    """Where a sample came from."""

    sample: int
    """Number of the sample among all of the snapshot's."""
    domain: str
    path: str
    """Shard."""
    rows: list[tuple[int, int]]
    """Rows of the shard, as [first, last) ranges."""


class Loader:
    """Training batches of a snapshot, in an order that seed and data alone decide.

    Samples are numbered by domain, shard and place. An epoch goes through each domain as often as the manifest's mix
    says: `epochs` times its samples, in one shuffle of all domains. Within a domain, samples are drawn pass by pass
    across epochs, each exactly once a pass; with one pass a domain, that is each sample exactly once an epoch.
    """

    def __init__(
        self, snapshot: Snapshot, *, batch_size: int, seq_len: int, seed: int, split: str = "train"
    ) -> None:
        """Raises InputError if there is nothing to train on."""
        self.batch_size, self.seq_len, self.seed = batch_size, seq_len, seed
        streams = [s for s in open_streams(snapshot, split) if s.num_windows(seq_len)]
        mix: Mapping[str, Mapping[str, float]] = snapshot.manifest.summary.get("mix", {})
        self.streams = streams
        self.ends = np.cumsum([stream.num_windows(seq_len) for stream in streams], dtype=np.int64)
        """One past the number of each stream's last sample."""
        self.domains = sorted({stream.domain for stream in streams})
        sizes = [
            sum(s.num_windows(seq_len) for s in streams if s.domain == domain)
            for domain in self.domains
        ]
        self.sizes = np.array(sizes, np.int64)
        epochs = [mix.get(domain, {}).get("epochs", 1.0) for domain in self.domains]
        self.draws = np.array(
            [round(size * times) for size, times in zip(sizes, epochs, strict=True)], np.int64
        )
        """Samples of each domain in an epoch."""
        self.samples_per_epoch = int(self.draws.sum())
        if not self.samples_per_epoch:
            raise InputError(
                f"{snapshot.ref}: expected tokens to train on, found none in the split '{split}'; "
                "see what was kept with 'gristmill inspect', and the recipe's mix.weights"
            )

    def samples(self, k: int) -> NDArray[np.int64]:
        """Numbers of batch k's samples, in order."""
        positions = np.arange(k * self.batch_size, (k + 1) * self.batch_size)
        epochs, positions = np.divmod(positions, self.samples_per_epoch)
        samples = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            is_here = epochs == epoch
            slots = permute(positions[is_here], self.samples_per_epoch, self.seed, int(epoch))
            samples[is_here] = self._draw(slots, int(epoch))
        return samples

    def _draw(self, slots: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Samples in the slots of an epoch: a domain's slots lie side by side, and draw its passes one after another."""
        samples = np.empty(len(slots), np.int64)
        slot_ends, sample_ends = np.cumsum(self.draws), np.cumsum(self.sizes)
        owners = np.searchsorted(slot_ends, slots, side="right")
        for owner in np.unique(owners):
            domain, size, draws = self.domains[owner], int(self.sizes[owner]), self.draws[owner]
            is_its = owners == owner
            drawn = slots[is_its] - (slot_ends[owner] - draws) + epoch * draws
            passes, places = np.divmod(drawn, size)
            images = np.empty(len(drawn), np.int64)
            for number in np.unique(passes):
                is_now = passes == number
                images[is_now] = permute(places[is_now], size, self.seed, domain, int(number))
            samples[is_its] = sample_ends[owner] - size + images
        return samples

    def batch(self, k: int) -> Batch:
        """Batch k as tensors."""
        samples = self.samples(k)
        tokens = np.empty((self.batch_size, self.seq_len + 1), np.int64)
        rows = np.empty_like(tokens)
        owners = np.searchsorted(self.ends, samples, side="right")
        for owner in np.unique(owners):
            stream, is_its = self.streams[owner], owners == owner
            windows = samples[is_its] - (self.ends[owner] - stream.num_windows(self.seq_len))
            tokens[is_its], rows[is_its] = stream.read(windows, self.seq_len)
        return batch_of(tokens, rows)

    def provenance(self, k: int) -> list[SampleOrigin]:
        """Shard and rows of each sample of batch k."""
        return [self.origin(int(sample)) for sample in self.samples(k)]

    def origin(self, sample: int) -> SampleOrigin:
        """Shard and rows of a sample, by its number in the ledger."""
        owner = int(np.searchsorted(self.ends, sample, side="right"))
        stream = self.streams[owner]
        window = sample - int(self.ends[owner] - stream.num_windows(self.seq_len))
        ranges = stream.row_ranges(window, self.seq_len)
        return SampleOrigin(sample, stream.domain, stream.path, ranges)
