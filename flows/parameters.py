"""The parameters of the flows, as Prefect's forms show them: a section a model, with help and choices.

Deployments and automations fill them in; whoever starts a run by hand in the UI changes what is to be different.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _may_be_empty(position: int) -> Callable[[dict[str, Any]], None]:
    """As a field that may be left empty; the form would show a choice between `str` and `None` instead."""

    def change(schema: dict[str, Any]) -> None:
        [kind] = [kind for kind in schema.pop("anyOf") if kind["type"] != "null"]
        del schema["default"]  # with one, Prefect refuses the null that an empty field stands for
        schema.update(kind, position=position)

    return change


_Text = Annotated[str | None, BeforeValidator(lambda value: value or None)]
"""Text, where a field that was emptied again is none."""


class Corpus(_Section):
    """What to work on."""

    recipe: str = Field(
        description="A TOML file on the worker's machine, or the name of a shipped recipe.",
        json_schema_extra={"position": 0},
    )
    lake: str = Field(
        default="./lake",
        description="Folder or s3://bucket/prefix that holds everything.",
        json_schema_extra={"position": 1},
    )
    overrides: list[str] = Field(
        default=[],
        description="Keys of the recipe to change for this run alone, such as dedup.threshold=0.8.",
        json_schema_extra={"position": 2},
    )


class Effort(_Section):
    """How much the run may take."""

    workers: int | None = Field(
        default=None,
        ge=1,
        description="Cores to use; empty: all that the machine has.",
        json_schema_extra=_may_be_empty(0),
    )
    timeout_hours: float | None = Field(
        default=None,
        gt=0,
        description="End the run after so long; finished work is kept. Empty: as the recipe's [limits] say.",
        json_schema_extra=_may_be_empty(1),
    )
    log: Literal["normal", "detailed"] = Field(
        default="normal",
        description="detailed: also what is only of use for finding a fault.",
        json_schema_extra={"position": 2},
    )


class Training(_Section):
    """What to train on."""

    snapshot: _Text = Field(
        default=None,
        description="A promoted snapshot such as corpus@3; empty: the newest one.",
        json_schema_extra=_may_be_empty(0),
    )
    if_newer: Literal["take the newer", "keep to this"] = Field(
        default="keep to this",
        description="When a newer snapshot has been promoted by the time the run begins.",
        json_schema_extra={"position": 1},
    )
    run: _Text = Field(
        default=None,
        description="Name of the training run; empty: from snapshot and settings.",
        json_schema_extra=_may_be_empty(2),
    )
    approval: Literal["none", "ask"] = Field(
        default="none",
        description="ask: show the snapshot's data card and wait until somebody agrees.",
        json_schema_extra={"position": 3},
    )


class Release(_Section):
    """Which trained model to judge."""

    run: _Text = Field(
        default=None,
        description="A finished training run; empty: the newest one of the corpus.",
        json_schema_extra=_may_be_empty(0),
    )
    promote: Literal["if it is not worse", "always", "never"] = Field(
        default="if it is not worse",
        description="Whether the model becomes the corpus's release.",
        json_schema_extra={"position": 1},
    )


class Maintenance(_Section):
    """What to look after."""

    verify: bool = Field(
        default=True,
        description="Read every file that a snapshot or a run needs, and compare its checksum.",
        json_schema_extra={"position": 0},
    )
    collect: bool = Field(
        default=True,
        description="Remove files that no snapshot, run or unfinished build needs.",
        json_schema_extra={"position": 1},
    )
    min_age_hours: float = Field(
        default=24.0,
        ge=0,
        description="Spare what is younger.",
        json_schema_extra={"position": 2},
    )
