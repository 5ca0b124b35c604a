"""The device that is chosen, and the errors where none can compute."""

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from diffusers_helper.device import Compute, choose_compute, hide_broken_xformers
from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.memory import empty_cache, free_vram

GIB = 2**30


class FakeGpu:
    """A CUDA GPU as far as choosing one goes."""

    def __init__(self, monkeypatch, capability, error=None):
        cuda = torch.cuda
        monkeypatch.setattr(cuda, "is_available", lambda: True)
        monkeypatch.setattr(cuda, "current_device", lambda: 0)
        monkeypatch.setattr(cuda, "get_device_name", lambda _: "RTX")
        monkeypatch.setattr(cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8 * GIB))
        self.fraction = 0.0
        monkeypatch.setattr(cuda, "set_per_process_memory_fraction", self.limit)
        self.error = error
        monkeypatch.setattr(torch, "ones", self.ones)

    def limit(self, fraction, _device):
        self.fraction = fraction

    def ones(self, *_size, device, dtype):
        assert device.type == "cuda"
        if self.error:
            raise self.error
        return torch.full((16, 16), 1.0, dtype=dtype)


@pytest.mark.parametrize(("choice", "has_gpu"), [("cpu", True), ("auto", False)])
def test_the_cpu_computes_in_float32_and_compiles_nothing(monkeypatch, choice, has_gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_compute(choice) == Compute(torch.device("cpu"), torch.float32, torch.float32)
    if not has_gpu:
        with pytest.raises(InputError, match="no_cuda"):
            choose_compute("cuda")


@pytest.mark.parametrize(("capability", "dtype"), [((8, 9), torch.bfloat16), ((7, 5), torch.float16)])
def test_a_gpu_gets_dtypes_it_can_compute_in(monkeypatch, capability, dtype):
    FakeGpu(monkeypatch, capability)
    compute = choose_compute("auto")
    assert compute.device.type == "cuda"
    assert (compute.transformer, compute.encoders) == (dtype, torch.float16)


@pytest.mark.parametrize(
    ("capability", "error", "code"),
    [
        ((6, 1), None, "card_too_old"),
        ((12, 0), RuntimeError("CUDA error: no kernel image is available"), "card_not_supported"),
        ((8, 6), torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
    ],
)
def test_a_gpu_that_cannot_compute_fails_at_once(monkeypatch, capability, error, code):
    FakeGpu(monkeypatch, capability, error)
    with pytest.raises(MachineError) as caught:
        choose_compute("auto")
    assert caught.value.code == code


@pytest.mark.parametrize(("limit", "fraction"), [(6 * GIB, 0.75), (12 * GIB, 1.0), (None, 1.0)])
def test_a_limit_holds_for_the_whole_process(monkeypatch, limit, fraction):
    gpu = FakeGpu(monkeypatch, (8, 9))
    assert choose_compute("cuda", limit).memory_limit == limit
    assert gpu.fraction == fraction


@pytest.mark.parametrize("has_triton", [True, False])
def test_a_gpu_compiles_with_triton(monkeypatch, has_triton):
    FakeGpu(monkeypatch, (8, 9))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: (name == "triton" and has_triton) or None)
    assert choose_compute("cuda").compiles is has_triton


@pytest.fixture
def broken_xformers(tmp_path, monkeypatch):
    """A package that is installed and fails when it is imported, as after a change of PyTorch."""
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").write_text("")
    (tmp_path / "xformers" / "ops.py").write_text("raise OSError('DLL load failed')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("xformers", "xformers.ops"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("xformers", "xformers.ops"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("broken_xformers")
def test_a_broken_xformers_looks_absent():
    hide_broken_xformers()
    with pytest.raises(ImportError):
        import xformers.ops  # noqa: F401
    hide_broken_xformers()  # a second time changes nothing


def test_vram_counts_what_the_allocator_holds_and_the_limit(monkeypatch):
    figures = {"memory_allocated": 3, "memory_reserved": 5, "mem_get_info": (10, 99)}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, Mock(return_value=figure))
    gpu = torch.device("cuda")
    assert [free_vram(gpu, limit) for limit in (None, 100, 8)] == [12, 12, 5]
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied := Mock())
    empty_cache(torch.device("cpu"))
    emptied.assert_not_called()
    empty_cache(gpu)
    emptied.assert_called_once()
