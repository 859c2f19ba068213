"""What follows a commit: published is published, so trouble with it is told and never hides the result."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import GristmillError, Interrupted

logger = logging.getLogger(__name__)
"""Its warnings are for whoever runs the command: the command line prints them on stderr, Prefect shows them."""


@contextmanager
def after_publishing(what: str, remedy: str = "") -> Iterator[None]:
    """Do `what` ("removing the build's work files") during the block; an error there becomes a warning with its cause.

    `remedy` says what to do about it, or that nothing has to be done. A stop that was asked for stays one.
    """
    try:
        yield
    except Interrupted:
        raise
    except (GristmillError, OSError) as error:
        warn(f"{what} failed: {error}" + (f"; {remedy}" if remedy else ""))


def warn(text: str) -> None:
    """Tell whoever runs the command about trouble that does not change the result."""
    logger.warning("%s", text)
