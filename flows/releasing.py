"""Prefect flow `evaluate-release`: is a trained model better than the corpus's release? Then it becomes the release.

Both models are scored in subprocesses, on the validation documents of the newest promoted snapshot. What is decided
stands in the lake (`flows/releases.py`), so whatever is repeated here comes to the same.
"""

import os
import sys
from importlib.metadata import version as package_version
from typing import Any

from prefect import flow, get_run_logger, runtime

from flows import events
from flows.artifacts import card_key, publish_card
from flows.config import Recipe
from flows.deadline import deadline
from flows.evaluation_card import evaluation_card
from flows.parameters import Corpus, Effort, Release
from flows.process import run_json
from flows.recipe import load_recipe
from flows.releases import Verdict, commit_release, judge, newest_release, write_verdict
from flows.results import evaluation_sentence
from flows.runs import finished_run, is_run
from flows.states import Refused, end_state, rename_run
from flows.steps import RETRY_DELAYS_S, step
from model.records import begun_run, read_object
from storage.catalog import resolve
from storage.lake import Lake
from storage.published import after_publishing
from storage.snapshot import Snapshot


def _run_name() -> str:
    parameters = runtime.flow_run.parameters
    return f"judge {parameters['release'].run or 'the newest run'}"


@flow(name="evaluate-release", flow_run_name=_run_name, persist_result=False)
def evaluate_release(
    corpus: Corpus,
    release: Release = Release(),  # noqa: B008 (frozen)
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Judge a trained model against the corpus's release on the same documents; gives the verdict."""
    return end_state(
        lambda: _evaluate(corpus, release, effort),
        lambda verdict: f"run {verdict['run']} {verdict['verdict']}: {verdict['why']}",
        lambda verdict: verdict["verdict"].capitalize(),
    )


def _evaluate(corpus: Corpus, release: Release, effort: Effort) -> Verdict:
    recipe = load_recipe(corpus.recipe, corpus.overrides)
    lake = Lake.open(corpus.lake)
    run = finished_run(lake, recipe.build.name, release.run)
    name = begun_run(lake, run)[0].partition("@")[0]
    hours = effort.timeout_hours or recipe.limits.evaluate_hours
    with deadline(hours, f"judging run '{run}'"), lake.lock(f"release-{name}", f"judging '{name}'"):
        former = newest_release(lake, name)
        digest = read_object(lake, f"runs/{run}/result.json")["hash"]
        if former is not None and (former["run"], former["run_hash"]) == (run, digest):
            verdict = former  # this run's work was done, but perhaps not told
        else:
            verdict = _judge(recipe, release, effort, lake, resolve(lake, name), run, former)
            if verdict["verdict"] == "promoted":
                number = former["release"] + 1 if former else 1
                verdict = commit_release(lake, verdict, number)
        with after_publishing(f"telling of the verdict on {run}", "running the same again does it"):
            _tell(lake, corpus.recipe, verdict)
    number = verdict["release"]
    rename_run(f"{run} {verdict['verdict']}" + (f" as release {number}" if number else ""))
    if verdict["verdict"] == "refused":
        raise Refused(f"run {run} refused: {verdict['why']}")
    return verdict


def _judge(
    recipe: Recipe,
    release: Release,
    effort: Effort,
    lake: Lake,
    snapshot: Snapshot,
    run: str,
    former: Verdict | None,
) -> Verdict:
    score = _score(lake, run, snapshot, effort, f"Score {run}")
    compared = None
    if former is not None:
        compared = {"release": former["release"], "run": former["run"], "evaluation": {}}
        if is_run(lake, former["run"]):
            title = f"Score release {former['release']}, {former['run']}"
            found = _score(lake, former["run"], snapshot, effort, title)
            compared["evaluation"] = found["evaluation"]
    decision, why = judge(score["evaluation"], compared, release.promote, recipe.release.max_worse)
    return score | {
        "corpus": snapshot.manifest.name,
        "former": compared if compared and compared["evaluation"] else None,
        "verdict": decision,
        "release": None,
        "why": why,
        "code_version": package_version("gristmill"),
    }


def _score(lake: Lake, run: str, snapshot: Snapshot, effort: Effort, title: str) -> dict[str, Any]:
    """What `gristmill evaluate --json` says of a run, as a task."""
    command = [sys.executable, "-P", "-m", "flows.cli", "evaluate", run, "--lake", lake.url]
    command += ["--snapshot", snapshot.ref, "--json", f"--die-with={os.getpid()}"]
    command += [] if effort.workers is None else [f"--workers={effort.workers}"]
    return step(
        title,
        lambda: run_json(command, get_run_logger().info),
        evaluation_sentence,
        retry_delays_s=RETRY_DELAYS_S,
    )


def _tell(lake: Lake, recipe: str, verdict: Verdict) -> None:
    """Leave the verdict with the run, show the card, send the event; all of it may be repeated."""
    write_verdict(lake, verdict)
    corpus, run, number = verdict["corpus"], verdict["run"], verdict["release"]
    publish_card(
        lake,
        card_key("evaluation-card", corpus),
        evaluation_card(verdict),
        f"{run}: {verdict['verdict']}",
        f"runs/{run}/evaluation.md",
    )
    former = verdict["former"]
    payload = {
        "run": run,
        "release": number,
        "snapshot": verdict["snapshot"],
        "recipe": recipe,
        "bits_per_byte": verdict["evaluation"].get("bits_per_byte"),
        "former": former["evaluation"].get("bits_per_byte") if former else None,
        "why": verdict["why"],
    }
    if verdict["verdict"] == "promoted":
        events.send(lake, events.RELEASE_PROMOTED, corpus, f"{number} {run}", payload)
    elif verdict["verdict"] == "refused":
        subject = f"{run} {verdict['run_hash']}"
        events.send(lake, events.RELEASE_REFUSED, corpus, subject, payload)
