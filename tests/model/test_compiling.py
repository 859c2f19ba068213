"""Compiled blocks compute the same; where there is no compiler, training goes on without."""

from collections.abc import Callable

import pytest
import torch

from model import compiling
from model.compiling import compile_blocks, wants_compiled
from model.config import PRESETS, TrainConfig
from model.gpt import GPT
from model.train import train
from storage.snapshot import Snapshot

CPU = torch.device("cpu")
LONG = {"steps": 10_000, "batch_tokens": 4096}


def test_short_runs_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor long ones where there is no compiler; unless it is asked for."""
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/usr/bin/c++")
    assert not wants_compiled(TrainConfig(steps=100), 5_000_000, CPU)
    assert wants_compiled(TrainConfig(**LONG), 5_000_000, CPU)
    assert not wants_compiled(TrainConfig(**LONG, compile=False), 5_000_000, CPU)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert not wants_compiled(TrainConfig(**LONG), 5_000_000, CPU)
    assert wants_compiled(TrainConfig(steps=100, compile=True), 5_000_000, CPU)


def test_a_compiler_that_fails_is_done_without(
    snapshot: Snapshot, tiny_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said is passed on, and the run is that of uncompiled blocks."""

    def fail(*arguments: object, **options: object) -> object:
        raise RuntimeError("no working C++ compiler\nand more")

    plain = train(snapshot, snapshot.lake, tiny_config())
    monkeypatch.setattr(torch, "compile", lambda *arguments, **options: fail)
    events: list[dict] = []
    result = train(snapshot, snapshot.lake, tiny_config(compile=True), on_event=events.append)
    assert events[0]["event"] == "uncompiled"
    assert "which is slower: RuntimeError: no working C++ compiler" in events[0]["message"]
    assert result.hash == plain.hash


@pytest.mark.slow
def test_compiled_blocks_compute_the_same() -> None:
    """Hidden states and gradients of all blocks, which share one graph."""
    models = [GPT(PRESETS["1m"]), GPT(PRESETS["1m"])]
    assert compile_blocks(models[0], 2, torch.float32) == ""
    tokens = torch.randint(0, 4096, (2, 256), generator=torch.Generator().manual_seed(0))
    documents = (tokens < 20).cumsum(1)
    hidden = [model(tokens, documents) for model in models]
    torch.testing.assert_close(*hidden)
    for values in hidden:
        values.square().sum().backward()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
