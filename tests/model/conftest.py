"""A small snapshot to train on, made by the pipeline's own tokenizer and encoder."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from model.config import TrainConfig
from pipeline.shards import encode_shard
from pipeline.tokenizer import TokenizerConfig, train_tokenizer
from storage.lake import Lake
from storage.schema import DOCUMENTS
from storage.shard import write_shard
from storage.snapshot import Manifest, Snapshot, commit_snapshot

SONG = [
    "the",
    "sea",
    "and",
    "the",
    "sky",
    "are",
    "blue,",
    "a",
    "bird",
    "sang",
    "of",
    "rain",
    "in",
    "spring",
    "while",
    "snow",
    "fell",
    "on",
    "the",
    "hills;",
]
OVERRIDES: dict[str, int | float | bool] = {
    "n_layer": 2, "n_embd": 32, "n_head": 4, "n_kv_head": 2, "head_dim": 8, "ffn_dim": 48,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are faster on one core, and the machine may be busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TinyConfig = Callable[..., TrainConfig]


@pytest.fixture
def tiny_config() -> TinyConfig:
    """A function that gives settings of a run that takes a fraction of a second, with changes."""

    def make(**changes: Any) -> TrainConfig:
        settings: dict[str, Any] = {
            "preset": "1m",
            "overrides": OVERRIDES,
            "seq_len": 16,
            "steps": 6,
            "batch_tokens": 64,
            "warmup_steps": 2,
            "eval_every": 3,
            "eval_tokens": 100,
            "checkpoint_every": 2,
            "sample_tokens": 4,
            "precision": "fp32",
        }
        return TrainConfig(**settings | changes)

    return make


def write_text(begin: int, num_words: int) -> str:
    """Words of a song that goes round, from some word on: easy to learn, but not from frequencies."""
    return " ".join(SONG[word % len(SONG)] for word in range(begin, begin + num_words))


MakeSnapshot = Callable[..., Snapshot]


@pytest.fixture
def make_snapshot(tmp_path: Path) -> MakeSnapshot:
    """A function that publishes documents, given as (domain, text, split), in `num_shards` shards a split."""

    def make(
        documents: list[tuple[str, str, str]],
        *,
        lake: Lake | None = None,
        epochs: dict[str, float] | None = None,
        num_shards: int = 2,
        vocab_size: int = 340,
    ) -> Snapshot:
        lake = lake or Lake.open(tmp_path / "lake")
        table = pa.Table.from_pylist([_document(*row) for row in documents], DOCUMENTS)
        tokenizer = train_tokenizer([table], TokenizerConfig(vocab_size=vocab_size))
        folder = "corpora/tiny/data/00000000000000aa"
        lake.write_bytes(f"{folder}/tokenizer.model", tokenizer.model)
        shards = []
        for number in range(num_shards):
            part = table.take(list(range(number, len(table), num_shards)))
            encoded = encode_shard(part, tokenizer.model, tokenizer.vocab_size)
            for split, tokens in encoded.items():
                path = f"{folder}/tokens-{split}-{number:05}.arrow"
                shards.append(write_shard(lake, path, tokens, split=split, version=1))
        mix = {domain: {"epochs": times} for domain, times in (epochs or {}).items()}
        manifest = Manifest(
            name="tiny",
            version=1,
            build_id="00000000000000aa",
            status="promoted",
            shards=tuple(shards),
            tokenizer={
                "path": f"{folder}/tokenizer.model",
                "checksum": hashlib.sha256(tokenizer.model).hexdigest(),
                "vocab_size": tokenizer.vocab_size,
            },
            summary={"mix": mix},
        )
        return Snapshot(lake, commit_snapshot(lake, manifest))

    return make


def _document(domain: str, text: str, split: str) -> dict[str, object]:
    identity = hashlib.blake2b(f"{domain} {text}".encode(), digest_size=16).hexdigest()
    return {
        "id": identity,
        "text": text,
        "source": "test",
        "uri": "test",
        "domain": domain,
        "license": "",
        "lang": "",
        "lang_score": 0.0,
        "toxicity": 0.0,
        "content_hash": identity,
        "num_bytes": len(text.encode()),
        "split": split,
    }


TINY_DOCUMENTS = [
    (
        domain,
        write_text(5 * number + seed, 20 + 7 * seed),
        "validation" if seed % 5 == 4 else "train",
    )
    for number, domain in enumerate(("poetry", "science", "web"))
    for seed in range(10 + 3 * number)
]


@pytest.fixture
def snapshot(make_snapshot: MakeSnapshot) -> Snapshot:
    """Three domains, two shards a split, documents of 20 to 130 words."""
    return make_snapshot(TINY_DOCUMENTS)
