"""What is no document is counted by source and reason, and neither the funnel nor a gate counts it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.build import BuildConfig, BuildResult, build
from pipeline.filters import QualityConfig
from pipeline.ingest import ShardConfig
from pipeline.readers import SourceConfig
from pipeline.skipped import Skipped, from_json, in_summary, in_words, to_json, total
from pipeline.tokenizer import TokenizerConfig
from storage.lake import Lake

from .test_build import prose
from .test_warc import page, record

PARTS = st.lists(
    st.builds(
        Skipped,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["empty", "redirect"]),
        st.integers(1, 5),
        st.lists(st.tuples(st.text(max_size=3), st.sampled_from("uvwxyz0123")), min_size=1, max_size=6, unique_by=lambda pair: pair[1]).map(tuple),
    ),
    max_size=12,
)  # fmt: skip


@given(PARTS, st.data())
def test_totals_do_not_depend_on_how_the_work_was_cut(
    parts: list[Skipped], data: st.DataObject
) -> None:
    """One sum over all equals the sum of the sums of any two halves; what is written down comes back."""
    cut = data.draw(st.integers(0, len(parts)))
    whole = total(parts)
    assert total([*total(parts[:cut]), *total(parts[cut:])]) == whole
    assert sum(part.records for part in whole) == sum(part.records for part in parts)
    assert from_json(json.loads(json.dumps(to_json(whole)))) == whole


def run(folder: Path, *sources: SourceConfig, input_bytes: int = 8 << 20) -> BuildResult:
    config = BuildConfig(
        name="x",
        sources=sources,
        quality=QualityConfig(enabled=False),
        tokenizer=TokenizerConfig(vocab_size=400),
        shards=ShardConfig(input_bytes=input_bytes),
    )
    return build(config, Lake.open(folder / f"lake{input_bytes}"), root=folder)


def test_an_archive_of_a_whole_site_passes(tmp_path: Path) -> None:
    """Three records in four are no page; the snapshot is promoted, and says what was skipped."""
    png = record(
        "response", "application/http", b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG"
    )
    moved = record("response", "application/http", b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n")
    request = record("request", "application/http", b"GET / HTTP/1.1\r\n\r\n")
    pages = [page(i, f"<p>{prose(i)}</p>".encode()) for i in range(30)]
    (tmp_path / "site.warc").write_bytes(b"".join(p + png + moved + request for p in pages))
    result = run(tmp_path, SourceConfig(path="site.warc"))
    assert (result.status, result.documents["read"], result.documents["kept"]) == (
        "promoted",
        30,
        30,
    )
    assert result.skipped == {"redirect": 30, "request_record": 30, "unsupported_type": 30}
    assert result.notes == []
    picture = in_summary(result.manifest.summary)[-1]
    assert (picture.source, picture.records, picture.of) == ("site", 30, 120)
    assert picture.examples[0][0] == f"site.warc#{len(pages[0])}"
    assert "image/png" in picture.examples[0][1]


@pytest.mark.parametrize("input_bytes", [1, 8 << 20])
def test_empty_files_and_records_are_no_faults(tmp_path: Path, input_bytes: int) -> None:
    """Packages with `__init__.py`, a table with empty rows: as many as they are, the gate does not count them."""
    for i in range(40):
        (tmp_path / f"package{i:02}").mkdir()
        (tmp_path / f"package{i:02}/__init__.py").write_text("\n" * (i % 3))
        (tmp_path / f"package{i:02}/code.py").write_text(f"number = {i}\n" + prose(i))
    rows = [{"text": prose(100 + i) if i % 3 == 0 else " \n" * (i % 2)} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    (tmp_path / "header.csv").write_text("id,text\n")
    sources = (
        SourceConfig(path="package*/*.py", name="code"),
        SourceConfig(path="rows.jsonl"),
        SourceConfig(path="header.csv"),
    )
    result = run(tmp_path, *sources, input_bytes=input_bytes)
    assert result.status == "promoted"
    assert (result.documents["read"], result.documents["quarantined"]) == (50, 0)
    found = in_summary(result.manifest.summary)
    assert [(part.source, part.reason, part.records, part.of) for part in found] == [
        ("code", "empty", 40, 80),
        ("header", "empty", 1, 1),
        ("rows", "empty", 20, 30),
    ]
    assert in_words(found) == "61 records skipped, being no documents: 61 empty"
    # Half of the files of a source tree may well be empty; most rows of a table hint at the wrong field.
    assert [note.partition(":")[0] for note in result.notes] == ["source 'header'", "source 'rows'"]
    assert "20 of 30 records hold no text (the first: rows.jsonl:3)" in result.notes[1]


def test_text_that_normalisation_empties_is_skipped(tmp_path: Path) -> None:
    """Nothing but characters that every text loses."""
    lines = [
        json.dumps({"text": text}) for text in ("\u200b\ufeff\ufeff", prose(1), "\ufeff\u0000")
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    result = run(tmp_path, SourceConfig(path="x.jsonl"))
    assert result.documents["quarantined"] == 0
    assert result.documents["read"] + sum(result.skipped.values()) == 3


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.jsonl.gz", "x.txt.zst"])
def test_an_empty_file_that_should_have_a_header_is_a_fault(tmp_path: Path, name: str) -> None:
    """No writer of such a format leaves nothing: the file was cut."""
    (tmp_path / name).touch()
    (tmp_path / "good.txt").write_text(prose(1))
    result = run(tmp_path, SourceConfig(path=name), SourceConfig(path="good.txt"))
    assert (result.documents["quarantined"], result.skipped) == (1, {})


def test_a_long_run_of_empty_records_ends_no_file(tmp_path: Path) -> None:
    """The patience for bad records at the start of a file is one for bad ones."""
    (tmp_path / "x.jsonl").write_text('{"text": ""}\n' * 2000 + json.dumps({"text": prose(1)}))
    result = run(tmp_path, SourceConfig(path="x.jsonl"))
    assert (result.documents["kept"], result.skipped) == (1, {"empty": 2000})
