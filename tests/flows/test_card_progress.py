"""The progress card says how far a build is, and claims to know no more than it does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.progress_card import StageProgress, progress_card, seconds_left

from .rendered import seen

STAGES = st.builds(
    StageProgress,
    title=st.text(min_size=1, max_size=40).filter(lambda text: text.strip()),
    done=st.integers(0, 10**12),
    total=st.none() | st.integers(0, 10**12),
    unit=st.sampled_from(["shards", "bytes", "documents"]),
    seconds=st.floats(0, 1e7),
    state=st.sampled_from(["waiting", "running", "done", "failed"]),
)


def stage(**changes: Any) -> StageProgress:
    told = {
        "title": "Read",
        "done": 16,
        "total": 64,
        "unit": "shards",
        "seconds": 10.0,
        "state": "running",
    }
    return StageProgress(**told | changes)


def test_time_left_follows_from_the_rate_so_far() -> None:
    assert seconds_left(stage()) == pytest.approx(30)
    for unknown in (
        {"done": 0},
        {"total": None},
        {"seconds": 0.0},
        {"state": "waiting"},
        {"state": "failed"},
    ):
        assert seconds_left(stage(**unknown)) is None


def test_words_say_what_goes_on_and_what_went_wrong() -> None:
    done, failed = stage(title="Read", state="done"), stage(title="Sign", state="failed")
    _, text = seen(progress_card("Building tiny", [done, stage(title="Filter"), failed], 100.0))
    assert "1 of 3 stages done in 1 min 40 s. Now: Filter. Failed: Sign." in text


@given(st.lists(STAGES, max_size=6), st.floats(0, 1e7))
def test_any_progress_makes_a_small_card(stages: list[StageProgress], seconds: float) -> None:
    card = progress_card("Building tiny", stages, seconds)
    assert len(card.encode()) < 20_000
    tags, _ = seen(card)
    assert set(tags) <= {"h1", "p", "strong", "img src alt"}
