"""Memory shared out between weights, steps and decoding. Here a CPU is said to be a GPU with free memory."""

import contextlib
import threading
import weakref
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from diffusers_helper import pipeline
from diffusers_helper.device import Compute, choose_compute
from diffusers_helper.errors import MachineError
from diffusers_helper.events import Finished, StepDone, Stopped
from diffusers_helper.limits import GIB, SPARE_BYTES, VAE_BYTES
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.models import vram_budget
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.models.vram_budget import ACTIVATION_WIDTHS, VramBudget, count_tokens, vae_budget
from diffusers_helper.sampling import section as section_sampling
from diffusers_helper.streaming.layers import NUM_SLOTS, StreamedLayers
from diffusers_helper.streaming.ring import WeightRing
from diffusers_helper.transformer.compiling import EagerBlocks
from diffusers_helper.transformer.memoize import Memoized
from diffusers_helper.weights.model_files import find_models
from tests.support.small_layers import SmallLayers
from tests.support.tiny import GOLDEN, MODELS, load_latents, run, small_request

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")
GPU_OUT_OF_MEMORY = RuntimeError("CUDA error: out of memory")
GPU_LOST = RuntimeError("CUDA error: device lost")
GPU = Compute(torch.device("cuda"), torch.float16, torch.bfloat16)
MIB = 2**20
BLOCKS = [433 * MIB] * 20 + [216 * MIB] * 40
TOKENS, HIDDEN_SIZE = count_tokens(9, 608 // 8, 640 // 8), 3072
ACTIVATIONS = TOKENS * HIDDEN_SIZE * 2 * ACTIVATION_WIDTHS


@pytest.fixture
def free(monkeypatch):
    """Sets the bytes that are free on the GPU."""
    monkeypatch.setattr(vram_budget, "empty_cache", lambda _device: None)
    return lambda num_bytes: monkeypatch.setattr(vram_budget, "free_vram", lambda *_: int(num_bytes))


@pytest.fixture
def wide(monkeypatch):
    """Has all blocks streamed, through five slots; `layers` are the job's, `rings` what they had."""
    original, wide = WeightRing.__enter__, SimpleNamespace(layers=None, rings=[], slots=[])

    def size_ring(budget):
        wide.layers = budget._layers
        wide.layers.num_slots = NUM_SLOTS if budget._was_short else 5

    def enter(ring):
        if ring.layers[-1].kind == "single" and wide.layers is not None and wide.layers.ring is ring:
            wide.rings.append(len(ring.slots))
            wide.slots.extend(weakref.ref(slot) for slot in ring.slots)
        return original(ring)

    monkeypatch.setattr(WeightRing, "__enter__", enter)
    monkeypatch.setattr(VramBudget, "size_ring", size_ring)
    monkeypatch.setattr(vram_budget, "plan_vram", lambda *_: [])
    return wide


def num_left(references):
    return sum(reference() is not None for reference in references)


def make(folder, name, request):
    events = list(run(request, folder, name=name, save_latents=True))
    assert isinstance(events[-1], Finished)
    return load_latents(folder / f"{name}.safetensors")


def budget_of(sizes, streamed):
    layers = SimpleNamespace(
        layers=[SimpleNamespace(num_bytes=size) for size in sizes],
        streamed=[*range(streamed)],
        num_slots=None,
    )
    return VramBudget(layers, GPU, TOKENS, HIDDEN_SIZE), layers


@pytest.mark.parametrize(
    ("gib", "streamed", "num_slots"),
    [(3, 60, 3), (5.5, 60, 3), (6.6, 60, 6), (24, 60, 47), (80, 60, 60), (80, 2, 2), (80, 0, 3)],
)
def test_ring_gets_as_many_slots_as_fit_beside_a_step(free, gib, streamed, num_slots):
    free(gib * GIB)
    budget, layers = budget_of(BLOCKS, streamed)
    budget.size_ring()
    assert layers.num_slots == num_slots
    assert num_slots <= NUM_SLOTS or num_slots * max(BLOCKS) + ACTIVATIONS + SPARE_BYTES <= gib * GIB


@pytest.mark.parametrize(("gib", "least", "most"), [(6.6, 0, 0), (11, 9, 15), (79, 60, 60)])
def test_layers_stay_where_decoding_has_room_beside_them(free, gib, least, most):
    free(gib * GIB)
    budget, layers = budget_of(BLOCKS, 60)
    layers.load_resident = lambda indices: loaded.extend(indices)
    loaded = []
    budget.load_resident()
    assert least <= len(loaded) <= most
    assert not loaded or sum(BLOCKS[index] for index in loaded) + VAE_BYTES + SPARE_BYTES <= gib * GIB


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, GPU_OUT_OF_MEMORY], ids=["torch", "driver"])
def test_less_room_than_planned_keeps_fewer_layers(tmp_path, monkeypatch, error):
    small = SmallLayers(tmp_path)
    with small.streamed() as streamed:
        original = streamed._bind

        def bind(layer, buffer):
            if len(streamed._resident) == 5:
                raise error
            return original(layer, buffer)

        monkeypatch.setattr(streamed, "_bind", bind)
        VramBudget(streamed, choose_compute("cpu"), 1, 1).load_resident()
        assert streamed.num_resident == 2
        monkeypatch.undo()
        small.check_pass(streamed)


def test_memory_is_freed_from_slots_first_then_from_resident_layers(tmp_path, free):
    small = SmallLayers(tmp_path)
    with small.streamed() as streamed:
        budget = VramBudget(streamed, GPU, 1, 1)
        streamed.load_resident([0, 3])
        free(2 * SPARE_BYTES)
        budget.size_ring()
        seen = []

        def work():
            seen.append((streamed.num_slots, streamed.num_resident))
            for index, module in streamed:
                small.check(index, module)
                if index == 4 and len(seen) < 4:
                    raise OUT_OF_MEMORY
            return "done"

        assert budget.retry_on_oom(work) == "done"
        assert seen == [(5, 2), (3, 2), (3, 1), (3, 0)]
        for error in (OUT_OF_MEMORY, GPU_LOST):
            with pytest.raises(type(error), match=str(error)):
                budget.retry_on_oom(lambda error=error: (_ for _ in ()).throw(error))
        budget.size_ring()
        assert streamed.num_slots == NUM_SLOTS  # more were too much once


@pytest.mark.parametrize(("gib", "least", "most"), [(0.5, 0.2, 0.25), (6.6, 5.5, 6)])
def test_decoding_may_take_what_is_free(free, gib, least, most):
    free(gib * GIB)
    assert least * GIB < vae_budget(GPU) < most * GIB
    assert vae_budget(choose_compute("cpu")) == min(gib * GIB / 2, 2 * GIB)


def test_ring_and_memoized_tensors_live_while_one_section_is_sampled(tmp_path, wide, monkeypatch):
    """Even small tensors keep large segments of a GPU's memory, and made decoding run out of it."""
    seen, used, forward, original = [], {}, Memoized.forward, pipeline.decode_to

    def look(self, *arguments, **named):
        used[id(self)] = self
        return forward(self, *arguments, **named)

    def decode(*arguments):
        num_cached = sum(module._cached.cache_info().currsize for module in used.values())
        seen.append(("decode", wide.layers.ring, num_left(wide.slots), len(used), num_cached))
        return original(*arguments)

    monkeypatch.setattr(Memoized, "forward", look)

    monkeypatch.setattr(pipeline, "decode_to", decode)
    for event in run(small_request(seconds=1, steps=2), tmp_path / "out"):
        if isinstance(event, StepDone):
            seen.append(("step", len(wide.layers.ring.slots)))
    assert seen == [("step", 5), ("step", 5), ("decode", None, 0, 4, 0)] * 2
    assert wide.rings == [5, 5]


@pytest.mark.parametrize("end", ["stop", "listener leaves", "step fails", "decoding fails"])
def test_whatever_ends_a_job_no_thread_and_no_slot_is_left(tmp_path, wide, monkeypatch, end):
    threads, stop = set(threading.enumerate()), threading.Event()
    events = run(small_request(seconds=1, steps=3), tmp_path / "out", stop=stop)
    next(event for event in events if isinstance(event, StepDone))
    assert num_left(wide.slots) == 5
    if end == "stop":
        stop.set()
        assert isinstance(list(events)[-1], Stopped)
    elif end == "listener leaves":
        events.close()
    else:
        name = (section_sampling, "preview_latents") if end == "step fails" else (pipeline, "decode_to")
        monkeypatch.setattr(*name, Mock(side_effect=GPU_LOST))
        with pytest.raises((RuntimeError, MachineError)):
            list(events)
    assert set(threading.enumerate()) <= threads
    assert wide.layers.ring is None
    assert num_left(wide.slots) == 0


def test_memory_short_in_steps_costs_slots_then_layers(tmp_path, wide, monkeypatch):
    request, original = load_request(GOLDEN / "teacache_16" / "request.json"), StreamedLayers.__iter__
    passes = []

    def fail_sometimes(layers):
        if layers is wide.layers:
            passes.append((layers.num_slots, layers.num_resident))
        for index, module in original(layers):
            if len(passes) in (2, 3, 4) and index == 3:
                raise OUT_OF_MEMORY
            yield index, module

    monkeypatch.setattr(StreamedLayers, "__iter__", fail_sometimes)
    monkeypatch.setattr(vram_budget, "plan_vram", lambda *_: [1, 2])
    found = make(tmp_path / "out", "short", request)
    assert passes[:6] == [(5, 2), (5, 2), (3, 2), (3, 1), (3, 0), (3, 0)]
    assert wide.rings == [3, 3, 3, 3]  # of three layers, then of four, then of all five
    monkeypatch.undo()
    assert torch.equal(found, make(tmp_path / "out", "enough", request))


@pytest.mark.parametrize("error", [None, OUT_OF_MEMORY, GPU_LOST])
def test_memory_cached_while_compiling_is_released(monkeypatch, error):
    def prepare(*_):
        if error is not None:
            raise error

    loader, emptied = ModelLoader(find_models(MODELS), choose_compute("cpu")), []
    with loader.transformer(500) as transformer, monkeypatch.context() as patch:
        patch.setattr(EagerBlocks, "prepare", prepare)
        patch.setattr("diffusers_helper.models.streamed.empty_cache", emptied.append)
        with pytest.raises(RuntimeError, match="lost") if error is GPU_LOST else contextlib.nullcontext():
            transformer.prepare_blocks(500, loader.compute)
    assert emptied == [torch.device("cpu")]
