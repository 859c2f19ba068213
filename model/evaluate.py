"""How well a model predicts the validation split: nats per token and bits per byte, per domain, beside a unigram model.

Bits per byte do not depend on the tokenizer, so they compare across vocabularies. BOS, which ends a document, is no
text: as a target it is left out of every figure.
"""

from typing import Any

import numpy as np
import sentencepiece as spm
import torch
from numpy.typing import NDArray

from model.checkpoint import run_hash
from model.device import autocast, pick_device, pick_dtype
from model.gpt import GPT
from model.loader import Stream, batch_of, open_streams
from model.loss import IGNORE, token_losses
from model.records import begun_run
from model.sample import load_run
from storage.catalog import resolve_tokenizer
from storage.errors import ConfigError
from storage.lake import Lake
from storage.snapshot import Snapshot

_BATCH_TOKENS = 4096
_LEAST_WINDOWS = 4
"""Windows that even a small domain gets in an evaluation of part of the split."""


def token_num_bytes(tokenizer: spm.SentencePieceProcessor) -> NDArray[np.int64]:
    """UTF-8 bytes of text that each token stands for; 0 for control tokens. Over a document they sum to its size."""

    def num_bytes(token: int) -> int:
        if tokenizer.is_control(token) or tokenizer.is_unknown(token):
            return 0
        if tokenizer.is_byte(token):
            return 1
        return len(tokenizer.id_to_piece(token).replace("\u2581", " ").encode())

    return np.array([num_bytes(token) for token in range(tokenizer.vocab_size())], np.int64)


class Evaluator:
    """The validation split of a snapshot, and the unigram model of its training split."""

    def __init__(
        self, snapshot: Snapshot, tokenizer: spm.SentencePieceProcessor, seq_len: int
    ) -> None:
        self.seq_len = seq_len
        streams = open_streams(snapshot, "validation")
        self.streams = [stream for stream in streams if stream.num_windows(seq_len)]
        self.num_bytes = token_num_bytes(tokenizer)
        self.bos = tokenizer.bos_id()
        self.unigram_nats = _unigram_nats(
            open_streams(snapshot, "train"), tokenizer.vocab_size(), self.bos
        )

    def evaluate(self, model: GPT, *, max_tokens: int, autocast: torch.autocast) -> dict[str, Any]:
        """Score about `max_tokens` tokens, windows evenly spread over all domains in proportion to their size.

        Returns {"loss", "bits_per_byte", "unigram_bits_per_byte", "tokens", "bytes", "domains": {domain: the same},
        "share": part of the split that was asked for, 1 for all of it}, empty if there is nothing to validate on. The
        same share is the same sample, whatever the model. Where part of a domain is scored, the figures over all domains weigh
        it as the whole. Windows do not overlap, so a token sees at most seq_len before it, half of that on average.
        """
        share = self.share(max_tokens)
        domains: dict[str, dict[str, Any]] = {}
        sums: dict[str, float] = dict.fromkeys(("nats", "unigram_nats", "tokens", "bytes"), 0.0)
        for domain in sorted({stream.domain for stream in self.streams}):
            streams = [stream for stream in self.streams if stream.domain == domain]
            num_windows = sum(stream.num_windows(self.seq_len) for stream in streams)
            num_scored = min(num_windows, max(_LEAST_WINDOWS, round(share * num_windows)))
            scored = np.unique(np.linspace(0, num_windows - 1, num_scored).round().astype(np.int64))
            with autocast:
                found = self._score(model, streams, scored)
            if not found["bytes"]:
                continue
            domains[domain] = _figures(found)
            for key, value in found.items():
                sums[key] += value * num_windows / len(scored)
        if not domains:
            return {}
        counts = {key: sum(row[key] for row in domains.values()) for key in ("tokens", "bytes")}
        return _figures(sums) | counts | {"domains": domains, "share": share}

    def share(self, max_tokens: int) -> float:
        """Part of the split that so many tokens are, at most 1."""
        total = sum(stream.num_windows(self.seq_len) for stream in self.streams)
        return min(1.0, max_tokens / max(1, total * self.seq_len))

    @torch.no_grad()
    def _score(
        self, model: GPT, streams: list[Stream], scored: NDArray[np.int64]
    ) -> dict[str, float]:
        """Sums over the chosen windows of one domain's streams."""
        sums = {"nats": 0.0, "unigram_nats": 0.0, "tokens": 0, "bytes": 0}
        ends = np.cumsum([stream.num_windows(self.seq_len) for stream in streams])
        owners = np.searchsorted(ends, scored, side="right")
        parts = [
            stream.read(
                scored[owners == number] - (ends[number] - stream.num_windows(self.seq_len)),
                self.seq_len,
            )
            for number, stream in enumerate(streams)
        ]
        tokens, rows = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        device = model.output_VC.device
        step = max(1, _BATCH_TOKENS // self.seq_len)
        for begin in range(0, len(tokens), step):
            batch = batch_of(tokens[begin : begin + step], rows[begin : begin + step])
            targets_N = batch.targets_BT.masked_fill(batch.targets_BT == self.bos, IGNORE).flatten()
            hidden_BTC = model(batch.tokens_BT.to(device), batch.documents_BT.to(device))
            losses_N = token_losses(hidden_BTC.flatten(0, 1), model.output_VC, targets_N.to(device))
            counted = targets_N[targets_N != IGNORE].numpy()
            sums["nats"] += losses_N.double().sum().item()
            sums["unigram_nats"] += float(self.unigram_nats[counted].sum())
            sums["tokens"] += len(counted)
            sums["bytes"] += int(self.num_bytes[counted].sum())
        return sums


def evaluate_run(lake: Lake, run: str, snapshot: Snapshot, *, max_tokens: int) -> dict[str, Any]:
    """Score a run's newest checkpoint on a snapshot's validation split, which may be newer than what it trained on.

    Returns {"run", "run_hash", "step", "snapshot", "snapshot_hash", "evaluation": as `Evaluator.evaluate`}. Raises
    NotFoundError without a checkpoint, CorruptError if it is damaged: an older one in its place would be another model.
    ConfigError if the snapshot's tokens are of another tokenizer.
    """
    digest = run_hash(lake, run)
    loaded = load_run(lake, run)
    trained_on, config = begun_run(lake, run)
    checksums = [
        (found.manifest.tokenizer or {}).get("checksum")
        for found in (snapshot, resolve_tokenizer(lake, trained_on))
    ]
    if checksums[0] != checksums[1]:
        raise ConfigError(
            f"run '{run}': expected a snapshot of its tokenizer, that of {trained_on}; {snapshot.ref} has another one"
        )
    device = pick_device(config)
    model = loaded.model.to(device)
    found = Evaluator(snapshot, loaded.tokenizer, model.config.seq_len).evaluate(
        model, max_tokens=max_tokens, autocast=autocast(device, pick_dtype(config, device))
    )
    return {
        "run": run,
        "run_hash": digest,
        "step": loaded.step,
        "snapshot": snapshot.ref,
        "snapshot_hash": snapshot.hash,
        "evaluation": found,
    }


def _figures(sums: dict[str, float]) -> dict[str, Any]:
    bits = 1 / (np.log(2) * sums["bytes"])
    return {
        "loss": sums["nats"] / sums["tokens"],
        "bits_per_byte": float(sums["nats"] * bits),
        "unigram_bits_per_byte": float(sums["unigram_nats"] * bits),
        "tokens": sums["tokens"],
        "bytes": sums["bytes"],
    }


def _unigram_nats(streams: list[Stream], vocab_size: int, bos: int) -> NDArray[np.float64]:
    """-log of each token's frequency in the streams, one added to every count; BOS left out. One pass."""
    counts = np.ones(vocab_size)
    for stream in streams:
        for offset, length in zip(stream.offsets, np.diff(stream.starts), strict=True):
            counts += np.bincount(stream.flat[offset : offset + length], minlength=vocab_size)
    counts[bos] = 0
    with np.errstate(divide="ignore"):  # BOS, which is never looked up
        return np.log(counts.sum()) - np.log(counts)
