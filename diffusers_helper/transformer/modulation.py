"""The blocks' modulation, computed ahead.

Every block scales and shifts by a product with the embedding of timestep, guidance and pooled prompt.
These depend on no picture, so all steps' products are made at once, from weights that are read once: more
than a quarter of all weights need not be streamed at each step. The numbers are those of the block itself.
"""

from collections.abc import Hashable, Mapping

import torch
from torch import nn
from torch.nn import functional

from ..streaming.layers import StreamedLayers

MODULATED_NORMS = {"double": ("norm1", "norm1_context"), "single": ("norm",)}
"""The norms of each kind of block that have a modulation (`NORM.linear`)."""

CHUNKS = {"double": 6, "single": 3}
"""Vectors in the product of each norm: shifts, scales, gates."""

Products = tuple[torch.Tensor, ...]


class PrecomputedModulation(nn.Module):
    """Stands in a block for a modulation's linear layer, and gives what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.value: torch.Tensor | None = None

    def forward(self, _embedding: torch.Tensor) -> torch.Tensor:
        assert self.value is not None, "the modulation was not computed"
        return self.value


class ModulationLinears(nn.Module):
    """Only the modulation's linear layers of a block, under the names that they have in it."""

    def __init__(self, block: nn.Module, kind: str) -> None:
        super().__init__()
        for norm in MODULATED_NORMS[kind]:
            holder = nn.Module()
            holder.linear = block.get_submodule(f"{norm}.linear")
            self.add_module(norm, holder)
        self._norms = MODULATED_NORMS[kind]

    def forward(self, embedding: torch.Tensor) -> Products:
        """The products of one embedding `(1, dim)`, after its nonlinearity."""
        return tuple(self.get_submodule(f"{norm}.linear")(embedding) for norm in self._norms)


def strip_modulation(block: nn.Module, kind: str) -> nn.Module:
    """Replace a block's modulation by stand-ins; returns the block."""
    for norm in MODULATED_NORMS[kind]:
        block.get_submodule(norm).linear = PrecomputedModulation()
    return block


def modulation_sizes(kind: str, hidden: int) -> tuple[int, ...]:
    """The lengths of a block's products, for a model as wide as `hidden`."""
    return (CHUNKS[kind] * hidden,) * len(MODULATED_NORMS[kind])


def set_modulation(block: nn.Module, kind: str, products: Products) -> None:
    """Hand a block its products for the next call."""
    for norm, product in zip(MODULATED_NORMS[kind], products, strict=True):
        stand_in = block.get_submodule(f"{norm}.linear")
        assert isinstance(stand_in, PrecomputedModulation)
        stand_in.value = product


class ModulationTable:
    """The products of all blocks for the embeddings of the latest section, by a key for each."""

    def __init__(self, linears: StreamedLayers) -> None:
        self._linears = linears
        self._products: dict[Hashable, list[Products]] = {}

    def add(self, embeddings: Mapping[Hashable, torch.Tensor]) -> None:
        """Compute the products for those embeddings `(1, dim)` that are new: one pass over the weights."""
        missing = {key: emb for key, emb in embeddings.items() if key not in self._products}
        if not missing:
            self._products = {key: self._products[key] for key in embeddings}
            return
        activated = {key: functional.silu(embedding) for key, embedding in missing.items()}
        rows: dict[Hashable, list[Products]] = {key: [] for key in missing}
        with self._linears as layers:
            for _index, linears in layers:
                for key, embedding in activated.items():
                    rows[key].append(linears(embedding))
        self._products = {key: rows.get(key) or self._products[key] for key in embeddings}

    def __getitem__(self, key: Hashable) -> list[Products]:
        return self._products[key]
