"""A ring that has more slots for a while: the same weights whenever that is, and nothing left behind."""

import gc
import os
import threading
import time
import weakref

import pytest
import torch

from diffusers_helper.errors import InputError
from diffusers_helper.streaming import ring as ring_module
from diffusers_helper.streaming.layers import MORE_SLOTS, NUM_SLOTS, StreamedLayers
from diffusers_helper.streaming.ram_tier import read_whole
from diffusers_helper.streaming.reader import ChunkReader
from diffusers_helper.streaming.ring import WeightRing
from tests.support.small_layers import COUNT, FIRST_FILE, describe, make_linear, store

CPU = torch.device("cpu")
ALL_ROOM = 2**40


@pytest.fixture
def stored(tmp_path):
    return tmp_path, store(tmp_path)


@pytest.fixture
def open_ring(stored):
    """Rings over the stored layers, some of them kept in RAM; a check that one gives the next layer."""
    folder, weights = stored
    checkpoint, layers = describe(folder)

    def make(num_slots, kept=()):
        reader = ChunkReader(checkpoint.signatures)
        buffers = {place: read_whole(layers[place], reader) for place in kept}
        reader.close()
        return WeightRing(layers, num_slots, CPU, checkpoint.signatures, buffers)

    def take(ring, place, meanwhile=lambda _ring: None):
        assert ring.position == place
        slot = ring.acquire()
        meanwhile(ring)
        for name, view in layers[place].views(ring.slots[slot]).items():
            assert torch.equal(view, weights[f"layers.{place}.{name}"])
        ring.release()

    return make, take


@pytest.fixture
def streamed(stored):
    folder, _ = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place([])
        yield streamed


def check_pass(streamed, weights):
    places = []
    for place, module in streamed:
        assert torch.equal(module.weight, weights[f"layers.{place}.weight"])
        assert torch.equal(module.bias, weights[f"layers.{place}.bias"])
        places.append(place)
    assert places == list(range(COUNT))


def of_class(kind):
    """Live things of a class. By their types: isinstance asks the things themselves."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is kind]


@pytest.mark.parametrize("is_held", [True, False], ids=["while a layer is used", "between two layers"])
@pytest.mark.parametrize("kept", [(), (0, 4)])
@pytest.mark.parametrize("more", [1, 3, 9])
@pytest.mark.parametrize("moment", range(COUNT + 1))
def test_widened_and_narrowed_at_any_moment_the_ring_hands_out_the_cycle(
    open_ring, moment, more, kept, is_held
):
    make, take = open_ring
    with make(2, kept) as ring:
        turns = {
            moment: lambda ring: ring.widen(more),
            moment + 4: lambda ring: ring.narrow(2),
            moment + 6: lambda ring: ring.widen(more),
            moment + 7: lambda ring: ring.widen(more),
            moment + 2 * COUNT: lambda ring: ring.narrow(1),
            moment + 2 * COUNT + 1: lambda ring: ring.widen(1),
        }
        for turn in range(5 * COUNT):
            change = turns.get(turn, lambda _ring: None)
            if is_held:
                take(ring, turn % COUNT, change)
            else:
                change(ring)
                take(ring, turn % COUNT)
            assert sorted(load.slot for load in ring._loads) == sorted(ring.slots)


@pytest.mark.parametrize("more", [0, 1, 4, 5, 9])
def test_there_are_never_more_slots_than_layers(open_ring, more):
    make, _ = open_ring
    with make(3) as ring:
        assert ring.widen(more) == min(more, COUNT - 3)
        assert len(ring.slots) == 3 + min(more, COUNT - 3)
        ring.widen(9)
        assert len(ring.slots) == COUNT


def test_the_slots_that_are_given_back_are_those_of_the_layers_needed_last(open_ring):
    make, take = open_ring
    with make(2) as ring:
        ring.widen(3)
        for place in range(4):
            take(ring, place)
        kept = [load.slot for load in ring._loads][:2]
        gone = [weakref.ref(slot) for number, slot in ring.slots.items() if number not in kept]
        ring.narrow(2)
        assert sorted(ring.slots) == sorted(kept)
        assert len(gone) == 3
        assert not any(reference() is not None for reference in gone)  # waiting threads hold none either
        for turn in range(4, 2 * COUNT):
            take(ring, turn % COUNT)


def test_the_last_slot_stays(open_ring):
    make, take = open_ring
    with make(3) as ring:
        ring.narrow(0)
        assert len(ring.slots) == 1
        for turn in range(COUNT + 2):
            take(ring, turn % COUNT)


@pytest.mark.parametrize("moment", [0, 2, 5])
@pytest.mark.parametrize("is_wide", [True, False])
def test_a_wide_ring_begins_anew(open_ring, moment, is_wide):
    make, take = open_ring
    with make(2) as ring:
        ring.widen(3)
        for place in range(moment):
            take(ring, place)
        ring.acquire()
        if not is_wide:
            ring.narrow(2)
        ring.restart()
        for turn in range(2 * COUNT):
            take(ring, turn % COUNT)
        assert len(ring.slots) == (5 if is_wide else 2)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")],
    ids=["torch", "card"],
)
def test_where_memory_runs_out_fewer_slots_are_added(open_ring, monkeypatch, error):
    make, take = open_ring
    with make(2) as ring:
        original = ring._make_slot

        def make_slot():
            if len(ring.slots) == 4:
                raise error
            return original()

        monkeypatch.setattr(ring, "_make_slot", make_slot)
        assert ring.widen(4) == 2
        assert ring.widen(4) == 0
        for turn in range(2 * COUNT):
            take(ring, turn % COUNT)


def test_other_errors_of_the_card_are_told(open_ring, monkeypatch):
    make, _ = open_ring

    def lose_card():
        raise RuntimeError("CUDA error: device lost")

    with make(2) as ring:
        monkeypatch.setattr(ring, "_make_slot", lose_card)
        with pytest.raises(RuntimeError, match="device lost"):
            ring.widen(1)


def test_a_file_that_changes_while_the_ring_is_wide_is_told_when_its_layer_is_needed(stored, open_ring):
    folder, _ = stored
    make, take = open_ring
    threads = threading.active_count()
    with make(2) as ring:
        ring.widen(3)
        assert all(load.done.wait(10) for load in ring._loads)
        os.truncate(folder / FIRST_FILE, 100)
        for place in range(5):
            take(ring, place)
            assert ring._loads[-1].done.wait(10)
        for change in (lambda: None, lambda: ring.narrow(1), lambda: ring.widen(2), ring.restart):
            change()
            with pytest.raises(InputError) as caught:
                ring.acquire()
            assert caught.value.code == "model_file_changed"
    assert threading.active_count() == threads
    assert not ring.slots


def test_a_failed_layer_in_a_slot_that_is_given_back_is_forgotten_and_loaded_again(open_ring, monkeypatch):
    make, take = open_ring
    original = WeightRing._bring
    broken = [5, 6]

    def bring(ring, load, chunk, *rest):
        if broken and load.slot in broken:
            raise RuntimeError("no memory for a buffer")
        original(ring, load, chunk, *rest)

    monkeypatch.setattr(WeightRing, "_bring", bring)
    with make(3) as ring:
        ring.widen(4)
        assert all(load.done.wait(10) for load in ring._loads)
        assert ring.has_failed
        broken.clear()
        ring.narrow(3)
        assert not ring.has_failed
        for turn in range(2 * COUNT):
            take(ring, turn % COUNT)


def test_what_is_given_back_is_not_read_to_the_end(open_ring, monkeypatch):
    make, take = open_ring
    begun, go = threading.Semaphore(0), threading.Event()
    original, brought = WeightRing._bring, []

    def bring(ring, load, *rest):
        begun.release()
        go.wait(10)
        brought.append(load.slot)
        original(ring, load, *rest)

    monkeypatch.setattr(ring_module, "THREADS", 2)
    monkeypatch.setattr(WeightRing, "_bring", bring)
    with make(2) as ring:
        ring.widen(4)
        for _ in range(2):
            assert begun.acquire(timeout=10)
        loads = list(ring._loads)[2:]
        narrowing = threading.Thread(target=ring.narrow, args=(2,))
        narrowing.start()
        while not all(load.is_unwanted for load in loads):
            time.sleep(0.001)
        go.set()
        narrowing.join()
        assert sorted(brought) == [0, 1]
        for turn in range(COUNT + 1):
            take(ring, turn % COUNT)


def test_layers_lend_and_take_back_between_and_within_passes(streamed, stored):
    _, weights = stored
    check_pass(streamed, weights)
    for lent in (1, 2, 4):
        size = streamed.ring.slot_bytes
        assert streamed.widen((lent + 1) * size - 1) == lent == streamed.num_lent
        for _ in range(2):
            check_pass(streamed, weights)
        streamed.narrow()
        assert streamed.num_lent == 0
        assert len(streamed._slots) == len(streamed.ring.slots) == NUM_SLOTS
        check_pass(streamed, weights)


def test_no_room_lends_nothing(streamed):
    for num_bytes in (-(10**9), 0, streamed.ring.slot_bytes - 1):
        assert streamed.widen(num_bytes) == 0
    assert len(streamed.ring.slots) == NUM_SLOTS


def test_no_more_than_the_most_is_lent_however_often(streamed, monkeypatch):
    monkeypatch.setattr("diffusers_helper.streaming.layers.MORE_SLOTS", 2)
    assert [streamed.widen(ALL_ROOM) for _ in range(3)] == [2, 0, 0]
    assert MORE_SLOTS == 5


@pytest.mark.parametrize("broken_off_at", [0, 3, 6])
def test_a_pass_that_was_broken_off_goes_on_wide_or_narrow(streamed, stored, broken_off_at):
    _, weights = stored
    streamed.widen(ALL_ROOM)
    for is_given_up in (False, True):
        for place, _module in streamed:
            if place == broken_off_at:
                break
        if is_given_up:
            assert streamed.give_up_lent()
            assert not streamed.give_up_lent()
            assert streamed.widen(ALL_ROOM) == 0  # it was too much once
            assert not streamed.may_widen
        check_pass(streamed, weights)


def test_what_is_lent_stays_lent_when_layers_move_to_ram_and_not_when_resident_ones_are_given_up(stored):
    folder, weights = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place([2, 5])
        assert streamed.widen(ALL_ROOM) == 2  # of five layers
        check_pass(streamed, weights)
        reader = ChunkReader(checkpoint.signatures)
        streamed.keep_in_ram({place: read_whole(layers[place], reader) for place in (0, 6)})
        reader.close()
        assert streamed.num_lent == 2
        check_pass(streamed, weights)
        assert streamed.give_up_resident()
        assert streamed.num_lent == 0
        streamed.widen(ALL_ROOM)
        check_pass(streamed, weights)


def test_where_all_layers_stay_there_is_nothing_to_lend_to(stored):
    folder, _ = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place(range(COUNT))
        assert not streamed.may_widen
        assert streamed.widen(ALL_ROOM) == 0
        streamed.narrow()
        assert not streamed.give_up_lent()


def test_modules_of_slots_that_are_given_back_are_gone(streamed):
    streamed.widen(ALL_ROOM)
    with torch.inference_mode():
        for _place, _module in streamed:
            pass
        del _module
        streamed.narrow()
    linears = [linear for linear in of_class(torch.nn.Linear) if not linear.weight.is_meta]
    assert len(linears) == NUM_SLOTS
    assert not any(linear.weight.is_inference() for linear in linears)


def test_weights_of_lent_slots_are_plain_tensors_also_in_inference_mode(streamed):
    with torch.inference_mode():
        streamed.widen(ALL_ROOM)
    for modules in streamed._slots.values():
        assert not modules["linear"].weight.is_inference()
