"""Compiled loops on disk: damage, other hands and full disks cost a second, never a build; and what is stale is not used."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.kernels import kept

ROOT = Path(__file__).parents[2]

LOOP = """
from numba import types
from pipeline.kernels.compiling import compiled

@compiled(types.uint64)
def loop(x):
    return x + 1

found = loop.look()
print(loop(1), loop.num_compiled, found and found.problem)
"""


def run(folder: Path, source: str = LOOP, **environment: str) -> str:
    """What a program with a loop prints: its result, how often it was compiled, and what was wrong with the kept one."""
    (folder / "loop.py").write_text(source)
    variables = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(folder / "cache")}
    program = [sys.executable, str(folder / "loop.py")]
    return subprocess.check_output(
        program, env=variables | environment, text=True, cwd=folder
    ).strip()


def only(folder: Path) -> Path:
    """The one loop that is kept there."""
    (file,) = folder.rglob("*.nbc")
    return file


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[: len(data) // 2], "is damaged"),
        (lambda data: data[:30], "is damaged"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:], "is damaged"),
        (lambda data: b"\0" * len(data), "is damaged"),
    ],
)
def test_a_damaged_loop_is_compiled_again(
    tmp_path: Path, spoil: Callable[[bytes], bytes], problem: str
) -> None:
    """Empty, cut, flipped or zeroed after a power cut: never loaded, made again, and sound from then on."""
    assert run(tmp_path) == "2 1 None"
    file = only(tmp_path / "cache")
    file.write_bytes(spoil(file.read_bytes()))
    assert run(tmp_path) == f"2 1 {problem}"
    assert run(tmp_path) == "2 0"


def test_what_others_may_write_is_not_run(tmp_path: Path) -> None:
    """A file that others can write may hold anything by now; the one in its place is this user's alone again."""
    run(tmp_path)
    file = only(tmp_path / "cache")
    file.chmod(0o666)
    assert run(tmp_path) == "2 1 can be written by other users"
    assert file.stat().st_mode & 0o777 == 0o644
    assert run(tmp_path) == "2 0"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_not_run(tmp_path: Path) -> None:
    """Whoever owns a file decides what is in it, so only this user, root and the owner of the source count."""
    run(tmp_path)
    file = only(tmp_path / "cache")
    os.chown(file, 4321, 4321)
    assert run(tmp_path) == "2 1 belongs to another user (number 4321)"
    os.chown(file, 4321, 4321)
    os.chown(tmp_path / "loop.py", 4321, 4321)  # write_text below leaves the owner as it is
    assert run(tmp_path) == "2 0"


def test_a_pipe_or_a_folder_in_its_place_does_no_harm(tmp_path: Path) -> None:
    """What is not a file is neither waited for nor read."""
    run(tmp_path)
    file = only(tmp_path / "cache")
    file.unlink()
    os.mkfifo(file)
    assert run(tmp_path) == "2 1 is not a file"
    assert run(tmp_path) == "2 0"
    file.unlink()
    file.mkdir()
    result = run(tmp_path)
    assert result.startswith("2 1 ")


def test_another_processor_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Code for one kind of processor may crash on another that shares the folder."""
    assert run(tmp_path) == "2 1 None"
    assert run(tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == "2 1 None"
    assert run(tmp_path) == "2 0"
    assert len(list(tmp_path.rglob("cache/**/*.nbc"))) == 2


@pytest.mark.parametrize("name", ["a file", "below a file"])
def test_a_folder_that_cannot_be_one_is_passed_over(tmp_path: Path, name: str) -> None:
    """NUMBA_CACHE_DIR may name anything; loops are then kept beside their source."""
    (tmp_path / "file").write_text("")
    chosen = str(tmp_path / "file" if name == "a file" else tmp_path / "file" / "below")
    assert run(tmp_path, NUMBA_CACHE_DIR=chosen) == "2 1 None"
    assert run(tmp_path, NUMBA_CACHE_DIR=chosen) == "2 0"
    assert only(tmp_path).parent.name == "__pycache__"


def test_constants_of_other_folders_count(tmp_path: Path) -> None:
    """A loop has the values of what it imports compiled in, from whichever folder of its package."""
    package = tmp_path / "mill"
    loops = package / "loops"
    loops.mkdir(parents=True)
    for folder in (package, loops):
        (folder / "__init__.py").write_text("")
    (package / "figures.py").write_text("STEP = 1\n")
    (loops / "counting.py").write_text(
        "from numba import types\nfrom pipeline.kernels.compiling import compiled\n"
        "from mill.figures import STEP\n\n"
        "@compiled(types.uint64)\ndef loop(x):\n    return x + STEP\n"
    )
    source = "from mill.loops.counting import loop\nprint(loop(1), loop.num_compiled)\n"
    search = os.pathsep.join([str(tmp_path), str(ROOT)])
    assert [run(tmp_path, source, PYTHONPATH=search) for _ in range(2)] == ["2 1", "2 0"]
    (package / "figures.py").write_text("STEP = 10\n")
    assert run(tmp_path, source, PYTHONPATH=search) == "11 1"


def test_users_without_a_home_have_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may run as a user whom no list of users knows; then no name `~` is made anywhere."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    folders = kept.folders_for(tmp_path / "loop.py")
    assert all(folder.is_absolute() and "~" not in str(folder) for folder in folders)
    assert len(folders) == 2


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a loop leaves neither a part of it nor a temporary file."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        kept.write(tmp_path / "x.nbc", b"s" * 32, b"data")
    assert list(tmp_path.iterdir()) == []
