"""The language stage: name each document's language, and drop those the recipe does not ask for.

py3langid (a naive Bayes model over byte n-grams, its weights inside the package, nothing downloaded) reads a bounded
sample of each text, so that a novel costs no more than a letter.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.stage import KEEP, VERDICT
from storage.errors import ConfigError

SAMPLE_CHARS = 300
"""Characters read of a text, as three windows at its start, middle and end: a foreign title page, licence or
bibliography must not decide. Accuracy on texts of ten sentences in 71 languages is 0.98 from 150 to 1,200 characters
alike, at a cost that grows with them; one sentence (mean 175 characters) gives 0.967."""

_NO_LANGUAGE = "zxx"
"""ISO 639-2 code of the model's class for tables, markup and noise."""


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Languages of documents."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    detect: bool = True
    """Whether languages are determined at all."""
    keep: tuple[str, ...] = ()
    """Codes of the languages to keep, such as "en" (ISO 639-1, or 639-3 where there is none); empty keeps all."""
    min_score: float = 0.65
    """Confidence in [0, 1] below which a document does not count as being in a language (DCLM, FineWeb: 0.65)."""
    skip_domains: tuple[str, ...] = ("code",)
    """Domains whose texts have no natural language: never determined, never dropped."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ConfigError(
                f"language.min_score: expected a number in [0, 1], got {self.min_score}"
            )
        if self.keep and not self.detect:
            raise ConfigError(
                "language.keep names languages but language.detect is false; set detect = true or drop keep"
            )
        if unknown := sorted(set(self.keep) - known_languages()):
            raise ConfigError(
                f"language.keep: expected codes such as 'en', got {', '.join(map(repr, unknown))}; "
                f"known: {' '.join(sorted(known_languages()))}"
            )


def identify_language(batch: pa.RecordBatch, config: LanguageConfig) -> pa.RecordBatch:
    """The batch with `lang` and `lang_score` filled; "" and 0 for domains without a language and texts without letters.

    Cost: at most some 0.1 ms a document, whatever its length.
    """
    languages: list[str] = []
    scores: list[float] = []
    for text, domain in zip(batch["text"], batch["domain"].to_pylist(), strict=True):
        language, score = "", 0.0
        if config.detect and domain not in config.skip_domains:
            language, score = language_of(text.as_py())
        languages.append(language)
        scores.append(score)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["lang"] = pa.array(languages, pa.string())
    columns["lang_score"] = pa.array(scores, pa.float32())
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)


def judge_language(batch: pa.RecordBatch, config: LanguageConfig) -> pa.StructArray:
    """One VERDICT a document: `language` for one not asked for, `language_score` for one that cannot be told.

    Needs `lang` and `lang_score`; keeps everything if the recipe names no languages.
    """
    verdicts: list[dict[str, Any]] = [KEEP] * batch.num_rows
    if config.keep:
        columns = (batch[name].to_pylist() for name in ("domain", "lang", "lang_score"))
        for row, (domain, language, score) in enumerate(zip(*columns, strict=True)):
            if domain in config.skip_domains:
                continue
            rule = "language_score" if score < config.min_score else "language"
            if rule == "language_score" or language not in config.keep:
                verdicts[row] = {
                    "rule": rule,
                    "value": score,
                    "threshold": config.min_score,
                    "detail": f"{language or 'no language'} ({score:.2f}), kept are {' '.join(config.keep)}",
                }
    return pa.array(verdicts, VERDICT)


def language_of(text: str) -> tuple[str, float]:
    """Code of a text's language (ISO 639-1, or 639-3 where there is none) and the model's confidence in [0, 1].

    ("", 0) for a text without letters or language. Close relatives (id and ms, hr and bs) share their confidence.
    """
    sample = _sample(text)
    if not any(map(str.isalpha, sample)):
        return "", 0.0
    language, score = _identifier().classify(sample)
    # Rounded: the last bits of the model's sums differ between processors, and a snapshot's bytes must not.
    return ("", 0.0) if language == _NO_LANGUAGE else (language, round(float(score), 4))


@cache
def known_languages() -> frozenset[str]:
    """Codes of the languages that can be told apart (139)."""
    return frozenset(_identifier().labels) - {_NO_LANGUAGE}


def _sample(text: str) -> str:
    if len(text) <= SAMPLE_CHARS:
        return text
    size = SAMPLE_CHARS // 3
    middle = (len(text) - size) // 2
    return " ".join((text[:size], text[middle : middle + size], text[-size:]))


@cache
def _identifier() -> LanguageIdentifier:
    """The model, loaded once a process (some 0.5 s, 90 MB)."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
