"""Prefect flow `build-corpus`: the same composition as `gristmill build`, each stage a task one can watch.

Prefect sees names, counters and the data card, never documents; what is done stands in the lake, so a repeated or
crashed flow run repeats at most one shard's work.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from flows.card import snapshot_card
from flows.deadline import deadline
from flows.parameters import Corpus, Effort
from flows.recipe import find_recipe, load_recipe
from flows.report import read_rejects
from flows.results import build_document, build_sentence
from flows.states import end_state
from pipeline.build import BuildResult, Stage, build
from pipeline.executor import Executor, default_workers
from storage.catalog import read_manifest
from storage.lake import Lake
from storage.snapshot import Snapshot

EVENT = "gristmill.snapshot."
"""With the status behind it: `gristmill.snapshot.promoted` is what training on fresh snapshots waits for."""


def _run_name() -> str:
    corpus = runtime.flow_run.parameters["corpus"]
    recipe = Path(corpus.recipe)
    name = recipe.parent.name if recipe.name == "recipe.toml" else recipe.stem
    return f"{name}-{datetime.now(UTC):%Y-%m-%d-%H%M}"


@flow(name="build-corpus", flow_run_name=_run_name, persist_result=False)
def build_corpus(
    corpus: Corpus,
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Publish the next snapshot of a corpus from what is new; gives what `gristmill build --json` prints."""
    return end_state(lambda: _build_and_tell(corpus, effort), build_sentence)


def _build_and_tell(corpus: Corpus, effort: Effort) -> dict[str, Any]:
    recipe, lake = load_recipe(corpus.recipe, corpus.overrides), Lake.open(corpus.lake)
    hours = effort.timeout_hours or recipe.limits.build_hours
    with deadline(hours, f"building '{recipe.build.name}'"):
        result = build(
            recipe.build,
            lake,
            root=find_recipe(corpus.recipe).parent,
            executor=Executor(workers=effort.workers or default_workers()),
            run_stage=_as_task,
        )
        for note in result.notes:
            get_run_logger().info(note)
        if result.status != "unchanged":
            _publish_card(lake, result)
            _emit_event(lake, corpus.recipe, result)
        return build_document(result)


def _as_task(stage: Stage, run: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Run a stage as a Prefect task that takes nothing and returns its counters."""

    def run_and_tell() -> dict[str, Any]:
        return end_state(
            run, lambda counters: ", ".join(f"{n:,} {name}" for name, n in counters.items())
        )

    # No cache and no stored result: the lake knows what is done, and better than Prefect's database.
    as_task = task(
        name=stage.name, task_run_name=stage.title, cache_policy=NO_CACHE, persist_result=False
    )
    # Asked for as a state, because a Failed one that a task returns is not raised by itself.
    return as_task(run_and_tell)(return_state=True).result()


def _publish_card(lake: Lake, result: BuildResult) -> None:
    manifest = result.manifest
    parent = None
    for version in range(manifest.version - 1, 0, -1):
        earlier = read_manifest(lake, manifest.name, version)
        if earlier.hash() == manifest.parent:
            parent = earlier.to_dict()
            break
    card = snapshot_card(manifest.to_dict(), parent, read_rejects(Snapshot(lake, manifest)))
    # One key a corpus, so that Prefect shows the cards of its snapshots as a history.
    key = "corpus-card-" + re.sub(r"[^a-z0-9]+", "-", manifest.name.lower()).strip("-")
    create_markdown_artifact(
        key=key, markdown=card, description=f"{result.snapshot}: {result.status}"
    )


def _emit_event(lake: Lake, recipe: str, result: BuildResult) -> None:
    name = result.manifest.name
    emit_event(
        EVENT + result.status,
        resource={
            "prefect.resource.id": f"gristmill.snapshot.{name}",
            "prefect.resource.name": result.snapshot,
        },
        payload={
            "snapshot": result.snapshot,
            "hash": result.hash,
            "corpus": name,
            "recipe": recipe,
            "lake": lake.url,
            "documents": result.documents,
            "tokens": result.tokens,
        },
    )
