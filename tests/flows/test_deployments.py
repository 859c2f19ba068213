"""A real Prefect server is brought in line with recipes, again and again, and does what they say at events."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.recipe import load_recipe
from flows.schedules import check_cron
from storage.errors import ConfigError, GristmillError
from storage.lake import Lake

from .conftest import prefect_server
from .listeners import mail_server, web_listener
from .prefect_api import ask, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]

Deploy = Callable[..., list[str]]

RECIPE = """
name = "tiny"

[[sources]]
path = "*.txt"

[[schedules]]
cron = "0 2 * * *"
timezone = "Europe/Berlin"

[[schedules]]
every_s = 60
overrides = ["dedup.threshold=0.9"]

[[schedules]]
job = "train"
rrule = "FREQ=WEEKLY;BYDAY=SU;BYHOUR=4"
active = false
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server of this module's own, because deployments, schedules and automations stay on it."""
    with prefect_server(tmp_path_factory.mktemp("deployments")) as environment:
        yield environment


@pytest.fixture
def deploy(server: dict[str, str]) -> Iterator[Deploy]:
    """`deploy(lake, recipe paths...)` in this process; afterwards the server holds nothing of ours."""
    # Late: Prefect, which only marked files may load.
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from flows import deployments

    settings = {
        PREFECT_API_URL: server["PREFECT_API_URL"],
        PREFECT_HOME: Path(server["PREFECT_HOME"]),
    }

    def call(lake: Lake, *recipes: Path) -> list[str]:
        given = {str(path): load_recipe(str(path)) for path in recipes}
        return deployments.deploy(lake, given, "mill")

    with temporary_settings(settings):
        try:
            yield call
        finally:
            for path in ("automations", "deployments", "block_documents", "flow_runs"):
                for row in ask(server, f"{path}/filter", {}):
                    ask(server, f"{path}/{row['id']}", method="DELETE")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(tmp_path / "lake")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def deployments(server: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By the names that the user sees."""
    flows = {flow["id"]: flow["name"] for flow in ask(server, "flows/filter", {})}
    found = ask(server, "deployments/filter", {})
    return {f"{flows[one['flow_id']]}/{one['name']}": one for one in found}


def schedules(server: dict[str, str], name: str) -> dict[str, dict[str, Any]]:
    """Of a deployment, by what they say."""
    kinds = ("cron", "interval", "rrule")
    found = deployments(server)[name]["schedules"]
    return {str(next(s["schedule"][k] for k in kinds if k in s["schedule"])): s for s in found}


def everything(server: dict[str, str]) -> dict[str, Any]:
    """All that a deploy could touch, as the server shows it."""
    shown = deployments(server)
    for deployment in shown.values():
        for changing in ("last_polled", "status"):
            deployment.pop(changing, None)
    automations = sorted(ask(server, "automations/filter", {}), key=lambda row: row["id"])
    blocks = ask(server, "block_documents/filter", {})
    pools = ask(server, "work_pools/filter", {})
    return {"deployments": shown, "automations": automations, "blocks": blocks, "pools": pools}


def scheduled(server: dict[str, str]) -> list[dict[str, Any]]:
    question = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "limit": 200}
    return ask(server, "flow_runs/filter", question)


def runs_of(server: dict[str, str], name: str) -> list[dict[str, Any]]:
    """Flow runs of a deployment that no schedule made."""
    id = deployments(server)[name]["id"]
    question = {"flow_runs": {"deployment_id": {"any_": [id]}}, "sort": "EXPECTED_START_TIME_ASC"}
    found = ask(server, "flow_runs/filter", question)
    return [run for run in found if not run["auto_scheduled"]]


def test_a_second_deploy_changes_nothing(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, monkeypatch: Any
) -> None:
    """Ids, times of change, scheduled runs: all the same; and the runs that schedules promise really appear."""
    with recipe.open("a") as file:
        file.write('\n[[notify]]\non = ["gate failed", "source gone"]\nurl_env = "OPS_URL"\n')
    monkeypatch.setenv("OPS_URL", "https://ops.example.org/hook")
    lines = deploy(lake, recipe)
    assert sum(line.endswith(": made") for line in lines) == len(lines)
    assert set(deployments(server)) == {
        "build-corpus/tiny",
        "train-on-snapshot/tiny",
        "evaluate-release/tiny",
        "maintain-lake/lake",
    }
    wait_until(lambda: len(scheduled(server)) >= 8, 90, "scheduled runs")
    before, runs = everything(server), {run["id"] for run in scheduled(server)}
    assert deploy(lake, recipe) == []
    assert everything(server) == before
    assert runs <= {run["id"] for run in scheduled(server)}


def test_deployments_are_as_the_recipe_says(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path
) -> None:
    """Limits, schedules with their own parameters, forms; and runs by schedule have what the flow takes."""
    from flows.corpus import build_corpus

    deploy(lake, recipe)
    found = deployments(server)
    limits = {
        name: (one["global_concurrency_limit"]["limit"], one["concurrency_options"])
        for name, one in found.items()
    }
    for name, (limit, options) in limits.items():
        is_new_refused = name.startswith(("build", "maintain"))
        assert limit == 1
        assert options["collision_strategy"] == ("CANCEL_NEW" if is_new_refused else "ENQUEUE")
    build = found["build-corpus/tiny"]
    assert build["tags"] == ["gristmill", "tiny"]
    assert build["labels"]["gristmill.lake"] == lake.url
    assert (build["path"], build["entrypoint"]) == (None, "flows.corpus.build_corpus")
    assert str(recipe) in build["description"]
    assert {"corpus", "effort"} <= set(build["parameter_openapi_schema"]["properties"])
    every = schedules(server, "build-corpus/tiny")
    assert every["0 2 * * *"]["schedule"]["timezone"] == "Europe/Berlin"
    assert every["60.0"]["schedule"]["anchor_date"] == "2024-01-01T00:00:00Z"
    [weekly] = schedules(server, "train-on-snapshot/tiny").values()
    assert weekly["schedule"]["rrule"].endswith("FREQ=WEEKLY;BYDAY=SU;BYHOUR=4")
    assert not weekly["active"]
    assert list(schedules(server, "maintain-lake/lake")) == ["0 4 * * 0"]

    runs = wait_until(
        lambda: [r for r in scheduled(server) if r["deployment_id"] == build["id"]], 90
    )
    overrides = {tuple(run["parameters"]["corpus"]["overrides"]) for run in runs}
    assert overrides == {(), ("dedup.threshold=0.9",)}
    for run in runs:
        build_corpus.validate_parameters(run["parameters"])


def test_a_wrong_parameter_is_refused_by_the_form(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path
) -> None:
    """Before a process is started for it."""
    deploy(lake, recipe)
    path = f"deployments/{deployments(server)['build-corpus/tiny']['id']}/create_flow_run"
    wrong = {"parameters": {"corpus": {"recipe": str(recipe), "lak": "x"}}}
    with pytest.raises(OSError, match="409"):
        ask(server, path, wrong)


def test_a_changed_recipe_changes_what_differs(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path
) -> None:
    """Other schedules keep their ids, switches set in the UI stay, and so does what was made there."""
    deploy(lake, recipe)
    before, then = everything(server), schedules(server, "build-corpus/tiny")
    build = f"deployments/{before['deployments']['build-corpus/tiny']['id']}"
    own = [{"schedule": {"cron": "7 7 * * *"}, "active": True}]
    ask(server, f"{build}/schedules", own)
    off = f"{build}/schedules/{then['60.0']['id']}"
    ask(server, off, {"active": False}, method="PATCH")
    ask(server, build, {"paused": True}, method="PATCH")
    assert deploy(lake, recipe) == []
    assert deployments(server)["build-corpus/tiny"]["paused"]
    assert not schedules(server, "build-corpus/tiny")["60.0"]["active"]

    recipe.write_text(RECIPE.replace('"0 2 * * *"', '"0 3 * * *"'))
    [line] = deploy(lake, recipe)
    assert line.startswith("build-corpus/tiny: changed ")
    assert "schedules" in line
    now = schedules(server, "build-corpus/tiny")
    assert set(now) == {"0 3 * * *", "60.0", "7 7 * * *"}
    assert now["60.0"]["id"] == then["60.0"]["id"]
    assert not now["60.0"]["active"]
    assert deployments(server)["build-corpus/tiny"]["paused"]
    after = everything(server)
    del before["deployments"]["build-corpus/tiny"], after["deployments"]["build-corpus/tiny"]
    assert after == before
    assert deploy(lake, recipe) == []

    recipe.write_text(
        RECIPE.replace('"0 2 * * *"', '"0 3 * * *"') + '[on_snapshot]\napproval="ask"'
    )
    lines = deploy(lake, recipe)
    assert lines == [
        "train-on-snapshot/tiny: changed parameters",
        "automation 'tiny: train on a fresh snapshot': changed",
    ]
    ids = {name: one["id"] for name, one in after["deployments"].items()}
    assert {name: deployments(server)[name]["id"] for name in ids} == ids
    assert [a["id"] for a in everything(server)["automations"]] == [
        a["id"] for a in before["automations"]
    ]


def test_a_recipe_that_goes_and_comes_back(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, tmp_path: Path
) -> None:
    """Its deployments are paused, with nothing scheduled, its automations gone; then all is as before."""
    other = tmp_path / "other.toml"
    other.write_text('name = "other"\n[[sources]]\npath = "*.txt"')
    deploy(lake, recipe, other)
    ids = {name: one["id"] for name, one in deployments(server).items()}
    lines = deploy(lake, other)
    assert "build-corpus/tiny: paused, because its recipe is no longer given" in lines
    assert deploy(lake, other) == []
    assert {name for name, one in deployments(server).items() if one["paused"]} == {
        "build-corpus/tiny",
        "train-on-snapshot/tiny",
        "evaluate-release/tiny",
    }
    names = [automation["name"] for automation in ask(server, "automations/filter", {})]
    assert len(names) == 2
    assert not any(name.startswith("tiny") for name in names)
    paused = {ids["build-corpus/tiny"], ids["train-on-snapshot/tiny"]}
    assert not [run for run in scheduled(server) if run["deployment_id"] in paused]

    assert any("tiny" in line for line in deploy(lake, recipe, other))
    assert {name: one["id"] for name, one in deployments(server).items()} == ids
    assert not any(one["paused"] for one in deployments(server).values())
    assert deploy(lake, recipe, other) == []


def test_the_lake_is_looked_after_when_recipes_say(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, tmp_path: Path
) -> None:
    """Schedules of the job maintain replace the weekly one; the same in two recipes is one."""
    maintain = '\n[[schedules]]\njob = "maintain"\ncron = "30 5 * * *"\n'
    recipe.write_text(RECIPE + maintain)
    other = tmp_path / "other.toml"
    other.write_text('name = "other"\n[[sources]]\npath = "*.txt"' + maintain)
    deploy(lake, recipe, other)
    assert list(schedules(server, "maintain-lake/lake")) == ["30 5 * * *"]


def test_what_is_not_ours_is_not_touched(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, tmp_path: Path
) -> None:
    """A name of another lake, of somebody else, a pool of another type: refused before anything is changed."""
    flow = ask(server, "flows/", {"name": "build-corpus"})
    ask(server, "deployments/", {"name": "tiny", "flow_id": flow["id"]})
    before = everything(server)
    with pytest.raises(
        ConfigError, match=r"build-corpus/tiny: expected .* got one of somebody else"
    ):
        deploy(lake, recipe)
    assert everything(server) == before
    ask(server, f"deployments/{deployments(server)['build-corpus/tiny']['id']}", method="DELETE")

    deploy(lake, recipe)
    before = everything(server)
    second = Lake.open(tmp_path / "second")
    with pytest.raises(ConfigError, match=r"got one of the lake .*/lake; use another name"):
        deploy(second, recipe)
    assert everything(server) == before

    other = tmp_path / "other.toml"
    other.write_text('name = "other"\n[[sources]]\npath = "*.txt"')
    deploy(second, other)
    assert deploy(lake, recipe) == []
    assert deploy(second, other) == []


def test_two_recipes_of_one_corpus_and_wrong_overrides_are_refused(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, tmp_path: Path
) -> None:
    """In one message, before anything is changed."""
    before = everything(server)
    second = tmp_path / "second.toml"
    second.write_text(RECIPE)
    with pytest.raises(ConfigError, match=r"second.toml: expected a corpus of its own, got 'tiny'"):
        deploy(lake, recipe, second)
    recipe.write_text(RECIPE.replace("threshold=0.9", "treshold=0.9"))
    with pytest.raises(ConfigError, match=r"did you mean 'dedup.threshold'"):
        deploy(lake, recipe)
    assert everything(server) == before


def test_a_server_that_does_not_answer_is_one_message(lake: Lake, recipe: Path) -> None:
    """Not a traceback of the HTTP client."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    from flows.deployments import deploy

    settings = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    given = {str(recipe): load_recipe(str(recipe))}
    with temporary_settings(settings), pytest.raises(GristmillError, match="expected the Prefect"):
        deploy(lake, given, "mill")


def test_a_promoted_snapshot_starts_one_training(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, tmp_path: Path
) -> None:
    """With typed parameters; none for another lake's, none for the same event told again."""
    from flows import events
    from flows.training import train_on_snapshot

    deploy(lake, recipe)
    news = {"snapshot": "tiny@3", "hash": "ab", "recipe": str(recipe), "documents": 5, "tokens": 9}
    send = (events.SNAPSHOT_PROMOTED, "tiny", "ab", news)
    elsewhere = Lake.open(tmp_path / "elsewhere")
    assert events.send(elsewhere, *send)
    assert events.send(lake, events.SNAPSHOT_QUARANTINED, "tiny", "aa", news)
    assert events.send(lake, *send)
    assert events.send(lake, *send, again=True)
    assert not events.send(lake, *send)
    [run] = wait_until(lambda: runs_of(server, "train-on-snapshot/tiny"), 30, "the training")
    assert run["parameters"] == {
        "corpus": {"recipe": str(recipe), "lake": lake.url, "overrides": []},
        "training": {"snapshot": "tiny@3", "if_newer": "take the newer", "approval": "none"},
    }
    train_on_snapshot.validate_parameters(run["parameters"])
    assert sorted(run["tags"])[-2:] == ["gristmill", "tiny"]
    time.sleep(3)
    assert len(runs_of(server, "train-on-snapshot/tiny")) == 1


def test_a_trained_model_is_judged(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path
) -> None:
    """The run's name reaches the flow."""
    from flows import events
    from flows.releasing import evaluate_release

    deploy(lake, recipe)
    news = {"run": "tiny-3-5m", "hash": "cd", "snapshot": "tiny@3", "recipe": str(recipe)}
    events.send(lake, events.RUN_FINISHED, "tiny", "tiny-3-5m cd", news)
    [run] = wait_until(lambda: runs_of(server, "evaluate-release/tiny"), 30, "the evaluation")
    assert run["parameters"]["release"] == {"run": "tiny-3-5m"}
    evaluate_release.validate_parameters(run["parameters"])


def test_nothing_follows_where_the_recipe_says_so(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path
) -> None:
    """The deployments are there for whoever starts them by hand."""
    recipe.write_text(RECIPE + "[on_snapshot]\ntrain = false\n[release]\nevaluate = false\n")
    deploy(lake, recipe)
    assert ask(server, "automations/filter", {}) == []
    assert "train-on-snapshot/tiny" in deployments(server)


def test_notifications_arrive(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, monkeypatch: Any
) -> None:
    """JSON at a webhook, a mail at each receiver, both made on the server; the addresses are shown nowhere."""
    from flows import events

    notify = (
        '\n[[notify]]\non = ["gate failed", "source gone", "release promoted"]\nurl_env = "OPS_URL"\n'
        '[[notify]]\non = ["training finished"]\nurl_env = "MAIL_URL"\n'
    )
    recipe.write_text(RECIPE + notify)
    with web_listener() as (url, posts), mail_server() as mails:
        monkeypatch.setenv("OPS_URL", f"{url}/s3cret")
        monkeypatch.setenv(
            "MAIL_URL", f"smtp://127.0.0.1:{mails.port}/?to=a@x.org&from=s3cret@x.org"
        )
        deploy(lake, recipe)
        why = 'removed 0.92 of "poems" <b>\n(limit 0.5), \u00e4'
        news = {"snapshot": "tiny@4", "hash": "ef", "recipe": str(recipe), "why": why}
        events.send(lake, events.SNAPSHOT_QUARANTINED, "tiny", "ef", news)
        wait_until(lambda: posts, 30, "the webhook")
        headers, body = posts[0]
        told = json.loads(body)
        assert headers["content-type"] == "application/json"
        assert told["occasion"] == "gate failed"
        assert told["text"] == f"tiny: tiny@4 was refused by a gate\n{why}"
        assert told["payload"] == news | {"corpus": "tiny", "lake": lake.url}
        assert told["url"].endswith("/v2/dashboard")

        released = {"run": "r", "release": 2, "snapshot": "tiny@4", "bits_per_byte": 2.03456}
        events.send(lake, events.RELEASE_PROMOTED, "tiny", "2 r", released | {"why": "better"})
        wait_until(lambda: len(posts) == 2, 30, "the second")
        text = json.loads(posts[1][1])["text"]
        assert text == "tiny: release 2 is r, 2.0346 bits per byte\nbetter"

        gone = {"source": "poems/*.txt", "recipe": str(recipe), "why": "it matches nothing"}
        events.send(lake, events.SOURCE_GONE, "tiny", "poems ef", gone)
        wait_until(lambda: len(posts) == 3, 30, "the third")
        assert "poems/*.txt is gone" in json.loads(posts[2][1])["text"]

        finished = {"run": "tiny-4", "hash": "cd", "snapshot": "tiny@4", "bits_per_byte": None}
        events.send(lake, events.RUN_FINISHED, "tiny", "tiny-4 cd", finished)
        wait_until(lambda: mails.mails, 30, "the mail")
        [mail] = mails.mails
        assert (mail["To"], mail["From"]) == ("a@x.org", "s3cret@x.org")
        assert mail["Subject"] == "tiny: tiny-4 is trained"
        assert "Trained on tiny@4." in mail.get_content()
    shown = json.dumps([everything(server), ask(server, "events/filter", {"limit": 50})])
    assert "s3cret" not in shown
    assert "s3cret" not in (Path(server["PREFECT_HOME"]) / "server.log").read_text()


def test_blocks_follow_their_variables(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path, monkeypatch: Any
) -> None:
    """A new address is taken over, one that is no longer asked for is removed, a missing one is told each time."""
    from prefect.blocks.webhook import Webhook

    recipe.write_text(RECIPE + '\n[[notify]]\non = ["gate failed"]\nurl_env = "OPS_URL"\n')
    monkeypatch.delenv("OPS_URL", raising=False)
    missing = [line for line in deploy(lake, recipe) if line.startswith("notify: ")]
    assert len(missing) == 1
    assert "OPS_URL, which is not set" in missing[0]
    assert deploy(lake, recipe) == missing

    for url in ("https://one.example.org", "https://two.example.org"):
        monkeypatch.setenv("OPS_URL", url)
        deploy(lake, recipe)
        [block] = ask(server, "block_documents/filter", {})
        assert Webhook.load(block["name"]).url.get_secret_value() == url
        assert deploy(lake, recipe) == []
    monkeypatch.setenv("OPS_URL", "https:/s3cret")
    assert not any("s3cret" in line for line in deploy(lake, recipe))
    recipe.write_text(RECIPE)
    deploy(lake, recipe)
    assert ask(server, "block_documents/filter", {}) == []


def test_a_block_of_the_user(
    server: dict[str, str], deploy: Deploy, lake: Lake, recipe: Path
) -> None:
    """Until it is there a line says where to make it; then it is used, and never changed or removed."""
    from prefect.blocks.notifications import SlackWebhook
    from prefect.blocks.system import Secret

    told = (
        '\n[[notify]]\non = ["gate failed"]\nblock = "slack-webhook/data"\n'
        '[[notify]]\non = ["gate failed"]\nblock = "secret/data"\n'
    )
    recipe.write_text(RECIPE + told)
    lines = [line for line in deploy(lake, recipe) if line.startswith("notify: ")]
    assert len(lines) == 2
    assert lines[0].startswith("notify: no block slack-webhook/data yet; make it at http://127")
    assert lines[0].endswith("/v2/blocks/catalog/slack-webhook/create")
    SlackWebhook(url="https://hooks.slack.com/services/T/B/x").save("data")  # pyright: ignore[reportArgumentType]
    Secret(value="x").save("data")  # pyright: ignore[reportArgumentType]
    lines = deploy(lake, recipe)
    assert lines[0].startswith(
        "notify: block secret/data: expected one that sends, such as webhook"
    )
    assert lines[1:] == ["automation 'tiny: tell slack-webhook/data of 'gate failed'': made"]
    recipe.write_text(RECIPE)
    deploy(lake, recipe)
    assert len(ask(server, "block_documents/filter", {})) == 2


@pytest.mark.slow
def test_a_run_without_a_sign_of_life_is_crashed(
    server: dict[str, str], deploy: Deploy, recipe: Path
) -> None:
    """Within 90 s and a little, for a lake that several machines share; others are left alone."""
    deploy(Lake.open("s3://shared/lake"), recipe)
    ours = deployments(server)["build-corpus/tiny"]["id"]
    flow = ask(server, "flows/", {"name": "somebody-elses"})
    other = ask(server, "deployments/", {"name": "x", "flow_id": flow["id"]})["id"]

    def begin(deployment: str, then: str = "") -> str:
        parameters = {"corpus": {"recipe": "x"}} if deployment == ours else {}
        path = f"deployments/{deployment}/create_flow_run"
        id = ask(server, path, {"parameters": parameters, "state": {"type": "SCHEDULED"}})["id"]
        steps = ["PENDING", "RUNNING"]
        for step in steps:
            ask(server, f"flow_runs/{id}/set_state", {"state": {"type": step}, "force": True})
        event = {
            "id": str(uuid4()),
            "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{id}"},
            "related": [
                {
                    "prefect.resource.id": f"prefect.deployment.{deployment}",
                    "prefect.resource.role": "deployment",
                }
            ],
        }
        ask(server, "events", [event])
        if then:
            time.sleep(1.5)
            ask(server, f"flow_runs/{id}/set_state", {"state": {"type": then}, "force": True})
        return id

    def state(id: str) -> str:
        return ask(server, f"flow_runs/{id}")["state_type"]

    dead, foreign = begin(ours), begin(other)
    ended, paused = begin(ours, "COMPLETED"), begin(ours, "PAUSED")
    wait_until(lambda: state(dead) == "CRASHED", 130, "Crashed")
    time.sleep(10)
    assert [state(id) for id in (foreign, ended, paused)] == ["RUNNING", "COMPLETED", "PAUSED"]


def test_every_cron_that_is_taken_is_one_of_prefect() -> None:
    """And has a next time; what is in doubt, such as 22-3, we refuse and Prefect may not."""
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.server.schemas.schedules import CronSchedule as ServersCron

    rng = random.Random(0)
    ranges = [
        (0, 59, []),
        (0, 23, []),
        (1, 31, []),
        (1, 12, ["jan", "DEC"]),
        (0, 7, ["sun", "Sat"]),
    ]

    def value(low: int, high: int, names: list[str]) -> str:
        return rng.choice(names) if names and rng.random() < 0.2 else str(rng.randint(low, high))

    def part(low: int, high: int, names: list[str]) -> str:
        texts = [
            "*",
            value(low, high, names),
            f"{value(low, high, names)}-{value(low, high, names)}",
        ]
        return rng.choice(texts) + (f"/{rng.randint(1, 70)}" if rng.random() < 0.3 else "")

    taken = []
    for _ in range(3000):
        cron = " ".join(",".join(part(*r) for _ in range(rng.choice([1, 1, 2]))) for r in ranges)
        try:
            check_cron(cron)
        except ConfigError:
            continue
        taken.append(cron)
    assert len(taken) > 300
    for cron in taken:
        CronSchedule(cron=cron)
    for cron in taken[:100]:
        assert next(ServersCron(cron=cron, timezone="UTC")._get_dates_generator(n=1))
