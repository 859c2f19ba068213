"""Pictures of what `dedup.py` measured: recall by similarity, speed of the tools, time by number of documents."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

OURS = "gristmill"


def plot_all(
    recall: Sequence[tuple[str, list[tuple[float, float]]]],
    bands: Sequence[tuple[int, int]],
    speeds: Sequence[tuple[str, float]],
    growth: Sequence[tuple[str, list[tuple[int, float]]]],
    folder: Path,
) -> None:
    """Write dedup-recall.png, dedup-speed.png and, where it was measured, dedup-growth.png.

    `recall` has (similarity, share found) of each tool, `bands` the (bands, rows) whose theory is drawn, `speeds` MB/s,
    `growth` (documents, CPU seconds).
    """
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    style = {
        "figure.dpi": 110,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        _plot_recall(recall, bands, folder / "dedup-recall.png")
        _plot_speed(speeds, folder / "dedup-speed.png")
        if growth:
            _plot_growth(growth, folder / "dedup-growth.png")
    pyplot.close("all")


def _plot_recall(
    recall: Sequence[tuple[str, list[tuple[float, float]]]],
    bands: Sequence[tuple[int, int]],
    path: Path,
) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
    for (number, rows), dashes in zip(bands, (":", "--", "-.", "-") * len(bands), strict=False):
        s = [i / 200 for i in range(40, 201)]
        curve = [1 - (1 - x**rows) ** number for x in s]
        label = f"by theory, {number} x {rows} bands alone"
        axes.plot(s, curve, color="black", lw=0.8, ls=dashes, label=label)
    ours, peers = (iter(pyplot.get_cmap(name).colors * 3) for name in ("Set1", "Dark2"))
    for label, points in recall:
        if points and label.startswith(OURS):
            style = {"lw": 1.8, "marker": "o", "ms": 3, "color": next(ours), "zorder": 3}
            axes.plot(*zip(*points, strict=True), label=label, **style)
        elif points:
            axes.plot(*zip(*points, strict=True), label=label, color=next(peers), lw=0.8)
    axes.set(xlabel="true Jaccard similarity of a planted pair", ylabel="share of pairs found")
    axes.set(xlim=(0.2, 1), ylim=(0, 1.02))
    figure.legend(fontsize=7, frameon=False, loc="outside right center")
    figure.savefig(path)


def _plot_speed(speeds: Sequence[tuple[str, float]], path: Path) -> None:
    speeds = sorted(speeds, key=lambda pair: pair[1])
    labels, values = zip(*speeds, strict=True)
    figure, axes = pyplot.subplots(figsize=(7, 0.3 * len(speeds) + 0.8), layout="constrained")
    colors = ["#c44e52" if label.startswith(OURS) else "0.65" for label in labels]
    axes.bar_label(axes.barh(labels, values, color=colors), [f" {value:.3g}" for value in values])
    axes.set(xscale="log", xlabel="MB of text per CPU-second of one core (logarithmic)")
    figure.savefig(path)


def _plot_growth(growth: Sequence[tuple[str, list[tuple[int, float]]]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for label, points in growth:
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel="documents", ylabel="CPU seconds", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)
