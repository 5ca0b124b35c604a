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

Product = Callable[[Tokens, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""The GPU's native e4m3 product `(n, out)` of tokens, weight `(out, in)` e4m3, its rows' scale `(out,)` and
bias `(out,)`, in the tokens' dtype."""


class ScaledLinear(nn.Module):
    """An `nn.Linear` with the same names and a `scale` beside its weight."""

    def __init__(self, inputs: int, outputs: int, has_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=E4M3), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(outputs, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if has_bias else None
        self.product: Product | None = None
        """The product to compute with; None where the weights are dequantized."""
        self.compiled_product: Product | None = None
        """The product that a compiler is given, which fuses it with its neighbours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = self.compiled_product if torch.compiler.is_compiling() else self.product
        return scaled_linear(x, self.weight, self.scale, self.bias, product)

    def multiply(self, tokens: Tokens) -> torch.Tensor:
        """Return the compiler's product, which must be native, of tokens that are quantized already."""
        assert self.compiled_product is not None
        return self.compiled_product(tokens, self.weight, self.scale, self.bias)


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight `(out, in)` float32 in e4m3 and its rows' scale `(out,)`; a row's largest number is 448.

    A scale is not finite where its row is not. A row without any number gets the scale 1.
    """
    scale = weight.abs().amax(1) / LARGEST
    scale = torch.where(scale == 0, 1.0, scale)
    return (weight / scale[:, None]).to(E4M3), scale


def scaled_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    product: Product | None,
) -> torch.Tensor:
    """Multiply tokens `(..., in)` by a `product`, or, without one, by the dequantized weights.

    Each of those is rounded once: the tokens' dtypes hold all of e4m3, and the scaling computes in float32,
    in place, which takes no memory beside the whole weight. Scaling the output instead would round no weight,
    but overflow float16 and take longer: there are more tokens than inputs.
    """
    if product is None:
        whole = weight.to(x.dtype, copy=True).mul_(scale[:, None])
        return functional.linear(x, whole, bias)
    result = product(quantize_tokens(x), weight, scale, bias)
    return result.reshape(*x.shape[:-1], len(weight))


def rowwise_fp8_product(
    tokens: Tokens, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Do `Product` where the GPU scales the rows of both: PyTorch for Linux has it."""
    return torch._scaled_mm(
        tokens.numbers,
        weight.t(),
        scale_a=tokens.scale,
        scale_b=scale[None],
        bias=bias,
        out_dtype=tokens.dtype,
        use_fast_accum=True,
    )


def postscaled_fp8_product(
    tokens: Tokens, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Do `Product` where the GPU scales no rows: they are scaled afterwards.

    Only for a compiler, which fuses that with its neighbours. Otherwise, one more pass over the output takes
    longer than e4m3 saves.
    """
    one = torch.ones((), dtype=torch.float32, device=weight.device)
    result = torch._scaled_mm(
        tokens.numbers, weight.t(), scale_a=one, scale_b=one, out_dtype=tokens.dtype, use_fast_accum=True
    )
    scaled = result * tokens.scale * scale
    return (scaled if bias is None else scaled + bias).to(tokens.dtype)


@cache
def choose_product(device: torch.device, dtype: torch.dtype, compiled: bool = False) -> Product | None:
    """Return the fastest product of a device for tokens of `dtype`, or None to dequantize; chosen once.

    e4m3 where the GPU has units for it, that is faster (measured in `benchmarks/README.md`) and a trial was
    right; in bfloat16 alone, as float16 cannot hold an output before it is scaled.

    Args:
        compiled: `torch.compile` fuses the product with its neighbours.
    """
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        return None
    products = (rowwise_fp8_product, postscaled_fp8_product) if compiled else (rowwise_fp8_product,)
    return next((each for each in products if _computes(each, device, dtype)), None)


def _computes(product: Product, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a product of numbers that e4m3 holds exactly is right."""
    numbers = torch.arange(48 * 64, device=device)
    tokens = ((numbers.reshape(48, 64) * 5 % 15) - 7).to(dtype)
    tokens[:, 0] = 7  # the largest of each, so that all are scaled by a power of 2
    weight = ((numbers[: 32 * 64].reshape(32, 64) * 3 % 17) - 8).to(torch.float32)
    scale = torch.linspace(0.5, 2, 32, device=device)
    bias = torch.ones(32, dtype=dtype, device=device)
    expected = functional.linear(tokens.float(), weight * scale[:, None], bias.float())

    def compute() -> list[torch.Tensor]:
        return [scaled_linear(tokens, weight.to(E4M3), scale, bias, product)]

    return agrees(product.__name__, compute, [expected], SELF_TEST_TOLERANCE)


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
    stored = {name for name, tensor in checkpoint.tensors.items() if tensor.dtype == "F8_E4M3"}
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and f"{name}.weight" in stored
    }
    if any(f"{name}.scale" in checkpoint.tensors for name in layers):
        for name, layer in layers.items():
            scaled = ScaledLinear(layer.in_features, layer.out_features, layer.bias is not None)
            module.set_submodule(name, scaled)


def fixed_dtypes(module: nn.Module) -> dict[str, torch.dtype]:
    """Return the dtypes of the tensors that keep them whatever the module computes in, by name."""
    names = [name for name, layer in module.named_modules() if isinstance(layer, ScaledLinear)]
    return {f"{n}.weight": E4M3 for n in names} | {f"{n}.scale": torch.float32 for n in names}
