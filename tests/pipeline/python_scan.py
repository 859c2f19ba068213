"""What the quality rules count, on Python strings: slow and obvious, what `pipeline/scan.py` has to equal.

`scan(text)` splits once; the rest is counted on first use and kept. Runs of words are compared by word numbers.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.scan import SPACELESS_SHARE, SPACELESS_WORD_CHARS, run_hashes
from pipeline.scan_tables import SPACELESS_RANGES, STOP_WORDS

BOILERPLATE = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies",
    re.IGNORECASE | re.ASCII,
)
"""Phrases of lines that C4 deletes (arXiv:1910.10683, section 2.2)."""

_BULLETS = ("\u2022", "\u2023", "\u25e6", "\u25aa", "- ", "* ")
_ELLIPSES = ("...", "\u2026")
_LINE_ENDS = tuple(".?!\"'\u2019\u201d\u00bb\u2026\u3002\uff01\uff1f\u300d\u0964\u06d4\u061f;:)")
_SHORT_LINE_CHARS = 30
_LONG_WORD_CHARS = 1000
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_LETTER = re.compile(r"[^\W\d_]")
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?][\"')\]\u2019\u201d]*\s|[\u3002\uff01\uff1f\u0964\u06d4](?=.)")


class CharacterCounts(NamedTuple):
    """How many characters of a text are of which kind; they sum to its length."""

    latin: int
    """Letters up to U+024F."""
    letters: int
    """Letters of other scripts with spaces between words."""
    spaceless: int
    """Letters and marks of scripts without."""
    marks: int
    """Combining marks: vowel signs of Indic scripts, Arabic points, loose accents."""
    digits: int
    """Numbers of any script."""
    spaces: int
    """White space, newlines included."""
    punctuation: int
    symbols: int
    """Mathematical and currency signs, arrows, emoji, and what this Python's Unicode does not know yet."""
    broken: int
    """U+FFFD, control characters, surrogates, private use: traces of a bad conversion."""


@dataclass(frozen=True)
class Scan:
    """A document split once; see `scan`."""

    text: str
    words: list[str]
    """Maximal runs without white space."""
    lines: list[str]
    """Lines with something on them, stripped."""

    @cached_property
    def characters(self) -> CharacterCounts:
        """Kinds of characters. O(characters), some 5 ns each."""
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        table = _character_classes()
        classes = table[np.minimum(codes, len(table) - 1)]
        return CharacterCounts(
            *np.bincount(classes, minlength=len(CharacterCounts._fields)).tolist()
        )

    @cached_property
    def is_spaceless(self) -> bool:
        """Whether the text is mainly in scripts without spaces, where rules on words say nothing."""
        spaceless = self.characters.spaceless
        return spaceless > 0 and spaceless >= SPACELESS_SHARE * self.num_letters

    @cached_property
    def is_latin(self) -> bool:
        """Whether most letters are Latin."""
        return self.characters.latin > 0.5 * self.num_letters

    @cached_property
    def num_letters(self) -> int:
        """Letters and marks of all scripts."""
        return sum(self.characters[:4])

    @cached_property
    def word_counts(self) -> Counter[str]:
        """How often each word occurs."""
        return Counter(self.words)

    @cached_property
    def num_words(self) -> int:
        """Words with a letter or digit in them (Gopher's "non-symbol words").

        Where words have no spaces, SPACELESS_WORD_CHARS letters count as one, as do five other letters or digits.
        """
        if self.is_spaceless:
            counts = self.characters
            others = counts.latin + counts.letters + counts.digits
            return counts.spaceless // SPACELESS_WORD_CHARS + others // 5
        has_any = _LETTER_OR_DIGIT.search
        return sum(n for word, n in self.word_counts.items() if word.isalnum() or has_any(word))

    @cached_property
    def num_word_characters(self) -> int:
        """Characters of all words: the text without its white space."""
        return sum(map(len, self.words))

    @cached_property
    def num_words_with_letter(self) -> int:
        """Words with a letter in them."""
        has_letter = _LETTER.search
        return sum(n for word, n in self.word_counts.items() if word.isalpha() or has_letter(word))

    @cached_property
    def duplicate_lines(self) -> tuple[float, float]:
        """Share of lines that repeat an earlier one, and share of the lines' characters in them."""
        return _duplicates(self.lines)

    @cached_property
    def duplicate_paragraphs(self) -> tuple[float, float]:
        """The same of paragraphs (parted by blank lines)."""
        paragraphs = [part.strip() for part in _PARAGRAPH_BREAK.split(self.text)]
        return _duplicates([part for part in paragraphs if part])

    def top_ngram(self, n: int) -> float:
        """Share of the words' characters inside the most frequent word n-gram; see `NgramScan.top`."""
        return self._ngrams.top(n) if self._may_repeat(n) else 0.0

    def duplicate_ngrams(self, n: int) -> float:
        """Share of the words' characters in word n-grams that repeat an earlier one; see `NgramScan.duplicate`."""
        return self._ngrams.duplicate(n) if self._may_repeat(n) else 0.0

    def _may_repeat(self, n: int) -> bool:
        """Whether an n-gram can occur twice: all n words of its second occurrence were there before."""
        return self.is_spaceless or len(self.words) - len(self.word_counts) >= n

    @cached_property
    def _ngrams(self) -> "NgramScan":
        if not self.is_spaceless:
            return NgramScan(self.words)
        return NgramScan(list("".join(self.words)), SPACELESS_WORD_CHARS)


def scan(text: str) -> Scan:
    """Split a text into words and lines; everything else is counted when first asked for."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    return Scan(text, text.split(), lines)


def count_sentences(line: str) -> int:
    """Sentences in one line of text; an abbreviation's full stop counts as an end."""
    return len(_SENTENCE_END.findall(line)) + 1


class NgramScan:
    """N-gram repetition in a list of words, by 64-bit hashes of runs of word numbers.

    `units_per_word` is how many of the given units count as one word. That two different n-grams of a document share
    a hash has a probability below words^2 / 2^64. O(words log words) each n.
    """

    def __init__(self, units: list[str], units_per_word: int = 1) -> None:
        number: dict[str, int] = {}
        ids = [number.setdefault(unit, len(number)) for unit in units]
        self._ids = np.array(ids, np.int64)
        self._lengths = np.array([len(unit) for unit in units], np.int64)
        self._units_per_word = units_per_word
        self._unrepeated = len(units) + 1  # no run of this many units occurs twice

    def top(self, n: int) -> float:
        """Share of the words' characters inside the most frequent n-gram; 0 if none occurs twice.

        Characters where its occurrences overlap count once. Of equally frequent n-grams the longest is meant, of these
        the first.
        """
        size = n * self._units_per_word
        order, starts = self._groups(size)
        counts = np.diff(starts)
        if counts.size == 0 or counts.max() < 2:
            return 0.0
        groups = np.flatnonzero(counts == counts.max())
        ends = np.concatenate(([0], np.cumsum(self._lengths)))
        first = order[starts[groups]]
        best = groups[np.lexsort((first, ends[first] - ends[first + size]))[0]]
        return self._covered(order[starts[best] : starts[best + 1]], size)

    def duplicate(self, n: int) -> float:
        """Share of the words' characters inside n-grams that repeat an earlier one; overlaps count once."""
        size = n * self._units_per_word
        if size >= self._unrepeated:
            return 0.0
        order, starts = self._groups(size)
        is_repeat = np.ones(order.size, bool)
        is_repeat[starts[:-1]] = False
        if not is_repeat.any():
            self._unrepeated = size
        return self._covered(order[is_repeat], size)

    def _groups(self, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Positions of all runs of `size` units, equal ones together in order of place, and where each group starts.

        The starts end with the number of positions.
        """
        keys = run_hashes(self._ids, size)
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1], [True])))
        return order, starts if keys.size else np.zeros(1, np.int64)

    def _covered(self, positions: npt.NDArray[np.int64], size: int) -> float:
        """Share of all characters in the runs at `positions`."""
        if not positions.size:
            return 0.0
        depth = np.zeros(self._ids.size + 1, np.int64)
        depth[positions] += 1
        np.add.at(depth, positions + size, -1)
        inside = np.cumsum(depth[:-1]) > 0
        return float(self._lengths[inside].sum() / self._lengths.sum())


def _duplicates(parts: list[str]) -> tuple[float, float]:
    """Share of parts equal to an earlier part, and share of all their characters in those."""
    if len(set(parts)) == len(parts):
        return 0.0, 0.0
    seen: set[str] = set()
    repeated = [part for part in parts if part in seen or seen.add(part)]
    return len(repeated) / len(parts), sum(map(len, repeated)) / sum(map(len, parts))


@cache
def _character_classes() -> npt.NDArray[np.uint8]:
    """Index into CharacterCounts of each code point up to the last one of a script without spaces."""
    kind = CharacterCounts(*range(len(CharacterCounts._fields)))
    by_category = {
        "L": kind.letters,
        "M": kind.marks,
        "N": kind.digits,
        "Z": kind.spaces,
        "P": kind.punctuation,
        "S": kind.symbols,
        "C": kind.broken,
        "Cf": kind.marks,  # joiners, direction marks, soft hyphens: part of good text
        "Cn": kind.symbols,
    }
    last = SPACELESS_RANGES[-1][1]
    categories = map(unicodedata.category, map(chr, range(last + 2)))
    table = np.array([by_category.get(name, by_category[name[0]]) for name in categories], np.uint8)
    table[:0x250][table[:0x250] == kind.letters] = kind.latin
    for first, final in SPACELESS_RANGES:
        block = table[first : final + 1]
        block[(block == kind.letters) | (block == kind.marks)] = kind.spaceless
    table[[ord(c) for c in "\t\n\v\f\r\x85"]] = kind.spaces
    table[0xFFFD] = kind.broken
    return table


def _alphanumeric_chars(document: Scan) -> float | None:
    counts = document.characters
    visible = sum(counts) - counts.spaces
    return (document.num_letters + counts.digits) / visible if visible else None


def _broken_chars(document: Scan) -> float | None:
    return document.characters.broken / len(document.text) if document.text else None


def _mean_word_length(document: Scan) -> float | None:
    # Symbols such as a lone dash are part of the average: they are few in text, and many where it matters.
    if document.is_spaceless or not document.words:
        return None
    return document.num_word_characters / len(document.words)


def _per_word(count: Callable[[Scan], float]) -> Callable[[Scan], float | None]:
    def measure(document: Scan) -> float | None:
        return count(document) / document.num_words if document.num_words else None

    return measure


def _ellipses(document: Scan) -> float:
    return sum(document.text.count(mark) for mark in _ELLIPSES)


def _words_with_letter(document: Scan) -> float | None:
    if document.is_spaceless or not document.words:
        return None
    return document.num_words_with_letter / len(document.words)


def _min_mean_word_length(document: Scan) -> float | None:
    return _mean_word_length(document) if document.is_latin else None


def _stop_words(document: Scan) -> float | None:
    if not document.is_latin:
        return None
    present = document.word_counts.keys()
    return max(sum(word in present for word in words) for words in STOP_WORDS.values())


def _line_share(holds: Callable[[str], bool]) -> Callable[[Scan], float | None]:
    def measure(document: Scan) -> float | None:
        return sum(map(holds, document.lines)) / len(document.lines) if document.lines else None

    return measure


def _longest_line(document: Scan) -> float:
    return max(map(len, document.text.split("\n")))


def _mean_line(document: Scan) -> float | None:
    return sum(map(len, document.lines)) / len(document.lines) if document.lines else None


def _c4_sentences(document: Scan) -> float:
    total = 0
    for line in document.lines:
        words = line.split()
        # In scripts without spaces a line is a few long runs, so only its length can tell it from a menu entry.
        enough = len(line) >= 10 if document.is_spaceless else len(words) >= 3
        if enough and max(map(len, words)) <= _LONG_WORD_CHARS and not BOILERPLATE.search(line):
            total += count_sentences(line)
    return total


def _by_words(measure: Callable[[Scan], float]) -> Callable[[Scan], float | None]:
    """A measure that says nothing of scripts without spaces, where neighbouring characters always repeat."""
    return lambda document: None if document.is_spaceless else measure(document)


MEASURES: dict[str, Callable[[Scan], float | None]] = {
    "min_words": lambda document: document.num_words,
    "max_words": lambda document: document.num_words,
    "max_broken_chars": _broken_chars,
    "max_lorem_ipsum": lambda document: document.text.lower().count("lorem ipsum"),
    "min_alphanumeric_chars": _alphanumeric_chars,
    "min_mean_word_length": _min_mean_word_length,
    "max_mean_word_length": _mean_word_length,
    "max_hash_symbols": _per_word(lambda document: document.text.count("#")),
    "max_ellipses": _per_word(_ellipses),
    "min_words_with_letter": _words_with_letter,
    "min_stop_words": _stop_words,
    "max_bullet_lines": _line_share(lambda line: line.startswith(_BULLETS)),
    "max_ellipsis_lines": _line_share(lambda line: line.endswith(_ELLIPSES)),
    "max_line_chars": _longest_line,
    "max_mean_line_chars": _mean_line,
    "max_curly_braces": lambda document: document.text.count("{"),
    "min_sentences": _c4_sentences,
    "min_punctuated_lines": _line_share(lambda line: line.endswith(_LINE_ENDS)),
    "max_short_lines": _line_share(lambda line: len(line) <= _SHORT_LINE_CHARS),
    "max_newlines_per_word": _per_word(lambda document: document.text.count("\n")),
    "max_duplicate_lines": lambda document: document.duplicate_lines[0],
    "max_duplicate_paragraphs": lambda document: document.duplicate_paragraphs[0],
    "max_duplicate_line_chars": lambda document: document.duplicate_lines[1],
    "max_duplicate_paragraph_chars": lambda document: document.duplicate_paragraphs[1],
    "max_top_2gram_chars": _by_words(lambda document: document.top_ngram(2)),
    "max_top_3gram_chars": _by_words(lambda document: document.top_ngram(3)),
    "max_top_4gram_chars": _by_words(lambda document: document.top_ngram(4)),
    "max_duplicate_5gram_chars": _by_words(lambda document: document.duplicate_ngrams(5)),
    "max_duplicate_6gram_chars": _by_words(lambda document: document.duplicate_ngrams(6)),
    "max_duplicate_7gram_chars": _by_words(lambda document: document.duplicate_ngrams(7)),
    "max_duplicate_8gram_chars": _by_words(lambda document: document.duplicate_ngrams(8)),
    "max_duplicate_9gram_chars": _by_words(lambda document: document.duplicate_ngrams(9)),
    "max_duplicate_10gram_chars": lambda document: document.duplicate_ngrams(10),
}
"""What each rule measures; None where a rule says nothing of a text (words of a script without spaces)."""


def measure_text(text: str) -> dict[str, float | None]:
    """What every rule measures of a text; None where it does not apply."""
    document = scan(text)
    return {rule: measure(document) for rule, measure in MEASURES.items()}
