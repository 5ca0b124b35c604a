"""The tiny models of `golden/` and short ways to make a video with them. Used by several tests."""

import atexit
import gc
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from diffusers_helper.device import choose_compute
from diffusers_helper.encoding.embedding_cache import EmbeddingCache
from diffusers_helper.encoding.prompts import PromptEmbeds
from diffusers_helper.events import Event
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.pipeline import Target, generate
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sampling.denoiser import SectionInputs
from diffusers_helper.sections import section_positions
from diffusers_helper.weights.model_files import find_models

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = GOLDEN / "models"
START = str(GOLDEN / "one_second" / "start.png")
VAE_FILE = "hunyuanvideo-community/HunyuanVideo/vae/diffusion_pytorch_model.safetensors"
LAST_SHARD = "lllyasviel/FramePackI2V_HY/diffusion_pytorch_model-00006-of-00006.safetensors"

CACHE = tempfile.TemporaryDirectory(prefix="embeddings")
"""The embeddings of all videos that this process makes, unless a test wants its own."""
atexit.register(gc.unfreeze)  # `run` freezes; libraries complain about what nobody takes down in the end


def make_loader(models: Path = MODELS) -> ModelLoader:
    return ModelLoader(find_models(models), choose_compute("cpu"))


def make_request(**values: Any) -> GenerationRequest:
    """A request of one section and one step, but for `values`."""
    small = {"start_image": START, "seed": 1, "steps": 1, "width": 96, "height": 64, "prompt": "A cat."}
    return GenerationRequest.from_dict(small | values)


def small_request(**values: Any) -> GenerationRequest:
    """A request whose video is made as quickly as can be: one section of 21 frames, but for `values`."""
    return make_request(**{"seconds": 0.5, "section_seconds": 0.5, "width": 32, "height": 32} | values)


def run(
    request: GenerationRequest,
    folder: Path,
    *,
    name: str = "a",
    loader: ModelLoader | None = None,
    stop: threading.Event | None = None,
    save_latents: bool = False,
    partial_videos: bool = False,
    cache: Path | None = None,
) -> Iterator[Event]:
    """Make the video in `folder`; its working folder lies beside that one."""
    gc.freeze()  # what is there by now need not be looked through whenever a model is freed
    target = Target(folder, name, save_latents, partial_videos, work_of(folder, name))
    embeddings = EmbeddingCache(cache or Path(CACHE.name))
    return generate(request, target, loader or make_loader(), embeddings, stop or threading.Event())


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


def random_step() -> tuple[SectionInputs, torch.Tensor]:
    """Random inputs of a section and latents `(1, 16, 5, 8, 12)` for one step, always the same."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    prompt = PromptEmbeds(randn(1, 512, 64), torch.arange(512)[None] < 40, randn(1, 32))
    history = randn(1, 16, 20, 8, 12).split([2, 2, 16], dim=2)
    inputs = SectionInputs(prompt, None, randn(1, 16, 48), *history, section_positions(3, 5))
    return inputs, randn(1, 16, 5, 8, 12)


def load_latents(path: Path) -> torch.Tensor:
    return load_file(path)["latents"]
