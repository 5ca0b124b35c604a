"""The tiny models of `golden/` and short ways to make a video with them. Used by several tests."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from diffusers_helper.device import choose_compute
from diffusers_helper.encoding.embedding_cache import EmbeddingCache
from diffusers_helper.events import Event
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.pipeline import Target, generate
from diffusers_helper.request import GenerationRequest
from diffusers_helper.weights.model_files import find_models

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = GOLDEN / "models"
START = str(GOLDEN / "one_second" / "start.png")
VAE_FILE = "hunyuanvideo-community/HunyuanVideo/vae/diffusion_pytorch_model.safetensors"
LAST_SHARD = "lllyasviel/FramePackI2V_HY/diffusion_pytorch_model-00006-of-00006.safetensors"


def make_loader(models: Path = MODELS) -> ModelLoader:
    return ModelLoader(find_models(models), choose_compute("cpu"))


def make_request(**values: Any) -> GenerationRequest:
    """A request of one section and one step, but for `values`."""
    small = {"start_image": START, "seed": 1, "steps": 1, "width": 96, "height": 64, "prompt": "A cat."}
    return GenerationRequest.from_dict(small | values)


def run(
    request: GenerationRequest,
    folder: Path,
    *,
    name: str = "a",
    loader: ModelLoader | None = None,
    stop: threading.Event | None = None,
    save_latents: bool = False,
    partial_videos: bool = False,
) -> Iterator[Event]:
    """Make the video in `folder`; its cache and its working folder lie beside that one."""
    target = Target(folder, name, save_latents, partial_videos, work_of(folder, name))
    cache = EmbeddingCache(folder.parent / "cache")
    return generate(request, target, loader or make_loader(), cache, stop or threading.Event())


def work_of(folder: Path, name: str = "a") -> Path:
    """The working folder of a video that `run` makes."""
    return folder.parent / "work" / name


def copy_models(target: Path, file: str, **tensors: float) -> Path:
    """The tiny models with some tensors of one file filled with a value (`__` stands for a dot)."""
    shutil.copytree(MODELS, target)
    weights = load_file(target / file)
    for name, value in tensors.items():
        weights[name.replace("__", ".")].fill_(value)
    save_file(weights, target / file)
    return target


def load_latents(path: Path) -> torch.Tensor:
    return load_file(path)["latents"]
