"""The decoder looks neither ahead nor into other documents, and its cache changes nothing."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model.config import PRESETS, ModelConfig
from model.gpt import GPT

CONFIG = ModelConfig(
    n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=24, ffn_dim=40, vocab_size=50, seq_len=32
)


def random_model(config: ModelConfig = CONFIG) -> GPT:
    """All weights drawn, also those that begin at zero, and larger, so that every part matters."""
    model = GPT(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def random_tokens(batch_size: int, num: int) -> torch.Tensor:
    return torch.randint(0, 50, (batch_size, num), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_a_later_token_changes_no_earlier_one() -> None:
    model, tokens = random_model(), random_tokens(1, 20)
    before = model(tokens)
    tokens[0, 12] = (tokens[0, 12] + 1) % 50
    after = model(tokens)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.isclose(before[:, 12:], after[:, 12:]).all(-1).any()


@torch.no_grad()
def test_packed_documents_are_as_if_alone() -> None:
    """Documents side by side in one row give what each gives in a row of its own."""
    model, tokens = random_model(), random_tokens(1, 30)
    lengths = [11, 1, 18]
    numbers = torch.tensor([n for n, length in enumerate(lengths) for _ in range(length)])
    packed = model(tokens, numbers[None])
    alone = torch.cat([model(part) for part in tokens.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_the_cache_changes_nothing(n_kv_head: int, tied: bool) -> None:
    """A prompt at once, some tokens together, others one by one: the logits are those of one full pass."""
    model = random_model(replace(CONFIG, n_kv_head=n_kv_head, tie_embeddings=tied))
    tokens = random_tokens(2, 32)
    full = F.linear(model(tokens), model.output_VC)
    caches, begin = model.new_caches(2), 0
    for num in [7, 1, 1, 5, 1, 17]:
        logits = model.extend(tokens[:, begin : begin + num], caches)
        begin += num
        torch.testing.assert_close(logits, full[:, begin - 1], rtol=1e-4, atol=1e-4)


def test_weights_come_from_the_seed_alone() -> None:
    """A new model knows nothing: its loss is that of a guess."""
    torch.manual_seed(0)
    one = GPT(PRESETS["1m"], seed=3)
    torch.manual_seed(1)
    same, other = GPT(PRESETS["1m"], seed=3), GPT(PRESETS["1m"], seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
    tokens = torch.arange(64).view(1, 64)
    logits = F.linear(one(tokens), one.output_VC)
    assert abs(F.cross_entropy(logits[0, :-1], tokens[0, 1:]).item() - math.log(4096)) < 0.1
