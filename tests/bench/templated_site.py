"""A site whose pages are mostly the same: navigation above, licence below, between them a text of their own."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
