"""Batches for the tests of losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])


def batch(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal embeddings."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient_agrees(loss: Callable[[Tensor], Tensor], x: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether the gradient is that of central differences, in float64."""
    leaf = x.detach().clone().requires_grad_(True)
    return torch.autograd.gradcheck(loss, (leaf,), eps=1e-6, atol=tolerance, rtol=1e-4)


def value_and_gradient(loss: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and its gradient for the embeddings."""
    leaf = x.detach().clone().requires_grad_(True)
    value = loss(leaf, labels)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad
