"""Linear layers with weights of 8 bits: a number of e4m3 for each weight, a scale in float32 for each row.

Where the card multiplies such numbers by itself and that is faster, tokens get 8 bits on the way, too;
everywhere else the weights are made whole again for each product. Knows no files: `eight_bit.py` makes them.
"""

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from ..memory import is_out_of_memory
from ..weights.checkpoint import Checkpoint
from .tokens import E4M3, LARGEST, Tokens, quantise_tokens

logger = logging.getLogger(__name__)

FIXED_DTYPES = {"weight": E4M3, "scale": torch.float32}
"""Of a layer's tensors, those that no compute dtype changes."""
FP8_CAPABILITY = (8, 9)
"""Ada: the first cards that multiply e4m3."""
FP8_MULTIPLE = 16
"""Their products want both widths in whole multiples of this."""
TRIAL_ERROR = 0.01

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Of tokens `(..., in)`, weight `(out, in)` e4m3, its rows' scale `(out,)` float32 and bias `(out,)`."""


class ScaledLinear(nn.Module):
    """Stands for an `nn.Linear`, under the same names and with a `scale` beside its weight."""

    def __init__(self, inputs: int, outputs: int, has_bias: bool) -> None:
        super().__init__()
        self.weight = _parameter(torch.empty(outputs, inputs, dtype=E4M3))
        self.scale = _parameter(torch.empty(outputs, dtype=torch.float32))
        self.bias = _parameter(torch.empty(outputs)) if has_bias else None
        self.product: Product = dequantised_product
        self.compiled_product: Product = dequantised_product
        """What a compiler is given, which joins it with what comes before and after."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = self.compiled_product if torch.compiler.is_compiling() else self.product
        return product(x, self.weight, self.scale, self.bias)

    def multiply(self, tokens: Tokens, dtype: torch.dtype) -> torch.Tensor:
        """The compiler's product, where it is one of `QUANTIZED_INPUT`; `(n, outputs)` of `dtype`."""
        product = QUANTIZED_INPUT[self.compiled_product]
        return product(tokens, self.weight, self.scale, self.bias, dtype)


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight `(out, in)` float32 as e4m3 and its rows' scale `(out,)`: the largest number of a row is 448.

    A scale is not finite where its row is not. A row without any number gets the scale 1.
    """
    scale = weight.abs().amax(1) / LARGEST
    scale = torch.where(scale == 0, 1.0, scale)
    return (weight / scale[:, None]).to(E4M3), scale


def dequantised_product(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The product with the weights as they were, but for what 8 bits have lost.

    Each weight is rounded once: the dtypes of tokens hold all of e4m3, and a product with float32 is computed
    in float32, also where it is put back in place. That takes no memory beside the whole weight. Scaling the
    output instead would round no weight at all, but overflow float16 and take longer: there are more tokens
    than inputs.
    """
    whole = weight.to(x.dtype, copy=True).mul_(scale[:, None])
    return functional.linear(x, whole, bias)


def rowwise_fp8_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The card's own product in e4m3, which scales the rows of both by itself: PyTorch for Linux has it."""
    result = multiply_rows(quantise_tokens(x), weight, scale, bias, x.dtype)
    return result.reshape(*x.shape[:-1], len(weight))


def postscaled_fp8_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The card's own product in e4m3 where it scales no rows: they are scaled afterwards.

    To be compiled, together with what comes before and after. By itself, passing over the output once more
    takes longer than e4m3 saves.
    """
    result = multiply_units(quantise_tokens(x), weight, scale, bias, x.dtype)
    return result.reshape(*x.shape[:-1], len(weight))


def multiply_rows(
    tokens: Tokens,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Compute `rowwise_fp8_linear` of tokens that are quantized already; returns `(n, out)` of `dtype`."""
    return torch._scaled_mm(
        tokens.numbers,
        weight.t(),
        scale_a=tokens.scale,
        scale_b=scale[None],
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )


def multiply_units(
    tokens: Tokens,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Compute `postscaled_fp8_linear` of tokens that are quantized already; returns `(n, out)` of `dtype`."""
    one = torch.ones((), dtype=torch.float32, device=weight.device)
    result = torch._scaled_mm(
        tokens.numbers, weight.t(), scale_a=one, scale_b=one, out_dtype=dtype, use_fast_accum=True
    )
    scaled = result * tokens.scale * scale
    return (scaled if bias is None else scaled + bias).to(dtype)


QUANTIZED_INPUT: dict[Product, Callable[..., torch.Tensor]] = {
    rowwise_fp8_linear: multiply_rows,
    postscaled_fp8_linear: multiply_units,
}
"""The card's own products, and what is left of each for tokens that are in 8 bits already."""


@cache
def choose_product(device: torch.device, dtype: torch.dtype, compiled: bool = False) -> Product:
    """The way that this device is to compute with tokens of `dtype`, decided once.

    e4m3 on the card where it has units for it and that is faster (measured in `benchmarks/README.md`), and
    only after it has computed something there; in bfloat16 alone, as float16 cannot hold an output before it
    is scaled.

    Args:
        compiled: whether `torch.compile` joins the product with what is around it.
    """
    if device.type != "cuda" or dtype != torch.bfloat16:
        return dequantised_product
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        return dequantised_product
    ways = (rowwise_fp8_linear, postscaled_fp8_linear) if compiled else (rowwise_fp8_linear,)
    return next((way for way in ways if _computes(way, device, dtype)), dequantised_product)


def _computes(product: Product, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a product of numbers that e4m3 holds exactly is what it must be."""
    numbers = torch.arange(48 * 64, device=device)
    tokens = ((numbers.reshape(48, 64) * 5 % 15) - 7).to(dtype)
    tokens[:, 0] = 7  # the largest of each, so that all are scaled by a power of 2
    weight = ((numbers[: 32 * 64].reshape(32, 64) * 3 % 17) - 8).to(torch.float32)
    scale = torch.linspace(0.5, 2, 32, device=device)
    bias = torch.ones(32, dtype=dtype, device=device)
    expected = functional.linear(tokens.float(), weight * scale[:, None], bias.float())
    try:
        found = product(tokens, weight.to(E4M3), scale, bias).float()
        error = float((found - expected).norm() / expected.norm())
    except Exception as failure:  # what is missing or broken may raise anything
        if is_out_of_memory(failure):
            raise
        logger.info("products in e4m3 cannot be used: %s", failure)
        return False
    if not error < TRIAL_ERROR:
        logger.info("products in e4m3 are wrong by %.3g", error)
    return error < TRIAL_ERROR


def use_best_product(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Have the scaled layers of a module compute as this device does best, but for widths that it refuses."""
    for layer in module.modules():
        if isinstance(layer, ScaledLinear) and all(s % FP8_MULTIPLE == 0 for s in layer.weight.shape):
            layer.product = choose_product(device, dtype)
            layer.compiled_product = choose_product(device, dtype, compiled=True)


def use_scaled_layers(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Put scaled layers in the place of an empty module's linear ones, where the files hold 8 bits.

    Files with weights of 8 bits that were never scaled are none of ours, and read like any other.
    """
    tensors = checkpoint.tensors
    eight_bit = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        and f"{name}.weight" in tensors
        and tensors[f"{name}.weight"].dtype == "F8_E4M3"
    ]
    if not any(f"{name}.scale" in tensors for name in eight_bit):
        return
    for name in eight_bit:
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        scaled = ScaledLinear(layer.in_features, layer.out_features, layer.bias is not None)
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, scaled)


def fixed_dtypes(module: nn.Module) -> dict[str, torch.dtype]:
    """The tensors of a module that keep their dtype whatever it computes in, by name."""
    return {
        f"{name}.{tensor}": dtype
        for name, layer in module.named_modules()
        if isinstance(layer, ScaledLinear)
        for tensor, dtype in FIXED_DTYPES.items()
    }


def _parameter(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
