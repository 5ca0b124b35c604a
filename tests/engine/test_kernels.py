"""Trying an optional implementation: which failures keep it from being used."""

import errno
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from diffusers_helper.eight_bit import linear
from diffusers_helper.kernels import FAILED, agrees, compiles
from diffusers_helper.vae import feature_maps

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


@pytest.fixture
def record(tmp_path, monkeypatch) -> Path:
    """The folder of the record of failed kernels."""
    monkeypatch.setattr(FAILED, "folder", tmp_path / "kernels")
    monkeypatch.setattr(FAILED, "versions", {"triton": "3.8.0"})
    return tmp_path / "kernels"


@pytest.mark.usefixtures("record")
def test_a_kernel_that_failed_is_not_tried_again_until_something_changes(monkeypatch, caplog):
    caplog.set_level("INFO")
    broken, whole = Mock(side_effect=RuntimeError("no C runtime")), Mock(return_value=[NUMBERS])
    assert not compiles("a kernel", broken, [NUMBERS], 0.01)
    assert not compiles("a kernel", whole, [NUMBERS], 0.01)
    assert whole.call_count == 0
    assert "a kernel is not tried, because it failed before: RuntimeError: no C runtime" in caplog.text
    assert compiles("another", whole, [NUMBERS], 0.01)
    monkeypatch.setattr(FAILED, "versions", {"triton": "3.9.0"})
    assert compiles("a kernel", whole, [NUMBERS], 0.01)


@pytest.mark.parametrize("error", [ImportError("no Triton"), OSError(errno.ENOSPC, "full"), OUT_OF_MEMORY])
def test_what_passes_is_no_reason_not_to_try_again(record, error):
    try:
        assert not compiles("a kernel", Mock(side_effect=error), [NUMBERS], 0.01)
    except torch.OutOfMemoryError:
        assert error is OUT_OF_MEMORY
    assert not record.exists()
    assert compiles("a kernel", lambda: [NUMBERS], [NUMBERS], 0.01)


@pytest.mark.usefixtures("record")
def test_each_kernel_of_ours_is_remembered(monkeypatch):
    broken = Mock(side_effect=RuntimeError("no C runtime"))
    monkeypatch.setattr(linear, "kernel_product", broken)
    monkeypatch.setattr(feature_maps, "_kernel", broken)
    monkeypatch.setattr(
        feature_maps, "_sample", lambda unfold, _: [unfold() if unfold is broken else NUMBERS]
    )
    broken.__name__ = "kernel_product"
    choose_unfold_frames = feature_maps.choose_unfold_frames.__wrapped__
    for _start in range(2):
        assert choose_unfold_frames(SimpleNamespace(type="cuda")) is feature_maps.unfold_frames
        assert not linear._computes(broken, torch.device("cpu"), torch.bfloat16, 32, 32)
    assert broken.call_count == 2
