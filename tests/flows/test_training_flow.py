"""train-on-snapshot on a real Prefect server: once a snapshot, watched, stopped in order, approved by a person."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import TINY_MODEL, write_corpus
from .prefect_api import ask, events, wait_until

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's"),
]

Command = Callable[..., Any]
Environment = dict[str, str]

TRAIN = """
[train]
preset = "1m"
overrides = { n_layer = 1, n_embd = 64, ffn_dim = 64 }
seq_len = 64
batch_tokens = 256
steps = 6
warmup_steps = 1
eval_every = 300
checkpoint_every = 10
sample_tokens = 12
precision = "fp32"
device = "cpu"
compile = false
"""

FLOW = """
import json, sys
from flows.parameters import Corpus, Effort, Training
from flows.training import train_on_snapshot
recipe, lake, training, effort = sys.argv[1:]
state = train_on_snapshot(
    Corpus(recipe=recipe, lake=lake),
    Training(**json.loads(training)),
    Effort(workers=1, **json.loads(effort)),
    return_state=True,
)
print(json.dumps({"name": state.name, "type": state.type.value, "message": state.message}))
"""

AUTOMATIC = {"if_newer": "take the newer"}
"""What the automation asks for."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The tiny recipe with a model of one layer."""
    path = write_corpus(tmp_path / "corpus")
    path.write_text(path.read_text() + TRAIN)
    return path


@pytest.fixture
def lake(gristmill: Command, recipe: Path, tmp_path: Path) -> Path:
    """A lake with tiny@1; its name is its own, because deployments are called after it."""
    lake = tmp_path / tmp_path.name
    assert gristmill("build", recipe, "--lake", lake, "--workers", 1).code == 0
    return lake


def change(recipe: Path, **settings: Any) -> None:
    """Set keys of the recipe's [train]."""
    lines = recipe.read_text().splitlines()
    for key, value in settings.items():
        lines = [
            f"{key} = {json.dumps(value)}" if line.startswith(f"{key} =") else line
            for line in lines
        ]
    recipe.write_text("\n".join(lines) + "\n")


StartFlow = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_flow(prefect_environment: Environment, recipe: Path, lake: Path) -> Iterator[StartFlow]:
    """A function that starts the flow in a process of its own; whatever is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(training: dict[str, Any], **effort: Any) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", FLOW, recipe, lake, json.dumps(training), json.dumps(effort)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **prefect_environment, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end_of(process: "subprocess.Popen[str]") -> dict[str, str]:
    """The state that a flow came to."""
    out, err = process.communicate(timeout=120)
    assert out, err
    return json.loads(out.splitlines()[-1])


def newest_checkpoint(lake: Path) -> int:
    states = lake.glob("runs/*/checkpoints/step-*/state.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in states), default=0)


def run_file(lake: Path, name: str) -> Any:
    """A file of the lake's only run."""
    [run] = (lake / "runs").iterdir()
    return json.loads((run / name).read_text())


def test_two_flow_runs_at_once_train_once(
    prefect_environment: Environment, start_flow: StartFlow, lake: Path, recipe: Path
) -> None:
    """One trains, the other says so; later ones have nothing to do, also with another [train]; one event, one card."""
    change(recipe, steps=60)
    both = [start_flow(AUTOMATIC), start_flow(AUTOMATIC)]
    ends = sorted(end_of(process)["name"] for process in both)
    assert ends[1] == "Trained"
    assert ends[0] in ("Already trained", "Already training")

    change(recipe, steps=30)
    again = end_of(start_flow(AUTOMATIC))
    assert (again["name"], again["type"]) == ("Already trained", "COMPLETED")
    assert run_file(lake, "result.json")["steps"] == 60
    [run] = (lake / "runs").iterdir()
    claim = json.loads((lake / "corpora/tiny/training/000001.json").read_text())
    assert claim["run"] == run.name

    finished = [
        event
        for event in events(prefect_environment, 1, "gristmill.run.finished")
        if event["payload"]["lake"] == str(lake)
    ]
    assert len(finished) == 1
    assert finished[0]["resource"]["prefect.resource.id"] == "gristmill.run.tiny"
    assert finished[0]["payload"]["hash"] == run_file(lake, "result.json")["hash"]
    assert "finished" in (run / "card.md").read_text().splitlines()[0]
    cards = ask(prefect_environment, "artifacts/filter", {})
    assert {card["key"] for card in cards} >= {"training-card-tiny"}
    assert (lake / "corpora/tiny/reports/000001.html").exists()


def test_killed_training_goes_on_as_it_was_begun(
    start_flow: StartFlow, lake: Path, recipe: Path
) -> None:
    """kill -9 in mid-run, the recipe changed meanwhile: the next flow run ends the run with its own settings."""
    change(recipe, steps=400)
    flow = start_flow(AUTOMATIC)
    wait_until(lambda: newest_checkpoint(lake) > 0 or flow.poll() is not None, 90)
    assert flow.poll() is None, flow.communicate()[1]
    flow.kill()
    flow.wait()
    killed = newest_checkpoint(lake)
    assert killed < 400
    change(recipe, steps=50, checkpoint_every=7)
    done = end_of(start_flow(AUTOMATIC))
    assert done["name"] == "Trained"
    assert f"resumed from step {killed}" in done["message"]
    assert run_file(lake, "run.json")["config"]["steps"] == 400
    assert run_file(lake, "result.json")["resumed_from"] == killed

    by_hand = end_of(start_flow({"snapshot": "tiny@1"}))
    assert by_hand["name"] == "Trained", "a changed recipe trains anew where a person asks for it"
    assert len(list((lake / "runs").iterdir())) == 2


def test_training_takes_the_newest_snapshot(
    start_flow: StartFlow, gristmill: Command, lake: Path, recipe: Path
) -> None:
    """The event of tiny@1 comes to its turn when tiny@2 is there: that one is trained on, once."""
    write_corpus(recipe.parent, seed=1)
    recipe.write_text(recipe.read_text() + TRAIN)
    assert gristmill("build", recipe, "--lake", lake, "--workers", 1).code == 0
    for name in ("Trained", "Already trained"):
        assert end_of(start_flow({"snapshot": "tiny@1", **AUTOMATIC}))["name"] == name
    assert run_file(lake, "run.json")["snapshot"] == "tiny@2"
    assert [path.name for path in (lake / "corpora/tiny/training").iterdir()] == ["000002.json"]


def test_quarantined_snapshot_is_refused(
    start_flow: StartFlow, gristmill: Command, lake: Path, recipe: Path
) -> None:
    """FAILED with what to do, no traceback; without a name the newest promoted one is taken."""
    write_corpus(recipe.parent, seed=1)
    recipe.write_text(recipe.read_text() + TRAIN)
    strict = ("--set", "gates.min_documents=1000")
    assert gristmill("build", recipe, "--lake", lake, "--workers", 1, *strict).code == 3
    refused = end_of(start_flow({"snapshot": "tiny@2"}))
    assert refused["type"] == "FAILED"
    assert "tiny@2: quarantined by its gates" in refused["message"]
    assert "Traceback" not in refused["message"]
    assert end_of(start_flow(AUTOMATIC))["name"] == "Trained"
    assert run_file(lake, "run.json")["snapshot"] == "tiny@1"


def test_training_ends_at_its_limit_and_goes_on(
    start_flow: StartFlow, lake: Path, recipe: Path
) -> None:
    """TimedOut with a checkpoint, no process left; the next flow run goes on."""
    change(recipe, steps=100_000, eval_every=100_000, checkpoint_every=50_000)
    flow = start_flow(AUTOMATIC, timeout_hours=20 / 3600)
    ended = end_of(flow)
    assert (ended["type"], ended["name"]) == ("FAILED", "TimedOut"), ended
    assert "the limit that it was given" in ended["message"]
    assert not children_of(flow.pid)
    stopped = newest_checkpoint(lake)
    assert 0 < stopped < 50_000
    assert "stopped" in next((lake / "runs").glob("*/card.md")).read_text().splitlines()[0]


# --- a person is asked -------------------------------------------------------------------------

DEPLOY = """
import sys
from flows.deployments import deploy
from flows.recipe import load_recipe
from storage.lake import Lake
recipe, lake = sys.argv[1:]
deploy(Lake.open(lake), {recipe: load_recipe(recipe)}, "asking")
"""


@pytest.fixture
def start_worker(prefect_environment: Environment) -> Iterator[Callable[[], None]]:
    """A function that starts a worker, in place of the one that it killed before it."""
    workers: list[subprocess.Popen[bytes]] = []
    arguments = ["worker", "start", "--pool", "asking", "--type", "process"]

    def end() -> None:
        for worker in workers:
            worker.kill()
            worker.wait()

    def start() -> None:
        end()
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **prefect_environment, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            )
        )

    yield start
    end()


@pytest.mark.parametrize(
    "answer",
    ["train", *(pytest.param(a, marks=pytest.mark.slow) for a in ("do not train", "none"))],
)
def test_training_waits_for_a_person(
    answer: str,
    prefect_environment: Environment,
    start_worker: Callable[[], None],
    start_flow: StartFlow,
    gristmill: Command,
    recipe: Path,
    lake: Path,
) -> None:
    """The form shows the data card, outlives the worker, and decides; asked about one snapshot once."""
    corpus = f"asked-{answer.replace(' ', '-')}"  # a deployment belongs to one lake
    hours = 0.01 if answer == "none" else 1
    text = recipe.read_text().replace('name = "tiny"', f'name = "{corpus}"')
    recipe.write_text(text + f"\n[on_snapshot]\napproval_hours = {hours}\n")
    assert gristmill("build", recipe, "--lake", lake, "--workers", 1).code == 0
    subprocess.run(
        [sys.executable, "-c", DEPLOY, recipe, lake],
        check=True,
        env={**os.environ, **prefect_environment},
    )
    start_worker()
    deployment = ask(prefect_environment, f"deployments/name/train-on-snapshot/{corpus}")
    parameters = {
        "corpus": {"recipe": str(recipe), "lake": str(lake)},
        "training": {"approval": "ask", **AUTOMATIC},
        "effort": {"workers": 1},
    }
    path = f"deployments/{deployment['id']}/create_flow_run"
    run = ask(prefect_environment, path, {"parameters": parameters})["id"]

    def state() -> dict[str, Any]:
        return ask(prefect_environment, f"flow_runs/{run}")["state"]

    wait_until(lambda: state()["type"] in ("PAUSED", "FAILED", "CRASHED"), 90, "the question")
    assert (state()["type"], state()["name"]) == ("PAUSED", "Suspended"), state()

    def form() -> dict[str, Any]:
        question = {"prefix": "suspended", "limit": 9}
        rows = ask(prefect_environment, f"flow_runs/{run}/input/filter", question)
        return {row["key"].rpartition("-")[2]: json.loads(row["value"]) for row in rows}

    wait_until(lambda: "description" in form(), 20, "the form")
    shown = form()
    assert f"{corpus}@1: promoted" in shown["description"]
    assert "data:image/svg+xml" in shown["description"]
    assert shown["schema"]["properties"]["answer"]["enum"] == ["train", "do not train"]
    assert not (lake / "runs").exists()

    start_worker()  # the site was restarted meanwhile
    if answer == "none":
        wait_until(lambda: state()["type"] == "FAILED", 90, "the end of waiting")
        assert "never resumed" in state()["message"]
        assert not (lake / f"corpora/{corpus}/training").exists()
        return
    resume = {"run_input": {"answer": answer, "comment": "too many recipes"}}
    wrong = ask(prefect_environment, f"flow_runs/{run}/resume", {"run_input": {"answer": "x"}})
    assert wrong["status"] == "REJECT"
    assert ask(prefect_environment, f"flow_runs/{run}/resume", resume)["status"] == "ACCEPT"
    wait_until(lambda: state()["type"] not in ("SCHEDULED", "PENDING", "RUNNING"), 90, "the end")
    again = end_of(start_flow({"approval": "ask", **AUTOMATIC}))
    assert again["type"] == state()["type"] == "COMPLETED", state()
    if answer == "train":
        assert (state()["name"], again["name"]) == ("Trained", "Already trained")
    else:
        assert (state()["name"], again["name"]) == ("Declined", "Declined")
        assert f"{corpus}@1: declined (too many recipes)" in again["message"]
        assert not (lake / "runs").exists()


def children_of(pid: int) -> list[int]:
    """Training processes that were told to die with this one, and run."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_text().split("\0")
            is_zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (OSError, IndexError):  # no process, or gone meanwhile
            continue
        if f"--die-with={pid}" in arguments and not is_zombie:
            found.append(int(process.name))
    return found


def test_training_through_prefect_stops_dies_and_goes_on(
    prefect_environment: Environment,
    gristmill: Command,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """SIGTERM leaves a checkpoint and exit code 75, kill -9 leaves no process, the same command ends the run."""
    lake = tmp_path / "lake"
    assert gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1).code == 0
    longer = ("train.steps=400", "train.eval_every=400", "train.checkpoint_every=20")
    settings = [item for setting in longer for item in ("--set", setting)]
    options = ("--lake", lake, *TINY_MODEL, *settings, "--run", "watched", "--workers", 1)
    arguments = [str(argument) for argument in ("train", tiny_recipe, *options, "--flow")]

    def interrupt(number: signal.Signals, from_step: int) -> tuple[int, str]:
        flow = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **prefect_environment},
        )
        try:
            wait_until(lambda: newest_checkpoint(lake) > from_step or flow.poll() is not None, 90)
            assert flow.poll() is None, flow.communicate()[1]
            children = children_of(flow.pid)
            flow.send_signal(number)
            _, err = flow.communicate(timeout=60)
        finally:
            flow.kill()
        assert len(children) == 1
        wait_until(lambda: not children_of(flow.pid), 10)
        return flow.returncode, err

    code, err = interrupt(signal.SIGTERM, 0)
    assert code == 75, err
    assert "the same command goes on" in err
    stopped = newest_checkpoint(lake)
    assert interrupt(signal.SIGKILL, stopped)[0] == -signal.SIGKILL
    killed = newest_checkpoint(lake)
    assert 0 < stopped < killed < 400

    done = gristmill_process(*arguments, "--json", **prefect_environment)
    assert done.code == 0, done.err
    assert done.json["resumed_from"] >= killed
    assert f"resumed from step {done.json['resumed_from']}" in done.err
    direct = gristmill(*arguments[:-1], "--no-flow", "--json").json
    assert direct["was_finished"]
    assert direct["hash"] == done.json["hash"]
