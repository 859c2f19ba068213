"""Train and evaluate the toxicity model: logistic regression over hashed n-grams (see `pipeline.toxicity`)."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import minimize

from pipeline.toxicity import (
    CARD,
    DECIMALS,
    WEIGHTS,
    Model,
    is_listed,
    listed_words,
    load_model,
    score_texts,
    score_windows,
)
from pipeline.toxicity_data import (
    CALIBRATE,
    TEST,
    TRAIN,
    Comments,
    neutral_windows,
    read_clean,
    read_comments,
    take,
)
from pipeline.toxicity_features import Windows, cut_windows, grams

BITS = 18
"""The hash table has 2**BITS rows; with 2**20 held-out scores were the same to two digits."""
REGULARISATION = 4e-3
"""Weight of the squared norm beside the mean loss; 2e-3 and 8e-3 give the same held-out AUC to two digits."""
MIN_WINDOWS = 3
"""N-grams (rows of the table) in fewer training windows weigh nothing."""
CLEAN_WINDOWS, SHORT_WINDOWS = 4_000, 8_000
"""Windows and short pieces of clean text taken from each domain, at random."""
TOXIC_SHARE, OTHER_SHARE, HARD_SHARE, CLEAN_SHARE = 1.0, 0.6, 0.1, 2.0
"""Total weight of a source's toxic comments, of its others, of its others if it is in HARD, and of all clean text."""
HARD = ("civil",)
"""Sources whose other comments were picked because somebody called them toxic. Without them the model finds more, but
takes plain talk of politics for insults; with their full weight it misses what is not obscene."""
ITERATIONS = 150
FALSE_POSITIVES = 0.005
"""Share of clean windows that may score above a domain's threshold."""
MIN_THRESHOLD, MAX_THRESHOLD = 0.7, 0.99
"""Thresholds stay between: below, one window of a scene would decide on it (1 in 25 makes 0.67, see POWER), and of
2,800 whole clean documents 6 would go instead of 3; above, nothing would be found."""


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


def train(comments: Comments, clean: dict[str, Windows], seed: int = 1) -> Model:
    """Fit the weights; each source of comments and each domain of clean text has the same say."""
    rng = np.random.default_rng(seed)
    seen = comments.select(~comments.held_out())
    windows = cut_windows(pa.array(seen.texts, pa.large_string()))
    toxic = seen.toxic[windows.document]
    groups = [np.char.add(seen.source[windows.document], np.where(toxic, "+", "-"))]
    matrices = [_matrix(windows)]
    for domain, text in sorted(clean.items()):
        for limit, short in ((CLEAN_WINDOWS, False), (SHORT_WINDOWS, True)):
            matrix = _matrix(take(text, TRAIN, short=short))
            matrices.append(matrix[np.sort(rng.permutation(matrix.shape[0])[:limit])])
            groups.append(np.full(matrices[-1].shape[0], f"clean {domain} {short}"))
    matrices.append(_matrix(neutral_windows()))
    groups.append(np.full(matrices[-1].shape[0], "clean neutral"))
    group = np.concatenate(groups)
    sign = np.where(np.char.endswith(group, "+"), 1.0, -1.0)
    weight = _group_weights(group)
    matrix: Any = scipy.sparse.csr_matrix(scipy.sparse.vstack(matrices))
    salience = _salience(matrix, sign, weight)
    matrix = matrix @ scipy.sparse.diags(salience.astype(np.float32), format="csr")
    solution = _fit(matrix, sign, weight)
    weights = solution[:-1] * salience
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
    """Weight of each window, so that a group has its share however many windows it has."""
    weight = np.zeros(len(groups))
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    num_clean = sum(name.startswith("clean ") for name in names.tolist())
    for number, (name, count) in enumerate(zip(names.tolist(), counts, strict=True)):
        if name.startswith("clean "):
            share = CLEAN_SHARE / num_clean
        elif name.endswith("+"):
            share = TOXIC_SHARE
        else:
            share = HARD_SHARE if name[:-1] in HARD else OTHER_SHARE
        weight[inverse == number] = share / count
    return weight


def _salience(
    matrix: Any, sign: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Factor of each row of the table: its inverse document frequency times how unevenly the two sides use it.

    The second is |log(p / q)| of naive Bayes, p and q being its mean value on either side, plus a half so that even
    ones keep a little (Wang and Manning 2012, Baselines and Bigrams). The regulariser then spares what tells most.
    """
    frequency = np.bincount(matrix.indices, minlength=1 << BITS)
    rarity = np.log((1 + matrix.shape[0]) / (1 + frequency))
    toxic, other = (
        matrix[side].T @ (weight[side] / weight[side].sum()) for side in (sign > 0, sign < 0)
    )
    least = np.median(toxic[toxic > 0])
    uneven = np.abs(np.log((toxic + least) / (other + least)))
    return np.where(frequency >= MIN_WINDOWS, rarity * (0.5 + uneven), 0.0)


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
        scores = score_windows(take(windows, CALIBRATE), model)
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
        for threshold in (0.5, thresholds["default"]):
            figures[name][f"macro_f1 at {threshold}"] = _macro_f1(score >= threshold, truth)
        figures[name]["macro_f1 of the word list"] = _macro_f1(listed[chosen], truth)
    false_positives: dict[str, Any] = {}
    for domain, windows in sorted(clean.items()):
        threshold = thresholds.get(domain, thresholds["default"])
        false_positives[domain] = {"threshold": threshold}
        for name, short in (("windows", False), ("short pieces", True)):
            score = score_windows(take(windows, TEST, short=short), model)
            false_positives[domain][name] = len(score)
            for limit in (0.5, threshold):
                share = round(float((score >= limit).mean()), 5)
                false_positives[domain][f"{name} at {limit} and above"] = share
    return {"comments": figures, "clean": false_positives}


def _has_listed_word(texts: pa.Array) -> NDArray[np.bool_]:
    windows, found = cut_windows(texts), np.zeros(len(texts), bool)
    for block in grams(windows, words_only=True):
        hit = is_listed(block.words, listed_words()["en"])
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
