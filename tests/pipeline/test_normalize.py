"""Normalisation: idempotent, harmless to clean text, and it repairs what was decoded wrongly."""

import json
import re
import time
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES, is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.minhash import shingle_texts
from pipeline.normalize import (
    NormalizeConfig,
    comparable,
    content_hash,
    looks_like_mojibake,
    normalize,
)
from storage.errors import ConfigError

SHARED = Path(__file__).parents[3] / "shared/data/encoding"

# What ftfy's rules are about, and what ours add to it.
ALPHABET = sorted(
    set("".join(MOJIBAKE_CATEGORIES.values()).replace("-", ""))
    | set(
        "aZ .,\n\r\t\0\f\x85\x92\x1f\ufeff\u2028\u2029\u3000\xe9\u4e2d\u0430\u0301\u0153\u0152\xc2\xc3\u0432\u0402\u0413\u045e\u0412\xd8\xd9\u221a\u2248\u201a\u0192\u0301"
    )
)


def one(
    text: str,
    domain: str = "web",
    config: NormalizeConfig | None = None,
    stats: Counter[str] | None = None,
) -> str:
    return normalize(
        pa.array([text]),
        pa.array([domain]),
        config or NormalizeConfig(),
        Counter() if stats is None else stats,
    )[0].as_py()


@given(
    st.text(st.sampled_from(ALPHABET), max_size=60) | st.text(max_size=60),
    st.sampled_from(["web", "code"]),
)
@settings(max_examples=300, deadline=None)
def test_normalising_twice_changes_nothing(text: str, domain: str) -> None:
    """normalize(normalize(x)) == normalize(x), and the second time counts nothing."""
    once = one(text, domain)
    stats: Counter[str] = Counter()
    assert one(once, domain, stats=stats) == once
    assert not stats


@given(st.text(st.sampled_from(ALPHABET), max_size=40) | st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_the_fast_check_says_what_ftfy_says(text: str) -> None:
    """looks_like_mojibake is is_bad."""
    assert looks_like_mojibake(text) == is_bad(text)


def test_the_fast_check_knows_every_pair() -> None:
    """The same over all neighbours that the rules name, with and without letters around them."""
    for first in ALPHABET:
        for second in ALPHABET:
            for frame in ("{}", "a{} b", "\u0412{}\u0412"):
                text = frame.format(first + second)
                if BADNESS_RE.search(text):
                    assert looks_like_mojibake(text), ascii(text)


@given(st.text(st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_what_comes_out_is_clean(text: str) -> None:
    """No control characters, no CR, no white space at line ends, at most two blank lines, composed."""
    after = one(text)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in after)
    assert all(line == line.rstrip() for line in after.split("\n"))
    assert "\n\n\n\n" not in after
    assert not after.startswith("\n")
    assert unicodedata.is_normalized("NFC", after)


def test_layout() -> None:
    """Line ends, trailing spaces and long gaps go; indentation and short gaps stay."""
    stats: Counter[str] = Counter()
    text = "\r\n  verse one  \r\n    verse two\t\r\n\r\n\r\n\r\n\r\nend\rlast\u2028line\u2029paragraph\n\n"
    assert one(text, stats=stats) == "  verse one\n    verse two\n\n\nend\nlast\nline\n\nparagraph"
    assert stats == {"line_ends": 1}
    assert one("a\n\n\n\nb", config=NormalizeConfig(max_blank_lines=1)) == "a\n\nb"


def test_controls_and_composition_are_counted() -> None:
    """NUL, a mark inside the text, DEL; e + acute becomes one character."""
    stats: Counter[str] = Counter()
    assert one("a\0b\ufeffc\x7f e\u0301", stats=stats) == "abc \xe9"
    assert stats == {"controls": 1, "composed": 1}


def test_code_keeps_its_characters() -> None:
    """In code only line ends, controls and the end of the file change: no repair, no composing, no trimming of lines."""
    code = 'x = "voil\xc3\xa0 e\u0301"  \r\n\r\n\r\n\r\n\tif y:\0\n'
    assert one(code, "code") == 'x = "voil\xc3\xa0 e\u0301"  \n\n\n\n\tif y:'


def test_mojibake_is_repaired_line_by_line() -> None:
    """A line in a wrong encoding is repaired beside lines that no such encoding could hold."""
    stats: Counter[str] = Counter()
    text = "\u4e2d\u6587 and \U0001f600 stay\ns\xc3\xb3lo esta l\xc3\xadnea\nThe Mona Lisa doesn\xe2\u20ac\u2122t have eyebrows."
    assert (
        one(text, stats=stats)
        == "\u4e2d\u6587 and \U0001f600 stay\ns\xf3lo esta l\xednea\nThe Mona Lisa doesn\u2019t have eyebrows."
    )
    assert stats == {"mojibake": 1}
    assert one(text, config=NormalizeConfig(mojibake=False)) == text


LATIN = [c for c in map(chr, [*range(0xC0, 0x250), *range(0x1E00, 0x1F00)]) if c.isalpha()]
MARKS = "\u201d\u201c\u2019\u2018\xbb\xab\u203a\u2039\u2026\u2013\u2014\u2122\xae\xa9\xb0\xb2\xb3\xb9\xba\xaa\xb7\u2022\u2020\xa7\xa0"


@pytest.mark.parametrize(
    "frame",
    ["A palavra IRM{}{} saiu.", "IRM{}{}, disse", '"IRM{}{}"', "Bu kelime \u201cH\xc2L{}{} diye", "IRM{}\u201d{}", "(IRM{}{}\u2026)"],
)  # fmt: skip
def test_words_before_closing_marks_are_clean(frame: str) -> None:
    """Words of capitals and of small letters, each letter of every Latin alphabet before each mark, stay as they are."""
    config = NormalizeConfig(mojibake=False)
    for letter in LATIN:
        fitting = frame if letter.isupper() else frame.lower()
        texts = pa.array([fitting.format(letter, mark) for mark in MARKS])
        domains = pa.array(["web"] * len(texts))
        assert normalize(texts, domains, NormalizeConfig(), Counter()) == normalize(
            texts, domains, config, Counter()
        )


REAL = [
    "\xc9 manh\xe3: a irm\xe3 n\xe3o disse \u201cn\xe3o\u201d, e o caf\xe9 custa 3 \u20ac.",
    "O\xd9 EST LA LIBERT\xc9? \xc0 bient\xf4t, \xab d\xe9j\xe0 vu \xbb \u2014 voil\xe0.",
    "Stra\xdfe, K\xd6LN und \xd6sterreich \u2013 \u201eGr\xf6\xdfe\u201c.",
    "H\xe2l\xe2 ya\u011fmur ya\u011f\u0131yor: \u0130STANBUL\u2019da \u015eubat.",
    "H\xe0 N\u1ed9i l\xe0 th\u1ee7 \u0111\xf4 c\u1ee7a Vi\u1ec7t Nam.",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u042d\u0442\u043e \u0442\u0435\u043a\u0441\u0442.",
    "\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5.",
]


def as_windows_1252(text: str) -> str:
    return text.encode().decode("sloppy-windows-1252")


@pytest.mark.parametrize("clean", REAL)
def test_texts_in_a_wrong_encoding_are_restored(clean: str) -> None:
    """A line of mojibake has evidence enough, alone, with clean lines around it, and as long as a page."""
    broken = as_windows_1252(clean)
    assert one(broken) == clean
    assert (
        one(f"\u201cIRM\xc3\u201d\n{broken}\nMANH\xc3\u2026")
        == f"\u201cIRM\xc3\u201d\n{clean}\nMANH\xc3\u2026"
    )
    assert one("\n".join([broken] * 50)) == "\n".join([clean] * 50)


def test_doubtful_places_follow_the_rest_of_the_text() -> None:
    """A capital before a mark is repaired in a text that is wrong in all its lines, and nowhere else."""
    broken, clean = "VAN AUSTRALI\xc3\u2039.", "VAN AUSTRALI\xcb."
    assert one(broken) == broken
    assert one(f"s\xc3\xb3lo\n{broken}") == f"s\xf3lo\n{clean}"
    assert (
        one(f"s\xc3\xb3lo\n\u201cd\xe9j\xe0 vu\u201d\n{broken}")
        == f"s\xf3lo\n\u201cd\xe9j\xe0 vu\u201d\n{broken}"
    )
    mixed = "He doesn\xe2\u20ac\u2122t say \u201cIRM\xc3\u201d."
    assert one(mixed) == "He doesn\u2019t say \u201cIRM\xc3\u201d."


def test_nulls_stay_null() -> None:
    """A row without text is not given one."""
    texts = pa.array(["a ", None])
    assert normalize(texts, pa.array(["web", "web"]), NormalizeConfig(), Counter()).to_pylist() == [
        "a",
        None,
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="ftfy's own cases are not beside the repository")
@pytest.mark.parametrize("name", ["ftfy_negative.json", "ftfy_synthetic.json"])
def test_ftfys_cases(name: str) -> None:
    """Clean text that looks odd is left alone; mojibake ends as ftfy's authors say (their other fixes are not ours)."""
    cases = json.loads((SHARED / name).read_text(encoding="utf-8"))
    tried = 0
    for case in cases:
        if case["expect"] != "pass":
            continue
        expected = case.get("fixed-encoding", case["fixed"])
        if "negative" in case["label"].lower() and not re.search("[\x80-\x9f]", case["original"]):
            expected = case["original"]
        # What is left of C1 controls goes, and so do trailing spaces: that is ours.
        expected = one(expected, config=NormalizeConfig(mojibake=False))
        assert one(case["original"]) == expected, case["label"]
        tried += 1
    assert tried > 20


@pytest.mark.parametrize(
    "text",
    [
        " " * 1_000_000 + "x",
        "a" + " " * 1_000_000 + "b",
        "\n" * 1_000_000,
        "\xe9" * 500_000,
        "\xc3 " * 100_000,
        "\r" * 500_000,
    ],
    ids=["spaces", "inner", "lines", "accents", "suspects", "returns"],
)
def test_long_runs_take_linear_time(text: str) -> None:
    """A megabyte of anything is done in a moment."""
    start = time.process_time()
    one(text)
    assert time.process_time() - start < 5


def test_content_hash_is_of_the_words() -> None:
    """blake2b-128 of the words joined by single spaces: layout does not matter, words and their order do."""
    hashes = content_hash(pa.array(["a b\n\nc", " a  b c ", "a b d", ""])).to_pylist()
    assert hashes[0] == hashes[1] != hashes[2]
    assert all(len(h) == 32 and int(h, 16) >= 0 for h in hashes)


WITHOUT_REPAIR = NormalizeConfig(mojibake=False)
ODD = "\xad\u200b\u200d\u2060\ufe0f\ufeff\u061c\u034f\u180e\x0b\x0c\x1c\x85\u2028\u0323\u0301\u1161\u11a8\uac00\u0958\uf900"


@given(
    st.lists(
        st.text(st.sampled_from(f"aeb \r\n{ODD}\xe9") | st.characters(codec="utf-8"), max_size=40),
        max_size=8,
    ),
    st.sampled_from(["web", "code"]),
)
@settings(max_examples=500, deadline=None)
def test_texts_are_compared_as_a_build_does(texts: list[str], domain: str) -> None:
    """`comparable` has the content hashes and the shingles of normalised texts, whichever texts it looks at."""
    raw, domains = pa.array(texts, pa.string()), pa.array([domain] * len(texts), pa.string())
    of_build = normalize(raw, domains, WITHOUT_REPAIR, Counter())
    ours = comparable(raw, domain)
    assert content_hash(ours).to_pylist() == content_hash(of_build).to_pylist()
    for one, other in zip(
        shingle_texts(ours, domains), shingle_texts(of_build, domains), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_no_character_is_overlooked() -> None:
    """Each alone, between letters, and behind each kind of base that marks are joined with."""
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for frame in ("a{}b", "\u05d0{}", "\u1100{}", "\u0928{}"):
        raw = pa.array([frame.format(character) for character in points])
        of_build = normalize(raw, pa.repeat("web", len(raw)), WITHOUT_REPAIR, Counter())
        assert content_hash(comparable(raw, "web")).equals(content_hash(of_build))


def test_plain_texts_are_not_touched() -> None:
    """White space, accents, quotes, emoji and most scripts ask for no work: the very array comes back."""
    texts = pa.array(
        [
            "a  b\r\n",
            "caf\xe9 \u201cx\u201d \u2014",
            "\u4e2d\u6587",
            "\u0440\u0443\u0441",
            "\U0001f469\u200d\U0001f4bb",
        ]
    )
    assert comparable(texts, "web") is texts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\xe9", "cafe\u0301"),
        ("co\xadoperate", "cooperate"),
        ("zero\u200bwidth", "zerowidth"),
        ("\ufeffmark", "mark"),
        ("a\u2060b\ufe0f", "ab"),
        ("a\xa0b", "a b"),
        ("a\r\nb \n", "a\nb"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645"),
        ("\ud55c", "\u1112\u1161\u11ab"),
        ("e\u0323\u0302", "e\u0302\u0323"),
    ],
)  # fmt: skip
def test_these_are_the_same_text(one: str, other: str) -> None:
    """What shows the same is the same; what a ligature or full-width letter shows is not."""
    hashes = content_hash(
        comparable(pa.array([one, other, f"{other}\ufb01", f"{other}fi"]), "web")
    ).to_pylist()
    assert hashes[0] == hashes[1]
    assert hashes[2] != hashes[3]


def test_wrong_config_is_refused() -> None:
    """A text without any blank line has no paragraphs."""
    with pytest.raises(ConfigError, match=r"normalize\.max_blank_lines: expected at least 1"):
        NormalizeConfig(max_blank_lines=0)
