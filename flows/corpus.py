"""Prefect flow `build-corpus`: the same composition as `gristmill build`, each stage a task one can watch.

Prefect sees names, counters and cards, never documents; what is done stands in the lake, so a repeated or crashed flow
run repeats at most one shard's work.
"""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime

from flows import events
from flows.artifacts import card_key, publish_card
from flows.card import snapshot_card
from flows.changes import recipe_changes
from flows.deadline import deadline
from flows.executors import chosen_executor
from flows.lineage import lineage
from flows.parameters import Corpus, Effort
from flows.recipe import find_recipe, load_recipe
from flows.report import read_rejects
from flows.results import build_document, build_sentence
from flows.states import Quarantined, begun, end_state, rename_run
from flows.watch import BuildWatch, show_logs
from pipeline.build import BuildConfig, BuildResult, build, with_canonical_paths
from pipeline.display import number
from pipeline.gates import override
from storage.catalog import read_manifest, resolve, versions
from storage.errors import GristmillError, OutOfTime, SourceGoneError
from storage.lake import Lake
from storage.published import after_publishing
from storage.snapshot import Manifest, Snapshot


def _run_name() -> str:
    corpus = runtime.flow_run.parameters["corpus"]
    recipe = Path(corpus.recipe)
    name = recipe.parent.name if recipe.name == "recipe.toml" else recipe.stem
    return f"{name}-{begun()}"


@flow(name="build-corpus", flow_run_name=_run_name, persist_result=False)
def build_corpus(
    corpus: Corpus,
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Publish the next snapshot of a corpus from what is new; gives what `gristmill build --json` prints."""
    return end_state(lambda: _build(corpus, effort), build_sentence, _state_name)


def _state_name(document: dict[str, Any]) -> str:
    return document["status"].capitalize()


def _build(corpus: Corpus, effort: Effort) -> dict[str, Any]:
    show_logs(effort.log)
    recipe, lake = load_recipe(corpus.recipe, corpus.overrides), Lake.open(corpus.lake)
    name = recipe.build.name
    root = find_recipe(corpus.recipe).parent
    try:
        with (
            deadline(effort.timeout_hours or recipe.limits.build_hours, f"building '{name}'"),
            chosen_executor(effort.workers).ready(lake, root) as executor,
        ):
            _tell_changes(lake, with_canonical_paths(recipe.build, root))
            watch = BuildWatch(lake, name)
            result = build(
                recipe.build,
                lake,
                root=root,
                executor=executor,
                run_stage=watch.run_stage,
                progress=watch.progress,
            )
            level = logging.WARNING if result.status == "quarantined" else logging.INFO
            for note in result.notes:
                get_run_logger().log(level, note)
            with after_publishing(f"telling of {result.snapshot}", events.SENT_AGAIN):
                _announce(lake, corpus.recipe, result)
    except GristmillError as error:
        if isinstance(error, SourceGoneError):
            _announce_gone(lake, corpus.recipe, name, error)
        rename_run(f"{name}-{begun()} {_what_failed(error)}")
        raise
    if result.status == "unchanged":
        rename_run(f"{name}-{begun()} nothing new")
    else:
        rename_run(f"{result.snapshot} {result.status}")
    if result.status == "quarantined":
        raise Quarantined(_why_quarantined(result.manifest), build_document(result))
    return build_document(result)


def _what_failed(error: GristmillError) -> str:
    if isinstance(error, SourceGoneError):
        return "source gone"
    return "out of time" if isinstance(error, OutOfTime) else "failed"


# --- what follows a snapshot -------------------------------------------------------------------


def _announce(lake: Lake, recipe: str, result: BuildResult) -> None:
    """The card of the newest snapshot and its event, unless an earlier run has got to that.

    Safe to repeat: whoever builds next makes up for a run that was killed after its commit, and for a snapshot that
    was built without Prefect.
    """
    manifest = result.manifest
    card = f"corpora/{manifest.name}/reports/{manifest.version:06}.md"
    if result.status != "unchanged" or not lake.exists(card):
        parent = _parent(lake, manifest)
        text = snapshot_card(
            manifest.to_dict(),
            parent.to_dict() if parent else None,
            read_rejects(Snapshot(lake, manifest)),
            lineage=lineage(lake, manifest.name),
            recipe_changes=recipe_changes(parent.recipe, manifest.recipe) if parent else [],
        )
        description = f"{manifest.ref}: {manifest.status}"
        with after_publishing("writing the data card"):  # the event comes all the same
            publish_card(lake, card_key("corpus-card", manifest.name), text, description, card)
    is_promoted = manifest.status == "promoted"
    event = events.SNAPSHOT_PROMOTED if is_promoted else events.SNAPSHOT_QUARANTINED
    payload = {
        "snapshot": manifest.ref,
        "hash": result.hash,
        "recipe": recipe,
        "documents": sum(domain["kept"] for domain in manifest.funnel.values()),
        "tokens": sum(s.num_tokens for s in manifest.shards if s.version == manifest.version),
    }
    if not is_promoted:
        payload["why"] = _why_quarantined(manifest)
    events.send(lake, event, manifest.name, result.hash, payload)


def _announce_gone(lake: Lake, recipe: str, corpus: str, error: SourceGoneError) -> None:
    subject = f"{error.source} {resolve(lake, corpus).hash}"
    payload = {"source": error.source, "recipe": recipe, "why": str(error)}
    events.send(lake, events.SOURCE_GONE, corpus, subject, payload)


def _why_quarantined(manifest: Manifest) -> str:
    failed = [gate for gate in manifest.gates if not gate["passed"]]
    figures = "; ".join(
        f"gate '{gate['name']}' gave {number(gate['value'])} against a limit of {number(gate['limit'])} "
        f"({gate['detail']})"
        for gate in failed
    )
    settings = [override(gate) for gate in failed]
    return (
        f"{manifest.ref} is quarantined, nothing trains on it: {figures}. Look at its data card. To accept it as it is, "
        f"set {', '.join(settings)} in the recipe; for once, start a custom run with overrides = {json.dumps(settings)}"
    )


def _parent(lake: Lake, manifest: Manifest) -> Manifest | None:
    for version in reversed(versions(lake, manifest.name)):
        earlier = read_manifest(lake, manifest.name, version)
        if earlier.hash() == manifest.parent:
            return earlier
    return None


def _tell_changes(lake: Lake, recipe: BuildConfig) -> None:
    """Log what is different in the recipe since the newest snapshot, so that nobody wonders later."""
    found = versions(lake, recipe.name)
    if not found:
        return
    newest = read_manifest(lake, recipe.name, found[-1])
    changes = recipe_changes(newest.recipe, json.loads(json.dumps(asdict(recipe))))
    if changes:
        lines = "\n".join(changes)
        get_run_logger().info(f"the recipe has changed since {newest.ref}:\n{lines}")
