"""Other people's tools open our shards as they lie, without an importer."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.dataset
import pytest

from storage.lake import Lake
from storage.schema import DUPLICATES
from storage.shard import Shard, write_shard
from storage.snapshot import Snapshot

TEXTS = ["To be, or not to be", "that is the question", "\u2014 \u00e4\u00f6\u00fc \U0001f600"]
TOKENS = [[1, 17, 4095], [1], [1, 2, 3, 4, 5]]


@pytest.fixture
def shards(
    local_lake: Lake, documents: Callable[..., pa.Table], tokens: Callable[..., pa.Table]
) -> list[tuple[Shard, str, str, list]]:
    """(shard, file, column, its values) of a documents, a duplicates and a tokens shard."""
    copies = documents(TEXTS)
    for name, value in (("duplicate_of", "0" * 32), ("similarity", 0.9), ("rule", "contained")):
        copies = copies.append_column(
            DUPLICATES.field(name), pa.array([value] * 3, DUPLICATES.field(name).type)
        )
    stored = write_shard(local_lake, "data/duplicates-00000.arrow", copies.cast(DUPLICATES))
    text = write_shard(local_lake, "data/documents-00000.arrow", documents(TEXTS))
    flat = write_shard(local_lake, "data/tokens-train-00000.arrow", tokens(TOKENS))
    return [
        (text, str(local_lake.local_path(text.path)), "text", TEXTS),
        (stored, str(local_lake.local_path(stored.path)), "text", TEXTS),
        (flat, str(local_lake.local_path(flat.path)), "tokens", TOKENS),
    ]


Shards = list[tuple[Shard, str, str, list]]


def test_datasets_loads_them(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataset("arrow")`, which copies them into its cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # after the variable is set

    datasets.disable_progress_bars()
    for _, file, column, values in shards:
        loaded = datasets.load_dataset(
            "arrow", data_files=file, split="train", cache_dir=str(tmp_path / "hf")
        )
        assert loaded[column] == values


def test_polars_scans_them(shards: Shards) -> None:
    """Lazily, with a column picked."""
    for _, file, column, values in shards:
        assert polars.scan_ipc(file).select(column).collect()[column].to_list() == values


def test_pyarrow_dataset_and_duckdb_query_them(shards: Shards) -> None:
    """duckdb reads Arrow through pyarrow, and pushes down what it needs."""
    for shard, file, column, values in shards:
        corpus = pyarrow.dataset.dataset(file, format="ipc")
        assert corpus.to_table(columns=[column])[column].to_pylist() == values
        assert corpus.count_rows() == shard.rows
        connection = duckdb.connect()
        connection.register("corpus", corpus)
        query = f"select domain, count(*), sum(len({column})) from corpus group by domain"
        assert connection.execute(query).fetchall() == [("poetry", 3, sum(map(len, values)))]


def test_as_hf_wraps_the_memory_map(
    local_lake: Lake, publish: Callable[..., Snapshot], tokens: Callable[..., pa.Table]
) -> None:
    """A `datasets.Dataset` over the same memory: no copy, no cache, and the same fingerprint each time."""
    table = tokens([list(range(4000))] * 200)
    flat = write_shard(
        local_lake, "corpora/poems/data/x/tokens-train-00000.arrow", table, split="train", version=1
    )
    snapshot = publish(local_lake, shards=(flat,))
    snapshot.as_hf("tokens")  # what importing datasets takes is not the question
    before = pa.total_allocated_bytes()
    wrapped = snapshot.as_hf("tokens", split="train")
    assert pa.total_allocated_bytes() - before < 10_000 < flat.num_bytes
    assert len(wrapped) == 200 and wrapped[7]["tokens"] == list(range(4000))
    assert wrapped._fingerprint == snapshot.as_hf("tokens", split="train")._fingerprint


def test_as_hf_gives_documents(lake: Lake, publish: Callable[..., Snapshot]) -> None:
    """All shards of the kind, one after the other."""
    snapshot = publish(lake, texts=("To be", "or not"))
    assert list(snapshot.as_hf()["text"]) == ["To be", "or not"]
