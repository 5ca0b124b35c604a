"""Models built from their files, and freed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_helper.device import Compute, choose_compute
from diffusers_helper.errors import EngineError, InputError, MachineError
from diffusers_helper.models.architectures import build_empty
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.weights.filling import match_tensors
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import MODELS, VAE_FILE, make_loader

VISION = Path("lllyasviel/flux_redux_bfl/image_encoder")
TEXT = Path("hunyuanvideo-community/HunyuanVideo/text_encoder")
TEXT_2 = Path("hunyuanvideo-community/HunyuanVideo/text_encoder_2")
NAMES = ("text_encoder_2", "image_encoder", "vae")


@pytest.mark.parametrize("name", NAMES)
def test_model_has_weights_inside_its_block_only(name):
    with pytest.raises(RuntimeError, match="inside"), getattr(make_loader(), name)() as model:
        assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
        assert not model.training
        raise RuntimeError("inside")
    assert all(tensor.is_meta for tensor in model.parameters())


def test_streamed_model_leaves_no_weight_behind():
    loader = make_loader()
    with loader.transformer(tokens=500) as transformer:
        layers = transformer.stack.layers
        assert layers.num_resident == len(layers.layers)  # there is plenty of memory here
        assert not any(tensor.is_meta for tensor in transformer.model.parameters())
    assert layers.num_resident == 0
    assert all(tensor.is_meta for tensor in transformer.model.parameters())


def test_weights_have_their_dtype_and_the_projection_its_own():
    half = Compute(torch.device("cpu"), torch.float16, torch.bfloat16)
    loader = ModelLoader(find_models(MODELS), half)
    with loader.transformer(tokens=500) as transformer:
        dtypes = {name: tensor.dtype for name, tensor in transformer.model.named_parameters()}
        blocks = {p.dtype for _, block in transformer.stack.layers for p in block.parameters()}
    others = {name for name, dtype in dtypes.items() if dtype != torch.bfloat16}
    assert others == {"proj_out.weight", "proj_out.bias"}
    assert blocks == {torch.bfloat16}


def test_text_encoder_has_the_rotary_frequencies_of_its_rounded_original():
    """FramePack converts the whole encoder, its frequencies among it, to float16."""
    half = Compute(torch.device("cpu"), torch.float16, torch.bfloat16)
    found = []
    for compute in (half, choose_compute("cpu")):
        with ModelLoader(find_models(MODELS), compute).text_encoder() as model:
            found.append(model.rotary_emb.inv_freq)
    assert torch.equal(found[0], found[1].half().float())
    assert not torch.equal(*found)


def test_a_cache_that_cannot_be_made_is_no_fault_of_the_config():
    part = find_models(MODELS).vae
    with pytest.raises(NotADirectoryError):
        build_empty(part, Mock(side_effect=NotADirectoryError))


def test_a_machine_without_temporary_files_is_no_fault_of_the_config(monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", Mock(side_effect=FileNotFoundError("none is usable")))
    with pytest.raises(MachineError, match="no_temporary_folder"):
        make_loader().verify()


def test_text_encoder_without_last_layers_gives_the_same_bits():
    from transformers import LlamaModel

    ids = torch.arange(20)[None]
    whole = LlamaModel.from_pretrained(MODELS / TEXT, dtype=torch.float32)
    for parameter in whole.parameters():
        parameter.data = parameter.data.clone()  # aligned: the CPU's kernels round otherwise where it is not
    with torch.inference_mode(), make_loader().text_encoder() as model:
        wanted = whole(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-3]
        assert torch.equal(model(input_ids=ids, use_cache=False).last_hidden_state, wanted)


@pytest.mark.parametrize(
    ("part", "prefix"), [(VISION, "vision_model."), (TEXT_2, "text_model."), (TEXT, "model.")]
)
def test_older_names_of_tensors_are_understood(tmp_path, part, prefix):
    shutil.copytree(MODELS, tmp_path / "models")
    folder = tmp_path / "models" / part
    for file in folder.glob("*.safetensors"):
        save_file({prefix + name: tensor for name, tensor in load_file(file).items()}, file)
    for index in folder.glob("*.index.json"):
        values = json.loads(index.read_text())
        values["weight_map"] = {prefix + name: file for name, file in values["weight_map"].items()}
        index.write_text(json.dumps(values))
    make_loader(tmp_path / "models").verify()


def test_models_are_verified_once(monkeypatch):
    loader = make_loader()
    first = loader.verify()
    monkeypatch.setattr("diffusers_helper.models.loading.build_empty", None)
    assert loader.verify() is first


def test_missing_tensor_is_refused():
    files = find_models(MODELS)
    module = torch.nn.Linear(2, 2)
    with pytest.raises(InputError) as caught:
        match_tensors(module, files.vae.checkpoint)
    assert caught.value.values["tensor"] == "weight"


def replace(path):
    shutil.copyfile(path, other := path.with_name("other"))  # as long, and with the same names
    os.utime(other, (1, 1))
    other.replace(path)


@pytest.mark.parametrize(
    ("change", "code"), [(replace, "model_file_changed"), (Path.unlink, "model_file_unreadable")]
)
def test_weights_changed_since_the_check_are_refused(tmp_path, change, code):
    models = shutil.copytree(MODELS, tmp_path / "models")
    loader = make_loader(models)
    change(models / VAE_FILE)
    with pytest.raises(EngineError, match=code), loader.vae():
        pass


LOAD_LARGE = """
import os, pathlib, sys
import torch
from diffusers_helper.weights.checkpoint import Checkpoint
from diffusers_helper.weights.filling import fill
from tests.support.process_memory import highest, resident

checkpoint = Checkpoint.open(pathlib.Path(sys.argv[1]))
with torch.device("meta"):
    module = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(24)))
before = resident(os.getpid())
fill(module, checkpoint, torch.device("cpu"), torch.float32)
print(highest(os.getpid()) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own figures")
def test_model_is_never_in_memory_twice(tmp_path):
    weights = {f"{i}.weight": torch.zeros(2048, 2048, dtype=torch.bfloat16) for i in range(24)}
    save_file(weights, tmp_path / "model.safetensors")
    size = 24 * 2048 * 2048 * 4
    run = subprocess.run(
        [sys.executable, "-c", LOAD_LARGE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert size * 0.9 < int(run.stdout) < size * 1.25
