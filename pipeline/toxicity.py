"""Toxicity: a score for each document from a shipped linear model, and the verdict that a domain's threshold gives.

The model weighs hashed words, pairs of words and character n-grams (`pipeline.toxicity_features`) of each window of
about 240 bytes; its weights are 2**18 8-bit numbers, its card says what it was trained on and how well it does. A list
of words (LDNOOBW, CC BY 4.0) is the second signal, for the languages that the model has not seen.

    python -m pipeline.toxicity train --comments FILE... --clean DOMAIN=PATH... --out FOLDER
    python -m pipeline.toxicity evaluate --comments FILE... --clean DOMAIN=PATH...
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.stage import KEEP, VERDICT
from pipeline.toxicity_features import Windows, cut_windows, grams, hash_words
from storage.errors import ConfigError

WEIGHTS = Path(__file__).with_name("toxicity_weights.npz")
CARD = Path(__file__).with_name("toxicity_card.json")
WORDS = Path(__file__).with_name("toxicity_words.json")

POWER = 8
"""Exponent of the mean that joins windows' scores: a sixth of a page in insults makes 0.8, a hundredth makes 0.56."""

DECIMALS = 4
"""Scores are rounded: the last bits of exp differ between processors, and a snapshot's bytes must not."""


@dataclass(frozen=True, kw_only=True)
class ToxicityConfig:
    """What is dropped as insulting, hateful or obscene."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Whether texts are scored at all."""
    threshold: float | None = None
    """Score in (0, 1] from which a document is dropped, for domains without one of their own below; by default the
    shipped threshold of its domain, found at 0.5 % false positives (toxicity_card.json)."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Thresholds of single domains, such as `{ drama = 0.9 }`; 1.01 keeps everything."""
    word_list: bool = True
    """Whether the list of words is asked too."""
    max_listed_words: float = 0.1
    """Share of listed words in a document, in the list of its language, from which it is dropped."""

    def __post_init__(self) -> None:
        named = {f"toxicity.thresholds.{name}": value for name, value in self.thresholds.items()}
        if self.threshold is not None:
            named["toxicity.threshold"] = self.threshold
        for name, value in named.items():
            if not 0 < value <= 1.01:
                raise ConfigError(
                    f"{name}: expected a number above 0 and at most 1.01, got {value}"
                )
        if not 0 < self.max_listed_words <= 1:
            raise ConfigError(
                f"toxicity.max_listed_words: expected a number in (0, 1], got {self.max_listed_words}"
            )


@dataclass(frozen=True)
class Model:
    """A linear model over hashed n-grams."""

    weights: NDArray[np.int8]
    """One for each row of the hash table, in units of `scale`; a power of two of them."""
    scale: float
    bias: float

    @property
    def shift(self) -> int:
        """Bits of a 32-bit hash that do not number a row."""
        return 32 - len(self.weights).bit_length() + 1


@cache
def shipped_model() -> Model:
    """The model beside this module."""
    return load_model(WEIGHTS)


def load_model(path: Path) -> Model:
    """A model from its .npz file (arrays only, nothing is unpickled)."""
    with np.load(path, allow_pickle=False) as file:
        return Model(file["weights"], float(file["scale"]), float(file["bias"]))


@cache
def shipped_thresholds() -> dict[str, float]:
    """Domain -> threshold, as the card has them; `default` for any other."""
    return json.loads(CARD.read_text("utf-8"))["thresholds"]


@cache
def listed_words() -> dict[str, NDArray[np.uint64]]:
    """ISO 639-1 code of a language -> sorted hashes of its listed words."""
    words: Mapping[str, list[str]] = json.loads(WORDS.read_text("utf-8"))["words"]
    return {language: np.sort(hash_words(listed)) for language, listed in words.items()}


def is_listed(words: NDArray[np.uint64], listed: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which words stand in a sorted list; twice as fast as `np.isin`, which sorts the words."""
    return listed[np.minimum(np.searchsorted(listed, words), len(listed) - 1)] == words


def score_toxicity(batch: pa.RecordBatch) -> pa.Array:
    """Score in [0, 1] of each document, float32; 0 for one without words. About 10 MB of text a second and core."""
    return pa.array(score_texts(batch["text"], shipped_model()), pa.float32())


def judge_toxicity(batch: pa.RecordBatch, config: ToxicityConfig) -> pa.StructArray:
    """Drop what scores too high for its domain, or is full of listed words; `toxicity` must be filled in."""
    verdicts: list[dict[str, Any]] = []
    listed = _listed_share(batch) if config.word_list else np.zeros(len(batch))
    columns = (batch["domain"].to_pylist(), batch["toxicity"].to_pylist(), listed.tolist())
    for domain, score, share in zip(*columns, strict=True):
        threshold = threshold_of(domain, config)
        if score >= threshold:
            verdict = {"rule": "toxic", "value": score, "threshold": threshold, "detail": None}
        elif share >= config.max_listed_words:
            limit = config.max_listed_words
            verdict = {"rule": "listed_words", "value": share, "threshold": limit, "detail": None}
        else:
            verdict = KEEP
        verdicts.append(verdict)
    return pa.array(verdicts, VERDICT)


def threshold_of(domain: str, config: ToxicityConfig) -> float:
    """The threshold that holds for a domain: its own, the recipe's, the shipped one."""
    shipped = shipped_thresholds()
    general = (
        shipped.get(domain, shipped["default"]) if config.threshold is None else config.threshold
    )
    return config.thresholds.get(domain, general)


def score_texts(texts: pa.Array, model: Model) -> NDArray[np.float32]:
    """Score in [0, 1] of each text: the power mean of its windows' probabilities, by length."""
    windows = cut_windows(texts)
    scores = score_windows(windows, model) ** POWER
    lengths = np.diff(windows.starts).astype(np.float64)
    total = np.bincount(windows.document, lengths, len(texts))
    mean = np.bincount(windows.document, scores * lengths, len(texts)) / np.maximum(total, 1)
    return np.round(mean ** (1 / POWER), DECIMALS).astype(np.float32)


def score_windows(windows: Windows, model: Model) -> NDArray[np.float64]:
    """Probability of each window that it is toxic; 0 for one without words.

    A window's n-grams count alike: their weights' sum, over the root of their number as in a normalised vector.
    """
    scores = np.zeros(len(windows.document))
    for block in grams(windows):
        count = block.windows.stop - block.windows.start
        weights = model.weights[block.rows >> np.uint32(model.shift)]
        # Sums of whole numbers below 2**53 are exact in any order, so the score is the same everywhere.
        total = np.bincount(block.window, weights, count)
        number = np.bincount(block.window, minlength=count)
        logits = model.bias + model.scale * total / np.sqrt(np.maximum(number, 1))
        scores[block.windows] = np.where(number > 0, 1 / (1 + np.exp(-logits)), 0.0)
    return scores


def _listed_share(batch: pa.RecordBatch) -> NDArray[np.float64]:
    """Share of each document's words that stand in the list of its language (English where none is known)."""
    lists = listed_words()
    windows = cut_windows(batch["text"])
    languages = [code if code in lists else "en" for code in batch["lang"].to_pylist()]
    listed, number = np.zeros(len(batch)), np.zeros(len(batch))
    spoken = {code: np.array([c == code for c in languages]) for code in sorted(set(languages))}
    for block in grams(windows, words_only=True):
        document = windows.document[block.windows][block.word_window]
        number += np.bincount(document, minlength=len(batch))
        for code, mask in spoken.items():
            hit = document[is_listed(block.words, lists[code])]
            listed += np.bincount(hit[mask[hit]], minlength=len(batch))
    # Of a handful of words one listed one says nothing.
    return np.where(number >= 10, listed / np.maximum(number, 1), 0.0)


if __name__ == "__main__":
    # Late import: the trainer needs scipy's optimiser, scoring does not.
    from pipeline.toxicity_train import main

    main()
