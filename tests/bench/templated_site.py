"""A site whose pages are mostly the same: navigation above, licence below, between them a text of their own."""

import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.dedup import DedupConfig, NewDocuments, near_duplicates
from pipeline.minhash import sign_documents
from storage.schema import DOCUMENTS

if TYPE_CHECKING:  # scripts and tests find it under two names
    from tests.bench.text_pools import Pool

OWN_BYTES = 700
"""Median of what a page has of its own: a paragraph or two. Sizes are log-normal, as of natural texts."""


def make_site(
    pools: "Sequence[Pool]", pages: int, copies: int, share: float, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows (text, copy_of) in random order: pages of which `share` is a template, and copies of some with words changed.

    `copy_of` is the text that a copy was made from, else null. A copy has one word in forty replaced by another, in its
    own part, which leaves about 0.8 of its shingles there.
    """
    rng = np.random.default_rng(seed)
    common = _run(pools, round(OWN_BYTES * share / (1 - share)), rng).split()
    head, tail = common[: len(common) // 3], common[len(common) // 3 :]
    own = [
        _run(pools, int(OWN_BYTES * rng.lognormal(0, 0.3)), rng).split()
        for _ in range(pages - copies)
    ]
    texts = [" ".join([*head, *page, *tail]) for page in own]
    rows: list[dict[str, Any]] = [{"text": text, "copy_of": None} for text in texts]
    for original in rng.choice(len(own), copies, replace=False).tolist():
        page = list(own[original])
        for place in rng.choice(len(page), max(len(page) // 40, 1), replace=False).tolist():
            page[place] = str(rng.choice(own[(original + 1) % len(own)]))
        text = " ".join([*head, *page, *tail])
        rows.append({"text": text, "copy_of": texts[original]})
    for i in rng.permutation(len(rows)).tolist():
        yield rows[i]


def _run(pools: "Sequence[Pool]", size: int, rng: np.random.Generator) -> str:
    return pools[rng.integers(len(pools))].runs(size, min(400, size // 8), rng)[:size]


def compare_guard(others: pa.Table, pools: "Sequence[Pool]", pages: int, share: float) -> None:
    """Remove duplicates of a site beside other texts, with the guard against templates and without, and print both.

    Of `others` a column `text` is read. A page goes wrongly if the kept one is not that which it was copied from, or
    the copy of it.
    """
    site = list(make_site(pools, pages, pages // 20, share, seed=0))
    tables = [
        _documents("site", [row["text"] for row in site]),
        _documents("others", others["text"].to_pylist()),
    ]
    name_of = dict(zip(tables[0]["text"].to_pylist(), tables[0]["id"].to_pylist(), strict=True))
    pairs = {
        frozenset((name_of[row["text"]], name_of[row["copy_of"]])) for row in site if row["copy_of"]
    }
    size = sum(table.nbytes for table in tables) / 1e6
    print(
        f"\n{pages:,} pages of a site, {share:.0%} of each a template, {len(pairs)} of them copies; "
        f"{len(others):,} other texts; {size:.0f} MB"
    )
    print(
        f"{'template_share':>16}{'pages gone':>12}{'wrongly':>9}{'recall':>8}{'others gone':>13}{'MB/s':>7}"
    )
    for guard in (None, 0.05):
        config = DedupConfig(template_share=guard)
        begun = time.process_time()
        signatures = [sign_documents(table, config) for table in tables]
        new = NewDocuments(documents=tables, signatures=signatures, sources=["site", "others"])
        removed = near_duplicates(new, None, config).removed
        took = time.process_time() - begun
        claims = {
            frozenset(claim)
            for claim in zip(
                removed["id"].to_pylist(), removed["duplicate_of"].to_pylist(), strict=True
            )
        }
        gone = set(removed["id"].to_pylist())
        of_site = gone & set(name_of.values())
        recall = sum(bool(pair & gone) for pair in pairs) / len(pairs)
        wrong = len(of_site) - len(claims & pairs)
        print(
            f"{guard or 'off':>16}{len(of_site):12,}{wrong:9,}{recall:8.3f}{len(gone - of_site):13,}"
            f"{size / took:7.1f}"
        )


def _documents(source: str, texts: Sequence[str]) -> pa.Table:
    """A DOCUMENTS table. Ids and content hashes are of the number: no text is told to equal another."""
    empty = {field.name: "" if field.type == pa.string() else 0 for field in DOCUMENTS}
    rows = []
    for number, text in enumerate(texts):
        name = blake2b(f"{source} {number}".encode(), digest_size=16).hexdigest()
        about = {"id": name, "content_hash": name, "source": source, "domain": "web"}
        rows.append(empty | about | {"text": text})
    return pa.Table.from_pylist(rows, DOCUMENTS)
