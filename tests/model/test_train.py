"""A run goes on as if it had never stopped, says what it did, and refuses what would make it another run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import checkpoint_folder, checkpoint_steps, run_hash
from model.config import TrainConfig
from model.loader import Loader
from model.train import train
from storage.errors import BusyError, ConfigError, GristmillError, Interrupted
from storage.lake import Lake
from storage.snapshot import Snapshot

TinyConfig = Callable[..., TrainConfig]
MakeSnapshot = Callable[..., Snapshot]

CHILD = """
import json, sys, time, torch
from model.config import TrainConfig
from model.train import train
from storage.catalog import resolve
from storage.lake import Lake
torch.set_num_threads(1)
lake = Lake.open(sys.argv[1])

def on_step(row):
    print(row["step"], flush=True)
    if row["step"] == int(sys.argv[3]):
        time.sleep(600)

train(resolve(lake, "tiny"), lake, TrainConfig(**json.loads(sys.argv[2])), run="run", on_step=on_step)
"""


def start_child(lake: Lake, config: TrainConfig, wait_at: int = 0) -> "subprocess.Popen[str]":
    """A process that trains, printing each step, up to the one it is to wait at."""
    command = [sys.executable, "-c", CHILD, lake.url, json.dumps(asdict(config)), str(wait_at)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    )


def wait_for_step(child: "subprocess.Popen[str]", step: int) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= step:
            return
    raise AssertionError(child.communicate()[1])


def read_rows(snapshot: Snapshot, run: str, name: str) -> list[dict[str, Any]]:
    lines = snapshot.lake.read_bytes(f"runs/{run}/{name}.jsonl").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("changed", "steps_scored"),
    [
        ({"eval_tokens": 16}, [10, 20, 20]),  # the sample once more, then all
        ({"eval_tokens": 16, "eval_every": 20}, [20]),  # nothing to compare the sample with
        ({"eval_tokens": 16, "final_eval_tokens": 16}, [10, 20]),  # the end asks for no more
        ({"eval_tokens": 10**6}, [10, 20]),  # the sample is all there is
    ],
)
def test_the_last_evaluation_is_also_over_the_sample(
    snapshot: Snapshot, tiny_config: TinyConfig, changed: dict[str, Any], steps_scored: list[int]
) -> None:
    """A curve needs the same sample from its first point to its last; the result is over what is scored at the end."""
    settings = {"steps": 20, "batch_tokens": 256, "eval_every": 10, "checkpoint_every": 20}
    told: list[dict[str, Any]] = []
    config = tiny_config(**(settings | changed))
    result = train(snapshot, snapshot.lake, config, on_event=told.append)
    assert [row["step"] for row in result.evaluations] == steps_scored
    assert len({row["share"] for row in result.evaluations[:2]}) == 1
    last = result.evaluations[-1]
    assert (result.loss, result.bits_per_byte) == (last["loss"], last["bits_per_byte"])
    messages = [row["message"] for row in told if row["event"] == "evaluation"]
    part = "all" if last["share"] == 1 else "a sample of"
    assert f"on {part} {last['tokens']:,} validation tokens" in messages[-1]
    assert len(result.samples) == len(config.sample_prompts)


def test_the_last_evaluation_is_in_proportion_to_the_run(
    snapshot: Snapshot, tiny_config: TinyConfig
) -> None:
    """A quarter of the tokens trained on, whatever the split would hold."""
    shares = []
    for steps in (1, 2):
        config = tiny_config(steps=steps, warmup_steps=0, eval_tokens=16, checkpoint_every=1)
        (evaluation,) = train(snapshot, snapshot.lake, config).evaluations
        shares.append(evaluation["share"])
    assert shares == [shares[0], 2 * shares[0]]
    assert shares[1] < 1


def test_a_run_learns(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """After 60 steps on a song that repeats itself the model knows far more than how frequent tokens are."""
    config = tiny_config(steps=60, batch_tokens=256, lr=1e-2, eval_every=30, checkpoint_every=60)
    result = train(snapshot, snapshot.lake, config)
    assert result.bits_per_byte is not None and result.unigram_bits_per_byte is not None
    assert result.bits_per_byte < 0.8 * result.unigram_bits_per_byte
    assert [row["step"] for row in result.evaluations] == [30, 60, 60]
    assert set(result.evaluations[-1]["domains"]) == {"poetry", "science", "web"}
    assert (result.steps, result.tokens, result.resumed_from) == (60, 60 * 256, None)
    assert result.hash == run_hash(snapshot.lake, result.run)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_goes_on_bit_for_bit(
    snapshot: Snapshot, tiny_config: TinyConfig, precision: str
) -> None:
    """N steps, kill -9 of a real process, and N more are 2N steps: weights, optimizer, every loss, every sample."""
    config = tiny_config(steps=40, checkpoint_every=20, eval_every=15, precision=precision)
    child = start_child(snapshot.lake, config, wait_at=33)
    wait_for_step(child, 33)
    child.kill()
    child.communicate()
    last = checkpoint_steps(snapshot.lake, "run")[-1]
    assert last == 20
    events: list[dict] = []
    resumed = train(snapshot, snapshot.lake, config, run="run", on_event=events.append)
    assert events[0] == {
        "event": "resumed",
        "message": f"run 'run': resumed from step {last}",
        "step": last,
    }
    whole = train(snapshot, snapshot.lake, config, run="whole")
    assert (resumed.hash, resumed.resumed_from, whole.resumed_from) == (whole.hash, last, None)
    for name in ("metrics", "ledger", "samples"):
        rows = [read_rows(snapshot, run, name) for run in ("run", "whole")]
        for row in rows[0] + rows[1]:
            row.pop("seconds", None)
            row.pop("tokens_per_s", None)
        assert rows[0] == rows[1]


def test_sigterm_ends_with_a_checkpoint(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """The process stops after the step it is in, with our error; the run goes on from exactly there."""
    config = tiny_config(steps=100_000, checkpoint_every=50_000, eval_every=50_000)
    child = start_child(snapshot.lake, config)
    wait_for_step(child, 3)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 1 and "Interrupted: run 'run' stopped at step" in err
    assert "the same command goes on from there" in err
    (step,) = checkpoint_steps(snapshot.lake, "run")
    assert step == int(out.split()[-1] if out else 3)
    assert [row["step"] for row in read_rows(snapshot, "run", "ledger")] == list(range(1, step + 1))


def test_ctrl_c_in_this_process(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """The handlers that were there before are there again."""
    before = signal.getsignal(signal.SIGINT)

    def interrupt(row: dict) -> None:
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped at step 3 of 6 with a checkpoint"):
        train(snapshot, snapshot.lake, tiny_config(), run="run", on_step=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    steps: list[int] = []
    train(
        snapshot,
        snapshot.lake,
        tiny_config(),
        run="run",
        on_step=lambda row: steps.append(row["step"]),
    )
    assert steps == [4, 5, 6]


def test_a_finished_run_is_not_trained_again(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """Without a name, the same snapshot and settings are the same run; other settings are another."""
    first = train(snapshot, snapshot.lake, tiny_config())
    events: list[dict] = []
    again = train(
        snapshot, snapshot.lake, tiny_config(), on_step=events.append, on_event=events.append
    )
    assert again.was_finished and not first.was_finished
    assert (again.run, again.hash, again.evaluations) == (first.run, first.hash, first.evaluations)
    assert [event["event"] for event in events] == ["finished"]
    assert train(snapshot, snapshot.lake, tiny_config(lr=1e-3)).run != first.run


def test_a_damaged_checkpoint_is_passed_over(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """The run goes on from the one before, says which was damaged, and ends as it would have."""
    whole = train(snapshot, snapshot.lake, tiny_config(), run="whole")

    def stop(row: dict) -> None:
        if row["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(snapshot, snapshot.lake, tiny_config(), run="run", on_step=stop)
    path = snapshot.lake.local_path(f"{checkpoint_folder('run', 5)}/optimizer.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    events: list[dict] = []
    result = train(snapshot, snapshot.lake, tiny_config(), run="run", on_event=events.append)
    assert events[0]["event"] == "damaged"
    assert "step-000005/optimizer.safetensors: expected sha256" in events[0]["message"]
    assert (result.resumed_from, result.hash) == (4, whole.hash)


def test_the_ledger_says_what_each_step_saw(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    config = tiny_config()
    result = train(snapshot, snapshot.lake, config)
    loader = Loader(snapshot, batch_size=4, seq_len=16, seed=config.seed)
    rows = read_rows(snapshot, result.run, "ledger")
    assert [(row["step"], row["batch"]) for row in rows] == [(k + 1, k) for k in range(6)]
    for row in rows:
        assert row["samples"] == loader.samples(row["batch"]).tolist()


def test_micro_batches_change_nothing(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """Gradients of parts add up to those of the batch, also where parts have different numbers of targets."""
    losses = []
    for size in (1, 4):
        config = tiny_config(micro_batch_size=size, seq_len=64, batch_tokens=256)
        result = train(snapshot, snapshot.lake, config)
        rows = read_rows(snapshot, result.run, "metrics")
        losses.append([row["loss"] for row in rows if "domains" not in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_run_is_not_begun_with_other_settings(
    snapshot: Snapshot, tiny_config: TinyConfig
) -> None:
    train(snapshot, snapshot.lake, tiny_config(), run="run")
    with pytest.raises(
        ConfigError, match=r"'run' was begun with other settings \(config.lr 0.002 -> 0.5\)"
    ):
        train(snapshot, snapshot.lake, tiny_config(lr=0.5), run="run")


def test_two_processes_do_not_train_one_run(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    busy: list[BusyError] = []

    def begin_again(row: dict) -> None:
        with pytest.raises(BusyError, match="already training run 'run'") as caught:
            train(snapshot, snapshot.lake, tiny_config(), run="run")
        busy.append(caught.value)

    train(snapshot, snapshot.lake, tiny_config(steps=2), run="run", on_step=begin_again)
    assert len(busy) == 2


def test_training_works_outside_the_main_thread(
    snapshot: Snapshot, tiny_config: TinyConfig
) -> None:
    """Where signals cannot be caught."""
    results = []
    thread = threading.Thread(
        target=lambda: results.append(train(snapshot, snapshot.lake, tiny_config()))
    )
    thread.start()
    thread.join()
    assert results[0].steps == 6


def test_a_loss_that_is_no_number_ends_the_run(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    """With step, batch and what to do; the checkpoint before it stays."""
    config = tiny_config(steps=60, lr=1e18, grad_clip=1e30, warmup_steps=0, checkpoint_every=1)
    with pytest.raises(
        GristmillError, match=r"expected a finite loss, got .* \(batch \d+\).*lower train.lr"
    ):
        train(snapshot, snapshot.lake, config, run="run")
    assert checkpoint_steps(snapshot.lake, "run")


def test_a_snapshot_without_validation_can_be_trained_on(
    make_snapshot: MakeSnapshot, tiny_config: TinyConfig
) -> None:
    snapshot = make_snapshot([("poetry", "some words " * 9, "train")], num_shards=1, vocab_size=330)
    result = train(snapshot, snapshot.lake, tiny_config(steps=2))
    assert (result.bits_per_byte, result.loss, result.evaluations) == (None, None, [])
    assert len(result.samples) == 1


def test_time_is_measured(snapshot: Snapshot, tiny_config: TinyConfig) -> None:
    began = time.monotonic()
    rows: list[dict] = []
    result = train(snapshot, snapshot.lake, tiny_config(), on_step=rows.append)
    assert 0 < sum(row["seconds"] for row in rows) < result.seconds < time.monotonic() - began
    assert rows[-1]["tokens"] == 6 * 64 and rows[-1]["tokens_per_s"] > 0
