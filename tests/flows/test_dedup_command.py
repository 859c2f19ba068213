"""`gristmill dedup`: one file without its duplicates, as a user sees it."""

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.normalize import content_hash

LONG = " ".join(f"word{i}" for i in range(60))
ROWS = [
    {"id": 1, "text": LONG},
    {"id": 2, "text": "something else that stands alone"},
    {"id": 3, "text": f"{LONG} and a tail"},
    {"id": 4, "text": "something else  that stands alone"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of four documents, two of which are worth keeping."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_kept_rows_pairs_and_summary(rows: Path, gristmill: Callable[..., Any]) -> None:
    """OUT, PAIRS and what is said of them agree; results go to stdout, the rest to stderr."""
    out, pairs = rows.with_name("out.jsonl"), rows.with_name("pairs.csv")
    answer = gristmill("dedup", rows, "-o", out, "--pairs", pairs)
    assert answer.code == 0
    assert "kept 2 of 4 documents" in answer.out
    assert "1 exact, 1 near-duplicate, 0 contained" in answer.out
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [2, 3]
    assert [line.split(",")[::3][:2] for line in pairs.read_text().splitlines()[1:]] == [
        ["1", "3"],
        ["4", "2"],
    ]
    told = gristmill("dedup", rows, "-o", out, "--force", "--json").json
    assert (told["documents"], told["kept"], told["exact"], told["near_duplicate"]) == (4, 2, 1, 1)
    assert (told["out"], told["pairs"], told["repeated_ids"]) == (str(out), None, 0)


def test_settings_decide(rows: Path, gristmill: Callable[..., Any]) -> None:
    """`--set` is that of a recipe: what it may hold, and what it does."""
    out = rows.with_name("out.jsonl")
    told = gristmill("dedup", rows, "-o", out, "--set", "dedup.enabled=false", "--json").json
    assert (told["kept"], told["exact"], told["near_duplicate"]) == (3, 1, 0)
    strict = ("--set", "dedup.threshold=0.99", "--set", "dedup.containment=1.0", "--force")
    told = gristmill("dedup", rows, "-o", out, *strict, "--json").json
    assert (told["near_duplicate"], told["contained"]) == (0, 1)
    assert told["settings"]["threshold"] == 0.99


def test_the_same_text_is_the_same_in_a_build(
    tmp_path: Path, gristmill: Callable[..., Any]
) -> None:
    """Composed or not, with soft hyphens, zero-width marks, a byte order mark or other white space: one of each stays."""
    texts = [
        f"d\xe9j\xe0 vu, {LONG} c\xf4t\xe9",
        "na\xefve",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    ]
    forms: list[Callable[[str], str]] = [
        str,
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: text.replace("v", "v\xad").replace("o", "o\u200b") + "\u2060",
        lambda text: "\ufeff" + text.replace(" ", "\xa0").replace(",", ",\r\n") + " \n",
        lambda text: text.replace("\u200c", "").replace("d", "\0d"),
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [{"text": form(text)} for text in texts for form in forms]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "rows.jsonl").write_bytes("".join(lines).encode())
    recipe = tmp_path / "recipe.toml"
    off = "".join(
        f"[{part}]\nenabled = false\n" for part in ("quality", "toxicity", "pii", "gates")
    )
    recipe.write_text(
        f'name = "same"\n[[sources]]\npath = "in/*"\n{off}[language]\ndetect = false\n[tokenizer]\nvocab_size = 330\n'
    )
    lake = ("--lake", tmp_path / "lake")
    built = gristmill("build", recipe, "--workers", 1, *lake)
    assert built.code == 0, built.err
    kept = [json.loads(line)["text"] for line in gristmill("dump", "same", *lake).out.splitlines()]
    hashes = [content_hash(pa.array(some)).sort() for some in (kept, texts)]
    assert hashes[0].equals(hashes[1])
    out = tmp_path / "out.jsonl"
    told = gristmill("dedup", folder / "rows.jsonl", "-o", out, "--json").json
    assert (told["kept"], told["exact"]) == (len(texts), len(rows) - len(texts))
    assert out.read_bytes().decode() == "".join(lines[:: len(forms)])


def test_pages_of_one_site_stay(tmp_path: Path, gristmill: Callable[..., Any]) -> None:
    """All rows are one source: what most of them share is no reason to remove one, if asked so."""
    frame = " ".join(f"frame{i}" for i in range(300))
    rows, out = tmp_path / "site.jsonl", tmp_path / "out.jsonl"
    own = (" ".join(f"own{i}x{j}" for j in range(40)) for i in range(60))
    rows.write_text("".join(json.dumps({"text": f"{frame} {text}"}) + "\n" for text in own))
    told = gristmill("dedup", rows, "-o", out, "--json").json
    assert (told["near_duplicate"], told["kept_apart"]) == (59, 0)
    guard = ("--set", "dedup.template_share=0.05", "--force")
    told = gristmill("dedup", rows, "-o", out, *guard, "--json").json
    assert (told["kept"], told["kept_apart"]) == (60, 60 * 59 // 2)
    answer = gristmill("dedup", rows, "-o", out, *guard)
    assert "1,770 pairs alike by a template alone and kept apart" in answer.out


def test_rejected_rows_and_ids_are_noted(rows: Path, gristmill: Callable[..., Any]) -> None:
    """What a user must know stands on stderr: rows that are not in OUT, ids that are not unique."""
    rows.write_text(
        rows.read_text() + "{broken\n" + json.dumps({"id": 1, "text": "a new one"}) + "\n"
    )
    out = rows.with_name("out.jsonl")
    answer = gristmill("dedup", rows, "-o", out)
    assert answer.code == 0
    assert "WARNING: 1 row cannot be used and is not in" in answer.err
    assert "1 document had an id that another one has too" in answer.err
    assert json.loads(Path(f"{out}.rejected.jsonl").read_text())["record"] == "{broken"
    rows.write_text(json.dumps(ROWS[0]))
    assert gristmill("dedup", rows, "-o", out, "--force").code == 0
    assert not Path(f"{out}.rejected.jsonl").exists()
    assert "no document has a field 'name'" in gristmill(
        "dedup", rows, "-o", out, "--force", "--id-field", "name"
    ).err  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.jsonl", "-o", "in.jsonl"], "expected another file than the input"),
        (["in.jsonl", "-o", "there.jsonl"], "exists; give another name, or --force"),
        (["in.jsonl", "-o", "there.jsonl", "--force", "--pairs", "in.jsonl"], "than the input"),
        (["in.jsonl", "-o", "out.jsonl", "--pairs", "out.jsonl"], "a file for each result"),
        (["in.jsonl", "-o", "out.jsonl", "--pairs", "pairs.txt"], "expected the ending .jsonl"),
        (["in.jsonl", "-o", "out"], "an ending that says what to write"),
        (["in.jsonl", "-o", "out.csv"], "in.jsonl: expected CSV, as OUT"),
        (["in.jsonl", "-o", "out.parquet.gz"], "tables are compressed within"),
        (["in.jsonl", "-o", "out.parquet"], "in.jsonl: expected a Parquet table, as OUT"),
        (["in.jsonl", "-o", "missing/out.jsonl"], "expected a folder that exists"),
        (["in.jsonl", "-o", "."], "expected the name of a file"),
        (["in.jsonl", "-o", f"{250 * 'o'}.jsonl"], "expected a name of at most 230 bytes, got 256"),
        (["in.jsonl", "-o", "/dev/null"], "expected the name of a file"),
        (["no.jsonl", "-o", "out.jsonl"], "no.jsonl"),
        (["in.jsonl", "-o", "out.jsonl", "--text-field", "body"], "got none: expected the field"),
        (["lines.txt", "-o", "out.txt", "--id-field", "id"], "no effect on lines of text"),
        (["in.jsonl", "-o", "out.jsonl", "--domain", "A b"], "--domain: expected lower-case"),
        (["in.jsonl", "-o", "out.jsonl", "--set", "train.steps=1"], "a key of dedup or read"),
        (["in.jsonl", "-o", "out.jsonl", "--set", "dedup.treshold=1"], "'dedup.threshold'?"),
        (["in.jsonl", "-o", "out.jsonl", "--set", "dedup.policy=rebuild"], "no effect here"),
        (["in.jsonl", "-o", "out.jsonl", "--against", "nothing@1"], "expected a corpus"),
    ],
)
def test_wrong_usage_is_told_before_any_work(
    arguments: list[str],
    message: str,
    rows: Path,
    gristmill: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2, one message, and no file touched."""
    monkeypatch.chdir(rows.parent)
    rows.with_name("there.jsonl").write_text("of before")
    rows.with_name("lines.txt").write_text("a line\n")
    answer = gristmill("dedup", *arguments)
    assert answer.code == 2
    assert message in " ".join(answer.err.split())
    assert "Traceback" not in answer.err
    assert sorted(os.listdir()) == ["in.jsonl", "lines.txt", "there.jsonl"]  # noqa: PTH208
    assert rows.with_name("there.jsonl").read_text() == "of before"


def test_against_a_snapshot(tiny_recipe: Path, gristmill: Callable[..., Any]) -> None:
    """What a snapshot holds goes, also with small changes, and PAIRS names its document."""
    folder = tiny_recipe.parent
    lake = ("--lake", folder / "lake")
    assert gristmill("build", tiny_recipe, *lake, "--workers", 1).code == 0
    dumped = [json.loads(line) for line in gristmill("dump", "tiny", *lake).out.splitlines()]
    changed = [row | {"text": f"{row['text']} tail", "id": i} for i, row in enumerate(dumped)]
    changed.append({"id": "new", "text": "a text that no snapshot has seen before"})
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*dumped, *changed]))
    out, pairs = folder / "out.jsonl", folder / "pairs.jsonl"
    options = ("-o", out, "--pairs", pairs, "--against", "tiny", *lake, "--json")
    told = gristmill("dedup", folder / "in.jsonl", *options).json
    assert told["kept"] == 1 and told["in_snapshot"] == 2 * len(dumped)
    assert json.loads(out.read_text())["id"] == "new"
    uris = {row["id"]: row["uri"] for row in dumped}
    for line in pairs.read_text().splitlines():
        pair = json.loads(line)
        assert pair["snapshot"] == "tiny@1"
        assert pair["duplicate_of_file"] == uris[pair["duplicate_of"]]
    answer = gristmill("dedup", folder / "in.jsonl", *options, "--force", "--set", "dedup.ngram=4")
    assert answer.code == 2
    assert "--set dedup.ngram=5" in answer.err
    assert "hash" not in answer.err


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Stopped by a signal: exit code 75, no OUT, no folder, and the same command line then does the work."""
    with (tmp_path / "in.jsonl").open("w") as file:
        for i in range(20_000):
            file.write(json.dumps({"text": f"{i} {LONG}"}) + "\n")
    arguments = ["dedup", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--workers", "1"]
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    work = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / ".out.jsonl.dedup"
    while not folder.exists():
        assert work.poll() is None
        time.sleep(0.01)
    work.send_signal(signal.SIGINT)
    _, err = work.communicate(timeout=60)
    assert work.returncode == 75, err
    assert "gristmill dedup" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    (tmp_path / "in.jsonl").write_text(json.dumps(ROWS[0]))
    assert subprocess.run([*command, "-q"], capture_output=True, timeout=60).returncode == 0
    assert (tmp_path / "out.jsonl").exists()
