"""The quality stage: each document is judged by the profile of its domain; the first rule that fails drops it.

What a rule measures is here, in counts of `pipeline/scan.py`; which rules hold for a domain and with what thresholds is
in `pipeline/profiles.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.profiles import RULES, Profile, adjust, check_profile, profile_name
from pipeline.scan import (
    WANT_C4,
    WANT_LINES,
    WANT_PARAGRAPHS,
    WANT_RUNS,
    WANT_STOP_WORDS,
    Column,
    Counts,
    count_texts,
)
from pipeline.stage import VERDICT

Values = NDArray[np.float64] | Column


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

    O(bytes): some 4 ns a byte on one core for the light profiles, 7 for `web`; see `count_texts`.
    """
    failed = np.full(batch.num_rows, -1)  # number of the rule
    values, limits = np.zeros(batch.num_rows), np.zeros(batch.num_rows)
    if config.enabled and batch.num_rows:
        domains = pc.dictionary_encode(pc.fill_null(batch["domain"], ""))
        domain_of = domains.indices.to_numpy()
        names = [profile_name(domain, config.profiles) for domain in domains.dictionary.to_pylist()]
        profiles = {name: adjust(name, config.thresholds.get(name, {})) for name in set(names)}
        wanted = np.array([wanted_by(active_rules(profiles[name])) for name in names])
        counts = count_texts(batch["text"], wanted[domain_of])
        for name, profile in profiles.items():
            rows = np.flatnonzero(np.array([other == name for other in names])[domain_of])
            counts_of = Counts(*(column[rows] for column in counts))
            for rule, limit in active_rules(profile).items():
                measured = MEASURES[rule](counts_of)
                fails = measured < limit if rule.startswith("min_") else measured > limit
                fails &= failed[rows] < 0
                failed[rows[fails]], limits[rows[fails]] = RULES.index(rule), limit
                values[rows[fails]] = measured[fails]
    is_kept = failed < 0
    columns = [
        pc.take(pa.array(RULES), pa.array(failed, mask=is_kept)),
        pa.array(values, mask=is_kept),
        pa.array(limits, mask=is_kept),
        pa.nulls(len(failed), pa.string()),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(VERDICT))


def active_rules(profile: Profile) -> dict[str, float]:
    """Rules of a profile in their order with their thresholds, those that are off left out."""
    return {rule: limit for rule in RULES if (limit := getattr(profile, rule)) is not None}


def wanted_by(rules: Iterable[str]) -> np.uint64:
    """What `count_texts` has to count for these rules beyond what it always does."""
    wanted = np.uint64(0)
    for rule in rules:
        wanted |= _WANTED.get(rule, np.uint64(0))
    return wanted


def _share(part: Values, whole: Values) -> Values:
    """A quotient; NaN, which no rule fails, where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole != 0)


def _by_words(counts: Counts, values: Values) -> Values:
    """A measure that says nothing of scripts without spaces."""
    return np.where(counts.is_spaceless, np.nan, values)


def _mean_word_length(counts: Counts) -> Values:
    # Symbols such as a lone dash are part of the average: they are few in text, and many where it matters.
    return _by_words(counts, _share(counts.word_chars, counts.words))


def _is_latin(counts: Counts) -> NDArray[np.bool_]:
    return counts.latin > 0.5 * counts.num_letters


def _repeated(part: Column, whole: Column) -> Values:
    """A share; 0 where there is nothing, which repeats nothing."""
    return part / np.maximum(whole, 1)


def _run(name: str) -> Callable[[Counts], Values]:
    """Share of the words' characters in some runs of words. (Neighbouring characters always repeat.)"""
    return lambda c: _by_words(c, _repeated(getattr(c, name), c.word_chars))


MEASURES: dict[str, Callable[[Counts], Values]] = {
    "min_words": lambda c: c.num_words,
    "max_words": lambda c: c.num_words,
    "max_broken_chars": lambda c: _share(c.broken, c.chars),
    "max_lorem_ipsum": lambda c: c.lorem_ipsum,
    "min_alphanumeric_chars": lambda c: _share(c.num_letters + c.digits, c.chars - c.spaces),
    # Letters of English words are counted on; a Korean word has two or three syllables, each one character.
    "min_mean_word_length": lambda c: np.where(_is_latin(c), _mean_word_length(c), np.nan),
    "max_mean_word_length": _mean_word_length,
    "max_hash_symbols": lambda c: _share(c.hash_symbols, c.num_words),
    "max_ellipses": lambda c: _share(c.ellipses, c.num_words),
    "min_words_with_letter": lambda c: _by_words(c, _share(c.words_with_letter, c.words)),
    "min_stop_words": lambda c: np.where(_is_latin(c), c.stop_words, np.nan),
    "max_bullet_lines": lambda c: _share(c.bullet_lines, c.lines),
    "max_ellipsis_lines": lambda c: _share(c.ellipsis_lines, c.lines),
    "max_line_chars": lambda c: c.longest_line,
    "max_mean_line_chars": lambda c: _share(c.line_chars, c.lines),
    "max_curly_braces": lambda c: c.curly_braces,
    # In scripts without spaces a line is a few long runs, so only its length can tell it from a menu entry.
    "min_sentences": lambda c: np.where(c.is_spaceless, c.spaceless_sentences, c.sentences),
    "min_punctuated_lines": lambda c: _share(c.punctuated_lines, c.lines),
    "max_short_lines": lambda c: _share(c.short_lines, c.lines),
    "max_newlines_per_word": lambda c: _share(c.newlines, c.num_words),
    "max_duplicate_lines": lambda c: _repeated(c.duplicate_lines, c.lines),
    "max_duplicate_paragraphs": lambda c: _repeated(c.duplicate_paragraphs, c.paragraphs),
    "max_duplicate_line_chars": lambda c: _repeated(c.duplicate_line_chars, c.line_chars),
    "max_duplicate_paragraph_chars": lambda c: _repeated(
        c.duplicate_paragraph_chars, c.paragraph_chars
    ),
    "max_top_2gram_chars": _run("top_2"),
    "max_top_3gram_chars": _run("top_3"),
    "max_top_4gram_chars": _run("top_4"),
    "max_duplicate_5gram_chars": _run("duplicate_5"),
    "max_duplicate_6gram_chars": _run("duplicate_6"),
    "max_duplicate_7gram_chars": _run("duplicate_7"),
    "max_duplicate_8gram_chars": _run("duplicate_8"),
    "max_duplicate_9gram_chars": _run("duplicate_9"),
    "max_duplicate_10gram_chars": lambda c: _repeated(c.duplicate_10, c.word_chars),
}
"""What each rule measures of documents; NaN where it says nothing."""

_WANTED: dict[str, np.uint64] = {
    "max_lorem_ipsum": WANT_C4,
    "min_sentences": WANT_C4,
    "min_stop_words": WANT_STOP_WORDS,
    "max_duplicate_lines": WANT_LINES,
    "max_duplicate_line_chars": WANT_LINES,
    "max_duplicate_paragraphs": WANT_PARAGRAPHS,
    "max_duplicate_paragraph_chars": WANT_PARAGRAPHS,
    **{f"max_top_{n}gram_chars": WANT_RUNS[n] for n in (2, 3, 4)},
    **{f"max_duplicate_{n}gram_chars": WANT_RUNS[n] for n in range(5, 11)},
}
"""What is counted only for documents whose profile has the rule."""
