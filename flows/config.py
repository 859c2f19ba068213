"""What one recipe says, typed: the corpus to build, the model to train on it, and when.

This module assembles; each section's fields, defaults and checks live beside the code they configure.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from model.config import TrainConfig
from pipeline.build import BuildConfig
from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """When the corpus is built again; read by the Prefect deployment, not by single commands."""

    cron: str
    """Five cron fields (minute hour day month weekday), in `timezone`."""
    timezone: str = "UTC"
    """IANA name of the time zone that `cron` is read in."""

    def __post_init__(self) -> None:
        # The server understands more (names, steps, ranges); this catches what it could not at all.
        if len(self.cron.split()) != 5:
            raise ConfigError(
                "schedule.cron: expected five fields (minute hour day month weekday) such as "
                f"'0 2 * * *', got {self.cron!r}"
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
    schedule: ScheduleConfig | None = None
    """When to build again by itself; None: only when asked."""
