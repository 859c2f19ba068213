"""A trained model becomes the corpus's release if it is not worse than the one before it, on the same documents."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.releases import commit_release, judge, newest_release
from storage.errors import ConflictError
from storage.lake import Lake

from .conftest import TINY_MODEL
from .prefect_api import ask, events

Command = Callable[..., Any]


def scored(bits_per_byte: float) -> dict[str, Any]:
    return {"bits_per_byte": bits_per_byte, "domains": {}}


def former(bits_per_byte: float | None) -> dict[str, Any]:
    evaluation = {} if bits_per_byte is None else scored(bits_per_byte)
    return {"release": 4, "run": "old", "evaluation": evaluation}


@pytest.mark.parametrize(
    ("new", "before", "promote", "verdict", "why"),
    [
        (2.0, None, "if it is not worse", "promoted", "the first release"),
        (1.9, 2.0, "if it is not worse", "promoted", "better"),
        (2.02, 2.0, "if it is not worse", "promoted", "not worse"),
        (2.03, 2.0, "if it is not worse", "refused", "more than 1.0% worse"),
        (2.03, 2.0, "always", "promoted", "whatever the comparison says"),
        (1.9, 2.0, "never", "kept back", "only to be judged"),
    ],
)
def test_verdicts(new: float, before: float | None, promote: Any, verdict: str, why: str) -> None:
    """By bits per byte, with one percent of leeway."""
    found = judge(scored(new), None if before is None else former(before), promote, 0.01)
    assert found[0] == verdict
    assert why in found[1]


def test_without_figures_nothing_is_promoted_by_itself() -> None:
    """No validation documents, or a release whose run is gone: kept back, unless somebody asks for it."""
    assert judge({}, None, "if it is not worse", 0.01)[0] == "kept back"
    assert judge({}, None, "always", 0.01)[0] == "promoted"
    verdict, why = judge(scored(1.0), former(None), "if it is not worse", 0.01)
    assert verdict == "kept back"
    assert "release 4 cannot be scored" in why


def test_a_release_is_written_once(tmp_path: Path) -> None:
    """Of two that want the same number one gets it; the newest counts."""
    lake = Lake.open(tmp_path)
    assert newest_release(lake, "tiny") is None

    def commit(run: str) -> bool:
        try:
            commit_release(lake, {"corpus": "tiny", "run": run}, 1)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(commit, ["a", "b", "c", "d"])) == 1
    commit_release(lake, {"corpus": "tiny", "run": "e"}, 2)
    newest = newest_release(lake, "tiny")
    assert newest is not None
    assert (newest["run"], newest["release"]) == ("e", 2)


FLOW = """
import json, sys
from flows.parameters import Corpus, Effort, Release
from flows.releasing import evaluate_release
recipe, lake, release = sys.argv[1:]
state = evaluate_release(
    Corpus(recipe=recipe, lake=lake), Release(**json.loads(release)), Effort(workers=1), return_state=True
)
print(json.dumps({"name": state.name, "type": state.type.value, "message": state.message}))
"""


@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_releases_on_a_real_server(
    prefect_environment: dict[str, str], gristmill: Command, tiny_recipe: Path, tmp_path: Path
) -> None:
    """The first is promoted, a worse one refused unless asked for, the better one comes back; repeats change nothing."""
    lake = tmp_path / "lake"
    assert gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1).code == 0
    for run, steps in (("good", 60), ("bad", 2)):
        settings = ("--set", f"train.steps={steps}", "--set", "train.eval_every=60")
        options = ("--run", run, *TINY_MODEL, *settings, "--workers", 1)
        assert gristmill("train", tiny_recipe, "--lake", lake, *options).code == 0

    def evaluate(**release: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", FLOW, tiny_recipe, lake, json.dumps(release)],
            capture_output=True,
            text=True,
            env={**os.environ, **prefect_environment, "OMP_NUM_THREADS": "1"},
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def releases() -> list[str]:
        files = sorted((lake / "corpora/tiny/releases").glob("*.json"))
        return [json.loads(file.read_text())["run"] for file in files]

    first = evaluate(run="good")
    assert (first["type"], first["name"]) == ("COMPLETED", "Promoted"), first
    refused = evaluate()  # the newest
    assert (refused["type"], refused["name"]) == ("FAILED", "Refused"), refused
    assert "promote = always" in refused["message"]
    assert evaluate(run="bad", promote="never")["name"] == "Kept back"
    assert releases() == ["good"]
    assert evaluate(run="bad", promote="always")["name"] == "Promoted"
    for _ in range(2):
        assert evaluate(run="good")["name"] == "Promoted"
    assert releases() == ["good", "bad", "good"]
    unknown = evaluate(run="nobody")
    assert unknown["type"] == "FAILED"
    assert "expected a finished training run" in unknown["message"]

    verdict = json.loads((lake / "runs/good/evaluation.json").read_text())
    assert (verdict["verdict"], verdict["release"]) == ("promoted", 3)
    assert verdict["former"]["run"] == "bad"
    result = json.loads((lake / "runs/good/result.json").read_text())
    assert verdict["run_hash"] == result["hash"]
    assert verdict["evaluation"]["bits_per_byte"] == result["bits_per_byte"]
    assert "good" in (lake / "runs/good/evaluation.md").read_text()

    told = [
        event["event"].removeprefix("gristmill.release.")
        for event in events(prefect_environment, 4, "gristmill.release")
        if event["payload"]["lake"] == str(lake)
    ]
    assert sorted(told) == ["promoted", "promoted", "promoted", "refused"]
    cards = ask(prefect_environment, "artifacts/filter", {})
    assert {card["key"] for card in cards} >= {"evaluation-card-tiny"}
