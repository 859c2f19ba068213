"""Which training run belongs to a snapshot: `corpora/<corpus>/training/<version>.json`, written once, never changed.

Every automatic training of a snapshot goes by the run that its claim names. So there is one, however often the event
comes, however many flow runs start at once, whatever the recipe says by then, and whether or not Prefect remembers.
"""

import json
from typing import Any

from model.config import TrainConfig
from model.records import default_run_name, read_object
from storage.errors import CorruptError
from storage.lake import Lake
from storage.snapshot import Snapshot

Claim = dict[str, Any]
"""snapshot, snapshot_hash, and run; or, instead of a run (null), `declined`: why nothing is to train on it by itself."""


def claim_path(corpus: str, version: int) -> str:
    """Where the claim on a snapshot stands in the lake."""
    return f"corpora/{corpus}/training/{version:06d}.json"


def read_claim(snapshot: Snapshot) -> Claim | None:
    """The claim on a snapshot, None if there is none. Raises CorruptError if it is damaged or of another snapshot."""
    lake, path = snapshot.lake, _path(snapshot)
    if not lake.exists(path):
        return None
    remedy = "remove the file, and the snapshot counts as one that nobody has trained on"
    claim = read_object(lake, path, remedy)
    if claim.get("snapshot_hash") != snapshot.hash or "run" not in claim:
        raise CorruptError(
            f"{lake.where(path)}: expected the training of {snapshot.ref} with hash {snapshot.hash}, got "
            f"{json.dumps(claim)[:200]}; {remedy}"
        )
    return claim


def claim(snapshot: Snapshot, run: str) -> Claim:
    """Claim a snapshot for a run, and return the claim that stands: this one, or the one that came before it."""
    return _write(snapshot, {"run": run})


def decline(snapshot: Snapshot, why: str) -> Claim:
    """Say that nothing is to train on a snapshot by itself; returns the claim that stands."""
    return _write(snapshot, {"run": None, "declined": why})


def is_finished(lake: Lake, run: str) -> bool:
    """Whether the run came to its end."""
    return lake.exists(f"runs/{run}/result.json")


def pick_run(
    snapshot: Snapshot, settings: TrainConfig, *, is_automatic: bool, has_overrides: bool
) -> Claim:
    """The run to train on a snapshot when nobody named one; claims the snapshot if that is what is trained by itself.

    Automatic: the claim's run, whatever came of it. Started by hand: the claim's run as long as that is unfinished,
    else the one of the recipe's settings now; with overrides always that one, which then is no business of the claim.
    """
    name = default_run_name(snapshot, settings)
    if not is_automatic and has_overrides:
        return {"run": name}
    found = read_claim(snapshot) or claim(snapshot, name)
    if is_automatic:
        return found
    is_open = found["run"] is not None and not is_finished(snapshot.lake, found["run"])
    return found if is_open else {"run": name}


def _write(snapshot: Snapshot, what: Claim) -> Claim:
    body = what | {"snapshot": snapshot.ref, "snapshot_hash": snapshot.hash}
    data = json.dumps(body, indent=1, sort_keys=True).encode()
    snapshot.lake.create_bytes(_path(snapshot), data)
    return read_claim(snapshot) or body  # ours or an earlier one; nobody removes it


def _path(snapshot: Snapshot) -> str:
    return claim_path(snapshot.manifest.name, snapshot.manifest.version)
