"""Missing, damaged and foreign files of models are refused by their names."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_helper.errors import InputError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN
from tests.support.tiny import MODELS, VAE_FILE, make_loader

SHARD = f"{FRAMEPACK}/diffusion_pytorch_model-00004-of-00006.safetensors"
INDEX = f"{FRAMEPACK}/diffusion_pytorch_model.safetensors.index.json"
PROCESSOR = f"{FLUX_REDUX}/feature_extractor/preprocessor_config.json"
LLAMA, CLIP, SIGLIP, VAE, TRANSFORMER = (
    f"{part}/config.json"
    for part in (
        *(f"{HUNYUAN}/text_encoder", f"{HUNYUAN}/text_encoder_2", f"{FLUX_REDUX}/image_encoder"),
        *(f"{HUNYUAN}/vae", FRAMEPACK),
    )
)


@pytest.fixture
def models(tmp_path) -> Path:
    return shutil.copytree(MODELS, tmp_path / "models")


def refusal(models: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        make_loader(models).verify()
    return caught.value


def test_a_folder_without_models_is_refused(models):
    for folder, code in (
        (models / "nowhere", "models_folder_missing"),
        (models / LLAMA, "models_folder_missing"),
        (models / ("a" * 300), "model_file_unreadable"),
    ):
        error = refusal(folder)
        assert (error.code, error.values["path"]) == (code, str(folder))
    for repository in (FRAMEPACK, FLUX_REDUX, HUNYUAN):
        shutil.rmtree(models / repository)
        error = refusal(models)
        assert (error.code, error.values["repository"]) == ("model_missing", repository)


@pytest.mark.parametrize(
    "file",
    [
        *(f"{HUNYUAN}/text_encoder/model-00003-of-00008.safetensors", LLAMA, VAE, INDEX, PROCESSOR),
        *(f"{HUNYUAN}/tokenizer/tokenizer.json", f"{HUNYUAN}/tokenizer/tokenizer_config.json"),
        f"{HUNYUAN}/tokenizer_2/tokenizer.json",
    ],
)
def test_a_missing_file_is_named(models, file):
    (models / file).unlink()
    error = refusal(models)
    assert (error.code, error.values["path"]) == ("model_file_missing", str(models / file))


def test_weights_of_one_file_and_half_a_tokenizer_are_named(models):
    tokenizer = models / HUNYUAN / "tokenizer_2"
    (models / VAE_FILE).unlink()
    assert refusal(models).values["path"] == str((models / VAE_FILE).with_name("*.safetensors"))
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text("{}")
    assert refusal(models).values["path"] == str(tokenizer / "merges.txt")


@pytest.mark.parametrize("kept", [-1, 5000, 100, 4, 0])
def test_weights_cut_short_are_named(models, kept):
    whole = (models / SHARD).read_bytes()
    (models / SHARD).write_bytes(whole[:kept])
    error = refusal(models)
    assert error.values["path"] == str(models / SHARD)
    if kept < 0:
        assert error.code == "model_file_cut_short"
        assert (error.values["size"], error.values["expected"]) == (len(whole) + kept, len(whole))


def weights_file(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(4)


HEADERS = [b"[]", b"null", b"[" * 40_000, b'{"a": {}}', b'{"a": [1]}']
HEADERS += [
    json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    for dtype, shape, offsets in (
        ("F32", [2], [0, 4]),
        ("F32", [-1, -2], [0, 8]),
        ("F32", [1.0], [0, 4]),
        ("F32", [1], [0.0, 4.0]),
        ("F32", [float("inf")], [0, 4]),
        ("F32", ["1"], [0, 4]),
        ("F32", 1, [0, 4]),
        ("F32", [1], [-4, 0]),
        ("F32", [1], [0, 4, 8]),
        ("X9", [1], [0, 4]),
        (["F32"], [1], [0, 4]),
    )
]
NO_JSON = [b"", b"<html>", b"[]", b"[" * 40_000, b'{"a": ', b"\xff\xfe"]
BROKEN: dict[str, list[bytes]] = {
    VAE_FILE: [b"<!DOCTYPE html><html><body>503</body></html>", *map(weights_file, HEADERS)],
    INDEX: [b"", b"[]", b"null", b"{}", b'{"weight_map": []}', b'{"weight_map": {"a": 5}}'],
    VAE: NO_JSON,
    TRANSFORMER: NO_JSON,
    PROCESSOR: [b"", b"[]"],
}


@pytest.mark.parametrize("file", BROKEN)
def test_a_broken_file_is_named(models, file):
    for content in BROKEN[file]:
        (models / file).write_bytes(content)
        error = refusal(models)
        assert (error.code, error.values["path"]) == ("model_file_broken", str(models / file)), content[:99]


@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "scale_weight", "SCB"])
def test_eight_bit_weights_of_another_program_are_refused(models, scale):
    save_file(load_file(path := models / VAE_FILE) | {f"encoder.conv_in.conv.{scale}": torch.ones(1)}, path)
    error = refusal(models)
    assert (error.code, error.values["path"]) == ("weights_scaled", str(path))


def test_an_index_cannot_name_files_elsewhere(models):
    (models / INDEX).write_text('{"weight_map": {"a": "../../outside.safetensors"}}')
    (models / "outside.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert refusal(models).values["path"] == str(models / FRAMEPACK / "outside.safetensors")


VALUE, REFUSED, SHAPE, FIT = (
    *("model_config_value", "model_config_refused", "weights_shape", "models_do_not_fit"),
)
ENDLESS, NAMELESS = 10**12, "no_such_thing"
UNUSABLE: list[tuple[str, str, list[dict[str, Any]]]] = [
    (LLAMA, "model_foreign", [{"architectures": ["GPT2Model"]}, {"architectures": [["LlamaModel"]]}]),
    (CLIP, "model_foreign", [{"architectures": None}]),
    (VAE, "model_foreign", [{"_class_name": "AutoencoderKL"}]),
    (SIGLIP, "model_foreign", [{"architectures": ["CLIPVisionModel"]}]),
    (TRANSFORMER, "model_foreign", [{"_class_name": {}}]),
    (LLAMA, FIT, [{"hidden_size": 128}]),
    (VAE, FIT, [{"latent_channels": 4}]),
    (LLAMA, VALUE, [{"num_hidden_layers": number} for number in ("many", 1, ENDLESS)]),
    (CLIP, VALUE, [{"num_hidden_layers": -1}]),
    (VAE, VALUE, [{"layers_per_block": ENDLESS}, {"scaling_factor": "high"}]),
    (TRANSFORMER, VALUE, [{"num_layers": number} for number in (20, 0, ENDLESS)]),
    (TRANSFORMER, VALUE, [{"num_single_layers": number} for number in (2, -3)]),
    (TRANSFORMER, VALUE, [{"rope_axes_dim": axes} for axes in ([8, 12], None)]),
    (PROCESSOR, VALUE, [{"size": size} for size in ("large", None, {"height": 384, "width": 384})]),
    (PROCESSOR, VALUE, [{"size": {"shortest_edge": 64}}]),
    (LLAMA, SHAPE, [{"intermediate_size": 256}, {"vocab_size": 128_320}]),
    (SIGLIP, SHAPE, [{"intermediate_size": 4304}]),
    (TRANSFORMER, SHAPE, [{"num_attention_heads": 24}, {"has_image_proj": False, "out_channels": 8}]),
    (LLAMA, REFUSED, [{"num_attention_heads": 0}, {"num_attention_heads": None}]),
    (LLAMA, REFUSED, [{"hidden_act": NAMELESS}, {"rope_parameters": NAMELESS}]),
    (LLAMA, REFUSED, [{"rope_parameters": {"rope_type": NAMELESS}}]),
    (LLAMA, REFUSED, [{"vocab_size": -5}, {"intermediate_size": 10**30}]),
    (CLIP, REFUSED, [{"num_attention_heads": 7}]),
    (SIGLIP, REFUSED, [{"patch_size": 0}, {"num_channels": [3]}]),
    (VAE, SHAPE, [{"block_out_channels": [128, 256, 512, 512]}]),
    (VAE, REFUSED, [{"block_out_channels": []}, {"norm_num_groups": 5}]),
    (VAE, VALUE, [{"down_block_types": [NAMELESS] * 4}, {"up_block_types": []}, {"norm_num_groups": -4}]),
    (VAE, VALUE, [{"spatial_compression_ratio": 4}, {"temporal_compression_ratio": 8}]),
    (TRANSFORMER, REFUSED, [{"attention_head_dim": "wide"}, {"patch_size": 0}, {"qk_norm": NAMELESS}]),
]
"""Files of settings, the error's code, and changes that cause it."""


@pytest.mark.parametrize(("file", "code", "changes"), UNUSABLE)
def test_unusable_settings_are_named(models, file, code, changes):
    known = json.loads((models / file).read_text())
    for change in changes:
        (models / file).write_text(json.dumps(known | change))
        error = refusal(models)
        assert error.code == code, change
        named = models / file if code != SHAPE else (models / file).parent
        assert error.values["path"] == str(named)
        assert code not in (VALUE, FIT) or error.values["field"] in change
        reason = str(error.values.get("reason", ""))
        assert ". " not in reason, "it stands inside a sentence"
        assert not reason.endswith(".")


def test_models_that_do_not_fit_are_named_by_what_the_transformer_needs(models):
    known = json.loads((models / TRANSFORMER).read_text())
    (models / TRANSFORMER).write_text(json.dumps(known | {"image_proj_dim": 1152}))
    error = refusal(models)
    assert (error.code, error.values["expected"]) == (FIT, 1152)
    assert error.values["path"] == str(models / SIGLIP)
