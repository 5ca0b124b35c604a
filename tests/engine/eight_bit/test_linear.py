"""8-bit linear layers: their numbers, the products, and which one is used."""

import pytest
import torch
from torch import nn

from diffusers_helper.eight_bit import linear
from diffusers_helper.eight_bit.linear import (
    E4M3,
    ScaledLinear,
    choose_product,
    fixed_dtypes,
    postscaled_fp8_product,
    quantize,
    rowwise_fp8_product,
    scaled_linear,
    use_best_product,
    use_scaled_layers,
)
from diffusers_helper.weights.checkpoint import Checkpoint, StoredTensor

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FP8_PRODUCTS = [rowwise_fp8_product, postscaled_fp8_product]
HALF_STEP = 2.0**-4
"""The largest relative rounding error of e4m3, which has three mantissa bits."""


@pytest.fixture(autouse=True)
def choose_anew():
    choose_product.cache_clear()
    yield
    choose_product.cache_clear()


def made(outputs=48, inputs=64, tokens=7, dtype=torch.float32):
    """Tokens, weight, scale and bias; weights are exact multiples of what e4m3 holds."""
    torch.manual_seed(0)
    weight, scale = quantize(torch.randn(outputs, inputs) * torch.logspace(-3, 2, outputs)[:, None])
    return torch.randn(2, tokens, inputs, dtype=dtype), weight, scale, torch.randn(outputs, dtype=dtype)


def exact(x, weight, scale, bias):
    whole = weight.double() * scale.double()[:, None]
    return nn.functional.linear(x.double(), whole, None if bias is None else bias.double())


def off(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def test_a_quantized_weight_is_within_half_a_step():
    torch.manual_seed(0)
    weight = torch.randn(300, 200) * torch.logspace(-20, 20, 300)[:, None]
    numbers, scale = quantize(weight)
    whole = numbers.double() * scale.double()[:, None]
    smallest_step = scale.double()[:, None] * 2.0**-9
    bound = torch.maximum(weight.abs().double() * HALF_STEP, smallest_step / 2) * (1 + 1e-6)
    assert ((whole - weight).abs() <= bound).all()
    assert (numbers.float().abs().amax(1) == 448).all()


def test_scales_of_zero_and_tiny_rows_are_1_and_of_not_finite_rows_not_finite():
    weight = torch.ones(5, 16)
    weight[0], weight[1, 3], weight[2, 5], weight[3] = 0, torch.inf, torch.nan, 1e-45
    numbers, scale = quantize(weight)
    assert scale[[0, 3]].tolist() == [1, 1]
    assert (numbers[[0, 3]].float() == 0).all()
    assert scale.isfinite().tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_dequantized_weight_is_rounded_once_and_left_unchanged(dtype):
    _, weight, scale, _ = made()
    wanted = (weight.float() * scale[:, None]).to(dtype)
    for _call in range(2):
        assert torch.equal(scaled_linear(torch.eye(64, dtype=dtype), weight, scale, None, None).T, wanted)


@pytest.mark.parametrize("product", FP8_PRODUCTS)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_agree_but_for_the_tokens_rounding(product, dtype, has_bias):
    x, weight, scale, bias = made(dtype=dtype)
    bias = bias if has_bias else None
    expected = exact(x, weight, scale, bias)
    whole, fast = (scaled_linear(x, weight, scale, bias, each) for each in (None, product))
    assert whole.dtype == fast.dtype == dtype
    assert whole.shape == fast.shape == (2, 7, 48)
    assert off(whole, expected) < 0.005
    assert 0.005 < off(fast, expected) < 0.04


@pytest.mark.parametrize("product", FP8_PRODUCTS)
def test_fp8_products_are_exact_for_quantized_tokens(product):
    x, weight, scale, bias = made()
    numbers, token_scale = quantize(x.reshape(-1, 64))
    tokens = numbers.double() * token_scale.double()[:, None]
    expected = exact(tokens.reshape(x.shape), weight, scale, bias)
    assert off(scaled_linear(x, weight, scale, bias, product), expected) < 1e-5


@pytest.mark.parametrize("product", FP8_PRODUCTS)
def test_fp8_products_handle_zero_huge_tiny_and_nan_tokens(product):
    x, weight, scale, bias = made()
    x[0, 0], x[0, 1], x[0, 2], x[1, 3, 5] = 0, x[0, 1] * 1e20, x[0, 2] * 1e-20, torch.nan
    found = scaled_linear(x, weight, scale, bias, product)
    assert torch.allclose(found[0, 0], bias)
    assert off(found[0, 1], exact(x[0, 1], weight, scale, bias)) < 0.06
    assert found[0].isfinite().all()
    assert found[1, 3].isnan().all()


@pytest.mark.parametrize("product", [None, *FP8_PRODUCTS])
def test_products_compile_to_one_graph_for_any_number_of_tokens(product, graphs):
    compiled = torch.compile(scaled_linear, fullgraph=True, dynamic=True, backend=graphs.backend)
    for tokens in (7, 9, 30):
        given = *made(tokens=tokens), product
        assert torch.equal(compiled(*given), scaled_linear(*given))
    assert graphs.count == 1


# -- which product is used ------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """An Ada GPU that computes as the CPU does."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    original = linear._computes
    monkeypatch.setattr(linear, "_computes", lambda product, _, dtype: original(product, CPU, dtype))
    return monkeypatch


@pytest.fixture
def windows(gpu):
    """The same GPU with a PyTorch that has no row-wise scaling."""
    original = torch._scaled_mm

    def reject_rows(*given, scale_a, **named):
        if scale_a.ndim:
            raise RuntimeError("Rowwise scaling is not currently compiled!")
        return original(*given, scale_a=scale_a, **named)

    gpu.setattr(torch, "_scaled_mm", reject_rows)
    return gpu


def test_a_gpu_with_e4m3_uses_it_and_is_tried_once(gpu):
    assert choose_product(GPU, torch.bfloat16) is rowwise_fp8_product
    assert choose_product(GPU, torch.bfloat16, compiled=True) is rowwise_fp8_product
    gpu.setattr(linear, "_computes", lambda *_: False)
    assert choose_product(GPU, torch.bfloat16) is rowwise_fp8_product


@pytest.mark.parametrize(("compiled", "product"), [(True, postscaled_fp8_product), (False, None)])
def test_without_rowwise_scaling_only_compiled_products_use_e4m3(windows, compiled, product):  # noqa: ARG001
    assert choose_product(GPU, torch.bfloat16, compiled) is product


def test_float16_cpus_and_older_gpus_use_dequantized_weights(gpu):
    assert choose_product(GPU, torch.float16) is None
    assert choose_product(CPU, torch.bfloat16) is None
    gpu.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    assert choose_product(GPU, torch.bfloat16) is None


@pytest.mark.parametrize("factor", [0.9, "not a number"])
def test_a_gpu_that_fails_or_computes_wrong_uses_dequantized_weights(gpu, factor):
    original = torch._scaled_mm
    gpu.setattr(torch, "_scaled_mm", lambda *given, **named: original(*given, **named) * factor)
    assert choose_product(GPU, torch.bfloat16, compiled=True) is None


def test_widths_that_e4m3_refuses_use_dequantized_weights(monkeypatch):
    monkeypatch.setattr(linear, "choose_product", lambda *_, **__: rowwise_fp8_product)
    layers = nn.Sequential(ScaledLinear(64, 48, True), ScaledLinear(64, 40, True), nn.Linear(2, 2))
    use_best_product(layers, GPU, torch.bfloat16)
    for products in ("product", "compiled_product"):
        assert [getattr(layer, products) for layer in layers[:2]] == [rowwise_fp8_product, None]


# -- where they are used --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "scaled"),
    [
        ({"a.weight": "BF16", "b.weight": "F8_E4M3", "b.scale": "F32"}, "b"),
        ({"a.weight": "F8_E4M3", "b.weight": "F8_E4M3", "b.scale": "F32"}, "ab"),  # where one is missing
        ({"a.weight": "F8_E4M3", "b.weight": "F8_E4M3"}, ""),  # not ours
    ],
)
def test_layers_are_scaled_where_the_files_hold_8_bits_and_scales(tmp_path, stored, scaled):
    model = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2, bias=False)})
    names = set(model.state_dict())
    tensors = {name: StoredTensor(tmp_path / "a", dtype, (), 0, 0) for name, dtype in stored.items()}
    use_scaled_layers(model, Checkpoint(tmp_path, tensors, {}))
    assert set(model.state_dict()) == names | {f"{name}.scale" for name in scaled}
    assert model["b"].weight.shape == (2, 4)
    dtypes = {f"{n}.weight": E4M3 for n in scaled} | {f"{n}.scale": torch.float32 for n in scaled}
    assert fixed_dtypes(model) == dtypes
