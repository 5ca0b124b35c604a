"""The models' classes, built from their configs without weights. Nothing else knows these classes."""

import logging
from collections.abc import Callable

import torch
from torch import nn

from ..eight_bit.linear import use_scaled_layers
from ..errors import InputError
from ..weights.model_files import ModelPart

logger = logging.getLogger(__name__)

UNUSED_LLAMA_LAYERS = 2
"""The layers that never run, like the norm: the prompt is the output of the third layer from the end."""


def build_empty(part: ModelPart, make: Callable[[dict], nn.Module]) -> nn.Module:
    """Build a model on the meta device, ready for its weights, those of 8 bits among them.

    Raises:
        InputError: its config describes nothing that can be built.
    """
    try:
        with torch.device("meta"):
            model = make(dict(part.config)).eval().requires_grad_(False)
            use_scaled_layers(model, part.checkpoint)
            return model
    except (MemoryError, OSError):  # PyTorch makes the folder of its cache
        raise
    except Exception as error:  # the libraries raise whatever a wrong value makes them stumble over
        logger.debug("config refused", exc_info=True)
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")[:200]
        path = part.folder / "config.json"
        raise InputError("model_config_refused", path=str(path), reason=reason) from error


def make_text_encoder(config: dict) -> nn.Module:
    """Build the Llama without the layers whose output is not used; its output is not normalized."""
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
    """Build the vision encoder without its pooling head, which is not used."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig.from_dict({**config, "vision_use_head": False}))


def make_vae(config: dict, *, encodes: bool = True) -> nn.Module:
    """Build the VAE, without the half that decoding does not use unless it `encodes`."""
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo.from_config(config)
    if not encodes:
        vae.encoder, vae.quant_conv = nn.Identity(), nn.Identity()
    return vae


def make_transformer(config: dict) -> nn.Module:
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    return HunyuanVideoFramepackTransformer3DModel.from_config(
        {key: value for key, value in config.items() if key != "_class_name"}  # upstream's name for it
    )
