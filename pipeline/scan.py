"""One pass over a document: its words, lines and kinds of characters, shared by all quality rules.

`scan(text)` splits once; the counts that only some rules need are computed on first use and kept. The n-gram counts
run on word numbers in numpy, not on strings, so that ten rules cost about as much as one.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SPACELESS_RANGES = (
    (0x0E01, 0x0EDF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3005, 0x3007),  # ideographic iteration mark and zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3100, 0x312F),  # Bopomofo
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xA980, 0xA9DF),  # Javanese
    (0xA9E0, 0xA9FF),  # Myanmar extensions
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # Han, compatibility
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x323AF),  # Han, later planes
)
"""Code points of scripts written without spaces between words (Unicode 15, blocks; UAX #29 leaves their words open)."""

SPACELESS_CLASS = "".join(f"{chr(first)}-{chr(last)}" for first, last in SPACELESS_RANGES)
"""The same for use inside the brackets of a regular expression."""

SPACELESS_SHARE = 0.3
"""Share of a text's letters from which its words cannot be told by spaces (Japanese with many Latin names stays
above it, English that quotes a Chinese title below)."""

SPACELESS_WORD_CHARS = 2
"""Characters that count as one word in those scripts: Chinese words average 1.5 to 2, Japanese and Thai ones more."""

TOKEN = re.compile(rf"[{SPACELESS_CLASS}]|[^\W{SPACELESS_CLASS}]+")
"""A word for comparing texts: a run of letters and digits, or one character of a script without spaces."""

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_LETTER = re.compile(r"[^\W\d_]")
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?][\"')\]\u2019\u201d]*\s|[\u3002\uff01\uff1f\u0964\u06d4](?=.)")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64; odd


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

        Characters where its occurrences overlap count once. Of equally frequent n-grams the longest is meant.
        """
        size = n * self._units_per_word
        order, starts = self._groups(size)
        counts = np.diff(starts)
        if counts.size == 0 or counts.max() < 2:
            return 0.0
        groups = np.flatnonzero(counts == counts.max())
        ends = np.concatenate(([0], np.cumsum(self._lengths)))
        first = order[starts[groups]]
        best = groups[np.argmax(ends[first + size] - ends[first])]
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


def run_hashes(numbers: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.uint64]:
    """64-bit hash of each run of `size` numbers, in order; two different runs agree with probability 2^-64.

    A polynomial over the mixed numbers, modulo 2^64. O(size * numbers), without a Python object per run.
    """
    mixed = _mix(numbers.astype(np.uint64))
    count = max(numbers.size - size + 1, 0)
    keys = np.zeros(count, np.uint64)
    for k in range(size):
        keys *= _MULTIPLIER
        keys += mixed[k : k + count]
    return keys


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Splitmix64 of each value (Steele, Lea, Flood 2014): spreads near numbers over all 64 bits."""
    values = (values + np.uint64(1)) * _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


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
