"""Prompts become embeddings by two text encoders, each loaded only for as long as it is needed.

As in diffusers' `HunyuanVideoFramepackPipeline`: Llama's hidden states two layers before its end (the loader
builds no more), without the template's head, and CLIP's pooled output.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..models.loading import ModelLoader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_TOKENS = 256
"""Tokens of the user's prompt (with the template's end) that the model was trained for."""
PADDED_TOKENS = 512
"""Tokens that the transformer takes, padding included."""
POOLED_TOKENS = 77
"""Tokens that CLIP takes."""


@dataclass(frozen=True, eq=False)  # one can be a key
class PromptEmbeds:
    """An encoded prompt: `embeds` `(1, 512, dim)` zero-padded with `mask` `(1, 512)`, `pooled` `(1, dim)`.

    It lies on the CPU, where the mask is read.
    """

    embeds: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor


@torch.inference_mode()
def encode_prompts(prompts: list[str], loader: ModelLoader) -> dict[str, dict[str, torch.Tensor]]:
    """Encode prompts, one encoder after the other.

    Returns:
        For each prompt `embeds` `(tokens, dim)` and `pooled` `(dim,)` on the CPU, in the encoders' dtype,
        and `num_dropped` `()`, the number of tokens over the limit.
    """
    hidden = _encode_hidden(prompts, loader)
    pooled = _encode_pooled(prompts, loader)
    return {
        prompt: {"embeds": hidden[prompt][0], "num_dropped": hidden[prompt][1], "pooled": pooled[prompt]}
        for prompt in prompts
    }


def pad_prompt(encoded: dict[str, torch.Tensor]) -> PromptEmbeds:
    """Zero-pad (or crop) a result of `encode_prompts` to the length that the transformer takes."""
    embeds = encoded["embeds"][:PADDED_TOKENS]
    tokens, dim = embeds.shape
    padded = embeds.new_zeros(1, PADDED_TOKENS, dim)
    padded[0, :tokens] = embeds
    mask = torch.zeros(1, PADDED_TOKENS, dtype=torch.bool)
    mask[0, :tokens] = True
    return PromptEmbeds(padded, mask, encoded["pooled"][None])


def _encode_hidden(prompts: list[str], loader: ModelLoader) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return Llama's hidden states `(tokens, dim)` after the template's head, and the dropped tokens' count.

    Nothing is padded: attention is causal, so padding behind the prompt would change nothing.
    """
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE

    crop_start = DEFAULT_PROMPT_TEMPLATE["crop_start"]
    limit = crop_start + PROMPT_TOKENS
    tokenizer = load_tokenizer(loader.files.text_encoder.processor)
    results = {}
    with loader.text_encoder() as model:
        for prompt in prompts:
            ids = tokenizer(DEFAULT_PROMPT_TEMPLATE["template"].format(prompt)).input_ids
            used = torch.tensor([ids[:limit]], device=loader.compute.device)
            states = model(input_ids=used, use_cache=False).last_hidden_state[0, crop_start:]
            results[prompt] = states.cpu(), torch.tensor(max(len(ids) - limit, 0))
    return results


def _encode_pooled(prompts: list[str], loader: ModelLoader) -> dict[str, torch.Tensor]:
    """Return CLIP's pooled output `(dim,)` for each prompt."""
    tokenizer = load_tokenizer(loader.files.text_encoder_2.processor)
    results = {}
    with loader.text_encoder_2() as model:
        for prompt in prompts:
            ids = tokenizer(
                prompt, padding="max_length", max_length=POOLED_TOKENS, truncation=True, return_tensors="pt"
            ).input_ids
            results[prompt] = model(input_ids=ids.to(loader.compute.device)).pooler_output[0].cpu()
    return results


def load_tokenizer(folder: Path | None) -> "PreTrainedTokenizerBase":
    """Load a tokenizer exactly as its tokenizer.json defines it.

    transformers' Llama class would rebuild it without byte-level splitting and lose all spaces.

    Raises:
        InputError: its files are broken.
    """
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    assert folder is not None
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else CLIPTokenizer
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)  # "longer than ..."
    try:
        return kind.from_pretrained(folder, padding_side="right", local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise InputError("tokenizer_broken", path=str(folder)) from error
