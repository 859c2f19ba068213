"""Is a schedule of a recipe one that Prefect can keep? Asked when the recipe is read, without importing Prefect.

A schedule that Prefect cannot read would be refused by its server, or fail in its scheduler at night.
"""

import re
import zoneinfo

from storage.errors import ConfigError

MIN_INTERVAL_S, MAX_INTERVAL_S = 15.0, 366 * 86400.0
"""Between two starts; a run takes about 4 s to start, and Prefect's scheduler looks every 60 s."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""Days of each month, in a leap year."""


def check_cron(cron: str) -> None:
    """Raise ConfigError unless it is five fields of numbers, names, ranges, lists and steps, and some day fits."""
    fields = cron.split()
    if len(fields) != 5:
        raise ConfigError(
            f"schedules: cron '{cron}': expected five fields (minute hour day month weekday), such as 0 2 * * *, "
            f"got {len(fields)}"
        )
    values = [_values(cron, text, *field) for text, field in zip(fields, _FIELDS, strict=True)]
    # A weekday beside it would be an alternative in cron, but Prefect's scheduler fails all the same.
    if min(values[2]) > max(_LONGEST[month - 1] for month in values[3]):
        raise ConfigError(f"schedules: cron '{cron}': no month in it has a day {min(values[2])}")


def _values(
    cron: str, text: str, field: str, low: int, high: int, names: tuple[str, ...]
) -> set[int]:
    """All values that one field stands for."""
    found: set[int] = set()
    for part in text.lower().split(","):
        match = re.fullmatch(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d{1,3}))?", part, re.ASCII)
        first, last, step = low, high, 1
        is_good = match is not None
        if match:
            step = int(match[4] or 1)
            if match[1] != "*":
                first = _number(match[2], low, names)
                last = _number(match[3], low, names) if match[3] else high if match[4] else first
            is_good = low <= first <= last <= high and step >= 1
        if not is_good:
            raise ConfigError(
                f"schedules: cron '{cron}': expected for {field} a number from {low} to {high}"
                f"{', a name such as ' + names[0] if names else ''}, or *, a-b, a,b or */n of them; "
                f"got '{part}'"
            )
        found |= set(range(first, last + 1, step))
    return found


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    if text in names:
        return low + names.index(text)
    return int(text) if text.isdecimal() and len(text) <= 2 else -1


def check_rrule(rrule: str) -> None:
    """Raise ConfigError unless it is a recurrence rule (RFC 5545) that comes at most once a minute."""
    from dateutil.rrule import rrulestr  # late: few recipes have one

    try:
        rrulestr(rrule)
    # What dateutil raises for nonsense stands nowhere; these came up in 60,000 pieces of it.
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise ConfigError(
            f"schedules: rrule '{rrule[:80]}': expected a recurrence rule such as FREQ=WEEKLY;BYDAY=SU;BYHOUR=4, "
            f"got one that cannot be read ({error})"
        ) from error
    rule = rrule.upper()
    if "SECONDLY" in rule:
        raise ConfigError(f"schedules: rrule '{rrule[:80]}': expected FREQ=MINUTELY or rarer")
    if re.search(
        "INTERVAL=(?!0*[1-9])", rule
    ):  # dateutil takes it, and looks for a next time for ever
        raise ConfigError(f"schedules: rrule '{rrule[:80]}': expected an INTERVAL of at least 1")
    if "COUNT=" in rule and "DTSTART" not in rule:  # Prefect would count from the year 2020
        raise ConfigError(
            f"schedules: rrule '{rrule[:80]}': COUNT needs a start, such as DTSTART:20270101T000000 on a line before it"
        )


def check_timezone(timezone: str) -> None:
    """Raise ConfigError unless it is the IANA name of a time zone."""
    # Two that the system knows but Prefect does not.
    known = zoneinfo.available_timezones() - {"Factory", "localtime"}
    if timezone not in known:
        raise ConfigError(
            f"schedules: timezone '{timezone}': expected an IANA name such as Europe/Berlin or UTC"
        )


def check_interval(every_s: float) -> None:
    """Raise ConfigError unless it is between 15 seconds and a year."""
    if not MIN_INTERVAL_S <= every_s <= MAX_INTERVAL_S:
        raise ConfigError(
            f"schedules: every_s: expected {MIN_INTERVAL_S:.0f} to {MAX_INTERVAL_S:.0f} seconds, got {every_s:g}"
        )
