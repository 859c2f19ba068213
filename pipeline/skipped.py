"""What was looked at and is no document: pictures and redirects in a web archive, empty files, empty records.

Such a record is no fault of its source, so it takes no part in the funnel and no gate counts it. It is counted by
source and reason all the same, with examples, so that a source that holds little else is seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.display import number, plural, words

MAX_EXAMPLES = 6
"""Examples kept for each source and reason, in reading order, at most one with the same detail."""


@dataclass(frozen=True)
class Skipped:
    """The records of one source that were skipped for one reason."""

    source: str
    reason: str
    """One snake_case word."""
    records: int
    examples: tuple[tuple[str, str], ...]
    """Pairs of uri and detail."""
    of: int = 0
    """All records of the source that were looked at, whatever happened to them; 0 while they are counted."""

    def __add__(self, more: "Skipped") -> "Skipped":
        examples: dict[str, str] = {}
        for uri, detail in self.examples + more.examples:
            examples.setdefault(detail, uri)
        first = [(uri, detail) for detail, uri in examples.items()][:MAX_EXAMPLES]
        return Skipped(self.source, self.reason, self.records + more.records, tuple(first))


def total(parts: Iterable[Skipped]) -> list[Skipped]:
    """One for each source and reason, sorted; the examples are the first ones in the order of `parts`."""
    found: dict[tuple[str, str], Skipped] = {}
    for part in parts:
        key = part.source, part.reason
        found[key] = found[key] + part if key in found else part
    return [found[key] for key in sorted(found)]


def from_rows(rows: pa.RecordBatch, source: str) -> list[Skipped]:
    """The skipped rows of a RAW batch."""
    names = zip(*(rows[name].to_pylist() for name in ("uri", "error", "detail")), strict=True)
    return total(Skipped(source, error, 1, ((uri, detail),)) for uri, error, detail in names)


def to_json(skipped: Iterable[Skipped]) -> list[dict[str, Any]]:
    """As records and manifests hold them."""
    return [asdict(part) | {"examples": [list(pair) for pair in part.examples]} for part in skipped]


def from_json(rows: Iterable[Mapping[str, Any]]) -> list[Skipped]:
    """The inverse of `to_json`."""
    pairs = ((row, tuple((uri, detail) for uri, detail in row["examples"])) for row in rows)
    return [Skipped(**{**row, "examples": examples}) for row, examples in pairs]


def in_summary(summary: Mapping[str, Any]) -> list[Skipped]:
    """What the manifest with this summary says was skipped."""
    return from_json(summary.get("skipped", []))


def with_totals(skipped: Iterable[Skipped], looked_at: Mapping[str, int]) -> list[Skipped]:
    """The same, `of` set to the records of each source that were looked at."""
    return [replace(part, of=looked_at[part.source]) for part in skipped]


def by_reason(skipped: Iterable[Skipped]) -> dict[str, int]:
    """Records of all sources by reason, most first."""
    counts: dict[str, int] = {}
    for part in skipped:
        counts[part.reason] = counts.get(part.reason, 0) + part.records
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def in_words(skipped: Sequence[Skipped]) -> str:
    """All in a sentence: 90 records skipped, being no documents: 60 unsupported type, 30 redirect; "" if none was."""
    counts = by_reason(skipped)
    if not counts:
        return ""
    listed = ", ".join(f"{number(count)} {words(reason)}" for reason, count in counts.items())
    return f"{plural(sum(counts.values()), 'record')} skipped, being no documents: {listed}"


def warnings(skipped: Iterable[Skipped]) -> list[str]:
    """A note for each source of which most records hold no text: the wrong field may have been read."""
    return [
        f"source '{part.source}': {number(part.records)} of {plural(part.of, 'record')} hold no text "
        f"(the first: {part.examples[0][0]})"
        for part in skipped
        if part.reason == "empty" and 2 * part.records > part.of
    ]
