"""Checkpoints come back as they were saved; a damaged one is named and the one before it used."""

import errno
import os
import re
import resource
import threading
from pathlib import Path

import pytest
import torch

import storage.lake
from model.checkpoint import (
    checkpoint_folder,
    checkpoint_steps,
    load_checkpoint,
    load_latest,
    run_hash,
    save_checkpoint,
    verify_runs,
)
from storage.errors import CorruptError, LakeError, NotFoundError
from storage.lake import Lake

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


def save(lake: Lake, step: int, keep: int = 2) -> None:
    model = {"weight": torch.arange(6.0).view(2, 3) + step, "bias": torch.tensor(1.5)}
    save_checkpoint(
        lake, "run", step, model, {"weight/step": torch.tensor(float(step))}, {"n": step}, keep
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(tmp_path)


def test_a_checkpoint_comes_back(lake: Lake) -> None:
    assert load_latest(lake, "run") is None
    save(lake, 7)
    found = load_latest(lake, "run")
    assert found is not None and (found.step, found.state) == (7, {"n": 7})
    assert torch.equal(found.model["weight"], torch.arange(6.0).view(2, 3) + 7)
    assert torch.equal(found.optimizer["weight/step"], torch.tensor(7.0))


def test_the_newest_are_kept(lake: Lake) -> None:
    """Also what a killed process left of older ones goes; the same step can be saved again."""
    lake.write_bytes(f"{checkpoint_folder('run', 1)}/model.safetensors", b"half")
    for step in (2, 4, 6, 6, 1_000_000):
        save(lake, step)
    assert checkpoint_steps(lake, "run") == [6, 1_000_000]
    assert lake.list_folders("runs/run/checkpoints") == ["step-000006", "step-1000000"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_one_is_named_and_the_one_before_used(lake: Lake, name: str, damage: str) -> None:
    save(lake, 2)
    save(lake, 4)
    path = lake.local_path(f"{checkpoint_folder('run', 4)}/{name}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    told: list[str] = []
    found = load_latest(lake, "run", told.append)
    assert found is not None and found.step == 2
    if name == "state.json" and damage == "remove":
        assert told == []  # without its record it never was one
    else:
        assert len(told) == 1 and f"step-000004/{name}: expected" in told[0]
        with pytest.raises(CorruptError, match=re.escape(name)):
            load_checkpoint(lake, "run", 4)


def test_if_all_are_damaged_nothing_is_trained(lake: Lake) -> None:
    for step in (2, 4):
        save(lake, step)
        path = lake.local_path(f"{checkpoint_folder('run', step)}/model.safetensors")
        path.write_bytes(b"")
    with pytest.raises(
        CorruptError, match=r"step-000002/model.*no checkpoint of run 'run' is sound: remove"
    ):
        load_latest(lake, "run")


def test_the_hash_of_a_run_is_that_of_tensors_and_losses(lake: Lake) -> None:
    with pytest.raises(NotFoundError, match="expected a run with a checkpoint"):
        run_hash(lake, "run")
    save(lake, 2)
    lines = b'{"step":1,"loss":2.5,"seconds":1}\n{"step":2,"loss":2.25,"seconds":1}\n'
    lake.write_bytes("runs/run/metrics.jsonl", lines)
    first = run_hash(lake, "run")
    assert re.fullmatch("[0-9a-f]{64}", first)
    lake.write_bytes("runs/run/metrics.jsonl", lines.replace(b'"seconds":1', b'"seconds":2'))
    assert run_hash(lake, "run") == first
    lake.write_bytes("runs/run/metrics.jsonl", lines.replace(b"2.25", b"2.26"))
    assert run_hash(lake, "run") != first
    save(lake, 3)
    with pytest.raises(
        CorruptError, match=r"metrics\.jsonl: expected the losses of 3 steps, got 2"
    ):
        run_hash(lake, "run")
    lake.write_bytes("runs/run/metrics.jsonl", lines + b'{"step":3,"loss":2.0,"seconds":1}\n')
    assert run_hash(lake, "run") != first
    for damage in (b"\xff\xfe", b"[1]", b"7"):
        lake.write_bytes("runs/run/metrics.jsonl", lines + damage + b"\n")
        with pytest.raises(CorruptError, match=r"metrics\.jsonl:3: expected a JSON object"):
            run_hash(lake, "run")


def test_verify_names_every_damaged_checkpoint(lake: Lake) -> None:
    for step in (2, 4):
        save(lake, step)
    assert verify_runs(lake) == []
    lake.local_path(f"{checkpoint_folder('run', 2)}/optimizer.safetensors").write_bytes(b"x")
    problems = verify_runs(lake)
    assert len(problems) == 1 and "step-000002/optimizer.safetensors: expected" in problems[0]


def test_verify_beside_training_finds_nothing_wrong(lake: Lake) -> None:
    """Checkpoints that are removed or replaced while they are read are not damaged."""
    save(lake, 1)

    def train() -> None:
        for step in range(2, 200):
            save(lake, step, keep=1)

    training = threading.Thread(target=train)
    training.start()
    while training.is_alive():
        assert verify_runs(lake) == []
    training.join()
    assert checkpoint_steps(lake, "run") == [199]


def test_a_full_disk_leaves_the_checkpoints_before(lake: Lake) -> None:
    """Files may not grow beyond 100 bytes, as if the disk were full: one error in words, nothing half written."""
    save(lake, 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(LakeError):
            save(lake, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint_steps(lake, "run") == [2]
    assert not lake.list(checkpoint_folder("run", 4), temporary=True)
    save(lake, 4)
    assert checkpoint_steps(lake, "run") == [2, 4]


def test_trouble_with_old_checkpoints_ends_no_training(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The new checkpoint is there, so what cannot be removed is told, and removed at the next one."""

    def fail(operation: str, path: str) -> None:
        if operation == "unlink" and "step-000001" in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    save(lake, 1, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(storage.lake, "on_file_operation", fail)
        save(lake, 2, keep=1)
    assert "removing old checkpoints failed" in caplog.text
    assert checkpoint_steps(lake, "run") == [1, 2]
    save(lake, 3, keep=1)
    assert checkpoint_steps(lake, "run") == [3]
