"""The blocks' modulation, computed in advance.

Every block scales and shifts by a product with the embedding of timestep, guidance and pooled prompt. None of
these depends on the latents, so the products of all steps are computed at once, from weights that are read
once: more than a quarter of all weights need not be streamed at each step. The numbers stay the same.
"""

from collections.abc import Hashable, Mapping

import torch
from torch import nn
from torch.nn import functional

from ..streaming.layers import StreamedLayers

MODULATED_NORMS = {"double": ("norm1", "norm1_context"), "single": ("norm",)}
"""The norms of each kind of block that have a modulation (`NORM.linear`)."""
CHUNKS = {"double": 6, "single": 3}
"""The number of vectors in the product of each norm: shifts, scales, gates."""

Products = tuple[torch.Tensor, ...]


class PrecomputedModulation(nn.Module):
    """A stand-in for a modulation's linear layer that returns `value`."""

    value: torch.Tensor

    def forward(self, _embedding: torch.Tensor) -> torch.Tensor:
        return self.value


def modulation_linears(block: nn.Module, kind: str) -> nn.ModuleDict:
    """Return the linear layers of a block's modulation, under the names that they have in it."""
    return nn.ModuleDict(
        {
            norm: nn.ModuleDict({"linear": block.get_submodule(f"{norm}.linear")})
            for norm in MODULATED_NORMS[kind]
        }
    )


def strip_modulation(block: nn.Module, kind: str) -> nn.Module:
    """Replace a block's modulation by stand-ins, and return the block."""
    for norm in MODULATED_NORMS[kind]:
        block.get_submodule(norm).linear = PrecomputedModulation()
    return block


def modulation_sizes(kind: str, hidden: int) -> tuple[int, ...]:
    """Return the lengths of a block's products, for a model of the width `hidden`."""
    return (CHUNKS[kind] * hidden,) * len(MODULATED_NORMS[kind])


def set_modulation(block: nn.Module, kind: str, products: Products) -> None:
    """Set a block's products for the next call."""
    for norm, product in zip(MODULATED_NORMS[kind], products, strict=True):
        block.get_submodule(f"{norm}.linear").value = product


class ModulationTable:
    """The products of all blocks for the latest section's embeddings, by the embedding's key."""

    def __init__(self, linears: StreamedLayers) -> None:
        self._linears = linears
        self._products: dict[Hashable, list[Products]] = {}

    def add(self, embeddings: Mapping[Hashable, torch.Tensor]) -> None:
        """Compute products of the new embeddings `(1, dim)`, in one pass over the weights; drop the old."""
        rows: dict[Hashable, list[Products]] = {key: [] for key in embeddings if key not in self._products}
        activated = {key: functional.silu(embeddings[key]) for key in rows}
        if rows:
            with self._linears as layers:
                for _index, linears in layers:
                    for key, embedding in activated.items():
                        products = (norm.get_submodule("linear")(embedding) for norm in linears.children())
                        rows[key].append(tuple(products))
        self._products = {key: rows.get(key) or self._products[key] for key in embeddings}

    def __getitem__(self, key: Hashable) -> list[Products]:
        return self._products[key]
