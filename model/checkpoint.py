"""Checkpoints of a run: `runs/<run>/checkpoints/step-000100/` with model, optimizer, and a record that is written last.

The record carries the checksums of the other two and its own; without it the checkpoint does not exist. Tensors are
safetensors, never pickle.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.records import read_lines
from storage.errors import CorruptError, LakeError, NotFoundError
from storage.lake import Lake
from storage.published import after_publishing

FORMAT = 1
"""Version of the checkpoint's form; readers refuse any other."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read and verified."""

    step: int
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]
    """What `save_checkpoint` was given besides tensors."""


def checkpoint_folder(run: str, step: int) -> str:
    """Folder of a checkpoint in the lake."""
    return f"runs/{run}/checkpoints/step-{step:06}"


def checkpoint_steps(lake: Lake, run: str) -> list[int]:
    """Steps of the finished checkpoints, ascending."""
    steps = _all_steps(lake, run)
    return [step for step in steps if lake.exists(f"{checkpoint_folder(run, step)}/state.json")]


def _all_steps(lake: Lake, run: str) -> list[int]:
    """Steps that have a folder, ascending: a killed process may have left unfinished ones."""
    names = lake.list_folders(f"runs/{run}/checkpoints")
    found = (re.fullmatch(r"step-(\d{6,})", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def save_checkpoint(
    lake: Lake,
    run: str,
    step: int,
    model: Tensors,
    optimizer: Tensors,
    state: Mapping[str, Any],
    keep: int,
) -> None:
    """Write a checkpoint in place of one of the same step, then remove all but the newest `keep`.

    A crash leaves the older ones as they were. Raises LakeError (disk full, say).
    """
    folder = checkpoint_folder(run, step)
    # Without its record an old checkpoint of this step is gone, so new and old files never mix.
    lake.delete(f"{folder}/state.json")
    checksums = {}
    for name, tensors in (("model", model), ("optimizer", optimizer)):
        with lake.writer(f"{folder}/{name}.safetensors") as file:
            try:
                save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, file)
            except SafetensorError as error:
                raise LakeError(
                    f"{lake.where(folder)}: expected to write {name}.safetensors, got: {error}; the "
                    "checkpoints before it are untouched: make room, and run the same command again"
                ) from error
            checksums[name] = _digest(file)
    body = {"format": FORMAT, "step": step, "checksums": checksums, "state": dict(state)}
    body["checksum"] = _checksum(body)
    lake.write_bytes(f"{folder}/state.json", json.dumps(body, sort_keys=True).encode())
    prune_checkpoints(lake, run, keep)


def prune_checkpoints(lake: Lake, run: str, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`, and what a killed process left of older ones.

    Trouble with that is told and ends no training: the newest checkpoint is there.
    """
    with after_publishing("removing old checkpoints", "the next checkpoint tries again"):
        kept = checkpoint_steps(lake, run)[-keep:]
        for step in _all_steps(lake, run):
            if step < kept[0]:
                # The record goes first, so that what is half removed is no checkpoint.
                lake.delete(f"{checkpoint_folder(run, step)}/state.json")
                lake.delete_prefix(checkpoint_folder(run, step))


def load_checkpoint(lake: Lake, run: str, step: int) -> Checkpoint:
    """Read a checkpoint. Raises CorruptError, naming the file, what was expected and what was found."""
    body = _read_record(lake, run, step)
    tensors = {}
    for name, expected in body["checksums"].items():
        path = f"{checkpoint_folder(run, step)}/{name}.safetensors"
        where = lake.where(path)
        try:
            file = lake.local_path(path)
            if (found := _digest(file)) != expected:
                raise CorruptError(f"{where}: expected sha256 {expected}, got {found}")
            tensors[name] = load_file(file)
        except (NotFoundError, FileNotFoundError) as error:  # the latter if it goes meanwhile
            raise CorruptError(f"{where}: expected a file, found none") from error
        except SafetensorError as error:
            raise CorruptError(f"{where}: expected safetensors, got: {error}") from error
    return Checkpoint(step, tensors["model"], tensors["optimizer"], body["state"])


def load_latest(
    lake: Lake, run: str, on_damage: Callable[[str], None] | None = None
) -> Checkpoint | None:
    """The newest sound checkpoint, None if there never was one; `on_damage` is told of each one passed over.

    Raises CorruptError if there are checkpoints and none is sound.
    """
    steps = checkpoint_steps(lake, run)
    for step in reversed(steps):
        try:
            return load_checkpoint(lake, run, step)
        except CorruptError as error:
            if step == steps[0]:
                raise CorruptError(
                    f"{error}; no checkpoint of run '{run}' is sound: remove "
                    f"{lake.where(f'runs/{run}')} to train from the beginning"
                ) from error
            if on_damage:
                on_damage(f"{error}; going back to the checkpoint before step {step}")
    return None


def run_hash(lake: Lake, run: str) -> str:
    """Hash (64 hex digits) of the newest checkpoint's tensors and of the losses of all steps up to it.

    Raises NotFoundError without a checkpoint, CorruptError if it is damaged.
    """
    steps = checkpoint_steps(lake, run)
    if not steps:
        raise NotFoundError(
            f"{lake.where(f'runs/{run}')}: expected a run with a checkpoint, found none"
        )
    checkpoint = load_checkpoint(lake, run, steps[-1])
    digest = hashlib.blake2b(digest_size=32)
    for group, tensors in (("model", checkpoint.model), ("optimizer", checkpoint.optimizer)):
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{group} {name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    num_losses = 0
    for row in read_lines(lake, f"runs/{run}/metrics.jsonl"):
        if "domains" not in row and row.get("step", math.inf) <= checkpoint.step:
            digest.update(f"{row['step']} {row.get('loss')!r}\n".encode())
            num_losses += 1
    if num_losses != checkpoint.step:
        raise CorruptError(
            f"{lake.where(f'runs/{run}/metrics.jsonl')}: expected the losses of {checkpoint.step} steps, got {num_losses}; "
            "put back a good copy of the file"
        )
    return digest.hexdigest()


def verify_runs(lake: Lake) -> list[str]:
    """What is wrong with the checkpoints of all runs, in words; reads each file once.

    Training may go on meanwhile: a checkpoint that it removes or replaces while it is read is not damaged.
    """
    steps = [(run, s) for run in lake.list_folders("runs") for s in checkpoint_steps(lake, run)]
    # Looked at twice, because what training replaces is half there for a moment.
    problems = (_damage(lake, run, step) and _damage(lake, run, step) for run, step in steps)
    return [problem for problem in problems if problem]


def _damage(lake: Lake, run: str, step: int) -> str:
    """What is wrong with a checkpoint; nothing, if it is there no more."""
    try:
        load_checkpoint(lake, run, step)
    except (CorruptError, NotFoundError) as error:
        is_there = lake.exists(f"{checkpoint_folder(run, step)}/state.json")
        return str(error) if is_there else ""
    return ""


def _read_record(lake: Lake, run: str, step: int) -> dict[str, Any]:
    path = f"{checkpoint_folder(run, step)}/state.json"
    where = lake.where(path)
    data = lake.read_bytes(path)
    try:
        body = json.loads(data)
        expected = body.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(
            f"{where}: expected the record of a checkpoint, got {data[:40]!r}"
        ) from error
    if (found := _checksum(body)) != expected:
        raise CorruptError(f"{where}: expected sha256 {expected}, got {found}")
    if body["format"] != FORMAT:
        raise LakeError(
            f"{where}: expected a checkpoint of format {FORMAT}, got {body['format']}; a newer gristmill wrote it: upgrade"
        )
    return body


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
