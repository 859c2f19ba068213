"""The command that takes documents out of a corpus: what it asks before, and what it says after."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.output import Output, say
from flows.progress import show_progress
from flows.receipts import receipt_text, write_receipt
from pipeline.display import plural, size
from pipeline.forget import forget, make_plan, newest_promoted
from pipeline.normalize import comparable, content_hash
from pipeline.selection import Request, Selection, select
from storage.catalog import list_corpora
from storage.disk import raise_for_machine
from storage.errors import ConfigError, InputError, Interrupted, NotFoundError
from storage.lake import Lake
from storage.snapshot import check_name

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 20
"""Documents named before the question, and of the receipt on the screen; more are counted."""


def forget_documents(
    output: Output,
    corpus: str | None,
    location: str,
    *,
    ids: list[str],
    uris: list[str],
    hashes: list[str],
    like: str | None,
    reason: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Publish the next snapshot without the documents that are meant, with a receipt; with `dry_run` only show them."""
    text = _read_text(like) if like is not None else None
    request = Request(ids=tuple(ids), uris=tuple(uris), content_hashes=tuple(hashes), like=text)
    if not (yes or dry_run) and any(not pattern.strip("*?") for pattern in uris):
        raise ConfigError("--uri: this pattern means every document; say --yes if it should")
    lake = Lake.open(location)
    name = _corpus(lake, corpus)
    if dry_run:
        snapshot = newest_promoted(lake, name)
        selection = select(snapshot, request)
        document = _document(snapshot.ref, selection) | {"dry_run": True}
        output.result(document, lambda console: _show(console, snapshot.ref, selection))
        return
    with lake.lock(f"build-{name}", doing=f"forgetting in '{name}'"):
        snapshot = newest_promoted(lake, name)
        selection = select(snapshot, request)
        if not len(selection.documents):
            document = _document(snapshot.ref, selection) | {"receipt": None}
            output.result(document, lambda console: _show(console, snapshot.ref, selection))
            return
        if not yes:
            _ask(output, snapshot.ref, selection)
        asked: dict[str, Any] = {"ids": ids, "uris": uris, "content_hashes": hashes}
        if text is not None:
            asked["like"] = content_hash_of(text)
        receipt: dict[str, Any] = {}
        with show_progress(output) as progress:
            forget(
                make_plan(snapshot, selection),
                progress=progress,
                before_commit=lambda plan, manifest, restored: receipt.update(
                    write_receipt(plan, manifest, restored, asked, reason)
                ),
            )
    path = receipt.pop("path")

    def show(console: "Console") -> None:
        console.print(receipt_text(receipt, at_most=SHOWN), soft_wrap=True)
        console.print(f"receipt: {lake.where(path)}", soft_wrap=True)
        console.print(
            "their bytes still lie in older snapshots; 'gristmill gc --purge' removes them"
        )

    output.result(receipt | {"receipt": path}, show)


def content_hash_of(text: str) -> str:
    """Hash of a text as documents have it."""
    import pyarrow as pa

    return content_hash(pa.array([text]))[0].as_py()


def _read_text(path: str) -> str:
    """The text in a file, as documents are compared with it."""
    import pyarrow as pa

    try:
        text = Path(path).read_text(encoding="utf-8")
        return comparable(pa.array([text]), "")[0].as_py()
    except (OSError, UnicodeDecodeError) as error:
        raise_for_machine(error, f"--like {path}")
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"--like {path}: cannot be read: {why}") from error


def _corpus(lake: Lake, name: str | None) -> str:
    known = list_corpora(lake)
    if name is None:
        if len(known) == 1:
            return known[0]
        raise ConfigError(
            f"forget: expected the name of a corpus of {lake}, which holds {', '.join(known) or 'none'}"
        )
    if "@" in name:
        raise ConfigError(
            f"{name}: expected a corpus, not a snapshot: forgetting makes the next snapshot of "
            f"'{name.partition('@')[0]}', and 'gristmill gc --purge' drops those before it"
        )
    if check_name(name) not in known:
        raise NotFoundError(
            f"{name}: expected a corpus of {lake}, which holds {', '.join(known) or 'none'}"
        )
    return name


def _ask(output: Output, ref: str, selection: Selection) -> None:
    """Show what would go and ask. Raises ConfigError where nobody can answer, Interrupted on a no."""
    if output.as_json or not sys.stdin.isatty():
        raise ConfigError(
            f"forget: would forget {plural(len(selection.documents), 'document')} of {ref}; nobody can be asked here, so "
            "look at them with --dry-run and say --yes"
        )
    from flows.console import PlainConsole

    _show(PlainConsole(stderr=True), ref, selection)
    say("forget them? [y/N] ", sys.stderr)
    if input().strip().lower() not in ("y", "yes"):
        raise Interrupted("nothing was forgotten; if you change your mind")


def _document(ref: str, selection: Selection) -> dict[str, Any]:
    columns = ["id", "uri", "domain", "fate", "why", "content_hash", "num_bytes"]
    return {
        "snapshot": ref,
        "documents": selection.documents.select(columns).to_pylist(),
        "forgotten_before": selection.num_known,
    }


def _show(console: "Console", ref: str, selection: Selection) -> None:
    documents = selection.documents
    if not len(documents):
        known = (
            f"; {plural(selection.num_known, 'document was', 'documents were')} forgotten before"
            if selection.num_known
            else ""
        )
        console.print(f"{ref}: nothing to forget{known}", soft_wrap=True)
        return
    for row in documents.slice(0, SHOWN).to_pylist():
        same = "  (same text)" if row["why"] == "same_text" else ""
        stored = size(row["num_bytes"]) if row["stored"] else "text not stored"
        console.print(f"{row['id']}  {row['uri']}  {row['fate']}, {stored}{same}", soft_wrap=True)
    if len(documents) > SHOWN:
        console.print(f"... and {len(documents) - SHOWN:,} more")
    kept = documents["fate"].to_pylist().count("kept")
    console.print(
        f"{plural(len(documents), 'document')} of {ref} would be forgotten; {plural(kept, 'is', 'are')} kept so far",
        soft_wrap=True,
    )
