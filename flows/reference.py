"""Prints every key of a recipe with its type, default and meaning, as Markdown: `python -m flows.reference`.

The text is the docstrings that stand under the fields of the sections, so it cannot differ from the code.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from flows.config import (
    LimitsConfig,
    NotifyConfig,
    OnSnapshotConfig,
    ReleaseConfig,
    ScheduleConfig,
)
from model.config import TrainConfig
from pipeline.build import BuildConfig
from pipeline.readers import SourceConfig

_INTRODUCTION = """\
# Recipe reference

A recipe is one TOML file. It says only what differs from the defaults below; an unknown key is refused with a
suggestion. `--set dedup.threshold=0.8` overrides one key for one command. Made by `python -m flows.reference`.
"""

_SITE = """\
## A site

What follows is for `gristmill up`: single commands do not read it. Double brackets stand for one or more sections.

```toml
[[schedules]]                          # build at two in the morning in Berlin, summer and winter
cron = "0 2 * * *"
timezone = "Europe/Berlin"

[[schedules]]                          # look after the lake on the first of each month, not every Sunday at four
job = "maintain"
rrule = "FREQ=MONTHLY;BYMONTHDAY=1;BYHOUR=4"

[[notify]]                             # a variable of `gristmill up`, with https://... or smtp://...
on = ["gate failed", "source gone"]
url_env = "OPS_URL"

[[notify]]                             # a block made in Prefect's UI
on = ["release promoted"]
block = "slack-webhook/data"
```
"""


def reference() -> str:
    """The reference as Markdown, one table a section, in the order of the build."""
    top = {"name": str, "sources": SourceConfig}
    sections: dict[str, type] = {
        field.name: _section(field)
        for field in dataclasses.fields(BuildConfig)
        if field.name not in top
    }
    parts = [
        _INTRODUCTION,
        "## Top level\n\n`name` (text): the corpus; lower-case letters, digits, `.`, `_` and `-`.\n",
        _table("[[sources]]", SourceConfig),
        *(table for name, section in sections.items() for table in _tables(name, section)),
        _table("[train]", TrainConfig),
        _SITE,
        _table("[[schedules]]", ScheduleConfig),
        _table("[on_snapshot]", OnSnapshotConfig),
        _table("[release]", ReleaseConfig),
        _table("[limits]", LimitsConfig),
        _table("[[notify]]", NotifyConfig),
    ]
    return "\n".join(parts)


def _section(field: "dataclasses.Field[Any]") -> type:
    """Type of a field's default."""
    factory = field.default_factory
    return type(field.default if factory is dataclasses.MISSING else factory())


def _tables(name: str, section: type) -> Iterator[str]:
    """The table of a section and those of the sections in it."""
    yield _table(f"[{name}]", section)
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(inner := _section(field)):
            yield from _tables(f"{name}.{field.name}", inner)


def _table(title: str, section: type) -> str:
    first_line = (inspect.getdoc(section) or "").split("\n\n")[0].replace("\n", " ")
    lines = [
        f"## {title}",
        "",
        first_line,
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    meanings = dict(_docstrings(section))
    hints = inspect.get_annotations(section, eval_str=True)
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[field.name]):
            continue
        cells = (
            f"`{field.name}`",
            _type_name(hints[field.name]),
            _default(field),
            meanings.get(field.name, ""),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _docstrings(section: type) -> Iterator[tuple[str, str]]:
    """Names of fields with the string that stands under each."""
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, after in zip(body.body, body.body[1:], strict=False):
        is_string = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_string:
            yield field.target.id, " ".join(str(after.value.value).split())


def _type_name(hint: Any) -> str:
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true/false",
        type(None): "nothing",
    }
    if hint in names:
        return names[hint]
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return f"list of {_type_name(arguments[0])}"
    if get_origin(hint) is dict or "Mapping" in str(get_origin(hint)):
        return f"table of {_type_name(arguments[1])}"
    if arguments and all(isinstance(argument, str | bool | int) for argument in arguments):
        return ", ".join(f"`{argument}`" for argument in arguments)
    return " or ".join(_type_name(argument) for argument in arguments) or str(hint)


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value!r}`" if not isinstance(value, int) or value < 10_000 else f"`{value:_}`"


if __name__ == "__main__":
    print(reference(), end="")
