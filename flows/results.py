"""What `build` did, in a dictionary (for --json and Prefect) and in a sentence."""

from typing import Any

from pipeline.build import BuildResult
from pipeline.display import duration, number


def build_document(result: BuildResult) -> dict[str, Any]:
    """What a build did: reference, hash, status, documents by fate, tokens, seconds."""
    return {
        "snapshot": result.snapshot,
        "hash": result.hash,
        "status": result.status,
        "documents": result.documents,
        "tokens": result.tokens,
        "seconds": result.seconds,
    }


def build_sentence(document: dict[str, Any]) -> str:
    """The same in one line."""
    ref, status, counts = document["snapshot"], document["status"], document["documents"]
    if status == "unchanged":
        return f"{ref}: nothing new"
    return (
        f"{ref} {status}: {number(counts['kept'])} of {number(counts['read'])} documents kept, "
        f"{number(document['tokens'])} tokens, {duration(document['seconds'])}"
    )
