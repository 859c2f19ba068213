"""The quality stage: each document is judged by the profile of its domain; the first rule that fails drops it.

What a rule measures is here, which rules hold for a domain and with what thresholds is in `pipeline/profiles.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa

from pipeline.profiles import PROFILES, RULES, Profile, adjust, check_profile, profile_name
from pipeline.scan import Scan, count_sentences, scan
from pipeline.stage import KEEP, VERDICT

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

BOILERPLATE = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies",
    re.IGNORECASE,
)
"""Phrases of lines that C4 deletes (arXiv:1910.10683, section 2.2)."""

_BULLETS = ("\u2022", "\u2023", "\u25e6", "\u25aa", "- ", "* ")
_ELLIPSES = ("...", "\u2026")
_LINE_ENDS = tuple(".?!\"'\u2019\u201d\u00bb\u2026\u3002\uff01\uff1f\u300d\u0964\u06d4\u061f;:)")
_SHORT_LINE_CHARS = 30
_LONG_WORD_CHARS = 1000


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Quality rules by domain."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Whether documents are judged at all."""
    profiles: dict[str, str] = field(default_factory=dict)
    """Profile of a domain where its name does not say it: `{ letters = "books" }`."""
    thresholds: dict[str, dict[str, float | bool]] = field(default_factory=dict)
    """Thresholds that differ from a profile's: `{ web = { min_words = 20, max_curly_braces = false } }`; `false` turns
    a rule off."""

    def __post_init__(self) -> None:
        for domain, name in self.profiles.items():
            check_profile(domain, name)
        for name, changes in self.thresholds.items():
            adjust(name, changes)


def judge_quality(batch: pa.RecordBatch, config: QualityConfig) -> pa.StructArray:
    """One VERDICT a document: the first rule of its profile that it fails, with what was measured and the threshold.

    O(characters); some 20 ns a character for the light profiles, more for `web`.
    """
    profiles = {name: adjust(name, config.thresholds.get(name, {})) for name in PROFILES}
    verdicts = [KEEP] * batch.num_rows
    if config.enabled:
        domains = batch["domain"].to_pylist()
        for row, text in enumerate(batch["text"]):
            name = profile_name(domains[row], config.profiles)
            verdicts[row] = judge_text(text.as_py(), profiles[name])
    return pa.array(verdicts, VERDICT)


def judge_text(text: str, profile: Profile) -> dict[str, Any]:
    """The verdict of one profile on one text, as a dict of VERDICT's fields."""
    document = scan(text)
    for rule, limit in active_rules(profile):
        value = MEASURES[rule](document)
        if value is not None and (value < limit if rule.startswith("min_") else value > limit):
            return {"rule": rule, "value": float(value), "threshold": limit, "detail": None}
    return KEEP


def measure_text(text: str) -> dict[str, float | None]:
    """What every rule measures of a text; None where it does not apply."""
    document = scan(text)
    return {rule: measure(document) for rule, measure in MEASURES.items()}


@lru_cache(maxsize=64)
def active_rules(profile: Profile) -> tuple[tuple[str, float], ...]:
    """Rules of a profile with their thresholds, those that are off left out."""
    return tuple((rule, limit) for rule in RULES if (limit := getattr(profile, rule)) is not None)


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
    "min_mean_word_length": _mean_word_length,
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
