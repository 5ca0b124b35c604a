"""Prompts become embeddings by two text encoders, each loaded only for as long as it is needed.

As in diffusers' `HunyuanVideoFramepackPipeline`: Llama's hidden states two layers before its end (the loader
builds no more), without the template's head, and CLIP's pooled output.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

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
BOS = "<|begin_of_text|>"
LLAMA_VOCABULARY = 128_000
"""Tokens of Llama 3's vocabulary; the smaller ones of tests may split more."""


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

    Nothing is padded for Llama: its attention is causal, so padding behind the prompt would change nothing.

    Returns:
        For each prompt `embeds` `(tokens, dim)` and `pooled` `(dim,)` on the CPU, in the encoders' dtype,
        and `num_dropped` `()`, the number of tokens over the limit.

    Raises:
        InputError: a tokenizer is broken, or splits the template in another way than Llama's.
    """
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE

    template, crop_start = DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]
    limit = crop_start + PROMPT_TOKENS
    device = loader.compute.device
    encoded: dict[str, dict[str, torch.Tensor]] = {prompt: {} for prompt in prompts}
    tokenizer = load_tokenizer(loader.files.text_encoder.processor)
    _check_head(tokenizer, template.partition("{}")[0], crop_start)
    with loader.text_encoder() as llama:
        for prompt, tensors in encoded.items():
            ids = tokenizer(template.format(prompt)).input_ids
            states = llama(input_ids=torch.tensor([ids[:limit]], device=device), use_cache=False)
            tensors["embeds"] = states.last_hidden_state[0, crop_start:].cpu()
            tensors["num_dropped"] = torch.tensor(max(len(ids) - limit, 0))
    tokenizer = load_tokenizer(loader.files.text_encoder_2.processor)
    whole = {"padding": "max_length", "max_length": POOLED_TOKENS, "truncation": True, "return_tensors": "pt"}
    with loader.text_encoder_2() as clip:
        for prompt, tensors in encoded.items():
            ids = tokenizer(prompt, **whole).input_ids.to(device)
            tensors["pooled"] = clip(input_ids=ids).pooler_output[0].cpu()
    return encoded


def _check_head(tokenizer: "PreTrainedTokenizerBase", head: str, length: int) -> None:
    """Raise InputError unless the template's head, to be cropped, is that many tokens with BOS in front."""
    ids, bos = tokenizer(head).input_ids, tokenizer.convert_tokens_to_ids(BOS)
    is_exact = len(ids) == length or (len(tokenizer) < LLAMA_VOCABULARY and len(ids) > length)
    if ids[:1] != [bos] or ids.count(bos) != 1 or not is_exact:
        raise InputError("tokenizer_foreign", path=tokenizer.name_or_path, tokens=len(ids), expected=length)


def pad_prompt(encoded: dict[str, torch.Tensor]) -> PromptEmbeds:
    """Zero-pad (or crop) a result of `encode_prompts` to the length that the transformer takes."""
    embeds = encoded["embeds"][:PADDED_TOKENS]
    padded = functional.pad(embeds, (0, 0, 0, PADDED_TOKENS - len(embeds)))[None]
    mask = torch.arange(PADDED_TOKENS)[None] < len(embeds)
    return PromptEmbeds(padded, mask, encoded["pooled"][None])


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
