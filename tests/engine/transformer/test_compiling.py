"""Compiled blocks: the same numbers, one graph a kind, and eager blocks when the compiler fails.

`aot_eager` stands in for the real backend: the same tracing and guards, with PyTorch's own kernels.
"""

import dataclasses
import errno
import hashlib
import os
import threading
import weakref
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from diffusers_helper.device import choose_compute
from diffusers_helper.engine import Engine, EngineConfig
from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice, StageStarted
from diffusers_helper.files.compiler_failure import NAME, installed_versions, read_failure, write_failure
from diffusers_helper.job.output import Target
from diffusers_helper.kernels import FAILED, relative_error
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.models.vram_budget import VramBudget
from diffusers_helper.sampling import section as section_sampling
from diffusers_helper.streaming.layers import StreamedLayers
from diffusers_helper.transformer.block_stack import BlockStack
from diffusers_helper.transformer.compiling import TOLERANCE, CompiledBlocks, EagerBlocks, keep_compiled
from diffusers_helper.transformer.modulation import modulation_sizes, set_modulation
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import LAST_SHARD, MODELS, copy_models, load_latents, make_request, run, small_request


@pytest.fixture
def fresh():
    """Forget earlier graphs: dynamo limits the backends of one function."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def loader_of(runner):
    compute = dataclasses.replace(choose_compute("cpu"), memory_limit=2**30)
    return ModelLoader(find_models(MODELS), compute, runner)


def make(loader, folder, name="a", **values):
    """Make a video; return its latents and the events."""
    events = list(run(make_request(**values), folder / "out", name=name, loader=loader, save_latents=True))
    return load_latents(folder / "out" / f"{name}.safetensors"), events


JOBS = {
    "short": {"seconds": 2, "steps": 2},
    "long_prompt": {"prompt": "A cat walks through the snow and looks round. " * 3},
    "wide": {"width": 160, "height": 96},
    "half_second": {"section_seconds": 0.5},
}


class Block(nn.Module):
    """A block for a runner: two states in, two out."""

    def forward(self, hidden, text):
        return hidden * 2 + text, text


BELOW_ROOT = f"/data/EndframeIchi/{hashlib.sha256('/日'.encode()).hexdigest()[:12]}"


@pytest.mark.parametrize(("short", "found"), [("/A~1", "/A~1"), ("", BELOW_ROOT), ("/日", BELOW_ROOT)])
def test_on_windows_triton_gets_an_ascii_folder(windows, monkeypatch, short, found):
    windows.kernel32.GetShortPathNameW = lambda _, buffer, __: setattr(buffer, "value", short)
    monkeypatch.setattr(os, "environ", {"PROGRAMDATA": "/data"})
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: None)
    keep_compiled(Path("/日"))
    assert os.environ["TRITON_CACHE_DIR"] == f"{found}/triton"


STATES = torch.linspace(1, 2, 3), torch.ones(3)


def runner_with(compiled, attention="native"):
    """A runner that is ready and calls `compiled` in the compiler's place."""
    runner = CompiledBlocks()
    runner._compiled, runner._ready = compiled, {attention}
    return runner


def call(block, *arguments):
    return block(*arguments)


def run_block(runner, block=None):
    with torch.inference_mode():
        return runner(block or Block(), *STATES)[0]


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
def test_all_jobs_give_the_same_numbers_with_one_graph_a_kind(tmp_path, monkeypatch):
    """Layers that are evicted and new rings need no new graph, and the slots of each ring are freed."""
    compiling, plain, reported = loader_of(CompiledBlocks("aot_eager")), loader_of(EagerBlocks()), []
    for name, values in JOBS.items():
        found, events = make(compiling, tmp_path / "compiled", name, **values)
        wanted, _ = make(plain, tmp_path / "plain", name, **values)
        assert torch.allclose(found, wanted, atol=1e-4), name
        stages = [event.stage for event in events if isinstance(event, StageStarted)]
        reported.append("compiling" in stages[stages.index("transformer") + 1 :])
    assert reported == [True, False, False, False], "only the first job compiles"

    original, close_ring, slots, left = StreamedLayers.__iter__, VramBudget.close_ring, [], []

    def move(self):
        if len(self.layers) > 2 and self.num_resident:  # in inference mode
            self.evict_half()
        elif len(self.layers) > 2 and not self.num_resident and not self._kept:
            self.keep_in_ram([])
        yield from original(self)

    def close(self):
        slots.extend(weakref.ref(slot) for slot in self._layers.ring.slots)
        close_ring(self)
        left.append(sum(slot() is not None for slot in slots))

    monkeypatch.setattr(StreamedLayers, "__iter__", move)
    monkeypatch.setattr(VramBudget, "close_ring", close)
    make(compiling, tmp_path, seconds=2, steps=3)
    assert len(slots) == 6
    assert left == [0, 0]
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.usefixtures("fresh")
def test_a_compiler_that_fails_is_tried_once():
    calls = []

    def broken(_graph, _inputs):
        calls.append(1)
        raise RuntimeError("Python.h: No such file or directory")

    remembered: list[str] = []
    runner = CompiledBlocks(broken, remembered.append)
    for _ in range(2):
        assert torch.equal(run_block(runner), Block()(*STATES)[0])
    assert len(calls) == 1
    assert runner.is_ready("any")
    assert remembered == ["RuntimeError: Python.h: No such file or directory"]
    assert [runner.take_failure(), runner.take_failure()] == [*remembered, None]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("number", "lasts"), [(errno.ENOSPC, False), (errno.EACCES, True)])
def test_a_full_disk_is_no_fault_of_the_compiler(number, lasts):
    remembered: list[str] = []
    runner = CompiledBlocks(Mock(side_effect=OSError(number, "no")), remembered.append)
    run_block(runner)
    assert not runner.is_compiling
    assert bool(remembered) is lasts


def compiling_engine(monkeypatch, cache, driver="12060"):
    """An engine on a GPU that compiles, as far as the CPU can pretend."""
    compute = dataclasses.replace(choose_compute("cpu"), compiles=True)
    monkeypatch.setattr("diffusers_helper.engine.choose_compute", lambda *_: compute)
    monkeypatch.setattr(Engine, "_compiler_versions", lambda _: {"torch": "2.14.1", "driver": driver})
    monkeypatch.setattr("diffusers_helper.engine.keep_compiled", lambda _: None)
    return Engine(EngineConfig(find_models(MODELS), cache))


def test_a_compiler_that_failed_is_not_tried_again_until_something_changed(tmp_path, monkeypatch):
    broken = Mock(side_effect=RuntimeError("no C runtime"))
    monkeypatch.setattr(CompiledBlocks, "is_ready", lambda *_: True)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    first, again = (compiling_engine(monkeypatch, tmp_path) for _ in range(2))
    target = Target(tmp_path / "out", "a")
    told = list(first.generate(small_request(), target, threading.Event()))
    assert told.count(Notice("not_compiled", {"reason": "RuntimeError: no C runtime"})) == 1
    assert again._compute.compiles, "it was made before the failure"
    assert broken.call_count == 1
    assert not compiling_engine(monkeypatch, tmp_path)._compute.compiles
    assert vars(FAILED) == {"folder": tmp_path / "kernels", "versions": again._versions}
    assert compiling_engine(monkeypatch, tmp_path, driver="13000")._compute.compiles
    (tmp_path / NAME).write_text("[" * 99999)
    assert compiling_engine(monkeypatch, tmp_path)._compute.compiles


def test_a_failure_is_known_without_pytorch(tmp_path):
    versions = installed_versions(tmp_path)
    assert versions["torch"] == version("torch")
    assert versions["folder"] == str(tmp_path)
    assert read_failure(tmp_path, versions) is None
    write_failure(tmp_path, versions | {"driver": "12060"}, "no C runtime")
    assert read_failure(tmp_path, versions) == "no C runtime"
    assert read_failure(tmp_path, versions | {"torch": "2.15.0"}) is None


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("factor", "is_used"), [(1, True), (1.2, False), (torch.nan, False)])
def test_only_compiled_blocks_with_right_numbers_are_used(factor, is_used):
    calls = []

    def compiler(graph, _inputs):
        return lambda *values: calls.append(1) or tuple(value * factor for value in graph(*values))

    runner = CompiledBlocks(compiler)
    runner.prepare([Block()], STATES, "native")
    assert runner.is_ready("native")
    assert runner.is_ready("another") is not is_used
    before = len(calls)
    assert torch.equal(run_block(runner), Block()(*STATES)[0])
    assert (len(calls) > before) is is_used


def sampled_sections(events):
    return [event.section for event in events if event in (StageStarted("sampling", n) for n in range(9))]


def sections_until(error, loader, folder):
    """Run a job that ends with an error; return the sections that it sampled."""
    events = []
    with pytest.raises(MachineError, match=error):
        for event in run(make_request(), folder, loader=loader):
            events.append(event)
    return sampled_sections(events)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "after", "sections"),
    [(None, 3, [0, 0, 1]), (None, 15, [0, 1, 1]), ("_native_math", 0, [0, 0, 1])],
)
def test_a_section_with_wrong_numbers_is_made_eagerly_with_native_attention(
    tmp_path, monkeypatch, attention, after, sections
):
    original, calls = BlockStack._run, []

    def go_wrong(self, block, *arguments):
        hidden, text = original(self, block, *arguments)
        calls.append(self.runner.is_compiling or self.attention.backend != "native")
        return (hidden * torch.nan if calls[-1] and len(calls) > after else hidden), text

    wanted, _ = make(loader_of(EagerBlocks()), tmp_path / "plain", seconds=2, steps=2)
    monkeypatch.setattr(BlockStack, "_run", go_wrong)
    loader = loader_of(EagerBlocks() if attention else runner_with(call))
    loader._attention.choose = lambda *_: attention
    found, events = make(loader, tmp_path, seconds=2, steps=2)
    assert torch.equal(found, wanted)
    assert sampled_sections(events) == sections
    assert not loader._runner.is_compiling
    assert loader._attention._usable == ({attention: False} if attention else {})


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["native", "_native_math"])
def test_numbers_that_stay_wrong_exclude_nothing(tmp_path, attention):
    models = copy_models(tmp_path / "models", LAST_SHARD, proj_out__bias=float("nan"))
    runner = runner_with(call, attention)
    loader = ModelLoader(find_models(models), choose_compute("cpu"), runner)
    loader._attention.choose = lambda *_: None if attention == "native" else attention
    assert sections_until("not_a_number_in_latents", loader, tmp_path / "out") == [0, 0]
    assert runner.is_compiling
    assert loader._attention._usable == {}


def test_after_another_failure_the_section_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(section_sampling, "preview_latents", Mock(side_effect=MachineError("disk_full")))
    assert sections_until("disk_full", loader_of(runner_with(call)), tmp_path / "out") == [0]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("moment", ["while compiling", "while running"])
def test_running_out_of_memory_does_not_disable_compiling(moment):
    short = {moment}

    def run_out(now):
        if now in short:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def compile_graph(graph, _inputs):
        run_out("while compiling")
        return lambda *values: run_out("while running") or graph(*values)

    runner = CompiledBlocks(compile_graph)
    with pytest.raises(torch.OutOfMemoryError):
        run_block(runner)
    short.clear()
    assert torch.equal(run_block(runner), Block()(*STATES)[0])
    assert runner.is_compiling


@pytest.mark.parametrize("fitting", [1000, 0])
def test_short_of_memory_it_compiles_with_fewer_tokens_or_not(monkeypatch, fitting):
    counts = []

    def prepare(_self, _blocks, arguments, _attention):
        counts.append(arguments[0].shape[1])
        if counts[-1] > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CompiledBlocks, "prepare", prepare)
    loader = loader_of(CompiledBlocks())
    with loader.transformer(4000) as transformer:
        transformer.prepare_blocks(4000, loader.compute)
        assert transformer.stack.runner.is_compiling is (fitting > 0)
    assert counts == [4000, 500]
    assert loader._runner.is_compiling, "the next job tries again"


@torch.inference_mode()
def test_the_check_on_examples_shows_a_missing_attention():
    loader = loader_of(EagerBlocks())
    with loader.transformer(500) as transformer:
        config = transformer.model.config
        width = config.num_attention_heads * config.attention_head_dim
        states = torch.randn(1, 40, width), torch.randn(1, 12, width)
        rotary = tuple(torch.randn(40, config.attention_head_dim) for _ in range(2))
        temb = torch.randn(1, width)
        for kind, block in transformer.stack.layers.examples().items():
            set_modulation(block, kind, tuple(torch.randn(1, size) for size in modulation_sizes(kind, width)))
            whole = block(*states, temb, None, rotary)
            values = block.attn.to_v
            values.weight.data.zero_()
            values.bias.data.zero_()
            without = block(*states, temb, None, rotary)
            errors = [relative_error(w, v) for w, v in zip(without, whole, strict=True)]
            assert max(errors) > 2 * TOLERANCE, kind
