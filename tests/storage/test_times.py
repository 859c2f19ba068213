"""Moments are written in two forms, and both say which zone they are in."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from storage.times import moment, now, utc


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine stands there."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def test_files_and_json_hold_utc(new_york: None) -> None:
    """Whatever the machine's zone, with a Z, and read back as the same moment."""
    assert utc(datetime(2026, 7, 1, 0, 38, tzinfo=timezone(timedelta(hours=2)))) == (
        "2026-06-30T22:38:00Z"
    )
    assert datetime.fromisoformat(now()).tzinfo == UTC


@pytest.mark.parametrize(
    ("when", "in_utc", "here"),
    [
        (0, "1970-01-01 00:00 UTC", "1969-12-31 19:00 UTC-05:00"),
        ("2026-07-01T00:38:59Z", "2026-07-01 00:38 UTC", "2026-06-30 20:38 UTC-04:00"),
        ("2026-07-01T00:38:59", "2026-07-01 00:38 UTC", "2026-06-30 20:38 UTC-04:00"),
        ("2026-07-01T00:38:59+02:00", "2026-06-30 22:38 UTC", "2026-06-30 18:38 UTC-04:00"),
        ("soon", "soon", "soon"),
        (None, "", ""),
    ],
)
def test_people_are_told_the_zone(new_york: None, when: object, in_utc: str, here: str) -> None:
    """Documents keep to UTC, a terminal shows its own time."""
    assert moment(when) == in_utc
    assert moment(when, None) == here
