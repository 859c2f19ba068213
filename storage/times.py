"""Moments, in two forms: UTC for files and JSON (2026-11-22T12:30:00Z), and one line for people that names its zone."""

from datetime import UTC, datetime, timezone, tzinfo
from typing import Any


def now() -> str:
    """This moment as files and JSON hold it."""
    return utc(datetime.now(UTC))


def utc(when: datetime) -> str:
    """A moment as files and JSON hold it: 2026-11-22T12:30:00Z, to the second."""
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def moment(when: Any, zone: tzinfo | None = UTC) -> str:
    """A moment for people: 2026-11-22 12:30 UTC, or 2026-11-22 13:30 UTC+01:00; text that is not a time stays as it is.

    `when`: datetime, ISO 8601 text (in UTC unless it says otherwise) or seconds since 1970. `zone` None is this
    machine's, for a terminal; documents that are read elsewhere keep to UTC.
    """
    try:
        if isinstance(when, int | float):
            at = datetime.fromtimestamp(when, UTC)
        else:
            at = when if isinstance(when, datetime) else datetime.fromisoformat(str(when))
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return str(when or "")
    # The offset, not a name such as CET: those are ambiguous, and not every zone has one.
    return f"{at:%Y-%m-%d %H:%M} {timezone(at.utcoffset() or UTC.utcoffset(None))}"
