"""A snapshot has one automatic training, whoever claims it, how often, and whatever the recipe says by then."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from flows.claims import claim, claim_path, decline, is_finished, pick_run, read_claim
from model.config import TrainConfig
from model.records import default_run_name
from storage.catalog import resolve
from storage.errors import CorruptError
from storage.lake import Lake
from storage.snapshot import Snapshot

Command = Callable[..., Any]

OTHER = TrainConfig(steps=7, warmup_steps=0)


@pytest.fixture
def snapshot(gristmill: Command, tiny_recipe: Path, tmp_path: Path) -> Snapshot:
    """tiny@1."""
    assert gristmill("build", tiny_recipe, "--lake", tmp_path / "lake", "--workers", 1).code == 0
    return resolve(Lake.open(tmp_path / "lake"), "tiny")


def _claim(lake: Lake, run: str) -> Any:
    return claim(resolve(lake, "tiny"), run)["run"]


def test_of_many_at_once_one_claim_stands(snapshot: Snapshot) -> None:
    """Eight processes with eight names come to the same run."""
    names = [f"run-{number}" for number in range(8)]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        runs = set(pool.map(_claim, [snapshot.lake] * 8, names))
    assert len(runs) == 1
    assert runs < set(names)
    assert read_claim(snapshot) == {
        "run": runs.pop(),
        "snapshot": "tiny@1",
        "snapshot_hash": snapshot.hash,
    }


def test_automatic_training_stays_with_its_claim(snapshot: Snapshot) -> None:
    """The recipe may change before the run is begun, while it trains, and when it is finished."""
    first = pick_run(snapshot, TrainConfig(), is_automatic=True, has_overrides=False)["run"]
    assert first == default_run_name(snapshot, TrainConfig())
    for is_done in (False, True):
        if is_done:
            snapshot.lake.write_bytes(f"runs/{first}/result.json", b"{}")
        assert is_finished(snapshot.lake, first) is is_done
        again = pick_run(snapshot, OTHER, is_automatic=True, has_overrides=False)
        assert again["run"] == first


def test_training_by_hand(snapshot: Snapshot) -> None:
    """It claims what nobody claimed, goes on with what is unfinished, and trains anew what the recipe now says."""
    first = pick_run(snapshot, TrainConfig(), is_automatic=False, has_overrides=False)["run"]
    assert pick_run(snapshot, OTHER, is_automatic=False, has_overrides=False)["run"] == first
    snapshot.lake.write_bytes(f"runs/{first}/result.json", b"{}")
    second = pick_run(snapshot, OTHER, is_automatic=False, has_overrides=False)["run"]
    assert second == default_run_name(snapshot, OTHER)
    assert pick_run(snapshot, OTHER, is_automatic=True, has_overrides=False)["run"] == first


def test_overrides_are_no_business_of_the_claim(snapshot: Snapshot) -> None:
    """What is trained for once, by hand, neither makes a claim nor follows one."""
    run = pick_run(snapshot, OTHER, is_automatic=False, has_overrides=True)["run"]
    assert read_claim(snapshot) is None
    claim(snapshot, "another")
    again = pick_run(snapshot, OTHER, is_automatic=False, has_overrides=True)["run"]
    assert again == run == default_run_name(snapshot, OTHER)


def test_declined_snapshot_is_left_alone(snapshot: Snapshot) -> None:
    """Nothing trains on it by itself; by hand it can be trained on."""
    decline(snapshot, "too many recipes")
    declined = pick_run(snapshot, OTHER, is_automatic=True, has_overrides=False)
    assert (declined["run"], declined["declined"]) == (None, "too many recipes")
    assert claim(snapshot, "late")["run"] is None
    by_hand = pick_run(snapshot, OTHER, is_automatic=False, has_overrides=False)
    assert by_hand["run"] == default_run_name(snapshot, OTHER)


@pytest.mark.parametrize("body", ["{", "[]", '{"run": "x", "snapshot_hash": "0"}', "{}"])
def test_damaged_claim_is_named(body: str, snapshot: Snapshot) -> None:
    """One that is of another snapshot, or no claim at all, is an error that says what to do."""
    snapshot.lake.write_bytes(claim_path("tiny", 1), body.encode())
    with pytest.raises(CorruptError, match=r"training/000001\.json.*remove the file"):
        read_claim(snapshot)


def test_claim_is_canonical_json(snapshot: Snapshot) -> None:
    """Sorted keys, so that two lakes with the same history have the same bytes."""
    claim(snapshot, "a-run")
    data = snapshot.lake.read_bytes(claim_path("tiny", 1)).decode()
    assert data == json.dumps(json.loads(data), indent=1, sort_keys=True)
