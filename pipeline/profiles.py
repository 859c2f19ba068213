"""Quality profiles: which rules judge a domain, and their thresholds.

Rules made for web pages delete verse (short lines without a full stop), drama (names repeated on lines of their own),
code (braces) and banter (short). So each domain has a profile, and a rule whose threshold is None is off. A rule's
name is its field's name: `min_x` drops a document whose x is smaller, `max_x` one whose x is larger. Sources:

    Gopher    Rae et al. 2021, arXiv:2112.11446, appendix A.1.1 (quality) and table A1 (repetition)
    C4        Raffel et al. 2020, arXiv:1910.10683, section 2.2
    FineWeb   Penedo et al. 2024, arXiv:2406.17557, section 3.6
    Codex     Chen et al. 2021, arXiv:2107.03374, section 3.1 (length of lines)
    BigCode   bigcode-dataset, preprocessing/README.md, filter "basic" (alphanumeric characters)
    own       ours, set outside of what clean text of the domain shows

Measured on plays, poems (English, Finnish), novels, PLOS articles, the World Factbook, scikit-learn's source, IRC and
dialogues in some 20 languages, declarations of human rights in 27, 23 MB in all, cut at line ends into documents of
200, 500 and 2,000 characters and whole: each profile keeps 99.1 % or more of its own domain at every size. Of those of
2,000 characters `web` would drop 88 % of the code, 68 % of the dialogues, 56 % of the Factbook, 89 % of the Finnish and
4 % of the English verse, 8 % of the science and 7 % of the plays. `tests/pipeline/test_filters.py` holds the texts that
ship with the quick-start recipe to the same.
"""

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Thresholds of all rules, in the order in which they are tried; None turns a rule off."""

    min_words: float | None = 1
    """Words with a letter or digit (Gopher: 50)."""
    max_words: float | None = None
    """The same (Gopher: 100,000)."""
    max_broken_chars: float | None = 0.01
    """Share of characters that are U+FFFD, controls or private use (own)."""
    max_lorem_ipsum: float | None = None
    """Occurrences of "lorem ipsum" (C4: 0)."""
    min_alphanumeric_chars: float | None = None
    """Share of characters other than white space that are letters, marks or digits (BigCode: 0.25, of all)."""
    min_mean_word_length: float | None = None
    """Characters a word (Gopher: 3); of texts mainly in Latin script."""
    max_mean_word_length: float | None = None
    """Characters a word (Gopher: 10)."""
    max_hash_symbols: float | None = None
    """'#' a word (Gopher: 0.1)."""
    max_ellipses: float | None = None
    """Ellipses a word (Gopher: 0.1)."""
    min_words_with_letter: float | None = None
    """Share of words with a letter (Gopher: 0.8)."""
    min_stop_words: float | None = None
    """How many of its language's stop words occur (Gopher: 2 of the, be, to, of, and, that, have, with). Ours for other
    languages in Latin script; texts in other scripts are not judged."""
    max_bullet_lines: float | None = None
    """Share of lines that begin with a bullet (Gopher: 0.9)."""
    max_ellipsis_lines: float | None = None
    """Share of lines that end with an ellipsis (Gopher: 0.3)."""
    max_line_chars: float | None = None
    """Characters of the longest line (Codex: 1,000)."""
    max_mean_line_chars: float | None = None
    """Characters a line (Codex: 100)."""
    max_curly_braces: float | None = None
    """Occurrences of '{' (C4: 0)."""
    min_sentences: float | None = None
    """Sentences in lines that C4 leaves: at least 3 words, no word over 1,000 characters, no notice about JavaScript,
    cookies or terms (C4: 5; the rule on terminal punctuation is left out, as in FineWeb)."""
    min_punctuated_lines: float | None = None
    """Share of lines that end with a punctuation mark (FineWeb: 0.12)."""
    max_short_lines: float | None = None
    """Share of lines of at most 30 characters (FineWeb: 0.67)."""
    max_newlines_per_word: float | None = None
    """Newlines a word (FineWeb's code: 0.3)."""
    max_duplicate_lines: float | None = None
    """Share of lines that repeat an earlier one (Gopher: 0.30)."""
    max_duplicate_paragraphs: float | None = None
    """Share of paragraphs that repeat an earlier one (Gopher: 0.30)."""
    max_duplicate_line_chars: float | None = None
    """Share of characters in repeated lines (Gopher: 0.20; FineWeb: 0.1, though its code says 0.01)."""
    max_duplicate_paragraph_chars: float | None = None
    """Share of characters in repeated paragraphs (Gopher: 0.20)."""
    max_top_2gram_chars: float | None = None
    """Share of characters in the most frequent word 2-gram (Gopher: 0.20)."""
    max_top_3gram_chars: float | None = None
    """The same of 3-grams (Gopher: 0.18)."""
    max_top_4gram_chars: float | None = None
    """The same of 4-grams (Gopher: 0.16)."""
    max_duplicate_5gram_chars: float | None = None
    """Share of characters in word 5-grams that repeat an earlier one (Gopher: 0.15)."""
    max_duplicate_6gram_chars: float | None = None
    """The same of 6-grams (Gopher: 0.14)."""
    max_duplicate_7gram_chars: float | None = None
    """The same of 7-grams (Gopher: 0.13)."""
    max_duplicate_8gram_chars: float | None = None
    """The same of 8-grams (Gopher: 0.12)."""
    max_duplicate_9gram_chars: float | None = None
    """The same of 9-grams (Gopher: 0.11)."""
    max_duplicate_10gram_chars: float | None = 0.6
    """The same of 10-grams (Gopher: 0.10; elsewhere it catches text that was pasted over and over)."""


RULES = tuple(field.name for field in fields(Profile))
"""Names of all rules in the order in which they are tried."""

DEFAULT = Profile(min_words=5, min_alphanumeric_chars=0.3, max_mean_word_length=30)

PROFILES: dict[str, Profile] = {
    "default": DEFAULT,
    "web": Profile(
        min_words=50,
        max_words=100_000,
        min_mean_word_length=3,
        max_mean_word_length=10,
        max_hash_symbols=0.1,
        max_ellipses=0.1,
        min_words_with_letter=0.8,
        min_stop_words=2,
        max_bullet_lines=0.9,
        max_ellipsis_lines=0.3,
        max_lorem_ipsum=0,
        max_curly_braces=0,
        min_sentences=5,
        min_punctuated_lines=0.12,
        max_short_lines=0.67,
        max_newlines_per_word=0.3,
        max_duplicate_lines=0.30,
        max_duplicate_paragraphs=0.30,
        max_duplicate_line_chars=0.10,
        max_duplicate_paragraph_chars=0.20,
        max_top_2gram_chars=0.20,
        max_top_3gram_chars=0.18,
        max_top_4gram_chars=0.16,
        max_duplicate_5gram_chars=0.15,
        max_duplicate_6gram_chars=0.14,
        max_duplicate_7gram_chars=0.13,
        max_duplicate_8gram_chars=0.12,
        max_duplicate_9gram_chars=0.11,
        max_duplicate_10gram_chars=0.10,
    ),
    "books": Profile(
        min_words=20,
        min_mean_word_length=2.5,
        max_mean_word_length=12,
        max_hash_symbols=0.1,
        min_words_with_letter=0.7,
        max_duplicate_lines=0.5,
        max_duplicate_10gram_chars=0.5,
    ),
    "poetry": Profile(
        min_words=10,
        min_mean_word_length=2.5,
        max_mean_word_length=12,
        min_words_with_letter=0.5,
    ),
    "drama": Profile(
        min_words=10,
        min_mean_word_length=2.5,
        max_mean_word_length=12,
        min_words_with_letter=0.7,
    ),
    "code": Profile(
        min_words=3,
        min_alphanumeric_chars=0.25,
        max_line_chars=1000,
        max_mean_line_chars=100,
        max_duplicate_10gram_chars=0.9,
    ),
    "science": Profile(
        min_words=20,
        min_mean_word_length=2,
        max_mean_word_length=12,
        max_hash_symbols=0.3,
        max_ellipses=0.3,
        min_words_with_letter=0.6,
        max_duplicate_10gram_chars=0.5,
    ),
    "chat": Profile(
        min_words=5,
        min_alphanumeric_chars=0.4,
        max_mean_word_length=25,
        max_duplicate_10gram_chars=0.9,
    ),
    "encyclopedic": Profile(
        min_words=15,
        min_mean_word_length=2.5,
        max_mean_word_length=12,
        min_words_with_letter=0.4,
        max_duplicate_10gram_chars=0.5,
    ),
    "multilingual": Profile(
        min_words=8,
        min_alphanumeric_chars=0.5,
        max_mean_word_length=30,
        max_duplicate_10gram_chars=0.8,
    ),
}
"""Profile of each kind of text."""

ALIASES: dict[str, str] = {
    "crawl": "web",
    "html": "web",
    "book": "books",
    "fiction": "books",
    "novels": "books",
    "prose": "books",
    "verse": "poetry",
    "poems": "poetry",
    "plays": "drama",
    "theatre": "drama",
    "shakespeare": "drama",
    "source": "code",
    "software": "code",
    "papers": "science",
    "academic": "science",
    "conversation": "chat",
    "dialogue": "chat",
    "irc": "chat",
    "forum": "chat",
    "encyclopedia": "encyclopedic",
    "reference": "encyclopedic",
    "wiki": "encyclopedic",
    "wikipedia": "encyclopedic",
}
"""Domains that are judged like another; any other domain gets the profile of its own name, or "default"."""


def profile_name(domain: str, overrides: dict[str, str]) -> str:
    """Name of the profile that judges a domain: the recipe's choice, the domain's own, an alias, or "default"."""
    name = overrides.get(domain, ALIASES.get(domain, domain))
    return name if name in PROFILES else "default"


def adjust(name: str, thresholds: dict[str, float | bool]) -> Profile:
    """A profile with some thresholds changed; `false` turns a rule off.

    Raises ConfigError for a profile or rule that does not exist.
    """
    if name not in PROFILES:
        raise ConfigError(
            f"quality.thresholds: expected the name of a profile, got {name!r}{_suggest(name, PROFILES)}"
        )
    changes: dict[str, float | None] = {}
    for rule, value in thresholds.items():
        if rule not in RULES:
            raise ConfigError(
                f"quality.thresholds.{name}: expected the name of a rule, got {rule!r}{_suggest(rule, RULES)}"
            )
        if value is True:
            raise ConfigError(
                f"quality.thresholds.{name}.{rule}: expected a number or false, got true"
            )
        changes[rule] = None if value is False else float(value)
    return replace(PROFILES[name], **changes)


def check_profile(domain: str, name: str) -> None:
    """Raise ConfigError unless a profile of this name exists."""
    if name not in PROFILES:
        raise ConfigError(
            f"quality.profiles.{domain}: expected the name of a profile, got {name!r}{_suggest(name, PROFILES)}"
        )


def _suggest(word: str, known: dict[str, Profile] | tuple[str, ...]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
