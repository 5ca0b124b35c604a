"""Trying an optional implementation: which failures keep it from being used."""

import pytest
import torch

from diffusers_helper.kernels import agrees, triton_or_torch

NUMBERS = torch.arange(1.0, 9)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


def fail_with(error):
    def compute(*_arguments):
        raise error

    return compute


def native(numbers):
    return numbers * 2


def choose(load, device="cuda"):
    return triton_or_torch(native, load, lambda way, _: [NUMBERS, way(NUMBERS)], 0.01, torch.device(device))


@pytest.mark.parametrize(("factor", "is_used"), [(1, True), (1.009, True), (1.02, False), (torch.nan, False)])
def test_only_a_kernel_with_the_right_numbers_is_used(factor, is_used):
    def kernel(numbers):
        return native(numbers) * factor

    assert choose(lambda: kernel) is (kernel if is_used else native)


@pytest.mark.parametrize("error", [RuntimeError("no C compiler"), AssertionError(), TypeError("\n")])
def test_a_kernel_that_fails_is_not_used(error):
    assert choose(lambda: fail_with(error)) is native


def test_without_triton_pytorch_computes():
    assert choose(fail_with(ImportError("No module named 'triton'"))) is native


def test_a_cpu_tries_no_kernel():
    assert choose(fail_with(AssertionError), "cpu") is native


def test_running_out_of_memory_decides_nothing():
    with pytest.raises(torch.OutOfMemoryError):
        choose(lambda: fail_with(OUT_OF_MEMORY))


def test_all_results_must_be_right_and_errors_are_logged(caplog):
    caplog.set_level("INFO")
    assert not agrees("a kernel", lambda: [NUMBERS, NUMBERS * 1.5], [NUMBERS, NUMBERS], 0.1)
    assert "a kernel cannot be used: wrong by 0, 0.5" in caplog.text
