"""What happens by itself on a Prefect server: training on fresh snapshots, judging of trained models, news, dead runs.

An automation waits for an event about a corpus of this lake (`flows/events.py`) and starts a deployment with
parameters from the event. Prefect knows no labels of automations, so the lake and the fingerprint stand in tags.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows import events
from flows.config import Recipe
from flows.notifications import Notification, notifications
from flows.remote import DEPLOYMENT_TAG, call, fingerprint, read_all
from storage.lake import Lake

DEAD_AFTER_S = 90
"""Without a sign of life; three times the interval between two."""
_LAKE, _FINGERPRINT = "lake:", "is:"


def reconcile_automations(
    client: SyncPrefectClient, lake: Lake, recipes: Mapping[str, Recipe], ids: Mapping[str, str]
) -> list[str]:
    """Make, change and remove this lake's automations and their blocks; one line a change. `ids` of deployments by name."""
    news, lines = notifications(client, lake, recipes)
    automations = [*_wanted(lake, recipes, ids), *(_tell(one, lake) for one in news)]
    wanted = {automation.name: automation for automation in automations}
    tags = {"all_": [DEPLOYMENT_TAG, _LAKE + lake.url]}
    changes, seen = [], set()
    for found in read_all(client, "/automations/filter", {"automations": {"tags": tags}}):
        name, path = found["name"], f"/automations/{found['id']}"
        if name not in wanted or name in seen:
            call(client, "DELETE", path)
            changes.append(f"automation '{name}': removed")
            continue
        seen.add(name)
        body = _body(wanted[name], lake)
        if set(body["tags"]) != set(found["tags"]):
            # Whether it is switched on is decided in the UI.
            call(client, "PUT", path, body | {"enabled": found["enabled"]})
            changes.append(f"automation '{name}': changed")
    for name, automation in wanted.items():
        if name not in seen:
            call(client, "POST", "/automations/", _body(automation, lake))
            changes.append(f"automation '{name}': made")
    return [*lines, *changes]


def _body(automation: AutomationCore, lake: Lake) -> dict[str, Any]:
    body = automation.model_dump(mode="json", exclude={"owner_resource"})
    tags = [DEPLOYMENT_TAG, *body["tags"], _LAKE + lake.url]
    # Sets are in no order that lasts.
    return body | {"tags": [*tags, _FINGERPRINT + fingerprint(_sorted(body))]}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(inner) for key, inner in value.items() if key != "id"}
    return sorted(map(_sorted, value), key=repr) if isinstance(value, list) else value


def _wanted(
    lake: Lake, recipes: Mapping[str, Recipe], ids: Mapping[str, str]
) -> list[AutomationCore]:
    # Where lake and worker are on one machine, the site sees dead processes itself (flows/reconcile.py).
    wanted = [] if lake.is_local else [_dead_runs(lake, ids)]
    for path, recipe in recipes.items():
        corpus = recipe.build.name
        parameters = {"corpus": {"recipe": path, "lake": lake.url, "overrides": []}}
        if recipe.on_snapshot.train:
            training = {
                # Typed: a template alone arrives as what the event holds.
                "snapshot": "{{ event.payload.snapshot }}",
                "if_newer": "take the newer",
                "approval": recipe.on_snapshot.approval,
            }
            ask = " once somebody agrees" if recipe.on_snapshot.approval == "ask" else ""
            wanted.append(
                AutomationCore(
                    name=f"{corpus}: train on a fresh snapshot",
                    description=(
                        f"At {events.SNAPSHOT_PROMOTED} of {corpus}: train on the newest snapshot{ask}."
                    ),
                    tags=[corpus],
                    trigger=_on(events.SNAPSHOT_PROMOTED, corpus, lake),
                    actions=[
                        _run(ids[f"train-on-snapshot/{corpus}"], parameters, training=training)
                    ],
                )
            )
        if recipe.release.evaluate:
            release = {"run": "{{ event.payload.run }}"}
            wanted.append(
                AutomationCore(
                    name=f"{corpus}: judge a trained model",
                    description=(
                        f"At {events.RUN_FINISHED} of {corpus}: compare the model with the release before it."
                    ),
                    tags=[corpus],
                    trigger=_on(events.RUN_FINISHED, corpus, lake),
                    actions=[_run(ids[f"evaluate-release/{corpus}"], parameters, release=release)],
                )
            )
    return wanted


def _on(event: str, corpus: str, lake: Lake) -> EventTrigger:
    return EventTrigger(
        expect={event},
        match=ResourceSpecification(
            {"prefect.resource.id": events.resource_id(event, corpus), "gristmill.lake": lake.url}
        ),
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _run(deployment: str, parameters: dict[str, Any], **sections: dict[str, Any]) -> RunDeployment:
    return RunDeployment(
        source="selected",
        deployment_id=UUID(deployment),
        parameters=parameters | sections,
        job_variables=None,
    )


def _tell(news: Notification, lake: Lake) -> AutomationCore:
    return AutomationCore(
        name=f"{news.corpus}: tell {news.teller} of '{news.occasion}'",
        description=(
            f"At {news.event} of {news.corpus}: one message, as [[notify]] in its recipe says."
        ),
        tags=[news.corpus],
        trigger=_on(news.event, news.corpus, lake),
        actions=[news.action],
    )


def _dead_runs(lake: Lake, ids: Mapping[str, str]) -> AutomationCore:
    # Nobody can tell a dead run from one whose server was away: after an outage of more than a minute, runs at work are
    # shown as Crashed at once and, without their concurrency slot, ended by Prefect within four minutes (measured).
    # Finished work is kept, and the next run goes on.
    return AutomationCore(
        name=f"dead runs on {lake.url}",
        description=(
            f"A run of this lake's deployments without a heartbeat for {DEAD_AFTER_S} s is shown as Crashed."
        ),
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {
                    "prefect.resource.role": "deployment",
                    "prefect.resource.id": sorted(
                        f"prefect.deployment.{id}" for id in ids.values()
                    ),
                }
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=DEAD_AFTER_S),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message=f"Its process gave no sign of life for {DEAD_AFTER_S} s; start it again, finished work is kept",
            )
        ],
    )
