"""The linear layers with 8-bit weights: rows are rotated, in int8, with a float32 scale for each.

Where the GPU multiplies int8, tokens are rotated and quantized, too; everywhere else the weights are
dequantized and rotated back for each product. Knows no files: `conversion.py` makes them.
"""

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from ..kernels import agrees, compiles
from ..weights.checkpoint import Checkpoint
from .tokens import LARGEST, ROTATION_WIDTHS, Tokens, quantize_tokens, rotate

logger = logging.getLogger(__name__)

INT8_CAPABILITY = (7, 5)
"""The first compute capability with int8 products: Turing."""
INT8_MULTIPLE = ROTATION_WIDTHS[0]
"""The number that both widths of an int8 product must be multiples of, because our kernels go by it."""
SELF_TEST_TOLERANCE = 0.01
ROWS = 2048
"""Tokens of which `int8_product` holds the integers and float32 numbers at a time."""
SMALLEST_ROWS = 32
"""Tokens that cuBLAS wants at least in an int8 product."""

Product = Callable[[Tokens, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""An int8 product `(n, out)` of tokens, weight `(out, in)` int8, its rows' scale `(out,)` and bias `(out,)`,
in the tokens' dtype."""


class ScaledLinear(nn.Module):
    """An `nn.Linear` with the same names and a `scale` beside its weight."""

    def __init__(self, inputs: int, outputs: int, has_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=torch.int8), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(outputs, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if has_bias else None
        self.product: Product | None = None
        """The product to compute with; None where the weights are dequantized."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scaled_linear(x, self.weight, self.scale, self.bias, self.product)

    def multiply(self, tokens: Tokens) -> torch.Tensor:
        """Return the product of tokens that are quantized already."""
        assert self.product is not None
        return self.product(tokens, self.weight, self.scale, self.bias)


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rotated rows of a weight `(out, in)` float32 in int8 and their scale `(out,)`.

    A row's largest number is 127. A scale is not finite where its row is not; that of zeros is 1.
    """
    rotated = rotate(weight)
    scale = rotated.abs().amax(1) / LARGEST
    scale = torch.where(scale == 0, 1.0, scale)
    return rotated.div_(scale[:, None]).round_().to(torch.int8), scale


def scaled_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    product: Product | None,
) -> torch.Tensor:
    """Multiply tokens `(..., in)` by a `product`, or, without one, by the dequantized weights."""
    if product is None:
        return functional.linear(x, rotate(weight.to(x.dtype)).mul_(scale[:, None]), bias)
    result = product(quantize_tokens(x), weight, scale, bias)
    return result.reshape(*x.shape[:-1], len(weight))


def int8_product(
    tokens: Tokens, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Do `Product` by PyTorch's own product, some tokens at a time, because its integers take much memory."""
    result = torch.empty(len(tokens.numbers), len(weight), dtype=tokens.dtype, device=weight.device)
    for rows in torch.arange(len(result)).split(ROWS):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        numbers = tokens.numbers[part]
        padded = functional.pad(numbers, (0, 0, 0, -len(numbers) % SMALLEST_ROWS))
        whole = torch._int_mm(padded, weight.t())[: len(numbers)] * tokens.scale[part] * scale
        result[part] = whole if bias is None else whole + bias
    return result


@cache
def choose_product(device: torch.device, dtype: torch.dtype, outputs: int, inputs: int) -> Product | None:
    """Return a device's product of these widths for tokens of `dtype`, or None to dequantize; chosen once.

    Our kernel for bfloat16 where Triton is, PyTorch's own elsewhere, if a trial with such tokens was right.
    """
    if (obstacle := _obstacle(device, outputs, inputs)) is not None:
        logger.info("8-bit weights of %d x %d are dequantized: %s", outputs, inputs, obstacle)
        return None
    products = (kernel_product, int8_product) if dtype == torch.bfloat16 else (int8_product,)
    chosen = next((each for each in products if _computes(each, device, dtype, outputs, inputs)), None)
    name = "no product" if chosen is None else chosen.__name__
    logger.info("8-bit weights of %d x %d: %s computes right", outputs, inputs, name)
    return chosen


def _obstacle(device: torch.device, outputs: int, inputs: int) -> str | None:
    """Return why no int8 product is tried on a device; None where one is."""
    if device.type != "cuda":
        return "this is no GPU"
    if torch.cuda.get_device_capability(device) < INT8_CAPABILITY:
        return "the GPU has no int8 products"
    is_multiple = outputs % INT8_MULTIPLE == inputs % INT8_MULTIPLE == 0
    return None if is_multiple else f"both must be multiples of {INT8_MULTIPLE}"


def kernel_product(
    tokens: Tokens, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Do `Product` by our kernel. Raises ImportError where Triton is not."""
    from .product_kernel import int8_product_with_scales

    return int8_product_with_scales(tokens, weight, scale, bias)


def _computes(product: Product, device: torch.device, dtype: torch.dtype, outputs: int, inputs: int) -> bool:
    """Return whether a product of random numbers is right."""
    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    tokens = quantize_tokens(randn(48, inputs).to(dtype))
    weight, scale = quantize(randn(outputs, inputs) / inputs**0.5)
    bias = randn(outputs).to(dtype)
    whole = rotate(weight.float()).mul_(scale[:, None])
    expected = functional.linear(tokens.dequantize(), whole, bias.float())
    name = f"{product.__name__} of {outputs} x {inputs}"
    trial = compiles if product is kernel_product else agrees
    return trial(name, lambda: [product(tokens, weight, scale, bias)], [expected], SELF_TEST_TOLERANCE)


def use_best_product(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Set the device's fastest product in a module's scaled layers."""
    for layer in module.modules():
        if isinstance(layer, ScaledLinear):
            layer.product = choose_product(device, dtype, *layer.weight.shape)


def use_scaled_layers(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Replace an empty module's linear layers by scaled ones where the files, which are ours, hold 8 bits."""
    stored = {name for name, tensor in checkpoint.tensors.items() if tensor.dtype == "I8"}
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and f"{name}.weight" in stored:
            scaled = ScaledLinear(layer.in_features, layer.out_features, layer.bias is not None)
            module.set_submodule(name, scaled)


def fixed_dtypes(module: nn.Module) -> dict[str, torch.dtype]:
    """Return the dtypes of the tensors that keep them whatever the module computes in, by name."""
    names = [name for name, layer in module.named_modules() if isinstance(layer, ScaledLinear)]
    return {f"{n}.weight": torch.int8 for n in names} | {f"{n}.scale": torch.float32 for n in names}
