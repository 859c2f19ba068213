"""Publish the shards that lie in a lake as build bbbb..., and wait for a line of input before operation STOP.

    python slow_commit.py LAKE CACHE STOP

`test_fence.py` runs it. It prints "stopped" when it waits, and at last "published" or the name of the error.
"""

import sys
from pathlib import Path

import storage.lake
from storage.errors import GristmillError
from storage.lake import Lake
from storage.shard import describe_shard
from storage.snapshot import Manifest, commit_snapshot

BUILD = "b" * 16


def main() -> None:
    """See the module's text."""
    location, cache, stop = sys.argv[1:]
    lake = Lake.open(location, cache=Path(cache))
    paths = [entry.path for entry in lake.list(f"corpora/c/data/{BUILD}")]
    shards = tuple(describe_shard(lake, path, version=1) for path in paths)
    manifest = Manifest(name="c", version=1, build_id=BUILD, status="promoted", shards=shards)
    count = 0

    def wait(operation: str, path: str) -> None:
        nonlocal count
        count += 1
        if count == int(stop):
            print("stopped", flush=True)
            sys.stdin.readline()

    storage.lake.on_file_operation = wait
    try:
        commit_snapshot(lake, manifest)
        print("published", flush=True)
    except GristmillError as error:
        print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main()
