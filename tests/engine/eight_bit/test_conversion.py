"""8-bit weights converted from the tiny models: content, interruption and repair, and how they run."""

import dataclasses
import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_helper import machine_errors
from diffusers_helper.device import choose_compute
from diffusers_helper.eight_bit import conversion, linear, shards
from diffusers_helper.eight_bit.conversion import convert, remove_corrupt_shards, with_eight_bit
from diffusers_helper.eight_bit.folder import (
    CONFIG,
    INDEX,
    MANIFEST,
    SPARE_BYTES,
    eight_bit_folder,
    is_converted,
)
from diffusers_helper.eight_bit.linear import ScaledLinear, int8_product
from diffusers_helper.eight_bit.tokens import rotate
from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.job.fingerprint import models_identity
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.sampling.denoiser import SectionDenoiser
from diffusers_helper.weights.model_files import FRAMEPACK, find_models
from tests.support.tiny import LAST_SHARD, copy_models, random_step

FILES = 8
FLUSHES = 2 * (2 * FILES + 5)
"""The flushes of all files and their folder: the weights, the small ones, and the manifest after each."""


class Killed(BaseException):
    """The process ends here."""


def make(source, target):
    """Convert; return the reported progress."""
    return list(convert(source, target))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def tensors_of(folder):
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


# -- what is made ------------------------------------------------------------------------------------


def test_linear_layers_of_blocks_are_quantized_the_rest_is_copied(source, converted):
    old, new = tensors_of(source.folder), tensors_of(converted)
    scaled = {name for name in old if f"{name.removesuffix('weight')}scale" in new}
    assert scaled == {
        name
        for name, tensor in old.items()
        if "transformer_blocks." in name and ".norm" not in name and tensor.ndim == 2
    }
    assert set(new) == set(old) | {f"{name.removesuffix('weight')}scale" for name in scaled}
    for name, weight in old.items():
        if name not in scaled:
            assert new[name].dtype == weight.dtype
            assert torch.equal(new[name], weight)
            continue
        numbers, scale = new[name], new[f"{name.removesuffix('weight')}scale"][:, None].double()
        assert numbers.dtype == torch.int8
        assert ((numbers.double() * scale - rotate(weight.double())).abs() <= 0.5001 * scale).all()


def test_the_folder_is_a_model_in_the_usual_layout(source, converted):
    assert json.loads((converted / CONFIG).read_text()) == source.config
    weight_map = json.loads((converted / INDEX).read_text())["weight_map"]
    for path in converted.glob("*.safetensors"):
        assert set(load_file(path)) == {name for name, file in weight_map.items() if file == path.name}
    assert len(set(weight_map.values())) == FILES
    assert {path.name for path in converted.iterdir()} == {CONFIG, INDEX, MANIFEST, *weight_map.values()}


def test_smaller_chunks_give_the_same_bytes_and_progress_is_reported(source, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK_BYTES", 100_000)
    reported, total = make(source, tmp_path / "new"), sum(t.nbytes for t in tensors_of(finished).values())
    assert contents(tmp_path / "new") == contents(finished)
    assert reported == sorted(reported)
    assert (reported[0], reported[-1]) == ((0, total), (total, total))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    models = copy_models(
        tmp_path / "models", LAST_SHARD, single_transformer_blocks__2__proj_out__weight=value
    )
    with pytest.raises(InputError, match="weights_not_finite") as caught:
        make(find_models(models).transformer, tmp_path / "new")
    assert caught.value.values["tensor"] == "single_transformer_blocks.2.proj_out.weight"
    assert not list((tmp_path / "new").glob("*.part"))


def test_a_disk_too_small_is_an_error_before_the_work(source, converted, tmp_path, monkeypatch):
    free = sum(path.stat().st_size for path in converted.iterdir()) + SPARE_BYTES - 50_000
    monkeypatch.setattr(machine_errors.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(MachineError, match=r"^disk_too_small"):
        make(source, tmp_path / "new")
    assert contents(tmp_path / "new") == {}
    min(converted.glob("*.safetensors")).unlink()
    make(source, converted)  # what is there already needs no room


def test_a_disk_that_returns_other_bytes_is_an_error(source, tmp_path, monkeypatch):
    def save_damaged(tensors, path):
        save_file(tensors, path)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(shards, "save_file", save_damaged)
    with pytest.raises(MachineError, match="eight_bit_written_wrong"):
        make(source, tmp_path / "new")
    assert contents(tmp_path / "new") == {}


# -- interrupted and continued ------------------------------------------------------------------------


QUICK = (0, FLUSHES // 2, FLUSHES - 2)


@pytest.mark.parametrize(
    "left", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in range(FLUSHES - 1)]
)
def test_killed_before_any_write_it_continues_to_the_same_end(source, finished, tmp_path, monkeypatch, left):
    """Each file is flushed before it gets its name: the process ends at one of these moments."""
    folder, flush = tmp_path / "new", os.fsync

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
    assert not is_converted(folder, source)
    (folder / "diffusion_pytorch_model-00001-of-00008.safetensors.part").write_bytes(b"half of it")
    make(source, folder)
    assert is_converted(folder, source)
    assert contents(folder) == contents(finished)


def test_finished_files_are_not_written_again(source, tmp_path, monkeypatch):
    folder, written, original = tmp_path / "new", [], conversion.write_shard

    def write(checkpoint, shard, path, device):
        digest = yield from original(checkpoint, shard, path, device)
        written.append(shard.name)
        return digest

    monkeypatch.setattr(conversion, "write_shard", write)
    progress = convert(source, folder)
    while len(written) < 2:
        next(progress)
    progress.close()
    assert written == sorted(contents(folder)), "the one that was begun is gone"
    make(source, folder)
    assert len(written) == len(set(written)) == FILES


def test_a_copy_with_other_times_is_verified_and_kept(source, converted):
    for path in converted.iterdir():
        os.utime(path, (1, 1))
    assert not is_converted(converted, source)
    make(source, converted)
    assert is_converted(converted, source)
    assert all(path.stat().st_mtime == 1 for path in converted.glob("*.safetensors"))


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


@pytest.mark.parametrize("name", [THIRD, CONFIG, INDEX, MANIFEST])
@pytest.mark.parametrize("harm", ["one bit", "one bit, the same time", "cut short", "gone"])
def test_a_damaged_file_is_detected_and_repaired(source, converted, finished, name, harm):
    damage(converted / name, harm)
    assert is_converted(converted, source) is ("same time" in harm and name != MANIFEST)
    make(source, converted)
    assert is_converted(converted, source)
    assert contents(converted) == contents(finished)


def test_corrupt_shards_are_found_and_removed(source, converted, finished):
    assert not remove_corrupt_shards(converted)
    damage(converted / THIRD, "one bit, the same time")
    assert remove_corrupt_shards(converted)
    assert not is_converted(converted, source)
    assert contents(converted).keys() == contents(finished).keys() - {THIRD}
    assert not remove_corrupt_shards(converted.parent / "nowhere")


# -- which source they belong to ----------------------------------------------------------------------


@pytest.fixture
def small(models, converted):  # noqa: ARG001
    """The tiny models with the 8-bit transformer."""
    return with_eight_bit(find_models(models), models)


def test_only_the_transformer_differs_in_the_8_bit_set(models, small):
    files = find_models(models)
    assert small.transformer.folder == models / f"{FRAMEPACK}-8bit"
    assert files.transformer.folder == models / FRAMEPACK
    assert dataclasses.replace(small, transformer=files.transformer) == files
    assert models_identity(small) != models_identity(files)


def test_8_bit_weights_of_another_source_are_not_used(models, converted):
    shard, before = models / LAST_SHARD, (models / LAST_SHARD).stat()
    os.utime(shard, (1, 1))  # where the fingerprint of a large file does not notice a change
    assert not is_converted(converted, find_models(models).transformer)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert is_converted(converted, find_models(models).transformer)
    weights = load_file(shard)
    weights["proj_out.bias"] += 1
    save_file(weights, shard)
    files = find_models(models)
    with pytest.raises(InputError, match="eight_bit_not_ready"):
        with_eight_bit(files, models)
    make(files.transformer, converted)
    small = with_eight_bit(files, models).transformer
    assert torch.equal(tensors_of(small.folder)["proj_out.bias"], weights["proj_out.bias"])


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
                weights[name] = rotate(tensors[name].float()) * scale[:, None]
        save_file(weights, path)
    return target


def predicted(files, limit=None):
    """Return the prediction of one step from random latents."""
    (inputs, x), sigma = random_step(), torch.tensor(0.7)
    loader = loader_of(files, limit)
    with loader.transformer(500) as transformer:
        denoiser = SectionDenoiser(transformer, inputs, loader.compute, sigma[None])
        return denoiser.predict(x, sigma)


@pytest.mark.parametrize("limit", [None, 10_000_000, 0], ids=["resident", "some", "streamed"])
def test_a_step_equals_that_of_dequantized_weights_to_the_bit(models, small, tmp_path, limit):
    whole = find_models(write_dequantized(models, tmp_path / "whole"))
    found = predicted(small, limit)
    assert torch.equal(found, predicted(whole))
    assert not torch.equal(found, predicted(find_models(models)))


def products_of(layers):
    """The products of the scaled layers in streamed layers."""
    modules = (layer for _index, block in layers for layer in block.modules())
    return {layer.product for layer in modules if isinstance(layer, ScaledLinear)}


def test_half_the_bytes_are_streamed_and_layers_use_the_best_product(models, small, monkeypatch):
    monkeypatch.setattr(linear, "choose_product", lambda *_: int8_product)
    with loader_of(find_models(models), 0).transformer(500) as large:
        size = sum(layer.num_bytes for layer in large.stack.layers.layers)
    with loader_of(small, 0).transformer(500) as transformer:
        layers = transformer.stack.layers
        assert sum(layer.num_bytes for layer in layers.layers) < 0.3 * size  # float32 here
        assert products_of(layers) == {int8_product}
        with transformer.stack.table._linears as linears:
            assert products_of(linears) == set(), "the modulation keeps its weights"


def test_int8_products_give_nearly_the_same_step(small, monkeypatch):
    whole = predicted(small)
    monkeypatch.setattr(linear, "choose_product", lambda *_: int8_product)
    fast = predicted(small)
    assert not torch.equal(fast, whole)
    assert float((fast - whole).norm() / whole.norm()) < 0.05
