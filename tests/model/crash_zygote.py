"""Train, die at the n-th file operation, train on to the end: for every STRIDE-th n.

    python crash_zygote.py LAKE SCRATCH CONFIG STRIDE

`test_crash.py` runs it and judges what it prints. LAKE is a lake with a snapshot, copied for each n into the folder
SCRATCH; CONFIG is the settings in JSON. Each run is a fork of this process, which itself never computes, and kills itself
with SIGKILL just before its n-th file operation. One line of JSON is printed for each n; the last run was not killed.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import storage.lake
from model.config import TrainConfig
from model.train import train
from storage.catalog import resolve
from storage.lake import Lake


def in_child(last: int, action: Callable[[Callable[[Any], object]], object]) -> tuple[bool, list]:
    """(killed, what `action` told) of a fork that dies before its file operation number `last`; 0 lets it live."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def die_at_last(operation: str, path: str) -> None:
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

        storage.lake.on_file_operation = die_at_last
        try:
            action(lambda value: os.write(writer, json.dumps(value).encode() + b"\n"))
        except BaseException as error:  # a fork must not return into the parent's code
            os.write(writer, json.dumps(f"{type(error).__name__}: {error}").encode() + b"\n")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        told = [json.loads(line) for line in file]
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), told


def main() -> None:
    """See the module's text."""
    source, scratch, settings, stride = sys.argv[1:]
    torch.set_num_threads(1)  # a fork of a process with threads may hang
    torch.optim.AdamW([torch.zeros(1)])  # loads modules for a second, which no fork need do again
    config = TrainConfig(**json.loads(settings))
    for last in range(1, 1000, int(stride)):
        folder = Path(scratch, str(last))
        shutil.copytree(source, folder)
        lake = Lake.open(folder)

        def run(tell: Callable[[Any], object], lake: Lake = lake) -> None:
            result = train(resolve(lake, "tiny"), lake, config, run="run")
            rows = [
                lake.read_bytes(f"runs/run/{name}.jsonl")
                for name in ("metrics", "ledger", "samples")
            ]
            steps = [[json.loads(line)["step"] for line in data.splitlines()] for data in rows]
            tell(
                [
                    result.hash,
                    result.bits_per_byte,
                    steps,
                    lake.list_folders("runs/run/checkpoints"),
                ]
            )

        killed, _ = in_child(last, run)
        _, told = in_child(0, run)
        print(json.dumps({"n": last, "killed": killed, "told": told}), flush=True)
        shutil.rmtree(folder)
        if not killed:
            return


if __name__ == "__main__":
    main()
