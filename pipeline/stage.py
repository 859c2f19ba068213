"""The shapes that parts of the pipeline share: raw batches, verdicts, progress, and work that resumes by shard.

Four shapes of function, all plain: a reader gives raw batches, an edit maps a batch to a batch, a filter maps a batch
to one verdict a document, a stage maps finished files to finished files through `run_tasks`.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from pipeline.executor import Executor
from storage.disk import caller_in_plain_words, in_plain_words
from storage.errors import CorruptError
from storage.lake import Lake
from storage.published import after_publishing
from storage.shard import Shard, open_shard

logger = logging.getLogger(__name__)

RAW = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),  # file:line, file#offset or file
        pa.field("text", pa.string()),  # null where there is nothing to show
        pa.field("license", pa.string()),  # null: the source's
        pa.field("domain", pa.string()),  # null: the source's
        # null: a good record; else why it is quarantined or skipped, one snake_case word
        pa.field("error", pa.string()),
        pa.field("detail", pa.string()),  # the error in words
        # looked at and no document: neither read nor quarantined
        pa.field("is_skipped", pa.bool_(), nullable=False),
    ]
)
"""What a reader yields; a record that cannot be used is a row with `error`, never an exception."""

VERDICT = pa.struct(
    [
        pa.field("rule", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("detail", pa.string()),
    ]
)
"""What a filter says of one document; a null `rule` keeps it."""

KEEP: dict[str, Any] = {"rule": None, "value": None, "threshold": None, "detail": None}
"""The verdict that keeps a document."""


class Progress(Protocol):
    """Told how far a stage is; `total` is None where it is not known."""

    def __call__(self, stage: str, done: int, total: int | None, unit: str, /) -> None: ...


def no_progress(stage: str, done: int, total: int | None, unit: str, /) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Workspace:
    """Where an unfinished build keeps its files: a folder named by what is being built, so a killed build finds them.

    A file under its final name is complete (it was renamed into place), so its existence is the only state.
    """

    lake: Lake
    work: str
    """Folder of intermediate files, removed after the commit."""
    data: str
    """Folder of the snapshot's shards."""

    def done(self, stage: str, task: str) -> dict[str, Any] | None:
        """The record of a finished task, None if it has to be done."""
        path = f"{self.work}/{stage}/{task}.json"
        return self._record(path) if self.lake.exists(path) else None

    def finish(self, stage: str, task: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write the record that makes a task finished; call it after the task's files are in place."""
        data = json.dumps(record, sort_keys=True).encode()
        self.lake.write_bytes(f"{self.work}/{stage}/{task}.json", data)
        return json.loads(data)

    def records(self, stage: str) -> list[dict[str, Any]]:
        """The records of a finished stage, by task name."""
        paths = [entry.path for entry in self.lake.list(f"{self.work}/{stage}/")]
        return [self._record(path) for path in paths if path.endswith(".json")]

    def clear(self) -> None:
        """Remove the intermediate files: all that a build knows of itself until it is committed."""
        self.lake.delete_prefix(f"{self.work}/")

    def write_table(self, name: str, table: pa.Table) -> str:
        """Write an intermediate table as `work/name.arrow`; returns the name."""
        with (
            self.lake.writer(f"{self.work}/{name}.arrow") as path,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
        return name

    def read_table(self, name: str) -> pa.Table:
        """Open an intermediate table, memory-mapped. Raises CorruptError if it is no Arrow file any more."""
        path = self.lake.local_path(f"{self.work}/{name}.arrow")
        try:
            with in_plain_words(path, "read"), pa.memory_map(str(path)) as file:
                return pa.ipc.open_file(file).read_all()
        except pa.ArrowException as error:
            raise self._damaged(f"{self.work}/{name}.arrow", "an Arrow file", error) from error

    def open_shard(self, shard: Shard) -> pa.Table:
        """A shard of this build, which no manifest names yet; verified, as a run that was killed may have written it."""
        try:
            return open_shard(self.lake, shard)
        except CorruptError as error:
            raise CorruptError(f"{error}; {self._remedy}") from error

    @contextmanager
    def scratch(self, stage: str) -> Iterator[Path]:
        """A folder for what only the tasks of a stage read: in the lake, or beside the downloads of one in a bucket.

        Disk errors during the block are raised as LakeError.
        """
        folder = (self.lake.root or self.lake.cache) / self.work / stage
        with in_plain_words(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
        with caller_in_plain_words(folder):
            yield folder

    def remove(self) -> None:
        """Remove the intermediate files of a build that is published, which no trouble with them undoes."""
        with after_publishing("removing the finished build's work files", "'gristmill gc' does it"):
            self.lake.delete_prefix(f"{self.work}/")

    def _record(self, path: str) -> dict[str, Any]:
        try:
            return json.loads(self.lake.read_bytes(path))
        except ValueError as error:
            raise self._damaged(path, "the JSON record of a finished task", error) from error

    def _damaged(self, path: str, expected: str, error: Exception) -> CorruptError:
        return CorruptError(
            f"{self.lake.where(path)}: expected {expected}, got: {error}; {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        work, data = (self.lake.where(folder) for folder in (self.work, self.data))
        return f"nothing of this build is published: remove {work} and {data}, then run the same command again"


def run_tasks(
    workspace: Workspace,
    stage: str,
    tasks: Sequence[tuple[str, Any]],
    function: Callable[[Workspace, str, Any], dict[str, Any]],
    executor: Executor,
    progress: Progress,
    unit: str = "shards",
) -> list[dict[str, Any]]:
    """Do the named tasks of a stage that are not done yet; return all their records in the tasks' order.

    `function(workspace, name, argument)` writes its files, then returns its record; it must be importable and depend
    on its arguments alone, because it may run in another process and will run again after a crash.
    """
    records = {name: workspace.done(stage, name) for name, _ in tasks}
    todo = [
        (workspace, stage, name, argument, function)
        for name, argument in tasks
        if records[name] is None
    ]
    done = len(tasks) - len(todo)
    if done:
        logger.info("%s: %d of %d %s were done before", stage, done, len(tasks), unit)
    progress(stage, done, len(tasks), unit)
    for name, record in executor.map(_run_task, todo):
        records[name] = record
        done += 1
        logger.debug("%s: wrote %s, %d of %d %s are done", stage, name, done, len(tasks), unit)
        progress(stage, done, len(tasks), unit)
    return [record for name, _ in tasks if (record := records[name]) is not None]


def _run_task(
    arguments: tuple[Workspace, str, str, Any, Callable[..., dict[str, Any]]],
) -> tuple[str, dict]:
    workspace, stage, name, argument, function = arguments
    return name, workspace.finish(stage, name, function(workspace, name, argument))


def total_counts(records: Iterable[dict[str, Any]], key: str) -> Counter[str]:
    """Sum the counters that tasks left under `key`."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.get(key, {}))
    return total
