"""The recall of near-duplicates for people: what the bands promise, and a snapshot's own figures as words and picture."""

from collections.abc import Mapping
from typing import Any

from pipeline.display import number
from pipeline.svg import Picture, picture, stretched, tag


def found_probability(similarity: float, *, bands: int, rows: int) -> float:
    """How likely the bands make a candidate of a pair: 1 - (1 - s^rows)^bands (Mining of Massive Datasets, 3.4.2)."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def in_words(recall: Mapping[str, Any]) -> str:
    """What a snapshot's figures say, in a sentence; empty where nothing was planted."""
    planted, hits = (
        sum(row[key] for row in recall.get("planted", [])) for key in ("planted", "found")
    )
    if not planted:
        return ""
    contained, below, pairs = (
        recall[key] for key in ("contained", "below_threshold", "random_pairs")
    )
    text = f"Found again: {hits:,} of {planted:,} planted near-duplicates"
    if contained["planted"]:
        text += f" and {contained['found']:,} of {contained['planted']:,} pieces of a text"
    if below["planted"]:
        wrong = f"{below['wrongly_found']:,}" if below["wrongly_found"] else "none"
        text += f"; taken for one though less alike: {wrong} of {below['planted']:,}"
    if apart := recall.get("kept_apart"):
        text += f"; alike by the template of their site alone, and kept apart: {apart['planted'] - apart['found']:,}"
    if pairs["pairs"]:
        missed = f"{pairs['missed']:,}" if pairs["missed"] else "none"
        text += f"; duplicates among {pairs['pairs']:,} random pairs of what was kept: {missed}"
    return f"{text}."


def guard_in_words(near_duplicates: Mapping[str, Any]) -> str:
    """What the guard against templates did, in a sentence; empty where it is off."""
    if "templates" not in near_duplicates:
        return ""
    counts, apart = near_duplicates["templates"], near_duplicates["kept_apart"]
    if not counts:
        return "Templates of sites: none found."
    largest = sorted(counts, key=lambda source: (-counts[source], source))[:3]
    shown = ", ".join(f"{source} {counts[source]:,}" for source in largest)
    more = f" and {len(counts) - 3:,} more" if len(counts) > 3 else ""
    pairs = "1 pair was" if apart == 1 else f"{apart:,} pairs were"
    return f"Templates of sites, in shingles: {shown}{more}; {pairs} alike by them alone and kept apart."


def recall_picture(recall: Mapping[str, Any]) -> Picture:
    """Draw the share of planted duplicates found by similarity, over the curve that the bands promise."""
    low, height = 0.3, 150

    def at(similarity: float) -> float:
        return 100 * (similarity - low) / (1 - low)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = 6 + height * (1 - tick)
        parts.append(tag("line", x1=0, x2="100%", y1=y, y2=y, class_="grid" if tick else "axis"))
        label = {"x": -8, "y": y + 4, "text_anchor": "end", "class_": "soft"}
        parts.append(tag("text", f"{tick:g}", **label))
    steps = [low + (1 - low) * i / 100 for i in range(101)]
    curve = [
        (
            10 * at(s),
            height * (1 - found_probability(s, bands=recall["bands"], rows=recall["rows"])),
        )
        for s in steps
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve)
    line = tag("polyline", points=path, class_="curve baseline")
    parts.append(stretched(line, height, y=6, width="100%"))
    threshold = recall["threshold"]
    if threshold >= low:
        x = f"{at(threshold):.2f}%"
        parts.append(tag("line", x1=x, x2=x, y1=6, y2=height + 6, class_="mark"))
    for row in recall["planted"]:
        if row["jaccard"] >= low:
            tip = f"{row['from']:g} to {row['to']:g}: {number(row['found'])} of {number(row['planted'])} found"
            y = 6 + height * (1 - row["found"] / row["planted"])
            place = {"cx": f"{at(row['jaccard']):.2f}%", "cy": y, "r": 5, "class_": "dot kept"}
            parts.append(tag("circle", tag("title", tip), **place))
    labels = [(low, "start"), (threshold, "middle"), (1.0, "end")]
    for similarity, anchor in labels if low + 0.1 < threshold < 0.9 else labels[::2]:
        place = {"x": f"{at(similarity):.2f}%", "y": height + 22, "text_anchor": anchor}
        parts.append(tag("text", f"{similarity:g}", class_="soft", **place))
    return picture("Planted duplicates found, by similarity", in_words(recall), height + 26, parts)
