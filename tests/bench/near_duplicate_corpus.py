"""A corpus in which the truth about near-duplicates is known: natural texts that are all different, and planted copies.

    python tests/bench/near_duplicate_corpus.py FOLDER --documents 20000

Natural texts are runs of lines and sentences of real text (the shipped quick-start, Python's own files, installed
packages) in random order: words and their neighbours are as frequent as in text, while two documents share a run at
most. Their sizes are log-normal, median 2.5 KB, mean 3.7 KB. Of all documents, PLANTED are made from another one, each
from one of its own: copies, new layout, edited words, boilerplate around it, a part of it. `template` documents come in
groups that share about half their text and differ in the rest: no duplicates, but hard to tell from some.

The similarity of each planted pair is computed by Python sets. The corpus is a function of (texts found, documents,
seed) and is written once: FOLDER/near-duplicates-DOCUMENTS-SEED-FORMAT-TEXTS.arrow.
"""

import argparse
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
from text_pools import Pool, read_pools

PLANTED = {
    "exact": 0.06,
    "layout": 0.04,
    "edits_1": 0.04,
    "edits_5": 0.04,
    "edits_10": 0.04,
    "edits_20": 0.03,
    "edits_30": 0.03,
    "frame": 0.04,
    "contained": 0.03,
    "template": 0.05,
}
"""Share of each kind among all documents; edits_P has P per cent of its words changed."""
MEDIAN_BYTES, SIGMA, LEAST_BYTES = 2500, 0.9, 400
FORMAT = 1
"""Grows when the same arguments give another corpus."""
NGRAM, CONTAINMENT_NGRAM = 5, 3

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("kind", pa.string()),
        ("original", pa.string()),
        ("jaccard", pa.float64()),
        ("jaccard_plain", pa.float64()),
        ("containment", pa.float64()),
    ]
)
"""`original` is the document this one was made from (of a template, the group's first) and the similarities are those
of the two: of word 5-grams as `pipeline/minhash.py` defines words and as `\\w+` does, and the share of the shorter
one's 3-grams in the longer. Null for natural texts."""

_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+|\W+")


def make_corpus(pools: Sequence[Pool], documents: int, seed: int) -> Iterator[dict]:
    """Rows of SCHEMA in random order, without similarities."""
    rng = np.random.default_rng(seed)
    counts = {kind: round(share * documents) for kind, share in PLANTED.items()}
    copies = [kind for kind, count in counts.items() if kind != "template" for _ in range(count)]
    num_natural = documents - sum(counts.values())
    if num_natural < len(copies):
        raise ValueError(f"expected 10 documents at least, got {documents}")
    ids = [blake2b(f"{seed}/{i}".encode(), digest_size=16).hexdigest() for i in range(documents)]
    natural = [_natural(pools, rng) for _ in range(num_natural)]
    templates = list(_templates(pools, counts["template"], rng))
    frames = [
        [_natural(pools, rng, int(rng.integers(60, 500))).split() for _ in ("head", "tail")]
        for _ in range(40)
    ]
    order = rng.permutation(documents)
    originals = rng.permutation(num_natural)
    for i in order.tolist():
        kind, text, original = "natural", "", None
        if i < num_natural:
            text = natural[i]
        elif i < num_natural + len(copies):
            place = i - num_natural
            kind, original = copies[place], int(originals[place])
            # Of its own seed, so that one kind's changes leave the others as they are.
            own = np.random.default_rng([seed, i])
            text = _copy(kind, natural[original], pools, frames, own)
        else:
            first, text = templates[i - num_natural - len(copies)]
            kind = "template"
            original = None if text is templates[first][1] else first + num_natural + len(copies)
        name = None if original is None else ids[original]
        yield {"id": ids[i], "text": text, "kind": kind, "original": name}


def _natural(pools: Sequence[Pool], rng: np.random.Generator, size: int = 0) -> str:
    size = size or max(LEAST_BYTES, int(rng.lognormal(np.log(MEDIAN_BYTES), SIGMA)))
    text = _draw(pools, rng).runs(size, min(400, size // 8), rng)
    end = text.find(" ", size)
    return text[: end if 0 < end < size + 100 else len(text)].strip()


def _draw(pools: Sequence[Pool], rng: np.random.Generator) -> Pool:
    """One of the pools, the larger the likelier."""
    sizes = np.array([len(pool.text) for pool in pools])
    return pools[rng.choice(len(pools), p=sizes / sizes.sum())]


def _words(pools: Sequence[Pool], rng: np.random.Generator, count: int) -> list[str]:
    """That many words, each from another place."""
    pool, words = _draw(pools, rng), []
    while len(words) < count:
        found = _WORD.findall(pool.runs(1, 60, rng))
        words += rng.choice(found, 3).tolist() if found else []
    return words[:count]


def _templates(
    pools: Sequence[Pool], count: int, rng: np.random.Generator
) -> Iterator[tuple[int, str]]:
    """(number of the group's first, text): pages of which 40 to 60 % are the same, in up to 12 places."""
    made = 0
    while made < count:
        first, share = made, rng.uniform(0.4, 0.6)
        common = _TOKEN.findall(_natural(pools, rng))
        own_size = int(sum(map(len, common)) * (1 - share) / share)
        cuts = np.sort(rng.integers(len(common) + 1, size=min(12, own_size // 200)))
        for _ in range(min(int(rng.integers(5, 30)), count - made)):
            own = _TOKEN.findall(_natural(pools, rng, own_size))
            places = np.linspace(0, len(own), len(cuts) + 1).astype(int).tolist()
            pieces, begin = [], 0
            for cut, here, there in zip(cuts.tolist(), places, places[1:], strict=False):
                pieces += [*common[begin:cut], "\n", *own[here:there], "\n"]
                begin = cut
            yield first, "".join([*pieces, *common[begin:]])
            made += 1


def _copy(
    kind: str, text: str, pools: Sequence[Pool], frames: list, rng: np.random.Generator
) -> str:
    if kind == "exact":
        return text
    if kind == "layout":
        return _new_layout(text, rng)
    if kind == "frame":
        words = text.split()
        head, tail = frames[rng.integers(len(frames))]
        most = len(words) // 4  # a longer frame would make strangers in it alike
        return f"{' '.join(head[:most])}\n\n{text}\n\n{' '.join(tail[:most])}\n"
    if kind == "contained":
        tokens = _TOKEN.findall(text)
        length = int(len(tokens) * rng.uniform(0.3, 0.95))
        begin = int(rng.integers(len(tokens) - length + 1))
        return "".join(tokens[begin : begin + length]).strip()
    return _edited(text, int(kind.removeprefix("edits_")) / 100, pools, rng)


def _new_layout(text: str, rng: np.random.Generator) -> str:
    """The same words in other case, white space and punctuation."""
    case = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    tokens = _TOKEN.findall(text.translate(case) if rng.random() < 0.3 else text)
    space = ["  ", "\n", " \t"][rng.integers(3)]
    for i, drawn in enumerate(rng.random(len(tokens)).tolist()):
        if not _WORD.match(tokens[i]):
            if drawn < 0.3:
                tokens[i] = tokens[i].replace(" ", space)
            elif drawn < 0.5:
                tokens[i] = tokens[i].replace(",", ";").replace(".", " ... ").replace('"', "'")
        elif drawn < 0.1 and tokens[i].isascii():
            tokens[i] = tokens[i].swapcase()
    return "".join(tokens)


def _edited(text: str, share: float, pools: Sequence[Pool], rng: np.random.Generator) -> str:
    """Change that share of the words, at least one: in half of the texts here and there, in the others in passages."""
    tokens = _TOKEN.findall(text)
    places = [i for i, token in enumerate(tokens) if _WORD.match(token)]
    count = max(1, round(share * len(places)))
    if rng.random() < 0.5:
        chosen = np.sort(rng.choice(len(places), count, replace=False)).tolist()
    else:
        passages = int(rng.integers(1, 4))
        starts = rng.integers(len(places), size=passages).tolist()
        length = -(-count // passages)
        chosen = sorted({(start + i) % len(places) for start in starts for i in range(length)})
    words = _words(pools, rng, len(chosen))
    for place, word, drawn in zip(chosen, words, rng.random(len(chosen)).tolist(), strict=True):
        old = tokens[places[place]]
        # 60 % replaced, 20 % deleted, 20 % with a new word before them
        tokens[places[place]] = word if drawn < 0.6 else "" if drawn < 0.8 else f"{word} {old}"
    return "".join(tokens)


def similarities(a: str, b: str) -> tuple[float, float, float]:
    """Jaccard of word 5-grams, the same with `\\w+` as words, and the share of the shorter one's 3-grams in the longer."""
    one, other = words_of(a), words_of(b)
    first, second = shingle_set(one, NGRAM), shingle_set(other, NGRAM)
    jaccard = jaccard_plain = _jaccard(first, second)
    if not (a.isascii() and b.isascii()):
        plain = (shingle_set(_WORD.findall(text.lower()), NGRAM) for text in (a, b))
        jaccard_plain = _jaccard(*plain)
    few, fewer = shingle_set(one, CONTAINMENT_NGRAM), shingle_set(other, CONTAINMENT_NGRAM)
    if len(first) < len(second):
        few, fewer = fewer, few
    common = len(few & fewer)
    contained = common / max(len(fewer), 1)
    if len(first) == len(second):
        contained = max(contained, common / max(len(few), 1))
    return jaccard, jaccard_plain, contained


def words_of(text: str) -> list[str]:
    """Words by the definition in `pipeline/minhash.py`: alphanumeric, "_" or combining marks, case folded by character."""
    if text.isascii():
        return _WORD.findall(text.lower())
    return _marked_word().findall(text.translate(_FOLDS))


def shingle_set(words: list[str], ngram: int) -> set[tuple[str, ...]]:
    """Runs of `ngram` words; of fewer words, one of all."""
    if len(words) < ngram:
        return {tuple(words)} if words else set()
    return set(zip(*(words[i:] for i in range(ngram)), strict=False))


def _jaccard(a: set, b: set) -> float:
    common = len(a & b)
    return common / max(len(a) + len(b) - common, 1)


class _Folds(dict):
    """Code point -> folded code point, filled as they come."""

    def __missing__(self, point: int) -> int:
        folded = chr(point).casefold()
        self[point] = ord(folded if len(folded) == 1 else chr(point).lower()[0])
        return self[point]


_FOLDS = _Folds()


@cache
def _marked_word() -> re.Pattern[str]:
    marks = "".join(
        chr(point)
        for point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(point)).startswith("M")
    )
    return re.compile(f"[\\w{re.escape(marks)}]+")


def with_similarities(rows: Sequence[dict]) -> pa.Table:
    """Rows of `make_corpus` as a table of SCHEMA."""
    texts = {row["id"]: row["text"] for row in rows}
    names = ("jaccard", "jaccard_plain", "containment")
    for row in rows:
        if row["original"] is not None:
            found = similarities(row["text"], texts[row["original"]])
            row |= dict(zip(names, found, strict=True))
    return pa.Table.from_pylist(list(rows), SCHEMA)


def open_corpus(folder: Path, documents: int, seed: int = 0) -> Path:
    """Give the file of the corpus; made if there is none, so that packages installed since do not change it."""
    name = f"near-duplicates-{documents}-{seed}-{FORMAT}"
    found = sorted(folder.glob(f"{name}-*.arrow"))
    if found:
        return found[0]
    pools, digest = _cached_pools()
    path = folder / f"{name}-{digest}.arrow"
    folder.mkdir(parents=True, exist_ok=True)
    table = with_similarities(list(make_corpus(pools, documents, seed)))
    unfinished = path.with_suffix(".unfinished")
    with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(table, max_chunksize=10_000)
    return unfinished.replace(path)


@cache
def _cached_pools() -> tuple[list[Pool], str]:
    return read_pools()


def main() -> None:
    """Write a corpus and say what is in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path = open_corpus(options.folder, options.documents, options.seed)
    table = pa.ipc.open_file(path).read_all()
    frame = table.to_pandas()
    frame["bytes"] = frame["text"].str.encode("utf8").str.len()
    print(path, f"{len(frame):,} documents, {frame['bytes'].sum() / 1e6:.1f} MB")
    shown = frame.groupby("kind").agg(
        documents=("id", "size"),
        median_bytes=("bytes", "median"),
        jaccard_min=("jaccard", "min"),
        jaccard_median=("jaccard", "median"),
        jaccard_max=("jaccard", "max"),
        containment_median=("containment", "median"),
    )
    print(shown.round(3).to_string())


if __name__ == "__main__":
    main()
