"""The module that runs all transformer blocks, streaming their weights and skipping steps with TeaCache."""

from collections.abc import Hashable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..streaming.layers import StreamedLayers
from .attention import NATIVE, ActiveAttention
from .compiling import CompiledBlocks, EagerBlocks, States
from .modulation import ModulationTable, set_modulation
from .teacache import TeaCache


class BlockStack(nn.Module):
    """Runs all blocks as if they were one; with a TeaCache in `cache` it may skip them.

    Before each call, `key` must name products in `table`.
    """

    def __init__(
        self,
        layers: StreamedLayers,
        table: ModulationTable,
        first_norm: nn.Module,
        runner: CompiledBlocks,
        has_int8_attention: bool = False,
    ) -> None:
        """
        Args:
            first_norm: a block's first norm without modulation, which has no weights and serves TeaCache.
            has_int8_attention: compiled blocks compute attention in int8, whatever the active backend.
        """
        super().__init__()
        self._first_norm = first_norm
        self.layers = layers
        self.table = table
        self.runner = runner
        self.has_int8_attention = has_int8_attention
        self.attention = ActiveAttention(NATIVE)
        self.cache: TeaCache | None = None
        self.key: Hashable = None
        self.computed = True
        """True if the last call ran the blocks, False if it skipped them."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        products = self.table[self.key]
        self.computed = True
        if self.cache is not None:
            self._first_norm.get_submodule("linear").value = products[0][0]
            self.computed = self.cache.should_compute(self._first_norm(hidden_states, emb=temb)[0])
            if not self.computed:
                return self.cache.apply(hidden_states), encoder_hidden_states
        before = hidden_states
        for index, block in self.layers:
            set_modulation(block, self.layers.layers[index].kind, products[index])
            hidden_states, encoder_hidden_states = self.attention.guard(
                partial(self._run, block, hidden_states, encoder_hidden_states, temb, attention_mask, rotary)
            )
        if self.cache is not None:
            self.cache.remember(before, hidden_states)
        return hidden_states, encoder_hidden_states

    def fall_back_to_eager(self, reason: str) -> bool:
        """Call blocks eagerly, with native attention, from now on; return whether that is new."""
        is_change = self.runner.is_compiling or self.attention.backend != NATIVE
        self.runner = EagerBlocks()
        if self.attention.backend != NATIVE:
            self.attention.replace(reason)
        return is_change

    def _run(self, block: nn.Module, *arguments: Any) -> States:
        """Call a block, eagerly where the attention was replaced by one that no graph was compiled for."""
        attention = self.attention.backend
        is_ready = not self.attention.is_replaced or self.runner.is_ready(attention)
        return self.runner(block, *arguments, attention=attention) if is_ready else block(*arguments)
