"""What the loop that counts for the quality rules knows: kinds of characters, stop words, phrases.

Tables are built once a process. Character kinds are those of this Python's Unicode tables, so that white space, letters
and digits are what `str.split`, `str.isalnum` and `re` say.
"""

import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.characters import in_pages

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


KINDS = (
    "latin",
    "letters",
    "spaceless",
    "marks",
    "digits",
    "spaces",
    "punctuation",
    "symbols",
    "broken",
)
"""Kinds of characters: the first columns of `scan.Counts`, which says what they are."""
TALLIED = (
    "latin",
    "digits",
    "spaces",
    "punctuation",
    "symbols",
    "broken",
    "hash_symbols",
    "curly_braces",
)
"""Columns of `scan.Counts` that characters below 0x80 count under."""
KIND = np.uint64(15)
"""Bits of a character's entry that are its kind, a number in KINDS."""
SPACE, BLANK, ALNUM, LETTER, END, LINE_END, ELLIPSIS, BULLET, DASH, STOP, BREAK, NOTABLE = (
    np.uint64(1 << bit) for bit in range(4, 16)
)
"""Bits of what else a character is: white space; U+0020; letter or digit; of those no decimal digit; one of ".!?";
mark at the end of a line; "..." as one character; bullet; "-" or "*", bullets before a blank; full stop that needs no
space behind it; newline; one at which the loop has to look closer."""
KEPT = np.uint64(32)
"""From this bit on, the bits of what came before in a word that hold behind this character too."""
STOP_WORD_SHIFT = np.uint64(53)
"""How far right a hash is shifted to find its place among 2,048."""
LENGTH_SALT = np.uint64(0xD6E8FEB86659FD93)
"""Times the number of its characters, is added to what a hash is made of: any odd number."""
LAST_POINT = 0x3FFFF
"""Code points behind it are like it: not assigned."""

_CLOSERS = "\"')]\u2019\u201d"  # between the end of a sentence and the white space behind it
_STOPS = "\u3002\uff01\uff1f\u0964\u06d4"
_CHARACTERS = (
    (BLANK, " "),
    (END, ".!?"),
    (LINE_END, ".?!\"'\u2019\u201d\u00bb\u2026\u3002\uff01\uff1f\u300d\u0964\u06d4\u061f;:)"),
    (ELLIPSIS, "\u2026"),
    (BULLET, "\u2022\u2023\u25e6\u25aa"),
    (DASH, "-*"),
    (STOP, _STOPS),
    (BREAK, "\n"),
    (NOTABLE, "\n.\u2026" + _STOPS),
)

PHRASES = {
    "lorem ipsum": "p",
    "javascript": "v",
    "privacy policy": "v",
    "cookie policy": "k",
    "uses cookies": "k",
    "use of cookies": "k",
    "use cookies": "k",
    "terms of use": "f",
}
"""Phrases that C4 looks for (arXiv:1910.10683, section 2.2), in letters of either case, and the rarest letter of each.
The first is counted; a line with another is left out of the sentences."""

STOP_WORDS: dict[str, tuple[str, ...]] = {
    language: tuple(words.split())
    for language, words in {
        "en": "the be to of and that have with",  # Gopher, arXiv:2112.11446, appendix A.1.1
        # Ours: frequent words that English, and so English spam, does not have.
        "af": "die en nie van wat het vir ek",
        "az": "v\u0259 bu bir il\u0259 \u00fc\u00e7\u00fcn o d\u0259 ki daha olan",
        "ca": "els que amb dels una per les aquest",
        "cs": "se na je ve jako nebo jeho kter\u00e9 v z",
        "cy": "yn y yr ar mae gan bod wedi",
        "da": "og det er til af ikke som har",
        "de": "der die und das ist nicht von mit den sich auf ein",
        "eo": "la kaj de estas ke en por al",
        "es": "el los que del las por una con",
        "et": "ja ei ning kui mis oma oli et ka tema v\u00f5i",
        "eu": "eta ez du da dira edo bat dute den ere",
        "fi": "ja ei se ett\u00e4 oli ovat tai h\u00e4n kun niin sen",
        "fr": "le les des et est que une pour",
        "ga": "an na agus ar ag le bh\u00ed sa",
        "hr": "je se na su koji kao od nije",
        "hu": "az \u00e9s hogy nem egy meg minden vagy",
        "id": "dan yang di untuk dengan tidak dari ini",
        "is": "og a\u00f0 er sem ekki fyrir var vi\u00f0",
        "it": "il che di una per della non sono",
        "lt": "ir kad yra kaip tai arba su bei",
        "lv": "un ir ar tas kas vai par no",
        "ms": "dan yang untuk dengan tidak dari ini pada",
        "nl": "het een van en dat niet zijn voor",
        "no": "og det er til av ikke som har",
        "pl": "nie jest na si\u0119 do \u017ce oraz przez",
        "pt": "os que uma n\u00e3o com para dos por",
        "ro": "\u0219i nu cu este din pentru sau care",
        "sk": "sa na je ktor\u00e9 alebo ako jeho nie v z",
        "sl": "je se na ki so pri tudi ali",
        "sq": "dhe t\u00eb n\u00eb nj\u00eb p\u00ebr nga q\u00eb ka",
        "sv": "och att det som av inte f\u00f6r har",
        "sw": "na ya wa kwa ni katika kila haki",
        "tl": "ang ng mga sa ay na may hindi",
        "tr": "ve bir bu i\u00e7in her ile olan olarak",
        "vi": "v\u00e0 c\u1ee7a c\u00f3 \u0111\u01b0\u1ee3c c\u00e1c cho kh\u00f4ng nh\u1eefng",
    }.items()
}
"""Words that nearly every text of a language holds: a page without them is a list, not prose.

Five sentences of a listed language hold 2 to 7 of its words (medians of six samples of Leipzig Wortschatz sentences). A
recipe for other languages in Latin script turns `min_stop_words` off.
"""


@cache
def character_tables() -> tuple[NDArray[np.uint16], NDArray[np.uint64]]:
    """Give (pages, entries): the entry of code point c is `entries[256 * pages[c >> 8] + (c & 255)]`.

    An entry is a kind, what else the character is, and from the bit KEPT on what it keeps of the characters before it:
    that a word has a letter or digit, and, behind a closing quote, that a sentence has ended.
    """
    return in_pages(_entries())


@cache
def ascii_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Give (entries, tallies) of the characters below 0x80, of shapes (2, 128) and (128,).

    In the second row of entries the rare letters of PHRASES are notable. A tally has a 1 in each field of eight bits
    whose name in TALLIED is one that the character counts under.
    """
    entries = np.stack([_entries()[:0x80]] * 2)
    for letter in "".join(PHRASES.values()):
        entries[1, [ord(letter), ord(letter.upper())]] |= NOTABLE
    tallies = np.zeros(0x80, np.uint64)
    for point, entry in enumerate(entries[0]):
        tallies[point] = 1 << 8 * TALLIED.index(KINDS[int(entry & KIND)])
    for character, name in (("#", "hash_symbols"), ("{", "curly_braces")):
        tallies[ord(character)] += np.uint64(1 << 8 * TALLIED.index(name))
    return entries, tallies


@cache
def phrase_table() -> NDArray[np.uint64]:
    """All phrases, a row each: how many letters, the place of the rare one among them, and the letters."""
    table = np.zeros((len(PHRASES), 2 + max(map(len, PHRASES))), np.uint64)
    for row, (phrase, letter) in zip(table, PHRASES.items(), strict=True):
        row[: 2 + len(phrase)] = [len(phrase), phrase.index(letter), *phrase.encode()]
    return table


@cache
def stop_word_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Give (words, languages): a hash table of all stop words with hash and number, and the numbers of each language.

    Numbers start at 1; rows of `languages` are filled up with 0, the number of any other word.
    """
    size = 1 << (64 - int(STOP_WORD_SHIFT))
    words = list(dict.fromkeys(word for words in STOP_WORDS.values() for word in words))
    table = np.zeros((size, 2), np.uint64)
    for number, word in enumerate(words, 1):
        value = _word_hash(word)
        place = value >> int(STOP_WORD_SHIFT)
        while table[place, 0]:
            place = (place + 1) % size
        table[place] = value, number
    languages = np.zeros((len(STOP_WORDS), max(map(len, STOP_WORDS.values()))), np.uint64)
    for row, listed in zip(languages, STOP_WORDS.values(), strict=True):
        row[: len(listed)] = [words.index(word) + 1 for word in listed]
    return table, languages


def _word_hash(word: str) -> int:
    """What the loop makes of a word."""
    # Only here, where the loop is about to run: importing it takes a third of a second.
    from pipeline.kernels.units import WORD_BASE, mix64

    value = 0
    for character in word:
        value = value * int(WORD_BASE) + ord(character)
    value = (value + len(word) * int(LENGTH_SALT)) % 2**64
    with np.errstate(over="ignore"):  # as the loop does, without compiling it once more
        return int(mix64.py_func(np.uint64(value)))


@cache
def _entries() -> NDArray[np.uint64]:
    """Table of what each code point up to LAST_POINT is."""
    entries = _kinds().astype(np.uint64)
    text = "".join(map(chr, range(LAST_POINT + 1)))
    runs = ((SPACE, r"\s+"), (ALNUM, r"[^\W_]+"), (LETTER, r"[^\W\d_]+"))
    for bit, run_of_kind in runs:
        for run in re.finditer(run_of_kind, text):
            entries[run.start() : run.end()] |= bit
    kept = np.where(entries & SPACE, 0, ALNUM | LETTER).astype(np.uint64)
    kept[_points(_CLOSERS)] |= END
    for bit, characters in _CHARACTERS:
        entries[_points(characters)] |= bit
    return entries | kept << KEPT


def _points(characters: str) -> list[int]:
    return [ord(character) for character in characters]


def _kinds() -> NDArray[np.uint8]:
    """Number in KINDS of each code point up to LAST_POINT."""
    kind = {name: number for number, name in enumerate(KINDS)}
    by_category = {
        "L": kind["letters"],
        "M": kind["marks"],
        "N": kind["digits"],
        "Z": kind["spaces"],
        "P": kind["punctuation"],
        "S": kind["symbols"],
        "C": kind["broken"],
        "Cf": kind["marks"],  # joiners, direction marks, soft hyphens: part of good text
        "Cn": kind["symbols"],
    }
    last = SPACELESS_RANGES[-1][1]  # nothing that is assigned comes behind it
    categories = map(unicodedata.category, map(chr, range(last + 1)))
    table = np.full(LAST_POINT + 1, kind["symbols"], np.uint8)
    table[: last + 1] = [by_category.get(name, by_category[name[0]]) for name in categories]
    table[:0x250][table[:0x250] == kind["letters"]] = kind["latin"]
    for first, final in SPACELESS_RANGES:
        block = table[first : final + 1]
        block[(block == kind["letters"]) | (block == kind["marks"])] = kind["spaceless"]
    table[[ord(c) for c in "\t\n\v\f\r\x85"]] = kind["spaces"]
    table[0xFFFD] = kind["broken"]
    return table
