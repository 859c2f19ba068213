"""A disk that is full, that fails or that flips a bit, under the commands that rewrite what is published.

Whatever goes wrong, a command ends well or with one message, whoever reads sees the snapshot before or the one after,
and the same command, run again, comes to what it would have come to.
"""

import errno
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.cli import app
from storage import lake as lake_module
from storage.catalog import resolve, verify, versions
from storage.lake import Lake

from .conftest import COMMON_WORDS

Command = Callable[..., Any]
Outcome = tuple[str, list[int]]

RECIPE = """
name = "tiny"
sources = [{ path = "*.txt", name = "texts", domain = "books", license = "CC0-1.0" }]
language.detect = false
toxicity.enabled = false
split.validation = 0.2
tokenizer.vocab_size = 400
"""


def prose(seed: int, more: int = 0) -> str:
    """A text of 120 words; with `more`, a longer near-duplicate of it."""
    words = random.Random(seed).choices(COMMON_WORDS.split(), k=120)
    lines = [" ".join(words[i : i + 12]).capitalize() + "." for i in range(0, len(words), 12)]
    return "\n".join(lines) + "".join(f" more{more}word{i}" for i in range(more))


FIRST = {f"other-{i}": prose(i) for i in range(4)} | {"family-1": prose(9, 1)}
SECOND = {f"late-{i}": prose(20 + i) for i in range(4)}
SECOND |= {"family-0": prose(9), "family-2": prose(9, 2), "copy": prose(9, 2), "short": "too short"}
GONE = ("family-1.txt", "late-1.txt", "short.txt")


@dataclass(frozen=True)
class Case:
    """A command, the lake that it finds, and what it does there undisturbed."""

    arguments: tuple[str, ...]
    """All but the lake."""
    start: Path
    before: Outcome
    operations: list[tuple[str, str]]
    """Name and path of each file operation."""
    after: Outcome


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """`forget` and `gc --purge` on two snapshots, and the second build of the policy "rebuild"."""
    folder = tmp_path_factory.mktemp("faults")
    forget = ("forget", *(f"--uri={uri}" for uri in GONE), "--yes")
    purge = ("gc", "--purge", "--yes")
    build = {}
    for policy in ("append", "rebuild"):
        root = folder / policy
        root.mkdir()
        recipe = root / "tiny.toml"
        recipe.write_text(f'{RECIPE}dedup.policy = "{policy}"\n')
        build[policy] = ("build", str(recipe), "--workers=1")
        for texts in (FIRST, SECOND) if policy == "append" else (FIRST,):
            for name, text in texts.items():
                (root / f"{name}.txt").write_text(text)
            run(build[policy], folder / f"lake-{policy}")
    for name, text in SECOND.items():
        (folder / "rebuild" / f"{name}.txt").write_text(text)
    shutil.copytree(folder / "lake-append", folder / "lake-forgotten")
    run(forget, folder / "lake-forgotten")
    return {
        "forget": case_of(forget, folder / "lake-append"),
        "purge": case_of(purge, folder / "lake-forgotten"),
        "rebuild": case_of(build["rebuild"], folder / "lake-rebuild"),
    }


def run(arguments: tuple[str, ...], lake: Path) -> None:
    """Run a command that must end well."""
    with pytest.raises(SystemExit) as ended:
        app([*arguments, "--quiet", "--lake", str(lake)])
    assert not ended.value.code


def case_of(arguments: tuple[str, ...], start: Path) -> Case:
    """Run the command in a copy of the lake, and note what it does."""
    place = start.with_name(f"{start.name}-done")
    shutil.copytree(start, place)
    operations: list[tuple[str, str]] = []
    with hooked(lambda operation, path: operations.append((operation, path))):
        run(arguments, place)
    return Case(arguments, start, outcome(start), operations, outcome(place))


@contextmanager
def hooked(hook: Callable[[str, str], None]) -> Iterator[None]:
    """Call the hook before each file operation during the block."""
    lake_module.on_file_operation = hook
    try:
        yield
    finally:
        lake_module.on_file_operation = None


def outcome(lake: Path) -> Outcome:
    """What a reader finds: the hash of the newest snapshot, and all versions."""
    opened = Lake.open(lake)
    return resolve(opened, "tiny").hash, versions(opened, "tiny")


def failing(number: int, point: int) -> Callable[[str, str], None]:
    """A hook: operation number `point` fails, from 0; on a full disk all from it on but the removal of files."""
    count = [0]

    def hook(operation: str, path: str) -> None:
        here, count[0] = count[0], count[0] + 1
        is_full = number == errno.ENOSPC
        if (here >= point and operation != "unlink") if is_full else here == point:
            raise OSError(number, os.strerror(number), path)

    return hook


WORDS = {errno.ENOSPC: "the disk is full; free some space", errno.EIO: "input/output error; check"}


def check_failure(case: Case, number: int, point: int, gristmill: Command, place: Path) -> None:
    """One operation fails; the module says what must hold then."""
    shutil.copytree(case.start, place)
    lake = Lake.open(place)
    with hooked(failing(number, point)):
        answer = gristmill(*case.arguments, "--lake", place, "--quiet")
    what = f"{case.operations[point]}: {answer}"
    assert answer.code in (0, 1), what
    if answer.code:
        assert answer.err.count("gristmill:") == 1 and WORDS[number] in answer.err, what
        assert outcome(place)[0] in (case.before[0], case.after[0]), what
    else:
        assert outcome(place) == case.after, what
    assert not verify(lake), what
    again = gristmill(*case.arguments, "--lake", place, "--quiet")
    assert again.code == 0, f"{what}, then {again}"
    assert outcome(place) == case.after, what
    assert not verify(lake), what
    shutil.rmtree(place)


NAMES = ("forget", "purge", "rebuild")


@pytest.mark.parametrize("name", NAMES)
def test_published_is_published(
    cases: dict[str, Case], name: str, gristmill: Command, tmp_path: Path
) -> None:
    """Whatever fails after the commit, the result is on stdout, the cause on stderr, and readers see the snapshot."""
    case, place = cases[name], tmp_path / "lake"
    shutil.copytree(case.start, place)
    has_committed = [False]

    def fail_after_commit(operation: str, path: str) -> None:
        if has_committed[0] and not path.endswith("/snapshots") and ".json." not in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        has_committed[0] |= operation == "link" and "/snapshots/" in path

    with hooked(fail_after_commit):
        answer = gristmill(*case.arguments, "--lake", place, "--json")
    assert WORDS[errno.EIO] in answer.err
    if (
        name == "purge"
    ):  # what it is for is not done, so it fails; but what it has published is told
        assert answer.code == 1
        [row] = answer.json["purged"]
        assert (row["hash"], row["is_complete"]) == (case.after[0], False)
    else:
        assert answer.code == 0
        assert answer.json["hash"] == case.after[0]
    assert outcome(place)[0] == case.after[0]
    assert not verify(Lake.open(place))
    if name != "forget":  # which has nothing to forget any more
        assert gristmill(*case.arguments, "--lake", place, "--quiet").code == 0
    assert outcome(place) == case.after


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fails_loses_nothing(
    cases: dict[str, Case], name: str, number: int, gristmill: Command, tmp_path: Path
) -> None:
    """At some file operations, and at those around the commit."""
    operations = cases[name].operations
    [commit] = [i for i, (operation, _) in enumerate(operations) if operation == "link"]
    points = {commit - 1, commit, commit + 1, len(operations) - 1}
    for point in sorted(points | {*random.Random(number).sample(range(commit), 3)}):
        check_failure(cases[name], number, point, gristmill, tmp_path / str(point))


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fails_anywhere_loses_nothing(
    cases: dict[str, Case], name: str, number: int, gristmill: Command, tmp_path: Path
) -> None:
    """At every file operation."""
    for point in range(len(cases[name].operations)):
        check_failure(cases[name], number, point, gristmill, tmp_path / str(point))


def check_flipped_bit(case: Case, path: str, at: float, gristmill: Command, place: Path) -> None:
    """A bit of a file is another: a message that says so, or a command that did not need the file."""
    shutil.copytree(case.start, place)
    file = place / path
    sound = file.read_bytes()
    where = int(at * (len(sound) - 1))
    file.write_bytes(sound[:where] + bytes([sound[where] ^ 4]) + sound[where + 1 :])
    found = outcome(case.start)
    answer = gristmill(*case.arguments, "--lake", place, "--quiet")
    what = f"{path} at {at}: {answer}"
    assert answer.code in (0, 1), what
    if answer.code:
        assert answer.err.count("gristmill:") == 1 and str(file) in answer.err, what
        assert "expected sha256" in answer.err and "put back a good copy" in answer.err, what
    else:
        [problem] = verify(Lake.open(place))
        assert str(file) in problem, what
        found = case.after
    assert path not in removed_from(place), what
    file.write_bytes(sound)
    assert outcome(place) == found, what
    assert gristmill(*case.arguments, "--lake", place, "--quiet").code == 0, what
    assert outcome(place) == case.after, what
    assert not verify(Lake.open(place)), what
    shutil.rmtree(place)


def removed_from(lake: Path) -> set[str]:
    """What a manifest names and the lake does not hold."""
    opened = Lake.open(lake)
    return {s.path for s in resolve(opened, "tiny").manifest.shards if not opened.exists(s.path)}


def newest_of_each_kind(case: Case) -> list[str]:
    """The last shard of each kind, and the tokenizer, of the snapshot that the command finds."""
    manifest = resolve(Lake.open(case.start), "tiny").manifest
    assert manifest.tokenizer is not None
    newest = {shard.kind: shard.path for shard in manifest.shards}
    return [*newest.values(), manifest.tokenizer["path"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_found_or_not_needed(
    cases: dict[str, Case], name: str, gristmill: Command, tmp_path: Path
) -> None:
    """In a shard of each kind: nothing is published that says another thing, and no good file goes for a bad one."""
    for number, path in enumerate(newest_of_each_kind(cases[name])):
        check_flipped_bit(cases[name], path, 0.5, gristmill, tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_anywhere_is_found_or_not_needed(
    cases: dict[str, Case], name: str, gristmill: Command, tmp_path: Path
) -> None:
    """At both ends of every shard and at places between them."""
    shards = resolve(Lake.open(cases[name].start), "tiny").manifest.shards
    for number, shard in enumerate(shards):
        for at in (0.0, 0.1, 0.3, 0.7, 0.85, 0.95, 1.0):
            check_flipped_bit(cases[name], shard.path, at, gristmill, tmp_path / f"{number}-{at}")


@pytest.mark.parametrize(
    ("stopped_at", "path", "damage"),
    [
        ("/fates", "work/*/read/*.json", lambda data: data[:-9]),
        ("/fates", "work/*/filter/00000-fates.arrow", lambda data: data[:-9]),
        ("/fates", "work/*/near/edges.arrow", lambda _: b""),
        ("/fates", "data/*/signatures-00000.arrow", lambda data: data[:500] + b"?" + data[501:]),
        ("/snapshots/", "data/*/tokens-train-00000.arrow", lambda data: data[:-9]),
    ],
)
def test_a_damaged_file_of_an_unfinished_build_is_told(
    cases: dict[str, Case],
    stopped_at: str,
    path: str,
    damage: Callable[[bytes], bytes],
    gristmill: Command,
    tmp_path: Path,
) -> None:
    """With what to remove; then the same command does it all again."""
    case, place = cases["rebuild"], tmp_path / "lake"
    shutil.copytree(case.start, place)
    before = set(place.glob(f"corpora/tiny/{path}"))
    point = next(i for i, (_, name) in enumerate(case.operations) if stopped_at in name)
    with hooked(failing(errno.EIO, point)):
        assert gristmill(*case.arguments, "--lake", place, "--quiet").code == 1
    [file] = set(place.glob(f"corpora/tiny/{path}")) - before
    file.write_bytes(damage(file.read_bytes()))
    answer = gristmill(*case.arguments, "--lake", place, "--quiet")
    assert answer.code == 1
    assert answer.err.count("gristmill:") == 1 and str(file) in answer.err
    folders = re.search(r"published.* remove (\S+) and (\S+), then run the same", answer.err)
    assert folders is not None, answer.err
    for folder in folders.groups():
        shutil.rmtree(folder)
    assert gristmill(*case.arguments, "--lake", place, "--quiet").code == 0
    assert outcome(place) == case.after


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_manifest_stops_everything(
    cases: dict[str, Case], name: str, gristmill: Command, tmp_path: Path
) -> None:
    """Of the newest snapshot, or of one before it: it no longer says what is needed."""
    case = cases[name]
    for version in case.before[1]:
        place = tmp_path / str(version)
        shutil.copytree(case.start, place)
        file = place / f"corpora/tiny/snapshots/{version:06}.json"
        sound = file.read_bytes()
        file.write_bytes(sound.replace(b'"status":"promoted"', b'"status":"qromoted"'))
        answer = gristmill(*case.arguments, "--lake", place, "--quiet")
        if version == case.before[1][-1] or name == "purge":
            assert answer.code == 1
            assert str(file) in answer.err and "expected sha256" in answer.err
            assert versions(Lake.open(place), "tiny") == case.before[1]
        file.write_bytes(sound)
        assert gristmill(*case.arguments, "--lake", place, "--quiet").code == 0
        assert outcome(place) == case.after


def test_a_purge_does_not_trust_what_it_has_written(
    cases: dict[str, Case], gristmill: Command, tmp_path: Path
) -> None:
    """Damage to a rewritten shard is found while the old one is there, and nothing is published."""
    case = cases["purge"]
    for kind in ("documents", "band_keys", "tokens"):
        place = tmp_path / kind
        shutil.copytree(case.start, place)

        def damage(operation: str, path: str, kind: str = kind, place: Path = place) -> None:
            if operation == "rename" and path.endswith("tokenizer.model"):
                file = next(Path(path).parent.glob(f"{kind}*.arrow"))
                file.write_bytes(file.read_bytes().replace(b"ARROW1", b"ARROW2"))

        with hooked(damage):
            answer = gristmill(*case.arguments, "--lake", place, "--quiet")
        assert answer.code == 1
        assert f"{kind}-" in answer.err and "expected sha256" in answer.err
        assert outcome(place) == case.before
        assert not verify(Lake.open(place))
        assert gristmill(*case.arguments, "--lake", place, "--quiet").code == 0
        assert outcome(place) == case.after
