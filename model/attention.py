"""Attention that never leaves a document: one class for many, grouped and single key/value heads, with a KV cache."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.positions import rotate

# Dimensions: B batch, T queries, S keys, C model width, H query heads, K key/value heads, G = H / K queries a key,
# D head width, P = D / 2, N = H + 2 K

_NEVER = -30_000.0
"""Added to the scores of keys that must not be seen: finite in every dtype, and its exponential is 0."""
_LONGEST_PRODUCTS = 512
"""Keys up to which plain products win on a CPU; their memory grows with the square of it."""


def document_bias(documents_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T, T) to add to scores: 0 where a key is not later than the query and of the same document."""
    seq_len = documents_BT.size(1)
    seen_BTS = documents_BT[:, :, None] == documents_BT[:, None, :]
    seen_BTS &= seen_BTS.new_ones(seq_len, seq_len).tril()
    return torch.zeros(seen_BTS.shape, dtype=dtype, device=seen_BTS.device).masked_fill_(
        ~seen_BTS, _NEVER
    )


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, bias_BTS: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v, (B, H, T, D); no bias lets every query see every key.

    K = H is multi-head, K = 1 multi-query, between them grouped-query (arXiv:2305.13245). The bias has the dtype of q.
    """
    if bias_BTS is not None and q_BHTD.is_cpu and k_BKSD.size(2) <= _LONGEST_PRODUCTS:
        return _attend_by_products(q_BHTD, k_BKSD, v_BKSD, bias_BTS)
    return F.scaled_dot_product_attention(
        q_BHTD,
        k_BKSD,
        v_BKSD,
        attn_mask=None if bias_BTS is None else bias_BTS[:, None],
        enable_gqa=q_BHTD.size(1) != k_BKSD.size(1),
    )


def _attend_by_products(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, bias_BTS: Tensor) -> Tensor:
    """The same from two batched products; the G queries of a key stand side by side, so that keys are never copied.

    At 256 keys a training step takes 0.9 of the time that PyTorch's fused CPU kernel needs, 0.8 if compiled.
    """
    B, H, T, D = q_BHTD.shape
    K, S = k_BKSD.shape[1:3]
    q_BKgD = (q_BHTD * D**-0.5).reshape(B, K, -1, D)  # g = G * T
    scores_BKGTS = (q_BKgD @ k_BKSD.transpose(2, 3)).view(B, K, -1, T, S)
    scores_BKGTS = scores_BKGTS + bias_BTS[:, None, None]
    # softmax sums in float32 whatever its input; autocast would turn the scores into float32 first.
    with torch.autocast(q_BHTD.device.type, enabled=False):
        weights_BKGTS = scores_BKGTS.softmax(-1)
    return (weights_BKGTS.view(B, K, -1, S) @ v_BKSD).view(B, H, T, D)


class KVCache:
    """Keys and values of one block for the tokens so far, in memory that is taken once."""

    def __init__(self, config: ModelConfig, batch_size: int, like: Tensor) -> None:
        shape = (batch_size, config.n_kv_head, config.seq_len, config.head_dim)
        self.k_BKSD, self.v_BKSD = like.new_zeros(shape), like.new_zeros(shape)
        self.length = 0

    def append(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new ones; returns all so far, (B, K, S, D)."""
        begin, self.length = self.length, self.length + k_BKTD.size(2)
        self.k_BKSD[:, :, begin : self.length] = k_BKTD
        self.v_BKSD[:, :, begin : self.length] = v_BKTD
        return self.k_BKSD[:, :, : self.length], self.v_BKSD[:, :, : self.length]


class Attention(nn.Module):
    """Project to queries, keys and values, rotate, attend, project back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.head_dim = config.head_dim
        num_heads = config.n_head + 2 * config.n_kv_head
        # One product for all three is faster; a row belongs to one head, so it can be taken apart again.
        self.qkv = nn.Linear(config.n_embd, num_heads * config.head_dim, bias=False)
        self.out = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=False)

    def forward(
        self, x_BTC: Tensor, table_2TP: Tensor, bias_BTS: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        qkv_BNTD = self.qkv(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        rotated_BNTD = rotate(qkv_BNTD[:, : -self.n_kv_head], table_2TP)
        q_BHTD, k_BKSD = rotated_BNTD.split((self.n_head, self.n_kv_head), dim=1)
        v_BKSD = qkv_BNTD[:, -self.n_kv_head :]
        if cache is not None:
            k_BKSD, v_BKSD = cache.append(k_BKSD, v_BKSD)
        out_BHTD = attend(q_BHTD, k_BKSD, v_BKSD, bias_BTS)
        return self.out(out_BHTD.transpose(1, 2).flatten(2))
