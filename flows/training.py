"""Prefect flow `train-on-snapshot`: one training run in one subprocess, watched.

The subprocess is `gristmill train` itself, so that a run started here goes on under the command line and the other way
round. It dies with this process, and a cancelled flow run ends it after a last checkpoint.
"""

import json
import os
import sys
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE

from flows.parameters import Corpus, Effort, Training
from flows.process import run_child
from flows.results import train_sentence
from flows.states import end_state
from storage import errors
from storage.errors import GristmillError


def _run_name() -> str:
    return f"train-{runtime.flow_run.parameters['training'].snapshot or 'newest'}"


@flow(name="train-on-snapshot", flow_run_name=_run_name, persist_result=False)
def train_on_snapshot(
    corpus: Corpus,
    training: Training = Training(),  # noqa: B008 (frozen)
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Train on a snapshot, or go on from the last checkpoint; gives what `gristmill train --json` prints."""
    recipe, lake, overrides = corpus.recipe, corpus.lake, corpus.overrides
    snapshot, run, workers = training.snapshot, training.run, effort.workers
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "train",
        recipe,
        "--lake",
        lake,
        "--no-flow",
        "--json",
        "--die-with",
        str(os.getpid()),
    ]
    options = {"--snapshot": snapshot, "--run": run, "--workers": workers}
    for option, value in options.items():
        command += [] if value is None else [option, str(value)]
    for override in overrides:
        command += ["--set", override]
    state = _train_in_subprocess(command, return_state=True)
    return end_state(lambda: state.result(), train_sentence)


@task(name="train", cache_policy=NO_CACHE, persist_result=False)
def _train_in_subprocess(command: list[str]) -> dict[str, Any]:
    return end_state(lambda: _watch(command), train_sentence)


def _watch(command: list[str]) -> dict[str, Any]:
    """Run the command, its lines in the task's log; raises what it ended with, as if it had happened here."""
    code, printed = run_child(command, get_run_logger().info)
    try:
        document = json.loads(printed)
    except ValueError:
        document = {}
    if code == 0:
        return document
    message = document.get("error") or f"training ended with code {code} and no message"
    raise _error_class(document.get("kind", ""))(message)


def _error_class(kind: str) -> type[GristmillError]:
    """The class of that name in our error tree, so that the flow's caller gives the same exit code."""
    found = getattr(errors, kind, GristmillError)
    is_ours = isinstance(found, type) and issubclass(found, GristmillError)
    return found if is_ours else GristmillError
