"""How a flow run ends: with one sentence that says what happened, as its state's message.

An error of ours becomes a Failed state instead of an exception, because Prefect would log a page of traceback for it;
the flow's caller gets the exception all the same.
"""

from collections.abc import Callable
from typing import Any

from prefect.states import Completed, Failed

from storage.errors import GristmillError


def end_state(body: Callable[[], dict[str, Any]], sentence: Callable[[dict[str, Any]], str]) -> Any:
    """Run a flow's or task's body: Completed with `sentence(result)` and the result, or Failed with the error.

    To be returned by the flow or task. Typed Any because its caller gets the result itself, or the exception.
    """
    try:
        result = body()
    except GristmillError as error:
        return Failed(message=str(error), data=error)
    return Completed(message=sentence(result), data=result)
