"""Attention backends: the first that works is chosen, active during a job, and replaced where it fails."""

import types
from unittest.mock import Mock

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch.nn.attention import SDPBackend

from diffusers_helper.transformer import attention
from diffusers_helper.transformer.block_stack import BlockStack
from diffusers_helper.transformer.compiling import CompiledBlocks
from tests.support.tiny import load_latents, make_loader, make_request, run


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as the chooser sees it, with all backends; a test may change their factors of error.

    Attributes:
        factors: of each backend that works, the factor of its numbers.
        native: the backend that PyTorch takes by itself.
        tried: the backends that computed something.
    """
    names = ("native", *attention.CANDIDATES)
    gpu = types.SimpleNamespace(factors=dict.fromkeys(names, 1.0), native=SDPBackend.MATH, tried=[])

    def attend(states, backend):
        gpu.tried.append(backend)
        if backend not in gpu.factors:
            raise RuntimeError(f"No available kernel for {backend}")
        return states[2] * gpu.factors[backend]

    generator, randn = torch.Generator, torch.randn
    monkeypatch.setattr(attention, "attend", attend)
    monkeypatch.setattr(torch, "Generator", lambda _device: generator("cpu"))
    monkeypatch.setattr(torch, "randn", lambda size, **_: randn(size))
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_: gpu.native.value)
    return gpu


def chooser(**options):
    return attention.AttentionChooser(torch.device("cuda"), torch.bfloat16, **options)


def test_a_cpu_uses_pytorchs_own_attention():
    assert attention.AttentionChooser(torch.device("cpu"), torch.float32).choose(2, 16) is None


@pytest.mark.parametrize(
    ("native", "missing", "factors", "options", "chosen"),
    [
        # They are taken in a fixed order.
        ("MATH", 0, {}, {}, "_native_cudnn"),
        ("MATH", 1, {}, {}, "_native_flash"),
        ("MATH", 2, {}, {}, "_native_efficient"),
        ("MATH", 3, {}, {}, "xformers"),
        ("MATH", 4, {}, {}, None),
        # What PyTorch takes by itself is left to it.
        ("CUDNN_ATTENTION", 0, {}, {}, None),
        ("FLASH_ATTENTION", 0, {}, {}, "_native_cudnn"),
        ("FLASH_ATTENTION", 3, {}, {}, None),
        ("EFFICIENT_ATTENTION", 2, {}, {}, None),
        # Compiled blocks do without xformers.
        ("MATH", 3, {}, {"compiles": True}, None),
        # Wrong numbers are not used.
        ("MATH", 0, {"_native_cudnn": 1.03}, {}, "_native_flash"),
        ("MATH", 0, {"_native_cudnn": torch.nan}, {}, "_native_flash"),
    ],
)
def test_the_first_backend_that_works_is_chosen(gpu, native, missing, factors, options, chosen):
    gpu.native = getattr(SDPBackend, native)
    gpu.factors |= factors
    for name in [*attention.CANDIDATES][:missing]:
        del gpu.factors[name]
    assert chooser(**options).choose(2, 16) == chosen


@pytest.mark.parametrize(("place", "name"), [(attention, "attend"), (torch, "randn")])
def test_without_memory_to_try_pytorchs_own_is_used_this_time(gpu, monkeypatch, place, name):  # noqa: ARG001
    one = chooser()
    with monkeypatch.context() as patch:
        patch.setattr(place, name, Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
        assert one.choose(2, 16) is None
    assert one.choose(2, 16) == "_native_cudnn"


def test_each_backend_is_tried_once_and_not_chosen_after_it_is_excluded(gpu):
    del gpu.factors["_native_flash"]
    one = chooser()
    for name in ("_native_cudnn", "_native_efficient"):
        assert [one.choose(2, 16), one.choose(2, 16)] == [name, name]
        one.exclude(name)
    tried = [name for name in gpu.tried if name != attention.NATIVE]
    assert tried == ["_native_cudnn", "_native_flash", "_native_efficient"]


def test_attention_backends_agree():
    states = list(torch.randn(3, 1, 40, 2, 16))
    transposed = (state.transpose(1, 2) for state in states)
    wanted = torch.nn.functional.scaled_dot_product_attention(*transposed).transpose(1, 2)
    for backend in ("native", "_native_math"):
        assert torch.allclose(attention.attend(states, backend), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("native", "works", "kernel"),
    [
        ("MATH", "_native_flash", SDPBackend.FLASH_ATTENTION),
        ("MATH", "xformers", None),
        ("EFFICIENT_ATTENTION", "xformers", SDPBackend.EFFICIENT_ATTENTION),
        ("MATH", "native", SDPBackend.MATH),
    ],
)
def test_the_kernel_behind_the_choice_is_known(gpu, native, works, kernel):
    gpu.native = getattr(SDPBackend, native)
    gpu.factors = {"native": 1.0, works: 1.0}
    assert chooser().kernel(2, 16) == kernel


# -- in a job ------------------------------------------------------------------------------------------


def test_a_jobs_attention_backend_is_active_only_during_it():
    loader = make_loader()
    for chosen, wanted in (("_native_math", "_native_math"), (None, "native")):
        loader._attention.choose = lambda *_, chosen=chosen: chosen
        with loader.transformer(500) as transformer:
            assert transformer.attention == wanted
            assert _AttentionBackendRegistry._active_backend == AttentionBackendName(wanted)
    assert _AttentionBackendRegistry._active_backend == AttentionBackendName.NATIVE


@pytest.fixture(scope="module")
def native_latents(tmp_path_factory):
    """The latents of a job with PyTorch's own attention."""
    folder = tmp_path_factory.mktemp("native") / "out"
    list(run(make_request(), folder, save_latents=True))
    return load_latents(folder / "a.safetensors")


@pytest.mark.parametrize("chosen", ["xformers", "sage", "_native_cudnn"])
def test_a_backend_that_fails_in_a_job_is_replaced(tmp_path, native_latents, chosen):
    """None of these works here: sage fails when it is activated, cuDNN's in a block, xformers in either."""
    loader = make_loader()
    loader._attention.choose = lambda *_: chosen
    list(run(make_request(), tmp_path / "out", loader=loader, save_latents=True))
    assert torch.equal(load_latents(tmp_path / "out" / "a.safetensors"), native_latents)
    assert loader._attention._usable == {chosen: False}


@pytest.mark.parametrize(("error", "tries"), [(torch.OutOfMemoryError(), 1), (RuntimeError("a bug"), 2)])
def test_other_failures_are_raised(error, tries):
    def fail():
        calls.append(active.backend)
        raise error

    calls: list[str] = []
    with attention.ActiveAttention("_native_math") as active, pytest.raises(type(error)):
        active.guard(fail)
    assert (calls, active.failed) == (["_native_math", "native"][:tries], False)


class NeedsNativeAttention(torch.nn.Module):
    """A block that fails with any attention but PyTorch's own."""

    def forward(self, hidden, text):
        if _AttentionBackendRegistry._active_backend != AttentionBackendName.NATIVE:
            raise RuntimeError("no kernel")
        return hidden * 2, text


def test_a_backend_that_fails_while_compiling_keeps_blocks_compiled():
    torch._dynamo.reset()
    runner, states = CompiledBlocks("eager"), (torch.ones(2), torch.ones(2))
    with attention.ActiveAttention("_native_math") as active:
        active.guard(lambda: runner.prepare([NeedsNativeAttention()], states, active.backend))
        assert (active.backend, active.failed) == ("native", True)
    assert runner.is_compiling
    assert runner.is_ready("native")
    assert not runner.is_ready("_native_math")


def test_a_backend_that_fails_in_a_job_causes_no_compilation():
    """Compiling would take half a minute in the middle of a step, unchecked."""
    runner, compiled = CompiledBlocks(), []
    runner._compiled = lambda block, *arguments: compiled.append(1) or block(*arguments)
    runner._ready = {"_native_math"}
    with attention.ActiveAttention("_native_math") as active:
        stack = types.SimpleNamespace(attention=active, runner=runner)
        for counted in ([1], [1], [1, 1]):
            assert BlockStack._run(stack, torch.nn.Identity(), 1) == 1
            assert compiled == counted
            if active.is_replaced:
                runner._ready.add("native")
            else:
                active.replace("a test")
        assert not active.failed
