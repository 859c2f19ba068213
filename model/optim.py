"""AdamW and the learning rate of each step."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.config import TrainConfig
from storage.errors import CorruptError


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) in one fused kernel; only matrices decay, embeddings and norms do not."""
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and not name.startswith(("embedding", "head"))
        (decayed if is_matrix else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of a step, counted from 1: linear warm-up, then cosine, or hold and linear decay (WSD); ends at min_lr."""
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    if config.schedule == "cosine":
        num_falling = config.steps - config.warmup_steps
        fallen = (step - config.warmup_steps) / num_falling
        share = 0.5 * (1 + math.cos(math.pi * fallen))
    else:
        num_falling = config.decay_steps
        if num_falling is None:
            num_falling = min(-(-config.steps // 5), config.steps - config.warmup_steps)
        share = min(1.0, (config.steps - step) / num_falling) if num_falling else 1.0
    return config.min_lr + (config.lr - config.min_lr) * share


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use this rate for all parameters in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state under names of parameters ("blocks.0.down.weight/exp_avg"), to be stored."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave. Raises CorruptError if it is another model's."""
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, what = key.rpartition("/")
        states.setdefault(name, {})[what] = value
    parameters = dict(model.named_parameters())
    if states.keys() != parameters.keys():
        odd = sorted(states.keys() ^ parameters.keys())
        raise CorruptError(
            f"optimizer state: expected that of {len(parameters)} parameters, got {len(states)}; first odd one: {odd[0]}"
        )
    for name, state in states.items():
        device = parameters[name].device
        # The fused kernel wants the step counter beside the parameter, in float32, as it was saved.
        optimizer.state[parameters[name]] = {key: value.to(device) for key, value in state.items()}
