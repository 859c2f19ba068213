"""Decontamination: texts of evaluation sets are found by their n-grams, and nothing else is."""

import gzip
import json
import lzma
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decontaminate import (
    DecontaminateConfig,
    EvalIndex,
    build_eval_index,
    find_overlap,
    judge_contamination,
)
from storage.errors import ConfigError, InputError

QUESTION = (
    "Ada's ducks lay 16 eggs a day. She eats three for breakfast every morning and bakes muffins for her friends with "
    "four. How much does she make at the farmers' market if she sells the rest for 2 dollars each?"
)
ANSWER = "She sells nine eggs"
NUMBERS = " ".join(str(n) for n in range(40))


@pytest.fixture
def index(tmp_path: Path) -> EvalIndex:
    rows = [{"question": QUESTION, "answer": ANSWER, "choices": ["no", {"more": NUMBERS}]}]
    with lzma.open(tmp_path / "eggs.jsonl.xz", "wt", encoding="utf8") as file:
        file.write("\n".join(map(json.dumps, rows)) + "\n")
    return build_eval_index(
        DecontaminateConfig(sets=("eggs.jsonl.xz",), min_item_words=4), tmp_path
    )


def judge(index: EvalIndex, text: str) -> dict:
    batch = pa.record_batch({"text": [text]})
    return judge_contamination(batch, index, DecontaminateConfig())[0].as_py()


def test_copied_item_is_found_and_named(index: EvalIndex) -> None:
    """Whatever the case, quotes, spacing and layout; the verdict says which item and how much of it."""
    copy = QUESTION.replace("'", "\u2019").replace(". ", ".\n\n").upper()
    verdict = judge(index, f"Chapter 3\n\n{copy}\n\nMore of the book.")
    assert verdict == {
        "rule": "contaminated",
        "value": 1.0,
        "threshold": 0.5,
        "detail": "eggs.jsonl.xz:1 question",
    }


def test_half_an_item_is_the_limit(index: EvalIndex) -> None:
    """A document is dropped from half of the item's n-grams on, and kept below."""
    words = QUESTION.split()
    assert judge(index, " ".join(words[:32]))["rule"] == "contaminated"
    assert judge(index, " ".join(words[:20]))["rule"] is None
    assert 0 < find_overlap(" ".join(words[:20]), index)[0] < 0.5


def test_unrelated_text_shares_nothing(index: EvalIndex) -> None:
    """The words of an item in another order are another text."""
    assert find_overlap(" ".join(reversed(QUESTION.split())), index) == (0.0, None)
    assert find_overlap("", index) == (0.0, None)


def test_short_item_counts_only_as_a_whole_line(index: EvalIndex) -> None:
    """Four words inside a sentence are nobody's; alone on a line they are the answer."""
    assert judge(index, f"Then what?\n  {ANSWER}!\n")["detail"] == "eggs.jsonl.xz:1 answer"
    assert judge(index, f"{ANSWER} and buys a hat")["rule"] is None


def test_tables_of_numbers_are_no_evidence(index: EvalIndex) -> None:
    """N-grams without a word are left out of the index."""
    assert judge(index, NUMBERS)["rule"] is None


@given(
    st.lists(st.sampled_from("abcdef"), max_size=30),
    st.lists(st.sampled_from("abcdef"), max_size=60),
)
def test_overlap_equals_the_obvious_way(item: list[str], text: list[str]) -> None:
    """Hashes and binary search count the n-grams that sets of tuples count."""
    n = 4

    def grams(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    index = index_of([item], n)
    expected = len(grams(item) & grams(text)) / len(grams(item)) if len(item) >= n else 0.0
    assert find_overlap(" ".join(text), index)[0] == pytest.approx(expected)


def index_of(items: list[list[str]], n: int) -> EvalIndex:
    """An index of items given as words, built from a file as always."""
    with tempfile.TemporaryDirectory() as folder:
        long = [" ".join(words) for words in items if len(words) >= n]
        Path(folder, "items.txt").write_text("\n\n".join([*long, "zz " * n]), "utf-8")
        config = DecontaminateConfig(sets=("items.txt",), ngram=n, min_item_words=n)
        return build_eval_index(config, Path(folder))


def test_sets_are_read_in_every_dress(tmp_path: Path) -> None:
    """Paragraphs of text, a list in JSON lines, compressed or not, with and without a byte order mark."""
    (tmp_path / "a.txt").write_text(
        f"\ufeffA first paragraph of five words.\n\n{QUESTION}\n", "utf-8"
    )
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps([QUESTION]).encode()))
    index = build_eval_index(DecontaminateConfig(sets=("a.txt", "b.jsonl.gz")), tmp_path)
    assert index.items == ("a.txt#1", "a.txt#2", "b.jsonl.gz:1")
    assert find_overlap(QUESTION, index) == (1.0, "a.txt#2")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("missing.jsonl", None, "missing.jsonl"),
        ("bad.jsonl", b'{"a": "b"}\n{"a"\n', r"bad.jsonl:2: expected one JSON value a line"),
        ("few.txt", b"two words", "holds no item of at least 5 words"),
        (
            "cut.jsonl.gz",
            gzip.compress(b'{"a": "' + QUESTION.encode() + b'"}')[:-20],
            "cut.jsonl.gz",
        ),
        ("latin.txt", b"caf\xe9 au lait et un croissant", "UTF-8"),
    ],
)
def test_a_set_that_cannot_be_read_ends_the_build(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    """An evaluation set that silently counts for nothing would be worse than none."""
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        build_eval_index(DecontaminateConfig(sets=(name,)), tmp_path)


def test_thresholds_without_a_meaning_are_refused() -> None:
    """Nothing overlaps by more than all of it."""
    with pytest.raises(ConfigError, match=r"min_overlap.*got 50"):
        DecontaminateConfig(min_overlap=50)
    with pytest.raises(ConfigError, match="min_item_words = 20, ngram = 13"):
        DecontaminateConfig(min_item_words=20)
