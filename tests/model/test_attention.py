"""Attention by either route is the explicit softmax, and a document sees itself alone."""

import pytest
import torch
from torch import Tensor

from model import attention
from model.attention import attend, document_bias
from model.positions import rotate, rotation_table


def random_qkv(n_head: int, n_kv_head: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, heads, 12, 8) for heads in (n_head, n_kv_head, n_kv_head))
    q, k, v = (torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes)
    return q, k, v


def slow_attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, documents_BT: Tensor) -> Tensor:
    """Query by query, key by key."""
    out_BHTD = torch.zeros_like(q_BHTD)
    B, H, T, D = q_BHTD.shape
    for b in range(B):
        for h in range(H):
            kv = h * k_BKSD.size(1) // H
            for t in range(T):
                seen = [s for s in range(t + 1) if documents_BT[b, s] == documents_BT[b, t]]
                scores = torch.stack([q_BHTD[b, h, t] @ k_BKSD[b, kv, s] for s in seen]) / D**0.5
                weights = scores.exp() / scores.exp().sum()
                out_BHTD[b, h, t] = weights @ v_BKSD[b, kv, seen]
    return out_BHTD


@pytest.mark.parametrize("longest_products", [0, 512])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_attention_is_the_explicit_softmax(
    n_kv_head: int, longest_products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multi-query, grouped and multi-head; by PyTorch's kernel and by products; values and gradients."""
    monkeypatch.setattr(attention, "_LONGEST_PRODUCTS", longest_products)
    documents_BT = torch.tensor([[0] * 5 + [1] * 7, [3] * 12])
    qkv = random_qkv(4, n_kv_head, seed=0)
    fast = attend(*qkv, document_bias(documents_BT, torch.float32))
    slow = slow_attend(*qkv, documents_BT)
    torch.testing.assert_close(fast, slow)
    weights = torch.arange(fast.numel()).view(fast.shape).cos()
    for grads in zip(
        torch.autograd.grad((fast * weights).sum(), qkv),
        torch.autograd.grad((slow * weights).sum(), qkv),
        strict=True,
    ):
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_multi_query_is_multi_head_with_one_key_for_all() -> None:
    q, k, v = random_qkv(4, 1, seed=1)
    bias = document_bias(torch.zeros(2, 12), torch.float32)
    repeated = attend(q, k.expand(-1, 4, -1, -1), v.expand(-1, 4, -1, -1), bias)
    torch.testing.assert_close(attend(q, k, v, bias), repeated)


def test_rotated_scores_depend_on_distance_alone() -> None:
    table = rotation_table(32, 8, 10_000.0)
    q, k, _ = random_qkv(1, 1, seed=2)
    near = rotate(q, table[:, 3:15]) @ rotate(k, table[:, 3:15]).transpose(2, 3)
    far = rotate(q, table[:, 20:32]) @ rotate(k, table[:, 20:32]).transpose(2, 3)
    torch.testing.assert_close(near, far, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rotate(q, table[:, :12]).norm(dim=-1), q.norm(dim=-1))
