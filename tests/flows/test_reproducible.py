"""A recipe built in other circumstances, by processes of their own: the same hash, and the same shards byte for byte."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.recipe import find_recipe, load_recipe
from pipeline.build import build as build_corpus
from storage.lake import Lake

BUILD = """
import os, sys
os.umask(int(sys.argv.pop(1), 8))
from flows.cli import main
main()
"""

ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

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


NAMES = (
    "gr\xfc\xdfe.txt".encode(),
    "e\u0301te\u0301.txt".encode(),
    "\xe9t\xe9.txt".encode(),
    b"caf\xe9.txt",
    b"new\nline.txt",
    b"\x1b[31mred.txt",
    b"plain.txt",
    b"Zebra.txt",
    b"%41.txt",
)

LOCALES = (
    {"LC_ALL": "C", **ASCII},
    {"LC_ALL": "POSIX", **ASCII, "TZ": "Asia/Kolkata", "workers": "2"},
    {"LANG": "de_DE.ISO-8859-1", "LC_ALL": "", **ASCII, "PYTHONHASHSEED": "7"},
    {"LC_ALL": "C.UTF-8", "TZ": "America/Lima"},
)


def write_named(folder: Path, *, reverse: bool = False) -> Path:
    """A corpus whose file names, folder and recipe are not ASCII, written in either order; returns the recipe."""
    texts = folder / "t\xe4xte"
    texts.mkdir(parents=True)
    for number, name in sorted(enumerate(NAMES), reverse=reverse):
        text = f"Text {number} of a gr\xfc\xdfe corpus. " + " ".join(
            f"w{number * 997 + n * n}" for n in range(60)
        )
        Path(os.fsdecode(os.fsencode(texts) + b"/" + name)).write_text(text, "utf-8")
    recipe = folder / "r\xe9z.toml"
    recipe.write_text(
        'name = "tiny"\n[[sources]]\npath = "t\xe4xte/**/*.txt"\nname = "t"\ndomain = "default"\n'
        "[tokenizer]\nvocab_size = 400\n",
        "utf-8",
    )
    return recipe


def hash_here(recipe: str, lake: Path) -> str:
    """Build in this process; return the snapshot's hash."""
    found = load_recipe(recipe, ["shards.input_bytes=20000"])
    result = build_corpus(found.build, Lake.open(lake), root=find_recipe(recipe).parent)
    assert result.documents["kept"] == len(NAMES)
    return f"hash {result.hash}"


@pytest.mark.parametrize(
    "locale", [LOCALES[0], *(pytest.param(x, marks=pytest.mark.slow) for x in LOCALES[1:])]
)
def test_names_are_bytes(locale: dict[str, str], tmp_path: Path) -> None:
    """No locale decides which files are found, in which order, or what they are called."""
    recipe = write_named(tmp_path / "c\xf6rpus")
    here = hash_here(str(recipe), tmp_path / "here")
    circumstances = {"umask": "022", "workers": "1", **locale}
    assert build(recipe, tmp_path / "there", tmp_path, **circumstances) == here
    assert shards(tmp_path / "here") == shards(tmp_path / "there")


def test_spelling_of_paths_and_order_of_files_decide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifteen ways to name the same recipe and its texts: one hash, and a lake that was built by one knows the others."""
    recipe = write_named(tmp_path / "c\xf6rpus")
    folder, texts = recipe.parent, recipe.parent / "t\xe4xte"
    (tmp_path / "link").symlink_to(folder)
    other = write_named(tmp_path / "moved" / "away", reverse=True)
    expected = hash_here(str(recipe), tmp_path / "lake")
    arguments = [
        (folder, recipe.name),
        (folder, f"./{recipe.name}"),
        (folder, f".//x/../{recipe.name}"),
        (texts, f"../{recipe.name}"),
        (tmp_path, f"c\xf6rpus/{recipe.name}"),
        (tmp_path, f"link/{recipe.name}"),
        (tmp_path / "moved", f"../link/../c\xf6rpus/{recipe.name}"),
        (tmp_path, str(other)),
        (other.parent, other.name),
    ]
    (folder / "x").mkdir()
    paths = ["./t\xe4xte//**/*.txt", "x/../t\xe4xte/**/*.txt", "../c\xf6rpus/t\xe4xte/**/*.txt"]
    paths += [f"{texts}/**/*.txt", f"{tmp_path}/link/t\xe4xte/**/*.txt", f"file://{texts}/**/*.txt"]
    for number, path in enumerate(paths):
        spelt = folder / f"spelt-{number}.toml"
        spelt.write_text(recipe.read_text("utf-8").replace("t\xe4xte/**/*.txt", path), "utf-8")
        arguments.append((tmp_path, str(spelt)))
    for number, (cwd, argument) in enumerate(arguments):
        monkeypatch.chdir(cwd)
        assert hash_here(argument, tmp_path / f"lake-{number}") == expected, argument
        found = load_recipe(argument, ["shards.input_bytes=20000"]).build
        again = build_corpus(found, Lake.open(tmp_path / "lake"), root=find_recipe(argument).parent)
        assert (again.status, len(again.notes)) == ("unchanged", 1)
