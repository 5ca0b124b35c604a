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
from ..weights.checkpoint import read_json
from ..weights.model_files import ModelPart
from .prompt_limit import PROMPT_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PADDED_TOKENS = 512
"""Tokens that the transformer takes, padding included."""
POOLED_TOKENS = 77
"""Tokens that CLIP takes."""
BOS = "<|begin_of_text|>"
LLAMA_VOCABULARY = 128_000
"""Tokens of Llama 3's vocabulary; the smaller ones of tests may split more."""
LEGACY_END = 2
"""The end in CLIP's first configs, which stands for the largest token."""


@dataclass(frozen=True)
class KnownWords:
    """Words, the marks at their ends, and the tokens of the published tokenizer, which has a `vocabulary`."""

    begin: str
    text: str
    end: str
    vocabulary: int
    ids: list[int]


LLAMA_WORDS = KnownWords(BOS, "Hello world", "", LLAMA_VOCABULARY, [128_000, 9906, 1917])
CLIP_WORDS = KnownWords(
    *("<|startoftext|>", "a photo of a cat", "<|endoftext|>"),
    *(49_408, [49_406, 320, 1125, 539, 320, 2368, 49_407]),
)


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
    ids = llama_tokens(tokenizer, LLAMA_WORDS.text)
    _check_words(tokenizer, ids, loader.files.text_encoder, LLAMA_WORDS)
    clip_tokenizer = load_tokenizer(loader.files.text_encoder_2.processor)
    ids = clip_tokenizer(CLIP_WORDS.text).input_ids
    _check_words(clip_tokenizer, ids, loader.files.text_encoder_2, CLIP_WORDS)
    with loader.text_encoder() as llama:
        for prompt, tensors in encoded.items():
            ids = llama_tokens(tokenizer, template.format(prompt))
            states = llama(input_ids=torch.tensor([ids[:limit]], device=device), use_cache=False)
            tensors["embeds"] = states.last_hidden_state[0, crop_start:].cpu()
            tensors["num_dropped"] = torch.tensor(max(len(ids) - limit, 0))
    whole = {"padding": "max_length", "max_length": POOLED_TOKENS, "truncation": True, "return_tensors": "pt"}
    with loader.text_encoder_2() as clip:
        for prompt, tensors in encoded.items():
            ids = clip_tokenizer(prompt, **whole).input_ids.to(device)
            tensors["pooled"] = clip(input_ids=ids).pooler_output[0].cpu()
    return encoded


def llama_tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Split a text with BOS in front: some releases of Llama 3's tokenizer.json leave it to their library."""
    ids, bos = tokenizer(text).input_ids, tokenizer.convert_tokens_to_ids(BOS)
    return ids if ids[:1] == [bos] else [bos, *ids]


def _check_head(tokenizer: "PreTrainedTokenizerBase", head: str, length: int) -> None:
    """Raise InputError unless the template's head, to be cropped, is that many tokens, one of them BOS."""
    ids, bos = llama_tokens(tokenizer, head), tokenizer.convert_tokens_to_ids(BOS)
    is_exact = len(ids) == length or (len(tokenizer) < LLAMA_VOCABULARY and len(ids) > length)
    if bos is None or ids.count(bos) != 1 or not is_exact:
        raise InputError("tokenizer_foreign", path=tokenizer.name_or_path, tokens=len(ids), expected=length)


def _check_words(
    tokenizer: "PreTrainedTokenizerBase", ids: list[int], part: ModelPart, known: KnownWords
) -> None:
    """Raise InputError unless a tokenizer, which makes `ids` of the known words, belongs to its model.

    Other tokens are no error, but other words. The published ones are known; a smaller vocabulary must give
    the words back. No token may lie outside of the model's table, and CLIP must find the end.
    """
    if len(tokenizer) >= known.vocabulary:
        is_right = ids == known.ids
    else:
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        is_right = text.replace(" <|", "<|") == known.begin + known.text + known.end
    if known.end:
        end = part.config.get("eos_token_id", ids[-1])
        is_right = is_right and ids.index(max(ids) if end == LEGACY_END else ids[-1]) == len(ids) - 1
        is_right = is_right and end in (LEGACY_END, ids[-1])
    rows = part.config.get("vocab_size", known.vocabulary)
    if not is_right or max(tokenizer.get_vocab().values()) >= rows:
        raise InputError("tokenizer_differs", path=tokenizer.name_or_path, text=known.text)


def pad_prompt(encoded: dict[str, torch.Tensor]) -> PromptEmbeds:
    """Zero-pad (or crop) a result of `encode_prompts` to the length that the transformer takes."""
    embeds = encoded["embeds"][:PADDED_TOKENS]
    padded = functional.pad(embeds, (0, 0, 0, PADDED_TOKENS - len(embeds)))[None]
    mask = torch.arange(PADDED_TOKENS)[None] < len(embeds)
    return PromptEmbeds(padded, mask, encoded["pooled"][None])


def load_tokenizer(folder: Path | None) -> "PreTrainedTokenizerBase":
    """Load a tokenizer exactly as its tokenizer.json defines it, or from CLIP's older files.

    transformers' Llama class would rebuild it without byte-level splitting and lose all spaces. Of
    tokenizer_config.json only marks count that tokenizer.json has: another word would be cut out of prompts.

    Raises:
        InputError: its files are broken.
    """
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    assert folder is not None
    sides = {"padding_side": "right", "truncation_side": "right"}
    content = folder / "tokenizer.json"
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)  # "longer than ..."
    try:
        if not content.is_file():
            padding = {"pad_token": CLIP_WORDS.end, "model_max_length": POOLED_TOKENS}
            return CLIPTokenizer.from_pretrained(folder, **sides, **padding, local_files_only=True)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(content), name_or_path=str(folder), **sides)
        marks = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        named = read_json(folder / "tokenizer_config.json")
        for key, default in (("bos_token", None), ("eos_token", None), ("pad_token", CLIP_WORDS.end)):
            value = named.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            mark = next((mark for mark in (value, default) if isinstance(mark, str) and mark in marks), None)
            setattr(tokenizer, key, mark)
        return tokenizer
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise InputError("tokenizer_broken", path=str(folder)) from error
