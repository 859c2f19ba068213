"""What one recipe says, typed: the corpus to build, the model to train on it, and what happens by itself.

This module assembles; each section's fields, defaults and checks live beside the code they configure. The sections
here are those of `gristmill up`: single commands do not read them.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

from flows.schedules import check_cron, check_interval, check_rrule, check_timezone
from model.config import TrainConfig
from pipeline.build import BuildConfig
from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """When a job runs by itself: exactly one of `cron`, `every_s` and `rrule`."""

    job: Literal["build", "train", "evaluate", "maintain"] = "build"
    """What runs: build the corpus, train on its newest snapshot, judge the newest model, verify and clean the lake."""
    cron: str = ""
    """Five cron fields (minute hour day month weekday), in `timezone`."""
    every_s: float = 0.0
    """Seconds from one start to the next, at least 15; counted from midnight of a 1 January in `timezone`."""
    rrule: str = ""
    """A recurrence rule of RFC 5545, such as FREQ=WEEKLY;BYDAY=SU;BYHOUR=4, in `timezone`."""
    timezone: str = "UTC"
    """IANA name of the time zone."""
    active: bool = True
    """False: shown in the UI with its switch off."""
    overrides: tuple[str, ...] = ()
    """Keys of the recipe to change in these runs, such as "dedup.threshold=0.8"."""

    def __post_init__(self) -> None:
        given = [name for name in ("cron", "every_s", "rrule") if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(
                "schedules: expected exactly one of cron, every_s and rrule in each, got "
                f"{' and '.join(given) or 'none'}"
            )
        check_timezone(self.timezone)
        if self.cron:
            check_cron(self.cron)
        elif self.rrule:
            check_rrule(self.rrule)
        else:
            check_interval(self.every_s)
        if self.job == "maintain" and self.overrides:
            raise ConfigError(
                "schedules: overrides have no effect on the job maintain, which reads no recipe; remove them"
            )


@dataclass(frozen=True, kw_only=True)
class OnSnapshotConfig:
    """What follows when a snapshot is promoted."""

    train: bool = True
    """Train on it; on the newest, if several came while training was busy."""
    approval: Literal["none", "ask"] = "none"
    """ask: wait until somebody has seen the data card and agrees."""
    approval_hours: float = 168.0
    """Hours to wait for that; the run fails then, and nothing is trained."""

    def __post_init__(self) -> None:
        if self.approval == "ask" and not self.train:
            raise ConfigError(
                "on_snapshot.approval: it has no effect while train = false; remove one of them"
            )
        _check_number("on_snapshot.approval_hours", self.approval_hours, 0.01, 8766.0)


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """What follows when a model is trained."""

    evaluate: bool = True
    """Compare it with the release before it, on the same validation documents, and promote it if it is not worse."""
    max_worse: float = 0.01
    """Share by which its bits per byte may be higher than the former release's, over all domains."""

    def __post_init__(self) -> None:
        _check_number("release.max_worse", self.max_worse, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Hours after which a run is ended, with all its processes; finished work is kept."""

    build_hours: float = 24.0
    """Of a build."""
    train_hours: float = 0.0
    """Of a training; 0: none."""
    evaluate_hours: float = 6.0
    """Of an evaluation."""

    def __post_init__(self) -> None:
        _check_number("limits.build_hours", self.build_hours, 0.01, 8766.0)
        _check_number("limits.evaluate_hours", self.evaluate_hours, 0.01, 8766.0)
        if self.train_hours != 0:
            _check_number("limits.train_hours", self.train_hours, 0.01, 8766.0)


def _check_number(key: str, value: float, least: float, most: float) -> None:
    # Written so that nan, which TOML has, is refused too.
    if not least <= value <= most:
        raise ConfigError(f"{key}: expected a number from {least:g} to {most:g}, got {value:g}")


Occasion = Literal["gate failed", "source gone", "training finished", "release promoted"]


@dataclass(frozen=True, kw_only=True)
class NotifyConfig:
    """Whom to tell, through a Prefect automation; addresses and passwords stand in blocks or the environment."""

    on: tuple[Occasion, ...]
    """Occasions."""
    block: str = ""
    """A Prefect block that knows the address, as type/name: webhook/ops, email/team, slack-webhook/data."""
    url_env: str = ""
    """Instead of a block: environment variable of `gristmill up` with https://..., which gets JSON, or
    smtp://user:password@host:587/?to=you@example.org (STARTTLS), or smtps://... (TLS)."""

    def __post_init__(self) -> None:
        if bool(self.block) == bool(self.url_env):
            raise ConfigError("notify: expected one of block and url_env in each")
        if not self.on:
            raise ConfigError(
                f"notify: on: expected at least one of {', '.join(get_args(Occasion))}, got an empty list"
            )
        if self.block and not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", self.block):
            raise ConfigError(
                f"notify: block: expected type/name, such as webhook/ops, got '{self.block[:80]}'"
            )
        # A URL given here by mistake holds a password, so it is not shown.
        if self.url_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.url_env):
            raise ConfigError(
                "notify: url_env: expected the name of an environment variable, such as OPS_URL, not its value"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One TOML file. The keys of `build` stand at its top level: `[dedup]`, not `[build.dedup]`."""

    # Read by pydantic's TypeAdapter, and inherited by sections that have none of their own.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    build: BuildConfig
    """Corpus name, sources and the sections of the pipeline."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Model and training."""
    schedules: tuple[ScheduleConfig, ...] = ()
    """What `gristmill up` runs when."""
    on_snapshot: OnSnapshotConfig = field(default_factory=OnSnapshotConfig)
    """What follows a promoted snapshot."""
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    """What follows a trained model."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Hours that a run may take."""
    notify: tuple[NotifyConfig, ...] = ()
    """Whom to tell of what."""

    def __post_init__(self) -> None:
        seen = []
        for schedule in self.schedules:
            if (same := replace(schedule, active=True)) in seen:
                raise ConfigError(
                    "schedules: expected each once, got two that say the same: "
                    f"{schedule.job} {schedule.cron or schedule.rrule or f'every {schedule.every_s:g} s'}"
                )
            seen.append(same)
