"""Killed anywhere, with or without what was not synced, and killed again while resuming: the same snapshot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def crash_everywhere(lakes: str, scratch: Path, variant: str) -> list[dict]:
    """What `crash_zygote.py` tells of each place to die."""
    script = Path(__file__).with_name("crash_zygote.py")
    command = [sys.executable, str(script), lakes, str(scratch), variant]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(lines: list[dict], *, at_least: int) -> None:
    """The law: no reader sees half a snapshot, the same hash in the end, all of it there, nothing left over."""
    *crashes, whole = lines
    assert len(crashes) >= at_least and whole["killed"] == [False, False]
    (hash_,) = whole["hash"]
    sound = f"poems@1 {hash_}"
    assert len(hash_) == 64
    for line in crashes:
        assert line["killed"][0]
        assert line["after"] in (["none"], [sound]), line
    for line in lines:
        assert line["hash"] == [hash_], line
        assert line["found"] == [sound, "", sound], line
    # Once it is there it stays there.
    seen = [line["after"] == [sound] for line in lines]
    assert seen == sorted(seen) and not seen[0] and seen[-1]


@pytest.mark.parametrize("variant", ["kill", "lose_data", "lose_names", "lose_names_late"])
def test_a_build_on_disk_survives_a_crash_at_every_file_operation(
    tmp_path: Path, variant: str
) -> None:
    """kill -9, or a power cut that loses unsynced content, or names as well."""
    check(crash_everywhere(str(tmp_path / "lakes"), tmp_path, variant), at_least=20)


def test_a_build_in_a_bucket_survives_a_crash_at_every_put(s3_bucket: str, tmp_path: Path) -> None:
    """There is nothing to lose but whole objects."""
    check(crash_everywhere(s3_bucket, tmp_path, "kill"), at_least=5)
