"""maintain-lake on a real server: a sound lake loses what nothing needs, a damaged one loses nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.lake import Lake

from .conftest import TINY_MODEL
from .prefect_api import newest_run

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]

Environment = dict[str, str]

DAY_S = 86400


@pytest.fixture
def lake(gristmill: Callable[..., Any], tiny_recipe: Path, tmp_path: Path) -> Path:
    """A lake with a snapshot and a trained run."""
    lake = tmp_path / "lake"
    assert gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1).code == 0
    trained = gristmill("train", tiny_recipe, "--lake", lake, "--run", "small", *TINY_MODEL)
    assert trained.code == 0, trained.err
    return lake


def maintain(environment: Environment, lake: Path) -> dict[str, Any]:
    """Run the flow in a process of its own; returns the flow run, with what it printed."""
    script = """
import sys
from flows.maintenance import maintain_lake
from storage.errors import GristmillError
try:
    maintain_lake(sys.argv[1])
except GristmillError:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(lake)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return newest_run(environment)


def put(lake: Path, path: str, content: str, age_s: float) -> Path:
    """A file of a certain age."""
    file = lake / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def test_sound_lake_loses_what_nothing_needs(
    prefect_environment: Environment, lake: Path, gristmill: Callable[..., Any]
) -> None:
    """Leftovers of dead builds and records of old events go; what is young, asked for or at work stays."""
    folder = "corpora/tiny"
    leftover = put(lake, f"{folder}/data/dead/documents-00000.arrow", "half", 2 * DAY_S)
    young = put(lake, f"{folder}/data/young/documents-00000.arrow", "half", 60)
    busy = put(lake, "corpora/busy/data/dead/documents-00000.arrow", "half", 2 * DAY_S)
    promoted = json.dumps({"event": "gristmill.snapshot.promoted"})
    gone = json.dumps({"event": "gristmill.source.gone"})
    ages = {"a": (promoted, 200), "b": (promoted, 100), "c": (promoted, 95), "d": (gone, 300)}
    records = {
        name: put(lake, f"{folder}/events/{name}.json", text, days * DAY_S)
        for name, (text, days) in ages.items()
    }

    with Lake.open(lake).lock("build-busy", doing="building 'busy'"):
        run = maintain(prefect_environment, lake)
    assert run["state_type"] == "COMPLETED"
    assert run["state"]["message"].startswith("sound, 1 file removed")
    assert "2 event records trimmed" in run["state"]["message"]
    assert " sound, " in run["name"]
    assert not leftover.exists()
    assert young.exists() and busy.exists()
    assert {name for name, file in records.items() if file.exists()} == {"c", "d"}
    assert gristmill("verify", "--lake", lake).code == 0


def test_damaged_lake_is_named_and_loses_nothing(
    prefect_environment: Environment, lake: Path
) -> None:
    """Failed, with each file, what was expected of it, and what to do."""
    leftover = put(lake, "corpora/tiny/data/dead/documents-00000.arrow", "half", 2 * DAY_S)
    [shard] = (lake / "corpora/tiny/data").glob("*/tokens-train-*.arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    run = maintain(prefect_environment, lake)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Damaged")
    message = run["state"]["message"]
    assert "1 problem, and nothing was removed" in message
    assert f"{shard}: expected sha256" in message
    assert "put back a good copy" in message
    assert run["name"].endswith(" damaged")
    assert leftover.exists()
