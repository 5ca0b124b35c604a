"""Room that sampling leaves on a card and the weights have meanwhile. Here a CPU is told that it had some."""

import threading
import weakref
from types import SimpleNamespace

import pytest
import torch

from diffusers_helper import pipeline
from diffusers_helper.device import choose_compute
from diffusers_helper.errors import MachineError
from diffusers_helper.events import Finished, StepDone, Stopped
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.models import streamed_transformer as streamed_models
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.models.streamed_transformer import StreamedTransformer, count_tokens
from diffusers_helper.sampling import section as section_sampling
from diffusers_helper.streaming.layers import NUM_SLOTS, StreamedLayers
from diffusers_helper.streaming.ring import WeightRing
from diffusers_helper.transformer.compiling import EagerBlocks
from diffusers_helper.transformer.memoize import Memoized
from diffusers_helper.weights.model_files import find_models
from tests.support.small_layers import COUNT, describe, make_linear, store
from tests.support.tiny import GOLDEN, MODELS, load_latents, make_request, run

CPU = torch.device("cpu")
GIB = 2**30
ALL_ROOM = 2**40
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")
DEVICE_LOST = RuntimeError("CUDA error: device lost")


@pytest.fixture
def lending(monkeypatch):
    """Have all blocks streamed, and room; `lent` has each section's number of slots, `layers` the blocks."""
    lent = []
    original = StreamedLayers.widen

    def widen(layers, num_bytes):
        lent.append(original(layers, num_bytes))
        lending.layers = layers
        return lent[-1]

    lending = SimpleNamespace(lent=lent, layers=None)
    monkeypatch.setattr(StreamedLayers, "widen", widen)
    monkeypatch.setattr(streamed_models, "_room_to_lend", lambda *_: ALL_ROOM)
    monkeypatch.setattr(streamed_models, "plan_vram", lambda *_: [])  # none of the five blocks stays
    return lending


@pytest.fixture
def slots(monkeypatch):
    """Weak references to all slots that there ever were."""
    references = []
    original = WeightRing._make_slot

    def make_slot(ring):
        slot = original(ring)
        references.append(weakref.ref(slot))
        return slot

    monkeypatch.setattr(WeightRing, "_make_slot", make_slot)
    return references


def make(folder, name, request):
    events = list(run(request, folder, name=name, save_latents=True))
    assert isinstance(events[-1], Finished)
    return load_latents(folder / f"{name}.safetensors")


@pytest.mark.parametrize(("case", "resident"), [("one_second", []), ("teacache_16", [1]), ("true_cfg", [])])
def test_lending_changes_no_bit(tmp_path, lending, monkeypatch, case, resident):
    request = load_request(GOLDEN / case / "request.json")
    monkeypatch.setattr(streamed_models, "plan_vram", lambda *_: resident)
    found = make(tmp_path / "out", "lent", request)
    assert lending.lent[0] == 5 - NUM_SLOTS - len(resident)
    monkeypatch.undo()
    assert torch.equal(found, make(tmp_path / "out", "own", request))


def test_each_section_is_lent_to_before_its_steps_and_taken_back_from_before_its_decoding(
    tmp_path, lending, monkeypatch
):
    seen = []
    original = pipeline.decode_to

    def decode(*arguments):
        seen.append(("decode", lending.layers.num_lent))
        return original(*arguments)

    monkeypatch.setattr(pipeline, "decode_to", decode)
    for event in run(make_request(seconds=2, steps=2), tmp_path / "out"):
        if isinstance(event, StepDone):
            seen.append(("step", lending.layers.num_lent))
    assert seen == [("step", 2), ("step", 2), ("decode", 0)] * 2
    assert lending.lent == [2, 2]


def test_a_cpu_is_lent_nothing(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(streamed_models, "plan_vram", lambda *_: [])
    original = WeightRing.widen
    monkeypatch.setattr(WeightRing, "widen", lambda *args: counts.append(original(*args)) or counts[-1])
    make(tmp_path / "out", "a", make_request(steps=2))
    assert counts == [0]


@pytest.mark.parametrize("gives_up_at", ["a step", "decoding", "no step"])
def test_whatever_ends_a_job_no_thread_and_no_slot_is_left(
    tmp_path, lending, slots, monkeypatch, gives_up_at
):
    def fail(*_):
        raise DEVICE_LOST

    threads, stop = threading.active_count(), threading.Event()
    events = run(make_request(seconds=2, steps=2), tmp_path / "out", stop=stop)
    next(event for event in events if isinstance(event, StepDone))
    assert lending.layers.num_lent == 2
    if gives_up_at == "no step":
        stop.set()
        assert isinstance(list(events)[-1], Stopped)
    else:
        place = (section_sampling, "preview_latents") if gives_up_at == "a step" else (pipeline, "decode_to")
        monkeypatch.setattr(*place, fail)
        with pytest.raises((RuntimeError, MachineError)):
            list(events)
    assert threading.active_count() == threads
    assert lending.layers.ring is None
    assert not any(reference() is not None for reference in slots)


@pytest.mark.usefixtures("lending")
def test_a_listener_that_leaves_while_room_is_lent_leaves_nothing(tmp_path, slots):
    threads = threading.active_count()
    events = run(make_request(steps=3), tmp_path / "out")
    next(event for event in events if isinstance(event, StepDone))
    events.close()
    assert threading.active_count() == threads
    assert not any(reference() is not None for reference in slots)


@pytest.mark.usefixtures("lending")
def test_lent_slots_are_free_while_a_section_is_decoded(tmp_path, slots, monkeypatch):
    left = []
    original = pipeline.decode_to

    def decode(*arguments):
        left.append(sum(reference() is not None for reference in slots))
        return original(*arguments)

    monkeypatch.setattr(pipeline, "decode_to", decode)
    make(tmp_path / "out", "a", make_request(seconds=2, steps=2))
    assert left == [NUM_SLOTS] * 2


def test_memory_that_runs_out_in_a_step_takes_back_what_is_lent_and_nothing_else(
    tmp_path, lending, monkeypatch
):
    request = make_request(seconds=2, steps=3)
    original, passes = StreamedLayers.__iter__, []

    def fail_once(layers):
        is_blocks = any(layer.kind == "single" for layer in layers.layers) and layers.ring is not None
        if is_blocks and layers is lending.layers:
            passes.append((layers.num_lent, layers.num_resident))
        for place, module in original(layers):
            if len(passes) == 2 and place == 3:
                raise OUT_OF_MEMORY
            yield place, module

    monkeypatch.setattr(StreamedLayers, "__iter__", fail_once)
    monkeypatch.setattr(streamed_models, "plan_vram", lambda *_: [1])
    found = make(tmp_path / "out", "short", request)
    assert passes == [(1, 1)] * 2 + [(0, 1)] * 5
    assert lending.lent == [1]  # the next section does without
    monkeypatch.undo()
    assert torch.equal(found, make(tmp_path / "out", "enough", request))


def test_a_program_that_takes_the_cards_memory_between_two_steps_gets_back_what_is_lent(
    tmp_path, lending, monkeypatch
):
    request = make_request(seconds=2, steps=3)
    counts = []
    for event in run(request, tmp_path / "out", save_latents=True):
        if isinstance(event, StepDone):
            counts.append(lending.layers.num_lent)
            if len(counts) == 1:
                monkeypatch.setattr(streamed_models, "free_vram", lambda *_: 1000)
    assert counts == [2, 0, 0, 0, 0, 0]
    monkeypatch.undo()
    assert torch.equal(load_latents(tmp_path / "out" / "a.safetensors"), make(tmp_path / "out", "b", request))


def test_room_is_made_from_what_is_lent_first_then_from_layers_that_stay(tmp_path):
    weights = store(tmp_path)
    checkpoint, layers = describe(tmp_path)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        transformer = StreamedTransformer(None, SimpleNamespace(layers=streamed))
        streamed.place([0, 3])
        assert streamed.widen(ALL_ROOM) == 2
        seen = []

        def work():
            seen.append((streamed.num_lent, streamed.num_resident))
            for place, module in streamed:
                assert torch.equal(module.weight, weights[f"layers.{place}.weight"])
                if place == 4 and len(seen) < 4:
                    raise OUT_OF_MEMORY
            return "done"

        assert transformer.making_room(work) == "done"
        assert seen == [(2, 2), (0, 2), (0, 1), (0, 0)]
        with pytest.raises(torch.OutOfMemoryError):
            transformer.making_room(lambda: (_ for _ in ()).throw(OUT_OF_MEMORY))


def test_after_room_is_taken_back_the_next_sections_first_weights_come_by_themselves(tmp_path):
    weights = store(tmp_path)
    checkpoint, layers = describe(tmp_path)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place([])
        streamed.widen(ALL_ROOM)
        for _place, _module in streamed:
            pass
        streamed.narrow()
        ring = streamed.ring
        assert ring.position == 0
        assert len(ring._loads) == NUM_SLOTS < COUNT
        for place, load in enumerate(ring._loads):
            assert load.done.wait(10)
            views = layers[place].views(ring.slots[load.slot])
            assert torch.equal(views["weight"], weights[f"layers.{place}.weight"])


@pytest.mark.parametrize(
    ("free", "limit", "least", "most"), [(2, 80, -3, -1), (6, 80, 2, 2.5), (20, 80, 15, 17), (20, 6, 2, 2.5)]
)
def test_what_is_lent_of_a_card_leaves_room_for_a_step_and_for_others(monkeypatch, free, limit, least, most):
    emptied = []
    monkeypatch.setattr(streamed_models, "empty_cache", emptied.append)
    monkeypatch.setattr(streamed_models, "free_vram", lambda _device, limit: min(free * GIB, limit))
    card = SimpleNamespace(device=torch.device("cuda"), transformer=torch.bfloat16, memory_limit=limit * GIB)
    model = SimpleNamespace(config=SimpleNamespace(num_attention_heads=24, attention_head_dim=128))
    room = streamed_models._room_to_lend(model, card, count_tokens(9, 608 // 8, 640 // 8))
    assert least * GIB < room < most * GIB
    assert emptied == [card.device]


class Unwilling(EagerBlocks):
    def __init__(self, error):
        self.error = error

    def is_ready(self, attention):  # noqa: ARG002
        return False

    def prepare(self, *_):
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OUT_OF_MEMORY, DEVICE_LOST])
def test_what_compiling_leaves_goes_back_to_the_card_whatever_comes_of_it(monkeypatch, error):
    loader = ModelLoader(find_models(MODELS), choose_compute("cpu"), Unwilling(error))
    with loader.transformer(500) as transformer:
        emptied = []
        monkeypatch.setattr(streamed_models, "empty_cache", emptied.append)
        if error is DEVICE_LOST:
            with pytest.raises(RuntimeError, match="device lost"):
                transformer.prepare_blocks(500, loader.compute)
        else:
            transformer.prepare_blocks(500, loader.compute)
        assert emptied == [CPU]


def test_nothing_that_a_sections_steps_remember_is_left_while_it_is_decoded(tmp_path, monkeypatch):
    """Small tensors in large pieces of a card's memory: they made decoding run out of it."""
    results = []
    original = pipeline.decode_to

    def watch(*arguments):
        results.append([len(module._results) for module in remembering])
        return original(*arguments)

    remembering = []
    init, forward = Memoized.__init__, Memoized.forward

    def count(self, *arguments, **named):
        init(self, *arguments, **named)
        remembering.append(self)

    def look(self, *arguments, **named):
        used.add(id(self))
        return forward(self, *arguments, **named)

    used: set[int] = set()
    monkeypatch.setattr(Memoized, "__init__", count)
    monkeypatch.setattr(Memoized, "forward", look)
    monkeypatch.setattr(pipeline, "decode_to", watch)
    list(run(make_request(seconds=2), tmp_path))
    assert len(results) == 2
    assert used == {id(module) for module in remembering}
    assert not any(map(any, results))
