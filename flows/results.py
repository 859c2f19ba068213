"""What `build` and `train` print with --json, and what their Prefect flows return: plain dictionaries."""

from typing import Any

from pipeline.build import BuildResult


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
