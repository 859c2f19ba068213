"""Attention that never leaves a document: one class for many, grouped and single key/value heads, with a KV cache."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.positions import rotate

# Dimensions: B batch, T queries, S keys, C model width, H query heads, K key/value heads, G = H / K queries a key,
# D head width, P = D / 2

_LONGEST_PRODUCTS = 512
"""Keys up to which plain products win on a CPU: at 256, forward and backward take 0.45 of the time of PyTorch's fused
kernel (bf16, 16 sequences, 4 heads of 64), but their memory grows with the square."""


def document_mask(documents_BT: Tensor) -> Tensor:
    """(B, T, T), True where a query may look at a key: not later, and of the same document."""
    seq_len = documents_BT.size(1)
    causal_TT = torch.ones(seq_len, seq_len, dtype=torch.bool, device=documents_BT.device).tril()
    return causal_TT & (documents_BT[:, :, None] == documents_BT[:, None, :])


class Mask:
    """Which keys a query may look at, in the forms that `attend` needs, each made once for all layers."""

    def __init__(self, allowed_BTS: Tensor) -> None:
        self.allowed_BTS = allowed_BTS
        self._bias: Tensor | None = None

    def bias(self, dtype: torch.dtype) -> Tensor:
        """(B, T, S): 0 where allowed; elsewhere so low that its exponential is 0 in any dtype."""
        if self._bias is None or self._bias.dtype != dtype:
            zeros = torch.zeros(self.allowed_BTS.shape, dtype=dtype, device=self.allowed_BTS.device)
            self._bias = zeros.masked_fill_(~self.allowed_BTS, -30_000.0)
        return self._bias


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask: Mask | None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the keys that the mask allows, all if it is None. Returns (B, H, T, D).

    K = H is multi-head, K = 1 multi-query, between them grouped-query (arXiv:2305.13245).
    """
    if q_BHTD.device.type == "cpu" and mask is not None and k_BKSD.size(2) <= _LONGEST_PRODUCTS:
        return _attend_by_products(q_BHTD, k_BKSD, v_BKSD, mask)
    allowed_B1TS = None if mask is None else mask.allowed_BTS[:, None]
    return F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSD, attn_mask=allowed_B1TS, enable_gqa=q_BHTD.size(1) != k_BKSD.size(1)
    )


def _attend_by_products(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask: Mask) -> Tensor:
    """Two batched products, with the G queries of a key side by side so that keys are never repeated."""
    B, H, T, D = q_BHTD.shape
    K, S = k_BKSD.shape[1:3]
    q_BKgD = (q_BHTD * D**-0.5).reshape(B, K, -1, D)  # g = G * T
    scores_BKgS = q_BKgD @ k_BKSD.transpose(2, 3)
    scores_BKGTS = scores_BKgS.view(B, K, -1, T, S)
    scores_BKGTS += mask.bias(scores_BKGTS.dtype)[:, None, None]
    # The kernel sums in float32 whatever its input; autocast would copy the scores to float32 first.
    with torch.autocast(q_BHTD.device.type, enabled=False):
        weights_BKGTS = scores_BKGTS.softmax(-1)
    out_BKgD = weights_BKGTS.view(B, K, -1, S) @ v_BKSD
    return out_BKgD.view(B, H, T, D)


class KVCache:
    """Keys and values of the tokens so far, of one block, in memory that is taken once."""

    def __init__(self, config: ModelConfig, batch_size: int, like: Tensor) -> None:
        shape = (batch_size, config.n_kv_head, config.seq_len, config.head_dim)
        self.k_BKSD, self.v_BKSD = like.new_zeros(shape), like.new_zeros(shape)
        self.length = 0

    def append(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new ones; returns all so far, (B, K, S, D)."""
        end = self.length + k_BKTD.size(2)
        self.k_BKSD[:, :, self.length : end] = k_BKTD
        self.v_BKSD[:, :, self.length : end] = v_BKTD
        self.length = end
        return self.k_BKSD[:, :, :end], self.v_BKSD[:, :, :end]


class Attention(nn.Module):
    """Project to queries, keys and values, rotate, attend, project back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sizes = (config.n_head, config.n_kv_head, config.n_kv_head)
        self.head_dim = config.head_dim
        # One product for all three: a third of the calls, the same numbers.
        self.qkv = nn.Linear(config.n_embd, sum(self.sizes) * config.head_dim, bias=False)
        self.out = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=False)

    def forward(
        self, x_BTC: Tensor, table_2TP: Tensor, mask: Mask | None, cache: KVCache | None
    ) -> Tensor:
        qkv_BNTD = self.qkv(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        n_head, n_kv_head, _ = self.sizes
        qk_BNTD = rotate(qkv_BNTD[:, : n_head + n_kv_head], table_2TP)
        q_BHTD, k_BKSD = qk_BNTD.split((n_head, n_kv_head), dim=1)
        v_BKSD = qkv_BNTD[:, n_head + n_kv_head :]
        if cache is not None:
            k_BKSD, v_BKSD = cache.append(k_BKSD, v_BKSD)
        out_BHTD = attend(q_BHTD, k_BKSD, v_BKSD, mask)
        return self.out(out_BHTD.transpose(1, 2).flatten(2))
