"""The command `dedup`: the engine of the builds on files that anybody has, without recipe or lake."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.executors import chosen_executor
from flows.output import Output
from flows.progress import show_progress
from flows.recipe import decode_section
from pipeline.compression import ENDINGS
from pipeline.dedup import DedupConfig
from pipeline.dedup_files import FileDedup, FileDedupResult, dedup_files
from pipeline.display import duration, number, plural, size
from pipeline.duplicate_pairs import PAIRS_ENDINGS
from pipeline.minhash import check_published
from pipeline.raw import ReadLimits
from pipeline.row_files import TABLES, Fields, Kind, RowFile, find_files, kind_of
from pipeline.row_scratch import Reading
from pipeline.source_config import is_domain
from storage.catalog import resolve
from storage.disk import raise_for_machine
from storage.errors import ConfigError, InputError
from storage.lake import Lake
from storage.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console

MAX_LINE_BYTES = 1 << 30
"""`read.max_document_bytes` here: whoever asks for one file's duplicates wants them, however long its lines are."""

SECTIONS = ("dedup", "read")
"""Sections of a recipe of which `--set` takes keys here."""

MAX_NAME_BYTES = 230
"""Of a result's name: the 255 of most disks, less what the names of files beside it have more."""

MIN_RATE_BYTES = 10_000_000
"""Below so much text, what is measured is the start."""


def dedup_rows(
    output: Output,
    patterns: Sequence[str],
    out: str,
    *,
    pairs: str | None,
    against: str | None,
    location: str,
    fields: tuple[str | None, str | None],
    domain: str | None,
    overrides: Sequence[str],
    workers: int | None,
    executor: str,
    address: str,
    force: bool,
) -> None:
    """Write the rows of FILEs that are no duplicates to OUT, and perhaps what was removed to PAIRS."""
    place = chosen_executor(workers, executor, address)
    config, limits = _settings(overrides)
    target = _target("--out", out)
    kind = _kind_of_out(target)
    if kind == "text" and any(fields):
        raise ConfigError(
            "--text-field, --id-field: have no effect on lines of text; take them out"
        )
    if domain is not None and not is_domain(domain):
        raise ConfigError(f"--domain: expected lower-case letters, digits, - and _, got {domain!r}")
    pairs_target = _target("--pairs", pairs) if pairs is not None else None
    if pairs_target is not None and pairs_target.suffix.lower() not in PAIRS_ENDINGS:
        raise ConfigError(f"--pairs {pairs}: expected the ending {' or '.join(PAIRS_ENDINGS)}")
    rejected = target.with_name(f"{target.name}.rejected.jsonl")
    snapshot = resolve(Lake.open(location), against) if against is not None else None
    if snapshot is not None:
        _check_published(snapshot, config)
    files = find_files(patterns, kind)
    targets = {"--out": target, "--pairs": pairs_target, "rejected rows": rejected}
    _check_targets({name: path for name, path in targets.items() if path}, files, force)
    text_field, id_field = fields
    work = FileDedup(
        files=files,
        out=target,
        rejected=rejected,
        pairs=pairs_target,
        reading=Reading(
            fields=Fields(text_field or "text", id_field or "id"),
            domain=domain or "web",
            limits=limits,
        ),
        against=snapshot,
        config=config,
    )
    with show_progress(output) as progress:
        result = dedup_files(work, place, progress)
    if id_field is not None and not result.with_id and result.documents:
        output.note(f"note: no document has a field {id_field!r}, so rows go by file:row")
    if result.repeated_ids:
        output.note(
            f"note: {plural(result.repeated_ids, 'document')} had an id that another one has too"
        )
    if result.marked_pairs:
        output.note(
            f"note: {plural(result.marked_pairs, 'row')} of {pairs} have a ' before what a spreadsheet would take for a "
            "formula, or control characters shown; .jsonl and .parquet list them as they are"
        )
    if result.rejected:
        output.note(
            f"WARNING: {plural(result.rejected, 'row')} cannot be used and {_is(result.rejected)} not in {out}; see "
            f"{out}.rejected.jsonl"
        )
    output.result(_document(work, result), lambda console: _show(console, out, work, result))


def _settings(overrides: Sequence[str]) -> tuple[DedupConfig, ReadLimits]:
    """Defaults and `--set`, through the door of a recipe: the same checks, the same messages."""
    of_section: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for override in overrides:
        section = override.partition(".")[0].strip()
        if section not in SECTIONS:
            raise ConfigError(
                f"--set {override}: expected a key of {' or '.join(SECTIONS)}, such as dedup.threshold=0.8; others "
                "have no effect here"
            )
        of_section[section].append(override)
    config = decode_section("dedup", DedupConfig, of_section["dedup"])
    limits = {"max_document_bytes": MAX_LINE_BYTES}
    if config.policy != "append":
        raise ConfigError(
            f"--set dedup.policy={config.policy}: has no effect here, where nothing is published; take it out"
        )
    return config, decode_section("read", ReadLimits, of_section["read"], limits)


def _check_published(snapshot: Snapshot, config: DedupConfig) -> None:
    """Look before hours of work whether signatures can be joined with those of the snapshot."""
    try:
        check_published(snapshot, config)
    except ConfigError as error:
        theirs = snapshot.manifest.recipe["dedup"]
        differing = [key for key in ("hash", "ngram") if theirs[key] != getattr(config, key)]
        options = " ".join(f"--set dedup.{key}={theirs[key]}" for key in differing)
        raise ConfigError(f"--against {error}; here: {options}") from error


def _target(option: str, name: str) -> Path:
    """Where a result goes, links followed. Raises ConfigError unless it can be a file."""
    path = Path(name).resolve()
    if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        raise ConfigError(
            f"{option} {name}: expected a name of at most {MAX_NAME_BYTES} bytes, got {len(os.fsencode(path.name))}; "
            "give it a shorter one"
        )
    if path.exists() and not path.is_file():
        raise ConfigError(f"{option} {name}: expected the name of a file, got something else")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {name}: expected a folder that exists, got {path.parent}")
    try:
        # Whether root may, or a disk that is mounted read-only, only trying tells.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise_for_machine(error, f"{option} {name}")
        raise InputError(f"{option} {name}: cannot be written: {error.strerror}") from error
    return path


def _kind_of_out(out: Path) -> Kind:
    kind = kind_of(out)
    if kind is None:
        raise ConfigError(
            f"--out {out.name}: expected an ending that says what to write: .jsonl, .txt or .csv (also with .gz, .zst, .bz2, "
            ".xz), .parquet, .arrow or .feather"
        )
    if kind in TABLES and out.suffix.lower() in ENDINGS:
        raise ConfigError(f"--out {out.name}: tables are compressed within; leave out {out.suffix}")
    return kind


def _check_targets(targets: dict[str, Path], files: Sequence[RowFile], force: bool) -> None:
    """Raise ConfigError if a result would overwrite an input, another result, or without `force` anything."""
    inputs = {file.stamp[:2] for file in files}
    for option, path in targets.items():
        if sum(path == other for other in targets.values()) > 1:
            raise ConfigError(f"{option} {path}: expected a file for each result, got one for two")
        if not path.exists():
            continue
        status = path.stat()
        if (status.st_dev, status.st_ino) in inputs:
            raise ConfigError(
                f"{option} {path}: expected another file than the input, got one of FILE; give it another name"
            )
        if not force:
            raise ConfigError(
                f"{option} {path}: exists; give another name, or --force to write it anew"
            )


def _document(work: FileDedup, result: FileDedupResult) -> dict[str, Any]:
    seconds = sum(result.seconds.values())
    document: dict[str, Any] = {"out": str(work.out), "pairs": None, "rejected_rows": None}
    if work.pairs is not None:
        document["pairs"] = str(work.pairs)
    if result.rejected:
        document["rejected_rows"] = str(work.rejected)
    document |= {"files": len(work.files), "against": work.against.ref if work.against else None}
    document |= asdict(result) | {
        "seconds": round(seconds, 3),
        "steps_s": {step: round(taken, 3) for step, taken in result.seconds.items()},
        "mb_per_s": round(result.text_bytes / 1e6 / max(seconds, 1e-9), 1),
    }
    return document | {"settings": asdict(work.config)}


def _show(console: "Console", out: str, work: FileDedup, result: FileDedupResult) -> None:
    seconds = sum(result.seconds.values())
    lines = [
        f"{out}: kept {number(result.kept)} of {plural(result.documents, 'document')}",
        f"  {number(result.exact)} exact, {number(result.near_duplicate)} near-duplicate, "
        f"{number(result.contained)} contained in another",
    ]
    if work.config.template_share is not None:
        pairs = plural(result.kept_apart, "pair")
        lines.append(f"  {pairs} alike by a template alone and kept apart")
    if work.against is not None:
        lines.append(
            f"  {number(result.in_snapshot)} of them removed for a document of {work.against.ref}"
        )
    if result.rejected:
        lines.append(f"  {plural(result.rejected, 'row')} rejected: {out}.rejected.jsonl")
    speed = ""
    if result.text_bytes >= MIN_RATE_BYTES:
        speed = f", {number(round(result.text_bytes / 1e6 / max(seconds, 1e-9), 1))} MB/s"
    lines.append(f"  {size(result.text_bytes)} of text in {duration(seconds)}{speed}")
    for line in lines:
        console.print(line, soft_wrap=True)


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
