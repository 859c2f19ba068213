"""The learning rate rises and falls as it should, and the optimizer's state survives being stored."""

import itertools

import pytest
import torch

from model.config import PRESETS, TrainConfig
from model.gpt import GPT
from model.optim import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)
from storage.errors import CorruptError


def rates(config: TrainConfig) -> list[float]:
    return [learning_rate(step, config) for step in range(1, config.steps + 1)]


def test_cosine_rises_then_falls_to_its_least() -> None:
    found = rates(TrainConfig(steps=100, warmup_steps=10, lr=1.0, min_lr=0.1))
    assert found[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert found[54] == pytest.approx(0.55)  # half way down
    assert found[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(found[9:]))


def test_wsd_holds_then_falls_straight() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, lr=1.0, schedule="wsd")
    found = rates(config)
    assert found[9:80] == [1.0] * 71
    assert found[80:] == pytest.approx([0.05 * left for left in range(19, -1, -1)])
    assert rates(TrainConfig(steps=4, warmup_steps=4, lr=1.0, schedule="wsd"))[-1] == 1.0


def test_only_matrices_decay() -> None:
    model = GPT(PRESETS["1m"])
    decayed, free = make_optimizer(model, TrainConfig()).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.dim() == 2 for parameter in decayed["params"])
    assert any(parameter is model.embedding.weight for parameter in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_a_stored_optimizer_goes_on_as_before() -> None:
    """One more step after storing and loading is that step without."""
    config = TrainConfig()
    models = [GPT(PRESETS["1m"]), GPT(PRESETS["1m"])]
    optimizers = [make_optimizer(model, config) for model in models]

    def step(number: int) -> None:
        models[number](torch.arange(32).view(1, 32)).square().sum().backward()
        optimizers[number].step()
        optimizers[number].zero_grad()

    step(0)
    models[1].load_state_dict(models[0].state_dict())
    stored = {
        key: value.clone() for key, value in optimizer_tensors(models[0], optimizers[0]).items()
    }
    load_optimizer_tensors(models[1], optimizers[1], stored)
    step(0)
    step(1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True)
    )
    del stored["final_norm.weight/exp_avg"], stored["final_norm.weight/exp_avg_sq"]
    del stored["final_norm.weight/step"]
    with pytest.raises(
        CorruptError, match=r"expected that of 26 parameters, got 25; .*final_norm.weight"
    ):
        load_optimizer_tensors(models[1], optimizers[1], stored)
