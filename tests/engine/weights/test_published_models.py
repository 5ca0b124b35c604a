"""The repositories as published: names, numbers of files, sizes and configs, without a byte of weights."""

import json
import math
import shutil
import struct

import pytest
import torch

from benchmarks.random_weights import MODELS
from diffusers_helper.device import choose_compute
from diffusers_helper.eight_bit.folder import room_for_eight_bit
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.weights.model_files import PARTS, find_models
from tests.support import tiny

FILES = {  # the file's name, its shards, what comes before a tensor's name, dtype, gigabytes
    "text_encoder": ("model", 4, "", "F16", 15.01),
    "text_encoder_2": ("model", 1, "text_model.", "F16", 0.25),
    "vae": ("diffusion_pytorch_model", 1, "", "F32", 0.99),
    "image_encoder": ("model", 1, "vision_model.", "BF16", 0.83),
    "transformer": ("diffusion_pytorch_model", 3, "", "BF16", 25.75),
}
EXTRAS = {  # tensors that are not read
    "text_encoder": {"norm.weight": (4096,)},
    "image_encoder": {"vision_model.head.probe": (1, 1, 1152), "vision_model.head.mlp.fc1.bias": (4304,)},
}
CONFIG = {"_name_or_path": "x", "torch_dtype": "bfloat16", "transformers_version": "4.46.2"}


def write_sparse(path, shapes, dtype):
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)
    return end


def write_part(root, name):
    """Write a part; return its gigabytes."""
    (file, count, prefix, dtype, _), (config, make, _), spec = FILES[name], MODELS[name], PARTS[name]
    folder = root / spec.repository / spec.folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    with torch.device("meta"):
        tensors = make(dict(config)).state_dict()
    shapes = {prefix + key: tuple(tensor.shape) for key, tensor in tensors.items()} | EXTRAS.get(name, {})
    names, size, weight_map = sorted(shapes), 0, {}
    for number in range(count):
        shard = names[number * len(names) // count : (number + 1) * len(names) // count]
        ending = f"-{number + 1:05}-of-{count:05}" * (count > 1)
        size += write_sparse(folder / f"{file}{ending}.safetensors", {n: shapes[n] for n in shard}, dtype)
        weight_map |= dict.fromkeys(shard, f"{file}{ending}.safetensors")
    if count > 1:
        (folder / f"{file}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    if spec.processor is not None:
        processor = f"{spec.repository}/{spec.processor}"
        shutil.copytree(tiny.MODELS / processor, root / processor)
    return size / 1e9


@pytest.mark.slow
def test_the_published_repositories_are_found_and_fit(tmp_path):
    assert {name: round(write_part(tmp_path, name), 2) for name in FILES} == {
        name: gigabytes for name, (*_, gigabytes) in FILES.items()
    }
    path = tmp_path / PARTS["image_encoder"].repository / "feature_extractor" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"height": 384, "width": 384}}))
    files = find_models(tmp_path)
    ModelLoader(files, choose_compute("cpu")).verify()
    assert round(room_for_eight_bit(files.transformer, (tmp_path,))[1] / 1e9) == 17  # as the page says
