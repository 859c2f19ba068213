"""The sliced loss is PyTorch's cross-entropy, in value and gradient, without its memory."""

import pytest
import torch
import torch.nn.functional as F

from model import loss
from model.loss import IGNORE, summed_loss, token_losses


def random_case(num: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num, 16, generator=generator, requires_grad=True)
    output = torch.randn(40, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 40, (num,), generator=generator)
    targets[::5] = IGNORE
    return hidden, output, targets


@pytest.mark.parametrize("num", [3, 16, 37])
def test_the_sliced_loss_is_cross_entropy(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions without a target count for nothing; slices of 8, the last one shorter."""
    monkeypatch.setattr(loss, "_SLICE", 8)
    hidden, output, targets = random_case(num)
    sliced = summed_loss(hidden, output, targets)
    whole = F.cross_entropy(hidden @ output.T, targets, ignore_index=IGNORE, reduction="sum")
    torch.testing.assert_close(sliced, whole)
    torch.testing.assert_close(token_losses(hidden, output, targets).sum(), whole)
    for grads in zip(
        torch.autograd.grad(sliced * 3, (hidden, output)),
        torch.autograd.grad(whole * 3, (hidden, output)),
        strict=True,
    ):
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_under_autocast_the_loss_is_still_float32() -> None:
    """Products in bfloat16 move the loss by less than half a per cent and the gradients by little."""
    hidden, output, targets = random_case(200)
    exact = summed_loss(hidden, output, targets)
    exact_grads = torch.autograd.grad(exact, (hidden, output))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = summed_loss(hidden, output, targets)
    rounded_grads = torch.autograd.grad(rounded, (hidden, output))
    assert rounded.dtype == torch.float32
    assert abs(rounded - exact) < 0.005 * exact
    for one, other in zip(exact_grads, rounded_grads, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).norm() < 0.02 * one.norm()
