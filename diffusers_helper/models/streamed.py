"""The two large models, whose layers are streamed: the transformer, and the Llama that encodes prompts.

The libraries' classes are used unchanged: one module that runs all layers replaces their list.
"""

import copy
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..device import Compute
from ..eight_bit.block import Attention, can_fuse, use_fused_forward
from ..eight_bit.int8_attention import int8_attention, is_faster
from ..eight_bit.linear import fixed_dtypes, use_best_product
from ..memory import empty_cache, is_out_of_memory
from ..streaming.disk_waits import DiskWaits
from ..streaming.layers import StreamedLayers
from ..streaming.layout import describe_layer
from ..streaming.ram_tier import RamTier
from ..streaming.row_lookup import RowLookup
from ..transformer.attention import NATIVE, ActiveAttention
from ..transformer.block_stack import BlockStack
from ..transformer.compiling import CompiledBlocks, EagerBlocks
from ..transformer.float16 import use_float32_between_layers
from ..transformer.memoize import HostMask, Memoized
from ..transformer.modulation import (
    ModulationTable,
    modulation_linears,
    modulation_sizes,
    set_modulation,
    strip_modulation,
)
from ..weights.checkpoint import Checkpoint
from ..weights.filling import fill, match_tensors, names_below
from ..weights.model_files import ModelPart
from .architectures import build_empty, make_text_encoder, make_transformer
from .vram_budget import TEXT_TOKENS, VramBudget

if TYPE_CHECKING:
    from diffusers import HunyuanVideoFramepackTransformer3DModel
    from transformers import LlamaModel

logger = logging.getLogger(__name__)

FALLBACK_DIVISOR = 8
"""The divisor of the tokens with which compiling is tried once more."""


@dataclass(frozen=True)
class StreamedTransformer:
    """The FramePack transformer, ready to run: diffusers' model with the stack of its blocks inside."""

    model: "HunyuanVideoFramepackTransformer3DModel"
    stack: BlockStack
    budget: VramBudget
    waits: DiskWaits

    @property
    def attention(self) -> str:
        """The attention that its blocks use."""
        return self.stack.attention.backend

    @property
    def has_int8_attention(self) -> bool:
        """True while its blocks compute attention in int8, which only compiled ones do."""
        return self.stack.has_int8_attention and self.stack.runner.is_compiling

    @property
    def is_prepared(self) -> bool:
        """True if `prepare_blocks` has nothing to do."""
        return self.stack.runner.is_ready(self.attention)

    def prepare_blocks(self, tokens: int, compute: Compute) -> None:
        """Compile the blocks if the runner does, so that the first step takes no longer than others.

        If memory runs out, this is tried with fewer tokens, whose number the graphs leave open; if it does
        again, this job's blocks are not compiled.
        """
        try:
            for count in (tokens, tokens // FALLBACK_DIVISOR):
                try:
                    return self._prepare_blocks(count, compute)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                logger.info("out of memory while compiling for %d tokens", count)
            self.stack.runner = EagerBlocks()
        finally:
            empty_cache(compute.device)  # else small tensors that stay split the large segments left by this

    @torch.inference_mode()
    def _prepare_blocks(self, tokens: int, compute: Compute) -> None:
        examples = self.stack.layers.examples()
        config, device = self.model.config, compute.device
        hidden = config.num_attention_heads * config.attention_head_dim
        generator = torch.Generator(device).manual_seed(0)

        def randn(*shape: int, dtype: torch.dtype = compute.activations) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=dtype)

        for kind, block in examples.items():
            set_modulation(block, kind, tuple(randn(1, size) for size in modulation_sizes(kind, hidden)))
        rotary = tuple(randn(tokens, config.attention_head_dim, dtype=torch.float32) for _ in range(2))
        states = (randn(1, tokens, hidden), randn(1, TEXT_TOKENS, hidden), randn(1, hidden), None, rotary)
        blocks = list(examples.values())
        self.stack.attention.guard(lambda: self.stack.runner.prepare(blocks, states, self.attention))

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Stream blocks while one section is sampled; afterwards their memory is free for decoding."""
        self.budget.size_ring()
        try:
            yield
        finally:
            for module in self.model.modules():
                if isinstance(module, Memoized):
                    module.forget()  # small tensors, but each keeps a large segment from being freed
            self.budget.close_ring()


@contextmanager
def stream_transformer(
    part: ModelPart,
    compute: Compute,
    tokens: int,
    attention_backend: str | None,
    runner: CompiledBlocks | None = None,
) -> Iterator[StreamedTransformer]:
    """Build the transformer for a job whose steps compute `tokens` tokens. `runner` runs its blocks."""
    model: Any = build_empty(part, make_transformer)
    attention = attention_backend or NATIVE
    stack = _stack_blocks(model, part.checkpoint, compute, runner or EagerBlocks(), attention)
    with ExitStack() as exits:
        exits.callback(model.to, "meta")
        exits.enter_context(stack.layers)
        fill(model, part.checkpoint, compute.device, compute.activations)
        # What depends on no step is computed once a section; positions come in four tensors: of the latents,
        # the clean latents and both histories.
        model.rope = Memoized(model.rope, size=4)
        model.clean_x_embedder = Memoized(model.clean_x_embedder, size=1)
        model.image_projection = Memoized(model.image_projection, size=1)
        model.context_embedder = HostMask(model.context_embedder)
        model.proj_out.float()
        model.proj_out.register_forward_pre_hook(lambda layer, args: (args[0].to(layer.weight.dtype),))
        stack.attention = exits.enter_context(ActiveAttention(attention))
        hidden_size = model.config.num_attention_heads * model.config.attention_head_dim
        budget = VramBudget(stack.layers, compute, tokens, hidden_size)
        budget.load_resident()
        yield StreamedTransformer(model, stack, budget, DiskWaits(stack.layers))


def _stack_blocks(
    model: Any, checkpoint: Checkpoint, compute: Compute, runner: CompiledBlocks, attention: str
) -> BlockStack:
    """Take an empty model's blocks out and put a stack that streams them in their place."""
    names = match_tensors(model, checkpoint)
    blocks = [  # kind, name prefix and empty module of each, in order
        (kind, f"{name}.{i}.", block)
        for kind, name in (("double", "transformer_blocks"), ("single", "single_transformer_blocks"))
        for i, block in enumerate(getattr(model, name))
    ]
    examples = {kind: block for kind, _, block in reversed(blocks)}
    if compute.activations != compute.transformer:
        for block in examples.values():
            use_float32_between_layers(block)
    linears: dict[str, nn.Module] = {
        kind: modulation_linears(block, kind) for kind, block in examples.items()
    }
    templates = {kind: strip_modulation(copy.deepcopy(block), kind) for kind, block in examples.items()}
    for template in templates.values():
        use_best_product(template, compute.device, compute.activations)
    can_use_int8 = compute.compiles and all(map(can_fuse, templates.values()))
    int8 = _int8_attention(model.config, compute, attention) if can_use_int8 else None
    for kind, template in templates.items():
        if can_use_int8:
            use_fused_forward(template, kind, int8)

    def stream(modules: dict[str, nn.Module], after_pass: RamTier | None = None) -> StreamedLayers:
        dtypes = {kind: (compute.transformer, fixed_dtypes(module)) for kind, module in modules.items()}
        layers = [
            describe_layer(kind, modules[kind], names_below(prefix, names), checkpoint, *dtypes[kind])
            for kind, prefix, _ in blocks
        ]
        return StreamedLayers(
            layers, lambda kind: copy.deepcopy(modules[kind]), checkpoint, compute.device, after_pass
        )

    first_norm = copy.deepcopy(templates["double"].get_submodule("norm1"))
    table = ModulationTable(stream(linears))
    stack = BlockStack(stream(templates, RamTier()), table, first_norm, runner, int8 is not None)
    model.transformer_blocks = nn.ModuleList([stack])
    model.single_transformer_blocks = nn.ModuleList()
    return stack


def _int8_attention(config: Any, compute: Compute, exact: str) -> Attention | None:
    """Return int8 attention where it is faster than the exact one."""
    widths = config.num_attention_heads, config.attention_head_dim
    return int8_attention if is_faster(compute.device, compute.activations, *widths, exact) else None


@contextmanager
def stream_text_encoder(part: ModelPart, compute: Compute) -> Iterator["LlamaModel"]:
    """Build the Llama, whose layers are streamed once a prompt: none stays on the device.

    Its embedding table is read row by row. Raises InputError for wrong files.
    """
    model: Any = build_empty(part, make_text_encoder)
    checkpoint = part.checkpoint
    names = match_tensors(model, checkpoint)
    rotary = model.rotary_emb  # rounded as in FramePack, whose encoder is converted as a whole
    rotary.inv_freq = rotary.inv_freq.to(compute.encoders).float()
    example = copy.deepcopy(model.layers[0])
    layers = [
        describe_layer("llama", example, names_below(f"layers.{i}.", names), checkpoint, compute.encoders)
        for i in range(len(model.layers))
    ]
    streamed = StreamedLayers(layers, lambda _: copy.deepcopy(example), checkpoint, compute.device)
    model.layers = nn.ModuleList([LlamaStack(streamed)])
    model.config.num_hidden_layers = 1
    model.embed_tokens = RowLookup(checkpoint, names["embed_tokens.weight"], compute.encoders)
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
