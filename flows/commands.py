"""Commands that make something: build, train, evaluate, sample, run."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flows.executors import chosen_executor, remember
from flows.output import Output
from flows.progress import show_progress
from flows.recipe import find_recipe, load_recipe
from flows.results import (
    build_document,
    build_sentence,
    evaluation_sentence,
    train_document,
    train_sentence,
)
from flows.runs import find_run, is_run
from flows.server import use_prefect
from flows.tables import evaluation_table, funnel_table, shown_text
from model.records import begun_run
from pipeline.build import build
from pipeline.display import short
from pipeline.executor import Executor
from pipeline.skipped import in_summary, in_words
from storage.catalog import resolve
from storage.errors import BusyError, ConfigError, GateError, NotFoundError
from storage.lake import Lake
from storage.published import after_publishing
from storage.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console

    from model.config import TrainConfig

Document = dict[str, Any]


def build_recipe(
    output: Output,
    recipe: str,
    location: str,
    *,
    workers: int | None,
    executor: str,
    address: str,
    overrides: Sequence[str],
    flow: bool | None,
) -> None:
    """Publish the next snapshot. Raises GateError, after printing the result, if a gate refused it."""
    place = chosen_executor(workers, executor, address)
    document = _build(output, recipe, location, workers, place, overrides, flow)
    output.result(document, lambda console: _show_build(console, location, document))
    _check_promoted(document)


def train_recipe(
    output: Output,
    recipe: str,
    location: str,
    *,
    snapshot: str | None,
    run: str | None,
    workers: int | None,
    overrides: Sequence[str],
    flow: bool | None,
    as_begun: bool = False,
    events: int | None = None,
) -> None:
    """Train on a snapshot, by default the newest promoted one of the recipe's corpus.

    `as_begun`: go on with `run` on its own snapshot and with its own settings, whatever the recipe says. `events`: file
    descriptor that gets each row of metrics and each event as a line of JSON.
    """
    if as_begun:
        _check_as_begun(run, overrides, flow)
        document = _go_on(output, location, run or "", snapshot, workers, events)
    else:
        document = _train(output, recipe, location, snapshot, run, workers, overrides, flow, events)
    output.result(document, lambda console: _show_train(console, document))


def run_recipe(
    output: Output,
    recipe: str,
    location: str,
    *,
    workers: int | None,
    executor: str,
    address: str,
    overrides: Sequence[str],
    flow: bool | None,
) -> None:
    """Build, train, sample, report. Stops after a build that a gate refused: nothing trains on it."""
    place = chosen_executor(workers, executor, address)
    built = _build(output, recipe, location, workers, place, overrides, flow)
    if built["status"] == "quarantined":
        output.result({"build": built}, lambda console: _show_build(console, location, built))
        _check_promoted(built)
    trained = _train(output, recipe, location, built["snapshot"], None, workers, overrides, flow)
    from flows.report import write_report  # late: jinja2 and the charts, only at the end

    lake, report = Lake.open(location), None
    remedy = f"'gristmill inspect {built['snapshot']} --report FILE' writes it"
    with after_publishing("writing the report", remedy):
        report = lake.where(write_report(lake, resolve(lake, built["snapshot"]), trained["run"]))
    document = {"build": built, "train": trained, "report": report}

    def show(console: "Console") -> None:
        _show_build(console, location, built)
        console.print()
        _show_train(console, trained)
        if report is not None:
            console.print(f"\nreport: {report}", soft_wrap=True)

    output.result(document, show)


# --- build -------------------------------------------------------------------------------------


def _build(
    output: Output,
    recipe: str,
    location: str,
    workers: int | None,
    executor: Executor,
    overrides: Sequence[str],
    flow: bool | None,
) -> Document:
    # Before anything else: a typo must not cost time.
    config = load_recipe(recipe, overrides, output.note).build
    root = find_recipe(recipe).parent
    lake = Lake.open(location)
    if use_prefect(output, flow, lake):
        from flows.corpus import build_corpus  # late: prefect takes a second
        from flows.parameters import Corpus, Effort
        from flows.states import Quarantined

        corpus = Corpus(
            recipe=str(find_recipe(recipe).absolute()),
            lake=lake.url,
            overrides=list(overrides),
        )
        remember(executor)
        try:
            return build_corpus(corpus, Effort(workers=workers))
        except Quarantined as refused:
            return refused.result
    with executor.ready(lake, root) as ready, show_progress(output) as progress:
        result = build(config, lake, root=root, executor=ready, progress=progress)
    for note in result.notes:
        output.note(note)
    return build_document(result)


def _show_build(console: "Console", location: str, document: Document) -> None:
    console.print(build_sentence(document), soft_wrap=True)
    console.print(f"hash {document['hash']}")
    if document["status"] != "unchanged":
        with after_publishing("reading the funnel back"):
            manifest = resolve(Lake.open(location), document["snapshot"]).manifest
            console.print()
            console.print(funnel_table(manifest.funnel))
            if skips := in_words(in_summary(manifest.summary)):
                console.print(
                    f"{skips}; 'gristmill inspect {manifest.ref}' shows examples", soft_wrap=True
                )


def _check_promoted(document: Document) -> None:
    if document["status"] == "quarantined":
        ref = document["snapshot"]
        raise GateError(
            f"{ref}: refused by a gate, so it is quarantined and nothing trains on it; "
            f"'gristmill inspect {ref}' shows which one"
        )


# --- train and sample --------------------------------------------------------------------------


def _train(
    output: Output,
    recipe: str,
    location: str,
    ref: str | None,
    run: str | None,
    workers: int | None,
    overrides: Sequence[str],
    flow: bool | None,
    events: int | None = None,
) -> Document:
    settings = load_recipe(recipe, overrides, output.note)
    for option, value in (("--snapshot", ref), ("--run", run)):
        if value == "":  # a variable of a script that was never set
            raise ConfigError(f"{option}: expected a name, got an empty text; leave it out")
    lake = Lake.open(location)
    snapshot = resolve(lake, ref or settings.build.name)
    if snapshot.manifest.status != "promoted":
        raise GateError(
            f"{snapshot.ref}: quarantined by its gates, nothing trains on it; "
            "name a promoted snapshot, or leave --snapshot out"
        )
    if use_prefect(output, flow, lake):
        from flows.parameters import Corpus, Effort, Training  # late: pydantic
        from flows.training import train_on_snapshot  # late: prefect takes a second

        document = train_on_snapshot(
            Corpus(
                recipe=str(find_recipe(recipe).absolute()),
                lake=lake.url,
                overrides=list(overrides),
            ),
            Training(snapshot=snapshot.ref, run=run),
            Effort(workers=workers),
        )
        if "busy" in document:
            raise BusyError(document["busy"])
        return document
    return train_here(output, snapshot, lake, settings.train, run, workers, events)


def _check_as_begun(run: str | None, overrides: Sequence[str], flow: bool | None) -> None:
    if not run:
        raise ConfigError("--as-begun: expected the run to go on with, named by --run")
    if overrides:
        raise ConfigError("--as-begun: the run's own settings count; leave --set out")
    if flow:
        raise ConfigError("--as-begun: it goes on without Prefect; leave --flow out")


def _go_on(
    output: Output,
    location: str,
    run: str,
    ref: str | None,
    workers: int | None,
    events: int | None,
) -> Document:
    lake = Lake.open(location)
    if not is_run(lake, run):
        raise NotFoundError(
            f"--as-begun: expected a run of {lake}, got {run!r}; leave --as-begun out to begin it"
        )
    began_on, config = begun_run(lake, run)
    return train_here(output, resolve(lake, ref or began_on), lake, config, run, workers, events)


def train_here(
    output: Output,
    snapshot: Snapshot,
    lake: Lake,
    config: "TrainConfig",
    run: str | None,
    workers: int | None,
    events: int | None = None,
) -> Document:
    """Train in this process and say how it goes; returns what `train --json` prints."""
    use_cores(workers)
    from model.train import train  # late: torch takes more than a second

    with show_progress(output) as progress, _event_lines(events) as send:

        def on_step(row: Document) -> None:
            send(row)
            speed = f"{short(row['tokens_per_s'])} tokens/s"
            unit = f"steps (loss {row['loss']:.3f}, {speed})"
            progress("train", row["step"], config.steps, unit)

        def on_event(row: Document) -> None:
            send(row)
            tell = output.detail if row["event"] in ("sample", "checkpoint") else output.note
            tell(row["message"])

        result = train(snapshot, lake, config, run=run, on_step=on_step, on_event=on_event)
    return train_document(result)


@contextmanager
def _event_lines(descriptor: int | None) -> Iterator[Callable[[Document], None]]:
    """A function that writes a row to the descriptor; one that does nothing without a descriptor or a reader."""
    if descriptor is None:
        yield lambda row: None
        return
    with suppress(BrokenPipeError), os.fdopen(descriptor, "w", buffering=1) as pipe:

        def send(row: Document) -> None:
            with suppress(BrokenPipeError):  # the work matters, also if nobody watches any more
                pipe.write(json.dumps(row) + "\n")

        yield send


def use_cores(workers: int | None) -> None:
    """Let torch compute on so many cores, None leaves it all there are; call it before torch is imported.

    Threads that wait for each other sleep instead of spinning, unless OMP_WAIT_POLICY says otherwise. Where other work
    shares the cores, spinning threads keep each other from finishing: sleeping gives 2.2 times the tokens/s beside two
    busy processes, and costs a third on idle cores (tests/bench/wait_policy.py).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if workers is not None:
        import torch  # late: see above

        torch.set_num_threads(workers)


def _show_train(console: "Console", document: Document) -> None:
    console.print(train_sentence(document), soft_wrap=True)
    console.print(f"hash {document['hash']}")
    if document["evaluation"]:
        console.print()
        console.print(evaluation_table(document["evaluation"]))
    for sample in document["samples"]:
        prompt = f" after {sample['prompt']!r}" if sample["prompt"] else ""
        console.print(f"\nSample{prompt}:")
        console.print(shown_text(sample["text"]), soft_wrap=True)


def sample_run(
    output: Output,
    run: str,
    prompt: str,
    location: str,
    *,
    tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    workers: int | None,
) -> None:
    """Print what a run's newest checkpoint makes of a prompt."""
    lake, name = find_run(Lake.open(location), run)
    use_cores(workers)
    from model.sample import (
        SampleConfig,
        load_run,
        sample_text,
    )  # late: torch, once the run is there

    config = SampleConfig(max_tokens=tokens, temperature=temperature, top_k=top_k, seed=seed)
    loaded = load_run(lake, name, output.note)
    text = sample_text(loaded.model, loaded.tokenizer, prompt, config)
    document = {"run": name, "step": loaded.step, "prompt": prompt, "text": text}
    output.result(document, text)


def evaluate_model(
    output: Output,
    run: str,
    location: str,
    *,
    snapshot: str | None,
    tokens: int,
    workers: int | None,
) -> None:
    """Score a run's newest checkpoint on the validation documents of a snapshot, by default its corpus's newest."""
    lake, name = find_run(Lake.open(location), run)
    ref = snapshot or begun_run(lake, name)[0].partition("@")[0]
    scored_on = resolve(lake, ref)
    use_cores(workers)
    from model.evaluate import evaluate_run  # late: torch

    document = evaluate_run(lake, name, scored_on, max_tokens=tokens)

    def show(console: "Console") -> None:
        console.print(evaluation_sentence(document), soft_wrap=True)
        if document["evaluation"]:
            console.print()
            console.print(evaluation_table(document["evaluation"]))

    output.result(document, show)
