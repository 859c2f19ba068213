"""Prefect flow `evaluate-release`: is the newest model better than the corpus's release?"""

from typing import Any

from prefect import flow

from flows.parameters import Corpus, Effort, Release


@flow(name="evaluate-release", persist_result=False)
def evaluate_release(
    corpus: Corpus,
    release: Release = Release(),  # noqa: B008 (frozen)
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Judge a trained model against the corpus's release on the same documents; promote it if it is not worse."""
    raise NotImplementedError
