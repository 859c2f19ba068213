"""Fields of records and columns of tables by name: `text`, or `data.text` for the text in the object `data`.

A field that has the very name wins over a path; of a path, the longest part that names a field is taken first. The
same for JSON lines, CSV, Parquet and Arrow.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

_SHOWN = 8
"""Fields that a message names at most."""


class NoField(Exception):
    """There is no such field; the message says what was expected and what came."""


def find_field(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field. Raises NoField."""
    if name in record:
        return record[name]
    return _walk(record, name)[1]


def field_or_none(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field that may be missing, or have no name at all."""
    try:
        return find_field(record, name) if name else None
    except NoField:
        return None


def field_path(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The keys that lead to a field, from the outside in. Raises NoField."""
    return _walk(record, name)[0]


def _walk(record: Mapping[str, Any], name: str) -> tuple[tuple[str, ...], Any]:
    steps: list[str] = []
    value: Any = record
    rest = name
    while True:
        if not isinstance(value, Mapping):
            raise NoField(
                f"expected an object in the field {'.'.join(steps)!r}, got {type_name(value)}, so there is no {name!r}"
            )
        step = next((step for step in _prefixes(rest) if step in value), None)
        if step is None:
            raise NoField(f"expected the field {name!r}, got: {shown_fields(record, name)}")
        steps.append(step)
        value = value[step]
        if step == rest:
            return tuple(steps), value
        rest = rest[len(step) + 1 :]


def _prefixes(name: str) -> Iterator[str]:
    """A dotted name, then what is left of it without its last parts."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def shown_fields(record: Mapping[str, Any], name: str) -> str:
    """The fields that there are, for a message about one that there is not."""
    names = list(_leaves(record))
    shown = ", ".join(name[:40] for name in names[:_SHOWN]) or "none"
    last = name.rpartition(".")[2]
    close = [other for other in names if other.rpartition(".")[2] == last]
    close = close or get_close_matches(name, names, n=1)
    return shown + (f"; did you mean {close[0][:80]!r}?" if close else "")


def _leaves(record: Mapping[str, Any], prefix: str = "", depth: int = 3) -> Iterator[str]:
    for name, value in record.items():
        if isinstance(value, Mapping) and value and depth:
            yield from _leaves(value, f"{prefix}{name}.", depth - 1)
        else:
            yield f"{prefix}{name}"


def type_name(value: Any) -> str:
    """What a value is called in JSON, or the type of a column."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value)) or str(value)
