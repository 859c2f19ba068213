"""Asking a person whether to train on a snapshot: the flow run is suspended and shows a form with the data card.

No process waits meanwhile, so the question outlives every restart; the answer starts the flow run again from its
beginning, and `asked_version` says there what it was about.
"""

import re
from typing import Literal

from prefect import get_run_logger, suspend_flow_run
from prefect.context import FlowRunContext
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from flows.card import snapshot_card
from flows.report import read_rejects
from flows.states import rename_run
from pipeline.display import duration
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
    version = snapshot.manifest.version
    if asked_version() != version:
        rename_run(f"train on {snapshot.ref}? Somebody has to answer")
        get_run_logger().info(
            f"{snapshot.ref}: waiting {duration(hours * 3600)} at most for an answer; "
            "'Resume' in this page's menu, at the top right, shows the data card and asks"
        )
    question = f"**Train on {snapshot.ref}? The answer is asked below this card.**\n\n"
    form = Approval.with_initial_data(description=question + _card(snapshot))
    timeout_s = round(hours * 3600)
    return suspend_flow_run(wait_for_input=form, timeout=timeout_s, key=f"approve-{version}")


def _card(snapshot: Snapshot) -> str:
    """The data card that the build left, or one made now: what a person needs to decide."""
    manifest = snapshot.manifest
    path = f"corpora/{manifest.name}/reports/{manifest.version:06d}.md"
    if snapshot.lake.exists(path):
        return snapshot.lake.read_bytes(path).decode()
    return snapshot_card(manifest.to_dict(), None, read_rejects(snapshot))
