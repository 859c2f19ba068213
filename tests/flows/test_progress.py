"""Progress off a terminal is a log that one can read."""

import itertools

from flows.progress import LineProgress


def told(calls: list[tuple], seconds_a_call: float) -> list[str]:
    """Lines printed for calls that come at equal distances in time."""
    lines: list[str] = []
    ticks = itertools.count(step=seconds_a_call)
    progress = LineProgress(lines.append, clock=lambda: float(next(ticks)))
    for call in calls:
        progress(*call)
    progress.close()
    return lines


def test_stage_has_a_first_and_a_last_line() -> None:
    """Quick work is two lines a stage, in order."""
    lines = told(
        [
            ("read", 0, 2, "files"),
            ("read", 2, 2, "files"),
            ("sign", 0, 1, "shards"),
            ("sign", 1, 1, "shards"),
        ],
        1,
    )
    assert lines == [
        "read: 0/2 files",
        "read: 2 files in 2.0 s",
        "sign: 0/1 shards",
        "sign: 1 shards in 2.0 s",
    ]


def test_long_work_speaks_now_and_then_with_rate_and_time_left() -> None:
    """A thousand steps of a second each: every five seconds at first, later a tenth of the time so far."""
    lines = told([("train", step, 1000, "steps") for step in range(1001)], 1.0)
    assert lines[1] == "train: 5/1,000 steps, 1/s, 16 min 35 s left"
    steps = [int(line.split()[1].partition("/")[0].replace(",", "")) for line in lines[:-1]]
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert gaps[:5] == [5] * 5
    assert gaps == sorted(gaps)
    assert gaps[-1] == 60
    assert lines[-1] == "train: 1,000 steps in 16 min 41 s"


def test_rate_is_that_of_late() -> None:
    """Work that was slow for a while and is quick now promises what it does now."""
    lines: list[str] = []
    now = [0.0]
    progress = LineProgress(lines.append, clock=lambda: now[0])
    for step in range(950):
        progress("train", step, 1000, "steps")
        now[0] += 10.0 if step < 50 else 1.0
    assert ", 1/s, " in lines[-1]


def test_resumed_work_counts_its_rate_from_where_it_began() -> None:
    """Shards that were done before are not speed."""
    lines = told([("read", 500, 1000, "shards"), ("read", 510, 1000, "shards")], 10)
    assert lines[1] == "read: 510/1,000 shards, 1/s, 8 min 10 s left"


def test_unknown_total_has_no_time_left() -> None:
    """Nothing is promised that is not known."""
    assert (
        told([("read", 0, None, "files"), ("read", 9, None, "files")], 10)[1]
        == "read: 9 files, 0.9/s"
    )


def test_stage_that_was_done_before_is_one_line() -> None:
    """A resumed build does not pretend to work."""
    assert told([("read", 3, 3, "files")], 1) == ["read: 3 files in 1.0 s"]


def test_bytes_are_told_as_sizes() -> None:
    """Nobody reads 21,754,060, and a small file is not 0 MB."""
    amounts = [("verify", 0, 21_754_060), ("verify", 11_850_000, 21_754_060), ("verify", 7, 7)]
    lines = told([(stage, done, total, "bytes") for stage, done, total in amounts], 10)
    assert lines == [
        "verify: 0 B/21.8 MB",
        "verify: 11.8 MB/21.8 MB, 1.19 MB/s, 8.4 s left",
        "verify: 7 B in 30.0 s",
    ]
