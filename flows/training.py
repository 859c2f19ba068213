"""Prefect flow `train-on-snapshot`: one training run in one subprocess, watched.

The subprocess is `gristmill train` itself, so that a run started here goes on under the command line and the other way
round. It dies with this process, and a cancelled flow run ends it after a last checkpoint. Which run belongs to which
snapshot stands in the lake (`flows/claims.py`), so a repeated event, a second flow run or a new server train nothing twice.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger, runtime

from flows import events
from flows.approval import ask, asked_version
from flows.claims import decline, pick_run, read_claim
from flows.config import Recipe
from flows.deadline import deadline
from flows.parameters import Corpus, Effort, Training
from flows.process import run_json
from flows.recipe import load_recipe
from flows.report import write_report
from flows.results import train_sentence
from flows.states import end_state, rename_run
from flows.steps import RETRY_DELAYS_S, step
from flows.training_watch import watch_training
from storage.catalog import resolve
from storage.errors import BusyError, GateError
from storage.lake import Lake
from storage.published import after_publishing
from storage.snapshot import Snapshot


def _run_name() -> str:
    parameters = runtime.flow_run.parameters
    training = parameters["training"]
    newest = f"the newest {(training.snapshot or '').partition('@')[0]}".rstrip()
    what = newest if training.if_newer == "take the newer" else training.snapshot
    return f"train on {training.run or what or newest}"


@flow(name="train-on-snapshot", flow_run_name=_run_name, persist_result=False)
def train_on_snapshot(
    corpus: Corpus,
    training: Training = Training(),  # noqa: B008 (frozen)
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Train on a snapshot, or go on from the last checkpoint; gives what `gristmill train --json` prints.

    Where nothing is to be trained it gives `run` and `snapshot` with `busy` (somebody else is at it) or `declined`.
    """

    def body() -> dict[str, Any]:
        result = _train(corpus, training, effort)
        name = f"{result['snapshot']} {_state_name(result).lower()}"
        score = result.get("bits_per_byte")
        rename_run(name if score is None else f"{name}, {score:.3f} bits per byte")
        return result

    return end_state(body, _sentence, _state_name)


def _state_name(result: dict[str, Any]) -> str:
    if "declined" in result:
        return "Declined"
    if "busy" in result:
        return "Already training"
    return "Already trained" if result["was_finished"] else "Trained"


def _sentence(result: dict[str, Any]) -> str:
    return result.get("declined") or result.get("busy") or train_sentence(result)


def _train(corpus: Corpus, training: Training, effort: Effort) -> dict[str, Any]:
    recipe = load_recipe(corpus.recipe, corpus.overrides)
    lake = Lake.open(corpus.lake)
    snapshot = _pick_snapshot(lake, recipe, training)
    if training.approval == "ask" and (why_not := _why_declined(snapshot, recipe)) is not None:
        return _declined(snapshot, why_not)
    run = training.run
    if run is None:
        found = pick_run(
            snapshot,
            recipe.train,
            is_automatic=training.if_newer == "take the newer",
            has_overrides=bool(corpus.overrides),
        )
        if found["run"] is None:
            return _declined(snapshot, found["declined"])
        run = found["run"]
    hours = effort.timeout_hours or recipe.limits.train_hours
    with deadline(hours, f"training run '{run}'"):
        return _train_and_tell(corpus, effort, lake, snapshot, run)


def _declined(snapshot: Snapshot, why: str) -> dict[str, Any]:
    message = (
        f"{snapshot.ref}: declined ({why}), so nothing trains on it by itself; to train on it all the same, "
        "start this flow with that snapshot, if_newer 'keep to this' and approval 'none'"
    )
    return {"run": None, "snapshot": snapshot.ref, "declined": message}


def _pick_snapshot(lake: Lake, recipe: Recipe, training: Training) -> Snapshot:
    """The snapshot to train on. Raises GateError if a gate refused it, NotFoundError if there is none."""
    if (version := asked_version()) is not None:  # the answer is about that one
        name = (training.snapshot or recipe.build.name).partition("@")[0]
        return resolve(lake, f"{name}@{version}")
    snapshot = resolve(lake, training.snapshot or recipe.build.name)
    if training.if_newer == "take the newer":
        snapshot = resolve(lake, snapshot.manifest.name)
    if snapshot.manifest.status != "promoted":
        raise GateError(
            f"{snapshot.ref}: quarantined by its gates, nothing trains on it; name a promoted snapshot, or none for the "
            f"newest. 'gristmill inspect {snapshot.ref}' and the data card show which gate it was and how to pass it"
        )
    return snapshot


def _why_declined(snapshot: Snapshot, recipe: Recipe) -> str | None:
    """Ask, unless it is decided already; in words why not to train on it, None if somebody agreed."""
    if (decided := read_claim(snapshot)) is None:
        approval = ask(snapshot, recipe.on_snapshot.approval_hours)
        if approval.answer == "train":
            return None
        decided = decline(snapshot, approval.comment or "no reason given")
    return decided.get("declined")


def _train_and_tell(
    corpus: Corpus, effort: Effort, lake: Lake, snapshot: Snapshot, run: str
) -> dict[str, Any]:
    command = _command(corpus, effort, lake, snapshot, run)
    try:
        result = step(
            f"Train {run} on {snapshot.ref}",
            lambda: _watch(command, lake, run, snapshot),
            train_sentence,
            retry_delays_s=RETRY_DELAYS_S,  # it goes on from its last checkpoint
        )
    except BusyError as error:
        return {"run": run, "snapshot": snapshot.ref, "busy": str(error)}
    with after_publishing("writing the report"):
        step(
            f"Report on {run}",
            lambda: {"report": write_report(lake, snapshot, run)},
            lambda found: lake.where(found["report"]),
            retry_delays_s=RETRY_DELAYS_S,
        )
    with after_publishing(f"telling that {run} is trained", events.SENT_AGAIN):
        events.send(
            lake,
            events.RUN_FINISHED,
            snapshot.manifest.name,
            f"{run} {result['hash']}",
            {
                "run": run,
                "hash": result["hash"],
                "snapshot": snapshot.ref,
                "recipe": corpus.recipe,
                "bits_per_byte": result["bits_per_byte"],
            },
        )
    return result


def _command(corpus: Corpus, effort: Effort, lake: Lake, snapshot: Snapshot, run: str) -> list[str]:
    """The command line that trains, or goes on as the snapshot's automatic training was begun."""
    command = [sys.executable, "-P", "-m", "flows.cli", "train", corpus.recipe, "--lake", lake.url]
    command += ["--no-flow", "--json", f"--die-with={os.getpid()}"]
    command += [f"--snapshot={snapshot.ref}", f"--run={run}"]
    command += [] if effort.workers is None else [f"--workers={effort.workers}"]
    command += ["-v"] if effort.log == "detailed" else []
    is_claimed = (read_claim(snapshot) or {}).get("run") == run
    if is_claimed and lake.exists(f"runs/{run}/run.json"):
        return [*command, "--as-begun"]  # the recipe may say something else by now
    return [*command, *(f"--set={override}" for override in corpus.overrides)]


def _watch(command: Sequence[str], lake: Lake, run: str, snapshot: Snapshot) -> dict[str, Any]:
    """Run the command, its lines in the task's log, its rows on the training card."""
    with watch_training(lake, run, snapshot) as watch:
        return run_json(command, get_run_logger().info, watch)
