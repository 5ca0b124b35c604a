"""The models' classes, built from their configs without weights. Nothing else knows these classes."""

import inspect
import logging
import tempfile
from collections.abc import Callable

import torch
from torch import nn

from ..eight_bit.linear import use_scaled_layers
from ..errors import InputError, MachineError
from ..weights.model_files import ModelPart

logger = logging.getLogger(__name__)

UNUSED_LLAMA_LAYERS = 2
"""The layers that never run, like the norm: the prompt is the output of the third layer from the end."""
_ENCODER_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
LLAMA_KEYS = (
    *(*_ENCODER_KEYS, "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"),
    *("rms_norm_eps", "rope_theta", "rope_parameters", "rope_scaling", "attention_bias", "mlp_bias"),
)
CLIP_KEYS = (*(*_ENCODER_KEYS, "vocab_size", "max_position_embeddings", "layer_norm_eps", "eos_token_id"),)
SIGLIP_KEYS = (*_ENCODER_KEYS, "num_channels", "image_size", "patch_size", "layer_norm_eps")


def build_empty(part: ModelPart, make: Callable[[dict], nn.Module]) -> nn.Module:
    """Build a model on the meta device, ready for its weights, our own of 8 bits among them.

    Raises:
        InputError: its config describes nothing that can be built.
    """
    try:
        with torch.device("meta"):
            model = make(dict(part.config)).eval().requires_grad_(False)
            if part.is_eight_bit:
                use_scaled_layers(model, part.checkpoint)
            return model
    except (MemoryError, OSError):  # PyTorch makes the folder of its cache
        raise
    except Exception as error:  # the libraries raise whatever a wrong value makes them stumble over
        logger.debug("config refused", exc_info=True)
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")[:200]
        path = part.folder / "config.json"
        raise InputError("model_config_refused", path=str(path), reason=reason) from error


def import_models() -> None:
    """Import the libraries' classes, which takes seconds, before they are needed.

    Raises:
        MachineError: no folder takes temporary files, without which PyTorch's import ends half-way.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise MachineError("no_temporary_folder") from error
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel  # noqa: F401
    from transformers import CLIPTextModel, LlamaModel, SiglipVisionModel  # noqa: F401


def make_text_encoder(config: dict) -> nn.Module:
    """Build the Llama without the layers whose output is not used; its output is not normalized."""
    from transformers import LlamaConfig, LlamaModel

    settings = LlamaConfig.from_dict(_choose(config, LLAMA_KEYS))
    settings.num_hidden_layers -= UNUSED_LLAMA_LAYERS
    model = LlamaModel(settings)
    model.norm = nn.Identity()
    with torch.device("cpu"):
        model.rotary_emb = type(model.rotary_emb)(settings)
    return model


def make_text_encoder_2(config: dict) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig.from_dict(_choose(config, CLIP_KEYS)))


def make_image_encoder(config: dict) -> nn.Module:
    """Build the vision encoder without its pooling head, which is not used."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(
        SiglipVisionConfig.from_dict({**_choose(config, SIGLIP_KEYS), "vision_use_head": False})
    )


def make_vae(config: dict, *, encodes: bool = True) -> nn.Module:
    """Build the VAE, without the half that decoding does not use unless it `encodes`."""
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo.from_config(_choose_known(config, AutoencoderKLHunyuanVideo))
    if not encodes:
        vae.encoder, vae.quant_conv = nn.Identity(), nn.Identity()
    return vae


def make_transformer(config: dict) -> nn.Module:
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    known = _choose_known(config, HunyuanVideoFramepackTransformer3DModel)
    return HunyuanVideoFramepackTransformer3DModel.from_config(known)


def _choose(config: dict, keys: tuple[str, ...]) -> dict:
    """Return the settings that describe a model: the libraries' others change what it returns, or nothing."""
    return {key: config[key] for key in keys if key in config}


def _choose_known(config: dict, kind: type) -> dict:
    return _choose(config, tuple(inspect.signature(kind).parameters))
