"""The attention backend of a job: active during it, and replaced where it fails."""

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from diffusers_helper.events import Notice
from diffusers_helper.transformer import attention
from diffusers_helper.transformer.compiling import CompiledBlocks, EagerBlocks
from tests.support.tiny import load_latents, make_loader, make_request, run


def test_a_jobs_attention_backend_is_active_only_during_it():
    loader = make_loader()
    for chosen, wanted in (("_native_math", "_native_math"), (None, "native")):
        loader._attention.choose = lambda *_, chosen=chosen: chosen
        with loader.transformer(500) as transformer:
            assert transformer.attention == wanted
            assert _AttentionBackendRegistry._active_backend == AttentionBackendName(wanted)
    assert _AttentionBackendRegistry._active_backend == AttentionBackendName.NATIVE


@pytest.mark.parametrize(
    ("chosen", "requested", "notices"),
    [("xformers", None, []), ("sage", "sage", ["attention_refused"]), ("_native_cudnn", None, [])],
)
def test_a_backend_that_fails_in_a_job_is_replaced(tmp_path, chosen, requested, notices):
    """None of these works here; the first two fail when they are activated, the other in a block."""
    options = {"save_latents": True}
    list(run(make_request(seconds=2), tmp_path / "out", name="wanted", **options))
    loader = make_loader()
    loader._attention.choose = lambda *_: chosen
    loader._attention.requested = requested
    events = run(make_request(seconds=2), tmp_path / "out", name="found", loader=loader, **options)
    assert [event.code for event in events if isinstance(event, Notice)] == notices
    found, wanted = (load_latents(tmp_path / "out" / f"{name}.safetensors") for name in ("found", "wanted"))
    assert torch.equal(found, wanted)
    assert loader._attention._usable == {chosen: False}


@pytest.mark.slow
def test_a_requested_backend_that_fails_in_a_job_is_reported(tmp_path, monkeypatch):
    calls = []

    def fail_later(self, work):
        calls.append(1)
        if len(calls) == 5:
            self.replace("CUDA error: invalid argument")
        return work()

    monkeypatch.setattr(attention.ActiveAttention, "guard", fail_later)
    loader = make_loader()
    loader._attention.choose = lambda *_: "_native_math"
    loader._attention.requested = "_native_math"
    events = list(run(make_request(seconds=3), tmp_path / "out", loader=loader))
    codes = [event.code if isinstance(event, Notice) else type(event).__name__ for event in events]
    assert codes.count("attention_refused") == 1
    assert codes.index("StepDone") < codes.index("attention_refused") < codes.index("SectionDone")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("a bug")])
def test_other_failures_are_raised(error):
    def fail():
        calls.append(active.backend)
        raise error

    calls: list[str] = []
    with attention.ActiveAttention("_native_math") as active, pytest.raises(type(error)):
        active.guard(fail)
    is_memory = isinstance(error, torch.OutOfMemoryError)
    assert calls == (["_native_math"] if is_memory else ["_native_math", "native"])
    assert not active.failed


class NeedsNativeAttention(torch.nn.Module):
    """A block that fails with any attention but PyTorch's own."""

    def forward(self, hidden, text):
        backend = _AttentionBackendRegistry._active_backend
        if backend != AttentionBackendName.NATIVE:
            raise RuntimeError(f"no kernel for {backend}")
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


@pytest.mark.slow
def test_a_backend_that_fails_in_a_jobs_compilation_is_replaced():
    loader, prepared = make_loader(), []

    class Runner(EagerBlocks):
        def prepare(self, _blocks, _arguments, name):
            prepared.append(name)
            if name != "native":
                raise RuntimeError("no kernel")

    loader._runner = Runner()
    loader._attention.choose = lambda *_: "_native_math"
    with loader.transformer(500) as transformer:
        transformer.prepare_blocks(500, loader.compute)
        assert transformer.attention == "native"
    assert prepared == ["_native_math", "native"]
    assert loader._attention._usable == {"_native_math": False}


def test_a_backend_that_fails_in_a_job_causes_no_compilation():
    """Compiling would take half a minute in the middle of a step, unchecked."""
    runner, compiled = CompiledBlocks(), []
    runner._compiled = lambda block, *arguments: compiled.append(1) or block(*arguments)
    loader = make_loader()
    loader._runner = runner
    loader._attention.choose = lambda *_: "_native_math"
    runner._ready = {"_native_math"}
    with loader.transformer(500) as transformer:
        stack = transformer.stack
        assert stack._run(torch.nn.Identity(), 1) == 1
        assert compiled == [1]
        stack.attention.replace("a test")
        assert stack._run(torch.nn.Identity(), 1) == 1
        assert compiled == [1]
        runner._ready.add("native")
        assert stack._run(torch.nn.Identity(), 1) == 1
        assert compiled == [1, 1]
    assert loader._attention._usable == {}
