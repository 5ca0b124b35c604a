"""Modules that get the same inputs at every step of a section, and compute once."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn


class Memoized(nn.Module):
    """Keeps the last `size` results of `inner`, by the identity of tensors and equality of other arguments.

    The tensors must not change, and nobody may write into the result.
    """

    def __init__(self, inner: Callable, size: int) -> None:
        super().__init__()
        self.inner = inner
        self._cached = lru_cache(size)(lambda *a, **named: inner(*a, **named))  # a tensor hashes by identity

    def forget(self) -> None:
        """Drop all results."""
        self._cached.cache_clear()

    def forward(self, *values: Any, **named: Any) -> Any:
        return self._cached(*values, **named)


class HostMask(nn.Module):
    """The context embedder with the mask kept on the CPU: reading its length from a GPU would synchronize."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._move = Memoized(torch.Tensor.to, size=2)

    def forward(self, states: torch.Tensor, timestep: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.inner(states, timestep, self._move(mask, states.device))
