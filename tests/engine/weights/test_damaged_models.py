"""Missing, damaged and foreign files of models are refused by their names."""

import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_helper.errors import InputError
from diffusers_helper.models.settings import check_settings
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN, find_models
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


CHANGED: list[tuple[str, dict[str, Any]]] = [
    (LLAMA, {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
    (LLAMA, {"rope_parameters": {"rope_theta": 10_000.0, "rope_type": "linear", "factor": 2.0}}),
    *((LLAMA, {key: value}) for key, value in (("rms_norm_eps", 1e-3), ("hidden_act", "gelu"))),
    *((CLIP, {key: value}) for key, value in (("num_attention_heads", 1), ("layer_norm_eps", 1e-6))),
    *((CLIP, {key: value}) for key, value in (("hidden_act", "gelu"), ("eos_token_id", 5))),
    *((SIGLIP, {key: value}) for key, value in (("num_attention_heads", 4), ("hidden_act", "relu"))),
    (VAE, {"act_fn": "gelu"}),
    (VAE, {"norm_num_groups": 8}),
    *(
        (TRANSFORMER, {key: value})
        for key, value in (("rope_theta", 10_000.0), ("rope_axes_dim", [12, 12, 8]))
    ),
    *((TRANSFORMER, {key: value}) for key, value in (("patch_size_t", True), ("guidance_embeds", False))),
    (PROCESSOR, {"image_mean": [0.48, 0.46, 0.41]}),
    *((PROCESSOR, {key: False}) for key in ("do_resize", "do_rescale", "do_normalize", "rescale_factor")),
]
"""Settings that fit the weights and make other numbers: of another model's config."""


@pytest.mark.parametrize(("file", "change"), CHANGED)
def test_settings_of_another_model_are_named(models, file, change):
    known = json.loads((models / file).read_text())
    (models / file).write_text(json.dumps(known | change))
    error = refusal(models)
    if error.code != REFUSED:  # the library's own refusal
        assert (error.code, error.values["path"]) == (VALUE, str(models / file))


class AutoencoderKLHunyuanVideo(torch.nn.Module):
    """The published VAE as far as its settings go."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        published = {"block_out_channels": (128, 256, 512, 512), "norm_num_groups": 32, "act_fn": "silu"}
        published |= {"latent_channels": 16, "in_channels": 3, "out_channels": 3}
        published |= {"scaling_factor": 0.476986, "mid_block_add_attention": True}
        self.config = SimpleNamespace(**published | changes)


@pytest.mark.parametrize("change", [{}, {"scaling_factor": 0.5}, {"mid_block_add_attention": False}])
def test_the_published_vae_has_settings_that_trained_ones_have_not(change):
    part = find_models(MODELS).vae
    if not change:
        return check_settings(part, AutoencoderKLHunyuanVideo())
    with pytest.raises(InputError, match=VALUE):
        check_settings(part, AutoencoderKLHunyuanVideo(**change))


def test_settings_without_a_part_in_the_result_may_be_any(models):
    change = {
        "return_dict": False,
        "output_hidden_states": True,
        "torch_dtype": "x",
        "transformers_version": 5,
    }
    for file in (LLAMA, CLIP, SIGLIP, VAE, TRANSFORMER):
        known = json.loads((models / file).read_text())
        (models / file).write_text(json.dumps(known | change))
    assert make_loader(models).verify() == []


@pytest.mark.parametrize("scale", ["comfy_quant", "scales", "qweight", "scale_inv", "weight.quant_state.nf4"])
def test_weights_of_few_bits_are_refused(models, scale):
    save_file(load_file(path := models / VAE_FILE) | {f"encoder.conv_in.conv.{scale}": torch.ones(1)}, path)
    assert refusal(models).code == "weights_scaled"


def test_tensors_that_no_model_has_are_told(models):
    weights = load_file(path := models / VAE_FILE)
    save_file(weights | {f"extra.{number}.weight": torch.ones(1) for number in range(9)}, path)
    (notice,) = make_loader(models).verify()
    assert (notice.code, notice.values["path"]) == ("weights_unknown", str(path.parent))
    assert (notice.values["number"], notice.values["tensors"].count("extra.")) == (9, 3)


@pytest.mark.parametrize("name", ["x.lora_A.weight", "lora_unet_x.lora_up.weight", "x.alpha", "x.diff_b"])
def test_a_lora_is_refused(models, name):
    save_file(load_file(path := models / VAE_FILE) | {name: torch.ones(1)}, path)
    assert (error := refusal(models)).code == "weights_adapter"
    assert error.values["tensor"] == name


def test_whole_numbers_are_no_weights(models):
    weights = load_file(path := models / VAE_FILE)
    save_file({name: weight.to(torch.int32) for name, weight in weights.items()}, path)
    assert refusal(models).code == "weights_whole_numbers"


@pytest.mark.parametrize(
    "file", [SHARD, VAE_FILE, f"{HUNYUAN}/text_encoder/model-00002-of-00008.safetensors"]
)
def test_8_bits_that_we_did_not_make_are_refused_although_they_look_like_ours(models, file):
    weights = load_file(path := models / file)
    for name in [name for name, weight in weights.items() if name.endswith(".weight") and weight.ndim == 2]:
        scale = weights[name].float().abs().amax(1).clamp_min(1e-9) / 127
        weights[name] = (weights[name] / scale[:, None]).round().to(torch.int8)
        weights[name.removesuffix("weight") + "scale"] = scale
    save_file(weights, path)
    index = json.loads((models / INDEX).read_text())
    if file == SHARD:
        names = dict.fromkeys(weights, path.name)
        (models / INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | names}))
    error = refusal(models)
    assert (error.code, error.values["path"]) == ("weights_scaled", str(path))
    assert error.values["tensor"].endswith(".scale")


def test_extras_of_published_files_are_silent(models):
    clip = models / HUNYUAN / "text_encoder_2" / "model.safetensors"
    extras = {"text_projection.weight": torch.ones(1), "text_model.embeddings.position_ids": torch.arange(77)}
    save_file(load_file(clip) | extras, clip)
    assert make_loader(models).verify() == []


def test_files_of_two_downloads_are_refused(models):
    """An index of other shards, and a shard that is there twice."""
    index = json.loads((models / INDEX).read_text())
    name = next(key for key, file in index["weight_map"].items() if file == Path(SHARD).name)
    last = "diffusion_pytorch_model-00006-of-00006.safetensors"
    (models / INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | {name: last}}))
    error = refusal(models)
    assert (error.code, error.values["tensor"], error.values["expected"]) == ("weights_mixed", name, last)
    shutil.copy(models / SHARD, (models / SHARD).with_name("z.safetensors"))
    (models / INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | {"none": "z.safetensors"}}))
    assert refusal(models).code == "weights_mixed"


def test_tensors_that_share_bytes_are_refused(models):
    content = (models / VAE_FILE).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    first, *others = (entry for key, entry in header.items() if key != "__metadata__")
    twin = next(entry for entry in others if entry["shape"] == first["shape"])
    twin["data_offsets"] = first["data_offsets"]
    text = json.dumps(header).encode()
    (models / VAE_FILE).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    assert refusal(models).code == "model_file_broken"


@pytest.mark.parametrize("name", ["FramePack_F1_I2V_HY_20250503", "FramePack_T2V"])
def test_a_sibling_of_the_transformer_is_named(models, name):
    shutil.move(models / FRAMEPACK, sibling := models / name)
    (models / FRAMEPACK).symlink_to(sibling)
    assert (error := refusal(models)).code == "model_foreign"
    assert error.values["found"] == name
