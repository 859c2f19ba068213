"""Finding inputs: what a path, a folder or a glob means, odd names, and messages when nothing matches."""

import os
from hashlib import blake2b
from pathlib import Path

import pytest

from pipeline.readers import ReadLimits, SourceConfig, find_inputs, fingerprint, read_input
from pipeline.source_config import inner_ending, show_path
from pipeline.sources import canonical_path
from storage.errors import InputError

ODD_NAMES = [
    b"new\nline.jsonl",
    b"\x1b[31mred.jsonl",
    b"caf\xe9 latin.jsonl",
    "gr\xfc\xdfe \u4e2d\u6587.jsonl".encode(),
    b"$HOME.jsonl",
    b"-rf.jsonl",
    b"*.jsonl",
    b"[a].jsonl",
    b"a b.jsonl",
    b"..jsonl.jsonl",
    b"%41.jsonl",
    b"<b>&amp;.jsonl",
    "\u202egnp.jsonl".encode(),
]


def uris(source: SourceConfig, root: Path) -> list[str]:
    return [found.uri for found in find_inputs(source, root)]


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('{"text": "a"}\n')


def test_paths_folders_and_globs(tmp_path: Path) -> None:
    """A file is itself, a folder all its visible files at any depth, ** any number of folders; always sorted."""
    write(
        tmp_path,
        "d/b.jsonl",
        "d/a.txt",
        "d/e/f/c.jsonl",
        "d/.hidden.jsonl",
        "d/.git/x.jsonl",
        "z.jsonl",
    )
    assert uris(SourceConfig(path="d/b.jsonl"), tmp_path) == ["d/b.jsonl"]
    assert uris(SourceConfig(path="d"), tmp_path) == ["d/a.txt", "d/b.jsonl", "d/e/f/c.jsonl"]
    assert uris(SourceConfig(path="d", reader="jsonl"), tmp_path) == ["d/b.jsonl", "d/e/f/c.jsonl"]
    assert uris(SourceConfig(path="d/*.jsonl"), tmp_path) == ["d/b.jsonl"]
    assert uris(SourceConfig(path="**/*.jsonl"), tmp_path) == [
        "d/b.jsonl",
        "d/e/f/c.jsonl",
        "z.jsonl",
    ]
    for path in ("d/**", "d/**/*", "d/**/**", "./d"):
        assert uris(SourceConfig(path=path), tmp_path) == ["d/a.txt", "d/b.jsonl", "d/e/f/c.jsonl"]
    assert uris(SourceConfig(path="d/*"), tmp_path) == ["d/a.txt", "d/b.jsonl"]
    assert uris(SourceConfig(path="*/e/**/c.jsonl"), tmp_path) == ["d/e/f/c.jsonl"]
    assert uris(SourceConfig(path="d/**/c.*"), tmp_path) == ["d/e/f/c.jsonl"]
    assert uris(SourceConfig(path="d/.*.jsonl"), tmp_path) == ["d/.hidden.jsonl"]


def test_folders_of_any_depth(tmp_path: Path) -> None:
    """1,100 folders inside one another are walked, whatever Python's recursion limit."""
    folders = [tmp_path / "d"]
    for _ in range(1099):
        folders.append(folders[-1] / "d")
    for folder in folders:
        folder.mkdir()
    (folders[-1] / "x.jsonl").write_text("{}")
    found = [find_inputs(SourceConfig(path=path), tmp_path) for path in ("d", "d/**/*.jsonl")]
    # Taken away here, because shutil.rmtree, which clears tmp_path, is recursive.
    (folders[-1] / "x.jsonl").unlink()
    for folder in reversed(folders):
        folder.rmdir()
    assert [len(inputs) for inputs in found] == [1, 1]


def test_paths_outside_the_recipes_folder_stay_whole(tmp_path: Path) -> None:
    """A recipe may name files elsewhere, and a named link leads where it leads."""
    write(tmp_path, "data/a.jsonl", "recipes/r.toml")
    outside = str(tmp_path / "data")
    assert uris(SourceConfig(path=outside), tmp_path / "recipes") == [f"{outside}/a.jsonl"]
    assert uris(SourceConfig(path="../data/*"), tmp_path / "recipes") == [f"{outside}/a.jsonl"]
    (tmp_path / "recipes/link.jsonl").symlink_to("../data/a.jsonl")
    (found,) = find_inputs(SourceConfig(path="link.jsonl"), tmp_path / "recipes")
    assert (found.uri, found.problem, found.path) == ("link.jsonl", "", tmp_path / "data/a.jsonl")


def test_a_file_has_one_uri_however_its_path_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to the recipe's folder if it lies there, else absolute; wherever the command runs."""
    home = tmp_path / "home"
    write(home, "corpus/t/u/a.jsonl", "corpus/t/b.jsonl", "data/c.jsonl", "corpus/%41/d.jsonl")
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    inside = ["t", "./t", "t/", "t//", ".//t/.", "t/u/..", "t/../t", "../corpus/t", "t/u/../../t"]
    inside += [
        f"{home}/corpus/t",
        f"{tmp_path}/link/corpus/t",
        "~/corpus/t",
        f"{home}//corpus/./t/",
    ]
    inside += [f"file://{home}/corpus/t", f"file://localhost{home}/corpus/t"]
    outside = ["../data", "t/../../data/", f"{home}/data", "~/data", f"file://{home}/data"]
    monkeypatch.chdir(home)
    roots = [home / "corpus", Path("corpus"), Path("./x/../corpus"), Path("../home/corpus")]
    for root in [*roots, tmp_path / "link/corpus"]:
        for path in inside:
            assert canonical_path(path, root) == "t"
            assert uris(SourceConfig(path=path), root) == ["t/b.jsonl", "t/u/a.jsonl"]
            assert canonical_path(f"{path}/**/*.jsonl", root) == "t/**/*.jsonl"
    for root in roots:
        for path in outside:
            assert canonical_path(path, root) == f"{home}/data"
            assert uris(SourceConfig(path=path), root) == [f"{home}/data/c.jsonl"]
    monkeypatch.chdir(home / "corpus/t")
    assert uris(SourceConfig(path="t/b.jsonl"), Path("..")) == ["t/b.jsonl"]
    assert uris(
        SourceConfig(path="file:///%2541".replace("/%", f"{home}/corpus/%", 1)), Path("..")
    ) == ["%2541/d.jsonl"]


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    """`link/..` is the folder above the link's target, and a link in the recipe's folder keeps its own name."""
    write(tmp_path, "far/folder/a.jsonl", "far/b.jsonl", "corpus/c.jsonl")
    (tmp_path / "corpus/link").symlink_to("../far/folder")
    root = tmp_path / "corpus"
    assert uris(SourceConfig(path="link"), root) == ["link/a.jsonl"]
    assert uris(SourceConfig(path="link/../b.jsonl"), root) == [f"{tmp_path}/far/b.jsonl"]
    (root / "round").symlink_to("round")
    assert [found.problem for found in find_inputs(SourceConfig(path="round"), root)] == [
        "symlink_loop"
    ]


def test_odd_names_are_read_and_shown_safely(tmp_path: Path) -> None:
    """Every file is read under its own name; uris are printable and never the same for two files."""
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text('{"text": "a"}\n')
    source = SourceConfig(path="*.jsonl", reader="jsonl")
    found = find_inputs(source, tmp_path)
    # The name that is the glob itself is taken literally.
    assert [item.uri for item in found] == ["*.jsonl"]
    found = find_inputs(SourceConfig(path="."), tmp_path)
    assert len({item.uri for item in found}) == len(ODD_NAMES) - 1  # "..jsonl.jsonl" is hidden
    for item in found:
        (batch,) = read_input(item, source, ReadLimits())
        assert batch["text"].to_pylist() == ["a"]
        assert item.uri.isprintable()
    assert show_path(Path("new\nline")) == "new%0Aline"
    assert show_path(os.fsdecode(b"caf\xe9")) == "caf%E9"
    assert show_path("%41") == "%2541"
    assert show_path("100% gr\xfc\xdfe") == "100% gr\xfc\xdfe"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "poems/*.txt",
            r"expected poems/\*.txt .* to match at least one file, .*exists is .*; did you mean poem\?",
        ),
        ("poem/x.txt", "exists is .*poem, which holds a.jsonl"),
        ("empty", "expected a file in the folder empty .*got none"),
        ("empty/*", "exists is .*empty, which is empty"),
        ("nothing/at/all", "exists is .*, which holds empty, poem"),
    ],
)
def test_nothing_found_names_what_is_nearest(tmp_path: Path, path: str, message: str) -> None:
    """The message holds the pattern and the nearest thing that exists."""
    write(tmp_path, "poem/a.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        find_inputs(SourceConfig(path=path), tmp_path)


def test_a_folder_without_the_readers_files_says_which_it_wants(tmp_path: Path) -> None:
    """A named reader takes only its own endings from a folder."""
    write(tmp_path, "d/a.txt")
    with pytest.raises(
        InputError, match=r"expected a file ending in \.parquet, \.pq in the folder d"
    ):
        find_inputs(SourceConfig(path="d", reader="parquet"), tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("texts/poems/**/*.txt", "poems"),
        ("data/x.jsonl.zst", "x"),
        ("/abs/archive.tar", "archive.tar"),
        ("*.txt", "source"),
        ("..", "source"),
        ("tree/v1.2", "v1.2"),
    ],
)
def test_sources_are_named_after_their_path(path: str, name: str) -> None:
    """The last part that is no pattern, without the endings that say how it is read."""
    assert SourceConfig(path=path).name == name


def test_endings_look_through_compression() -> None:
    """The ending before that of the compression decides the reader, in any case."""
    assert [inner_ending(n) for n in ("a.JSONL.GZ", "a.txt", "a.gz", "a", ".xz")] == [
        ".jsonl",
        ".txt",
        "",
        "",
        "",
    ]


def test_fingerprint_is_of_the_bytes(tmp_path: Path) -> None:
    """blake2b-128 of the content, whatever the name; a file that cannot be read is an InputError."""
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert fingerprint(tmp_path / "a") == blake2b(b"x" * 3_000_000, digest_size=16).hexdigest()
    with pytest.raises(InputError, match="gone: expected a readable file, got: No such file"):
        fingerprint(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        InputError, match="pipe: expected a readable file, got: expected a regular file"
    ):
        fingerprint(tmp_path / "pipe")
