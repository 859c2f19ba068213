"""Where a corpus comes from and what came of it, as one graph: sources, snapshots, training runs, releases."""

from flows.markdown import mermaid
from storage.catalog import read_manifest, versions
from storage.lake import Lake

MAX_SNAPSHOTS = 5
"""Snapshots in the graph, the newest."""


def lineage(lake: Lake, corpus: str) -> str:
    """A mermaid graph of the corpus's sources, last snapshots, the runs trained on them, and releases."""
    edges = ["graph LR"]
    before = None
    for version in versions(lake, corpus)[-MAX_SNAPSHOTS:]:
        manifest = read_manifest(lake, corpus, version)
        edges.append(f's{version}["{manifest.ref}"]')
        if before is not None:
            edges.append(f"s{before} --> s{version}")
        before = version
    return mermaid(edges)
