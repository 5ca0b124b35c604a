"""A ring of buffers that hands out the layers of a cycle, whatever goes wrong in its threads."""

import gc
import os
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.streaming import ring as ring_module
from diffusers_helper.streaming.reader import ChunkReader
from diffusers_helper.streaming.ring import WeightRing
from tests.support.small_layers import COUNT, FIRST_FILE, SmallLayers


@pytest.fixture
def small(tmp_path):
    return SmallLayers(tmp_path)


@pytest.mark.parametrize("max_bytes", [64, 100, 256, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_chunks_of_any_size_and_dtype_fill_a_layer(tmp_path, max_bytes, dtype):
    small = SmallLayers(tmp_path, dtype)
    layer, reader = small.layers[3], ChunkReader(small.checkpoint.signatures)
    buffer = torch.empty(layer.num_bytes, dtype=torch.uint8)
    for chunk in layer.chunks(max_bytes):
        assert chunk.num_bytes <= max(max_bytes, 8)
        reader.read(chunk, buffer[chunk.offset : chunk.offset + chunk.num_bytes])
    reader.close()
    for name, view in layer.views(buffer).items():
        assert torch.equal(view, small.weights[f"layers.3.{name}"].to(dtype))
    assert reader.bytes_read == (5 * 33 + 5) * 4


@pytest.mark.parametrize("num_slots", [1, 2, 3, 10])
@pytest.mark.parametrize("kept", [(), (0, 4)])
def test_ring_hands_out_the_cycle_forever(small, num_slots, kept):
    with small.ring(num_slots, small.buffers(*kept)) as ring:
        assert len(ring.slots) == min(num_slots, COUNT)
        for turn in range(3 * COUNT + 2):
            small.take(ring, turn % COUNT)


def test_kept_layers_are_not_read_from_their_files(small):
    with small.ring(2, small.buffers(*range(COUNT))) as ring:
        for index in range(COUNT):
            small.take(ring, index)
        assert ring.traffic.bytes_read == 0


def test_all_slots_are_filled_ahead(small):
    with small.ring(4) as ring:
        small.take(ring, 0)
        assert all(load.done.wait(10) for load in ring._loads)
        assert sorted(load.slot for load in ring._loads) == [0, 1, 2, 3]


@pytest.mark.parametrize("is_reading", [True, False], ids=["while threads read", "when all is read"])
def test_closed_ring_leaves_no_thread_and_no_slot(small, monkeypatch, is_reading):
    original, begun, brought = WeightRing._load_chunk, threading.Semaphore(0), []

    def bring(ring, load, *rest):
        begun.release()
        while is_reading and not ring._closing:
            time.sleep(0.001)
        brought.append(load.slot)
        original(ring, load, *rest)

    monkeypatch.setattr(ring_module, "THREADS", 2)
    monkeypatch.setattr(WeightRing, "_load_chunk", bring)
    threads = set(threading.enumerate())
    with small.ring(5) as ring:
        slots = [weakref.ref(slot) for slot in ring.slots]
        assert all(begun.acquire(timeout=10) for _ in range(2 if is_reading else 5))
        assert is_reading or all(load.done.wait(10) for load in ring._loads)
    assert set(threading.enumerate()) <= threads
    assert len(brought) == (2 if is_reading else 5)
    gc.collect()
    assert not any(slot() is not None for slot in slots)


def test_gpu_lost_while_a_layer_arrives_is_raised_and_not_waited_for():
    class LostGpu:
        def record_event(self):
            raise RuntimeError("CUDA error: device lost")

    load = ring_module._Load(0, None, chunks=1)
    load.chunk_done(LostGpu())
    assert load.done.is_set()
    assert "device lost" in str(load.error)


def _cut_short(path):
    os.truncate(path, path.stat().st_size - 200)


def _replace(path):
    other = path.with_suffix(".new")
    save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, other)
    os.utime(other, (1, 1))
    other.replace(path)


@pytest.mark.parametrize("damage", [_cut_short, Path.unlink, _replace])
def test_changed_file_is_an_error_in_the_thread_that_waits(small, damage):
    damage(small.folder / FIRST_FILE)
    threads = set(threading.enumerate())
    error = pytest.raises((InputError, MachineError), match=r"^model_file_(changed|unreadable)")
    with error, small.ring(2) as ring:
        ring.acquire()
    assert set(threading.enumerate()) <= threads


def test_file_cut_short_later_is_an_error_at_its_next_layer(small):
    with small.ring(2) as ring:
        for index in range(COUNT):
            small.take(ring, index)
        assert all(load.done.wait(10) for load in ring._loads)
        _cut_short(small.folder / FIRST_FILE)
        with pytest.raises(InputError, match="model_file_changed"):
            for index in range(COUNT):
                small.take(ring, index)
