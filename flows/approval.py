"""Asking a person whether to train on a snapshot: the flow run is suspended and shows a form with the data card.

No process waits meanwhile, so the question outlives every restart; the answer starts the flow run again from its
beginning, and `asked_version` says there what it was about.
"""

import re
from typing import Literal

from prefect import suspend_flow_run
from prefect.context import FlowRunContext
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from flows.card import snapshot_card
from flows.report import read_rejects
from storage.errors import ConfigError
from storage.snapshot import Snapshot


class Approval(RunInput):
    """The form."""

    answer: Literal["train", "do not train"] = Field(
        description="do not train: nothing trains on this snapshot by itself any more.",
        json_schema_extra={"position": 0},
    )
    comment: str = Field(
        default="",
        description="Kept with a refusal.",
        json_schema_extra={"position": 1},
    )


def asked_version() -> int | None:
    """Version of the snapshot that this flow run has asked about before, None if it has not."""
    context = FlowRunContext.get()
    policy = context.flow_run.empirical_policy if context and context.flow_run else None
    found = (re.fullmatch(r"approve-(\d+)", key) for key in (policy and policy.pause_keys) or ())
    return max((int(match[1]) for match in found if match), default=None)


def ask(snapshot: Snapshot, hours: float) -> Approval:
    """The answer about a snapshot; suspends the flow run, which ends this process, if there is none yet.

    The server fails the run after `hours` without an answer. Raises ConfigError if no deployment could start it again.
    """
    if deployment.get_id() is None:
        raise ConfigError(
            "training.approval: expected 'none' in a run that no deployment starts again after the answer, got 'ask'; "
            "start it as train-on-snapshot of 'gristmill up', or set 'none'"
        )
    form = Approval.with_initial_data(description=_card(snapshot))
    key = f"approve-{snapshot.manifest.version}"
    return suspend_flow_run(wait_for_input=form, timeout=round(hours * 3600), key=key)


def _card(snapshot: Snapshot) -> str:
    """The data card that the build left, or one made now: what a person needs to decide."""
    manifest = snapshot.manifest
    path = f"corpora/{manifest.name}/reports/{manifest.version:06d}.md"
    if snapshot.lake.exists(path):
        return snapshot.lake.read_bytes(path).decode()
    return snapshot_card(manifest.to_dict(), None, read_rejects(snapshot))
