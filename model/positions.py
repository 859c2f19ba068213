"""Rotary positions (RoPE, arXiv:2104.09864): each pair of a head's numbers is turned by an angle that grows with time."""

import torch
from torch import Tensor

# Dimensions: B batch, T time, H heads, D head width, P = D / 2 pairs


def rotation_table(seq_len: int, head_dim: int, theta: float) -> Tensor:
    """Cosines and sines, (2, T, P) in float32: pair p turns by theta ** (-2 p / D) a position."""
    frequency_P = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle_TP = torch.outer(torch.arange(seq_len, dtype=torch.float64), frequency_P)
    return torch.stack((angle_TP.cos(), angle_TP.sin())).float()


def rotate(x_BHTD: Tensor, table_2TP: Tensor) -> Tensor:
    """Turn pair (x[p], x[p + P]) of each head by its angle; scores then depend on distances alone.

    The halves are laid out as in Llama checkpoints. Computed in the dtype of `x_BHTD`.
    """
    cos_TP, sin_TP = table_2TP.to(x_BHTD.dtype)
    left_BHTP, right_BHTP = x_BHTD.chunk(2, dim=-1)
    return torch.cat(
        (
            left_BHTP * cos_TP - right_BHTP * sin_TP,
            right_BHTP * cos_TP + left_BHTP * sin_TP,
        ),
        dim=-1,
    )
