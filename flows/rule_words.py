"""What a rule means in words, with what it measured against what it allows. For `gristmill why`."""

import ast
import inspect
import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pipeline import profiles
from pipeline.display import DASH, number


def rule_in_words(fate: Mapping[str, Any], dedup: Mapping[str, Any]) -> str:
    """The rule that decided a fate (a row of fates); `dedup` is that section of the recipe by which it did."""
    rule, value, threshold = fate["rule"], fate["value"], fate["threshold"]
    if fate["fate"] == "kept" or rule is None:
        return ""
    if fate["fate"] == "duplicate":
        return _duplicate(fate, dedup)
    if fate["fate"] != "dropped":
        return (_READ_RULES | _FORGET_RULES).get(rule, "")
    known, bound = _STAGE_RULES.get(rule, (_quality_rules().get(rule, ""), ""))
    parts = [known]
    if value is not None and threshold is not None:
        bound = bound or ("at least" if rule.startswith("min_") else "at most")
        parts.append(f"measured {_figure(value)}, allowed {bound} {_figure(threshold)}")
    return "; ".join(filter(None, parts))


def _figure(value: float) -> str:
    """A measurement, with as many digits as a threshold that was just missed needs."""
    return number(value) if value == int(value) else f"{value:.4g}"


_STAGE_RULES = {
    "toxic": ("score of the toxicity model in [0, 1]", "less than"),
    "listed_words": ("share of words that are in the list of bad ones", "less than"),
    "contaminated": ("share of an evaluation item's word n-grams that it holds", "less than"),
    "language": ("a language that the recipe does not keep", "at least"),
    "language_score": ("its language cannot be told; confidence of the model", "at least"),
}
"""Rules of the stages but quality: what they measure, and how the threshold bounds it."""

_FORGET_RULES = {
    "asked": "'gristmill forget' was asked to take it out",
    "same_text": "its text is that of a document that 'gristmill forget' was asked to take out",
    "forgotten": "its text, or the document itself, was forgotten before, and is not taken in again",
}

_READ_RULES = {
    "empty": "there is no text in it",
    "bad_json": "the line is no JSON",
    "not_an_object": "the line is JSON, but no object",
    "missing_text": "the record has no text",
    "wrong_type": "the record's text is no text",
    "invalid_utf8": "its bytes are not in the encoding that the source says",
    "too_long": "it is longer than read.max_document_bytes",
    "bomb": "it unpacks to more than read.max_ratio times its size",
    "http_status": "the server did not answer with a page",
    "truncated_archive": "the file ends in the middle of its compressed data",
    "unsupported_type": "it is something that no reader reads",
}


def _duplicate(fate: Mapping[str, Any], dedup: Mapping[str, Any]) -> str:
    similarity = DASH if fate["similarity"] is None else f"{fate['similarity']:.3f}"
    match fate["rule"]:
        case "exact":
            return "the same text but for white space"
        case "near_duplicate":
            return (
                f"Jaccard similarity of the two texts' runs of {dedup.get('ngram', '?')} words: {similarity}; "
                f"duplicates from {dedup.get('threshold', '?')} on"
            )
        case "contained":
            return (
                f"share of its runs of {dedup.get('containment_ngram', '?')} words that the longer text holds: "
                f"{similarity}; goes from {dedup.get('containment', '?')} on"
            )
    return f"similarity {similarity}"


@cache
def _quality_rules() -> dict[str, str]:
    """What each quality rule measures, from the texts under the fields of `Profile`."""
    [body] = [
        node.body
        for node in ast.parse(inspect.getsource(profiles)).body
        if isinstance(node, ast.ClassDef) and node.name == "Profile"
    ]
    words: dict[str, str] = {}
    base = ""
    for field, text in pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(said))):
                said = " ".join(said.split()).rstrip(".")
                if said.startswith("The same"):
                    said = said.replace("The same", f"{base}, the same", 1)
                else:
                    base = re.sub(r" \(.*", "", said)
                words[name] = said[0].lower() + said[1:]
    return words
