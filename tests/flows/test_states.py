"""Names and restarts of flow runs by what Prefect knows of them."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect import runtime
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed, Running, State

from flows.reconcile import MAX_CRASHES, _may_start
from flows.states import begun


def test_a_run_is_named_by_the_time_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is there some seconds before; a run that is late is named by the time that it is."""

    def wait_for(moment: str) -> None:
        at = datetime.fromisoformat(moment)
        monkeypatch.setattr(runtime.flow_run, "scheduled_start_time", at, raising=False)

    wait_for("2999-01-01T00:38:00+00:00")
    assert begun() == "2999-01-01-0038Z"
    wait_for("2999-01-01T00:38:00+02:00")
    assert begun() == "2998-12-31-2238Z"
    wait_for("1999-01-01T00:38:00+00:00")
    before = datetime.now(UTC)
    assert f"{before:%Y-%m-%d-%H%MZ}" <= begun() <= f"{datetime.now(UTC):%Y-%m-%d-%H%MZ}"


NOW = datetime.now(UTC)


def run(state: State, minutes: float) -> FlowRun:
    """A flow run that was made so long after the site started."""
    created = NOW + timedelta(minutes=minutes)
    return FlowRun(flow_id=uuid4(), state=state, state_type=state.type, created=created)


def test_crashes_of_earlier_sites_are_not_counted() -> None:
    """However often a site is stopped, the next one resumes the training; of its own crashes it counts three."""
    earlier = [run(Crashed(), -number) for number in range(1, 9)]
    assert _may_start(earlier, NOW)
    own = [run(Crashed(), number) for number in range(MAX_CRASHES, 0, -1)]
    assert _may_start([*own[1:], *earlier], NOW)
    assert not _may_start([*own, *earlier], NOW)


def test_what_runs_or_has_ended_well_is_left_alone() -> None:
    """And a job of which no run is known is started."""
    assert _may_start([], NOW)
    assert not _may_start([run(Running(), 1), run(Crashed(), -1)], NOW)
    assert not _may_start([run(Completed(), -1), run(Crashed(), -2)], NOW)
