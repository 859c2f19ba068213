"""A part of a flow as a Prefect task: what one sees as a bar of the run, with its own logs and its own end."""

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.states import end_state


def step(
    title: str, body: Callable[[], dict[str, Any]], sentence: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Run the body as a task named `title` and return its result; raises what the body raises.

    The state's message is `sentence(result)`, or the error's. No cache and no stored result: the lake knows what is
    done, and better than Prefect's database.
    """
    as_task = task(
        name=title.split(" ", 1)[0].lower(),
        task_run_name=title,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    # Asked for as a state, because a Failed one that a task returns is not raised by itself.
    return as_task(lambda: end_state(body, sentence))(return_state=True).result()
