"""From kept documents to token shards: who validates, and each document's tokens in one row."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tokenizer import encode
from storage.errors import ConfigError
from storage.schema import tokens_schema

SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which documents are held out to validate on."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    validation: float = 0.05
    """Share of the documents, in [0, 0.5]; with 0 no domain is given a validation document either."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation <= 0.5:
            raise ConfigError(
                f"split.validation: expected a number in [0, 0.5], got {self.validation}"
            )


def split_of(content_hash: str, fraction: float) -> str:
    """Give "validation" to a `fraction` of all content hashes, else "train"; depends on nothing else."""
    return SPLITS[int(content_hash[:16], 16) < fraction * 2.0**64]


def assign_splits(
    documents: pa.Table,
    fraction: float,
    known_domains: Collection[str],
    inherited: Mapping[str, str],
) -> pa.Array:
    """Split the new documents of a snapshot: a table (id, domain, content_hash, num_bytes) to an array of splits.

    A document in `inherited` has the split that it inherits, any other that of its content hash. Where a domain comes
    for the first time (is not in `known_domains`) and has two documents or more, each split gets at least one: of
    those not larger than half of the domain, the one with the lowest hash goes to validation; if all hash to
    validation, the largest trains. A domain's only document trains. The order of rows does not matter.
    """
    ids, hashes = documents["id"].to_pylist(), documents["content_hash"].to_pylist()
    splits = [
        inherited.get(identity) or split_of(content_hash, fraction)
        for identity, content_hash in zip(ids, hashes, strict=True)
    ]
    if fraction > 0:
        sizes = documents["num_bytes"].to_pylist()
        by_domain: dict[str, list[int]] = {}
        for row, domain in enumerate(documents["domain"].to_pylist()):
            by_domain.setdefault(domain, []).append(row)
        for domain, rows in by_domain.items():
            if domain in known_domains:
                continue
            free = [row for row in rows if ids[row] not in inherited]
            found = {splits[row] for row in rows}
            if free and found == {"validation"}:
                splits[max(free, key=lambda row: (sizes[row], hashes[row], ids[row]))] = "train"
                found = {splits[row] for row in rows}
            limit = sum(sizes[row] for row in rows) / 2
            small = [row for row in free if sizes[row] <= limit]
            if small and found == {"train"} and len(rows) > 1:
                splits[min(small, key=lambda row: (hashes[row], ids[row]))] = "validation"
    return pa.array(splits, pa.string())


def encode_shard(documents: pa.Table, model: bytes, vocab_size: int) -> dict[str, pa.Table]:
    """Encode a DOCUMENTS table into one token table for each split, rows in the documents' order.

    Each row begins with BOS; see `storage.schema.tokens_schema`. A table may be empty.
    """
    schema = tokens_schema(vocab_size)
    return {
        split: _encode(documents.filter(pc.equal(documents["split"], split)), model, schema)
        for split in SPLITS
    }


def _encode(documents: pa.Table, model: bytes, schema: pa.Schema) -> pa.Table:
    tokens, offsets = encode(model, documents["text"].to_pylist())
    item = schema.field("tokens").type
    lists = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(tokens, item.value_type), type=item
    )
    columns = [documents["id"], documents["domain"], lists, documents["num_bytes"]]
    return pa.Table.from_arrays(columns, schema=schema)
