"""Train and evaluate the toxicity model: logistic regression over hashed n-grams, with clean text of every domain.

Comments alone teach a model that old words are insults; windows of plays, novels, articles, code and dialogues as
negatives cure that. A part of everything is held out: comments by a hash of their text, clean text by stretches of
windows, of which one half sets the thresholds and the other is what the card reports.
"""

import argparse
import gzip
import html
import json
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import minimize

from pipeline.readers import ReadLimits, SourceConfig, find_inputs, read_input
from pipeline.toxicity import (
    CARD,
    DECIMALS,
    WEIGHTS,
    Model,
    listed_words,
    load_model,
    score_texts,
    score_windows,
)
from pipeline.toxicity_features import Windows, cut_windows, grams
from storage.errors import ConfigError, InputError

BITS = 18
"""The hash table has 2**BITS rows; with 2**20 the held-out scores were the same to two digits."""
REGULARISATION = 2e-4
"""Weight of the squared norm beside the mean loss; of 1e-6 ... 1e-3 the best for sources that training did not see."""
MIN_WINDOWS = 3
"""N-grams (rows of the table) in fewer training windows weigh nothing."""
CLEAN_WINDOWS = 4_000
"""Windows of clean text taken from each domain, at random."""
ITERATIONS = 150
HELD_OUT = 0.15
"""Share of comments that training does not see."""
STRETCH = 512
"""Windows of clean text in a stretch, about 120 kB; of each four one is held out."""
FALSE_POSITIVES = 0.005
"""Share of clean windows that may score above a domain's threshold."""
MIN_THRESHOLD, MAX_THRESHOLD = 0.7, 0.99
"""Thresholds stay between: below, a few clean windows would decide; above, nothing would be found."""


@dataclass(frozen=True)
class Comments:
    """Labelled comments."""

    texts: list[str]
    toxic: NDArray[np.bool_]
    source: NDArray[np.str_]

    def select(self, chosen: NDArray[np.bool_]) -> "Comments":
        texts = [text for text, keep in zip(self.texts, chosen, strict=True) if keep]
        return Comments(texts, self.toxic[chosen], self.source[chosen])

    def held_out(self) -> NDArray[np.bool_]:
        """Which comments training does not see: by a hash of their text, so copies go together."""
        digests = (blake2b(text.encode(), digest_size=4).digest() for text in self.texts)
        return np.array([int.from_bytes(d, "big") < HELD_OUT * 2**32 for d in digests], bool)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `python -m pipeline.toxicity`."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.toxicity", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "evaluate"):
        command = commands.add_parser(name)
        command.add_argument("--comments", nargs="+", type=Path, required=True,
                             help="JSON lines with text, label (1 is toxic) and source")  # fmt: skip
        command.add_argument(
            "--sources", nargs="*", default=[], help="sources to train on (default: all)"
        )
        command.add_argument("--clean", nargs="+", required=True, metavar="DOMAIN=PATH",
                             help="clean text, of any format that a recipe reads")  # fmt: skip
    commands.choices["train"].add_argument("--out", type=Path, default=WEIGHTS.parent)
    commands.choices["train"].add_argument("--note", action="append", default=[], metavar="NAME=WORDS",
                                           help="a licence or origin for the card")  # fmt: skip
    commands.choices["evaluate"].add_argument("--weights", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    comments, clean = read_comments(options.comments), read_clean(options.clean)
    trained_on = options.sources or sorted(set(comments.source.tolist()))
    if options.command == "evaluate":
        thresholds = json.loads(CARD.read_text("utf-8"))["thresholds"]
        print(
            json.dumps(
                evaluate(load_model(options.weights), comments, clean, thresholds, trained_on),
                indent=1,
            )
        )
        return
    model = train(comments.select(np.isin(comments.source, trained_on)), clean)
    thresholds = find_thresholds(model, clean)
    card = {
        "model": f"logistic regression over 2**{BITS} hashed n-grams, 8-bit weights",
        "trained_on": trained_on,
        "clean_domains": sorted(clean),
        "licences": dict(note.split("=", 1) for note in options.note),
        "thresholds": thresholds,
        "held_out": evaluate(model, comments, clean, thresholds, trained_on),
    }
    scale, bias = np.float64(model.scale), np.float64(model.bias)
    np.savez_compressed(options.out / WEIGHTS.name, weights=model.weights, scale=scale, bias=bias)
    (options.out / CARD.name).write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    print(json.dumps(card, indent=1))


def read_comments(paths: Sequence[Path]) -> Comments:
    """Comments of JSON lines (packed or not), without addresses, mentions and other marks of their sites."""
    texts, toxic, source = [], [], []
    for path in paths:
        with {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)(
            path, "rt", encoding="utf-8"
        ) as file:
            for line in file:
                row = json.loads(line)
                texts.append(_bare(row["text"]))
                toxic.append(row["label"] == 1)
                source.append(row["source"])
    if not texts:
        raise InputError(f"--comments: expected rows in {', '.join(map(str, paths))}, got none")
    return Comments(texts, np.array(toxic), np.array(source))


def read_clean(named: Sequence[str]) -> dict[str, Windows]:
    """Domain -> windows of its clean text, from `DOMAIN=PATH` arguments in any format that a recipe reads."""
    texts: dict[str, list[str]] = {}
    for argument in named:
        domain, equals, path = argument.partition("=")
        if not equals:
            raise ConfigError(f"--clean: expected DOMAIN=PATH, got {argument!r}")
        source = SourceConfig(path=path, domain=domain)
        for found in find_inputs(source, Path()):
            for batch in read_input(found, source, ReadLimits()):
                good = batch.filter(pc.is_null(batch["error"]))
                texts.setdefault(domain, []).extend(good["text"].to_pylist())
    return {
        domain: cut_windows(pa.array(rows, pa.large_string())) for domain, rows in texts.items()
    }


def _bare(text: str) -> str:
    text = html.unescape(html.unescape(text))
    return re.sub(r"https?://\S+|\bRT\b|@\w+", " ", text)


def stretches(count: int, remainders: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of `count` windows lie in the stretches whose number modulo 8 is one of `remainders`."""
    return np.isin(np.arange(count) // STRETCH % 8, remainders)


TRAIN, CALIBRATE, TEST = (0, 1, 2, 4, 5, 6), (3,), (7,)
"""Stretches of clean text, by number modulo 8."""


def train(comments: Comments, clean: dict[str, Windows], seed: int = 1) -> Model:
    """Fit the weights; each source of comments and each domain of clean text has the same say."""
    rng = np.random.default_rng(seed)
    seen = comments.select(~comments.held_out())
    windows = cut_windows(pa.array(seen.texts, pa.large_string()))
    matrices = [_matrix(windows)]
    toxic = [seen.toxic[windows.document]]
    group = np.char.add(seen.source[windows.document], np.where(toxic[0], "+", "-"))
    groups = [group]
    for domain, text in sorted(clean.items()):
        chosen = np.flatnonzero(stretches(len(text.document), TRAIN))
        chosen = np.sort(rng.permutation(chosen)[:CLEAN_WINDOWS])
        matrices.append(_matrix(text)[chosen])
        toxic.append(np.zeros(len(chosen), bool))
        groups.append(np.full(len(chosen), f"clean {domain}"))
    sign = np.where(np.concatenate(toxic), 1.0, -1.0)
    weight = _group_weights(np.concatenate(groups))
    matrix: Any = scipy.sparse.csr_matrix(scipy.sparse.vstack(matrices))
    # The inverse document frequency goes into the features here and into the weights in the end.
    frequency = np.bincount(matrix.indices, minlength=1 << BITS)
    rarity = np.where(frequency >= MIN_WINDOWS, np.log((1 + matrix.shape[0]) / (1 + frequency)), 0)
    matrix = matrix @ scipy.sparse.diags(rarity.astype(np.float32), format="csr")
    solution = _fit(matrix, sign, weight)
    weights = solution[:-1] * rarity
    scale = float(np.abs(weights).max() / 127)
    return Model(np.round(weights / scale).astype(np.int8), scale, float(solution[-1]))


def _matrix(windows: Windows) -> Any:
    """Counts of each window's n-grams over the root of their number."""
    row, column = [], []
    for block in grams(windows):
        row.append(block.window + block.windows.start)
        column.append(block.rows >> np.uint32(32 - BITS))
    rows, columns = np.concatenate(row), np.concatenate(column).astype(np.int64)
    number = np.bincount(rows, minlength=len(windows.document))
    values = (1 / np.sqrt(np.maximum(number, 1)))[rows].astype(np.float32)
    return scipy.sparse.csr_matrix((values, (rows, columns)), shape=(len(number), 1 << BITS))


def _group_weights(groups: NDArray[np.str_]) -> NDArray[np.float64]:
    """Weight of each window: one for each source's toxic comments, 0.6 for its others, one for all clean text."""
    weight = np.zeros(len(groups))
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    num_clean = max(1, sum(name.startswith("clean ") for name in names))
    for number, (name, count) in enumerate(zip(names, counts, strict=True)):
        total = 1 / num_clean if name.startswith("clean ") else 1.0 if name.endswith("+") else 0.6
        weight[inverse == number] = total / count
    return weight


def _fit(
    matrix: Any, sign: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights and bias that minimise the weighted log loss plus REGULARISATION / 2 times the squared weights."""
    transposed = matrix.T.tocsr()

    def loss_and_gradient(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (matrix @ point[:-1].astype(np.float32) + point[-1])
        loss = weight @ np.logaddexp(0, -margin) + REGULARISATION / 2 * (point[:-1] @ point[:-1])
        slope = -weight * sign / (1 + np.exp(margin))
        gradient = transposed @ slope.astype(np.float32) + REGULARISATION * point[:-1]
        return float(loss), np.append(gradient, slope.sum())

    start = np.zeros(matrix.shape[1] + 1)
    options = {"maxiter": ITERATIONS, "maxcor": 6}
    return minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x


def find_thresholds(model: Model, clean: dict[str, Windows]) -> dict[str, float]:
    """Domain -> score that FALSE_POSITIVES of its clean windows reach; `default` is the highest of them.

    Windows and not documents, since a comment is one window; in a longer text the mean only lowers the score.
    """
    thresholds: dict[str, float] = {}
    for domain, windows in sorted(clean.items()):
        chosen = stretches(len(windows.document), CALIBRATE)
        scores = score_windows(windows, model)[chosen if chosen.any() else slice(None)]
        found = np.quantile(scores, 1 - FALSE_POSITIVES, method="higher") + 10.0**-DECIMALS
        thresholds[domain] = round(float(np.clip(found, MIN_THRESHOLD, MAX_THRESHOLD)), 3)
    return thresholds | {"default": max(thresholds.values())}


def evaluate(
    model: Model,
    comments: Comments,
    clean: dict[str, Windows],
    thresholds: dict[str, float],
    trained_on: Sequence[str],
) -> dict[str, Any]:
    """AUC and macro-F1 on held-out comments (as many toxic as not), false positives on held-out clean text.

    Sources outside `trained_on` were not seen at all. The word list alone stands beside, as the baseline.
    """
    test = comments.select(comments.held_out())
    texts = pa.array(test.texts, pa.large_string())
    scores, listed = score_texts(texts, model), _has_listed_word(texts)
    groups = {"all": np.ones(len(test.texts), bool), "seen": np.isin(test.source, trained_on)}
    groups["unseen"] = ~groups["seen"]
    groups |= {name: test.source == name for name in sorted(set(test.source.tolist()))}
    figures: dict[str, Any] = {}
    for name, members in groups.items():
        chosen = _balanced(members, test.toxic)
        if not len(chosen):
            continue
        truth, score = test.toxic[chosen], scores[chosen]
        figures[name] = {"comments": len(chosen), "auc": _auc(score, truth)}
        for threshold in (0.5, 0.7, thresholds["default"]):
            figures[name][f"macro_f1 at {threshold}"] = _macro_f1(score >= threshold, truth)
        figures[name]["macro_f1 of the word list"] = _macro_f1(listed[chosen], truth)
    false_positives: dict[str, Any] = {}
    for domain, windows in sorted(clean.items()):
        chosen = stretches(len(windows.document), TEST)
        score = score_windows(windows, model)[chosen if chosen.any() else slice(None)]
        threshold = thresholds.get(domain, thresholds["default"])
        false_positives[domain] = {"windows": len(score), "threshold": threshold}
        for limit in (0.5, threshold):
            false_positives[domain][f"false positives at {limit}"] = round(
                float((score >= limit).mean()), 5
            )
    return {"comments": figures, "clean": false_positives}


def _has_listed_word(texts: pa.Array) -> NDArray[np.bool_]:
    windows, found = cut_windows(texts), np.zeros(len(texts), bool)
    for block in grams(windows, words_only=True):
        hit = np.isin(block.words, listed_words()["en"])
        found[windows.document[block.windows][block.word_window[hit]]] = True
    return found


def _balanced(members: NDArray[np.bool_], toxic: NDArray[np.bool_]) -> NDArray[np.int64]:
    """As many toxic as other members, chosen at random (seed 1)."""
    sides = [np.flatnonzero(members & toxic), np.flatnonzero(members & ~toxic)]
    rng = np.random.default_rng(1)
    return np.concatenate([rng.permutation(side)[: min(map(len, sides))] for side in sides])


def _auc(score: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Share of pairs of a toxic and another comment that the score puts in the right order; ties count half."""
    toxic, other = np.sort(score[truth]), np.sort(score[~truth])
    below = np.searchsorted(other, toxic, "left") + np.searchsorted(other, toxic, "right")
    return round(float(below.mean() / 2 / len(other)), 4)


def _macro_f1(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Mean of the F1 of both classes."""
    sides = ((found, truth), (~found, ~truth))
    return round(
        float(np.mean([2 * (f & t).sum() / max(1, f.sum() + t.sum()) for f, t in sides])), 4
    )
