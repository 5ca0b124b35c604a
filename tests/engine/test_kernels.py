"""Trying an optional implementation: which failures keep it from being used."""

from unittest.mock import Mock

import pytest
import torch

from diffusers_helper.kernels import agrees

NUMBERS = torch.arange(1.0, 9)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("factor", "is_used"), [(1, True), (1.009, True), (1.02, False), (torch.nan, False)])
def test_only_a_kernel_with_the_right_numbers_is_used(factor, is_used):
    assert agrees("a kernel", lambda: [NUMBERS, NUMBERS * factor], [NUMBERS, NUMBERS], 0.01) is is_used


FAILURES = [
    RuntimeError("no C compiler"),
    AssertionError(),
    TypeError("\n"),
    ImportError("no Triton"),
]


@pytest.mark.parametrize("error", FAILURES)
def test_a_kernel_that_fails_is_not_used(error):
    assert not agrees("a kernel", Mock(side_effect=error), [NUMBERS], 0.01)


def test_running_out_of_memory_decides_nothing():
    with pytest.raises(torch.OutOfMemoryError):
        agrees("a kernel", Mock(side_effect=OUT_OF_MEMORY), [NUMBERS], 0.01)


def test_all_results_must_be_right_and_errors_are_logged(caplog):
    caplog.set_level("INFO")
    assert not agrees("a kernel", lambda: [NUMBERS, NUMBERS * 1.5], [NUMBERS, NUMBERS], 0.1)
    assert "a kernel cannot be used: wrong by 0, 0.5" in caplog.text
