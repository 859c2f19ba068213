"""How fast texts become shingles and signatures, beside datasketch's fastest bulk path, rensa and gaoya.

    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 python tests/bench/signatures.py [FILE...]

Reads JSONL files (plain, xz or zst; field `text`; without FILE, those of the shipped quick-start) and draws documents of
log-normal length (median 2.5 KB) from them, 20 MB in all. Everything is word 5-grams and 128 values. Checks that our
kernels give the bits of plain NumPy and of datasketch, then lets all sides take turns and prints MB of text per
CPU-second (median of ROUNDS), our ratio, and our stages one by one. With the hash "sha1" our signatures are those of
`datasketch.MinHash()` and `update` for each shingle, which takes part with shingles that are made beforehand (its own
time alone) and with Python making them. rensa and gaoya take part if they are installed; they have hashes of their own,
so their outputs cannot be compared bit for bit.
"""

import importlib
import json
import lzma
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import zstandard
from datasketch import MinHash

from pipeline import minhash

ROUNDS = 5
SIZE = 20_000_000
PEER_SIZE = 2_000_000  # of the same documents: datasketch would take a minute for all
BY_SHA1 = "shingle and sign, SHA-1"
WORD = re.compile(r"\w+")
ROOT = Path(__file__).parents[2]


def read_documents(files: list[Path]) -> list[str]:
    """Pieces of the files' texts, from places drawn at random."""
    texts = []
    for file in files:
        open_file = {".xz": lzma.open, ".zst": zstandard.open}.get(file.suffix, open)
        with open_file(file, "rt") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    whole = "\n".join(texts)
    rng = np.random.default_rng(0)
    documents, size = [], 0
    while size < SIZE:
        begin, length = rng.integers(len(whole)), int(rng.lognormal(np.log(2500), 0.8))
        documents.append(whole[begin : begin + length])
        size += len(documents[-1].encode())
    return documents


def word_ngrams(text: str) -> list[str]:
    """Distinct word 5-grams as Python strings, which is what the peers take."""
    words = WORD.findall(text.lower())
    return list({" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))})


def datasketch_update(shingles: list[list[bytes]]) -> np.ndarray:
    """datasketch's defaults, one call of `update` a shingle, as most programs use it."""
    signatures = []
    for document in shingles:
        signature = MinHash(num_perm=128, seed=1)
        for data in document:
            signature.update(data)
        signatures.append(signature.hashvalues)
    return np.array(signatures)


def datasketch_own(documents: list[str]) -> np.ndarray:
    """datasketch as it is meant: SHA-1 of each shingle, one call a document."""
    shingles = ([gram.encode() for gram in word_ngrams(text)] for text in documents)
    return np.array([m.hashvalues for m in MinHash.generator(shingles, num_perm=128)])


def datasketch_fastest(documents: list[str]) -> np.ndarray:
    """datasketch without SHA-1, which is its most costly part: Python's own hash of the 5-gram."""
    shingles = (word_ngrams(text) for text in documents)
    options = {"num_perm": 128, "hashfunc": lambda gram: hash(gram) & 0xFFFFFFFF}
    return np.array([m.hashvalues for m in MinHash.generator(shingles, **options)])


def rensa_matrix(documents: list[str]) -> object:
    """rensa's bulk call for full sets."""
    from rensa import RMinHash  # may not be installed

    return RMinHash.digest_matrix_from_token_sets(map(word_ngrams, documents), 128, 1)


def gaoya_index(documents: list[str]) -> object:
    """gaoya splits, signs and fills its buckets in one call, and offers no signature alone."""
    from gaoya.minhash import MinHashStringIndex  # may not be installed

    options = {"analyzer": "word", "lowercase": True, "ngram_range": (5, 5)}
    index = MinHashStringIndex(32, 0.7, 25, 5, 125, **options)
    index.par_bulk_insert_docs(list(range(len(documents))), documents)
    return index


def check_bits(documents: list[str]) -> list[list[bytes]]:
    """Our kernels against plain NumPy and datasketch, over the documents that the peers get; gives their shingles."""
    sys.path.insert(0, str(ROOT / "tests" / "pipeline"))
    reference = importlib.import_module("numpy_minhash")
    texts, domains = pa.array(documents), pa.array(["web"] * len(documents))
    hashes, offsets = reference.shingle_texts(documents, domains.to_pylist())
    found, ends = minhash.shingle_texts(texts, domains)
    signatures, _ = minhash.sign_texts(texts, domains)
    assert found.tobytes() == hashes.tobytes() and ends.tobytes() == offsets.tobytes()
    assert signatures.tobytes() == reference.sign(hashes, offsets).tobytes()
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        expected = MinHash(128, seed=1, hashfunc=int, scheme="affine32")
        expected.update_batch((hashes[begin:end] & np.uint64(0xFFFFFFFF)).tolist())
        assert (signatures[row] == expected.hashvalues).all()
    shingles = [reference.shingle_bytes(text, "web") for text in documents]
    by_sha1, _ = minhash.sign_texts(texts, domains, hash="sha1")
    assert by_sha1.tobytes() == datasketch_update(shingles).tobytes()
    print(
        f"bits equal to NumPy and datasketch, both hashes: {len(documents):,} documents, {len(hashes):,} shingles"
    )
    return shingles


def speeds(sides: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """MB per CPU-second of each side, the median of rounds in which they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (run, _) in sides.items():
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    return {
        name: size / statistics.median(seconds[name]) / 1e6 for name, (_, size) in sides.items()
    }


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The name of this machine's processor."""
    information = Path("/proc/cpuinfo")
    found = (
        re.search(r"model name\s*: (.*)", information.read_text()) if information.exists() else None
    )
    return found[1] if found else platform.processor()


def main() -> None:
    """Check, measure, print."""
    files = [Path(name) for name in sys.argv[1:]]
    files = files or sorted((ROOT / "flows" / "recipes").rglob("*.jsonl.[xz]*"))
    begin = time.perf_counter(), time.process_time()
    minhash.shingle("compiles or loads")
    print(
        f"{processor()}, {len(os.sched_getaffinity(0))} cores; numba {version('numba')}; ", end=""
    )
    print(f"first call {time.process_time() - begin[1]:.2f} CPU-s")
    documents = read_documents(files)
    few, size = [], 0
    while size < PEER_SIZE:
        few.append(documents[len(few)])
        size += len(few[-1].encode())
    shingles = check_bits(few)

    texts, domains = pa.array(documents), pa.array(["web"] * len(documents))
    hashes, offsets = minhash.shingle_texts(texts, domains)
    signatures = minhash.sign(hashes, offsets)
    whole = sum(len(text.encode()) for text in documents)
    print(
        f"{len(documents):,} documents, {whole / 1e6:.1f} MB, {len(hashes):,} distinct shingles\n"
    )
    ours = {
        "check UTF-8": lambda: texts.validate(full=True),
        "shingle (distinct, sorted)": lambda: minhash.shingle_texts(texts, domains),
        "sign (given shingles)": lambda: minhash.sign(hashes, offsets),
        "band keys": lambda: minhash.band_keys(signatures, bands=25, rows=5),
        "shingle and sign": lambda: minhash.sign_texts(texts, domains),
        BY_SHA1: lambda: minhash.sign_texts(texts, domains, hash="sha1"),
    }
    sides = {name: (run, whole) for name, run in ours.items()}
    given = f"datasketch {version('datasketch')}, update, shingles given"
    own = f"datasketch {version('datasketch')}, update"
    peers = {
        own: lambda part: datasketch_update(
            [[gram.encode() for gram in word_ngrams(text)] for text in part]
        ),
        f"datasketch {version('datasketch')}, SHA-1": datasketch_own,
        f"datasketch {version('datasketch')}, fastest": datasketch_fastest,
    }
    if number := installed("rensa"):
        peers[f"rensa {number}"] = rensa_matrix
    if number := installed("gaoya"):
        peers[f"gaoya {number} (with its index)"] = gaoya_index
    sides |= {name: ((lambda run=run: run(few)), size) for name, run in peers.items()}
    sides[given] = (lambda: datasketch_update(shingles), size)
    found = speeds(sides)
    for name, speed in found.items():
        print(f"{name:42}{speed:10.2f} MB/CPU-s", end="")
        if name not in ours:
            print(f"{found['shingle and sign'] / speed:8.0f} x slower", end="")
            print(f", {found[BY_SHA1] / speed:6.1f} x than with SHA-1", end="")
        print()


if __name__ == "__main__":
    main()
