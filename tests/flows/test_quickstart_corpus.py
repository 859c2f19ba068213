"""The shipped corpus opens, is small, is licensed, holds what its NOTICE plants, and is what the script makes."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from flows.recipes.build_quickstart import PACKAGES, QUICKSTART, build

MAX_BYTES = 5_000_000
PREPARED = Path(__file__).parents[3] / "shared/data/quickstart"
FILES = sorted(path for path in QUICKSTART.rglob("*") if path.is_file())


def open_bytes(path: Path) -> bytes:
    """Content of a file behind its compression."""
    data = path.read_bytes()
    unpack = {
        ".xz": lzma.decompress,
        ".gz": gzip.decompress,
        ".bz2": bz2.decompress,
        ".zst": _unzst,
    }
    return unpack.get(path.suffix, bytes)(data)


def _unzst(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def rows(path: Path) -> list[dict[str, str]]:
    """Good rows of a table of the corpus."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    data = open_bytes(path)
    if ".csv" in path.name:
        return list(csv.DictReader(io.StringIO(data.decode())))
    return [json.loads(line) for line in data.decode().splitlines()]


def members(data: bytes) -> Iterator[bytes]:
    """The gzip members of a WARC; the last one may be cut off."""
    while data:
        unzip = zlib.decompressobj(wbits=31)
        yield unzip.decompress(data)
        data = unzip.unused_data


TABLES = [
    path
    for path in FILES
    if {".jsonl", ".csv", ".parquet"} & set(path.suffixes)
    and path.name not in ("broken.jsonl", "ARTICLES.csv")
]


def test_corpus_is_at_most_five_megabytes() -> None:
    """What is shipped stays small."""
    assert sum(path.stat().st_size for path in FILES) <= MAX_BYTES


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_rows_have_text_licence_and_unique_ids(path: Path) -> None:
    """Every row of a table can be used and says under which licence."""
    table = rows(path)
    assert len(table) > 40
    assert len({row["id"] for row in table}) == len(table)
    assert all(row["text"].strip() and row["license"] for row in table)
    assert all("\ufffd" not in row["text"] and "\u00c3\u00a4" not in row["text"] for row in table)


@pytest.mark.parametrize("recipe", ["quickstart", "shakespeare"])
def test_every_source_of_the_recipe_has_files_a_domain_and_a_licence(recipe: str) -> None:
    """The recipes point at what is there."""
    folder = QUICKSTART.parent / recipe
    described = tomllib.loads((folder / "recipe.toml").read_text("utf-8"))
    assert described["name"] == recipe
    for source in described["sources"]:
        found = (
            list(folder.glob(source["path"]))
            if "*" in source["path"]
            else [folder / source["path"]]
        )
        assert found and all(path.exists() for path in found), source["path"]
        assert source["domain"] and source["license"]


def test_every_file_belongs_to_a_source_and_is_in_the_notice() -> None:
    """Nothing is shipped without a word on where it is from."""
    notice = (QUICKSTART / "NOTICE").read_text("utf-8")
    for path in FILES:
        name = path.relative_to(QUICKSTART).as_posix()
        folder = name.rsplit("/", 1)[0]
        known = (name, "code/sklearn/", f"{folder}/*{''.join(path.suffixes[-2:])}")
        own = name in ("NOTICE", "recipe.toml") or name.startswith("code/sklearn/")
        assert own or any(word in notice for word in known), name


def test_every_article_is_credited() -> None:
    """CC BY asks for title, authors and source: in the rows, and in a table beside them."""
    credits = {row["doi"]: row for row in rows(QUICKSTART / "science/ARTICLES.csv")}
    for row in rows(QUICKSTART / "science/plos.jsonl.zst"):
        assert credits[row["id"]]["title"] == row["title"]
        assert row["license"] in ("CC-BY", "CC-BY-4.0", "CC0-1.0") and row["authors"]
    web = b"".join(members((QUICKSTART / "web/web.warc.gz").read_bytes())).decode(
        "utf-8", "replace"
    )
    for doi, row in credits.items():
        assert row["file"] != "web/web.warc.gz" or f"doi:{doi}" in web


def test_planted_rows_are_as_broken_as_the_notice_says() -> None:
    """Good rows stand between the broken ones."""
    good = bad = 0
    for line in (QUICKSTART / "conversation/broken.jsonl").read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(line)
            usable = (
                isinstance(row, dict) and isinstance(row.get("text"), str) and bool(row["text"])
            )
        except ValueError:
            usable = False
        good, bad = good + usable, bad + (not usable)
    assert (good, bad) == (8, 8)


def test_web_slice_holds_what_the_notice_plants() -> None:
    """Pages, other records, lies about lengths, and a last member that is cut off."""
    notice = (QUICKSTART / "NOTICE").read_text("utf-8")
    records = list(members((QUICKSTART / "web/web.warc.gz").read_bytes()))
    assert f"{len(records) - 1} records" in notice
    heads = [record.partition(b"\r\n\r\n")[0].decode() for record in records]
    lies = 0
    for head, record in zip(heads[:-1], records, strict=False):
        body = record.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n\r\n")
        lies += f"Content-Length: {len(body)}" not in head
    assert lies == 2
    for site in (
        "meadow",
        "mirror",
        "digest",
        "reader",
        "deals",
        "forum",
        "garden",
        "oldsite",
        "broken",
    ):
        assert any(f"://{site}.example." in head for head in heads), site
        assert f"{site}.example." in notice
    with pytest.raises(EOFError):
        gzip.decompress((QUICKSTART / "web/web.warc.gz").read_bytes())


@pytest.mark.skipif(
    not PREPARED.exists(), reason="texts of an independent extraction are not beside the repository"
)
@pytest.mark.parametrize(
    ("name", "prepared"),
    [("code/scikit-learn.jsonl.xz", "code_sklearn"), ("science/plos.jsonl.zst", "science_plos")],
)
def test_texts_agree_with_an_independent_extraction(name: str, prepared: str) -> None:
    """Where somebody else extracted the same packages, the words are the same but for what NOTICE leaves out."""
    other = {row["id"]: row["text"] for row in rows(PREPARED / f"{prepared}.jsonl.xz")}
    shared = [row for row in rows(QUICKSTART / name) if row["id"] in other]
    assert len(shared) > 20
    for row in shared:
        ours, theirs = set(row["text"].split()), set(other[row["id"]].split())
        assert len(ours & theirs) > 0.9 * len(ours), row["id"]


@pytest.mark.skipif(
    "GRISTMILL_PACKAGES" not in os.environ,
    reason="GRISTMILL_PACKAGES names no folder with the packages that the texts were taken from",
)
def test_rebuilding_gives_the_committed_files(tmp_path: Path) -> None:
    """Same packages, same texts. Packed bytes depend on the versions of the packers, so contents are compared."""
    sizes = build(Path(os.environ["GRISTMILL_PACKAGES"]), tmp_path)
    ours = {path.relative_to(QUICKSTART).as_posix() for path in FILES} - {"NOTICE", "recipe.toml"}
    assert set(sizes) == ours
    for name in sizes:
        committed, rebuilt = QUICKSTART / name, tmp_path / name
        if name.endswith(".parquet"):
            assert rows(committed) == rows(rebuilt)
        elif name.endswith(".warc.gz"):
            assert list(members(committed.read_bytes())) == list(members(rebuilt.read_bytes()))
        else:
            assert open_bytes(committed) == open_bytes(rebuilt), name


def test_packages_are_pinned() -> None:
    """A rebuilt corpus cannot change without somebody changing a version and a checksum."""
    for package in PACKAGES.values():
        assert len(package.sha256) == 64
        assert "==" in "".join(package.pip) or package.npm.count("@") == 1
