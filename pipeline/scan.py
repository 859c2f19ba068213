"""What the quality rules count in a document, and words for comparing texts.

`count_texts` reads the bytes of each text once, in a compiled loop (`kernels/measuring.py`), and gives an array of each
count. `tests/pipeline/python_scan.py` has the same on Python strings.
"""

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import kernels
from pipeline.minhash import multiplier, utf8
from pipeline.scan_tables import (
    KINDS,
    SPACELESS_CLASS,
    ascii_tables,
    character_tables,
    phrase_table,
    stop_word_tables,
)

Column = NDArray[np.int64]

SPACELESS_SHARE = 0.3
"""Share of a text's letters from which its words cannot be told by spaces (Japanese with many Latin names stays
above it, English that quotes a Chinese title below)."""

SPACELESS_WORD_CHARS = 2
"""Characters that count as one word in those scripts: Chinese words average 1.5 to 2, Japanese and Thai ones more."""

WANT_RUNS = {n: np.uint64(1 << n) for n in range(2, 11)}
WANT_LINES, WANT_PARAGRAPHS, WANT_STOP_WORDS, WANT_C4 = (
    np.uint64(1 << bit) for bit in range(11, 15)
)
"""What is counted only where it is asked for: runs of n words, repeated lines, repeated paragraphs, stop words, C4's
phrases and sentences."""

TOKEN = re.compile(rf"[{SPACELESS_CLASS}]|[^\W{SPACELESS_CLASS}]+")
"""A word for comparing texts: a run of letters and digits, or one character of a script without spaces."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64; odd


class Counts(NamedTuple):
    """Counts of documents, an array each; a word is a run without white space, a line is stripped and not blank."""

    latin: Column
    """Letters up to U+024F. This and the next eight are characters by kind, and sum to a text's length."""
    letters: Column
    """Letters of other scripts with spaces between words."""
    spaceless: Column
    """Letters and marks of scripts without."""
    marks: Column
    """Combining marks: vowel signs of Indic scripts, Arabic points, loose accents."""
    digits: Column
    """Numbers of any script."""
    spaces: Column
    """White space, newlines included."""
    punctuation: Column
    symbols: Column
    """Mathematical and currency signs, arrows, emoji, and what this Python's Unicode does not know yet."""
    broken: Column
    """U+FFFD, control characters, surrogates, private use: traces of a bad conversion."""
    is_spaceless: Column
    """1 if the text is mainly in scripts without spaces, where rules on words say nothing."""
    words: Column
    word_chars: Column
    """Characters of all words."""
    words_with_alnum: Column
    """Words with a letter or digit."""
    words_with_letter: Column
    """Words with an alphanumeric character that is no decimal digit."""
    lines: Column
    line_chars: Column
    longest_line: Column
    """Characters of the longest line, as it stands between newlines."""
    short_lines: Column
    """Lines of at most 30 characters."""
    bullet_lines: Column
    ellipsis_lines: Column
    """Lines that end with an ellipsis."""
    punctuated_lines: Column
    """Lines that end with a punctuation mark."""
    newlines: Column
    hash_symbols: Column
    curly_braces: Column
    """Occurrences of "{"."""
    ellipses: Column
    """Occurrences of "..." and U+2026."""
    lorem_ipsum: Column
    """Occurrences of "lorem ipsum" in letters of either case."""
    sentences: Column
    """Sentences in lines of at least three words, none over 1,000 characters, without one of C4's phrases; an
    abbreviation's full stop counts as an end."""
    spaceless_sentences: Column
    """The same in lines of at least ten characters, however many words."""
    stop_words: Column
    """How many of its language's stop words occur, of the language that has most."""
    duplicate_lines: Column
    """Lines that equal an earlier one."""
    duplicate_line_chars: Column
    paragraphs: Column
    """Lines without a blank one between them."""
    paragraph_chars: Column
    duplicate_paragraphs: Column
    duplicate_paragraph_chars: Column
    top_2: Column
    """Characters in the most frequent run of two words, 0 if none occurs twice; where its occurrences overlap they
    count once. Of equally frequent runs the longest is meant, of these the first."""
    top_3: Column
    top_4: Column
    duplicate_5: Column
    """Characters in runs of five words that equal an earlier run; where runs overlap they count once."""
    duplicate_6: Column
    duplicate_7: Column
    duplicate_8: Column
    duplicate_9: Column
    duplicate_10: Column

    @property
    def chars(self) -> Column:
        """Characters of each text."""
        return np.sum(self[: len(KINDS)], axis=0)

    @property
    def num_letters(self) -> Column:
        """Letters and marks of all scripts."""
        return self.latin + self.letters + self.spaceless + self.marks

    @property
    def num_words(self) -> Column:
        """Words with a letter or digit in them (Gopher's "non-symbol words").

        Where words have no spaces, SPACELESS_WORD_CHARS letters count as one, as do five other letters or digits.
        """
        others = (self.latin + self.letters + self.digits) // 5
        spaceless = self.spaceless // SPACELESS_WORD_CHARS
        return np.where(self.is_spaceless, spaceless + others, self.words_with_alnum)


COLUMN = Counts(*range(len(Counts._fields)))  # pyright: ignore[reportArgumentType]
"""Number of each count's column for the loop."""


def count_texts(texts: pa.Array, wanted: NDArray[np.uint64]) -> Counts:
    """Count what the rules measure in each text; `wanted[i]` has the bits of what more is counted in text i.

    Words, lines and paragraphs are compared by 64-bit hashes. One pass over the bytes; only texts in scripts without
    spaces whose runs are wanted, which are runs of characters, are read once more. O(bytes) whatever the texts: 3 to 7
    ns a byte of prose, 100 at worst (words of one letter). Holds up to 30 bytes for each of the longest text, and 350 a
    document. Raises GristmillError for texts that are not UTF-8.
    """
    data, begins = utf8(texts)
    counts = np.zeros((len(texts), len(COLUMN)), np.uint64)
    tables = *ascii_tables(), character_tables(), phrase_table(), *stop_word_tables()
    kernels.measure_texts(data, begins, wanted, *tables, multiplier(), counts)
    return Counts(*counts.view(np.int64).T)


def run_hashes(numbers: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
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


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64 of each value (Steele, Lea, Flood 2014): spreads near numbers over all 64 bits."""
    values = (values + np.uint64(1)) * _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
