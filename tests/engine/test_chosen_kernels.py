"""The kernels that are named before anything is loaded are those that jobs choose."""

import pytest
import torch
from torch.nn.attention import SDPBackend

from diffusers_helper import chosen_kernels
from diffusers_helper.chosen_kernels import ChosenKernels, choose_kernels
from diffusers_helper.device import Compute
from diffusers_helper.eight_bit.linear import int8_product, kernel_product
from diffusers_helper.transformer.attention import AttentionChooser

GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("kernel", "product", "is_faster", "compiles", "chosen"),
    [
        ("CUDNN_ATTENTION", kernel_product, True, True, ChosenKernels("cudnn", "triton", True)),
        ("FLASH_ATTENTION", kernel_product, False, True, ChosenKernels("flash", "triton", False)),
        # int8 attention is a part of compiled blocks whose products are our kernel
        ("FLASH_ATTENTION", kernel_product, True, False, ChosenKernels("flash", "triton", False)),
        ("EFFICIENT_ATTENTION", int8_product, True, True, ChosenKernels("efficient", "pytorch", False)),
        ("MATH", None, True, True, ChosenKernels("math", "dequantized", False)),
        (None, None, False, False, ChosenKernels("xformers", "dequantized", False)),
    ],
)
def test_the_choices_are_named(monkeypatch, kernel, product, is_faster, compiles, chosen):
    asked = []
    monkeypatch.setattr(AttentionChooser, "kernel", lambda *_: kernel and getattr(SDPBackend, kernel))
    monkeypatch.setattr(AttentionChooser, "choose", lambda *_: "_native_flash")
    monkeypatch.setattr(chosen_kernels, "choose_product", lambda *given: asked.append(given) or product)
    monkeypatch.setattr(chosen_kernels, "is_faster", lambda *given: asked.append(given) or is_faster)
    compute = Compute(GPU, torch.float16, torch.float16, compiles=compiles)
    assert choose_kernels(compute) == chosen
    assert asked[0] == (GPU, torch.float32, 3072, 3072), "float16 GPUs have float32 activations"
    assert asked[1:] in ([], [(GPU, torch.float32, 24, 128, "_native_flash")])
