"""The encoding of prompts and pictures before a job samples; a cached result spares loading its model."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch

from ..buckets import video_size
from ..events import Event, Notice, StageStarted
from ..media.images import read_size
from ..media.packed_picture import read_fitted
from ..models.loading import ModelLoader
from ..models.vram_budget import vae_budget
from ..plan import Plan
from ..request import GenerationRequest
from ..vae.codec import encode_picture
from ..weights.model_files import picture_preparation
from .embedding_cache import EmbeddingCache, embedding_keys
from .prompts import PromptEmbeds, encode_prompts, pad_prompt


@dataclass(frozen=True)
class Conditioning:
    """A job's encoded inputs.

    Attributes:
        latents: `(1, 16, 1, h, w)` float32 by the name of the picture.
        prompts: embeddings by prompt.
        image_embeds: the vision encoder's `(1, tokens, dim)` of the start picture.
    """

    latents: dict[str, torch.Tensor]
    prompts: dict[str, PromptEmbeds]
    image_embeds: torch.Tensor


def read_pictures(request: GenerationRequest, plan: Plan) -> dict[str, np.ndarray]:
    """Read a plan's pictures `(height, width, 3)` uint8 by their names, cropped to the size of the video.

    Raises:
        InputError: a picture cannot be read.
    """
    height, width = video_size(request.resolution, request.width, request.height, *read_size(plan.start))
    return {name: read_fitted(name, height, width, request.crop_position) for name in plan.pictures}


def encode_all(
    request: GenerationRequest,
    plan: Plan,
    pictures: dict[str, np.ndarray],
    loader: ModelLoader,
    cache: EmbeddingCache,
) -> Generator[Event, None, Conditioning]:
    """Encode all that the plan needs. Yields the stages that begin, and notices of truncated prompts."""
    prompts = yield from _encode_prompts(request, plan, loader, cache)
    image_embeds = yield from _encode_vision(pictures[plan.start], loader, cache)
    yield StageStarted("images")
    with loader.vae() as vae:
        latents = {
            name: encode_picture(picture, vae, vae_budget(loader.compute))
            for name, picture in pictures.items()
        }
    return Conditioning(latents, prompts, image_embeds)


def _encode_prompts(
    request: GenerationRequest, plan: Plan, loader: ModelLoader, cache: EmbeddingCache
) -> Generator[Event, None, dict[str, PromptEmbeds]]:
    wanted = dict.fromkeys(section.prompt for section in plan.sections)  # each once, in order
    if request.guidance_scale != 1:
        wanted[request.negative_prompt] = None
    encoders = [loader.files.text_encoder, loader.files.text_encoder_2]
    contents = [text.encode() for text in wanted]
    keys = dict(zip(wanted, embedding_keys(contents, encoders, loader.compute.encoders), strict=True))
    found = {text: cache.get(key) for text, key in keys.items()}
    missing = [text for text, tensors in found.items() if tensors is None]
    if missing:
        yield StageStarted("prompt")
        for text, tensors in encode_prompts(missing, loader).items():
            found[text] = tensors
            cache.put(keys[text], tensors)
    prompts = {}
    for text, known in found.items():
        assert known is not None
        if dropped := int(known["num_dropped"]):
            yield Notice("prompt_too_long", {"prompt": text[:40], "tokens": dropped})
        prompts[text] = pad_prompt(known)
    return prompts


def _encode_vision(
    picture: np.ndarray, loader: ModelLoader, cache: EmbeddingCache
) -> Generator[Event, None, torch.Tensor]:
    content = str(picture.shape).encode() + picture.tobytes()
    (key,) = embedding_keys([content], [loader.files.image_encoder], loader.compute.encoders)
    known = cache.get(key)
    if known is None:
        yield StageStarted("vision")
        known = {"image_embeds": encode_vision(picture, loader)}
        cache.put(key, known)
    return known["image_embeds"][None]


@torch.inference_mode()
def encode_vision(picture: np.ndarray, loader: ModelLoader) -> torch.Tensor:
    """Encode a cropped picture `(height, width, 3)` uint8 as SigLIP's last hidden states `(tokens, dim)`.

    Raises:
        InputError: the image processor's config is broken.
    """
    from transformers import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(**picture_preparation(loader.files.image_encoder))
    pixels = processor.preprocess(images=picture, return_tensors="pt").pixel_values
    with loader.image_encoder() as model:
        pixels = pixels.to(loader.compute.device, loader.compute.encoders)
        return model(pixel_values=pixels).last_hidden_state[0].cpu()
