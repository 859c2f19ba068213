"""What `build` and `train` did, in a dictionary (for --json and Prefect) and in a sentence."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.build import BuildResult
from pipeline.display import duration, number, short
from pipeline.run_view import scored_on

if TYPE_CHECKING:
    from model.train import RunResult  # imports torch, which a build does not need


def build_document(result: BuildResult) -> dict[str, Any]:
    """What a build did: reference, hash, status, documents by fate, tokens, seconds."""
    return {
        "snapshot": result.snapshot,
        "hash": result.hash,
        "status": result.status,
        "documents": result.documents,
        "skipped": result.skipped,
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


def train_document(result: "RunResult") -> dict[str, Any]:
    """What a training run came to, with its last evaluation in place of all of them."""
    document = asdict(result)
    evaluations = document.pop("evaluations")
    document["evaluation"] = evaluations[-1] if evaluations else None
    return document


def train_sentence(document: dict[str, Any]) -> str:
    """The same in one line."""
    what = f"run {document['run']} on {document['snapshot']}: {number(document['steps'])} steps"
    if document["was_finished"]:
        return f"{what}, finished before, nothing to do{_validation(document)}"
    resumed = f" (resumed from step {document['resumed_from']})" if document["resumed_from"] else ""
    return (
        f"{what}{resumed}, {short(document['tokens'])} tokens, {short(document['num_params'])} parameters, "
        f"{duration(document['seconds'])}{_validation(document)}"
    )


def evaluation_sentence(document: dict[str, Any]) -> str:
    """What `evaluate` found, in one line."""
    what = f"run {document['run']} at step {number(document['step'])} on {document['snapshot']}"
    found = document["evaluation"]
    if not found:
        return f"{what}: no validation documents"
    return (
        f"{what}: {found['bits_per_byte']:.3f} bits per byte on {scored_on(found)} "
        f"(unigram {found['unigram_bits_per_byte']:.3f})"
    )


def _validation(document: dict[str, Any]) -> str:
    if document["bits_per_byte"] is None:
        return "; nothing to validate on"
    model, unigram = document["bits_per_byte"], document["unigram_bits_per_byte"]
    where = scored_on(document["evaluation"])
    return f"; {model:.3f} bits per byte on {where} (unigram {unigram:.3f})"
