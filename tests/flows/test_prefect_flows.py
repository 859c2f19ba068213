"""build-corpus on a real Prefect server: the same snapshot as without it, and what a watcher is told of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import STAGES
from storage.lake import Lake

from .conftest import write_corpus
from .prefect_api import ask, newest_run, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]

Command = Callable[..., Any]
Environment = dict[str, str]


def artifacts(environment: Environment, run: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """What a flow run has put under a key."""
    wanted = {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": [key]}}
    return ask(environment, "artifacts/filter", {"artifacts": wanted})


def events_of(environment: Environment, lake: Path, least: int) -> list[dict[str, Any]]:
    """Our events about a lake, newest first; waited for, because the server stores them in the background."""
    resource = {"labels": {"gristmill.lake": [str(lake)]}}
    question = {"filter": {"event": {"prefix": ["gristmill."]}, "resource": resource}, "limit": 50}

    def look() -> list[dict[str, Any]]:
        return ask(environment, "events/filter", question)["events"]

    wait_until(lambda: len(look()) >= least, 15, f"{least} events")
    return look()


def add_text(recipe: Path, name: str) -> None:
    """One more document in the corpus."""
    words = "A new morning came over the hills and nobody in the village had expected it so soon"
    (recipe.parent / "prose" / name).write_text(f"{words}, as {name} tells.\n\n" * 8)


def test_build_through_prefect_equals_the_direct_one(
    prefect_environment: Environment,
    gristmill: Command,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """A task for each stage, one event, a data card here and in the lake; and nothing of it a second time."""
    lake = tmp_path / "lake"
    arguments = ("build", tiny_recipe, "--lake", lake, "--workers", 1, "--json")
    # Not asked for by --flow: the server answers, so it is used.
    built = gristmill_process(*arguments, **prefect_environment)
    assert built.code == 0, built.err
    direct = gristmill(
        "build", tiny_recipe, "--lake", tmp_path / "direct", "--workers", 1, "--json"
    )
    assert {**built.json, "seconds": 0} == {**direct.json, "seconds": 0}

    run = newest_run(prefect_environment)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Promoted")
    assert run["name"] == "tiny@1 promoted"
    assert "48 of 49 documents kept" in run["state"]["message"]
    question = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = ask(prefect_environment, "task_runs/filter", question)
    assert sorted(task["name"] for task in tasks) == sorted(stage.title for stage in STAGES)
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}

    [event] = events_of(prefect_environment, lake, 1)
    assert event["event"] == "gristmill.snapshot.promoted"
    assert event["resource"]["prefect.resource.id"] == "gristmill.snapshot.tiny"
    assert event["payload"]["snapshot"] == "tiny@1"
    assert event["payload"]["hash"] == built.json["hash"]
    assert event["payload"]["documents"] == 48

    [card] = artifacts(prefect_environment, run, "corpus-card-tiny")
    assert "48** of 49 documents kept" in card["data"]
    assert (lake / "corpora/tiny/reports/000001.md").read_text() == card["data"]
    [progress] = artifacts(prefect_environment, run, "progress-tiny")
    assert f"{len(STAGES)} of {len(STAGES)} stages done" in progress["data"]

    again = gristmill_process(*arguments, "--flow", **prefect_environment)
    assert again.json["status"] == "unchanged"
    run = newest_run(prefect_environment)
    assert run["state_name"] == "Unchanged"
    assert run["name"].endswith(" nothing new")
    assert len(events_of(prefect_environment, lake, 1)) == 1
    assert artifacts(prefect_environment, run, "corpus-card-tiny") == []


def test_snapshot_that_nobody_was_told_of_is_announced_by_the_next_build(
    prefect_environment: Environment,
    gristmill: Command,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """Built without Prefect, or by a run killed after its commit: card and event come with the next run, once."""
    lake = tmp_path / "lake"
    arguments = ("build", tiny_recipe, "--lake", lake, "--workers", 1)
    assert gristmill(*arguments).code == 0
    for _ in range(2):
        assert gristmill_process(*arguments, "--flow", **prefect_environment).code == 0
        [event] = events_of(prefect_environment, lake, 1)
        assert event["payload"]["snapshot"] == "tiny@1"
        assert event["payload"]["documents"] == 48
    assert (lake / "corpora/tiny/reports/000001.md").exists()


def test_quarantined_snapshot_fails_and_says_how_to_accept_it(
    prefect_environment: Environment,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """The result is printed and the exit code is 3; what the state advises to set lets the same documents pass."""
    lake = tmp_path / "lake"
    arguments = ("build", tiny_recipe, "--lake", lake, "--workers", 1, "--flow", "--json")
    strict = ("--set", "gates.max_quarantined=0.01")
    answer = gristmill_process(*arguments, *strict, **prefect_environment)
    assert answer.code == 3
    assert answer.json["status"] == "quarantined"
    assert "Traceback" not in answer.err

    run = newest_run(prefect_environment)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Quarantined")
    assert run["name"] == "tiny@1 quarantined"
    message = run["state"]["message"]
    assert "gate 'quarantined share' gave 0.04 against a limit of 0.01" in message
    assert 'overrides = ["gates.max_quarantined=0.05"]' in message
    [event] = events_of(prefect_environment, lake, 1)
    assert event["event"] == "gristmill.snapshot.quarantined"
    assert event["payload"]["why"] == message
    assert len(artifacts(prefect_environment, run, "corpus-card-tiny")) == 1

    accepted = gristmill_process(
        *arguments, "--set", "gates.max_quarantined=0.05", **prefect_environment
    )
    assert accepted.json["status"] == "promoted"
    assert accepted.json["snapshot"] == "tiny@2"


def test_changed_recipe_is_told_key_by_key(
    prefect_environment: Environment,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """In the log at once, and in the data card of the snapshot that is built by it."""
    lake = tmp_path / "lake"
    arguments = ("build", tiny_recipe, "--lake", lake, "--workers", 1, "--flow")
    assert gristmill_process(*arguments, **prefect_environment).code == 0
    tiny_recipe.write_text(tiny_recipe.read_text() + "\n[dedup]\nthreshold = 0.85\n")
    add_text(tiny_recipe, "new.txt")
    answer = gristmill_process(*arguments, **prefect_environment)
    assert answer.code == 0
    assert "the recipe has changed since tiny@1" in answer.err
    [card] = artifacts(prefect_environment, newest_run(prefect_environment), "corpus-card-tiny")
    assert "tiny@2" in card["data"]
    changed = card["data"].partition("What changed in the recipe")[2].strip().splitlines()[0]
    assert "threshold 0.7 " in changed
    assert "0.85" in changed


def test_source_that_is_gone_is_told_once(
    prefect_environment: Environment,
    gristmill_process: Command,
    tmp_path: Path,
) -> None:
    """It matched before and matches nothing now: a run that says so, exit code 2, and one event, not one a night."""
    recipe, lake = write_corpus(tmp_path / "corpus"), tmp_path / "lake"
    arguments = ("build", recipe, "--lake", lake, "--workers", 1, "--flow")
    assert gristmill_process(*arguments, **prefect_environment).code == 0
    (recipe.parent / "talk.jsonl").rename(recipe.parent / "moved.jsonl")
    for _ in range(2):
        answer = gristmill_process(*arguments, **prefect_environment)
        assert answer.code == 2
        assert "Traceback" not in answer.err
        run = newest_run(prefect_environment)
        assert (run["state_type"], run["state_name"]) == ("FAILED", "Source gone")
        assert run["name"].endswith(" source gone")
        assert "take the source out of the recipe" in run["state"]["message"]
        gone, promoted = events_of(prefect_environment, lake, 2)
        assert (gone["event"], promoted["event"]) == (
            "gristmill.source.gone",
            "gristmill.snapshot.promoted",
        )
        assert gone["payload"]["source"]
    assert len(Lake.open(lake).list("corpora/tiny/events")) == 2


def test_error_in_a_flow_keeps_its_exit_code(
    prefect_environment: Environment,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """A source that matches nothing: exit code 2 and one message; the flow run is FAILED with it."""
    arguments = (
        "build",
        tiny_recipe,
        "--lake",
        tmp_path / "lake",
        "--set",
        "sources.0.path=no/*.txt",
    )
    answer = gristmill_process(*arguments, "--flow", **prefect_environment)
    assert answer.code == 2
    # Not always the last line: Prefect may say after it that it still sends events.
    assert any(line.startswith("gristmill: source") for line in answer.err.splitlines())
    assert "Traceback" not in answer.err
    run = newest_run(prefect_environment)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Failed")
    assert "no/*.txt" in run["state"]["message"]
    assert run["name"].endswith(" failed")


def test_flow_without_server_is_refused(gristmill_process: Command, tiny_recipe: Path) -> None:
    """The message says what to start."""
    answer = gristmill_process(
        "build", tiny_recipe, "--flow", PREFECT_API_URL="http://127.0.0.1:9/api"
    )
    assert answer.code == 2
    assert "prefect server start" in answer.err
