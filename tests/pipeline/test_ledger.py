"""Fates: one each, with the exact sum, whatever was removed where."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import ledger
from storage.errors import GristmillError
from storage.schema import FATES, REJECTS

NEAR = pa.schema(
    [
        ("id", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float32()),
        ("rule", pa.string()),
    ]
)
EXACT = pa.schema([("id", pa.string()), ("duplicate_of", pa.string())])


def identity(ids: list[str], domains: list[str] | None = None) -> pa.Table:
    columns = [
        ids,
        [f"file:{id_}" for id_ in ids],
        ["source"] * len(ids),
        domains or ["web"] * len(ids),
    ]
    return pa.table(columns, schema=ledger.IDENTITY)


def drops(ids: list[str]) -> pa.Table:
    return ledger._fates(
        identity(ids), fate="dropped", stage="quality", rule="few_words", value=[3.0] * len(ids)
    )


@st.composite
def histories(draw: st.DrawFn) -> dict[str, list]:
    """Ids by what befell them; near-duplicates name a kept one, exact copies anything that is not itself a copy."""
    kinds = draw(
        st.lists(st.sampled_from(["kept", "dropped", "near", "exact", "bad"]), max_size=40)
    )
    domains = draw(
        st.lists(st.sampled_from(["web", "code"]), min_size=len(kinds), max_size=len(kinds))
    )
    ids: dict[str, list] = {kind: [] for kind in ("kept", "dropped", "near", "exact", "bad")}
    for number, (kind, domain) in enumerate(zip(kinds, domains, strict=True)):
        if kind == "near" and not ids["kept"]:
            kind = "kept"
        if kind == "exact" and not ids["kept"] + ids["dropped"] + ids["near"]:
            kind = "kept"
        ids[kind].append((f"{number:04}", domain))
    return ids


@given(histories())
def test_fates_add_up_per_domain_and_in_all(history: dict[str, list]) -> None:
    """read = kept + dropped + duplicate + quarantined + forgotten, and every read document is in it once."""
    kept, bad = history["kept"], history["bad"]
    originals = kept + history["dropped"] + history["near"]
    read = originals + history["exact"]
    near = [(id_, kept[0][0], 0.9, "near_duplicate") for id_, _ in history["near"]]
    exact = [
        (id_, originals[number % len(originals)][0])
        for number, (id_, _) in enumerate(history["exact"])
    ]
    settled = ledger.settle(
        identity([id_ for id_, _ in read], [domain for _, domain in read]),
        ledger.quarantined(
            identity([id_ for id_, _ in bad], [domain for _, domain in bad]),
            pa.array(["bad_json"] * len(bad), pa.string()),
            pa.array(["what"] * len(bad), pa.string()),
        ),
        drops([id_ for id_, _ in history["dropped"]]),
        pa.Table.from_pylist([dict(zip(EXACT.names, row, strict=True)) for row in exact], EXACT),
        pa.Table.from_pylist([dict(zip(NEAR.names, row, strict=True)) for row in near], NEAR),
    )
    assert sorted(settled["id"].to_pylist()) == sorted(id_ for id_, _ in read + bad)
    for domain, counts in ledger.funnel(settled).items():
        assert counts["read"] == sum(count for fate, count in counts.items() if fate != "read"), (
            domain
        )
    rows = {row["id"]: row for row in settled.to_pylist()}
    kept_ids = {id_ for id_, _ in kept}
    for row in rows.values():
        assert (row["fate"] == "kept") == (row["rule"] is None) == (row["id"] in kept_ids)
        if row["fate"] == "duplicate":
            assert row["duplicate_of"] in kept_ids
    for id_, representative in exact:
        expected = "duplicate" if representative in kept_ids else rows[representative]["fate"]
        assert rows[id_]["fate"] == expected


def test_a_document_with_two_fates_fails_the_build() -> None:
    """A bug that judges a document twice is found, never summed away."""
    near = pa.Table.from_pylist(
        [{"id": "a", "duplicate_of": "b", "similarity": 0.8, "rule": "near_duplicate"}], NEAR
    )
    with pytest.raises(GristmillError, match="this is a bug"):
        ledger.settle(
            identity(["a", "b"]), FATES.empty_table(), drops(["a"]), EXACT.empty_table(), near
        )


def test_two_documents_of_one_id_fail_the_build() -> None:
    """A reader that gives one uri to two records is found."""
    with pytest.raises(GristmillError, match="same id"):
        ledger.settle(
            identity(["a", "a"]),
            FATES.empty_table(),
            drops([]),
            EXACT.empty_table(),
            NEAR.empty_table(),
        )


@given(st.lists(st.sampled_from(["web", "code", "chat"]), max_size=60), st.integers(1, 4))
def test_samples_are_bounded_and_independent_of_order(domains: list[str], per_rule: int) -> None:
    """At most `per_rule` of each (domain, rule), the same ones in any order."""
    ids = [f"{number:04}" for number in range(len(domains))]
    fates = ledger._fates(identity(ids, domains), fate="dropped", stage="quality", rule="few_words")
    chosen = ledger.choose_samples(fates, per_rule)
    assert chosen == ledger.choose_samples(
        fates.take(pa.array(range(len(ids))[::-1], pa.int64())), per_rule
    )
    domain_of = dict(zip(ids, domains, strict=True))
    for domain in set(domains):
        taken = sum(domain_of[id_] == domain for id_ in chosen)
        assert taken == min(per_rule, domains.count(domain))


def test_rejects_cut_long_texts() -> None:
    """A sample is something to look at, not a copy of the document."""
    fates = drops(["a", "b"])
    table = ledger.rejects(fates, {"a": "x" * 5000})
    assert table.schema == REJECTS
    assert [len(text) for text in table["text"].to_pylist()] == [ledger.REJECT_CHARACTERS]
