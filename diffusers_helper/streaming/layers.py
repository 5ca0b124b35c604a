"""The layers of one model, run in order: some stay on the device, the others pass through a ring."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from ..errors import MachineError
from ..memory import empty_cache
from ..weights.checkpoint import Checkpoint
from .layout import Layer
from .reader import ChunkReader
from .ring import CHUNK_BYTES, WeightRing

logger = logging.getLogger(__name__)

NUM_SLOTS = 3
"""The least slots of a ring: one is used, one is there, one is filled."""
EXAMPLE_BIAS = 0.02


class StreamedLayers:
    """All layers of a model in order. Iterating gives each as a module that holds its weights just then.

    The first pass opens a ring for the layers that do not stay; it serves all passes until `close_ring`.
    Used as a `with` block; afterwards no weight is left on the device. Results do not depend on which
    layers stay. Weights are plain tensors, also when they are loaded in inference mode: a compiled block
    takes the two for different things.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        make_module: Callable[[str], nn.Module],
        checkpoint: Checkpoint,
        device: torch.device,
    ) -> None:
        """
        Args:
            make_module: builds an empty module of a layer's kind.
        """
        self.layers = list(layers)
        self.checkpoint = checkpoint
        self.num_slots = NUM_SLOTS
        """Slots of the ring that is opened next."""
        self._make_module = make_module
        self._device = device
        self._resident: dict[int, nn.Module] = {}
        self._ring: WeightRing | None = None
        self._slots: list[dict[str, nn.Module]] = []
        self._kept: dict[int, torch.Tensor] = {}

    def __enter__(self) -> "StreamedLayers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_ring()
        self._resident.clear()
        self._kept.clear()

    @property
    def num_resident(self) -> int:
        return len(self._resident)

    @property
    def streamed(self) -> list[int]:
        """Indices of the layers that pass through the ring."""
        return [index for index in range(len(self.layers)) if index not in self._resident]

    @property
    def ring(self) -> WeightRing | None:
        return self._ring

    @torch.inference_mode(False)
    def load_resident(self, indices: Sequence[int]) -> None:
        """Load layers that stay from now on. What is loaded before an error stays, too.

        Raises:
            InputError: a file became shorter or was replaced.
            MachineError: a file cannot be read.
            torch.OutOfMemoryError: there is not enough room.
        """
        reader = ChunkReader(self.checkpoint.signatures)
        staging = torch.empty(CHUNK_BYTES, dtype=torch.uint8)
        try:
            for index in indices:
                layer = self.layers[index]
                buffer = torch.empty(layer.num_bytes, dtype=torch.uint8, device=self._device)
                for chunk in layer.chunks(CHUNK_BYTES):
                    part = staging[: chunk.num_bytes]
                    reader.read(chunk, part)
                    buffer[chunk.offset : chunk.offset + chunk.num_bytes].copy_(part)
                self._resident[index] = self._bind(layer, buffer)
        finally:
            reader.close()

    def evict_half(self) -> None:
        """Stream every other layer that stayed until now."""
        indices = sorted(self._resident)
        self.close_ring()
        for index in indices[::2]:
            del self._resident[index]
        empty_cache(self._device)
        logger.info("out of memory: %d layers stay now, %d did", len(self._resident), len(indices))

    def keep_in_ram(self, buffers: Mapping[int, torch.Tensor]) -> None:
        """Serve some of the streamed layers from flat CPU buffers instead of their files, for good."""
        self.close_ring()
        self._kept = dict(buffers)

    def close_ring(self) -> None:
        """Free all slots; the next pass opens a ring again."""
        self._slots = []
        if self._ring is not None:
            self._ring.__exit__(None, None, None)
            self._ring = None

    def __iter__(self) -> Iterator[tuple[int, nn.Module]]:
        """One pass: each layer's index and its module, valid until the next one is asked for."""
        if self._ring is not None and (self._ring.position != 0 or self._ring.has_failed):
            self.close_ring()  # the last pass was broken off
        for index, layer in enumerate(self.layers):
            module = self._resident.get(index)
            if module is not None:
                yield index, module
                continue
            ring = self._ring or self._open_ring()
            slot = ring.acquire()
            yield index, self._slots[slot][layer.kind]
            ring.release()

    @torch.inference_mode(False)
    @torch.no_grad()
    def examples(self) -> dict[str, nn.Module]:
        """One layer of each kind on the device, beside all others, with random weights."""
        examples = {}
        for layer in self.layers:
            if layer.kind not in examples:
                buffer = torch.empty(layer.num_bytes, dtype=torch.uint8, device=self._device)
                for name, tensor in layer.views(buffer).items():
                    tensor.copy_(_example_of(name, tensor))
                examples[layer.kind] = self._bind(layer, buffer)
        return examples

    @torch.inference_mode(False)
    def _open_ring(self) -> WeightRing:
        by_position = {self.streamed.index(index): buffer for index, buffer in self._kept.items()}
        layers = [self.layers[index] for index in self.streamed]
        ring = WeightRing(layers, self.num_slots, self._device, self.checkpoint.signatures, by_position)
        self._ring = ring
        examples = {layer.kind: layer for layer in layers}
        self._slots = [
            {kind: self._bind(layer, slot) for kind, layer in examples.items()} for slot in ring.slots
        ]
        return ring.__enter__()

    @torch.inference_mode(False)
    def _bind(self, layer: Layer, buffer: torch.Tensor) -> nn.Module:
        module = self._make_module(layer.kind)
        module.load_state_dict(layer.views(buffer), assign=True, strict=False)
        left = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
        if left:
            raise MachineError("internal", detail=f"{layer.kind} lacks {left[0]}")
        return module.requires_grad_(False).eval()


def _example_of(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Numbers with which a layer does about what it does with its own: norms and scales are 1."""
    if tensor.ndim == 1 and not name.endswith("bias"):
        return torch.ones_like(tensor, dtype=torch.float32)
    deviation = EXAMPLE_BIAS if tensor.ndim == 1 else tensor[0].numel() ** -0.5
    return torch.empty_like(tensor, dtype=torch.float32).normal_(std=deviation)
