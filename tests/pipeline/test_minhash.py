"""Shingles against their written definition, signatures against datasketch, band keys against the bands."""

import json
import unicodedata
from itertools import pairwise
from operator import mul
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasketch import LeanMinHash, MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup import DedupConfig
from pipeline.minhash import (
    BLOCK_BYTES,
    EMPTY,
    Hash,
    band_keys,
    check_published,
    check_signatures,
    read_signatures,
    shingle,
    shingle_texts,
    sign,
    sign_documents,
    sign_texts,
)
from pipeline.runs import band_key_run
from storage.errors import CorruptError, GristmillError
from storage.lake import Lake
from storage.schema import BAND_KEYS, SIGNATURE_KEY, SIGNATURES
from storage.shard import write_shard
from storage.snapshot import Manifest, Snapshot

from .numpy_minhash import shown

M64 = (1 << 64) - 1
WORD_BASE, SHINGLE_BASE = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
CHARACTER_SALT, NUM_CHARACTERS = 0xA0761D6478BD642F, 24

MIXED = st.text(
    st.one_of(
        st.sampled_from(
            "ab AB_9.\n\t'-\u00e9\u00df\u0130\u03a3\u03c2\u0301\u200d\u00a0\u3000\u00ad\u200b\ufe0f\ufeff"
        ),
        st.sampled_from("\u4e00\u4e8c\u3042\u30a2\u0e01\u0e31\uac00\u0939\u093f\u0928\u094d"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=120,
)
DOMAINS = st.sampled_from(["web", "code"])


def mix(value: int) -> int:
    """MurmurHash3's 64-bit finalizer."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ (value >> 33)) * factor & M64
    return value ^ (value >> 33)


def fold(character: str) -> str:
    """Case folding of one character to one character."""
    folded = character.casefold()
    return folded if len(folded) == 1 else character.lower()[0]


def is_word(character: str) -> bool:
    """Whether a character belongs to a word."""
    return (
        character == "_" or character.isalnum() or unicodedata.category(character).startswith("M")
    )


def is_unspaced(character: str) -> bool:
    """Whether a character lies in a block of a script without spaces."""
    blocks = (
        (0x0E00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF),
    )  # fmt: skip
    return is_word(character) and any(low <= ord(character) <= high for low, high in blocks)


def slow_shingles(text: str, domain: str, ngram: int = 5) -> list[int]:
    """Shingles as the module's docstring defines them, one character at a time."""
    text = shown(text)
    words = "".join(fold(c) if is_word(c) else " " for c in text).split(" ")
    values = [
        mix(sum(ord(c) * pow(WORD_BASE, i, 1 << 64) for i, c in enumerate(word)) & M64)
        for word in words
        if word
    ]
    width, salt = ngram, 0
    num_word = sum(map(is_word, text))
    if domain == "code" or 2 * sum(map(is_unspaced, text)) > num_word:
        values = [ord(fold(c)) for c in text if not c.isspace()]
        width, salt = NUM_CHARACTERS, CHARACTER_SALT
    runs = [values[i : i + width] for i in range(max(len(values) - width + 1, min(len(values), 1)))]
    powers = [pow(SHINGLE_BASE, j, 1 << 64) for j in range(width)]
    return sorted({mix(sum(map(mul, run, powers)) + salt & M64) for run in runs})


@given(st.lists(st.tuples(MIXED, DOMAINS), max_size=6), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_shingles_follow_their_definition(documents: list[tuple[str, str]], ngram: int) -> None:
    """Any texts of any scripts, together in one call, have the shingles of the slow definition."""
    texts, domains = [text for text, _ in documents], [domain for _, domain in documents]
    hashes, offsets = shingle_texts(
        pa.array(texts, pa.string()), pa.array(domains, pa.string()), ngram=ngram
    )
    found = [hashes[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]
    assert found == [slow_shingles(text, domain, ngram) for text, domain in documents]


@pytest.mark.parametrize("domain", ["web", "code"])
def test_a_long_text_follows_the_definition(domain: str) -> None:
    """Many blocks of words, and a word longer than any table of powers."""
    text = (
        " ".join(f"word{i % 977} na\u00efve{i}" for i in range(6000)) + "x" * 70000 + " end of it"
    )
    assert shingle(text, domain).tolist() == slow_shingles(text, domain)


@pytest.mark.parametrize(
    ("one", "other", "domain"),
    [
        ("The quick brown Fox, jumps over!", "the  quick\nbrown fox jumps -- OVER", "web"),
        ("def f(x):\n    return x + 1  # plus one", "def f(x):\n\treturn x+1 # plus one", "code"),
        ("\u039f\u0394\u039f\u03a3 \u03ba\u03b1\u03b9", "\u03bf\u03b4\u03bf\u03c2 \u039a\u0391\u0399", "web"),
        ("\u4eca\u65e5\u306f\u3001\u3044\u3044\u5929\u6c17\u3067\u3059\u3002", "\u4eca\u65e5\u306f\u3001 \u3044\u3044\n\u5929\u6c17\u3067\u3059\u3002", "web"),
    ],
)  # fmt: skip
def test_layout_and_case_do_not_matter(one: str, other: str, domain: str) -> None:
    """Texts that differ in white space, case and (between words) punctuation alone are alike."""
    assert shingle(one, domain).tolist() == shingle(other, domain).tolist()


def test_vowel_signs_belong_to_their_word() -> None:
    """Hindi words that differ in a vowel sign alone are different words."""
    assert shingle("\u0915\u0940 \u0915\u093e", ngram=1).size == 2


def test_short_texts_have_one_shingle_and_wordless_ones_none() -> None:
    """A text below `ngram` words is compared as a whole; punctuation is like nothing else."""
    assert [shingle(text).size for text in ("one two", "one", "?!", "", " \n")] == [1, 1, 0, 0, 0]
    assert shingle("one two").tolist() != shingle("two one").tolist()


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_signatures_are_datasketch_s(sizes: list[int], seed: int) -> None:
    """Each row equals datasketch's MinHash of the low 32 bits; documents without shingles are empty ones."""
    hashes = np.random.default_rng(seed).integers(0, 1 << 64, sum(sizes), np.uint64)
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    signatures = sign(hashes, offsets)
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        expected = MinHash(num_perm=128, seed=1, hashfunc=int, scheme="affine32")
        expected.update_batch([value & 0xFFFFFFFF for value in hashes[begin:end].tolist()])
        assert signatures[row].tolist() == expected.hashvalues.tolist()


def test_documents_over_several_blocks_sign_as_one() -> None:
    """A document's minimum is taken over all the blocks that it spans, its neighbours' untouched."""
    sizes = [3, 0, 50_000, 1, 0, 4095, 4096, 4097, 16_384, 7]
    hashes = np.random.default_rng(0).integers(0, 1 << 64, sum(sizes), np.uint64)
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    together = sign(hashes, offsets)
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        part = hashes[begin:end]
        expected = np.full(128, EMPTY)
        for piece in np.array_split(part, max(1, len(part) // 1000)):
            piece_signature = sign(piece, np.array([0, len(piece)]))[0]
            expected = np.minimum(expected, piece_signature)
        assert together[row].tolist() == expected.tolist()


def test_stored_rows_open_as_lean_minhash() -> None:
    """A stored signature estimates the Jaccard similarity through datasketch's own classes."""
    text = " ".join(f"w{i}" for i in range(400))
    table = sign_documents(documents([text, text.replace("w7 ", "x7 ")]), DedupConfig())
    rows = read_signatures(table)
    one, other = (LeanMinHash(seed=1, hashvalues=row, scheme="affine32") for row in rows)
    assert one.jaccard(other) == pytest.approx(391 / 401, abs=0.05)


def slow_shingle_bytes(text: str, domain: str, ngram: int) -> set[bytes]:
    """The bytes of shingles as the module's docstring defines them."""
    text = shown(text)
    words = "".join(fold(c) if is_word(c) else " " for c in text).split(" ")
    units, width, gap = [word for word in words if word], ngram, " "
    if domain == "code" or 2 * sum(map(is_unspaced, text)) > sum(map(is_word, text)):
        units, width, gap = [fold(c) for c in text if not c.isspace()], NUM_CHARACTERS, ""
    last = max(len(units) - width, 0)
    return {gap.join(units[i : i + width]).encode() for i in range(last + 1) if units}


LONG_WORDS = st.builds(
    lambda letter, length: letter * length + " ",
    st.sampled_from(["x", "\u00e9", "\u023a", "\u0130", "\u0939\u093f", "\U00010400"]),
    st.integers(1, 300),
)


@given(
    st.lists(st.tuples(st.lists(MIXED | LONG_WORDS, max_size=4).map("".join), DOMAINS), max_size=4),
    st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_sha1_signatures_are_those_of_datasketch_s_defaults(
    texts: list[tuple[str, str]], ngram: int
) -> None:
    """`MinHash()` with `update` for the bytes of each shingle gives the same values, whatever the text."""
    signatures, counts = sign_texts(
        pa.array([text for text, _ in texts], pa.string()),
        pa.array([domain for _, domain in texts], pa.string()),
        ngram=ngram,
        hash="sha1",
    )
    for row, (text, domain) in enumerate(texts):
        expected = MinHash(num_perm=128, seed=1)
        shingles = slow_shingle_bytes(text, domain, ngram)
        for data in shingles:
            expected.update(data)
        assert signatures[row].tolist() == expected.hashvalues.tolist()
        assert counts[row] == len(shingles)


def test_sha1_does_not_show_where_a_block_of_documents_ends() -> None:
    """Documents beyond, at and below the size of a block, which are hashed with their neighbours or alone."""
    text = " ".join(f"word{i % 977} na\u00efve{i}" for i in range(30_000))
    sizes = [0, 10, BLOCK_BYTES // 3, 5, BLOCK_BYTES + 1, 0, BLOCK_BYTES // 2, BLOCK_BYTES // 2, 9]
    texts = [text[:size] for size in sizes]
    together, counts = sign_texts(pa.array(texts), pa.array(["web"] * len(texts)), hash="sha1")
    for row, part in enumerate(texts):
        alone, count = sign_texts(pa.array([part]), pa.array(["web"]), hash="sha1")
        assert together[row].tolist() == alone[0].tolist()
        assert counts[row] == count[0] == shingle(part).size


@pytest.mark.parametrize("hash_", ["mix", "sha1"])
def test_bands_give_the_candidates_of_datasketch_s_index(hash_: Hash) -> None:
    """Documents that share a band key are those that `MinHashLSH` of the same bands and rows finds."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(3000)])
    texts = []
    for _ in range(60):  # families with 0 to 16 % of their words changed
        original = rng.choice(words, 80)
        for changed in np.linspace(0, 0.16, 5):
            edited = np.where(rng.random(80) < changed, rng.choice(words, 80), original)
            texts.append(" ".join(edited))
    signatures = read_signatures(sign_documents(documents(texts), DedupConfig(ngram=2, hash=hash_)))
    index = MinHashLSH(num_perm=128, params=(25, 5))
    rows = [LeanMinHash(seed=1, hashvalues=row, scheme="affine32") for row in signatures]
    for number, row in enumerate(rows):
        index.insert(number, row)
    expected = {(a, b) for a, row in enumerate(rows) for b in index.query(row) if a < b}
    keys = band_keys(signatures, bands=25, rows=5)
    shared = (keys[:, None, :] == keys[None, :, :]).any(axis=2)
    found = set(zip(*(side.tolist() for side in np.nonzero(np.triu(shared, 1))), strict=True))
    assert found == expected
    assert 250 < len(found) < 550  # of 600 pairs within families: the alike are found, not all


def documents(texts: list[str], domain: str = "web") -> pa.Table:
    """The columns that signing reads."""
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(len(texts))],
            "text": pa.array(texts, pa.string()),
            "domain": pa.array([domain] * len(texts), pa.string()),
        }
    )


@given(st.lists(MIXED, max_size=8), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_signing_does_not_depend_on_the_batch(texts: list[str], cut: int) -> None:
    """Signatures of a table are those of its parts; the schema is the shard's."""
    table = documents(texts)
    parts = [
        sign_documents(part, DedupConfig()) for part in (table.slice(0, cut), table.slice(cut))
    ]
    whole = sign_documents(table, DedupConfig())
    assert whole.schema.equals(SIGNATURES)
    assert whole.equals(pa.concat_tables(parts))
    assert whole["num_shingles"].to_pylist() == [shingle(text).size for text in texts]


@given(st.integers(0, 2**32), st.sampled_from([(25, 5), (16, 8), (1, 128), (128, 1)]))
@settings(max_examples=20, deadline=None)
def test_band_keys_are_equal_iff_the_bands_are(seed: int, shape: tuple[int, int]) -> None:
    """A key tells one band's values from all others, permutations and other bands included."""
    bands, rows = shape
    signatures = np.random.default_rng(seed).integers(0, 3, (40, 128), np.uint32)
    keys = band_keys(signatures, bands=bands, rows=rows)
    names = [
        (band, *signatures[i, band * rows : (band + 1) * rows].tolist())
        for i in range(len(signatures))
        for band in range(bands)
    ]
    assert len(set(keys.ravel().tolist())) == len(set(names))
    assert len(set(zip(keys.ravel().tolist(), names, strict=True))) == len(set(names))


def test_a_run_holds_every_key_sorted() -> None:
    """A run is sorted by (band, key, row), counts rows through the tables, and leaves empty documents out."""
    config = DedupConfig()
    texts = ["a b c d e f", "!!", "a b c d e f", "something else here and now", ""]
    tables = [sign_documents(documents(part), config) for part in (texts[:2], texts[2:], [])]
    run = band_key_run(tables, config)
    assert run.schema.equals(BAND_KEYS)
    keys = band_keys(np.concatenate([read_signatures(table) for table in tables]), bands=25, rows=5)
    expected = sorted((b, int(keys[row, b]), row) for row in (0, 2, 3) for b in range(25))
    assert [tuple(row.values()) for row in run.to_pylist()] == expected
    assert len(band_key_run([], config)) == 0


def test_signatures_say_how_they_were_made() -> None:
    """A table of signatures carries all that decides what they are, also where it has no rows."""
    for texts in ([], ["one two three"]):
        table = sign_documents(documents(texts), DedupConfig(ngram=3, hash="sha1"))
        assert json.loads((table.schema.metadata or {})[SIGNATURE_KEY]) == {
            "scheme": "affine32",
            "seed": 1,
            "num_perm": 128,
            "hash": "sha1",
            "ngram": 3,
        }
        check_signatures(table.schema, DedupConfig(ngram=3, hash="sha1", bands=9, rows=9), "here")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"hash": "sha1"}, "lake/x: expected signatures with hash 'mix', got hash 'sha1'; .* put dedup.hash = \"sha1\" into"),
        ({"ngram": 4}, "expected signatures with ngram 5, got ngram 4; .* put dedup.ngram = 4 into the recipe, or build"),
        ({"hash": "sha1", "ngram": 4}, "got hash 'sha1', ngram 4; .* dedup.hash = \"sha1\" and dedup.ngram = 4"),
        ({"seed": 2}, "expected signatures with seed 1, got seed 2; the two cannot be compared: build the corpus anew"),
        ({"scheme": "legacy", "ngram": 4}, "with ngram 5, scheme 'affine32', got .* cannot be compared: build the corpus"),
        ({"bits": 8}, "expected signatures with bits None, got bits 8; .* build the corpus anew"),
        (None, "lake/x: expected signatures with scheme 'affine32', .*, got some that do not say how they were made"),
        ("text", "do not say how they were made; another program or an older gristmill wrote them"),
    ],
)  # fmt: skip
def test_signatures_made_otherwise_are_refused(made: dict | str | None, message: str) -> None:
    """A store of another scheme, seed, hash or ngram is named as such, with what to do about it."""
    own = {"scheme": "affine32", "seed": 1, "num_perm": 128, "hash": "mix", "ngram": 5}
    value = json.dumps(own | made) if isinstance(made, dict) else made
    schema = SIGNATURES if value is None else SIGNATURES.with_metadata({SIGNATURE_KEY: value})
    with pytest.raises(GristmillError, match=message):
        check_signatures(schema, DedupConfig(), "lake/x")


def test_a_run_of_band_keys_is_made_of_one_kind_of_signatures() -> None:
    """Keys of signatures that were made otherwise would meet nothing."""
    table = sign_documents(documents(["one two three"]), DedupConfig(hash="sha1"))
    with pytest.raises(
        GristmillError, match="expected signatures with hash 'mix', got hash 'sha1'"
    ):
        band_key_run([table], DedupConfig())


def test_a_shard_keeps_what_its_signatures_say(tmp_path: Path) -> None:
    """Written to a lake and read back, signatures still say how they were made, and can be refused before a row is read."""
    lake = Lake.open(tmp_path)
    config = DedupConfig(ngram=4)
    path = "corpora/c/data/1/signatures-00000.arrow"
    shard = write_shard(lake, path, sign_documents(documents(["one two three"]), config), version=1)
    manifest = Manifest(name="c", version=1, build_id="0" * 16, status="promoted", shards=(shard,))
    snapshot = Snapshot(lake, manifest)
    check_published(snapshot, config)
    check_signatures(snapshot.open(shard).schema, config, "opened")
    with pytest.raises(
        GristmillError, match=r"c@1, .*signatures-00000.arrow: .* ngram 5, got ngram 4"
    ):
        check_published(snapshot, DedupConfig())
    (tmp_path / path).unlink()
    with pytest.raises(CorruptError, match="expected the file that a manifest names, found none"):
        check_published(snapshot, config)


def test_signatures_of_another_length_are_refused() -> None:
    """A signature store of another scheme is named as such."""
    item = pa.list_(pa.uint32(), 64)
    table = pa.table({"signature": pa.array([[0] * 64], item)})
    with pytest.raises(GristmillError, match="expected 128 values a document, got 64"):
        read_signatures(table)
