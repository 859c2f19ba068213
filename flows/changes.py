"""What changed in a recipe between two snapshots, key by key: "dedup.threshold 0.7 -> 0.8". Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.display import clip

MAX_CHANGES = 40
"""Lines; more are counted."""
VALUE_CHARACTERS = 80
"""Of a value that is shown."""

_ABSENT = object()


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys that differ between two manifests' `recipe`, sorted; sources are told apart by their names."""
    lines = list(_changes("", before, now))
    more = len(lines) - MAX_CHANGES
    return lines if more <= 0 else [*lines[:MAX_CHANGES], f"and {more} more"]


def _changes(key: str, before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    old, new = _by_name(before), _by_name(now)
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        yield f"{key} {_shown(before)} -> {_shown(now)}"
        return
    for name in sorted(old.keys() | new.keys()):
        inner = f"{key}.{name}" if key else name
        yield from _changes(inner, old.get(name, _ABSENT), new.get(name, _ABSENT))
    if old == new:  # of two equal texts, the earlier source's stays
        yield f"{key} in another order: {_shown(list(new))}"


def _by_name(value: Any) -> Any:
    """A list of named tables as a table of them."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, Mapping) and "name" in v for v in value)
    ):
        return {item["name"]: item for item in value}
    return value


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "none"
    if isinstance(value, Mapping) and "path" in value:  # a source that came or went
        value = value["path"]
    return clip(json.dumps(value, ensure_ascii=False), VALUE_CHARACTERS)
