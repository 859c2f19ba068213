"""Normalisation: idempotent, harmless to clean text, and it repairs what was decoded wrongly."""

import json
import re
import time
import unicodedata
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES, is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.normalize import NormalizeConfig, content_hash, looks_like_mojibake, normalize
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


def test_wrong_config_is_refused() -> None:
    """A text without any blank line has no paragraphs."""
    with pytest.raises(ConfigError, match=r"normalize\.max_blank_lines: expected at least 1"):
        NormalizeConfig(max_blank_lines=0)
