"""The compiled loops against plain NumPy, bit for bit, on Arrow arrays of every kind; and how they come to be compiled."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types

from pipeline.characters import folds, kinds
from pipeline.kernels.compiling import compiled
from pipeline.kernels.shingles import _sort, distinct, to_table
from pipeline.minhash import band_keys, shingle_texts, sign, sign_texts
from storage.errors import GristmillError

from . import numpy_minhash

ROOT = Path(__file__).parents[2]

# Characters of one to four bytes that are letters, digits, marks, white space, symbols; with case and without.
LETTERS = "ab_9Z \n.\u00e9\u0130\u03a3\u2019\u3000\u4e00\u0939\u093f\u0e01\u1e9e\ud55c\U00010400\U0001d7ce\U0001f600\U00020000"
TEXTS = st.one_of(
    st.text(st.sampled_from(LETTERS), max_size=200),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.builds(str.__mul__, st.sampled_from(["x", "\u00e9", "\u0939\u093f", "no ", "\u4e00"]), st.integers(0, 900)),
)  # fmt: skip
DOCUMENTS = st.lists(
    st.tuples(st.lists(TEXTS, max_size=3).map("".join), st.sampled_from(["web", "code"])),
    max_size=6,
)


def assert_equal_to_numpy(
    texts: list[str | None], domains: list[str | None], ngram: int, array: pa.Array
) -> None:
    """Shingles, signatures, counts and band keys of an array that holds the texts."""
    hashes, offsets = numpy_minhash.shingle_texts(
        [text or "" for text in texts], [domain or "" for domain in domains], ngram=ngram
    )
    signatures = numpy_minhash.sign(hashes, offsets)
    found = shingle_texts(array, pa.array(domains, pa.string()), ngram=ngram)
    signed = sign_texts(array, pa.array(domains, pa.string()), ngram=ngram)
    np.testing.assert_array_equal(found[1], offsets)
    np.testing.assert_array_equal(found[0], hashes)
    np.testing.assert_array_equal(signed[0], signatures)
    np.testing.assert_array_equal(signed[1], np.diff(offsets))
    np.testing.assert_array_equal(sign(hashes, offsets), signatures)
    by_sha1 = sign_texts(array, pa.array(domains, pa.string()), ngram=ngram, hash="sha1")
    np.testing.assert_array_equal(
        by_sha1[0],
        numpy_minhash.sign_sha1(
            [text or "" for text in texts], [domain or "" for domain in domains], ngram=ngram
        ),
    )
    np.testing.assert_array_equal(by_sha1[1], np.diff(offsets))
    np.testing.assert_array_equal(
        band_keys(signatures, bands=25, rows=5),
        numpy_minhash.band_keys(signatures, bands=25, rows=5),
    )


@given(
    DOCUMENTS,
    st.integers(1, 9),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]),
    st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_kernels_equal_numpy(
    documents: list[tuple[str, str]], ngram: int, kind: pa.DataType, cut: int
) -> None:
    """Any texts, in any kind of Arrow array and as a part of a longer one, have the same hashes and signatures."""
    texts, domains = [text for text, _ in documents], [domain for _, domain in documents]
    around = ["\u00e9 before"] * cut
    array = pa.array([*around, *texts, *around], pa.string()).cast(kind).slice(cut, len(texts))
    assert_equal_to_numpy(texts, domains, ngram, array)


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=6), st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_a_null_is_an_empty_text(texts: list[str | None], cut: int) -> None:
    """Nulls have no shingle, in sliced arrays too; a null domain is not code."""
    assert_equal_to_numpy(
        texts[cut:], [None] * len(texts[cut:]), 5, pa.array(texts, pa.string())[cut:]
    )


@pytest.mark.parametrize("size", [1023, 1024, 1025, 1028, 1029, 4095, 4096, 4097, 4100, 4101])
@pytest.mark.parametrize("domain", ["web", "code"])
def test_borders_of_blocks_do_not_show(size: int, domain: str) -> None:
    """Texts with about as many words or characters as a block of windows or hashes, of one to four bytes each."""
    rng = np.random.default_rng(size)
    for alphabet in ("abcdefgh", "a\u00e9\u0939\u4e00", "\u4e00\U00020000", "\U00010400b"):
        words = ["".join(word) for word in rng.choice(list(alphabet), (size, 3)).tolist()]
        text = " ".join(words)
        for cut in (text, text[:size], "".join(words)[:size]):
            assert_equal_to_numpy([cut, "a b"], [domain] * 2, 5, pa.array([cut, "a b"]))


@pytest.mark.parametrize("length", [254, 255, 256, 257, 258, 511, 512, 513, 2000])
@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u0939", "\U00010400"])
def test_words_longer_than_the_table_of_powers(length: int, letter: str) -> None:
    """A word's hash does not show where the table ends, whichever characters stand there."""
    texts = [letter * length, f"a {letter * length}.b", "z" * length + letter + "y" * 3 + "  c"]
    assert_equal_to_numpy(texts, ["web"] * 3, 1, pa.array(texts))


def test_huge_and_repeated_texts() -> None:
    """More distinct shingles than the table holds, and many shingles that are all one."""
    numbers = " ".join(map(str, range(150_000)))
    texts = [numbers, "the same " * 200_000, "", numbers[1:], "\u4e00" * 50_000]
    assert_equal_to_numpy(texts, ["web"] * len(texts), 5, pa.array(texts))


@given(
    st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63]), max_size=300),
    st.sampled_from([0, 40, 60]),
)
@settings(max_examples=100, deadline=None)
def test_any_hashes_come_out_distinct_and_sorted(values: list[int], shift: int) -> None:
    """Also zero, which marks a free place, repeats, and hashes that all begin alike (as a hostile text's may)."""
    hashes = np.array(values, np.uint64) >> np.uint64(shift)
    expected = np.unique(hashes)
    copy = hashes.copy()
    scratch, slots, places = np.empty(300, np.uint64), np.empty(2048, np.uint64), np.empty(4096, np.uint32)  # fmt: skip
    count = distinct(hashes, np.uint64(len(hashes)), places, scratch, np.uint64(1))
    _sort(hashes, np.uint64(count), scratch, places)
    assert hashes[:count].tolist() == expected.tolist()
    count = to_table(copy, np.uint64(len(copy)), slots, np.uint64(1))
    assert sorted(copy[:count].tolist()) == expected.tolist()


def test_tables_know_every_character() -> None:
    """Kind and folded form of all code points are what Python says of each of them."""
    np.testing.assert_array_equal(kinds(), numpy_minhash._kinds())
    np.testing.assert_array_equal(folds(), numpy_minhash._folds())


@pytest.mark.parametrize("broken", [b"\xff", b"ab \xe4\xb8", b"\xf4\x90\x80\x80", b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_are_refused(broken: bytes) -> None:
    """The loops read characters of several bytes without a look at where the text ends."""
    array = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, len(broken)], np.int32)), pa.py_buffer(broken)]
    )  # fmt: skip
    with pytest.raises(GristmillError, match="texts: expected UTF-8"):
        shingle_texts(array, pa.array(["web"]))


def test_without_a_folder_to_keep_them_kernels_still_compile() -> None:
    """Where neither the package's folder nor a cache of the user's can be written, each process compiles anew."""
    namespace: dict[str, object] = {}
    source = compile("def double(x):\n    return x + x\n", "/proc/nowhere/kernels.py", "exec")
    exec(source, namespace)
    double = compiled(types.uint64)(namespace["double"])
    assert double(21) == 42


@pytest.mark.slow
def test_of_several_processes_one_compiles(tmp_path: Path) -> None:
    """Workers that start together with nothing compiled yet wait for the first and load what it made."""
    code = (
        "from pipeline import kernels as k\n"
        "loops = k.shingle_texts, k.sign_texts, k.sign, k.band_keys\n"
        "[loop.compile() for loop in loops]\n"
        "print(sum(loop.num_compiled for loop in loops))"
    )
    start = partial(subprocess.Popen, [sys.executable, "-c", code], cwd=ROOT, text=True)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [start(env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    misses = [int(process.communicate(timeout=280)[0]) for process in processes]
    assert sum(misses) == 4


def test_a_loop_is_compiled_anew_when_another_file_of_its_folder_changes(tmp_path: Path) -> None:
    """Numba looks at a loop's own file only, and the loops use functions of each other's files."""
    (tmp_path / "helper.py").write_text(
        "import numba\n\n@numba.njit\ndef step(x):\n    return x + 1\n"
    )
    (tmp_path / "loop.py").write_text(
        "from helper import step\nfrom numba import types\n"
        "from pipeline.kernels.compiling import compiled\n\n"
        "@compiled(types.uint64)\ndef loop(x):\n    return step(x)\n\n"
        "print(loop(1), loop.num_compiled)\n"
    )

    def run() -> str:
        search = os.pathsep.join([str(tmp_path), str(ROOT)])
        environment = {
            **os.environ,
            "PYTHONPATH": search,
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        }
        return subprocess.check_output([sys.executable, tmp_path / "loop.py"], env=environment, text=True)  # fmt: skip

    assert [run(), run()] == ["2 1\n", "2 0\n"]
    (tmp_path / "helper.py").write_text(
        "import numba\n\n@numba.njit\ndef step(x):\n    return x + 2\n"
    )
    assert run() == "3 1\n"


def test_loops_of_others_still_find_linear_algebra() -> None:
    """Our own are loaded without importing scipy's, and a matrix product compiled later finds it."""
    code = (
        "import sys\nfrom pipeline import kernels\nkernels.link_pairs.compile()\n"
        "print('scipy.linalg' in sys.modules)\n"
        "import numba, numpy\n"
        "print(numba.njit(lambda a: numpy.dot(a, a))(numpy.ones(3)))"
    )
    assert (
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "False\n3.0\n"
    )
