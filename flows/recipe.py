"""A recipe's TOML becomes a typed `Recipe`, or one message that says what to change and where.

Every key is known, every value has its type: an unknown key is refused with a suggestion, and `--set key=value` goes
through the same door as the file.
"""

import copy
import dataclasses
import difflib
import json
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from flows.config import Recipe
from flows.overrides import give_way
from storage.disk import raise_for_machine
from storage.errors import ConfigError, InputError

Section = TypeVar("Section")

SHIPPED = Path(__file__).parent / "recipes"
"""Recipes that come with gristmill: `<name>/recipe.toml` or `<name>.toml`."""

MAX_RECIPE_BYTES = 1 << 20
"""A recipe is written by hand; a larger file is something else, given by mistake."""


def shipped_recipes() -> dict[str, Path]:
    """Name -> path of every recipe that comes with gristmill, sorted by name."""
    paths = [*SHIPPED.glob("*/recipe.toml"), *SHIPPED.glob("*.toml")]
    named = {path.parent.name if path.name == "recipe.toml" else path.stem: path for path in paths}
    return dict(sorted(named.items()))


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe given by path, by its folder, or by the name of a shipped one.

    A bare word means the shipped recipe of that name if there is one; `./word` is always a path.
    Raises InputError if there is no such recipe.
    """
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "recipe.toml"
    if path.is_file():
        return path
    if path.exists():
        raise InputError(f"{path}: expected a recipe (a TOML file), got something that is no file")
    close = difflib.get_close_matches(name_or_path, shipped, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"shipped ones: {', '.join(shipped)}"
    raise InputError(
        f"no recipe '{name_or_path}': expected a TOML file or the name of a shipped recipe; {hint}"
    )


def load_recipe(
    name_or_path: str, overrides: Sequence[str] = (), tell: Callable[[str], None] | None = None
) -> Recipe:
    """Read and check a recipe; `overrides` are `key=value` with dotted keys, applied in order.

    `tell` gets a line for each other value that gives way to them (`flows/overrides.py`).
    Relative paths in it are relative to the recipe's folder, `find_recipe(...).parent`.
    Raises InputError if it cannot be read, ConfigError naming file and key if it is wrong.
    """
    path = find_recipe(name_or_path)
    data = _read_toml(path)
    before = copy.deepcopy(data)
    overridden = _apply_all(data, overrides)
    for line in give_way(before, data, overridden):
        if tell is not None:
            tell(f"note: {line}")
    return _decode(data, str(path), overridden)


def decode_section(
    section: str,
    kind: type[Section],
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Section:
    """Check one section that stands in no file: its `defaults`, then `overrides` of its keys, as in `load_recipe`.

    Raises ConfigError naming the key.
    """
    data = {section: dict(defaults or {})}
    overridden = _apply_all(data, overrides)
    return _check(TypeAdapter(kind), data[section], ["build", section], section, overridden)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise_for_machine(error, path)
        raise InputError(f"{path}: cannot read the recipe: {error.strerror}") from error
    if len(raw) > MAX_RECIPE_BYTES:
        raise InputError(
            f"{path}: expected a recipe, got a file of more than {MAX_RECIPE_BYTES} bytes"
        )
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected UTF-8 text, got byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not a recipe: nested too deeply") from error


# --- overrides ---------------------------------------------------------------------------------


def _apply_all(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Put each into the TOML's data, in order; return key -> `--set key=value`."""
    return {_apply(data, override): f"--set {override}" for override in overrides}


def _apply(data: dict[str, Any], override: str) -> str:
    """Put `key=value` into the TOML's data; return the key."""
    key, equals, text = override.partition("=")
    key = key.strip()
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {override}: expected key=value, such as --set dedup.threshold=0.8"
        )
    at: Any = data
    for index, part in enumerate(parts[:-1]):
        at = _child(at, part, ".".join(parts[: index + 1]), override)
    value = _override_value(text.strip(), _type_at(Recipe, _recipe_location(parts)))
    last = parts[-1]
    if isinstance(at, list):
        at[_index(at, last, key, override)] = value
    elif isinstance(at, dict):
        at[last] = value
    else:
        raise ConfigError(f"--set {override}: '{'.'.join(parts[:-1])}' is a value and has no keys")
    return key


def _child(at: Any, part: str, key: str, override: str) -> Any:
    if isinstance(at, list):
        return at[_index(at, part, key, override)]
    if isinstance(at, dict):
        return at.setdefault(part, {})
    raise ConfigError(f"--set {override}: '{key.rpartition('.')[0]}' is a value and has no keys")


def _index(items: list[Any], part: str, key: str, override: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    raise ConfigError(
        f"--set {override}: expected a number from 0 to {len(items) - 1} in '{key}', got '{part}'"
    )


def _override_value(text: str, expected: Any) -> Any:
    """The value as TOML would read it; a plain word where text is expected needs no quotes."""
    try:
        value = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More than one key: the text had a line break of its own, so it is text, not TOML.
    if set(value) != {"value"} or (_takes_text(expected) and not isinstance(value["value"], str)):
        return text
    return value["value"]


def _takes_text(expected: Any) -> bool:
    """Whether nothing but text is a value of this type (None apart)."""
    options = [o for o in _options(expected) if o is not type(None)]
    return bool(options) and all(
        o is str or (get_origin(o) is Literal and all(isinstance(c, str) for c in get_args(o)))
        for o in options
    )


# --- decoding ----------------------------------------------------------------------------------

_OWN_SECTIONS = tuple(f.name for f in dataclasses.fields(Recipe) if f.name != "build")


def _decode(data: dict[str, Any], where: str, overridden: dict[str, str]) -> Recipe:
    sections = {name: data[name] for name in _OWN_SECTIONS if name in data}
    build = {name: value for name, value in data.items() if name not in _OWN_SECTIONS}
    return _check(_adapter(), {"build": build, **sections}, [], where, overridden)


def _check(
    adapter: TypeAdapter[Section],
    data: dict[str, Any],
    location: list[str | int],
    where: str,
    overridden: dict[str, str],
) -> Section:
    """Data as the type of the place `location` in `Recipe`. Raises ConfigError."""
    try:
        # As JSON, because only there does pydantic's strict mode take a list for a tuple. TOML's
        # dates have no field to go to, so that as text they end as a wrong type or an odd name.
        return adapter.validate_json(json.dumps(data, default=str), strict=True)
    except ConfigError as error:  # a section's own check, raised in its __post_init__
        key = str(error).partition(":")[0]
        raise ConfigError(f"{_origins(key, where, overridden)}: {error}") from error
    except ValidationError as error:
        messages = [
            _message(found["type"], [*location, *found["loc"]], found["input"], where, overridden)
            for found in error.errors(include_url=False)
        ]
        raise ConfigError("\n".join(dict.fromkeys(messages))) from error


def _origin(key: str, where: str, overridden: dict[str, str]) -> str:
    """What set the value of a key: an override of it, or of a key below it; else the file, `where`."""
    return next(
        (text for other, text in overridden.items() if f"{other}.".startswith(f"{key}.")), where
    )


def _origins(key: str, where: str, overridden: dict[str, str]) -> str:
    """The same where values of several keys do not go together: the overrides of the section's others, too."""
    section = key.partition(".")[0]
    others = [text for other, text in overridden.items() if other.partition(".")[0] == section]
    first = _origin(key, where, overridden)
    return first if first != where or not others else f"{where} with {', '.join(others)}"


@cache
def _adapter() -> TypeAdapter[Recipe]:
    try:
        return TypeAdapter(Recipe)
    except SystemError:
        # pydantic parses the docstrings of fields, and Python 3.11 fails so where another thread, such as one of
        # Prefect's, parses in the same instant (github.com/python/cpython/issues/106905).
        return TypeAdapter(Recipe)


def _message(
    kind: str, location: Sequence[str | int], got: Any, where: str, overridden: dict[str, str]
) -> str:
    location = _known_part(location)
    key = _dotted(location)
    place = f"{_origin(key, where, overridden)}: {key}"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{place}: unknown key; {_suggestion(location)}"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{place}: missing; {_MISSING.get(key, 'the recipe must set it')}"
    expected = _type_at(Recipe, location)
    return f"{place}: expected {_describe(expected)}, got {_show(got)}{_near(expected, got)}"


_MISSING = {
    "name": 'the corpus needs a name, such as name = "nightly"',
    "sources": "the corpus needs at least one [[sources]] with a path",
}


def _suggestion(location: Sequence[str | int]) -> str:
    wrong = str(location[-1])
    known = _keys_at(location[:-1])
    close = difflib.get_close_matches(wrong, known, n=1)
    if close:
        return f"did you mean '{_dotted([*location[:-1], close[0]])}'?"
    sections = {section: _keys_at(_recipe_location([section])) for section in _keys_at(["build"])}
    everywhere = {key: section for section, keys in sections.items() for key in keys}
    close = difflib.get_close_matches(wrong, everywhere, n=1)
    if (
        close and len(location) == 2
    ):  # a section's key at the top level; of a section, say what it has
        return f"did you mean '{everywhere[close[0]]}.{close[0]}'?"
    return f"known here: {', '.join(sorted(known))}"


def _near(expected: Any, got: Any) -> str:
    choices = [c for o in _options(expected) if get_origin(o) is Literal for c in get_args(o)]
    close = difflib.get_close_matches(got, map(str, choices), n=1) if isinstance(got, str) else []
    return f"; did you mean '{close[0]}'?" if close else ""


def _describe(expected: Any) -> str:
    """A type in the words of somebody who writes TOML."""
    options = [o for o in _options(expected) if o is not type(None)]
    return " or ".join(dict.fromkeys(_describe_one(o) for o in options))


def _describe_one(option: Any) -> str:
    origin, arguments = get_origin(option), get_args(option)
    if origin is Literal:
        return "one of " + ", ".join(repr(c) for c in arguments)
    if dataclasses.is_dataclass(option):
        return "a table of keys"
    if _is_list(option):
        inner = arguments[0] if arguments else str
        if dataclasses.is_dataclass(inner):
            return "a list of tables ([[...]])"
        return f"a list, such as {_EXAMPLES.get(inner, '[...]')}"
    if _is_table(option):
        return f"a table, such as {{ {_DICT_EXAMPLES.get(arguments[-1:], 'key = ...')} }}"
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text in quotes",
        Path: "a path in quotes",
    }.get(option, str(option))


_EXAMPLES = {str: '["a", "b"]', int: "[1, 2]", float: "[0.5, 1.0]"}
_DICT_EXAMPLES = {(str,): 'poetry = "..."', (float,): "poetry = 1.0", (int,): "poetry = 1"}


def _show(got: Any) -> str:
    """A value as it would stand in TOML, cut to a readable length."""
    if isinstance(got, dict):
        return "a table"
    text = json.dumps(got, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- where a key lives ------------------------------------------------------------------------


def _recipe_location(keys: Sequence[str | int]) -> list[str | int]:
    """The place in `Recipe` of a key of the TOML file."""
    return list(keys) if keys[0] in _OWN_SECTIONS else ["build", *keys]


def _dotted(location: Sequence[str | int]) -> str:
    """The key in the TOML file of a place in `Recipe`: `sources[0].path`."""
    key = ""
    for part in location[1:] if location[0] == "build" else location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _known_part(location: Sequence[str | int]) -> list[str | int]:
    """A location without the names of union members that pydantic appends to it."""
    for end in range(1, len(location)):
        parent = _type_at(Recipe, location[:end])
        if not any(_has_children(option) for option in _options(parent)):
            return list(location[:end])
    return list(location)


def _has_children(option: Any) -> bool:
    return dataclasses.is_dataclass(option) or _is_table(option) or _is_list(option)


def _is_table(option: Any) -> bool:
    origin = get_origin(option) or option
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_list(option: Any) -> bool:
    origin = get_origin(option) or option
    return isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str


def _keys_at(location: Sequence[str | int]) -> list[str]:
    names = [
        field.name
        for option in _options(_type_at(Recipe, location))
        if dataclasses.is_dataclass(option)
        for field in dataclasses.fields(option)
        if field.init
    ]
    return [*names, *_OWN_SECTIONS] if list(location) == ["build"] else names


def _type_at(root: Any, location: Iterable[str | int]) -> Any:
    """The annotated type at a location below a dataclass; Any where there is none."""
    found = root
    for part in location:
        for option in _options(found):
            arguments = get_args(option)
            if dataclasses.is_dataclass(option) and part in get_type_hints(option):
                found = get_type_hints(option)[part]
                break
            if arguments and (_is_table(option) or _is_list(option)):
                found = arguments[1] if _is_table(option) else arguments[0]
                break
        else:
            return Any
    return found


def _options(expected: Any) -> tuple[Any, ...]:
    """The members of a union; of any other type, itself."""
    return get_args(expected) if get_origin(expected) in (Union, types.UnionType) else (expected,)
