"""Killed before any file operation, a run goes on and ends as if nothing had been."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from model.config import TrainConfig
from storage.snapshot import Snapshot

TinyConfig = Callable[..., TrainConfig]


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_survives_kill_9_at_every_file_operation(
    snapshot: Snapshot, tiny_config: TinyConfig, tmp_path: Path, stride: int
) -> None:
    """Weights, optimizer state, losses, ledger and checkpoints are those of a run that was not killed."""
    config = tiny_config(
        steps=3,
        checkpoint_every=1,
        eval_every=2,
        overrides={"n_layer": 1, "n_embd": 16, "ffn_dim": 16},
    )
    script = Path(__file__).with_name("crash_zygote.py")
    command = [
        sys.executable,
        str(script),
        snapshot.lake.url,
        str(tmp_path),
        json.dumps(asdict(config)),
        str(stride),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    *crashes, whole = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(crashes) > 70 // stride
    assert not whole["killed"] and len(whole["told"]) == 1
    _, _, (metrics, ledger, samples), checkpoints = whole["told"][0]
    assert metrics == [1, 2, 2, 3, 3] and ledger == [1, 2, 3] and samples == [2, 3]
    assert checkpoints == ["step-000002", "step-000003"]
    for crash in crashes:
        assert crash["killed"]
        assert crash["told"] == whole["told"], crash
