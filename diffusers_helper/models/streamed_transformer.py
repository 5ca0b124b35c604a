"""The two large models, put together from a small frame that is loaded and layers that are streamed.

diffusers' and transformers' classes stay as they are: one module that runs all layers takes the place of
their list of layers.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ..device import Compute
from ..eight_bit.block import use_fused_forward
from ..eight_bit.linear import fixed_dtypes, use_best_product
from ..limits import GIB
from ..memory import empty_cache, free_vram, is_out_of_memory
from ..ram import read_ram
from ..streaming.layers import NUM_SLOTS, StreamedLayers
from ..streaming.layout import describe_layer
from ..streaming.placement import COMFORT_BYTES, COMFORT_PART, plan_vram
from ..streaming.row_lookup import RowLookup
from ..transformer.attention import NATIVE, ActiveAttention
from ..transformer.block_stack import BlockStack
from ..transformer.compiling import EagerBlocks
from ..transformer.memoize import HostMask, Memoized
from ..transformer.modulation import (
    ModulationLinears,
    ModulationTable,
    modulation_sizes,
    set_modulation,
    strip_modulation,
)
from ..weights.checkpoint import Checkpoint
from ..weights.filling import fill, match_tensors
from ..weights.model_files import ModelPart
from .architectures import build_empty, make_text_encoder, make_transformer

if TYPE_CHECKING:
    from diffusers import HunyuanVideoFramepackTransformer3DModel
    from transformers import LlamaModel

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

FEWER = 8
"""Compiling is tried once more with so many times fewer tokens."""
ACTIVATION_WIDTHS = 24
"""Memory of a pass: this many tensors of tokens x hidden size (measured 18 at most, and some air)."""
SPARE_BYTES = 5 * GIB // 4
"""Left free on a card: what its driver, the screen and the gaps in the allocator's blocks take."""
TEXT_TOKENS = 1300
"""Of a section's tokens, at most so many are the prompt's and the picture's."""
VAE_BYTES = 5 * GIB
"""What is left for decoding whole frames of 640x608 before layers may stay; its weights are there by then."""


@dataclass(frozen=True)
class StreamedTransformer:
    """The FramePack transformer, ready to be asked: diffusers' model with the stack of its blocks inside."""

    model: "HunyuanVideoFramepackTransformer3DModel"
    stack: BlockStack

    @property
    def attention(self) -> str:
        """The attention that its blocks use."""
        return self.stack.attention.backend

    @property
    def is_prepared(self) -> bool:
        """Whether `prepare_blocks` has nothing to do."""
        return self.stack.runner.is_ready(self.attention)

    def prepare_blocks(self, tokens: int, compute: Compute) -> None:
        """Compile the blocks where that is to be done: so that the first step takes no longer than others.

        Where the memory does not suffice for one of each kind beside the others, this is done with fewer
        tokens, which the graphs leave open; where not even for that, this job's blocks are not compiled.
        """
        try:
            self._try_to_compile(tokens, compute)
        finally:
            empty_cache(compute.device)  # else small tensors that stay cut up the large pieces that this left

    def _try_to_compile(self, tokens: int, compute: Compute) -> None:
        for count in (tokens, tokens // FEWER):
            try:
                return self._prepare_blocks(count, compute)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            logger.info("out of memory while compiling for %d tokens", count)
        self.stack.runner = EagerBlocks()

    def _prepare_blocks(self, tokens: int, compute: Compute) -> None:
        examples = self.stack.layers.examples()
        with torch.inference_mode():
            self._prepare_examples(examples, tokens, compute)

    def _prepare_examples(self, examples: dict[str, nn.Module], tokens: int, compute: Compute) -> None:
        config, device = self.model.config, compute.device
        hidden = config.num_attention_heads * config.attention_head_dim
        generator = torch.Generator(device).manual_seed(0)

        def randn(*shape: int, dtype: torch.dtype = compute.transformer) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=dtype)

        for kind, block in examples.items():
            set_modulation(block, kind, tuple(randn(1, size) for size in modulation_sizes(kind, hidden)))
        rotary = tuple(randn(tokens, config.attention_head_dim, dtype=torch.float32) for _ in range(2))
        states = (randn(1, tokens, hidden), randn(1, TEXT_TOKENS, hidden), randn(1, hidden), None, rotary)
        blocks = list(examples.values())
        self.stack.attention.guard(lambda: self.stack.runner.prepare(blocks, states, self.attention))

    @contextmanager
    def lent_room(self, tokens: int, compute: Compute) -> Iterator[None]:
        """In the block, whose steps compute `tokens` tokens, the weights on their way have what memory of a
        card is left. Not again in a job in which that was too much. What its steps remember goes with it."""
        layers = self.stack.layers
        try:
            if layers.may_widen:
                layers.widen(_room_to_lend(self.model, compute, tokens))
            yield
        finally:
            for module in self.model.modules():
                if isinstance(module, Memoized):
                    module.forget()  # small tensors, but each keeps a large piece of memory from coming back
            layers.narrow()
            empty_cache(compute.device)

    def take_back_where_short(self, tokens: int, compute: Compute) -> None:
        """Look, between two steps, whether another program has taken so much memory that the next one may
        not fit: Windows would not fail it, but move what lies on the card to RAM and back, at every step."""
        layers = self.stack.layers
        if layers.num_lent:
            needed = _activation_bytes(self.model, compute, tokens)
            if free_vram(compute.device, compute.memory_limit) < needed:
                layers.give_up_lent()

    def making_room(self, work: Callable[[], _T]) -> _T:
        """Do some work; where memory runs out, take back what is lent, then give up resident layers, and do
        it again.

        Raises:
            torch.OutOfMemoryError: there is no layer left to give up.
        """
        layers, is_short = self.stack.layers, False
        while True:
            try:
                if is_short and not layers.give_up_lent():
                    layers.give_up_resident()
                return work()
            except RuntimeError as error:
                if not is_out_of_memory(error) or not (layers.num_lent or layers.num_resident):
                    raise
            is_short = True  # go on outside the handler, whose traceback holds tensors


@contextmanager
def stream_transformer(
    part: ModelPart,
    compute: Compute,
    tokens: int,
    attention_backend: str | None,
    runner: EagerBlocks | None = None,
) -> Iterator[StreamedTransformer]:
    """Build the transformer for a job whose steps compute `tokens` tokens. `runner` runs its blocks."""
    model: Any = build_empty(part, make_transformer)
    stack = _stack_blocks(model, part.checkpoint, compute, runner or EagerBlocks())
    with ExitStack() as exits:
        exits.callback(model.to, "meta")
        exits.enter_context(stack.layers)
        fill(model, part.checkpoint, compute.device, compute.transformer)
        _compute_once_a_section(model)
        model.proj_out.to(compute.projection)
        model.proj_out.register_forward_pre_hook(lambda layer, args: (args[0].to(layer.weight.dtype),))
        stack.attention = exits.enter_context(ActiveAttention(attention_backend or NATIVE))
        _place(stack.layers, compute, _reserved_bytes(model, compute, tokens))
        yield StreamedTransformer(model, stack)


@contextmanager
def stream_text_encoder(part: ModelPart, compute: Compute) -> Iterator["LlamaModel"]:
    """Build the Llama: its layers pass by once a prompt, its embedding table is read row by row."""
    model: Any = build_empty(part, make_text_encoder)
    names = match_tensors(model, part.checkpoint)
    example = copy.deepcopy(model.layers[0])
    layers = [
        describe_layer(
            "llama", example, _names_below(f"layers.{i}.", names), part.checkpoint, compute.encoders
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
        streamed.place([])
        yield model


class LlamaStack(nn.Module):
    """All decoder layers as one."""

    def __init__(self, layers: StreamedLayers) -> None:
        super().__init__()
        self._layers = layers

    def forward(self, hidden_states: torch.Tensor, **arguments: Any) -> torch.Tensor:
        for _place, layer in self._layers:
            hidden_states = layer(hidden_states, **arguments)
        return hidden_states


def count_tokens(latent_frames: int, height: int, width: int) -> int:
    """Tokens of a section for latents of `height` x `width`: its own, the history's, the text's."""
    full = -(-height // 2) * -(-width // 2)
    history = 2 * full + -(-height // 4) * -(-width // 4) + 4 * -(-height // 8) * -(-width // 8)
    return latent_frames * full + history + TEXT_TOKENS


def _stack_blocks(model: Any, checkpoint: Checkpoint, compute: Compute, runner: EagerBlocks) -> BlockStack:
    """Take an empty model's blocks out and put a stack that streams them in their place."""
    names = match_tensors(model, checkpoint)
    blocks = _named_blocks(model)
    examples = {kind: block for kind, _, block in reversed(blocks)}
    linears = {kind: ModulationLinears(block, kind) for kind, block in examples.items()}
    templates = {kind: strip_modulation(copy.deepcopy(block), kind) for kind, block in examples.items()}
    for kind, template in templates.items():  # not the modulation: one row a product is no work for fp8
        use_best_product(template, compute.device, compute.transformer)
        if compute.compiles:
            use_fused_forward(template, kind, compute.device)

    def stream(modules: dict[str, nn.Module]) -> StreamedLayers:
        layers = [
            describe_layer(
                kind,
                modules[kind],
                _names_below(prefix, names),
                checkpoint,
                compute.transformer,
                fixed_dtypes(modules[kind]),
            )
            for kind, prefix, _ in blocks
        ]
        return StreamedLayers(layers, lambda kind: copy.deepcopy(modules[kind]), checkpoint, compute.device)

    first_block = copy.deepcopy(templates["double"])
    stack = BlockStack(stream(templates), ModulationTable(stream({**linears})), first_block, runner)
    model.transformer_blocks = nn.ModuleList([stack])
    model.single_transformer_blocks = nn.ModuleList()
    return stack


def _compute_once_a_section(model: Any) -> None:
    """Have the model's frame do at each step only what depends on the step, and wait for no card.

    Positions come in four tensors: of the latents, the clean latents and both histories.
    """
    model.rope = Memoized(model.rope, size=4)
    model.clean_x_embedder = Memoized(model.clean_x_embedder, size=1)
    model.image_projection = Memoized(model.image_projection, size=1)
    model.context_embedder = HostMask(model.context_embedder)


def _activation_bytes(model: Any, compute: Compute, tokens: int) -> int:
    hidden = model.config.num_attention_heads * model.config.attention_head_dim
    return tokens * hidden * compute.transformer.itemsize * ACTIVATION_WIDTHS


def _room_to_lend(model: Any, compute: Compute, tokens: int) -> int:
    """Bytes of a card that nobody needs while it computes steps. None of a CPU's: the file cache has them."""
    if compute.device.type != "cuda":
        return 0
    empty_cache(compute.device)  # so that what is lent gets pieces of its own, and all of them come back
    free = free_vram(compute.device, compute.memory_limit)
    return free - _activation_bytes(model, compute, tokens) - SPARE_BYTES


def _reserved_bytes(model: Any, compute: Compute, tokens: int) -> int:
    """Memory that is left for computing before layers may stay."""
    activations = _activation_bytes(model, compute, tokens)
    if compute.device.type == "cuda":
        return max(activations, VAE_BYTES) + SPARE_BYTES
    return activations + max(COMFORT_BYTES, int(COMFORT_PART * read_ram().total))


def _place(streamed: StreamedLayers, compute: Compute, reserved: int) -> None:
    """Keep as many layers as fit; where even that is too many, fewer."""
    free = free_vram(compute.device, compute.memory_limit)
    sizes = [layer.num_bytes for layer in streamed.layers]
    resident = plan_vram(sizes, free, reserved, NUM_SLOTS)
    logger.info(
        "%.1f GiB free, %.1f GiB reserved for computing: %d of %d layers stay, %.1f GiB are streamed",
        free / GIB,
        reserved / GIB,
        len(resident),
        len(sizes),
        (sum(sizes) - sum(sizes[place] for place in resident)) / GIB,
    )
    streamed.place_as_many(resident)


def _named_blocks(model: Any) -> list[tuple[str, str, nn.Module]]:
    """Kind, name and empty module of every block, in order."""
    double = [("double", f"transformer_blocks.{i}.", b) for i, b in enumerate(model.transformer_blocks)]
    single = [
        ("single", f"single_transformer_blocks.{i}.", b)
        for i, b in enumerate(model.single_transformer_blocks)
    ]
    return [*double, *single]


def _names_below(prefix: str, names: dict[str, str]) -> dict[str, str]:
    """Stored names of the tensors below a module, by their names in it."""
    return {name.removeprefix(prefix): stored for name, stored in names.items() if name.startswith(prefix)}
