"""The layers of one model, run in order: some stay on the device, the others pass through a ring."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from ..errors import MachineError
from ..memory import empty_cache, is_out_of_memory
from ..weights.checkpoint import Checkpoint
from .layout import Layer
from .reader import ChunkReader
from .ring import CHUNK_BYTES, WeightRing

logger = logging.getLogger(__name__)

NUM_SLOTS = 3
MORE_SLOTS = 5
"""Lent to the ring at most. So many of the large layers, the first ones, are there before a pass begins."""
EXAMPLE_BIAS = 0.02


def _example_of(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Numbers with which a layer does about what it does with its own: norms and scales are 1."""
    if tensor.ndim == 1 and not name.endswith("bias"):
        return torch.ones_like(tensor, dtype=torch.float32)
    deviation = EXAMPLE_BIAS if tensor.ndim == 1 else tensor[0].numel() ** -0.5
    return torch.empty_like(tensor, dtype=torch.float32).normal_(std=deviation)


class StreamedLayers:
    """All layers of a model in order. Iterating gives each as a module that holds its weights just then.

    Used as a `with` block; afterwards no weight is left on the device. Results do not depend on which
    layers stay. Weights are plain tensors, also when they are placed in inference mode: a compiled block
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
        self._make_module = make_module
        self.checkpoint = checkpoint
        self._device = device
        self._resident: dict[int, nn.Module] = {}
        self._ring: WeightRing | None = None
        self._slots: dict[int, dict[str, nn.Module]] = {}
        self._may_widen = True
        self._kept: dict[int, torch.Tensor] = {}

    def __enter__(self) -> "StreamedLayers":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_ring()
        self._resident.clear()
        self._kept.clear()

    @property
    def num_resident(self) -> int:
        return len(self._resident)

    @property
    def num_lent(self) -> int:
        """Slots that the ring has only for a while."""
        return 0 if self._ring is None else max(len(self._ring.slots) - NUM_SLOTS, 0)

    @property
    def may_widen(self) -> bool:
        """Whether there is a ring, and more slots were not too much before."""
        return self._ring is not None and self._may_widen

    @property
    def streamed(self) -> list[int]:
        """Places of the layers that pass through the ring."""
        return [place for place in range(len(self.layers)) if place not in self._resident]

    @property
    def ring(self) -> WeightRing | None:
        return self._ring

    @torch.inference_mode(False)
    def place(self, resident: Sequence[int]) -> None:
        """Load the layers `resident` to stay and start the ring for the others. Once, before the first pass.

        Raises:
            InputError: a file cannot be read.
            torch.OutOfMemoryError: there is not enough room.
        """
        reader = ChunkReader(self.checkpoint.signatures)
        staging = torch.empty(CHUNK_BYTES, dtype=torch.uint8)
        try:
            for place in resident:
                layer = self.layers[place]
                buffer = torch.empty(layer.num_bytes, dtype=torch.uint8, device=self._device)
                for chunk in layer.chunks(CHUNK_BYTES):
                    part = staging[: chunk.num_bytes]
                    reader.read(chunk, part)
                    buffer[chunk.offset : chunk.offset + chunk.num_bytes].copy_(part)
                self._resident[place] = self._bind(layer, buffer)
        finally:
            reader.close()
        self._open_ring()

    def place_as_many(self, resident: Sequence[int]) -> None:
        """`place`, with half as many layers where there turned out to be less room than was planned with.

        Raises:
            torch.OutOfMemoryError: there is not even room for the ring.
        """
        while True:
            try:
                self.place(resident)
                return
            except RuntimeError as error:
                if not resident or not is_out_of_memory(error):
                    raise
            self._close_ring()
            self._resident.clear()
            resident = resident[1::2]

    def keep_in_ram(self, places: Mapping[int, torch.Tensor]) -> None:
        """Serve some of the streamed layers from flat CPU buffers instead of their files."""
        lent = self.num_lent
        self._close_ring()
        self._kept = dict(places)
        self._open_ring()
        if lent and self._ring is not None:
            self.widen(lent * self._ring.slot_bytes)

    @torch.inference_mode(False)
    def widen(self, num_bytes: int) -> int:
        """Lend the ring `num_bytes` of the device, between two passes: as many slots as fit, at most
        `MORE_SLOTS`; returns how many were added."""
        if self._ring is None or not self._may_widen:
            return 0
        count = min(num_bytes // self._ring.slot_bytes, MORE_SLOTS - self.num_lent)
        added = self._ring.widen(count)
        self._bind_slots()
        if added:
            logger.info("%d slots are lent to the weights", added)
        return added

    def narrow(self) -> None:
        """Take back what `widen` has lent, between two passes; the allocator has it then."""
        if self._ring is None or not self.num_lent:
            return
        self._ring.narrow(NUM_SLOTS)
        self._slots = {number: self._slots[number] for number in self._slots.keys() & self._ring.slots.keys()}

    def give_up_lent(self) -> bool:
        """`narrow` for good, to make room; False if nothing is lent."""
        lent = self.num_lent
        if not lent:
            return False
        self._may_widen = False
        self.narrow()
        empty_cache(self._device)
        logger.info("short of memory: %d slots that were lent are taken back", lent)
        return True

    def give_up_resident(self) -> bool:
        """Stream half of the layers that stayed until now, to make room; False if there are none left."""
        if not self._resident:
            return False
        places = sorted(self._resident)
        kept = places[1::2] if len(places) > 1 else []
        self._close_ring()
        for place in set(places) - set(kept):
            del self._resident[place]
        empty_cache(self._device)
        self._open_ring()
        logger.info("out of memory: %d layers stay now, %d did", len(kept), len(places))
        return True

    def __iter__(self) -> Iterator[tuple[int, nn.Module]]:
        """One pass: each layer's place and its module, valid until the next one is asked for."""
        if self._ring is not None and (self._ring.position != 0 or self._ring.has_failed):
            self._ring.restart()  # the last pass was broken off
        for place, layer in enumerate(self.layers):
            module = self._resident.get(place)
            if module is not None:
                yield place, module
                continue
            assert self._ring is not None, "place() has not been called"
            slot = self._ring.acquire()
            yield place, self._slots[slot][layer.kind]
            self._ring.release()

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
    def _bind(self, layer: Layer, buffer: torch.Tensor) -> nn.Module:
        module = self._make_module(layer.kind)
        module.load_state_dict(layer.views(buffer), assign=True, strict=False)
        left = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
        if left:
            raise MachineError("internal", detail=f"{layer.kind} lacks {left[0]}")
        return module.requires_grad_(False).eval()

    @torch.inference_mode(False)
    def _open_ring(self) -> None:
        streamed = self.streamed
        if not streamed:
            return
        by_turn = {streamed.index(place): buffer for place, buffer in self._kept.items()}
        layers = [self.layers[place] for place in streamed]
        self._ring = WeightRing(layers, NUM_SLOTS, self._device, self.checkpoint.signatures, by_turn)
        self._ring.__enter__()
        self._bind_slots()

    @torch.inference_mode(False)
    def _bind_slots(self) -> None:
        """Make the modules of slots that have none: one of each kind that passes by."""
        assert self._ring is not None
        examples = {layer.kind: layer for layer in self._ring.layers}
        for number, slot in self._ring.slots.items():
            if number not in self._slots:
                self._slots[number] = {kind: self._bind(layer, slot) for kind, layer in examples.items()}

    def _close_ring(self) -> None:
        self._slots = {}
        if self._ring is not None:
            self._ring.__exit__(None, None, None)
            self._ring = None
