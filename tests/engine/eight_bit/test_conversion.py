"""8-bit weights converted from the tiny models: content, interruption and repair, and how they run."""

import dataclasses
import json
import os
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_helper import machine_errors
from diffusers_helper.device import choose_compute
from diffusers_helper.eight_bit import conversion as eight_bit
from diffusers_helper.eight_bit import linear as scaled_linear
from diffusers_helper.eight_bit import shards as eight_bit_shards
from diffusers_helper.eight_bit.conversion import (
    CONFIG,
    INDEX,
    MANIFEST,
    conversion_state,
    convert,
    eight_bit_folder,
    remove_corrupt_shards,
    with_eight_bit,
)
from diffusers_helper.eight_bit.linear import E4M3, dequantized_product, rowwise_fp8_linear
from diffusers_helper.encoding.prompts import PromptEmbeds
from diffusers_helper.errors import InputError, MachineError, StopRequested
from diffusers_helper.job.fingerprint import models_identity
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.sampling.denoiser import Guidance, SectionDenoiser, SectionInputs
from diffusers_helper.sections import section_positions
from diffusers_helper.weights.checkpoint import Checkpoint
from diffusers_helper.weights.model_files import FRAMEPACK, ModelPart, find_models
from tests.support.tiny import LAST_SHARD, MODELS, copy_models, make_request, run

FILES = 8
FLUSHES = 2 * (2 * FILES + 5)
"""The flushes of all files and their folder: the weights, the small ones, and the manifest after each."""
HALF_STEP = 2.0**-4


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Make several files, as the real weights do."""
    monkeypatch.setattr(eight_bit_shards, "SHARD_BYTES", 250_000)


@pytest.fixture
def source() -> ModelPart:
    return find_models(MODELS).transformer


def make(source, target, stop=None):
    """Convert; return the reported progress."""
    reported = []
    convert(source, target, lambda *now: reported.append(now), stop or threading.Event())
    return reported


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def tensors_of(folder):
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished folder of the tiny models' weights; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished") / "8bit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eight_bit_shards, "SHARD_BYTES", 250_000)
        make(find_models(MODELS).transformer, folder)
    return folder


@pytest.fixture
def made(finished, tmp_path):
    folder = tmp_path / "8bit"
    shutil.copytree(finished, folder)  # with the files' times
    return folder


# -- what is made ------------------------------------------------------------------------------------


def test_linear_layers_of_blocks_are_quantized_the_rest_is_copied(source, made):
    old, new = tensors_of(source.folder), tensors_of(made)
    scaled = {name for name in old if f"{name.removesuffix('weight')}scale" in new}
    assert scaled == {
        name for name, tensor in old.items() if "transformer_blocks." in name and tensor.ndim == 2
    }
    assert any("norm1.linear" in name for name in scaled)
    assert set(new) == set(old) | {f"{name.removesuffix('weight')}scale" for name in scaled}
    for name, weight in old.items():
        if name not in scaled:
            assert new[name].dtype == weight.dtype
            assert torch.equal(new[name], weight)
            continue
        numbers, scale = new[name], new[f"{name.removesuffix('weight')}scale"][:, None].double()
        assert numbers.dtype == E4M3
        bound = torch.maximum(weight.double().abs() * HALF_STEP, scale * 2.0**-10) * (1 + 1e-6)
        assert ((numbers.double() * scale - weight).abs() <= bound).all()


def test_the_folder_is_a_model_in_the_usual_layout(source, made):
    assert json.loads((made / CONFIG).read_text()) == source.config
    weight_map = json.loads((made / INDEX).read_text())["weight_map"]
    for path in made.glob("*.safetensors"):
        assert set(load_file(path)) == {name for name, file in weight_map.items() if file == path.name}
    assert len(set(weight_map.values())) == FILES
    assert {path.name for path in made.iterdir()} == {CONFIG, INDEX, MANIFEST, *weight_map.values()}


def test_progress_is_reported_up_to_the_end(source, tmp_path):
    reported = make(source, tmp_path / "new")
    assert reported == sorted(reported)
    assert reported[-1][0] == reported[-1][1] == sum(t.nbytes for t in tensors_of(tmp_path / "new").values())


def test_smaller_chunks_give_the_same_bytes(source, made, tmp_path, monkeypatch):
    monkeypatch.setattr(eight_bit_shards, "CHUNK_BYTES", 1000)
    make(source, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(made)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    models = copy_models(
        tmp_path / "models", LAST_SHARD, single_transformer_blocks__2__proj_out__weight=value
    )
    with pytest.raises(InputError) as caught:
        make(find_models(models).transformer, tmp_path / "new")
    assert caught.value.code == "weights_not_finite"
    assert caught.value.values["tensor"] == "single_transformer_blocks.2.proj_out.weight"
    assert not list((tmp_path / "new").glob("*.part"))


def test_a_disk_too_small_is_an_error_before_the_work(source, made, tmp_path, monkeypatch):
    free = sum(path.stat().st_size for path in made.iterdir()) + eight_bit.SPARE_BYTES - 50_000
    monkeypatch.setattr(
        machine_errors.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free)
    )
    with pytest.raises(MachineError) as caught:
        make(source, tmp_path / "new")
    assert caught.value.code == "disk_too_small"
    assert contents(tmp_path / "new") == {}
    (made / sorted(path.name for path in made.glob("*.safetensors"))[0]).unlink()
    make(source, made)  # what is there already needs no room


def test_a_disk_that_returns_other_bytes_is_an_error(source, tmp_path, monkeypatch):
    monkeypatch.setattr(eight_bit_shards, "sha256_of", lambda *_: b"other")
    with pytest.raises(MachineError) as caught:
        make(source, tmp_path / "new")
    assert caught.value.code == "eight_bit_written_wrong"
    assert contents(tmp_path / "new") == {}


# -- interrupted and continued ------------------------------------------------------------------------


QUICK = (0, FLUSHES // 2, FLUSHES - 2)


@pytest.mark.parametrize(
    "number", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in range(FLUSHES - 1)]
)
def test_killed_before_any_write_it_continues_to_the_same_end(source, made, tmp_path, monkeypatch, number):
    """Each file is flushed before it gets its name: the process ends at one of these moments."""
    folder, flush, left = tmp_path / "new", os.fsync, number

    def kill_or_flush(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", kill_or_flush)
        with pytest.raises(Killed):
            make(source, folder)
    assert conversion_state(folder, source) in ("missing", "incomplete")
    (folder / "diffusion_pytorch_model-00001-of-00008.safetensors.part").write_bytes(b"half of it")
    make(source, folder)
    assert conversion_state(folder, source) == "complete"
    assert contents(folder) == contents(made)


def test_finished_files_are_not_written_again(source, tmp_path, monkeypatch):
    folder, stop = tmp_path / "new", threading.Event()
    written = []
    original = eight_bit.write_shard

    def write(checkpoint, shard, *rest):
        if len(written) == 2:
            stop.set()
        digest = original(checkpoint, shard, *rest)
        written.append(shard.name)
        return digest

    monkeypatch.setattr(eight_bit, "write_shard", write)
    with pytest.raises(StopRequested):
        make(source, folder, stop)
    assert written == sorted(contents(folder)), "the one that was begun is gone"
    make(source, folder)
    assert len(written) == len(set(written)) == FILES


def test_a_finished_folder_is_left_unchanged(source, made):
    times = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    make(source, made)
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == times


def test_a_copy_with_other_times_is_verified_and_kept(source, made):
    for path in made.iterdir():
        os.utime(path, (1, 1))
    assert conversion_state(made, source) == "incomplete"
    make(source, made)
    assert conversion_state(made, source) == "complete"
    assert all(path.stat().st_mtime == 1 for path in made.glob("*.safetensors"))


THIRD = "diffusion_pytorch_model-00003-of-00008.safetensors"


def damage(path, harm):
    """Flip a bit, without or with another time, cut the file short, or delete it."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if harm != "gone":
        path.write_bytes(content[: len(content) // 2] if harm == "cut short" else content)
    if harm == "one bit, the same time":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", [THIRD, CONFIG, INDEX])
@pytest.mark.parametrize("harm", ["one bit", "one bit, the same time", "cut short", "gone"])
def test_a_damaged_file_is_detected_and_repaired(source, made, finished, name, harm):
    damage(made / name, harm)
    assert conversion_state(made, source) == ("complete" if "same time" in harm else "incomplete")
    make(source, made)
    assert conversion_state(made, source) == "complete"
    assert contents(made) == contents(finished)


def test_corrupt_shards_are_found_and_removed(source, made, finished):
    assert not remove_corrupt_shards(made)
    damage(made / THIRD, "one bit, the same time")
    assert remove_corrupt_shards(made)
    assert conversion_state(made, source) == "incomplete"
    assert contents(made).keys() == contents(finished).keys() - {THIRD}
    assert not remove_corrupt_shards(made.parent / "nowhere")


def test_a_damaged_manifest_counts_as_missing(source, made, finished):
    damage(made / MANIFEST, "one bit")
    assert conversion_state(made, source) == "missing"
    make(source, made)
    assert conversion_state(made, source) == "complete"
    assert contents(made) == contents(finished)


# -- which source they belong to ----------------------------------------------------------------------


@pytest.fixture
def models(tmp_path, finished):
    """The tiny models with the 8-bit transformer beside them."""
    root = tmp_path / "models"
    shutil.copytree(MODELS, root)
    shutil.copytree(finished, eight_bit_folder(root))
    return root


def test_only_the_transformer_differs_in_the_8_bit_set(models):
    files = find_models(models)
    small = with_eight_bit(files, models)
    assert small.transformer.folder == models / f"{FRAMEPACK}-8bit"
    assert files.transformer.folder == models / FRAMEPACK
    assert dataclasses.replace(small, transformer=files.transformer) == files
    assert models_identity(small) != models_identity(files)


def test_8_bit_weights_of_another_source_are_not_used(models):
    shard = models / LAST_SHARD
    weights = load_file(shard)
    weights["proj_out.bias"] += 1
    save_file(weights, shard)
    files = find_models(models)
    assert conversion_state(eight_bit_folder(models), files.transformer) == "stale"
    with pytest.raises(InputError) as caught:
        with_eight_bit(files, models)
    assert caught.value.code == "eight_bit_not_ready"
    make(files.transformer, eight_bit_folder(models))
    small = with_eight_bit(files, models).transformer
    assert torch.equal(tensors_of(small.folder)["proj_out.bias"], weights["proj_out.bias"])


def test_a_change_anywhere_in_the_source_is_detected(models):
    """A job's fingerprint reads samples of large files only; this also compares their times."""
    shard = models / LAST_SHARD
    content = bytearray(shard.read_bytes())
    assert conversion_state(eight_bit_folder(models), find_models(models).transformer) == "complete"
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    assert conversion_state(eight_bit_folder(models), find_models(models).transformer) == "stale"


def test_without_a_conversion_nothing_is_used():
    with pytest.raises(InputError) as caught:
        with_eight_bit(find_models(MODELS), MODELS)
    assert caught.value.code == "eight_bit_not_ready"


# -- how they run ------------------------------------------------------------------------------------


def loader_of(files, limit=None):
    return ModelLoader(files, dataclasses.replace(choose_compute("cpu"), memory_limit=limit))


def write_dequantized(models, target):
    """Write the models with the 8-bit weights dequantized to float32, in the usual files."""
    shutil.copytree(models, target)
    folder, tensors = target / FRAMEPACK, tensors_of(eight_bit_folder(models))
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        for name in weights:
            scale = tensors.get(f"{name.removesuffix('weight')}scale")
            if scale is not None:
                weights[name] = tensors[name].float() * scale[:, None]
        save_file(weights, path)
    return target


def predicted(files, limit=None):
    """Return the prediction of one step from random latents."""
    torch.manual_seed(0)
    prompt = PromptEmbeds(torch.randn(1, 512, 64), torch.arange(512)[None] < 40, torch.randn(1, 32))
    latents, image = torch.randn(1, 16, 20, 8, 12), torch.randn(1, 16, 48)
    history = (latents[:, :, :2], latents[:, :, 2:4], latents[:, :, 4:])
    inputs = SectionInputs(prompt, None, image, *history, section_positions(3, 5))
    x, sigma = torch.randn(1, 16, 5, 8, 12), torch.tensor(0.7)
    loader = loader_of(files, limit)
    with loader.transformer(500) as transformer:
        denoiser = SectionDenoiser(transformer, inputs, Guidance(10.0), loader.compute, sigma[None])
        return denoiser.predict(x, sigma)


@pytest.mark.parametrize("limit", [None, 10_000_000, 0], ids=["resident", "some", "streamed"])
def test_a_step_equals_that_of_dequantized_weights_to_the_bit(models, tmp_path, limit):
    whole = find_models(write_dequantized(models, tmp_path / "whole"))
    found = predicted(with_eight_bit(find_models(models), models), limit)
    assert torch.equal(found, predicted(whole))
    assert not torch.equal(found, predicted(find_models(models)))


def test_a_video_is_made_with_8_bit_weights(models, tmp_path):
    small = with_eight_bit(find_models(models), models)
    list(run(make_request(), tmp_path / "out", loader=loader_of(small, 0)))
    assert (tmp_path / "out" / "a.mp4").exists()


def products_of(layers):
    """The products of the scaled layers in streamed layers."""
    return {
        layer.product
        for _index, block in layers
        for layer in block.modules()
        if isinstance(layer, scaled_linear.ScaledLinear)
    }


def test_half_the_bytes_are_streamed_and_layers_use_the_best_product(models, monkeypatch):
    monkeypatch.setattr(scaled_linear, "choose_product", lambda *_, **__: rowwise_fp8_linear)
    files = find_models(models)
    with loader_of(files, 0).transformer(500) as large:
        size = sum(layer.num_bytes for layer in large.stack.layers.layers)
    with loader_of(with_eight_bit(files, models), 0).transformer(500) as small:
        assert sum(layer.num_bytes for layer in small.stack.layers.layers) < 0.3 * size  # float32 here
        assert products_of(small.stack.layers) == {rowwise_fp8_linear}
        with small.stack.table._linears as linears:
            assert products_of(linears) == {dequantized_product}


def test_fp8_products_give_nearly_the_same_step(models, monkeypatch):
    small = with_eight_bit(find_models(models), models)
    whole = predicted(small)
    monkeypatch.setattr(scaled_linear, "choose_product", lambda *_, **__: rowwise_fp8_linear)
    fast = predicted(small)
    assert not torch.equal(fast, whole)
    assert float((fast - whole).norm() / whole.norm()) < 0.05


def test_a_missing_scale_is_an_error_before_the_work(models):
    files = with_eight_bit(find_models(models), models)
    tensors = dict(files.transformer.checkpoint.tensors)
    del tensors["transformer_blocks.0.attn.to_q.scale"]
    checkpoint = Checkpoint(files.transformer.folder, tensors, files.transformer.checkpoint.signatures)
    broken = dataclasses.replace(
        files, transformer=dataclasses.replace(files.transformer, checkpoint=checkpoint)
    )
    loader_of(files).verify()
    with pytest.raises(InputError) as caught:
        loader_of(broken).verify()
    assert caught.value.code == "weights_missing"
