"""The build: names the order of the stages, once, and turns inputs that are new into the next snapshot.

`build` runs the stages itself or through a function it is given (a Prefect task a stage, say). All state is files in
the lake, so a killed build goes on where it stopped, and the same inputs and recipe give the same bytes.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b, sha256
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from pipeline import curate, ingest, publish, skipped
from pipeline.decontaminate import DecontaminateConfig
from pipeline.dedup import DedupConfig
from pipeline.display import counts_in_words, plural, size
from pipeline.domain_notes import domain_notes
from pipeline.executor import Executor
from pipeline.figures import bytes_per_token
from pipeline.filters import QualityConfig
from pipeline.gates import GatesConfig, check_gates
from pipeline.ingest import NewInput, ShardConfig
from pipeline.language import LanguageConfig
from pipeline.minhash import check_published
from pipeline.mixture import MixConfig
from pipeline.normalize import NormalizeConfig
from pipeline.pii import PiiConfig
from pipeline.prepare import compile_loops
from pipeline.readers import FoundInput, ReadLimits, SourceConfig, find_inputs, fingerprint
from pipeline.shards import SplitConfig
from pipeline.sources import canonical_path, other_spellings
from pipeline.stage import Progress, Workspace, no_progress
from pipeline.tokenizer import TokenizerConfig
from pipeline.toxicity import ToxicityConfig
from storage.catalog import next_version, read_manifest, versions
from storage.errors import ConfigError, InputError, SourceGoneError
from storage.fence import build_folder, explains_collection, folder_of
from storage.lake import Lake
from storage.schema import FATES_IN_ORDER
from storage.snapshot import (
    Input,
    Manifest,
    Snapshot,
    check_name,
    commit_snapshot,
    manifest_path,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Everything that decides what a snapshot is."""

    name: str
    sources: tuple[SourceConfig, ...]
    read: ReadLimits = field(default_factory=ReadLimits)
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    toxicity: ToxicityConfig = field(default_factory=ToxicityConfig)
    pii: PiiConfig = field(default_factory=PiiConfig)
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.sources:
            raise ConfigError(f"recipe '{self.name}': expected at least one [[sources]], got none")
        for name, count in Counter(source.name for source in self.sources).items():
            if count > 1:
                raise ConfigError(
                    f"recipe '{self.name}': two sources are called '{name}'; give one another name"
                )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One build: what is new, what it stands on, and where its files go."""

    config: BuildConfig
    root: Path
    version: int
    build_id: str
    recipe_fingerprint: str
    evaluation_sets: tuple[str, ...]
    """Fingerprints of the recipe's evaluation sets."""
    parent: Snapshot | None
    inputs: tuple[NewInput, ...]
    workspace: Workspace


@dataclass(frozen=True)
class Stage:
    """A step of the build, the same for a direct run and for a Prefect task."""

    name: str
    title: str
    run: Callable[[Plan, Executor, Progress], dict[str, int]]


STAGES: tuple[Stage, ...] = (
    Stage(
        "read",
        "Read and normalise",
        lambda p, ex, pr: ingest.read_documents(
            p.workspace, p.inputs, p.config.read, p.config.normalize, p.config.shards, ex, pr
        ),
    ),
    Stage(
        "exact_duplicates",
        "Find exact copies",
        lambda p, ex, pr: ingest.find_exact_duplicates(
            p.workspace, p.parent, _source_names(p), p.config.dedup.policy, pr
        ),
    ),
    Stage(
        "filter",
        "Judge quality, language, toxicity; redact personal data",
        lambda p, ex, pr: curate.filter_documents(p.workspace, _filters(p), ex, pr),
    ),
    Stage(
        "sign",
        "MinHash signatures",
        lambda p, ex, pr: curate.sign_all(p.workspace, p.config.dedup, ex, pr),
    ),
    Stage(
        "near_duplicates",
        "Find and verify near-duplicates",
        lambda p, ex, pr: curate.find_near_duplicates(
            p.workspace, p.parent, p.config.dedup, _source_names(p), ex, pr
        ),
    ),
    Stage(
        "split",
        "Choose validation documents",
        lambda p, ex, pr: publish.choose_splits(p.workspace, p.parent, p.config.split, pr),
    ),
    Stage(
        "tokenizer",
        "Train the tokenizer",
        lambda p, ex, pr: publish.make_tokenizer(p.workspace, p.parent, p.config.tokenizer, pr),
    ),
    Stage(
        "shards",
        "Encode and write shards",
        lambda p, ex, pr: publish.write_shards(p.workspace, p.version, ex, pr),
    ),
    Stage(
        "fates",
        "Settle every document's fate",
        lambda p, ex, pr: publish.write_fates(p.workspace, p.parent, p.version, p.config.dedup, pr),
    ),
)
"""The order of the pipeline, once for everybody who runs it."""


RunStage = Callable[[Stage, Callable[[], dict[str, int]]], dict[str, int]]
"""Runs a stage: given the stage and what does it, returns the stage's counters."""


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build did."""

    snapshot: str
    """Reference `name@version`; of the parent if nothing was new."""
    hash: str
    status: str
    """promoted, quarantined (a gate failed) or unchanged (nothing new)."""
    documents: dict[str, int]
    """Documents by fate, and their sum as `read`."""
    skipped: dict[str, int]
    """Records that are no documents, by reason; they are not part of `read`."""
    tokens: int
    """Tokens that the snapshot wrote: of the new documents, and of those that competed again and are kept."""
    seconds: float
    notes: list[str]
    manifest: Manifest


def run_directly(stage: Stage, run: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Run a stage here and now."""
    return run()


def build(
    config: BuildConfig,
    lake: Lake,
    *,
    root: Path,
    executor: Executor | None = None,
    run_stage: RunStage = run_directly,
    progress: Progress = no_progress,
) -> BuildResult:
    """Publish the next snapshot of a corpus from the inputs that no snapshot has consumed.

    `root` is the folder that relative paths of the recipe start from. Raises BusyError if somebody else builds the
    corpus, InputError if a source matches nothing (SourceGoneError if snapshots were read from it), ConflictError if
    another machine took the version meanwhile.
    """
    start = time.monotonic()
    with lake.lock(f"build-{config.name}", doing=f"building '{config.name}'"):
        plan = make_plan(config, lake, root)
        finished = _already_done(plan)
        if finished is not None:
            return finished
        executor = executor or Executor()
        compile_loops(config.dedup, executor, progress)
        with explains_collection(lake, config.name, folder_of(f"{plan.workspace.work}/")):
            for stage in STAGES:
                counts = run_stage(stage, lambda stage=stage: stage.run(plan, executor, progress))
                logger.info("%s: %s", stage.title, counts_in_words(counts))
            changed = ingest.changed_inputs(plan.workspace)
            manifest = commit_snapshot(lake, make_manifest(plan, start))
        plan.workspace.remove()
    note = manifest.summary["tokenizer"]["note"]
    notes = [note] if note and plan.parent is None else []
    notes += _displacements(manifest)
    notes += skipped.warnings(skipped.in_summary(manifest.summary))
    notes += domain_notes(manifest)
    if changed:
        notes.append(ingest.changed_in_words(changed))
    return _result(
        manifest, manifest.status, time.monotonic() - start, _failed_gates(manifest) + notes
    )


def make_plan(config: BuildConfig, lake: Lake, root: Path) -> Plan:
    """Find what is new and name the build after it; reads every input once, for its fingerprint."""
    config = with_canonical_paths(config, root)
    parent = None
    numbers = versions(lake, config.name)
    for number in reversed(numbers):
        manifest = read_manifest(lake, config.name, number)
        if manifest.status == "promoted":
            parent = Snapshot(lake, manifest)
            check_published(parent, config.dedup)
            # Its name may not have reached the disk when it was published; what follows stands on it.
            lake.sync_names([manifest_path(config.name, number)])
            break
    found = [
        item
        for source in config.sources
        for item in _fingerprinted(_find_inputs(source, root, parent), source)
    ]
    known = _uris_by_content(parent)
    new = tuple(item for item in found if not _is_known(item, known))
    sets = tuple(fingerprint(root / path) for path in config.decontaminate.sets)
    recipe = recipe_fingerprint(config, sets)
    what = {
        "recipe": recipe,
        "parent": parent.hash if parent else "",
        "inputs": [(item.found.source, item.found.uri, item.fingerprint) for item in new],
        "code_version": package_version("gristmill"),
    }
    build_id = _digest(what)[:16]
    logger.info(
        "%s: %d inputs found, %d of them new (%s), to go on top of %s",
        config.name,
        len(found),
        len(new),
        size(sum(item.found.num_bytes for item in new)),
        parent.ref if parent else "nothing",
    )
    corpus, folder = f"corpora/{config.name}", build_folder(lake, config.name, build_id)
    return Plan(
        config=config,
        root=root,
        version=next_version(lake, config.name),
        build_id=build_id,
        recipe_fingerprint=recipe,
        evaluation_sets=sets,
        parent=parent,
        inputs=new,
        workspace=Workspace(lake, f"{corpus}/work/{folder}", f"{corpus}/data/{folder}"),
    )


def with_canonical_paths(config: BuildConfig, root: Path) -> BuildConfig:
    """The same recipe with one spelling of each path, so that what a snapshot is does not depend on it."""
    return replace(
        config,
        sources=tuple(
            replace(source, path=canonical_path(source.path, root)) for source in config.sources
        ),
        decontaminate=replace(
            config.decontaminate,
            sets=tuple(canonical_path(path, root) for path in config.decontaminate.sets),
        ),
    )


def recipe_fingerprint(config: BuildConfig, sets: Sequence[str]) -> str:
    """Names everything in a recipe that decides what is kept, with the fingerprints of its evaluation sets."""
    return _digest({"config": asdict(config), "sets": list(sets)})


def make_manifest(plan: Plan, start: float) -> Manifest:
    """Describe what the finished stages made: what it is, and (in `commit`) how long it took since `start`."""
    workspace, config, parent = plan.workspace, plan.config, plan.parent
    summary = publish.summarize(workspace, parent, config.mix)
    funnel = workspace.records("fates")[0]["funnel"]
    added = publish.new_domains(workspace)
    before = parent.manifest.summary if parent else {}
    last = _last_build(parent)
    gates = check_gates(
        summary["documents"],
        funnel,
        {domain: figures["num_bytes"] for domain, figures in summary["domains"].items()},
        bytes_per_token(added),
        last.manifest.funnel if last else {},
        {domain: figures["num_bytes"] for domain, figures in before.get("domains", {}).items()},
        before.get("tokenizer", {}).get("bytes_per_token", {}),
        config.gates,
        known=publish.copies_of_published(workspace, last),
        recall=summary["recall"],
    )
    model = workspace.lake.read_bytes(f"{workspace.data}/tokenizer.model")
    changed = {(item.source, item.uri) for item in ingest.changed_inputs(workspace)}
    inputs = tuple(
        Input(
            source=item.found.source,
            uri=item.found.uri,
            num_bytes=item.found.num_bytes,
            fingerprint=item.fingerprint,
            version=plan.version,
        )
        for item in plan.inputs
        if (item.found.source, item.found.uri) not in changed
    )
    return Manifest(
        name=config.name,
        version=plan.version,
        parent=parent.hash if parent else "",
        build_id=plan.build_id,
        recipe_fingerprint=plan.recipe_fingerprint,
        recipe=json.loads(json.dumps(asdict(config))),
        code_version=package_version("gristmill"),
        shards=publish.all_shards(workspace, parent),
        inputs=(parent.manifest.inputs if parent else ()) + inputs,
        tokenizer={
            "path": f"{workspace.data}/tokenizer.model",
            "checksum": sha256(model).hexdigest(),
            "vocab_size": summary["tokenizer"]["vocab_size"],
        },
        funnel=funnel,
        gates=gates,
        status="promoted" if all(gate["passed"] for gate in gates) else "quarantined",
        summary=summary,
        commit={"seconds": round(time.monotonic() - start, 3)},
    )


def _last_build(snapshot: Snapshot | None) -> Snapshot | None:
    """The newest snapshot of the chain that read something: one that only forgot is none to compare removal with."""
    while snapshot is not None and not snapshot.manifest.funnel:
        lake, name, parent = snapshot.lake, snapshot.manifest.name, snapshot.manifest.parent
        before = (n for n in reversed(versions(lake, name)) if n < snapshot.manifest.version)
        earlier = (read_manifest(lake, name, number) for number in before)
        snapshot = next((Snapshot(lake, m) for m in earlier if m.hash() == parent), None)
    return snapshot


def _already_done(plan: Plan) -> BuildResult | None:
    """The result if there is nothing new, or if this very build was published and then refused by a gate."""
    lake, name = plan.workspace.lake, plan.config.name
    if not plan.inputs and plan.parent is not None:
        manifest = plan.parent.manifest
        notes = ["nothing new: every input was consumed by an earlier snapshot"]
        if manifest.recipe_fingerprint != plan.recipe_fingerprint:
            notes.append(
                "the recipe has changed since; it applies to documents that are read from now on"
            )
        return _result(manifest, "unchanged", 0.0, notes)
    if not plan.inputs:
        raise InputError(
            f"'{name}': expected at least one input file, got none; check the paths of its sources"
        )
    # The parent is part of the id, so only those after it can have the same.
    first = plan.parent.manifest.version + 1 if plan.parent else 1
    for number in [n for n in reversed(versions(lake, name)) if n >= first]:
        manifest = read_manifest(lake, name, number)
        if manifest.build_id == plan.build_id:
            notes = [f"these inputs were built as {name}@{number} before", *_failed_gates(manifest)]
            return _result(manifest, manifest.status, 0.0, notes)
    return None


def _result(manifest: Manifest, status: str, seconds: float, notes: list[str]) -> BuildResult:
    counts = dict.fromkeys(("read", *FATES_IN_ORDER), 0)
    tokens = 0
    if status != "unchanged":
        for domain in manifest.funnel.values():
            counts = {fate: counts[fate] + domain[fate] for fate in counts}
        tokens = sum(
            shard.num_tokens for shard in manifest.shards if shard.version == manifest.version
        )
    return BuildResult(
        snapshot=f"{manifest.name}@{manifest.version}",
        hash=manifest.hash(),
        status=status,
        documents=counts,
        skipped=skipped.by_reason(skipped.in_summary(manifest.summary))
        if status != "unchanged"
        else {},
        tokens=tokens,
        seconds=round(seconds, 3),
        notes=notes,
        manifest=manifest,
    )


def _displacements(manifest: Manifest) -> list[str]:
    """What the policy "rebuild" changed in what earlier snapshots had published."""
    counts = manifest.summary.get("rebuild", {})
    if not counts.get("displaced"):
        return []
    note = f"{plural(counts['displaced'], 'published document')} gave way to better ones (dedup.policy)"
    if counts["restored"]:
        note += f", and {counts['restored']:,} came back that had been removed for them"
    return [note]


def _failed_gates(manifest: Manifest) -> list[str]:
    return [
        f"gate '{gate['name']}' failed: {gate['value']} against a limit of {gate['limit']} ({gate['detail']}); look at "
        f"'gristmill inspect {manifest.name}@{manifest.version}', then change the recipe or its [gates]"
        for gate in manifest.gates
        if not gate["passed"]
    ]


def _find_inputs(source: SourceConfig, root: Path, parent: Snapshot | None) -> list[FoundInput]:
    try:
        return find_inputs(source, root)
    except InputError as error:
        read = (
            [item for item in parent.manifest.inputs if item.source == source.name]
            if parent
            else []
        )
        if not parent or not read:
            raise
        raise SourceGoneError(
            f"{error}; {parent.ref} and those before it read {plural(len(read), 'file')} of it: bring them back, or take "
            "the source out of the recipe (what was published stays)",
            source.name,
        ) from error


def _fingerprinted(inputs: Iterable[FoundInput], source: SourceConfig) -> Iterator[NewInput]:
    """The inputs of a source with what they hold now; one that has gone since the folder was listed is no input."""
    for found in inputs:
        if found.problem:
            # Of the reason why it cannot be read, so that it is tried again once that changes.
            yield NewInput(found, source, _digest(["problem", found.problem]))
            continue
        try:
            yield NewInput(found, source, fingerprint(found.path, found.num_bytes))
        except InputError:
            if os.path.lexists(found.path):
                raise
            logger.warning("%s has gone since its folder was listed", found.uri)


def _uris_by_content(parent: Snapshot | None) -> dict[tuple[str, str], set[str]]:
    """(source, fingerprint) -> uris of the inputs that were consumed."""
    known: dict[tuple[str, str], set[str]] = {}
    for item in parent.manifest.inputs if parent else ():
        known.setdefault((item.source, item.fingerprint), set()).add(item.uri)
    return known


def _is_known(item: NewInput, known: Mapping[tuple[str, str], set[str]]) -> bool:
    uris = known.get((item.found.source, item.fingerprint))
    return uris is not None and (
        item.found.uri in uris or not uris.isdisjoint(other_spellings(item.found))
    )


def _source_names(plan: Plan) -> list[str]:
    return [source.name for source in plan.config.sources]


def _filters(plan: Plan) -> curate.Filters:
    config = plan.config
    return curate.Filters(
        config.quality,
        config.language,
        config.toxicity,
        config.pii,
        config.decontaminate,
        plan.root,
        plan.evaluation_sets,
    )


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake2b(canonical.encode("utf8", "surrogatepass"), digest_size=16).hexdigest()
