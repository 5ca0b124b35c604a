"""The steps of a section, each way: their seconds, what they read, the largest numbers between the blocks."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..device import Compute
from ..eight_bit.linear import ScaledLinear
from ..models.streamed import StreamedTransformer
from ..models.vram_budget import count_tokens
from ..sampling.denoiser import SectionDenoiser, SectionInputs
from ..sampling.schedule import flow_shift_mu, flow_sigmas, sample_unipc
from ..streaming.disk_waits import disk_seconds
from ..streaming.ring import THREADS, Traffic
from ..transformer.compiling import EagerBlocks, States
from .machine import reset_vram_peak, vram_peak

STEPS = 16
"""The steps of the whole schedule, of which the first few are measured."""
MOST_STEPS = 4
"""The most steps of a way."""
WAY_SECONDS = 30.0
"""Seconds after which a way ends as soon as it has its fewest steps."""

Values = dict[str, Any]
"""The figures of a part: numbers, texts, lists and dictionaries of them, by their English names."""


@dataclass(frozen=True)
class Step:
    """One more step is done."""


@dataclass(frozen=True)
class Case:
    """The inputs and the noise `(1, 16, t, h, w)` of the section whose steps are measured."""

    inputs: SectionInputs
    noise: torch.Tensor

    @property
    def tokens(self) -> int:
        return count_tokens(*self.noise.shape[-3:])


class WatchedBlocks(EagerBlocks):
    """Calls blocks eagerly, and keeps the largest number of each one's output and the products in use."""

    def __init__(self, kinds: list[str]) -> None:
        """
        Args:
            kinds: of all blocks in order.
        """
        super().__init__()
        self._kinds = kinds
        self._step: list[torch.Tensor] = []
        self._largest = torch.zeros(len(kinds), 2)
        self.products: dict[str, str] = {}
        """The product that a layer with 8-bit weights computes with, by its outputs and inputs."""

    def __call__(self, block: nn.Module, *arguments: Any, attention: str = "") -> States:
        states = super().__call__(block, *arguments, attention=attention)
        self._step.append(torch.stack([_largest(state) for state in states]))
        for layer in block.modules():
            if isinstance(layer, ScaledLinear):
                name = "none: weights are dequantized" if layer.product is None else layer.product.__name__
                self.products[" x ".join(map(str, layer.weight.shape))] = name
        return states

    def end_step(self) -> None:
        """Take over the step's numbers, unless it was broken off and repeated for lack of memory."""
        if len(self._step) == len(self._kinds):
            self._largest = torch.maximum(self._largest, torch.stack(self._step).cpu())
        self._step.clear()

    def largest(self) -> dict[str, list[float]]:
        """Return by block the largest numbers of the latents' stream and of the text's, over all steps."""
        names = [f"{kind} {self._kinds[:index].count(kind)}" for index, kind in enumerate(self._kinds)]
        return dict(zip(names, self._largest.tolist(), strict=True))


def _largest(state: torch.Tensor) -> torch.Tensor:
    low, high = state.aminmax()  # which takes no memory, and hands on what is not a number
    return torch.maximum(-low, high).float()


def measure_steps(
    transformer: StreamedTransformer,
    case: Case,
    compute: Compute,
    check_stop: Callable[[], None],
    values: Values,
    fewest: int,
) -> Generator[Step, None, torch.Tensor]:
    """Sample the first steps of a section, fill `values` after each, and return the first prediction.

    `fewest` steps are measured, more where they are fast.
    """
    layers, sigmas = transformer.stack.layers, flow_sigmas(STEPS, flow_shift_mu(tuple(case.noise.shape)))
    reset_vram_peak(compute.device)
    begin = time.perf_counter()
    denoiser = SectionDenoiser(transformer, case.inputs, compute, sigmas[:-1])
    values["seconds of modulation"] = round(time.perf_counter() - begin, 3)
    seconds, traffics, traffic, first = list[float](), list[Traffic](), layers.traffic, case.noise
    with transformer.streaming():
        begin = time.perf_counter()
        for latents in sample_unipc(denoiser.predict, case.noise.to(compute.device), sigmas):
            values["is finite"] = bool(torch.isfinite(latents).all())  # waits for the device
            seconds.append(time.perf_counter() - begin)
            before, traffic = traffic, layers.traffic
            traffics.append(traffic.plus(before, -1))
            first = latents.cpu() if len(seconds) == 1 else first
            values |= _describe(seconds, traffics) | vram_peak(compute.device)
            if isinstance(transformer.stack.runner, WatchedBlocks):
                transformer.stack.runner.end_step()
            yield Step()
            check_stop()
            if len(seconds) >= (fewest if sum(seconds) > WAY_SECONDS else MOST_STEPS):
                break
            begin = time.perf_counter()
    return first


def _describe(seconds: list[float], traffics: list[Traffic]) -> Values:
    read, took = (sum(each) for each in zip(*(traffic[:2] for traffic in traffics), strict=True))
    speed = read * THREADS / took / 1e9 if took else None
    return {
        "seconds a step": [round(each, 3) for each in seconds],
        "seconds waited for weights": [round(traffic.waited, 3) for traffic in traffics],
        "of these for the disk": [
            round(disk_seconds(*each), 3) for each in zip(traffics, seconds, strict=True)
        ],
        "GB read a step": [round(traffic.bytes_read / 1e9, 6) for traffic in traffics],
        "GB/s while reading": "nothing is read" if speed is None else round(speed, 6),
    }


def describe_choices(transformer: StreamedTransformer) -> Values:
    """Return what the engine has chosen for a transformer that is loaded."""
    layers = transformer.stack.layers
    return {
        "attention": transformer.attention,
        "int8 attention in compiled blocks": transformer.stack.has_int8_attention,
        "layers that stay": layers.num_resident,
        "layers that are streamed": len(layers.streamed),
    }
