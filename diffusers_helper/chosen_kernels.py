"""The kernels that jobs of the real models use on a GPU: for telling about them before anything is loaded.

Importing it imports torch.
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn.attention import SDPBackend

from .device import Compute
from .eight_bit.int8_attention import is_faster
from .eight_bit.linear import choose_product, kernel_product
from .transformer.attention import NATIVE, AttentionChooser

HEADS, HEAD_DIM = 24, 128
"""The heads of HunyuanVideo's transformer, and each one's width."""

AttentionKernel = Literal["cudnn", "flash", "xformers", "efficient", "math"]
Product = Literal["triton", "pytorch", "dequantized"]
_NAMES: dict[SDPBackend, AttentionKernel] = {
    SDPBackend.CUDNN_ATTENTION: "cudnn",
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.EFFICIENT_ATTENTION: "efficient",
    SDPBackend.MATH: "math",
}


@dataclass(frozen=True)
class ChosenKernels:
    """The kernels of one GPU.

    Attributes:
        attention: the kernel of the blocks' attention; `math` is PyTorch's plain computation.
        product: the product of tokens and 8-bit weights: our kernel, PyTorch's own, or one of weights that
            are dequantized first.
        int8_attention: whether blocks with 8-bit weights compute attention in int8 instead.
    """

    attention: AttentionKernel
    product: Product
    int8_attention: bool


def choose_kernels(compute: Compute) -> ChosenKernels:
    """Choose the kernels as a job does, which tries them on the GPU and takes seconds.

    Raises:
        torch.OutOfMemoryError: there is too little free memory to try.
    """
    device, activations = compute.device, compute.activations
    chooser = AttentionChooser(device, compute.transformer, compute.compiles)
    attention = chooser.kernel(HEADS, HEAD_DIM)
    product = choose_product(device, activations, HEADS * HEAD_DIM, HEADS * HEAD_DIM)
    exact = chooser.choose(HEADS, HEAD_DIM) or NATIVE
    fuses = compute.compiles and product is kernel_product
    return ChosenKernels(
        attention="xformers" if attention is None else _NAMES[attention],
        product="dequantized" if product is None else "triton" if product is kernel_product else "pytorch",
        int8_attention=fuses and is_faster(device, activations, HEADS, HEAD_DIM, exact),
    )
