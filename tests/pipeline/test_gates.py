"""Gates hold a snapshot back for the reasons their names say, and for no others."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.gates import GatesConfig, check_gates, jensen_shannon, override
from storage.errors import ConfigError

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**9), min_size=1)


def counts(kept: int, dropped: int = 0, duplicate: int = 0, quarantined: int = 0) -> dict[str, int]:
    fates = {
        "kept": kept,
        "dropped": dropped,
        "duplicate": duplicate,
        "quarantined": quarantined,
        "forgotten": 0,
    }
    return {"read": sum(fates.values()), **fates}


def failed(funnel: dict[str, dict[str, int]], **parent: Any) -> set[str]:
    figures = {
        "documents": sum(domain["kept"] for domain in funnel.values()),
        "bytes_by_domain": dict.fromkeys(funnel, 100),
        "bytes_per_token": {},
        "parent_funnel": {},
        "parent_bytes_by_domain": {},
        "parent_bytes_per_token": {},
    } | parent
    gates = check_gates(funnel=funnel, **figures, config=GatesConfig())
    return {gate["name"] for gate in gates if not gate["passed"]}


def test_an_ordinary_snapshot_passes() -> None:
    """Nothing unusual, nothing refused."""
    assert failed({"web": counts(80, 15, 5), "code": counts(3)}) == set()


def test_nothing_kept_is_refused() -> None:
    """A corpus without a single document is not promoted; one to which nothing was added is."""
    assert failed({"web": counts(0, 5)}) == {"documents"}
    assert failed({"web": counts(0, 5)}, documents=7) == set()


def test_a_source_that_is_wiped_out_is_refused() -> None:
    """Filters or dedup that remove nearly all of a domain are a fault until somebody looks."""
    assert failed({"web": counts(1, 99), "code": counts(50)}) == {"removed share"}


def test_copies_of_published_documents_are_no_alarm() -> None:
    """A log that has grown is read again whole; what was published before is no news."""
    log, parent = {"web": counts(3, duplicate=500)}, {"web": counts(90, 10)}
    copies = {"new": {"web": 500}, "parent": {}}
    assert failed(log, parent_funnel=parent) == {"removed share", "change of the removed share"}
    assert failed(log, parent_funnel=parent, known=copies) == set()
    grown = {"parent": {"web": 70}}
    assert (
        failed({"web": counts(90, 10)}, parent_funnel={"web": counts(27, 3, 70)}, known=grown)
        == set()
    )


def test_unreadable_input_is_refused() -> None:
    """A broken delivery does not become a snapshot that training starts on."""
    assert failed({"web": counts(50, quarantined=50)}) == {"quarantined share"}


def test_a_jump_against_the_parent_is_refused() -> None:
    """What was normal yesterday is the measure of today."""
    assert failed({"web": counts(30, 70)}, parent_funnel={"web": counts(90, 10)}) == {
        "change of the removed share"
    }


def test_other_domains_than_the_parent_are_refused() -> None:
    """A corpus that becomes another one is drift."""
    drifted = failed(
        {"web": counts(50)},
        bytes_by_domain={"web": 100},
        parent_bytes_by_domain={"code": 90, "web": 10},
    )
    assert drifted == {"domain drift"}


def test_a_tokenizer_that_no_longer_fits_is_refused() -> None:
    """Bytes per token far below the parent's: other text than the tokenizer was trained for."""
    found = failed(
        {"web": counts(50)}, bytes_per_token={"web": 2.0}, parent_bytes_per_token={"web": 4.0}
    )
    assert found == {"loss of bytes per token"}


def test_planted_duplicates_have_to_be_found() -> None:
    """A build that misses what its bands cannot miss by chance is refused; 19 of them prove nothing."""
    web = {"web": counts(50)}
    assert failed(web, recall={"sure": {"planted": 40, "found": 36}}) == set()
    assert failed(web, recall={"sure": {"planted": 40, "found": 35}}) == {
        "planted duplicates found"
    }
    assert failed(web, recall={"sure": {"planted": 19, "found": 0}}) == set()
    assert failed(web, recall={}) == set()
    gates = check_gates(
        50, web, {}, {}, {}, {}, {}, GatesConfig(), recall={"sure": {"planted": 40, "found": 35}}
    )
    assert override(gates[-1]) == "gates.min_planted_found=0.87"
    with pytest.raises(ConfigError, match=r"gates\.min_planted_found: expected a number in"):
        GatesConfig(min_planted_found=-0.1)


def test_few_documents_prove_nothing() -> None:
    """Shares of fewer than 20 documents decide no gate."""
    assert failed({"web": counts(1, 18), "code": counts(50)}) == set()


def test_limits_outside_their_range_are_refused() -> None:
    """A limit that can never or always hold is a mistake in the recipe."""
    with pytest.raises(
        ConfigError, match=r"gates\.max_removed: expected a number in \[0, 1\], got 1\.5"
    ):
        GatesConfig(max_removed=1.5)


@given(COUNTS, COUNTS)
@example({"a": 1}, {"b": 115, "c": 555856, "d": 65})
def test_drift_is_a_symmetric_distance_in_bits(p: dict[str, int], q: dict[str, int]) -> None:
    """Between 0 and 1, symmetric, 0 for equal shares."""
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert 0 <= jensen_shannon(p, q) <= 1
    assert jensen_shannon(p, {key: 3 * count for key, count in p.items()}) == pytest.approx(
        0, abs=1e-12
    )
    with pytest.raises(ConfigError, match=r"gates\.min_documents: expected 0 or more, got -1"):
        GatesConfig(min_documents=-1)
    with pytest.raises(ConfigError, match=r"gates\.max_bytes_per_token_loss: expected 0 or more"):
        GatesConfig(max_bytes_per_token_loss=float("nan"))


@given(COUNTS, COUNTS, st.integers(0, 2000), st.floats(0.01, 8.0), st.integers(0, 704))
def test_override_lets_the_same_snapshot_pass(
    bytes_now: dict[str, int],
    bytes_before: dict[str, int],
    dropped: int,
    density: float,
    found: int,
) -> None:
    """Whatever gates failed, the settings that are advised for them are enough, and each is a valid one."""
    now = {"a": counts(25, dropped, dropped // 2, dropped)}
    before = {"a": counts(1000, 3)}

    def gates(config: GatesConfig) -> list[dict[str, Any]]:
        arguments = (25, now, bytes_now, {"a": density}, before, bytes_before, {"a": 4.0})
        recall = {"sure": {"planted": 704, "found": found}}
        checked = check_gates(*arguments, config, recall=recall)
        return [gate for gate in checked if not gate["passed"]]

    config = GatesConfig(min_documents=26)
    advice = dict(override(gate).removeprefix("gates.").split("=") for gate in gates(config))
    assert "min_documents" in advice
    advised = {
        key: int(text) if key == "min_documents" else float(text) for key, text in advice.items()
    }
    assert gates(replace(config, **advised)) == []
