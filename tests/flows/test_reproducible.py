"""A recipe built in other circumstances, by processes of their own: the same hash, and the same shards byte for byte."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = """
import os, sys
os.umask(int(sys.argv.pop(1), 8))
from flows.cli import main
main()
"""

CIRCUMSTANCES = (
    {"umask": "077", "workers": "2", "PYTHONHASHSEED": "7", "TZ": "Asia/Kolkata", "LC_ALL": "C"},
    {"umask": "000", "workers": "1", "PYTHONHASHSEED": "0", "TZ": "America/Lima", "LC_ALL": "tr_TR.UTF-8"},
)  # fmt: skip


def build(
    recipe: str | Path, lake: Path, folder: Path, *, umask: str, workers: str, **environment: str
) -> str:
    """Build in a process of its own; return the snapshot's hash."""
    command = [
        sys.executable,
        "-c",
        BUILD,
        umask,
        "build",
        str(recipe),
        "--lake",
        str(lake),
        "--workers",
        workers,
    ]
    settings = ("--set", "shards.input_bytes=20000", "-q")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, *settings],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("hash ")]
    return line


def shards(lake: Path) -> dict[str, str]:
    """Checksums of every file below the corpus's data."""
    data = lake / "corpora/tiny/data"
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*.*"))
    }


@pytest.mark.parametrize("circumstances", CIRCUMSTANCES, ids=("two-workers", "one-worker"))
def test_snapshot_is_a_function_of_inputs_and_recipe(
    circumstances: dict[str, str], tiny_recipe: Path, tmp_path: Path
) -> None:
    """Whatever hash seed, time zone, locale, umask, folder, number of workers, place of the texts and order on the disk."""
    here = build(tiny_recipe, tmp_path / "here", tmp_path, umask="022", workers="1")
    moved = tmp_path / "else where" / "corpus"
    for path in sorted(tiny_recipe.parent.rglob("*"), reverse=True):
        if path.is_file():
            copy = moved / path.relative_to(tiny_recipe.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    there = build(tiny_recipe.name, tmp_path / "there", moved, **circumstances)
    assert here == there
    assert shards(tmp_path / "here") == shards(tmp_path / "there")
    assert len(shards(tmp_path / "here")) > 10
