"""The linear layers with 8-bit weights: an e4m3 number for each weight, a float32 scale for each row.

Where the GPU multiplies e4m3 natively and that is faster, tokens are quantized, too; everywhere else the
weights are dequantized for each product. Knows no files: `conversion.py` makes them.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from ..kernels import agrees
from ..weights.checkpoint import Checkpoint
from .tokens import E4M3, LARGEST, Tokens, quantize_tokens

FP8_CAPABILITY = (8, 9)
"""The first compute capability with e4m3 products: Ada."""
FP8_MULTIPLE = 16
"""The number that both widths of an e4m3 product must be multiples of."""
SELF_TEST_TOLERANCE = 0.01

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""The product of tokens `(..., in)`, weight `(out, in)` e4m3, its rows' scale `(out,)` and bias `(out,)`."""


class ScaledLinear(nn.Module):
    """An `nn.Linear` with the same names and a `scale` beside its weight."""

    def __init__(self, inputs: int, outputs: int, has_bias: bool) -> None:
        super().__init__()
        self.weight = _parameter(torch.empty(outputs, inputs, dtype=E4M3))
        self.scale = _parameter(torch.empty(outputs, dtype=torch.float32))
        self.bias = _parameter(torch.empty(outputs)) if has_bias else None
        self.product: Product = dequantized_product
        self.compiled_product: Product = dequantized_product
        """The product that a compiler is given, which fuses it with its neighbours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = self.compiled_product if torch.compiler.is_compiling() else self.product
        return product(x, self.weight, self.scale, self.bias)

    def multiply(self, tokens: Tokens, dtype: torch.dtype) -> torch.Tensor:
        """Return the compiler's product, which must be in `QUANTIZED_INPUT`: `(n, outputs)` of `dtype`."""
        product = QUANTIZED_INPUT[self.compiled_product]
        return product(tokens, self.weight, self.scale, self.bias, dtype)


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight `(out, in)` float32 in e4m3 and its rows' scale `(out,)`; a row's largest number is 448.

    A scale is not finite where its row is not. A row without any number gets the scale 1.
    """
    scale = weight.abs().amax(1) / LARGEST
    scale = torch.where(scale == 0, 1.0, scale)
    return (weight / scale[:, None]).to(E4M3), scale


def dequantized_product(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return the product with dequantized weights.

    Each weight is rounded once: the tokens' dtypes hold all of e4m3, and the scaling computes in float32, in
    place, which takes no memory beside the whole weight. Scaling the output instead would round no weight,
    but overflow float16 and take longer: there are more tokens than inputs.
    """
    whole = weight.to(x.dtype, copy=True).mul_(scale[:, None])
    return functional.linear(x, whole, bias)


def rowwise_fp8_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return the GPU's native e4m3 product, which scales the rows of both: PyTorch for Linux has it."""
    result = multiply_rows(quantize_tokens(x), weight, scale, bias, x.dtype)
    return result.reshape(*x.shape[:-1], len(weight))


def postscaled_fp8_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return the GPU's native e4m3 product where that scales no rows: they are scaled afterwards.

    Only for a compiler, which fuses it with its neighbours. Otherwise, one more pass over the output takes
    longer than e4m3 saves.
    """
    result = multiply_units(quantize_tokens(x), weight, scale, bias, x.dtype)
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
"""The native products, and the function for tokens that are quantized already."""


@cache
def choose_product(device: torch.device, dtype: torch.dtype, compiled: bool = False) -> Product:
    """Return the fastest product of a device for tokens of `dtype`, chosen once.

    e4m3 where the GPU has units for it, that is faster (measured in `benchmarks/README.md`) and a trial was
    right; in bfloat16 alone, as float16 cannot hold an output before it is scaled.

    Args:
        compiled: `torch.compile` fuses the product with its neighbours.
    """
    if device.type != "cuda" or dtype != torch.bfloat16:
        return dequantized_product
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        return dequantized_product
    products = (rowwise_fp8_linear, postscaled_fp8_linear) if compiled else (rowwise_fp8_linear,)
    return next((each for each in products if _computes(each, device, dtype)), dequantized_product)


def _computes(product: Product, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a product of numbers that e4m3 holds exactly is right."""
    numbers = torch.arange(48 * 64, device=device)
    tokens = ((numbers.reshape(48, 64) * 5 % 15) - 7).to(dtype)
    tokens[:, 0] = 7  # the largest of each, so that all are scaled by a power of 2
    weight = ((numbers[: 32 * 64].reshape(32, 64) * 3 % 17) - 8).to(torch.float32)
    scale = torch.linspace(0.5, 2, 32, device=device)
    bias = torch.ones(32, dtype=dtype, device=device)
    expected = functional.linear(tokens.float(), weight * scale[:, None], bias.float())
    arguments = tokens, weight.to(E4M3), scale, bias
    return agrees(product.__name__, lambda: [product(*arguments)], [expected], SELF_TEST_TOLERANCE)


def use_best_product(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Set the fastest product of the device in a module's scaled layers, but for widths that it refuses."""
    for layer in module.modules():
        if isinstance(layer, ScaledLinear) and all(s % FP8_MULTIPLE == 0 for s in layer.weight.shape):
            layer.product = choose_product(device, dtype)
            layer.compiled_product = choose_product(device, dtype, compiled=True)


def use_scaled_layers(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Replace an empty module's linear layers by scaled ones where the files hold 8-bit weights.

    Files with 8-bit weights and no scale are not ours, and are read like any other.
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
    """Return the dtypes of the tensors that keep them whatever the module computes in, by name."""
    names = [name for name, layer in module.named_modules() if isinstance(layer, ScaledLinear)]
    return {f"{n}.weight": E4M3 for n in names} | {f"{n}.scale": torch.float32 for n in names}


def _parameter(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
