"""The Llama, whose layers are streamed once a prompt; its embedding table is read row by row."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..device import Compute
from ..streaming.layers import StreamedLayers
from ..streaming.layout import describe_layer
from ..streaming.row_lookup import RowLookup
from ..weights.filling import match_tensors, names_below
from ..weights.model_files import ModelPart
from .architectures import build_empty, make_text_encoder

if TYPE_CHECKING:
    from transformers import LlamaModel


@contextmanager
def stream_text_encoder(part: ModelPart, compute: Compute) -> Iterator["LlamaModel"]:
    """Build the Llama; none of its layers stays on the device. Raises InputError for wrong files."""
    model: Any = build_empty(part, make_text_encoder)
    names = match_tensors(model, part.checkpoint)
    example = copy.deepcopy(model.layers[0])
    layers = [
        describe_layer(
            "llama", example, names_below(f"layers.{i}.", names), part.checkpoint, compute.encoders
        )
        for i in range(len(model.layers))
    ]
    streamed = StreamedLayers(layers, lambda _: copy.deepcopy(example), part.checkpoint, compute.device)
    model.layers = nn.ModuleList([LlamaStack(streamed)])
    model.config.num_hidden_layers = 1
    model.embed_tokens = RowLookup(part.checkpoint, names["embed_tokens.weight"], compute.encoders)
    with ExitStack() as exits:
        exits.callback(model.to, "meta")
        exits.enter_context(streamed)
        model.to(compute.device)  # the rotary frequencies; nothing else is left in the frame
        yield model


class LlamaStack(nn.Module):
    """Runs all decoder layers as one."""

    def __init__(self, layers: StreamedLayers) -> None:
        super().__init__()
        self._layers = layers

    def forward(self, hidden_states: torch.Tensor, **arguments: Any) -> torch.Tensor:
        for _index, layer in self._layers:
            hidden_states = layer(hidden_states, **arguments)
        return hidden_states
