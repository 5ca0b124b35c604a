"""The settings of the supported models that no weight's shape shows, and the check of a config against them.

A config that differs in one of them describes another model, although its weights fit: the video would be
wrong without a word. Other keys of a config have no part in a result, and are not looked at.
"""

import json
import math
from typing import Any

from torch import nn

from ..weights.model_files import ModelPart, wrong_setting

LLAMA: dict[str, Any] = {
    "hidden_act": "silu",
    "rope_type": "default",
    "attention_bias": False,
    "mlp_bias": False,
}
CLIP: dict[str, Any] = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "max_position_embeddings": 77}
SIGLIP: dict[str, Any] = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_channels": 3}
VAE: dict[str, Any] = {"act_fn": "silu", "latent_channels": 16, "in_channels": 3, "out_channels": 3}
TRANSFORMER: dict[str, Any] = {
    "guidance_embeds": True,
    "qk_norm": "rms_norm",
    "rope_theta": 256.0,
    "image_condition_type": None,
    "has_image_proj": True,
    "has_clean_x_embedder": True,
    "patch_size": 2,
    "patch_size_t": 1,
    "in_channels": 16,
    "out_channels": 16,
}
_TINY_LLAMA = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
}
SUPPORTED: dict[str, tuple[str, dict[str, Any], dict[int, dict[str, Any]]]] = {
    "LlamaModel": (
        "hidden_size",
        LLAMA,
        {
            4096: {
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "vocab_size": 128_320,
                "rms_norm_eps": 1e-5,
                "rope_theta": 500_000.0,
            },
            128: _TINY_LLAMA,
            64: _TINY_LLAMA,
        },
    ),
    "CLIPTextModel": (
        "hidden_size",
        CLIP,
        {
            768: {"num_attention_heads": 12, "vocab_size": 49_408, "eos_token_id": (2, 49_407)},
            96: {"num_attention_heads": 4, "eos_token_id": 1},
            32: {"num_attention_heads": 2, "eos_token_id": 1},
        },
    ),
    "SiglipVisionModel": (
        "hidden_size",
        SIGLIP,
        {
            1152: {"num_attention_heads": 16, "image_size": 384, "patch_size": 14},
            64: {"num_attention_heads": 2, "image_size": 64, "patch_size": 16},
            48: {"num_attention_heads": 2, "image_size": 64, "patch_size": 16},
        },
    ),
    "AutoencoderKLHunyuanVideo": (
        "block_out_channels",
        VAE,
        {
            128: {"norm_num_groups": 32, "scaling_factor": 0.476986, "mid_block_add_attention": True},
            # the factor of those that are trained here is measured
            16: {"norm_num_groups": 8, "mid_block_add_attention": False},
            8: {"norm_num_groups": 4},
        },
    ),
    "HunyuanVideoFramepackTransformer3DModel": (
        "num_attention_heads",
        TRANSFORMER,
        {
            24: {"attention_head_dim": 128, "rope_axes_dim": [16, 56, 56]},
            4: {"attention_head_dim": 64, "rope_axes_dim": [16, 24, 24]},
            2: {"attention_head_dim": (32, 16), "rope_axes_dim": ([8, 12, 12], [4, 6, 6])},
        },
    ),
}
"""By class: the setting that tells a model's size, the settings of all sizes, and those of each: the
published model, then the demo's and the tests' tiny ones. A tuple holds several right values."""


def check_settings(part: ModelPart, model: nn.Module) -> None:
    """Raise InputError if a model's settings, with the library's defaults, are not the supported ones."""
    width_key, settings, by_width = SUPPORTED[type(model).__name__]
    config = model.config
    width = _setting(config, width_key)
    width = width[0] if isinstance(width, list | tuple) else width
    for key, expected in (settings | by_width.get(width, {})).items():
        value = _setting(config, key)
        choices = expected if isinstance(expected, tuple) else (expected,)
        if not any(_is_same(value, choice) for choice in choices):
            raise wrong_setting(part.folder / "config.json", key, value, json.dumps(choices[0]))


def _setting(config: Any, key: str) -> Any:
    """Return a setting of a library's config; one of rotary positions stands in a table of its own."""
    rope = getattr(config, "rope_parameters", None) or {}
    return rope[key] if key in rope else getattr(config, key, None)


def _is_same(value: object, expected: object) -> bool:
    """Compare settings: a whole number is no fraction and no truth value, and lists are tuples."""
    if isinstance(expected, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return math.isclose(value, expected, rel_tol=1e-9)
    if isinstance(expected, list) and isinstance(value, list | tuple):
        return len(value) == len(expected) and all(map(_is_same, value, expected))
    return type(value) is type(expected) and value == expected
