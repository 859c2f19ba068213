"""What a run writes beside its checkpoints: who it is (run.json), lines of JSON for each step, and its result.

Lines are kept in memory and the file is replaced as a whole just before each checkpoint, so that the newest checkpoint
never knows of a step that the files do not; lines after it, of a run that was killed, are cut off when it goes on.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from model.config import ModelConfig, TrainConfig
from storage.errors import ConfigError, CorruptError
from storage.lake import Lake
from storage.snapshot import Snapshot

FORMAT = 1
"""Version of the form of run.json; readers refuse any other."""

Row = dict[str, Any]


class JsonLines:
    """A file of one JSON object a line, each with a `step`."""

    def __init__(self, lake: Lake, path: str, last_step: int) -> None:
        """Take over what the file says up to `last_step`."""
        self.lake, self.path = lake, path
        rows = read_lines(lake, path)
        self.lines = [_line(row) for row in rows if row["step"] <= last_step]

    def append(self, row: Row) -> None:
        """Add a line, in memory."""
        self.lines.append(_line(row))

    def rows(self) -> list[Row]:
        """What the lines say."""
        return [json.loads(line) for line in self.lines]

    def keep(self, is_kept: Callable[[Row], bool]) -> None:
        """Drop the lines of which that is not so, in memory."""
        self.lines = [line for line in self.lines if is_kept(json.loads(line))]

    def write(self) -> None:
        """Replace the file, in one step."""
        self.lake.write_bytes(self.path, b"".join(self.lines))


def _line(row: Row) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def read_lines(lake: Lake, path: str) -> list[Row]:
    """The objects in a file of JSON lines; none if there is no file. Raises CorruptError, naming the line."""
    if not lake.exists(path):
        return []
    rows = []
    for number, line in enumerate(lake.read_bytes(path).splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise CorruptError(
                f"{lake.where(path)}:{number}: expected a JSON object, got {line[:40]!r}; remove the line"
            ) from error
    return rows


def default_run_name(snapshot: Snapshot, config: TrainConfig) -> str:
    """A name that the same snapshot and settings give again, so that the same command goes on with the run."""
    what = f"{snapshot.hash} {json.dumps(asdict(config), sort_keys=True)}"
    digest = hashlib.blake2b(what.encode(), digest_size=4).hexdigest()
    return f"{snapshot.manifest.name}-{snapshot.manifest.version}-{digest}"


def begun_run(lake: Lake, run: str) -> tuple[str, TrainConfig]:
    """Reference of the snapshot and settings that a run was begun with. Raises NotFoundError if it was not."""
    path = f"runs/{run}/run.json"
    about = read_object(lake, path)
    try:
        settings: Row = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in about["config"].items()
        }
        return str(about["snapshot"]), TrainConfig(**settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(
            f"{lake.where(path)}: expected the settings of a run, got: {error}; if a newer gristmill wrote it, upgrade"
        ) from error


def claim_run(
    lake: Lake, run: str, snapshot: Snapshot, config: TrainConfig, model: ModelConfig
) -> None:
    """Write run.json, or check that the one there says the same. Raises ConfigError, naming what differs."""
    path = f"runs/{run}/run.json"
    body: Row = {
        "format": FORMAT,
        "snapshot": snapshot.ref,
        "snapshot_hash": snapshot.hash,
        "config": asdict(config),
        "model": asdict(model),
    }
    body = json.loads(json.dumps(body))
    if not lake.exists(path):
        lake.write_bytes(path, json.dumps(body, indent=1, sort_keys=True).encode())
        return
    found = read_object(lake, path)
    if found.get("format") != FORMAT:
        raise CorruptError(
            f"{lake.where(path)}: expected a run of format {FORMAT}, got {found.get('format')}; "
            "if a newer gristmill wrote it, upgrade"
        )
    changes = [
        f"{key} {_short(old)} -> {_short(new)}" for key, old, new in _differences(found, body)
    ]
    if changes:
        raise ConfigError(
            f"run '{run}' was begun with other settings ({'; '.join(changes)}); "
            "choose another name with --run, or leave --run out"
        )


def read_object(
    lake: Lake, path: str, remedy: str = "remove the run's folder to train from the beginning"
) -> Row:
    """A JSON object in the lake. Raises NotFoundError; CorruptError, with what to do about it."""
    data = lake.read_bytes(path)
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise CorruptError(
            f"{lake.where(path)}: expected a JSON object, got {data[:40]!r}; {remedy}"
        ) from error


def _differences(old: Row, new: Row, prefix: str = "") -> list[tuple[str, Any, Any]]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append((prefix + key, one, other))
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
