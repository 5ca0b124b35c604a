"""Tests that need a GPU. `python -m pytest -m gpu` on a machine that has one."""

import contextlib
import copy
import dataclasses
import json
import threading
import time
from unittest.mock import Mock

import pytest
import torch

from diffusers_helper.chosen_kernels import choose_kernels
from diffusers_helper.device import choose_compute
from diffusers_helper.eight_bit.int8_attention import int8_attention, is_faster
from diffusers_helper.eight_bit.linear import (
    INT8_CAPABILITY,
    choose_product,
    int8_product,
    quantize,
    scaled_linear,
)
from diffusers_helper.eight_bit.tokens import Tokens
from diffusers_helper.engine import EngineConfig
from diffusers_helper.errors import MachineError
from diffusers_helper.models import vram_budget
from diffusers_helper.models.architectures import make_vae
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.report import Figures, ReportOptions, measure
from diffusers_helper.sampling.denoiser import SectionDenoiser
from diffusers_helper.streaming import ring
from diffusers_helper.streaming.layers import NUM_SLOTS
from diffusers_helper.transformer.attention import NATIVE, AttentionChooser, attend
from diffusers_helper.transformer.compiling import COMPILED_FORWARD, CompiledBlocks, EagerBlocks
from diffusers_helper.transformer.saved_graphs import SavedGraphs
from diffusers_helper.transformer.teacache import TeaCache
from diffusers_helper.vae.codec import _fetch, _pixels_in_time, decode_to
from diffusers_helper.vae.decoder import WindowDecoder, channel_sums
from diffusers_helper.vae.feature_maps import choose_unfold_frames
from diffusers_helper.vae.tiling import tilings_of
from diffusers_helper.vae.windows import Activation, WindowSpec, unfold_frames
from diffusers_helper.weights.model_files import find_models
from tests.support import eight_bit_blocks, token_ops
from tests.support.small_layers import SmallLayers
from tests.support.tiny import MODELS, START, random_step
from tests.support.triton_interpreter import HAS_TRITON, NEEDS_TRITON

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the compiler's own
]
SIGMAS = torch.tensor([1.0, 0.8, 0.6, 0.4])


def loader_of(runner=None):
    compute = dataclasses.replace(choose_compute("cuda"), compiles=False)
    return ModelLoader(find_models(MODELS), compute, runner)


def predict(runner=None, cache=None):
    """The clean latents of four steps."""
    loader, (inputs, x) = loader_of(runner), random_step()
    x = x.cuda()  # which waits for the GPU
    with loader.transformer(500) as transformer:
        if not transformer.is_prepared:
            transformer.prepare_blocks(500, loader.compute)
        denoiser = SectionDenoiser(transformer, inputs, loader.compute, SIGMAS, cache)
        yield from (denoiser.predict(x, sigma) for sigma in SIGMAS)


def error(found, wanted):
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def test_a_step_never_waits_for_the_gpu():
    with contextlib.closing(predict()) as steps:
        for _ in range(2):  # in which the weights' place is decided by the clock
            next(steps)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for latents in steps:
                assert latents.is_cuda
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_rings_size_changes_nothing_and_its_memory_comes_back(monkeypatch):
    monkeypatch.setattr(vram_budget, "plan_vram", lambda *_: [])
    loader, (inputs, x) = loader_of(), random_step()
    with loader.transformer(500) as transformer:
        layers = transformer.stack.layers
        denoiser = SectionDenoiser(transformer, inputs, loader.compute, SIGMAS)
        wanted = [denoiser.predict(x.cuda(), sigma) for sigma in SIGMAS]
        transformer.budget.close_ring()
        for _section in range(3):
            before = torch.cuda.memory_allocated()
            with transformer.streaming():
                for sigma, latents in zip(SIGMAS, wanted, strict=True):
                    assert error(denoiser.predict(x.cuda(), sigma), latents) < 1e-3
                assert len(layers.ring.slots) == len(layers.layers) > NUM_SLOTS
                assert torch.cuda.memory_allocated() - before >= len(layers.layers) * layers.ring.slot_bytes
            assert torch.cuda.memory_allocated() <= before


def test_teacache_synchronises_once_a_step(monkeypatch):
    asked = []
    original = torch.Tensor.item
    with contextlib.closing(predict(cache=TeaCache(0.4, len(SIGMAS)))) as steps:
        next(steps)
        monkeypatch.setattr(torch.Tensor, "item", lambda self: asked.append(self.is_cuda) or original(self))
        list(steps)
    assert sum(asked) == len(SIGMAS) - 2  # the first and the last step are always computed


@NEEDS_TRITON
def test_compiled_blocks_give_the_same_numbers():
    torch._dynamo.reset()
    runner = CompiledBlocks()
    found, wanted = list(predict(runner)), list(predict(EagerBlocks()))
    assert runner.is_compiling
    assert max(error(f, w) for f, w in zip(found, wanted, strict=True)) < 0.02


@pytest.mark.parametrize("name", ["_native_cudnn", "_native_flash", "_native_efficient"])
def test_every_attention_can_be_compiled(name):
    torch._dynamo.reset()
    states = [torch.randn(1, 640, 2, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    compiled = torch.compile(lambda *states: attend(list(states), name), fullgraph=True, dynamic=True)
    try:
        wanted = attend(states, name)
    except RuntimeError as failure:
        pytest.skip(str(failure))
    assert error(compiled(*states), wanted) < 0.01


def test_the_chosen_attention_is_correct():
    device = torch.device("cuda", 0)
    chosen = AttentionChooser(device, torch.bfloat16).choose(heads=4, head_dim=128)
    states = [torch.randn(1, 3000, 4, 128, device=device, dtype=torch.bfloat16) for _ in range(3)]
    assert error(attend(states, chosen or NATIVE), attend(states, "_native_math")) < 0.02


def test_the_kernels_that_the_check_names_are_fast_ones():
    kernels = choose_kernels(choose_compute("cuda"))
    assert kernels.attention != "math"
    assert kernels.product != "dequantized"


def test_the_unfolding_kernel_agrees_with_pytorch():
    activation = Activation(*torch.randn(2, 64, 1, 1, device="cuda"))
    seen = torch.randn(5, 20, 30, 64, device="cuda", dtype=torch.float16).permute(0, 3, 1, 2)
    if HAS_TRITON:
        assert choose_unfold_frames(seen.device) is not unfold_frames
    for top, bottom in ((False, True), (True, False)):
        arguments = (seen[:, :, 3:15], WindowSpec(5, 3, top, bottom), activation)
        assert error(choose_unfold_frames(seen.device)(*arguments), unfold_frames(*arguments)) < 1e-3


@torch.inference_mode()
def test_the_decoder_is_as_exact_as_that_of_diffusers():
    torch.manual_seed(0)
    config = json.loads((MODELS / "hunyuanvideo-community/HunyuanVideo/vae/config.json").read_text())
    vae = make_vae(config | {"block_out_channels": [32, 32, 64, 64], "norm_num_groups": 8}).eval().cuda()
    latents = torch.randn(1, 16, 5, 16, 24, device="cuda")
    exact = vae.decoder(latents)
    theirs = copy.deepcopy(vae.decoder).half()
    wanted = error(theirs(latents.half()), exact)
    assert error(WindowDecoder(theirs)(latents.half()), exact) < max(1.2 * wanted, 1e-3)


@torch.inference_mode()
def test_statistics_of_maps_and_of_strips_are_exact():
    maps = 5 + torch.randn(5, 64, 90, 70, device="cuda", dtype=torch.float16)
    maps = maps.contiguous(memory_format=torch.channels_last)
    wanted = maps.double().sum((0, 2, 3)), maps.double().square().sum((0, 2, 3))
    for pieces in ([maps], maps.split(2), maps.split(20, 2)):
        assert all(error(f, w) < 1e-6 for f, w in zip(channel_sums(pieces), wanted, strict=True))


def test_frames_arrive_before_work_queued_behind_them():
    stream = torch.cuda.Stream(priority=-1)
    pixels = torch.zeros(1, 3, 4, 40, 60, device="cuda", dtype=torch.float16)
    # The first time all kernels are loaded, which waits for what runs. 10**9 cycles are half a second.
    for cycles, level in (1, 191.25), (10**9, 255.0):
        torch.cuda._sleep(cycles)
        pixels.add_(0.5)
        frames = _fetch(pixels, stream)
        torch.cuda._sleep(4 * cycles)
        behind = torch.cuda.current_stream().record_event()
        assert all(torch.equal(frame, torch.full((40, 60, 3), level)) for frame in frames)
    assert not behind.query()


def test_frames_fetched_beside_the_next_window_are_right():
    latents = torch.randn(1, 16, 17, 16, 24)
    with loader_of().vae(encodes=False) as vae:
        pixels = []
        with torch.inference_mode():
            scaled = latents.to("cuda", vae.dtype) / vae.config.scaling_factor
            for piece in _pixels_in_time(scaled, vae, tilings_of(128, 192)[0], range(0, 16, 3)):
                torch.cuda.synchronize()
                pixels.append(piece.float())
        wanted = (torch.cat(pixels, 2)[0].permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5
        assert torch.equal(torch.stack([*decode_to(iter, latents, vae, 2**40)]), wanted.cpu())
        latents[:, :, -1] = float("nan")
        with pytest.raises(MachineError, match="not_a_number"):
            torch.stack([*decode_to(iter, latents, vae, 2**40)])


@pytest.mark.parametrize(("outputs", "inputs"), [(256, 512), (3072, 15360), (12288, 3072)])
def test_8_bit_products_agree(outputs, inputs):
    device = torch.device("cuda", 0)
    product = choose_product(device, torch.bfloat16, outputs, inputs)
    if torch.cuda.get_device_capability(device) >= INT8_CAPABILITY:
        assert product is not None
        assert (product is int8_product) is not HAS_TRITON
    weight, scale = quantize(torch.randn(outputs, inputs, device=device))
    x, bias = randn(1, 333, inputs), randn(outputs)
    found, native, whole = (
        scaled_linear(x, weight, scale, bias, each) for each in (product, int8_product, None)
    )
    assert error(found, native) < 0.002
    assert error(found, whole) < 0.02


def randn(*shape):
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


@NEEDS_TRITON
def test_token_kernels_agree_with_pytorch():
    """The widths are the real ones; a number at the border between two may become either."""
    from diffusers_helper.eight_bit import token_kernels

    first, second, angles = randn(300, 3072), randn(41, 3072), randn(300, 64).float().repeat_interleave(2, 1)
    given = {
        "quantize_tokens": (first,),
        "quantize_normed": (first, second, randn(3072), randn(3072)),
        "quantize_activated": (first, randn(300, 12288)),
        "norm_and_rotate": (first, second, randn(128), randn(128), angles.cos(), angles.sin()),
    }
    for name, arguments in given.items():
        found, wanted = (getattr(way, name)(*arguments) for way in (token_kernels, token_ops))
        assert error(numbers_of(found), numbers_of(wanted)) < 0.02, name


def numbers_of(result):
    return result.dequantize() if isinstance(result, Tokens) else result


@NEEDS_TRITON
@torch.inference_mode()
@pytest.mark.parametrize("kind", eight_bit_blocks.KINDS)
def test_compiled_8_bit_blocks_give_the_same_numbers(kind):
    device = torch.device("cuda", 0)
    torch._dynamo.reset()
    runner = CompiledBlocks()
    product = choose_product(device, torch.bfloat16, 1024, 256)
    block = eight_bit_blocks.make_block(kind, product, torch.bfloat16, device)
    for sizes in ((200, 30), (333, 41)):
        arguments = states_on_gpu(*sizes)
        for found, wanted in zip(runner(block, *arguments), block(*arguments), strict=True):
            assert error(found, wanted) < 0.03
    assert runner.is_compiling


def states_on_gpu(*sizes):
    hidden, text, temb, mask, rotary = eight_bit_blocks.states(*sizes, dtype=torch.bfloat16)
    return hidden.cuda(), text.cuda(), temb.cuda(), mask, tuple(part.cuda() for part in rotary)


@NEEDS_TRITON
@torch.inference_mode()
@pytest.mark.parametrize("kind", eight_bit_blocks.KINDS)
@pytest.mark.parametrize("is_eight_bit", [False, True])
def test_a_graph_of_the_last_start_is_read_and_nothing_is_traced(tmp_path, monkeypatch, kind, is_eight_bit):
    device = torch.device("cuda", 0)
    product = choose_product(device, torch.bfloat16, 1024, 256)
    for start in range(2):
        torch._dynamo.reset()
        runner = CompiledBlocks(saved=SavedGraphs(tmp_path))
        block = eight_bit_blocks.make_block(kind, product, torch.bfloat16, device)
        if not is_eight_bit:
            delattr(block, COMPILED_FORWARD)
        runner.prepare([block], states_on_gpu(200, 30), "native")
        assert len(list(tmp_path.glob("*.graph"))) == len(runner._graphs) == 1
        for sizes in ((200, 30), (333, 41)):
            arguments = states_on_gpu(*sizes)
            for found, wanted in zip(
                runner(block, *arguments, attention="native"), block(*arguments), strict=True
            ):
                assert error(found, wanted) < 0.03
        assert runner._compiled is None, "the graph served"
        monkeypatch.setattr(torch, "compile", Mock(side_effect=AssertionError(f"traced at start {start}")))


@NEEDS_TRITON
@torch.inference_mode()
@pytest.mark.parametrize("kind", eight_bit_blocks.KINDS)
def test_int8_attention_is_right_also_in_compiled_blocks(tmp_path, kind):
    pytest.importorskip("sageattention")
    device = torch.device("cuda", 0)
    states = [torch.randn(1, 3000, 24, 128, device=device, dtype=torch.bfloat16) for _ in range(3)]
    assert error(int8_attention(*states), attend(states, NATIVE)) < 0.02
    assert is_faster(device, torch.bfloat16, 24, 128, NATIVE) in (False, True)
    product = choose_product(device, torch.bfloat16, 1024, 256)
    torch._dynamo.reset()
    for start in range(2):  # the second one reads the graph of the first
        runner = CompiledBlocks(saved=SavedGraphs(tmp_path))
        block = eight_bit_blocks.make_block(kind, product, torch.bfloat16, device, int8_attention)
        runner.prepare([block], states_on_gpu(200, 30), NATIVE)
        arguments = states_on_gpu(333, 41)
        for found, wanted in zip(runner(block, *arguments, attention=NATIVE), block(*arguments), strict=True):
            assert error(found, wanted) < 0.03
        assert runner.is_compiling, start
        assert len(runner._graphs) == 1


def test_the_ring_counts_the_seconds_in_which_the_gpu_waits(tmp_path, monkeypatch):
    fetch, small, device = ring._fetch, SmallLayers(tmp_path), torch.device("cuda", 0)
    monkeypatch.setattr(ring, "_fetch", lambda *given: time.sleep(0.02) or fetch(*given))
    with ring.WeightRing(small.layers, 2, device, small.checkpoint.signatures) as weights:
        begin = time.perf_counter()
        for _layer in small.layers:
            weights.acquire()
            weights.release()
        torch.cuda.synchronize()
        assert 0.02 <= weights.traffic.waited <= time.perf_counter() - begin
        assert not weights._waits
        time.sleep(0.5)  # the next layers arrive
        before = weights.traffic.waited
        weights.acquire()
        torch.cuda.synchronize()
        assert weights.traffic.waited - before < 0.01


def test_a_report_measures_every_way(tmp_path):
    torch._dynamo.reset()
    config = EngineConfig(find_models(MODELS), tmp_path / "app", "cuda", None, (tmp_path / "eight_bit",))
    options = ReportOptions(START, 64, tmp_path / "work", makes_eight_bit=True)
    events = measure(config, options, threading.Event())
    figures = {event.part: event.values for event in events if isinstance(event, Figures)}
    assert "failed" not in str(figures)
    assert figures["machine"]["device"] == torch.cuda.get_device_name()
    for part in ("exact_steps", "eight_bit_steps"):
        for way in ("not compiled", *(["compiled"] if HAS_TRITON else [])):
            assert figures[part][way]["is finite"]
            assert figures[part][way]["error of the first step"] < 0.05
            assert figures[part][way]["VRAM used at most GiB"] >= 0
    assert figures["eight_bit_video"]["PSNR to the exact video"] > 25
