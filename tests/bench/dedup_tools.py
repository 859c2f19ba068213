"""The tools that `dedup.py` compares, each from texts in memory to the rows that it would remove.

    python dedup_tools.py TOOL CORPUS BANDS ROWS RESULT

Runs one tool once, in this process, after a warm-up on a few documents, and writes RESULT (JSON): CPU and wall seconds,
peak memory beyond what was resident before, removed rows, and for ours what it says of each. Needs pyarrow and the tool,
not gristmill, so that a peer can have an environment of its own. `python dedup_tools.py` alone prints the tools that are
installed and their versions.

Every tool gets the same documents in the same order, makes word 5-grams in the way that its users do, and keeps the
first of near-duplicates (ours and datatrove choose for themselves). A threshold, where a tool has one, is 0.7.
"""

import ctypes
import gc
import json
import os
import re
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

THRESHOLD = 0.7
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Tool:
    """One way to find near-duplicates."""

    package: str
    how: str
    """What is run, in words."""
    run: Callable[[Any, int, int], "Found"]
    """(texts, bands, rows) -> what it found."""
    is_slow: bool = False
    """Run on a small corpus."""
    takes: str = "list"
    """Texts as a list of str, or as an Arrow table with id and text."""


@dataclass(frozen=True)
class Found:
    """Row numbers of the documents to remove, and (row, kept row, similarity, rule) if the tool says so."""

    removed: Sequence[int]
    claims: Sequence[tuple[int, int, float, str]] = ()
    keeps_one: bool = True
    """False: `removed` has all members of each group, because the tool does not choose one."""


def word_ngrams(text: str) -> list[str]:
    """Distinct word 5-grams as strings, for tools that take tokens."""
    words = _WORD.findall(text.lower())
    return list({" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))})


# ---- gristmill


def gristmill_verified(table: pa.Table, bands: int, rows: int) -> Found:
    """The engine as `build` runs it: signatures, candidates, exact verification of each, kept set."""
    from pipeline.dedup import NewDocuments, near_duplicates
    from pipeline.minhash import sign_documents

    config = _config(bands, rows)
    documents = _documents(table)
    signatures = [sign_documents(part, config) for part in documents]
    new = NewDocuments(documents=documents, signatures=signatures, sources=["bench"])
    removed = near_duplicates(new, None, config).removed
    return Found(*_rows_of(table["id"], removed))


def gristmill_sha1(table: pa.Table, bands: int, rows: int) -> Found:
    """The same as `gristmill_bands` with the signatures of datasketch's defaults."""
    return gristmill_bands(table, bands, rows, hash="sha1")


def gristmill_bands(table: pa.Table, bands: int, rows: int, hash: Any = "mix") -> Found:
    """Signatures, sorted band keys and connected components, nothing verified: what the peers do."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from pipeline.minhash import band_keys, sign_texts

    size = len(table)
    keys = np.empty((bands, size), np.uint64)
    filled = 0
    for part in table.to_batches():
        domains = pa.nulls(len(part), pa.string())
        signatures, _ = sign_texts(part["text"], domains, hash=hash)
        keys[:, filled : filled + len(part)] = band_keys(signatures, bands=bands, rows=rows).T
        filled += len(part)
    ends, others = [], []
    for column in keys:
        order = np.argsort(column)
        ordered = column[order]
        same = np.flatnonzero(ordered[1:] == ordered[:-1])
        ends.append(order[same])
        others.append(order[same + 1])
    a, b = np.concatenate(ends), np.concatenate(others)
    graph = coo_array((np.ones(len(a), np.bool_), (a, b)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    _, firsts = np.unique(labels, return_index=True)
    is_removed = np.ones(size, np.bool_)
    is_removed[firsts] = False
    return Found(np.flatnonzero(is_removed).tolist())


def _config(bands: int, rows: int) -> Any:
    from pipeline.dedup import DedupConfig

    return DedupConfig(threshold=THRESHOLD, bands=bands, rows=rows)


def _documents(table: pa.Table) -> list[pa.Table]:
    """DOCUMENTS tables of the corpus. The content hash is the id: no tool is told which texts are equal."""
    from storage.schema import DOCUMENTS

    parts = []
    for batch in table.to_batches():
        given = {"id": batch["id"], "text": batch["text"], "content_hash": batch["id"]}
        columns = [given.get(field.name, _constant(field, len(batch))) for field in DOCUMENTS]
        parts.append(pa.Table.from_arrays(columns, schema=DOCUMENTS))
    return parts


def _constant(field: pa.Field, size: int) -> pa.Array:
    values = {"source": "bench", "domain": "web", "split": "train"}
    value = values.get(field.name, "" if field.type == pa.string() else 0)
    return pa.repeat(pa.scalar(value, field.type), size)


def _rows_of(ids: pa.ChunkedArray, removed: pa.Table) -> tuple[list[int], list[tuple]]:
    columns = removed["id"].chunks + removed["duplicate_of"].chunks
    rows = pc.index_in(pa.chunked_array(columns, pa.string()), ids.combine_chunks()).to_pylist()
    place, kept = rows[: len(removed)], rows[len(removed) :]
    claims = zip(
        place, kept, removed["similarity"].to_pylist(), removed["rule"].to_pylist(), strict=True
    )
    return place, list(claims)


# ---- peers


def datasketch_update(texts: list[str], bands: int, rows: int) -> Found:
    """As its documentation shows: `update` for every shingle, then its LSH."""
    from datasketch import MinHash

    def signed() -> Iterator[Any]:
        for text in texts:
            signature = MinHash(num_perm=bands * rows)
            for gram in word_ngrams(text):
                signature.update(gram.encode())
            yield signature

    return _datasketch_lsh(signed(), bands, rows)


def datasketch_bulk(texts: list[str], bands: int, rows: int) -> Found:
    """Its fastest way: a generator of signatures over whole sets, Python's hash instead of SHA-1."""
    from datasketch import MinHash

    options = {"num_perm": bands * rows, "hashfunc": lambda gram: hash(gram) & 0xFFFFFFFF}
    shingles = map(word_ngrams, texts)
    return _datasketch_lsh(MinHash.generator(shingles, **options), bands, rows)


def _datasketch_lsh(signatures: Iterator[Any], bands: int, rows: int) -> Found:
    from datasketch import MinHashLSH

    lsh = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    removed = []
    for row, signature in enumerate(signatures):
        if lsh.query(signature):
            removed.append(row)
        else:
            lsh.insert(row, signature, check_duplication=False)
    return Found(removed)


def rensa(texts: list[str], bands: int, rows: int) -> Found:
    """RMinHashDeduplicator over full sets, in one call."""
    from rensa import RMinHashDeduplicator

    deduplicator = RMinHashDeduplicator(
        threshold=THRESHOLD, num_perm=bands * rows, use_lsh=True, num_bands=bands
    )
    is_kept = deduplicator.add_pairs((str(i), word_ngrams(text)) for i, text in enumerate(texts))
    return Found([row for row, kept in enumerate(is_kept) if not kept])


def rensa_matrix(texts: list[str], bands: int, rows: int) -> Found:
    """Its bulk path: a matrix of full-set signatures, then flags of rows that share a band."""
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets(map(word_ngrams, texts), bands * rows, 1)
    return _rensa_flags(matrix, RMinHashLSH(THRESHOLD, bands * rows, bands))


def rensa_rho(texts: list[str], bands: int, rows: int) -> Found:
    """Its fast sketch, which looks at a part of the shingles only."""
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets_rho(map(word_ngrams, texts), bands * rows, 1)
    return _rensa_flags(matrix, RMinHashLSH(THRESHOLD, bands * rows, bands))


def _rensa_flags(matrix: Any, lsh: Any) -> Found:
    flags = lsh.query_duplicate_flags_matrix_one_shot(matrix)
    return Found([row for row, flag in enumerate(flags) if flag], keeps_one=False)


def gaoya(texts: list[str], bands: int, rows: int) -> Found:
    """MinHashStringIndex: splits, signs and indexes in Rust; then each document is asked for."""
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(
        32, THRESHOLD, bands, rows, None, "word", lowercase=True, ngram_range=(5, 5)
    )
    index.par_bulk_insert_docs(list(range(len(texts))), texts)
    removed: set[int] = set()
    for row, similar in enumerate(index.par_bulk_query(texts)):
        if any(other < row and other not in removed for other in similar):
            removed.add(row)
    return Found(sorted(removed))


def gaoya_index(texts: list[str], bands: int, rows: int) -> Found:
    """The same without the question: splits, signs and fills its buckets, and finds nothing."""
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(
        32, THRESHOLD, bands, rows, None, "word", lowercase=True, ngram_range=(5, 5)
    )
    index.par_bulk_insert_docs(list(range(len(texts))), texts)
    return Found([])


def text_dedup(texts: list[str], bands: int, rows: int) -> Found:
    """Its own steps (embed_func with xxh3, tables, union-find) on lists, without the Hugging Face data set around."""
    import numpy as np
    from text_dedup.minhash import RNG, SIGNATURE_COLUMN, UnionFind, embed_func
    from text_dedup.utils import xxh3_32hash

    size, prime = bands * rows, np.uint64((1 << 61) - 1)
    options = {
        "num_perm": size,
        "ngram_size": 5,
        "min_length": 5,
        "hashranges": [(i * rows, (i + 1) * rows) for i in range(bands)],
        "permutations": (
            RNG.randint(1, prime, size=size, dtype=np.uint64),
            RNG.randint(0, prime, size=size, dtype=np.uint64),
        ),
        "hash_func": xxh3_32hash,
        "dtype": np.uint64,
        "max_hash": np.uint32((1 << 32) - 1),
        "modulo_prime": prime,
    }
    tables: list[dict[bytes, set[int]]] = [{} for _ in range(bands)]
    for row, text in enumerate(texts):
        signature = embed_func(text, row, **options)[SIGNATURE_COLUMN]
        for table, band in zip(tables, signature, strict=True):
            table.setdefault(band, set()).add(row)
    clusters = UnionFind()
    for table in tables:
        for members in table.values():
            first = min(members)
            for member in members if len(members) > 1 else ():
                clusters.union(member, first)
    return Found([row for row in range(len(texts)) if clusters.find(row) != row])


def datatrove(texts: list[str], bands: int, rows: int) -> Found:
    """Its four steps through files, with its English word splitter."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash

    config = minhash.MinhashConfig(n_grams=5, num_buckets=bands, hashes_per_bucket=rows)
    with tempfile.TemporaryDirectory() as name:
        signed, paired, chosen = (f"{name}/{part}" for part in ("signed", "paired", "chosen"))
        documents = (Document(text=text, id=str(i)) for i, text in enumerate(texts))
        minhash.MinhashDedupSignature(signed, config).run(documents, 0, 1)
        for band in range(bands):
            minhash.MinhashDedupBuckets(signed, paired, config=config).run(None, band, bands)
        minhash.MinhashDedupCluster(paired, chosen, config).run(None, 0, 1)
        file = Path(chosen) / "000000.remove"
        rest = file.read_bytes() if file.exists() else b""
    return Found([row for (row,) in struct.iter_unpack("<I", rest)])


TOOLS = {
    "gristmill, bands alone": Tool(
        "gristmill", "signatures, sorted band keys, components", gristmill_bands, takes="arrow"
    ),
    "gristmill": Tool(
        "gristmill", "the engine, every pair verified", gristmill_verified, takes="arrow"
    ),
    "gristmill, sha1": Tool(
        "gristmill", "bands alone, datasketch's default signatures", gristmill_sha1, takes="arrow"
    ),
    "gaoya": Tool("gaoya", "index and a query a document", gaoya),
    "gaoya, index only": Tool("gaoya", "index, no query", gaoya_index),
    "rensa": Tool("rensa", "RMinHashDeduplicator", rensa),
    "rensa, matrix": Tool("rensa", "full-set matrix, flags", rensa_matrix),
    "rensa, rho": Tool("rensa", "sampled (rho) matrix, flags", rensa_rho),
    "datasketch, bulk": Tool(
        "datasketch", "generator, Python's hash", datasketch_bulk, is_slow=True
    ),
    "datasketch": Tool("datasketch", "update a shingle", datasketch_update, is_slow=True),
    "text-dedup": Tool("text-dedup", "embed_func, xxh3", text_dedup, is_slow=True),
    "datatrove": Tool("datatrove", "four stages", datatrove, is_slow=True),
}


def memory(field: str) -> int:
    """Bytes of a field of this process's status: VmRSS (resident) or VmHWM (its highest)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024  # pyright: ignore


def measure(tool: Tool, path: Path, bands: int, rows: int) -> dict[str, Any]:
    """Run it once and give what it took and found."""
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all().select(["id", "text"])
    num_bytes = pc.sum(pc.binary_length(table["text"])).as_py()
    texts: Any = table if tool.takes == "arrow" else table["text"].to_pylist()
    if tool.takes != "arrow":
        del table
    tool.run(texts[:200], bands, rows)  # imports, compiles
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = memory("VmRSS")
    begun, cpu = time.perf_counter(), _cpu()
    found = tool.run(texts, bands, rows)
    return {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": _cpu() - cpu,
        "beyond_text_bytes": memory("VmHWM") - before,
        "text_bytes": num_bytes,
        "documents": len(texts),
        "removed": list(map(int, found.removed)),
        "claims": list(found.claims),
        "keeps_one": found.keeps_one,
    }


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def installed() -> dict[str, str]:
    """Version of each package that this Python has."""
    found = {}
    for package in sorted({tool.package for tool in TOOLS.values()}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Run one tool, or say which there are."""
    if len(sys.argv) == 1:
        print(json.dumps(installed()))
        return
    name, corpus, bands, rows, result = sys.argv[1:]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    Path(result).write_text(json.dumps(measure(TOOLS[name], Path(corpus), int(bands), int(rows))))


if __name__ == "__main__":
    main()
