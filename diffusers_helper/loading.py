"""Putting models into memory and out again: each is in a `with` block, and nobody else places anything.

A model is built without weights and gets them tensor by tensor, straight from the file to the device in
the dtype wanted, so that it is never in memory twice. What is not needed is not read.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from .attention import choose_attention
from .checkpoint import Checkpoint
from .device import Compute
from .errors import InputError, MachineError
from .model_files import ModelFiles, ModelPart

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
    from transformers import CLIPTextModel, LlamaModel, SiglipVisionModel

logger = logging.getLogger(__name__)

UNUSED_LLAMA_LAYERS = 2
"""The prompt is what comes out of the third layer from the end; those behind it and the norm never run."""
_PREFIXES = ("model.", "text_model.", "vision_model.")
"""What different releases of transformers put in front of the same tensors' names."""


class ModelLoader:
    """Builds the models of one set on one device, each for the length of a `with` block."""

    def __init__(self, files: ModelFiles, compute: Compute) -> None:
        self.files = files
        self.compute = compute

    def verify(self) -> None:
        """Compare every model with the names and shapes in its files, before any weight is read.

        Raises:
            InputError: a config and its weights do not belong together.
        """
        for part, make in (
            (self.files.text_encoder, make_text_encoder),
            (self.files.text_encoder_2, make_text_encoder_2),
            (self.files.image_encoder, make_image_encoder),
            (self.files.vae, make_vae),
            (self.files.transformer, make_transformer),
        ):
            match_tensors(_make_empty(part, make), part.checkpoint)

    @contextmanager
    def text_encoder(self) -> Iterator["LlamaModel"]:
        with self._loaded(self.files.text_encoder, make_text_encoder, self.compute.encoders) as model:
            yield model

    @contextmanager
    def text_encoder_2(self) -> Iterator["CLIPTextModel"]:
        with self._loaded(self.files.text_encoder_2, make_text_encoder_2, self.compute.encoders) as model:
            yield model

    @contextmanager
    def image_encoder(self) -> Iterator["SiglipVisionModel"]:
        with self._loaded(self.files.image_encoder, make_image_encoder, self.compute.encoders) as model:
            yield model

    @contextmanager
    def vae(self) -> Iterator["AutoencoderKLHunyuanVideo"]:
        with self._loaded(self.files.vae, make_vae, self.compute.vae) as model:
            yield model

    @contextmanager
    def transformer(self) -> Iterator["HunyuanVideoFramepackTransformer3DModel"]:
        with self._loaded(self.files.transformer, make_transformer, self.compute.transformer) as model:
            model.proj_out.to(self.compute.projection)
            model.proj_out.register_forward_pre_hook(lambda layer, args: (args[0].to(layer.weight.dtype),))
            backend = choose_attention(self.compute.device, self.compute.transformer)
            if backend is not None:
                model.set_attention_backend(backend)
            yield model

    @contextmanager
    def _loaded(self, part: ModelPart, make: Callable[[dict], nn.Module], dtype: torch.dtype) -> Iterator:
        module = _make_empty(part, make)
        try:
            _fill(module, part.checkpoint, self.compute.device, dtype)
            yield module
        finally:
            module.to("meta")  # frees the weights whoever still holds the module
            gc.collect()
            if self.compute.device.type == "cuda":
                torch.cuda.empty_cache()


def make_text_encoder(config: dict) -> nn.Module:
    """The Llama without the layers whose output nobody reads; its output is the raw hidden state."""
    from transformers import LlamaConfig, LlamaModel

    settings = LlamaConfig.from_dict(config)
    settings.num_hidden_layers -= UNUSED_LLAMA_LAYERS
    model = LlamaModel(settings)
    model.norm = nn.Identity()
    with torch.device("cpu"):
        model.rotary_emb = type(model.rotary_emb)(settings)
    return model


def make_text_encoder_2(config: dict) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig.from_dict(config))


def make_image_encoder(config: dict) -> nn.Module:
    """The vision encoder without its pooling head, which is not read."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig.from_dict({**config, "vision_use_head": False}))


def make_vae(config: dict) -> nn.Module:
    """The VAE, decoding in tiles: blended in time as the original does, in space for pictures over 256."""
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo.from_config(config)
    vae.enable_tiling()
    return vae


def make_transformer(config: dict) -> nn.Module:
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    return HunyuanVideoFramepackTransformer3DModel.from_config(
        {key: value for key, value in config.items() if key != "_class_name"}  # upstream's name for it
    )


def match_tensors(module: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """The stored name of each tensor that `module` needs.

    Raises:
        InputError: one is missing or has another shape.
    """
    names = {}
    for name, tensor in module.state_dict().items():
        others = [prefix + name for prefix in _PREFIXES] + [name.removeprefix(prefix) for prefix in _PREFIXES]
        stored = next((other for other in (name, *others) if other in checkpoint.tensors), None)
        if stored is None:
            raise InputError("weights_missing", path=str(checkpoint.folder), tensor=name)
        shape = checkpoint.tensors[stored].shape
        if shape != tuple(tensor.shape):
            raise InputError(
                "weights_shape",
                path=str(checkpoint.folder),
                tensor=stored,
                found=list(shape),
                expected=list(tensor.shape),
            )
        names[name] = stored
    return names


def _make_empty(part: ModelPart, make: Callable[[dict], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return make(dict(part.config)).eval().requires_grad_(False)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        logger.debug("config refused", exc_info=True)
        path = part.folder / "config.json"
        raise InputError("model_config_refused", path=str(path), reason=str(error)[:200]) from error


def _fill(module: nn.Module, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    names = match_tensors(module, checkpoint)
    weights = {}
    try:
        staging = torch.empty(
            max(checkpoint.tensors[stored].num_bytes for stored in names.values()), dtype=torch.uint8
        )
        for name, stored in names.items():
            weights[name] = checkpoint.read(stored, staging).to(device, dtype, copy=True)
        module.load_state_dict(weights, assign=True)
        _fill_buffers(module)
        module.to(device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise MachineError("out_of_memory_loading", path=str(checkpoint.folder)) from error


def _fill_buffers(module: nn.Module) -> None:
    """Make the buffers that no file holds: the encoders' counted positions."""
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_meta:
                if name != "position_ids":
                    raise NotImplementedError(f"no rule for the buffer {name} of {type(owner).__name__}")
                owner.register_buffer(name, torch.arange(buffer.shape[-1])[None], persistent=False)
