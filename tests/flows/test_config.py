"""What a recipe says to a site is refused when it is read, in one message, and reading it stays cheap."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.recipe import load_recipe
from storage.errors import ConfigError

MINIMAL = 'name = "x"\n[[sources]]\npath = "t"\n'


def written(folder: Path, text: str) -> str:
    path = folder / "site.toml"
    path.write_text(MINIMAL + text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        '[[schedules]]\ncron = "0 2 * * *"\ntimezone = "Europe/Berlin"',
        '[[schedules]]\ncron = "*/15 8-18/2 1,15 jan-mar mon-fri"',
        '[[schedules]]\nevery_s = 15.0\n[[schedules]]\nevery_s = 15.0\njob = "train"',
        '[[schedules]]\nrrule = "FREQ=WEEKLY;BYDAY=SU;BYHOUR=4"\nactive = false',
        '[[schedules]]\nrrule = "DTSTART:20270101T000000\\nRRULE:FREQ=DAILY;COUNT=3"',
        '[[schedules]]\njob = "maintain"\ncron = "0 4 * * sun"',
        '[on_snapshot]\napproval = "ask"\napproval_hours = 0.5',
        "[limits]\nbuild_hours = 0.5\ntrain_hours = 0",
        '[[notify]]\non = ["gate failed", "source gone"]\nblock = "webhook/ops"',
        '[[notify]]\non = ["training finished", "release promoted"]\nurl_env = "OPS_URL"',
    ],
)
def test_what_a_site_may_be_told(text: str, tmp_path: Path) -> None:
    """Each of these is read."""
    load_recipe(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[schedules]]", "expected exactly one of cron, every_s and rrule in each, got none"),
        ('[[schedules]]\ncron = "0 2 * * *"\nevery_s = 60', "got cron and every_s"),
        ('[[schedules]]\ncron = "@daily"', r"cron '@daily': expected five fields .*, got 1"),
        ('[[schedules]]\ncron = "0 2 * * * *"', "expected five fields .*, got 6"),
        ('[[schedules]]\ncron = "0 24 * * *"', "for hour a number from 0 to 23, .*; got '24'"),
        ('[[schedules]]\ncron = "0 2 * * fri-mon"', "a name such as sun, .*; got 'fri-mon'"),
        ('[[schedules]]\ncron = "0 2 * * H"', "for weekday .*; got 'h'"),
        ('[[schedules]]\ncron = "*/0 2 * * *"', r"for minute .*; got '\*/0'"),
        ('[[schedules]]\ncron = "0 2 31 feb,apr *"', "no month in it has a day 31"),
        ('[[schedules]]\nrrule = "WEEKLY"', "rrule 'WEEKLY': expected a recurrence rule such as"),
        ('[[schedules]]\nrrule = "FREQ=SECONDLY"', "expected FREQ=MINUTELY or rarer"),
        ('[[schedules]]\nrrule = "FREQ=DAILY;INTERVAL=0"', "an INTERVAL of at least 1"),
        ('[[schedules]]\nrrule = "FREQ=DAILY;COUNT=3"', "COUNT needs a start"),
        (
            '[[schedules]]\ncron = "0 2 * * *"\ntimezone = "Berlin"',
            "timezone 'Berlin': expected an IANA name such as Europe/Berlin",
        ),
        ("[[schedules]]\nevery_s = 14", "every_s: expected 15 to 31622400 seconds, got 14"),
        ("[[schedules]]\nevery_s = nan", "every_s: expected 15 to .*, got nan"),
        ("[[schedules]]\nevery_s = inf", "every_s: expected 15 to .*, got inf"),
        (
            '[[schedules]]\njob = "maintain"\nevery_s = 60\noverrides = ["dedup.threshold=1"]',
            "overrides have no effect on the job maintain",
        ),
        ("[[schedules]]\nevery_s = 60\n" * 2, "each once, got two that say the same: build every"),
        (
            '[on_snapshot]\ntrain = false\napproval = "ask"',
            "on_snapshot.approval: it has no effect while train = false",
        ),
        ("[on_snapshot]\napproval_hours = 0", "approval_hours: expected a number from 0.01 to"),
        ("[release]\nmax_worse = -0.1", "release.max_worse: expected a number from 0 to 1, got -0"),
        ("[limits]\nbuild_hours = 0", "limits.build_hours: expected a number from 0.01 to 8766"),
        ("[[notify]]\non = []\nblock = 'a/b'", "on: expected at least one of gate failed, "),
        ("[[notify]]\non = ['gate failed']", "expected one of block and url_env in each"),
        ("[[notify]]\non = ['gate faild']\nblock = 'a/b'", "did you mean 'gate failed'"),
        ("[[notify]]\non = ['gate failed']\nblock = 'ops'", "expected type/name, .* got 'ops'"),
    ],
)
def test_what_cannot_be_kept_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """The message names the file and the key, what was expected and what came."""
    with pytest.raises(ConfigError, match=message) as refused:
        load_recipe(written(tmp_path, text))
    assert "site.toml: " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_url_in_the_place_of_its_variable_is_not_shown(tmp_path: Path) -> None:
    """It holds a password."""
    text = "[[notify]]\non = ['gate failed']\nurl_env = 'smtp://me:secret@mail/?to=a@b'"
    with pytest.raises(ConfigError, match="the name of an environment variable") as refused:
        load_recipe(written(tmp_path, text))
    assert "secret" not in str(refused.value)


def test_reading_schedules_loads_no_prefect(tmp_path: Path) -> None:
    """A plain build of a recipe with schedules starts as fast as one without."""
    text = (
        '[[schedules]]\ncron = "0 2 * * *"\ntimezone = "Asia/Tokyo"\n'
        '[[schedules]]\nrrule = "FREQ=DAILY"\n[[notify]]\non = ["gate failed"]\nurl_env = "X"'
    )
    code = (
        "import sys; from flows.recipe import load_recipe; "
        f"load_recipe({written(tmp_path, text)!r}); assert 'prefect' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
