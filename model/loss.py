"""Next-token loss without the full matrix of logits: a slice of positions at a time, in float32 where it counts."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.device import product_dtype

# Dimensions: N positions, C model width, V vocabulary, n positions of a slice

IGNORE = -1
"""Target of a position that counts for nothing."""

_SLICE = 512
"""Positions a slice. Measured at V = 4,096 on 2 cores: with 2,048 a training step takes 1.15 times as long, because fresh
pages for the logits cost more than the arithmetic."""


def summed_loss(hidden_NC: Tensor, output_VC: Tensor, targets_N: Tensor) -> Tensor:
    """Sum over all positions of -log p(target), in nats, float32.

    Products run in the dtype of autocast, if on; softmax and sums in float32. The gradient is computed along with the
    loss, so that no logits are kept: memory is that of one slice, instead of N * V numbers three times over.
    """
    return _SummedLoss.apply(hidden_NC.to(product_dtype(output_VC)), output_VC, targets_N)


class _SummedLoss(torch.autograd.Function):
    """d loss / d logits = softmax - one-hot, for the positions that count."""

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, output_VC: Tensor, targets_N: Tensor) -> Tensor:
        weight_VC = output_VC.to(hidden_NC.dtype)
        grad_hidden_NC = torch.empty_like(hidden_NC)
        grad_output_VC = torch.zeros_like(output_VC)
        total = hidden_NC.new_zeros((), dtype=torch.float32)
        for begin in range(0, len(targets_N), _SLICE):
            part = slice(begin, begin + _SLICE)
            hidden_nC, targets_n1 = hidden_NC[part], targets_N[part, None]
            is_counted_n1 = targets_n1 != IGNORE
            targets_n1 = targets_n1.clamp(min=0)
            log_p_nV = (hidden_nC @ weight_VC.T).float().log_softmax(-1)
            total -= (log_p_nV.gather(1, targets_n1) * is_counted_n1).sum()
            grad_nV = log_p_nV.exp_()
            grad_nV.scatter_add_(1, targets_n1, -torch.ones_like(targets_n1, dtype=torch.float32))
            grad_nV = grad_nV.masked_fill_(~is_counted_n1, 0).to(hidden_NC.dtype)
            grad_hidden_NC[part] = grad_nV @ weight_VC
            grad_output_VC += grad_nV.T @ hidden_nC
        ctx.save_for_backward(grad_hidden_NC, grad_output_VC)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden_NC, grad_output_VC = ctx.saved_tensors
        return grad_hidden_NC * grads[0], grad_output_VC * grads[0], None


@torch.no_grad()
def token_losses(hidden_NC: Tensor, output_VC: Tensor, targets_N: Tensor) -> Tensor:
    """-log p(target) of each position, in nats, float32; 0 where the target is IGNORE."""
    return torch.cat(
        [
            F.cross_entropy(
                F.linear(hidden_nC, output_VC).float(),
                targets_n,
                ignore_index=IGNORE,
                reduction="none",
            )
            for hidden_nC, targets_n in zip(
                hidden_NC.split(_SLICE), targets_N.split(_SLICE), strict=True
            )
        ]
    )
