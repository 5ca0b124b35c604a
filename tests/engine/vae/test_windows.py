"""Unfolding frames into windows: the numbers, and that the kernel agrees."""

import torch

from diffusers_helper.vae.windows import Activation, WindowSpec, unfold_frames
from tests.support.triton_interpreter import NEEDS_TRITON, assert_equal


def test_a_window_holds_a_frame_and_earlier_ones_with_padded_edges():
    seen = torch.arange(2 * 1 * 2 * 2.0).reshape(2, 1, 2, 2).contiguous(memory_format=torch.channels_last)
    window = unfold_frames(seen, WindowSpec(2, 3, is_top=True, is_bottom=True), None)
    assert window.shape == (2, 3, 4, 4)
    first, second = ([[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2, [[4, 4, 5, 5]] * 2 + [[6, 6, 7, 7]] * 2)
    assert window.tolist() == [[first, first, first], [first, first, second]]


def test_a_strip_inside_the_picture_uses_its_neighbours_as_edges():
    seen = torch.arange(4.0).reshape(1, 1, 4, 1).contiguous(memory_format=torch.channels_last)
    window = unfold_frames(seen, WindowSpec(1, 1, is_top=False, is_bottom=False), None)
    assert window[0, 0].tolist() == [[0] * 3, [1] * 3, [2] * 3, [3] * 3]


KERNEL = """
import torch
from diffusers_helper.vae.window_kernel import unfold_frames_at_once
from diffusers_helper.vae.windows import Activation, WindowSpec, unfold_frames
torch.manual_seed(0)
for length, count, taps in ((1, 1, 3), (2, 2, 3), (5, 5, 3), (3, 2, 2), (3, 3, 2)):
    for top, bottom, nonlinear in ((False, False, None), (True, False, True), (False, True, False)):
        one = None if nonlinear is None else Activation(*torch.randn(2, 32, 1, 1), nonlinear)
        seen = torch.randn(length, 9, 7, 32).permute(0, 3, 1, 2)[:, :, 2:7]
        spec = WindowSpec(count, taps, top, bottom)
        found, wanted = unfold_frames_at_once(seen, spec, one), unfold_frames(seen, spec, one)
        assert found.stride() == wanted.stride()
        assert torch.allclose(found, wanted, atol=1e-5), (length, count, taps, top, bottom, nonlinear)
print("equal")
"""


@NEEDS_TRITON
def test_the_kernel_agrees_with_pytorchs_operations():
    assert_equal(KERNEL)


def test_an_activation_is_a_norm_and_silu():
    maps, factor, summand = torch.randn(2, 4, 3, 3), torch.randn(4, 1, 1), torch.randn(4, 1, 1)
    wanted = torch.nn.functional.silu(maps * factor + summand)
    assert torch.allclose(Activation(factor, summand)(maps), wanted, atol=1e-6)
    assert torch.allclose(Activation(factor, summand, False)(maps), maps * factor + summand, atol=1e-6)
