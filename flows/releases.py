"""Releases: the corpus's best current model, in `corpora/<corpus>/releases/<number>.json`, the newest one counts.

A release is the verdict that made it, with its number and a commit id, and is written once. Comparisons are made
on the validation documents of one snapshot for both models, in bits per byte.
"""

import json
import os
from typing import Any, Literal
from uuid import uuid4

from model.records import read_object
from storage.lake import Lake
from storage.times import now

Verdict = dict[str, Any]
"""corpus, run, run_hash, step, snapshot, snapshot_hash (scored on), evaluation, former (release, run, evaluation) or
null, verdict (promoted, refused, kept back), release (number) or null, why (a sentence), code_version."""

Promote = Literal["if it is not worse", "always", "never"]


def release_path(corpus: str, number: int) -> str:
    """Where a release stands in the lake."""
    return f"corpora/{corpus}/releases/{number:06d}.json"


def newest_release(lake: Lake, corpus: str) -> Verdict | None:
    """The release of a corpus, None if it has none yet."""
    paths = [entry.path for entry in lake.list(f"corpora/{corpus}/releases")]
    if not paths:
        return None
    return read_object(lake, max(paths), "put back a good copy of the file, or remove it")


def judge(
    evaluation: Verdict, former: Verdict | None, promote: Promote, max_worse: float
) -> tuple[Literal["promoted", "refused", "kept back"], str]:
    """The verdict on a model and why, in a sentence. `evaluation` is empty without validation documents.

    `former` has `release`, `run` and `evaluation` of the release before it on the same documents; its `evaluation` is
    empty if the run is gone.
    """
    if promote == "never":
        return "kept back", "asked only to be judged, not to be released"
    if promote == "always":
        return "promoted", "asked to be released whatever the comparison says"
    if not evaluation:
        return "kept back", (
            "there are no validation documents to judge it on; promote = always releases it all the same"
        )
    new = evaluation["bits_per_byte"]
    if former is None:
        return "promoted", f"the first release of the corpus, {new:.3f} bits per byte"
    name = f"release {former['release']}"
    if not former["evaluation"]:
        return "kept back", (
            f"{name} cannot be scored, the lake no longer holds its run '{former['run']}'; "
            "promote = always releases the new one all the same"
        )
    old = former["evaluation"]["bits_per_byte"]
    change = f"{new:.3f} bits per byte, {name} has {old:.3f} on the same documents"
    if new > old * (1 + max_worse):
        return "refused", (
            f"{change}: more than {max_worse:.1%} worse (release.max_worse); promote = always releases it all the same"
        )
    return "promoted", f"{change}: {'better' if new < old else 'not worse'}"


def commit_release(lake: Lake, verdict: Verdict, number: int) -> Verdict:
    """Write the release, and return it. Raises ConflictError if somebody else made that number meanwhile."""
    commit = {
        "id": uuid4().hex,
        "created_at": now(),
        "host": os.uname().nodename,
        "pid": os.getpid(),
    }
    body = verdict | {"release": number, "commit": commit}
    path = release_path(verdict["corpus"], number)
    lake.commit_bytes(path, _json(body), commit["id"])
    return body


def write_verdict(lake: Lake, verdict: Verdict) -> None:
    """Leave the verdict on a run with it, as `evaluation.json`."""
    lake.write_bytes(f"runs/{verdict['run']}/evaluation.json", _json(verdict))


def _json(body: Verdict) -> bytes:
    return json.dumps(body, indent=1, sort_keys=True).encode()
