"""Where a corpus comes from and what came of it, as one graph: sources, snapshots, training runs, releases.

Read from the lake alone. A damaged file shows as what it is and ends nothing: `gristmill verify` is who complains.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from flows.markdown import mermaid
from model.records import read_object
from pipeline.display import clip, fixed, number, plural, size
from storage.catalog import read_manifest, versions
from storage.errors import GristmillError
from storage.lake import Lake
from storage.snapshot import Manifest

MAX_SNAPSHOTS = 5
"""Snapshots in the graph, the newest."""
MAX_SOURCES = 2
"""Sources named of each snapshot, those that gave it the most."""
MAX_RUNS = 3
"""Training runs shown of each snapshot, the first in the order of their names, releases before others."""

Row = Mapping[str, Any]


def lineage(lake: Lake, corpus: str) -> str:
    """A mermaid graph of the corpus's last snapshots, a row each: sources, snapshot, runs trained on it, releases.

    Arrows between rows lead from parent to child; nothing is built upon a quarantined snapshot. Reads these snapshots'
    manifests, the record of every run in the lake, and all releases of the corpus.
    """
    found = versions(lake, corpus)
    shown = {version: _manifest(lake, corpus, version) for version in found[-MAX_SNAPSHOTS:]}
    runs, releases = _runs(lake, corpus), _releases(lake, corpus)
    lines = ["graph TB"]
    for version, manifest in shown.items():
        label = f"{corpus}@{version}"
        lines += _row(lake, label, version, manifest, runs.get(version, []), releases)
    if len(found) > len(shown):
        earlier = plural(len(found) - len(shown), "earlier snapshot")
        lines.append(f'before(["{earlier}"]):::source --> v{min(shown)}')
    return mermaid([*lines, *_arrows(shown), *_LOOKS])


def _manifest(lake: Lake, corpus: str, version: int) -> Manifest | None:
    try:
        return read_manifest(lake, corpus, version)
    except GristmillError:
        return None


def _arrows(shown: Mapping[int, Manifest | None]) -> list[str]:
    """From each parent to its children; what only follows is held below by a link that cannot be seen."""
    by_hash = {manifest.hash(): version for version, manifest in shown.items() if manifest}
    lines = []
    for before, version in pairwise(shown):
        manifest = shown[version]
        parent = by_hash.get(manifest.parent) if manifest else None
        if parent is not None:
            lines.append(f"v{parent} --> v{version}")
        if parent != before:
            lines.append(f"v{before} ~~~ v{version}")
    return lines


# The UI shows graphs on a dark ground in its light theme too, and other viewers on white: so each box has its own ground.
_LOOKS = [
    "classDef source fill:#dedbd3,stroke:#dedbd3,color:#22262b",
    "classDef snapshot fill:#2f78a3,stroke:#2f78a3,color:#ffffff",
    "classDef refused fill:#67325e,stroke:#a06fe0,color:#ffffff,stroke-dasharray:5 4",
    "classDef run fill:#fbfaf7,stroke:#8a9099,color:#22262b",
    "classDef release fill:#ffd166,stroke:#e3a008,color:#22262b",
    "linkStyle default stroke:#8a9099",
]


def _row(
    lake: Lake,
    name: str,
    version: int,
    manifest: Manifest | None,
    runs: Sequence[str],
    releases: Mapping[str, int],
) -> list[str]:
    """One snapshot as a row of its own, so that a long history goes down the page and not off its side."""
    if manifest is None:
        label, sources, is_refused = f"{name}<br/>damaged", "", True
    else:
        is_refused = manifest.status != "promoted"
        kept = sum(counts.get("kept", 0) for counts in manifest.funnel.values())
        forgotten = manifest.summary.get("forget", {}).get("forgotten")
        what = f"{number(kept)} kept" if forgotten is None else f"{number(forgotten)} forgotten"
        status = f"{manifest.status}, " if is_refused else ""
        label = f"<b>{name}</b><br/>{status}{what}"
        sources = _sources(manifest)
    look = "refused" if is_refused else "snapshot"
    lines = [f'subgraph v{version}[" "]', "direction LR", f's{version}["{label}"]:::{look}']
    if sources:
        lines.append(f'i{version}["{sources}"]:::source --> s{version}')
    ranked = sorted(runs, key=lambda run: (run not in releases, run))
    for i, run in enumerate(ranked[:MAX_RUNS]):
        node = f"r{version}x{i}"
        lines.append(f's{version} --> {node}["{_run(lake, run)}"]:::run')
        if run in releases:
            lines.append(f'{node} --> {node}r(["release {releases[run]}"]):::release')
    if len(ranked) > MAX_RUNS:
        lines.append(
            f's{version} --> r{version}more["{plural(len(ranked) - MAX_RUNS, "more run")}"]'
        )
    return [*lines, "end", f"style v{version} fill:transparent,stroke:transparent"]


def _sources(manifest: Manifest) -> str:
    """What a snapshot took in, by source."""
    new: Counter[str] = Counter()
    for item in manifest.inputs:
        if item.version == manifest.version:
            new[item.source] += item.num_bytes
    names = [_label(source) for source, _ in new.most_common(MAX_SOURCES)]
    if len(new) > MAX_SOURCES:
        names.append(f"{len(new) - MAX_SOURCES} more")
    return f"{', '.join(names)}<br/>{size(new.total())}" if new else ""


def _run(lake: Lake, run: str) -> str:
    path = f"runs/{run}/result.json"
    result = _read(lake, path) if lake.exists(path) else {"steps": None}
    if result.get("steps") is None:
        return f"{run}<br/>not finished"
    bits = result.get("bits_per_byte")
    return f"{run}<br/>" + (f"{fixed(bits, 3)} bits per byte" if bits is not None else "finished")


def _runs(lake: Lake, corpus: str) -> dict[int, list[str]]:
    """Runs by the version of the corpus that they were trained on."""
    found: dict[int, list[str]] = {}
    for run in lake.list_folders("runs"):
        path = f"runs/{run}/run.json"
        if lake.exists(path):
            name, _, version = str(_read(lake, path).get("snapshot", "")).partition("@")
            if name == corpus and version.isdecimal():
                found.setdefault(int(version), []).append(run)
    return found


def _releases(lake: Lake, corpus: str) -> dict[str, int]:
    """The newest release number of each released run."""
    bodies = [_read(lake, entry.path) for entry in lake.list(f"corpora/{corpus}/releases")]
    found = [(body["release"], body["run"]) for body in bodies if {"release", "run"} <= body.keys()]
    return {run: release for release, run in sorted(found)}


def _read(lake: Lake, path: str) -> Row:
    try:
        return read_object(lake, path)
    except GristmillError:
        return {}


def _label(text: str) -> str:
    """A name from a recipe as text of a graph: mermaid takes what is no letter or digit as a numbered entity."""
    safe = [
        char if char.isalnum() or char in " ._-" else f"#{ord(char)};" for char in clip(text, 24)
    ]
    return "".join(safe)
