"""Sampling is the full forward pass, token by token, and depends on its seed alone."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from model.config import ModelConfig, TrainConfig
from model.gpt import GPT
from model.sample import SampleConfig, generate, load_run, sample_text
from model.train import train
from storage.errors import ConfigError, NotFoundError
from storage.snapshot import Snapshot

CONFIG = ModelConfig(
    n_layer=2, n_head=4, n_kv_head=1, head_dim=8, n_embd=24, ffn_dim=40, vocab_size=50, seq_len=24
)
PROMPT = [1, 5, 9]


@pytest.fixture
def model() -> GPT:
    """All weights drawn, so that every part matters."""
    model = GPT(CONFIG)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def slow_greedy(model: GPT, prompt: list[int], num: int) -> list[int]:
    """The likeliest token of a full forward pass, again and again."""
    tokens = list(prompt)
    for _ in range(num):
        logits = F.linear(model(torch.tensor([tokens])), model.output_VC)
        tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_sampling_is_the_full_forward_pass(model: GPT) -> None:
    """Up to the last token that fits into the context."""
    config = SampleConfig(max_tokens=22, temperature=0)
    assert generate(model, PROMPT, config, stop=-1) == slow_greedy(model, PROMPT, 22)


def test_past_the_context_the_later_half_is_read_again(model: GPT) -> None:
    """24 tokens fit; of the 25 there would be, the last 12 go on as a prompt would."""
    config = SampleConfig(max_tokens=30, temperature=0)
    found = generate(model, PROMPT, config, stop=-1)
    assert len(found) == 30
    seen = (PROMPT + found)[13:25]
    assert found[22:30] == slow_greedy(model, seen, 8)


def test_draws_come_from_the_seed(model: GPT) -> None:
    """And only from the likeliest tokens; the stop token ends the text and is no part of it."""

    def draw(**changes: int) -> list[int]:
        settings = {"max_tokens": 20, "temperature": 1, "top_k": 5, "seed": 0} | changes
        return generate(model, PROMPT, SampleConfig(**settings), stop=-1)  # pyright: ignore[reportArgumentType]

    assert draw() == draw() != draw(seed=1)
    assert draw(top_k=1) == draw(temperature=0)
    first = draw()
    stop = first[7]
    config = SampleConfig(max_tokens=20, temperature=1, top_k=5)
    assert generate(model, PROMPT, config, stop=stop) == first[: first.index(stop)]


def test_a_run_can_be_sampled(snapshot: Snapshot, tiny_config: Callable[..., TrainConfig]) -> None:
    """By name, with its own tokenizer; a prompt is part of the text."""
    result = train(snapshot, snapshot.lake, tiny_config())
    loaded = load_run(snapshot.lake, result.run)
    assert loaded.step == 6
    text = sample_text(loaded.model, loaded.tokenizer, "the sea", SampleConfig(max_tokens=5))
    assert text.startswith("the sea") and len(text) > len("the sea")
    with pytest.raises(NotFoundError, match=f"nope: expected a training run .*: {result.run}"):
        load_run(snapshot.lake, "nope")


def test_settings_that_make_no_sense_are_refused(model: GPT) -> None:
    with pytest.raises(ConfigError, match="expected max_tokens >= 1, temperature >= 0"):
        SampleConfig(temperature=-1)
    with pytest.raises(ConfigError, match="expected a prompt of at least one token"):
        generate(model, [], SampleConfig(), stop=1)
