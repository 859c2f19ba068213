"""Signatures in a lake: a corpus keeps to the hash and the shingles that it began with, and says so at once."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from datasketch import LeanMinHash, MinHash

from pipeline.build import BuildConfig, build
from pipeline.dedup import DedupConfig
from pipeline.minhash import NUM_PERM, read_signatures
from storage.catalog import resolve
from storage.errors import ConfigError
from storage.lake import Lake

from .numpy_minhash import shingle_bytes
from .test_build import prose, write_corpus


def signed(config: BuildConfig, **settings: object) -> BuildConfig:
    """The recipe with other settings of its section [dedup]."""
    return replace(config, dedup=replace(config.dedup, **settings))


def add_books(root: Path) -> None:
    """Give the corpus something new to read."""
    (root / "books" / "more.txt").write_text(prose(77), "utf8")


def kept_and_signed(lake: Lake) -> tuple[pa.Table, pa.Table]:
    """Documents and signatures of the corpus."""
    snapshot = resolve(lake, "tiny")
    tables = (
        pa.concat_tables(map(snapshot.open, snapshot.shards(kind))).sort_by("id")
        for kind in ("documents", "signatures")
    )
    documents, signatures = tables
    return documents, signatures


def test_a_corpus_of_sha1_signatures_is_datasketch_s(tmp_path: Path) -> None:
    """Whichever hash a recipe names, the same documents stay; with sha1 the stored rows are datasketch's own values."""
    config, kept = write_corpus(tmp_path / "recipe"), {}
    for hash_ in ("mix", "sha1"):
        lake = Lake.open(tmp_path / hash_)
        build(signed(config, hash=hash_), lake, root=tmp_path / "recipe")
        add_books(tmp_path / "recipe")
        build(signed(config, hash=hash_), lake, root=tmp_path / "recipe")
        (tmp_path / "recipe" / "books" / "more.txt").unlink()
        documents, signatures = kept_and_signed(lake)
        kept[hash_] = documents["id"].to_pylist()
    assert kept["mix"] == kept["sha1"] == signatures["id"].to_pylist()
    rows = zip(documents["text"].to_pylist(), documents["domain"].to_pylist(), strict=True)
    for row, (text, domain) in zip(read_signatures(signatures), rows, strict=True):
        expected = MinHash(num_perm=NUM_PERM)
        for data in shingle_bytes(text, domain):
            expected.update(data)
        assert LeanMinHash(expected) == LeanMinHash(seed=1, hashvalues=row, scheme="affine32")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hash": "sha1"}, r"tiny@1, .* with hash 'sha1', got hash 'mix'; .* put dedup.hash = \"mix\" into the recipe"),
        ({"ngram": 4}, r"with ngram 4, got ngram 5; .* put dedup.ngram = 5 into the recipe, or build the corpus anew"),
    ],
)  # fmt: skip
def test_a_recipe_that_signs_otherwise_is_refused_before_any_work(
    tmp_path: Path, settings: dict, message: str
) -> None:
    """Nothing is written, and with the old settings the build goes through; bands may change at any time."""
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    config = write_corpus(root)
    build(config, lake, root=root)
    add_books(root)
    before = sorted(
        (path, path.stat().st_mtime_ns) for path in (tmp_path / "lake").rglob("*.arrow")
    )
    with pytest.raises(ConfigError, match=message):
        build(signed(config, **settings), lake, root=root)
    after = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "lake").rglob("*.arrow"))
    assert after == before
    assert build(signed(config, bands=16, rows=8), lake, root=root).snapshot == "tiny@2"


def test_the_recipe_names_the_hash() -> None:
    """A hash that does not exist is refused before anything is read."""
    with pytest.raises(ConfigError, match=r"dedup.hash: expected mix or sha1, got 'md5'"):
        DedupConfig(hash="md5")  # pyright: ignore[reportArgumentType]
