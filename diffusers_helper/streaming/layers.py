"""The layers of one model, run in order: some stay on the device, the others pass through a ring."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import torch
from torch import nn

from ..errors import MachineError
from ..memory import empty_cache
from ..weights.checkpoint import Checkpoint
from .layout import Layer
from .reader import ChunkReader
from .ring import Traffic, WeightRing

logger = logging.getLogger(__name__)

NUM_SLOTS = 3
"""The least slots of a ring: one in use, one ready, one being filled."""
EXAMPLE_BIAS = 0.02


class StreamedLayers:
    """The layers of a model in order. Iterating yields each as a module with its weights, until the next.

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
        after_pass: Callable[["StreamedLayers", float], None] | None = None,
    ) -> None:
        """
        Args:
            make_module: builds an empty module of a layer's kind.
            after_pass: called after each whole pass with the layers and its begin (of `time.perf_counter`).
        """
        self.layers = list(layers)
        self._checkpoint = checkpoint
        self.num_slots = NUM_SLOTS
        """The slots of the ring that is opened next."""
        self.ring: WeightRing | None = None
        self._make_module = make_module
        self._after_pass = after_pass
        self.device = device
        self._resident: dict[int, nn.Module] = {}
        self._slots: list[dict[str, nn.Module]] = []
        self._kept: dict[int, torch.Tensor] = {}
        self._past_traffic = Traffic()

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
        """The indices of the layers that pass through the ring."""
        return [index for index in range(len(self.layers)) if index not in self._resident]

    @property
    def traffic(self) -> Traffic:
        """The traffic of all rings until now; see `WeightRing.traffic`."""
        return self._past_traffic if self.ring is None else self._past_traffic.plus(self.ring.traffic)

    @torch.inference_mode(False)
    def load_resident(self, indices: Sequence[int]) -> None:
        """Load layers that stay from now on. What is loaded before an error stays, too.

        Raises torch.OutOfMemoryError, and the errors of `ChunkReader.read`.
        """
        with closing(ChunkReader(self._checkpoint.signatures)) as reader:
            for index in indices:
                layer = self.layers[index]
                self._resident[index] = self._bind(layer, reader.read_layer(layer, self.device))

    def evict_half(self) -> None:
        """Stream every other layer that stayed until now."""
        indices = sorted(self._resident)
        self.close_ring()
        for index in indices[::2]:
            del self._resident[index]
        empty_cache(self.device)
        logger.info("out of memory: %d layers stay now, %d did", len(self._resident), len(indices))

    def keep_in_ram(self, indices: Sequence[int]) -> None:
        """Read some of the streamed layers into RAM and serve them from there, whatever ring they pass."""
        self.close_ring()
        with closing(ChunkReader(self._checkpoint.signatures)) as reader:
            for index in indices:
                self._kept[index] = reader.read_layer(self.layers[index], torch.device("cpu"))

    def close_ring(self) -> None:
        """Free all slots; the next pass opens a ring again."""
        self._slots = []
        if self.ring is not None:
            self.ring.__exit__(None, None, None)
            self._past_traffic, self.ring = self.traffic, None

    def __iter__(self) -> Iterator[tuple[int, nn.Module]]:
        """Yield each layer's index and its module, valid until the next one is asked for: one pass."""
        if self.ring is not None and (self.ring.position != 0 or self.ring.has_failed):
            self.close_ring()  # the last pass was broken off
        begin = time.perf_counter()
        for index, layer in enumerate(self.layers):
            module = self._resident.get(index)
            if module is not None:
                yield index, module
                continue
            ring = self.ring or self._open_ring()
            slot = ring.acquire()
            yield index, self._slots[slot][layer.kind]
            ring.release()
        if self._after_pass is not None:
            self._after_pass(self, begin)

    @torch.inference_mode(False)
    @torch.no_grad()
    def examples(self) -> dict[str, nn.Module]:
        """Make one layer of each kind on the device, beside all others, with random weights."""
        examples = {}
        for kind, layer in {layer.kind: layer for layer in self.layers}.items():
            buffer = torch.empty(layer.num_bytes, dtype=torch.uint8, device=self.device)
            for name, tensor in layer.views(buffer).items():
                tensor.copy_(_example_of(name, tensor))
            examples[kind] = self._bind(layer, buffer)
        return examples

    @torch.inference_mode(False)
    def _open_ring(self) -> WeightRing:
        by_position = {self.streamed.index(index): buffer for index, buffer in self._kept.items()}
        layers = [self.layers[index] for index in self.streamed]
        ring = WeightRing(layers, self.num_slots, self.device, self._checkpoint.signatures, by_position)
        self.ring = ring
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
    """Draw random weights of a realistic size: norms and scales are 1."""
    if tensor.ndim == 1 and not name.endswith("bias"):
        return torch.ones_like(tensor, dtype=torch.float32)
    deviation = EXAMPLE_BIAS if tensor.ndim == 1 else tensor[0].numel() ** -0.5
    return torch.empty_like(tensor, dtype=torch.float32).normal_(std=deviation)
