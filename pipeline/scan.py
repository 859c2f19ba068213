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

TOKEN = re.compile(rf"[{SPACELESS_CLASS}]|[^\W{SPACELESS_CLASS}]+")
"""A word for comparing texts: a run of letters and digits, or one character of a script without spaces."""

_SPACELESS_UNIT = re.compile(rf"[{SPACELESS_CLASS}]|[^\s{SPACELESS_CLASS}]+")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_LETTER = re.compile(r"[^\W\d_]")
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?][\"')\]\u2019\u201d]*\s|[\u3002\uff01\uff1f\u0964\u06d4](?=.)")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd multiplier of splitmix64 (Steele, Lea, Flood 2014)


class CharacterCounts(NamedTuple):
    """How many characters of a text are of which kind; they sum to its length."""

    letters: int
    """Letters of scripts with spaces between words."""
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
    """Mathematical and currency signs, arrows, emoji."""
    broken: int
    """U+FFFD, control characters, private use, unassigned: traces of a bad conversion."""


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
        letters, spaceless, marks, *_ = self.characters
        return spaceless > 0 and spaceless >= SPACELESS_SHARE * (letters + spaceless + marks)

    @cached_property
    def word_counts(self) -> Counter[str]:
        """How often each word occurs."""
        return Counter(self.words)

    @cached_property
    def num_words(self) -> int:
        """Words with a letter or digit in them (Gopher's "non-symbol words").

        Where words have no spaces, two characters count as one word: Chinese words average 1.5 to 2 characters.
        """
        if self.is_spaceless:
            rest = re.sub(f"[{SPACELESS_CLASS}]+", " ", self.text).split()
            return self.characters.spaceless // 2 + len(rest)
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
    def num_sentences(self) -> int:
        """Sentences: ends of sentences inside lines, and each line's last one."""
        return sum(count_sentences(line) for line in self.lines)

    @cached_property
    def duplicate_lines(self) -> tuple[float, float]:
        """Share of lines that repeat an earlier one, and share of the lines' characters in them."""
        return _duplicates(self.lines)

    @cached_property
    def duplicate_paragraphs(self) -> tuple[float, float]:
        """The same of paragraphs (parted by blank lines)."""
        paragraphs = [part.strip() for part in _PARAGRAPH_BREAK.split(self.text)]
        return _duplicates([part for part in paragraphs if part])

    @cached_property
    def ngrams(self) -> "NgramScan":
        """Repetition of word n-grams; of character n-grams where words have no spaces."""
        units = _SPACELESS_UNIT.findall(self.text) if self.is_spaceless else self.words
        return NgramScan(units)


def scan(text: str) -> Scan:
    """Split a text into words and lines; everything else is counted when first asked for."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    return Scan(text, text.split(), lines)


def count_sentences(line: str) -> int:
    """Sentences in one line of text; an abbreviation's full stop counts as an end."""
    return len(_SENTENCE_END.findall(line)) + 1


class NgramScan:
    """N-gram repetition in a list of words, by 64-bit hashes of runs of word numbers.

    Two different n-grams of one document share a hash with probability below n_words^2 / 2^64.
    """

    def __init__(self, words: list[str]) -> None:
        number: dict[str, int] = {}
        ids = [number.setdefault(word, len(number)) for word in words]
        mixed = _mix(np.arange(1, len(number) + 1, dtype=np.uint64))
        self._hashes = mixed[np.array(ids, dtype=np.int64)]
        self._ends = np.concatenate(([0], np.cumsum([len(word) for word in words], dtype=np.int64)))
        self._duplicate_shares: dict[int, float] = {}

    def top(self, n: int) -> float:
        """Share of the words' characters inside the most frequent n-gram; 0 if none occurs twice.

        Characters where its occurrences overlap count once. Of equally frequent n-grams the longest is meant.
        """
        keys = self._keys(n)
        if keys.size < 2:
            return 0.0
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
        counts = np.diff(np.append(starts, keys.size))
        most = counts.max()
        if most < 2:
            return 0.0
        lengths = self._ends[n:] - self._ends[:-n]
        best = max(np.flatnonzero(counts == most), key=lambda group: lengths[order[starts[group]]])
        return self._covered(order[starts[best] : starts[best] + most], n)

    def duplicate(self, n: int) -> float:
        """Share of the words' characters inside n-grams that repeat an earlier one; overlaps count once."""
        if n not in self._duplicate_shares:
            keys = self._keys(n)
            order = np.argsort(keys, kind="stable")
            ranked = keys[order]
            repeats = order[1:][ranked[1:] == ranked[:-1]]
            self._duplicate_shares[n] = self._covered(repeats, n) if repeats.size else 0.0
        return self._duplicate_shares[n]

    def _keys(self, n: int) -> npt.NDArray[np.uint64]:
        """Hash of each run of n words, in order."""
        size = max(self._hashes.size - n + 1, 0)
        keys = np.zeros(size, dtype=np.uint64)
        for k in range(n):
            keys *= _MIX
            keys += self._hashes[k : k + size]
        return _mix(keys)

    def _covered(self, positions: npt.NDArray[np.int64], n: int) -> float:
        """Share of the characters in the words that the n-grams at `positions` cover."""
        depth = np.zeros(self._hashes.size + 1, dtype=np.int64)
        np.add.at(depth, positions, 1)
        np.add.at(depth, positions + n, -1)
        inside = np.cumsum(depth[:-1]) > 0
        return float(np.diff(self._ends)[inside].sum() / self._ends[-1])


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finaliser of splitmix64: spreads near numbers over all 64 bits."""
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
    by_category = {"L": 0, "M": 2, "N": 3, "Z": 4, "P": 5, "S": 6, "C": 7}
    last = SPACELESS_RANGES[-1][1]
    table = np.fromiter(
        (by_category[unicodedata.category(chr(code))[0]] for code in range(last + 2)),
        np.uint8,
        last + 2,
    )
    for first, final in SPACELESS_RANGES:
        block = table[first : final + 1]
        block[(block == 0) | (block == 2)] = 1
    table[[ord(c) for c in "\t\n\v\f\r\x85"]] = 4
    table[[0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0xFEFF]] = (
        2  # joiners and direction marks are not damage
    )
    table[0xFFFD] = 7
    return table
