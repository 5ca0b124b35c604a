"""ComfyUI's single files of the same models are used where they lie; those of fewer bits are told apart."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_helper.errors import InputError
from diffusers_helper.weights.model_files import PARTS, find_models
from tests.support.tiny import MODELS, make_loader, run, small_request

Tensors = dict[str, torch.Tensor]
FILES = {
    "text_encoder": "text_encoders/llava_llama3_fp16.safetensors",
    "text_encoder_2": "clip/clip_l.safetensors",
    "vae": "vae/hunyuan_video_vae_bf16.safetensors",
    "image_encoder": "clip_vision/sigclip_vision_patch14_384.safetensors",
    "transformer": "diffusion_models/FramePack/FramePackI2V_HY_bf16.safetensors",
}
STABLE_DIFFUSION = [  # the published part of a name of the VAE, and the same in Comfy-Org's file
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_(.)", r"mid.attn_1.\1"),
    (r"down_blocks\.(.)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(.)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.0\.", "up.3."),
    (r"up_blocks\.1\.", "up.2."),
    (r"up_blocks\.2\.", "up.1."),
    (r"up_blocks\.3\.", "up.0."),
    (r"\.resnets\.", ".block."),
    (r"upsamplers\.0", "upsample"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
]


def weights(name: str) -> Tensors:
    spec = PARTS[name]
    tensors: Tensors = {}
    for path in (MODELS / spec.repository / spec.folder).glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def with_prefix(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def of_stable_diffusion(tensors: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, other in STABLE_DIFFUSION:
            name = re.sub(pattern, other, name)
        is_matrix = ".attn_1." in name and tensor.ndim == 2
        renamed[name] = tensor[:, :, None, None, None] if is_matrix else tensor
    return renamed


@pytest.fixture
def models(tmp_path) -> Path:
    """ComfyUI's `models`, with the published configs and tokenizers in it."""
    ignored = shutil.ignore_patterns("*.safetensors", "*.index.json")
    return Path(shutil.copytree(MODELS, tmp_path / "models", ignore=ignored))


def put(models: Path, name: str, tensors: Tensors, file: str | None = None) -> Path:
    path = models / (file or FILES[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def put_all(models: Path) -> None:
    tokenizer = {"tokenizer": torch.zeros(9, dtype=torch.uint8)}
    put(models, "text_encoder", with_prefix("model.", weights("text_encoder")) | tokenizer)
    put(models, "text_encoder_2", with_prefix("text_model.", weights("text_encoder_2")))
    put(models, "image_encoder", with_prefix("vision_model.", weights("image_encoder")))
    put(models, "transformer", weights("transformer"))


@pytest.mark.parametrize(("root", "of_vae"), [(".", of_stable_diffusion), ("models", dict)])
def test_the_same_video_comes_of_comfyuis_files(tmp_path, models, root: str, of_vae: Callable):
    put_all(models)
    put(models, "vae", of_vae(weights("vae")))
    if root != ".":  # ComfyUI's own folder is named, and its `models` are below
        for repository in {spec.repository.partition("/")[0] for spec in PARTS.values()}:
            (models / repository).rename(tmp_path / repository)
    loader = make_loader(models if root == "." else tmp_path)
    assert loader.verify() == []
    files = {path for part in vars(loader.files).values() for path in part.checkpoint.signatures}
    assert files == {models / name for name in FILES.values()}
    request, videos = small_request(), (tmp_path / "published", tmp_path / "comfyui")
    for folder, used in zip(videos, (make_loader(), loader), strict=True):
        list(run(request, folder, loader=used))
    first, second = (folder.glob("*.mp4") for folder in videos)
    assert next(first).read_bytes() == next(second).read_bytes()


def refusal(models: Path) -> tuple[str, dict[str, object]]:
    with pytest.raises(InputError) as caught:
        find_models(models)
    return caught.value.code, caught.value.values


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("diffusion_models/FramePackI2V_HY_fp8_e4m3fn.safetensors", "FP8"),
        ("unet/FramePackI2V_HY-Q4_K_M.gguf", "GGUF"),
        ("diffusion_models/FramePackI2V_HY_bf16.safetensors", "FP8"),  # whatever its name says
    ],
)
@pytest.mark.parametrize("has_config", [True, False])
def test_weights_of_fewer_bits_are_told_apart_and_others_beside_them_used(models, file, kind, has_config):
    put_all(models)
    put(models, "vae", weights("vae"))
    (models / FILES["transformer"]).unlink()
    if not has_config:
        shutil.rmtree(models / PARTS["transformer"].repository)
    reduced = put(models, "transformer", {"a": torch.zeros(2, dtype=torch.float8_e4m3fn)}, file)
    expected = Path(FILES["transformer"]).name
    assert refusal(models) == (
        "model_file_reduced",
        {"path": str(reduced), "kind": kind, "expected": expected},
    )
    usable = put(models, "transformer", weights("transformer"), f"unet/other/{expected}")
    if has_config:
        assert [*find_models(models).transformer.checkpoint.signatures] == [usable]


@pytest.mark.parametrize(
    "file",
    [
        "diffusion_models/FramePack_F1_I2V_HY_20250503.safetensors",
        "diffusion_models/FramePackI2V_HY_of_somebody.safetensors",
        "loras/FramePackI2V_HY_bf16.safetensors",
        "text_encoders/llava_llama3_vision.safetensors",
    ],
)
def test_other_files_are_left_alone(models, file):
    put(models, "transformer", weights("transformer"), file)
    for name in ("text_encoder", "text_encoder_2", "vae", "image_encoder"):
        put(models, name, weights(name))
    assert refusal(models)[0] == "model_file_missing"


def test_published_weights_come_first_and_a_damaged_single_file_is_named(models):
    put_all(models)
    path = put(models, "vae", weights("vae"))
    published = models / PARTS["vae"].repository / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(path, published)
    assert [*find_models(models).vae.checkpoint.signatures] == [published]
    published.unlink()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert refusal(models)[0] == "model_file_cut_short"
