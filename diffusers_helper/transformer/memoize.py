"""Modules that get the same inputs at every step of a section, and compute once."""

from collections import OrderedDict
from collections.abc import Callable
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
        self._size = size
        self._results: OrderedDict[tuple, tuple[Any, Any]] = OrderedDict()

    def forget(self) -> None:
        """Drop all results."""
        self._results.clear()

    def forward(self, *values: Any, **named: Any) -> Any:
        arguments = (*values, *named.values())
        key = (len(values), *named, *(id(a) if isinstance(a, torch.Tensor) else a for a in arguments))
        if key not in self._results:
            self._results[key] = self.inner(*values, **named), arguments  # keeps their ids unique
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        self._results.move_to_end(key)
        return self._results[key][0]


class HostMask(nn.Module):
    """The context embedder with the mask kept on the CPU: reading its length from a GPU would synchronize."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._move = Memoized(torch.Tensor.to, size=2)

    def forward(self, states: torch.Tensor, timestep: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.inner(states, timestep, self._move(mask, states.device))
