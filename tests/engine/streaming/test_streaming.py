"""Layers that pass through a ring: the same numbers, whatever stays and whatever goes wrong."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from diffusers_helper.device import choose_compute
from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import StepDone
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.streaming import layers as layers_module
from diffusers_helper.streaming import ring as ring_module
from diffusers_helper.streaming.layers import NUM_SLOTS, StreamedLayers
from diffusers_helper.streaming.ram_tier import read_whole
from diffusers_helper.streaming.reader import ChunkReader
from diffusers_helper.streaming.ring import WeightRing
from diffusers_helper.streaming.row_lookup import RowLookup
from diffusers_helper.weights.checkpoint import Checkpoint
from diffusers_helper.weights.model_files import find_models
from tests.support import repeated_jobs
from tests.support.small_layers import COUNT, FIRST_FILE, describe, make_linear, store
from tests.support.tiny import GOLDEN, MODELS, load_latents, make_request, run

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def stored(tmp_path):
    """Seven small layers, each split over two files."""
    return tmp_path, store(tmp_path)


@pytest.mark.parametrize("max_bytes", [64, 100, 256, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_layer_is_read_whole_whatever_the_chunks_and_the_dtype(stored, max_bytes, dtype):
    folder, weights = stored
    checkpoint, layers = describe(folder, dtype)
    buffer = torch.empty(layers[3].num_bytes, dtype=torch.uint8)
    reader = ChunkReader(checkpoint.signatures)
    chunks = layers[3].chunks(max_bytes)
    for chunk in chunks:
        assert chunk.num_bytes <= max(max_bytes, 8)
        reader.read(chunk, buffer[chunk.offset : chunk.offset + chunk.num_bytes])
    reader.close()
    for name, view in layers[3].views(buffer).items():
        assert torch.equal(view, weights[f"layers.3.{name}"].to(dtype))
    assert reader.bytes_read == (5 * 33 + 5) * 4


@pytest.mark.parametrize("num_slots", [1, 2, 3, 10])
@pytest.mark.parametrize("kept", [(), (0, 4)])
def test_the_ring_hands_out_the_cycle_for_ever(stored, num_slots, kept):
    folder, weights = stored
    checkpoint, layers = describe(folder)
    reader = ChunkReader(checkpoint.signatures)
    buffers = {place: read_whole(layers[place], reader) for place in kept}
    reader.close()
    with WeightRing(layers, num_slots, CPU, checkpoint.signatures, buffers) as ring:
        for turn in range(3 * COUNT + 2):
            place = turn % COUNT
            assert ring.position == place
            views = layers[place].views(ring.slots[ring.acquire()])
            assert torch.equal(views["weight"], weights[f"layers.{place}.weight"])
            assert torch.equal(views["bias"], weights[f"layers.{place}.bias"])
            ring.release()


def test_kept_layers_are_not_read_from_their_files(stored):
    folder, _ = stored
    checkpoint, layers = describe(folder)
    reader = ChunkReader(checkpoint.signatures)
    buffers = {place: read_whole(layer, reader) for place, layer in enumerate(layers)}
    reader.close()
    with WeightRing(layers, 2, CPU, checkpoint.signatures, buffers) as ring:
        for _ in range(COUNT):
            ring.acquire()
            ring.release()
        assert ring.traffic[0] == 0


def test_a_cycle_that_was_broken_off_begins_anew(stored):
    folder, weights = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place([1])
        for place, _module in streamed:
            if place == 4:
                break
        seen = [(place, module.weight.clone()) for place, module in streamed]
    assert [place for place, _ in seen] == list(range(COUNT))
    assert all(torch.equal(weight, weights[f"layers.{place}.weight"]) for place, weight in seen)


@pytest.mark.parametrize("resident", [[], [0], [2, 5], list(range(COUNT))])
def test_every_layer_has_its_weights_wherever_it_is(stored, resident):
    folder, weights = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place(resident)
        for _pass in range(2):
            for place, module in streamed:
                assert torch.equal(module.weight, weights[f"layers.{place}.weight"])
        assert streamed.num_resident == len(resident)


def test_after_a_pass_the_first_layers_of_the_next_one_come_by_themselves(stored):
    """So that they are there when the next section begins, whatever is computed meanwhile: its decoding."""
    folder, weights = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place([])
        for _place, _module in streamed:
            pass
        ring = streamed.ring
        assert ring.position == 0
        assert len(ring._loads) == NUM_SLOTS
        for place, load in enumerate(ring._loads):
            assert load.done.wait(10)
            views = layers[place].views(ring.slots[load.slot])
            assert torch.equal(views["weight"], weights[f"layers.{place}.weight"])


def test_giving_up_resident_layers_ends_with_none_and_changes_nothing(stored):
    folder, weights = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        streamed.place(range(COUNT))
        counts = [streamed.num_resident]
        while streamed.give_up_resident():
            counts.append(streamed.num_resident)
            for place, module in streamed:
                assert torch.equal(module.weight, weights[f"layers.{place}.weight"])
    assert counts == [7, 3, 1, 0]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")],
    ids=["torch", "card"],
)
def test_less_room_than_planned_keeps_fewer_layers(stored, monkeypatch, error):
    folder, weights = stored
    checkpoint, layers = describe(folder)
    with StreamedLayers(layers, make_linear, checkpoint, CPU) as streamed:
        original = streamed._bind

        def bind(layer, buffer):
            if len(streamed._resident) == 2:
                raise error
            return original(layer, buffer)

        monkeypatch.setattr(streamed, "_bind", bind)
        streamed.place_as_many(range(COUNT))
        assert streamed.num_resident == 1
        monkeypatch.undo()
        for place, module in streamed:
            assert torch.equal(module.weight, weights[f"layers.{place}.weight"])


def _cut_short(path):
    os.truncate(path, path.stat().st_size - 200)


def _replace(path):
    other = path.with_suffix(".new")
    save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, other)
    os.utime(other, (1, 1))
    other.replace(path)


def test_a_thread_that_cannot_begin_is_told_and_not_waited_for(stored, monkeypatch):
    folder, _ = stored
    checkpoint, layers = describe(folder)

    def refuse(*_):
        raise RuntimeError("no memory for a buffer")

    monkeypatch.setattr(WeightRing, "_bring", refuse)
    with (
        WeightRing(layers, 2, CPU, checkpoint.signatures) as ring,
        pytest.raises(RuntimeError, match="no memory for a buffer"),
    ):
        ring.acquire()


def test_a_card_that_is_lost_while_a_layer_arrives_is_told_and_not_waited_for():
    class LostCard:
        def record_event(self):
            raise RuntimeError("CUDA error: device lost")

    load = ring_module._Load(0, None, chunks=1)
    load.chunk_done(LostCard())
    assert load.done.is_set()
    assert "device lost" in str(load.error)


@pytest.mark.parametrize("damage", [_cut_short, Path.unlink, _replace])
def test_a_file_that_changes_is_told_in_the_thread_that_waits(stored, damage):
    folder, _ = stored
    checkpoint, layers = describe(folder)
    damage(folder / FIRST_FILE)
    threads = threading.active_count()
    with (
        pytest.raises((InputError, MachineError)) as caught,
        WeightRing(layers, 2, CPU, checkpoint.signatures) as ring,
    ):
        ring.acquire()
    assert caught.value.code in ("model_file_changed", "model_file_unreadable")
    assert threading.active_count() == threads


def test_a_file_cut_short_in_the_middle_of_a_job_is_told(stored):
    folder, _ = stored
    checkpoint, layers = describe(folder)
    with WeightRing(layers, 2, CPU, checkpoint.signatures) as ring:
        for _ in range(COUNT):
            ring.acquire()
            ring.release()
        _cut_short(folder / FIRST_FILE)
        with pytest.raises(InputError) as caught:
            for _ in range(COUNT):
                ring.acquire()
                ring.release()
    assert caught.value.code == "model_file_changed"


def test_rows_of_a_table_are_those_of_an_embedding(tmp_path):
    table = torch.randn(50, 8, dtype=torch.float16)
    save_file({"embed.weight": table}, tmp_path / "model.safetensors")
    ids = torch.tensor([[3, 3, 49, 0, 17]])
    lookup = RowLookup(Checkpoint.open(tmp_path), "embed.weight", torch.float32)
    assert torch.equal(lookup(ids), nn.functional.embedding(ids, table.float()))


def limited_loader(limit):
    compute = dataclasses.replace(choose_compute("cpu"), memory_limit=limit)
    return ModelLoader(find_models(MODELS), compute)


def golden_request(case):
    from diffusers_helper.media.embedded_request import load_request

    return load_request(GOLDEN / case / "request.json")


@pytest.mark.parametrize("case", ["teacache_16", "true_cfg"])
def test_a_video_is_the_same_to_the_bit_however_little_memory_there_is(tmp_path, case):
    for name, limit in (("all", None), ("some", 20_000_000), ("none", 0)):
        list(
            run(
                golden_request(case),
                tmp_path / "out",
                name=name,
                loader=limited_loader(limit),
                save_latents=True,
            )
        )
    everything, some, nothing = (
        load_latents(tmp_path / "out" / f"{name}.safetensors") for name in ("all", "some", "none")
    )
    assert torch.equal(everything, nothing)
    assert torch.equal(everything, some)


def test_the_transformer_equals_diffusers_own_to_the_bit():
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    from diffusers_helper.encoding.prompts import PromptEmbeds
    from diffusers_helper.sampling.denoiser import Guidance, SectionDenoiser, SectionInputs
    from diffusers_helper.sections import section_positions

    torch.manual_seed(0)
    positions = section_positions(3, 5)
    prompt = PromptEmbeds(torch.randn(1, 512, 64), torch.arange(512)[None] < 40, torch.randn(1, 32))
    latents = torch.randn(1, 16, 21, 8, 12)
    inputs = SectionInputs(
        prompt,
        None,
        torch.randn(1, 16, 48),
        latents[:, :, :2],
        latents[:, :, 2:4],
        latents[:, :, 4:20],
        positions,
    )
    x, sigma = torch.randn(1, 16, 5, 8, 12), torch.tensor(0.7)
    loader = limited_loader(0)
    with loader.transformer(500) as transformer:
        assert transformer.stack.layers.num_resident == 0
        found = SectionDenoiser(transformer, inputs, Guidance(10.0), loader.compute, sigma[None]).predict(
            x, sigma
        )
    folder = MODELS / "lllyasviel" / "FramePackI2V_HY"
    own = HunyuanVideoFramepackTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32)
    for parameter in own.parameters():
        parameter.data = parameter.data.clone()  # aligned: the CPU's kernels round otherwise where it is not
    with torch.inference_mode():
        velocity = own(
            hidden_states=x,
            timestep=(sigma * 1000)[None],
            encoder_hidden_states=prompt.embeds,
            encoder_attention_mask=prompt.mask,
            pooled_projections=prompt.pooled,
            image_embeds=inputs.image_embeds,
            guidance=torch.tensor([10000.0]),
            indices_latents=torch.tensor(positions.latents),
            latents_clean=inputs.clean,
            indices_latents_clean=torch.tensor(positions.clean),
            latents_history_2x=inputs.history_2x,
            indices_latents_history_2x=torch.tensor(positions.history_2x),
            latents_history_4x=inputs.history_4x,
            indices_latents_history_4x=torch.tensor(positions.history_4x),
        ).sample
    assert torch.equal(found, x - float(sigma) * velocity)


def blocks_ring(rings):
    """The blocks' own ring: that of the modulation has smaller layers."""
    return max(rings, key=lambda ring: ring.layers[-1].num_bytes if ring.layers[-1].kind == "single" else 0)


def test_skipped_steps_move_no_weights(tmp_path, monkeypatch):
    rings = []
    original = WeightRing.__enter__

    def watch(ring):
        rings.append(ring)
        return original(ring)

    monkeypatch.setattr(WeightRing, "__enter__", watch)
    acquired = []
    for event in run(golden_request("teacache_16"), tmp_path / "out", loader=limited_loader(0)):
        if isinstance(event, StepDone):
            acquired.append((event.computed, blocks_ring(rings)._number))
    blocks = len(blocks_ring(rings).layers)
    passes = 0
    for computed, number in acquired:
        passes += computed
        assert number == passes * blocks


def test_running_out_of_memory_gives_up_resident_layers_and_repeats_the_step(tmp_path, monkeypatch):
    list(run(golden_request("teacache_16"), tmp_path / "out", name="a", save_latents=True))
    original = StreamedLayers.__iter__
    passes = []

    def fail_sometimes(self):
        is_blocks = any(layer.kind == "single" for layer in self.layers) and self.num_resident
        if is_blocks:
            passes.append(self.num_resident)
        for place, module in original(self):
            if is_blocks and place == 3 and len(passes) in (2, 3):
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield place, module

    monkeypatch.setattr(StreamedLayers, "__iter__", fail_sometimes)
    list(run(golden_request("teacache_16"), tmp_path / "out", name="b", save_latents=True))
    assert passes[:4] == [5, 5, 2, 1]
    a, b = (load_latents(tmp_path / "out" / f"{name}.safetensors") for name in "ab")
    assert torch.equal(a, b)


def test_layers_kept_in_ram_change_nothing(tmp_path, monkeypatch):
    from diffusers_helper.streaming import ram_tier
    from diffusers_helper.streaming.placement import RamPlan

    list(run(golden_request("one_second"), tmp_path / "out", name="a", save_latents=True))
    monkeypatch.setattr(ram_tier, "plan_ram", lambda *_: RamPlan((0, 2, 3), "told to"))
    kept = []
    original = layers_module.StreamedLayers.keep_in_ram
    monkeypatch.setattr(
        layers_module.StreamedLayers,
        "keep_in_ram",
        lambda self, places: (kept.append(sorted(places)), original(self, places))[1],
    )
    loader = limited_loader(0)
    list(run(golden_request("one_second"), tmp_path / "out", name="b", loader=loader, save_latents=True))
    assert kept == [[0, 2, 3]]
    a, b = (load_latents(tmp_path / "out" / f"{name}.safetensors") for name in "ab")
    assert torch.equal(a, b)


def test_job_after_job_holds_no_more_memory_threads_or_files(tmp_path):
    # One section's frames, left behind by each job, would be 3 times this; its weights 100 times.
    allowed, jobs = 150 * 1024, 7
    if not Path("/proc/self/status").exists() or platform.libc_ver()[0] != "glibc":
        pytest.skip("reads Linux's own figures, with glibc's allocator")
    command = [sys.executable, "-m", "tests.support.repeated_jobs", str(tmp_path / "out"), str(jobs)]
    environment = os.environ | repeated_jobs.ALLOCATOR
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(held) == jobs
    settled, last = held[repeated_jobs.WARM_UP], held[-1]
    assert last["memory"] - settled["memory"] < allowed, held
    assert {key: last[key] for key in ("tensors", "threads", "files")} == {
        key: settled[key] for key in ("tensors", "threads", "files")
    }


def test_a_shard_that_breaks_in_the_middle_fails_the_job_with_a_sentence_and_the_next_one_works(tmp_path):
    models = tmp_path / "models"
    shutil.copytree(MODELS, models)
    compute = dataclasses.replace(choose_compute("cpu"), memory_limit=0)
    loader = ModelLoader(find_models(models), compute)
    shard = models / "lllyasviel/FramePackI2V_HY/diffusion_pytorch_model-00005-of-00006.safetensors"
    content = shard.read_bytes()
    events = run(make_request(steps=6), tmp_path / "out", loader=loader)
    next(event for event in events if isinstance(event, StepDone))
    os.truncate(shard, len(content) // 2)
    with pytest.raises(InputError) as caught:
        list(events)
    assert caught.value.code == "model_file_changed"
    shard.write_bytes(content)
    list(run(make_request(), tmp_path / "out", loader=ModelLoader(find_models(models), compute)))
    assert (tmp_path / "out" / "a.mp4").exists()
