"""8-bit linear layers: their numbers, the products, and which one is used."""

import pytest
import torch
from torch import nn

from diffusers_helper.eight_bit import linear
from diffusers_helper.eight_bit.linear import (
    ScaledLinear,
    choose_product,
    fixed_dtypes,
    int8_product,
    quantize,
    scaled_linear,
    use_best_product,
    use_scaled_layers,
)
from diffusers_helper.eight_bit.tokens import quantize_tokens, rotate
from diffusers_helper.weights.checkpoint import Checkpoint, StoredTensor

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def choose_anew():
    choose_product.cache_clear()
    yield
    choose_product.cache_clear()


def made(outputs=48, inputs=256, tokens=7, dtype=torch.float32):
    """Tokens, weight, scale and bias."""
    torch.manual_seed(0)
    weight, scale = quantize(torch.randn(outputs, inputs) * torch.logspace(-3, 2, outputs)[:, None])
    return torch.randn(2, tokens, inputs, dtype=dtype), weight, scale, torch.randn(outputs, dtype=dtype)


def exact(x, weight, scale, bias):
    whole = rotate(weight.double() * scale.double()[:, None])
    return nn.functional.linear(x.double(), whole, None if bias is None else bias.double())


def off(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("inputs", [256, 192, 48, 30, 7])
def test_a_quantized_row_is_within_half_a_step_once_it_is_rotated(inputs):
    torch.manual_seed(0)
    weight = torch.randn(300, inputs) * torch.logspace(-20, 20, 300)[:, None]
    numbers, scale = quantize(weight)
    difference = (numbers.double() * scale.double()[:, None] - rotate(weight.double())).abs()
    assert (difference <= scale.double()[:, None] * 0.5001).all()
    assert (numbers.abs().amax(1) == 127).all()


@pytest.mark.parametrize("factor", [1, 20, 100])
def test_what_stands_out_costs_little(factor):
    """One input in 256 that is larger, or tokens of which one channel is: without rotation 0.02 to 0.1."""
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(5.0).sample((512, 3072))
    weight[:, 7] *= factor
    x = torch.randn(64, 3072)
    x[:, 100] *= factor
    expected = x.double() @ weight.double().T
    assert off(scaled_linear(x, *quantize(weight), None, None), expected) < 0.016
    assert off(scaled_linear(x, *quantize(weight), None, int8_product), expected) < 0.022


def test_scales_of_zero_rows_are_1_and_of_not_finite_rows_not_finite():
    weight = torch.ones(5, 16)
    weight[0], weight[1, 3], weight[2, 5], weight[3] = 0, torch.inf, torch.nan, 1e-45
    numbers, scale = quantize(weight)
    assert scale[[0, 3]].tolist() == [1, 1]
    assert (numbers[[0, 3]] == 0).all()
    assert scale.isfinite().tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_agree_but_for_the_tokens_rounding(dtype, has_bias):
    x, weight, scale, bias = made(dtype=dtype)
    bias = bias if has_bias else None
    expected = exact(x, weight, scale, bias)
    whole, fast = (scaled_linear(x, weight, scale, bias, each) for each in (None, int8_product))
    assert whole.dtype == fast.dtype == dtype
    assert whole.shape == fast.shape == (2, 7, 48)
    assert off(whole, expected) < 0.005
    assert 0.002 < off(fast, expected) < 0.015


@pytest.mark.parametrize("tokens", [1, 33, 5000])
def test_an_int8_product_is_exact_for_quantized_tokens(tokens):
    x, weight, scale, bias = made(tokens=tokens)
    quantized = quantize_tokens(x)
    expected = exact(quantized.dequantize(), weight, scale, bias)
    assert off(int8_product(quantized, weight, scale, bias), expected) < 1e-6


def test_an_int8_product_handles_zero_huge_tiny_and_nan_tokens():
    (x, weight, scale, bias), large = made(), 1e20
    weight, scale = quantize(torch.randn(48, 256) / 100)
    x[0, 0], x[0, 1], x[0, 2], x[1, 3, 5] = 0, x[0, 1].sign() * large, x[0, 2] / large, torch.nan
    found = scaled_linear(x, weight, scale, bias, int8_product)
    assert torch.allclose(found[0, 0], bias)
    assert off(found[0, 1], exact(x[0, 1], weight, scale, bias)) < 0.03
    assert found[0].isfinite().all()
    assert found[1, 3].isnan().all()


# -- which product is used ------------------------------------------------------------------------------


def kernel(*given):
    return int8_product(*given)


@pytest.fixture
def gpu(monkeypatch):
    """A Turing GPU that computes as the CPU does, with a kernel."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(linear, "kernel_product", kernel)
    original = linear._computes
    monkeypatch.setattr(linear, "_computes", lambda product, _, *given: original(product, CPU, *given))
    return monkeypatch


@pytest.mark.parametrize(("dtype", "product"), [(torch.bfloat16, kernel), (torch.float16, int8_product)])
def test_a_gpu_with_int8_uses_it_and_is_tried_once_for_each_width(gpu, dtype, product):
    assert choose_product(GPU, dtype, 512, 256) is product
    gpu.setattr(linear, "_computes", lambda *_: False)
    assert choose_product(GPU, dtype, 512, 256) is product
    assert choose_product(GPU, dtype, 256, 512) is None


def broken(change):
    """A product that fails or computes wrong."""

    def compute(*given):
        if change == "no Triton":
            raise ImportError("No module named 'triton'")
        return int8_product(*given) * change

    return compute


@pytest.mark.parametrize("change", [0.9, torch.nan, "no Triton"])
def test_without_a_right_kernel_pytorchs_own_product_is_used(gpu, change):
    gpu.setattr(linear, "kernel_product", broken(change))
    assert choose_product(GPU, torch.bfloat16, 512, 256) is int8_product
    choose_product.cache_clear()
    gpu.setattr(linear, "int8_product", broken(change))
    assert choose_product(GPU, torch.bfloat16, 512, 256) is None


@pytest.mark.parametrize("capability", [(7, 0), (6, 1)])
def test_cpus_and_older_gpus_use_dequantized_weights(gpu, capability):
    assert choose_product(CPU, torch.bfloat16, 512, 256) is None
    gpu.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_product(GPU, torch.bfloat16, 512, 256) is None


def test_widths_that_are_no_multiples_of_256_use_dequantized_weights(gpu):  # noqa: ARG001
    layers = nn.Sequential(ScaledLinear(256, 512, True), ScaledLinear(256, 320, True), nn.Linear(2, 2))
    use_best_product(layers, GPU, torch.bfloat16)
    assert [layer.product for layer in layers[:2]] == [kernel, None]


# -- where they are used --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "scaled"),
    [
        ({"a.weight": "BF16", "b.weight": "I8", "b.scale": "F32"}, "b"),
        ({"a.weight": "I8", "b.weight": "I8", "b.scale": "F32"}, "ab"),  # where one is missing
    ],
)
def test_layers_are_scaled_where_the_files_hold_8_bits(tmp_path, stored, scaled):
    model = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2, bias=False)})
    names = set(model.state_dict())
    tensors = {name: StoredTensor(tmp_path / "a", dtype, (), 0, 0) for name, dtype in stored.items()}
    use_scaled_layers(model, Checkpoint(tmp_path, tensors, {}))
    assert set(model.state_dict()) == names | {f"{name}.scale" for name in scaled}
    assert model["b"].weight.shape == (2, 4)
    dtypes = {f"{n}.weight": torch.int8 for n in scaled} | {f"{n}.scale": torch.float32 for n in scaled}
    assert fixed_dtypes(model) == dtypes
