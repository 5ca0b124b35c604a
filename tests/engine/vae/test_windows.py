"""The ways to make a window: which one is taken, and that they agree."""

import sys
import types

import pytest
import torch

from diffusers_helper.vae import windows as vae_windows
from diffusers_helper.vae.windows import Activation, WindowSpec, choose_unfold_frames, unfold_frames
from tests.support.triton_interpreter import NEEDS_TRITON, assert_equal

CARD = torch.device("cuda")


@pytest.fixture(autouse=True)
def tried_on_a_cpu(monkeypatch):
    original = vae_windows._try_out
    monkeypatch.setattr(vae_windows, "_try_out", lambda way, _device: original(way, torch.device("cpu")))
    choose_unfold_frames.cache_clear()
    yield
    choose_unfold_frames.cache_clear()


def offer(monkeypatch, way):
    module = types.ModuleType("vae_kernel")
    module.unfold_frames_at_once = way
    monkeypatch.setitem(sys.modules, "diffusers_helper.vae.window_kernel", module)


def test_a_cpu_uses_torchs_own_operations():
    assert choose_unfold_frames(torch.device("cpu")) is unfold_frames


def test_without_triton_a_card_uses_torchs_own_operations(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers_helper.vae.window_kernel", None)
    assert choose_unfold_frames(CARD) is unfold_frames


def test_a_kernel_that_is_right_is_used(monkeypatch):
    def way(*arguments):
        return unfold_frames(*arguments)

    offer(monkeypatch, way)
    assert choose_unfold_frames(CARD) is way


@pytest.mark.parametrize("error", [RuntimeError("cannot find a C compiler"), AssertionError()])
def test_a_kernel_that_does_not_compile_is_not_used(monkeypatch, error):
    def way(*_arguments):
        raise error

    offer(monkeypatch, way)
    assert choose_unfold_frames(CARD) is unfold_frames


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch):
    offer(monkeypatch, lambda *arguments: unfold_frames(*arguments) * 1.01)
    assert choose_unfold_frames(CARD) is unfold_frames


def test_running_out_of_memory_is_no_reason_against_a_kernel(monkeypatch):
    def way(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    offer(monkeypatch, way)
    with pytest.raises(torch.OutOfMemoryError):
        choose_unfold_frames(CARD)


def test_a_window_holds_a_frame_and_those_before_it_with_their_edges():
    seen = torch.arange(2 * 1 * 2 * 2.0).reshape(2, 1, 2, 2).contiguous(memory_format=torch.channels_last)
    window = unfold_frames(seen, WindowSpec(2, 3, is_top=True, is_bottom=True), None)
    assert window.shape == (2, 3, 4, 4)
    first, second = ([[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2, [[4, 4, 5, 5]] * 2 + [[6, 6, 7, 7]] * 2)
    assert window.tolist() == [[first, first, first], [first, first, second]]


def test_a_strip_inside_the_picture_brings_its_neighbours():
    seen = torch.arange(4.0).reshape(1, 1, 4, 1).contiguous(memory_format=torch.channels_last)
    window = unfold_frames(seen, WindowSpec(1, 1, is_top=False, is_bottom=False), None)
    assert window[0, 0].tolist() == [[0] * 3, [1] * 3, [2] * 3, [3] * 3]


KERNEL = """
import torch
from diffusers_helper.vae.window_kernel import unfold_frames_at_once
from diffusers_helper.vae.windows import Activation, WindowSpec, unfold_frames
torch.manual_seed(0)
for length, count, taps in ((1, 1, 3), (2, 2, 3), (5, 5, 3), (3, 2, 2), (3, 3, 2)):
    for top, bottom in ((False, False), (True, False), (False, True), (True, True)):
        for nonlinear in (None, True, False):
            norm = torch.randn(32, 1, 1), torch.randn(32, 1, 1)
            one = None if nonlinear is None else Activation(*norm, nonlinear)
            seen = torch.randn(length, 9, 7, 32).permute(0, 3, 1, 2)[:, :, 2:7]
            cut = WindowSpec(count, taps, top, bottom)
            found, wanted = unfold_frames_at_once(seen, cut, one), unfold_frames(seen, cut, one)
            assert found.stride() == wanted.stride()
            assert torch.allclose(found, wanted, atol=1e-5), (length, count, taps, top, bottom, nonlinear)
print("equal")
"""


@NEEDS_TRITON
def test_the_kernel_agrees_with_torchs_own_operations():
    assert_equal(KERNEL)


def test_an_activation_is_a_norm_and_silu():
    maps, factor, summand = torch.randn(2, 4, 3, 3), torch.randn(4, 1, 1), torch.randn(4, 1, 1)
    wanted = torch.nn.functional.silu(maps * factor + summand)
    assert torch.allclose(Activation(factor, summand)(maps), wanted, atol=1e-6)
    assert torch.allclose(Activation(factor, summand, False)(maps), maps * factor + summand, atol=1e-6)
