"""A part of a flow as a Prefect task: what one sees as a bar of the run, with its own logs and its own end."""

import errno
from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.states import end_state
from storage.errors import BusyError, ConflictError, CorruptError, LakeError

RETRY_DELAYS_S = (10.0, 30.0, 90.0)
"""Seconds before idempotent work is tried again: a disk that was full, a bucket out of reach."""

_FOR_GOOD = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EOPNOTSUPP,
    }
)
"""What a disk refuses by these will not be otherwise in a minute."""


def step(
    title: str,
    body: Callable[[], dict[str, Any]],
    sentence: Callable[[dict[str, Any]], str],
    *,
    name: str = "",
    retry_delays_s: tuple[float, ...] = (),
) -> dict[str, Any]:
    """Run the body as a task named `title` and return its result; raises what the body raises.

    The state's message is `sentence(result)`, or the error's. No cache and no stored result: the lake knows what is
    done, and better than Prefect's database. With delays, which chance makes longer or shorter, an idempotent body is
    run again after what may pass by itself (`is_transient`), never after wrong input.
    """
    as_task = task(
        name=name or title.split(" ", 1)[0].lower(),
        task_run_name=title,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(retry_delays_s),
        retry_delay_seconds=list(retry_delays_s) or None,
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_be_run_again,
    )
    # Asked for as a state, because a Failed one that a task returns is not raised by itself.
    return as_task(lambda: end_state(body, sentence))(return_state=True).result()


def is_transient(error: object) -> bool:
    """Whether the same work may succeed in a minute: trouble of network or disk, not of input and not of rights."""
    if isinstance(error, CorruptError | ConflictError | BusyError):
        return False
    cause = error.__cause__ if isinstance(error, LakeError) else error
    is_for_good = isinstance(cause, OSError) and cause.errno in _FOR_GOOD
    return isinstance(error, LakeError | OSError) and not is_for_good


def _may_be_run_again(_task: Any, _run: Any, state: Any) -> bool:
    return is_transient(state.data)
