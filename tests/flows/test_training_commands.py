"""train, sample and run on a tiny corpus and a model of one layer; a stopped run goes on with the same command."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.process import run_json

from .conftest import TINY_MODEL, write_corpus

Command = Callable[..., Any]


@pytest.fixture
def lake(gristmill: Command, tiny_recipe: Path, tmp_path: Path) -> Path:
    """A lake with the tiny corpus."""
    assert gristmill("build", tiny_recipe, "--lake", tmp_path / "lake", "--workers", 1).code == 0
    return tmp_path / "lake"


@pytest.fixture
def trained(gristmill: Command, tiny_recipe: Path, lake: Path) -> dict[str, Any]:
    """What `train --json` said of a finished run."""
    answer = gristmill("train", tiny_recipe, "--lake", lake, "--workers", 1, *TINY_MODEL, "--json")
    assert answer.code == 0, answer.err
    return answer.json


def test_train_says_what_it_came_to(trained: dict[str, Any]) -> None:
    """Losses, bits per byte beside the unigram model's for each domain, a sample."""
    assert trained["snapshot"] == "tiny@1"
    assert (trained["steps"], trained["resumed_from"], trained["was_finished"]) == (6, None, False)
    assert trained["evaluation"]["step"] == 6
    for figures in trained["evaluation"]["domains"].values():
        assert figures["bits_per_byte"] > 0 < figures["unigram_bits_per_byte"]
    assert [sample["step"] for sample in trained["samples"]] == [6]


def test_finished_run_is_not_trained_again(
    trained: dict[str, Any], gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """The same command says so and gives the same run."""
    again = gristmill("train", tiny_recipe, "--lake", lake, *TINY_MODEL, "--json")
    assert again.json["was_finished"]
    assert again.json["hash"] == trained["hash"]
    assert "nothing to do" in again.err


def test_hash_of_a_run(
    trained: dict[str, Any], gristmill: Command, lake: Path, tmp_path: Path
) -> None:
    """By name in the lake, or by folder from anywhere."""
    for arguments in ((trained["run"], "--lake", lake), (lake / "runs" / trained["run"],)):
        assert gristmill("hash", *arguments).out == trained["hash"] + "\n"
    missing = gristmill("hash", "tiny-9", "--lake", lake)
    assert missing.code == 2
    assert trained["run"] in missing.err


def test_sample_goes_on_from_a_text(
    trained: dict[str, Any], gristmill: Command, lake: Path
) -> None:
    """By run, folder, corpus or snapshot; the same seed gives the same text, another one another."""
    texts = {
        gristmill("sample", ref, "The man", "--lake", lake, "--tokens", 12).out
        for ref in (trained["run"], lake / "runs" / trained["run"], "tiny", "tiny@1")
    }
    assert len(texts) == 1
    assert texts.pop().startswith("The man")
    one, other = (
        gristmill("sample", "tiny", "The", "--lake", lake, "--seed", seed, "--json").json["text"]
        for seed in (0, 1)
    )
    assert one != other
    assert gristmill("sample", "tiny@2", "--lake", lake).code == 2


def test_run_does_everything(gristmill: Command, tiny_recipe: Path, tmp_path: Path) -> None:
    """Build, train, sample and report; again, there is nothing to do but the report."""
    arguments = ("run", tiny_recipe, "--lake", tmp_path / "lake", "--workers", 1, *TINY_MODEL)
    done = gristmill(*arguments)
    assert done.code == 0, done.err
    for part in ("tiny@1 promoted", "quarantined", "unigram", "conversation", "Sample"):
        assert part in done.out
    report = Path(done.out.splitlines()[-1].removeprefix("report: "))
    page = report.read_text()
    assert "tiny@1" in page
    again = gristmill(*arguments, "--json").json
    assert again["build"]["status"] == "unchanged"
    assert again["train"]["was_finished"]
    assert again["report"] == str(report)


def test_stopped_training_goes_on(
    gristmill: Command, gristmill_process: Command, tiny_recipe: Path, lake: Path
) -> None:
    """SIGTERM: a checkpoint, exit code 75; the same command says where it goes on and comes to the same hash."""
    longer = ("train.steps=60", "train.eval_every=60", "train.checkpoint_every=20")
    settings = [item for setting in longer for item in ("--set", setting)]
    options = ("--lake", lake, *TINY_MODEL, *settings, "--workers", 1, "--run", "stopped")
    arguments = [str(argument) for argument in ("train", tiny_recipe, *options)]
    work = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoints = lake / "runs/stopped/checkpoints"
    end = time.monotonic() + 60
    while not list(checkpoints.glob("step-*/state.json")):
        assert work.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    work.send_signal(signal.SIGTERM)
    out, err = work.communicate(timeout=60)
    assert work.returncode == 75, err
    assert out == ""
    assert "gristmill train" in err.splitlines()[-1]
    last = max(int(path.name.removeprefix("step-")) for path in checkpoints.iterdir())
    resumed = gristmill_process(*arguments)
    assert resumed.code == 0, resumed.err
    assert f"resumed from step {last}" in resumed.err
    assert f"resumed from step {last}" in resumed.out
    whole = gristmill(*arguments[:-1], "whole", "--json")
    assert whole.json["hash"] in resumed.out


def test_sample_passes_over_a_run_that_has_not_got_far(
    trained: dict[str, Any], gristmill: Command, lake: Path
) -> None:
    """One that ended before its first checkpoint hides none that can be sampled."""
    begun = lake / "runs" / "begun" / "run.json"
    begun.parent.mkdir()
    begun.write_bytes((lake / "runs" / trained["run"] / "run.json").read_bytes())
    answer = gristmill("sample", "tiny", "The", "--lake", lake, "--tokens", 2, "--json")
    assert answer.json["run"] == trained["run"]
    huge = gristmill("sample", "tiny", "The", "--lake", lake, "--seed", 2**64)
    assert huge.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--snapshot", "tiny@7"), "tiny@7"),
        (("--snapshot", "other"), "other"),
        (("--set", "train.preset=9m"), "train.preset: expected one of"),
        (("--set", "train.steps=0"), "train.steps: expected at least 1, got 0"),
        (("--run", "../x"), "../x"),
        (("--run", ""), "--run: expected a name, got an empty text"),
        (("--snapshot", ""), "--snapshot: expected a name, got an empty text"),
    ],
)
def test_wrong_training_is_refused(
    arguments: tuple[str, ...], message: str, gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """Exit code 2 before anything is trained."""
    answer = gristmill("train", tiny_recipe, "--lake", lake, *TINY_MODEL, *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert not (lake / "runs").exists()


def test_damaged_checkpoint_is_passed_over(
    trained: dict[str, Any], gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """The one before it is used, and the damage told by name."""
    folder = lake / "runs" / trained["run"]
    newest = folder / "checkpoints/step-000006/model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    answer = gristmill("sample", "tiny", "--lake", lake, "--json")
    assert answer.json["step"] == 4
    assert gristmill("hash", trained["run"], "--lake", lake).code in (0, 1)


def test_evaluate_gives_what_training_gave(
    trained: dict[str, Any], gristmill: Command, lake: Path
) -> None:
    """On the same snapshot, bit for bit; by run or corpus."""
    for ref in (trained["run"], "tiny"):
        found = gristmill("evaluate", ref, "--lake", lake, "--workers", 1, "--json").json
        assert found["run_hash"] == trained["hash"]
        assert {"step": found["step"], **found["evaluation"]} == trained["evaluation"]
    shown = gristmill("evaluate", "tiny", "--lake", lake, "--workers", 1)
    assert "conversation" in shown.out
    assert f"{trained['bits_per_byte']:.3f} bits per byte" in shown.out


def test_evaluate_takes_the_newest_snapshot(
    trained: dict[str, Any], gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """Validation documents that came later count, so that models of different days are compared on the same ones."""
    write_corpus(tiny_recipe.parent, seed=1, documents=60)
    assert gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1).code == 0
    newer = gristmill("evaluate", "tiny", "--lake", lake, "--json").json
    assert newer["snapshot"] == "tiny@2"
    assert newer["evaluation"]["tokens"] > trained["evaluation"]["tokens"]
    older = gristmill("evaluate", "tiny", "--snapshot", "tiny@1", "--lake", lake, "--json").json
    assert older["evaluation"]["loss"] == trained["loss"]


def test_evaluate_refuses_another_tokenizer_and_damage(
    trained: dict[str, Any], gristmill: Command, lake: Path, tmp_path: Path
) -> None:
    """Tokens that the model does not know are no test of it, and an older checkpoint is another model."""
    other = write_corpus(tmp_path / "other", seed=5)
    other.write_text(other.read_text().replace('name = "tiny"', 'name = "other"'))
    assert gristmill("build", other, "--lake", lake, "--workers", 1).code == 0
    answer = gristmill("evaluate", "tiny", "--snapshot", "other", "--lake", lake)
    assert answer.code == 2
    assert "expected a snapshot of its tokenizer" in answer.err
    newest = lake / "runs" / trained["run"] / "checkpoints/step-000006/model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    damaged = gristmill("evaluate", "tiny", "--lake", lake)
    assert damaged.code == 1
    assert "step-000006/model.safetensors: expected sha256" in damaged.err


def test_as_begun_goes_on_with_the_runs_own_settings(
    trained: dict[str, Any], gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """The recipe's settings do not count; what would have no effect is refused."""
    train = ("train", tiny_recipe, "--lake", lake)
    done = gristmill(*train, "--run", trained["run"], "--as-begun", "--json")
    assert done.json["hash"] == trained["hash"]
    assert "begun with other settings" in gristmill(*train, "--run", trained["run"]).err
    for options, message in (
        (("--as-begun",), "named by --run"),
        (("--as-begun", "--run", "x", "--set", "train.steps=3"), "leave --set out"),
        (("--as-begun", "--run", "x", "--flow"), "leave --flow out"),
        (("--as-begun", "--run", "x"), "expected a run of"),
    ):
        answer = gristmill(*train, *options)
        assert answer.code == 2
        assert message in answer.err


def test_events_are_rows_of_the_run(tiny_recipe: Path, lake: Path) -> None:
    """Each step and each event as a line of JSON, in order; what is shown on stderr stays the same."""
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    command = [sys.executable, "-m", "flows.cli", "train", str(tiny_recipe), "--lake", str(lake)]
    document = run_json([*command, *TINY_MODEL, "--json"], lines.append, rows.append)
    assert [row["step"] for row in rows if "event" not in row] == [1, 2, 3, 4, 5, 6]
    kinds = [row["event"] for row in rows if "event" in row]
    assert kinds[0] == "start"
    assert set(kinds) == {"start", "checkpoint", "sample", "evaluation"}
    last = next(row for row in reversed(rows) if row.get("event") == "evaluation")
    assert last["bits_per_byte"] == document["bits_per_byte"]
    assert any("parameters" in line for line in lines)
