"""The evaluation card: a model beside the release before it, domain by domain, and the verdict. Pure."""

from collections.abc import Mapping
from typing import Any

from flows.markdown import join, plain, table
from pipeline.display import fixed


def evaluation_card(verdict: Mapping[str, Any]) -> str:
    """Markdown that shows the verdict of evaluate-release on a run, from the document that it wrote."""
    new, former = verdict["evaluation"], verdict["former"]
    old = former["evaluation"] if former else {"domains": {}}
    lines = [
        [
            plain(name),
            fixed(row["bits_per_byte"], 3),
            fixed(old["domains"].get(name, {}).get("bits_per_byte"), 3),
        ]
        for name, row in sorted(new["domains"].items())
    ]
    return join(
        [
            f"# {plain(verdict['run'])}: {plain(verdict['verdict'])}",
            plain(verdict["why"]),
            table(["domain", "this model", "former release"], lines, "lrr"),
        ]
    )
