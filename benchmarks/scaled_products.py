"""Milliseconds of a linear layer in each way that weights of 8 bits can be computed with, on one device.

The shapes are those of the real blocks' linear layers, with the tokens of a section of 640x608. What a GPU
lacks is left out. Prints a line for each way, by itself and compiled; the error is against float64.

    venv/bin/python -m benchmarks.scaled_products [--device cuda] [--tokens 9457] [--no-compile]
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from benchmarks.gpu import parse_gpu_options
from diffusers_helper.eight_bit.linear import choose_product, int8_product, quantize, scaled_linear
from diffusers_helper.eight_bit.tokens import rotate

SHAPES = ((3072, 3072), (12288, 3072), (3072, 15360))
"""Outputs and inputs: attention, the way into the MLP, the way out of a single block."""
WARM_UP, TURNS = 3, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=9457)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    if options.device != "cpu":
        options = parse_gpu_options(parser)
    for outputs, inputs in SHAPES:
        for row in measure(torch.device(options.device), options.tokens, outputs, inputs, options.no_compile):
            print(json.dumps({"outputs": outputs, "inputs": inputs} | row), flush=True)


@torch.inference_mode()
def measure(device: torch.device, tokens: int, outputs: int, inputs: int, no_compile: bool) -> list[dict]:
    generator = torch.Generator(device).manual_seed(0)
    whole = torch.randn(outputs, inputs, device=device, generator=generator) * 0.02
    weight, scale = quantize(whole)
    whole = whole.bfloat16()
    x = torch.randn(1, tokens, inputs, device=device, generator=generator).bfloat16()
    bias = torch.randn(outputs, device=device, generator=generator).bfloat16()
    exact = functional.linear(x.double(), rotate(weight.double() * scale.double()[:, None]), bias.double())
    ways: dict[str, Callable[[], torch.Tensor]] = {"bfloat16": lambda: functional.linear(x, whole, bias)}
    for product in {None, int8_product, choose_product(device, torch.bfloat16, outputs, inputs)}:
        name = "dequantized" if product is None else product.__name__
        ways[name] = partial(scaled_linear, x, weight, scale, bias, product)
        if not no_compile:
            compiled = torch.compile(scaled_linear, fullgraph=True, dynamic=True)
            ways[f"{name}, compiled"] = partial(compiled, x, weight, scale, bias, product)
    rows = []
    for name, way in ways.items():
        try:
            error = float((way().double() - exact).norm() / exact.norm())
        except (RuntimeError, ValueError) as failure:
            rows.append({"way": name, "refused": str(failure)[:80]})
            continue
        rows.append({"way": name, "error": round(error, 5), "milliseconds": milliseconds(way, device)})
    return rows


def milliseconds(way: Callable[[], torch.Tensor], device: torch.device) -> float:
    for _ in range(WARM_UP):
        way()
    _wait(device)
    begin = time.perf_counter()
    for _ in range(TURNS):
        way()
    _wait(device)
    return round((time.perf_counter() - begin) * 1000 / TURNS, 3)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
