"""Shapes are counted right, and settings that make no sense are refused in words."""

from dataclasses import replace

import pytest
from torch import nn

from model.config import PRESETS, ModelConfig, TrainConfig
from model.gpt import GPT
from storage.errors import ConfigError

PUBLISHED = {
    "TinyLlama 1.1B": ((22, 32, 4, 64, 2048, 5632, 32_000, False), 1_100_048_384),
    "Llama 3.2 1B": ((16, 32, 8, 64, 2048, 8192, 128_256, True), 1_235_814_400),
    "SmolLM2 135M": ((30, 9, 3, 64, 576, 1536, 49_152, True), 134_515_008),
    "Llama 2 7B": ((32, 32, 32, 128, 4096, 11_008, 32_000, False), 6_738_415_616),
    "Llama 3 70B": ((80, 64, 8, 128, 8192, 28_672, 128_256, False), 70_553_706_496),
}
NAMES = (
    "n_layer",
    "n_head",
    "n_kv_head",
    "head_dim",
    "n_embd",
    "ffn_dim",
    "vocab_size",
    "tie_embeddings",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_count_of_parameters_is_that_of_published_models(name: str) -> None:
    shape, expected = PUBLISHED[name]
    assert ModelConfig(**dict(zip(NAMES, shape, strict=True))).num_params == expected


@pytest.mark.parametrize("tied", [True, False])
def test_the_count_of_parameters_is_that_of_the_model(tied: bool) -> None:
    config = replace(PRESETS["1m"], tie_embeddings=tied)
    model: nn.Module = GPT(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == config.num_params


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "5mm"}, "train.preset: expected one of .*; got '5mm'; did you mean '5m'"),
        ({"overrides": {"n_layers": 2}}, "train.overrides: .* did you mean 'n_layer'"),
        ({"overrides": {"vocab_size": 9}}, "vocab_size: it comes from the snapshot's tokenizer"),
        ({"overrides": {"n_kv_head": 3}}, "n_kv_head: expected a divisor of n_head = 4, got 3"),
        ({"batch_tokens": 1000}, "batch_tokens: expected a multiple of seq_len = 256, got 1000"),
        ({"micro_batch_size": 3}, "micro_batch_size: expected a divisor of .* = 32, got 3"),
        ({"decay_steps": 10}, "decay_steps: it has no effect under the schedule cosine"),
        ({"steps": 10, "warmup_steps": 11}, "expected warm-up and decay to fit into 10 steps"),
        ({"lr": 1e-3, "min_lr": 2e-3}, "expected 0 <= min_lr <= lr"),
        ({"keep_checkpoints": 1}, "keep_checkpoints: expected at least 2, got 1"),
        ({"betas": (0.9, 1.0)}, "betas: expected numbers in"),
        ({"seq_len": 1}, "seq_len: expected at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)
