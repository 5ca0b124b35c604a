"""The demo's encoders: Llama and CLIP, taught to tell the demo's prompts apart, and a SigLIP that is not
taught.

The two text encoders learn, in seconds, to name the motion that a prompt asks for, whatever else stands in
it; then they are frozen. So the transformer need not find out what words mean. SigLIP keeps its first,
random weights: mixtures of a picture's patches say as much about it as this transformer can use.

Every special token, the prompt template's 95 tokens and the file formats are those of the real models. The
files lie below a folder in the real layout.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from demo_models.random_models import (
    CLIP_MAX_TOKENS,
    CLIP_SPECIAL,
    FEATURE_EXTRACTOR,
    IMAGE_ENCODER,
    LLAMA_MAX_TOKENS,
    LLAMA_SPECIAL,
    SENTENCES,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    TOKENIZER,
    TOKENIZER_2,
    make_image_encoder,
    no_progress_bars,
    write_clip_tokenizer,
    write_feature_extractor,
    write_llama_tokenizer,
)
from diffusers_helper.device import choose_compute
from diffusers_helper.encoding.prompts import POOLED_TOKENS, encode_prompts, load_tokenizer
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.weights.model_files import PARTS, ModelFiles, find_part

from .clips import SLOW_PART
from .seeds import generator
from .sizes import Size, TextSize
from .wording import KINDS, WEIGHTS, compose, corpus

VOCABULARY = 3000  # at most: enough for every word of the corpus to become one token
BANK = "prompts.safetensors"
NO_PROMPT_PART = 0.06
"""The part of the bank that is the empty prompt."""
LABELS = 2 * len(KINDS)
Report = Callable[[int, float], None]


def write_encoders(folder: Path, size: Size, seed: int, device: torch.device, report: Report) -> None:
    """Write tokenizers, the two taught text encoders and SigLIP below `folder`, and a bank of prompts in
    it."""
    texts = [*SENTENCES, _template_words(), *corpus()] * 2
    words = write_llama_tokenizer(folder / TOKENIZER, texts, VOCABULARY)
    words_2 = write_clip_tokenizer(folder / TOKENIZER_2, texts, VOCABULARY)
    write_feature_extractor(folder / FEATURE_EXTRACTOR, size.transformer.image_side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llama, clip = _make_llama(size.text, words), _make_clip(size.text, words_2)
        siglip = make_image_encoder(size.transformer.image_width, size.transformer.image_side)
        heads = nn.ModuleList([nn.Linear(llama.config.hidden_size, LABELS) for _ in range(2)])
        heads.append(nn.Linear(clip.config.hidden_size, LABELS))
    _teach(folder, (llama, clip, heads), size.text, seed, device, report)
    _calm(llama, load_tokenizer(folder / TOKENIZER))
    with no_progress_bars():
        llama.half().save_pretrained(folder / TEXT_ENCODER, max_shard_size="1MB")
        clip.half().save_pretrained(folder / TEXT_ENCODER_2)
        siglip.half().save_pretrained(folder / IMAGE_ENCODER)
    save_file(_encode_bank(folder, size.text, seed), folder / BANK)


def is_written(folder: Path) -> bool:
    """Check that `write_encoders` has finished in this folder."""
    return (folder / BANK).is_file()


def read_bank(folder: Path) -> dict[str, torch.Tensor]:
    """Encoded prompts: `embeds` `(n, tokens, dim)` zero-padded, `lengths` `(n,)`, `pooled` `(n, dim)`,
    `labels` `(n,)`.

    A label is the number of the kind, plus `len(KINDS)` if slow, or -1 for the empty prompt, which fits all.
    """
    return load_file(folder / BANK)


def label_of(kind: int, slow: bool) -> int:
    return kind + len(KINDS) * slow


def draw_prompts(rng: random.Random, count: int) -> list[tuple[str, int]]:
    """Prompts with their labels, kinds as often as in the clips."""
    kinds = rng.choices(range(len(KINDS)), WEIGHTS, k=count)
    slow = [rng.random() < SLOW_PART for _ in kinds]
    return [(compose(KINDS[k], s, rng), label_of(k, s)) for k, s in zip(kinds, slow, strict=True)]


def load_siglip(folder: Path, device: torch.device) -> nn.Module:
    """The vision encoder as the engine loads it, in float32."""
    from transformers import SiglipVisionModel

    with no_progress_bars():
        model = SiglipVisionModel.from_pretrained(folder / IMAGE_ENCODER, dtype=torch.float32)
    return model.to(device).eval().requires_grad_(False)


@torch.no_grad()
def see(siglip: nn.Module, pictures: torch.Tensor, side: int) -> torch.Tensor:
    """SigLIP's hidden states `(n, tokens, dim)` of pictures `(n, 3, h, w)` in -1..1, scaled as its processor
    does (bicubic, antialiased)."""
    small = functional.interpolate(pictures.float(), (side, side), mode="bicubic", antialias=True)
    levels = ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return siglip(pixel_values=levels).last_hidden_state


def _template_words() -> str:
    """The words of the prompt's template, without its special tokens."""
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE

    text = DEFAULT_PROMPT_TEMPLATE["template"]
    for token in LLAMA_SPECIAL:
        text = text.replace(token, "\n")
    return text.replace("{}", "")


def _make_llama(size: TextSize, words: int) -> Any:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=words,
        hidden_size=size.width,
        intermediate_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LLAMA_MAX_TOKENS,
        initializer_range=size.width**-0.5,
        bos_token_id=LLAMA_SPECIAL.index("<|begin_of_text|>"),
        eos_token_id=LLAMA_SPECIAL.index("<|end_of_text|>"),
        pad_token_id=LLAMA_SPECIAL.index("<pad>"),
    )
    model = LlamaModel(config)
    nn.init.normal_(model.embed_tokens.weight, std=0.5)
    return model


def _make_clip(size: TextSize, words: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=size.pooled_width,
        intermediate_size=2 * size.pooled_width,
        projection_dim=size.pooled_width,
        num_hidden_layers=size.pooled_layers,
        num_attention_heads=4,
        max_position_embeddings=CLIP_MAX_TOKENS,
        bos_token_id=CLIP_SPECIAL.index("<|startoftext|>"),
        eos_token_id=CLIP_SPECIAL.index("<|endoftext|>"),
        pad_token_id=CLIP_SPECIAL.index("<|endoftext|>"),
    )
    return CLIPTextModel(config)


def _teach(
    folder: Path,
    models: tuple[Any, Any, nn.ModuleList],
    size: TextSize,
    seed: int,
    device: torch.device,
    report: Report,
) -> None:
    """Let both encoders learn to name the motion: the Llama from its last token and from all, CLIP from its
    pooled output. Leaves them on the CPU."""
    rng = random.Random(f"{seed}/text")
    readers = load_tokenizer(folder / TOKENIZER), load_tokenizer(folder / TOKENIZER_2)
    for model in models:
        model.to(device).train()
    parameters = [parameter for model in models for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    for step in range(size.steps):
        prompts = draw_prompts(rng, size.batch)
        loss = _naming_loss(models, readers, prompts, device)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        report(step + 1, loss.item())
    for model in models:
        model.to("cpu").eval()


@torch.no_grad()
def _calm(llama: Any, reader: Any) -> None:
    """Give the Llama's hidden states a deviation of 1. What a layer adds does not depend on the size of
    what it is given, so it suffices to scale the embeddings and what each layer adds."""
    ids = reader(_template_words(), return_tensors="pt").input_ids
    states = llama(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-3]
    added = [layer for block in llama.layers for layer in (block.self_attn.o_proj, block.mlp.down_proj)]
    for layer in (llama.embed_tokens, *added):
        layer.weight /= states.std()


def _naming_loss(
    models: tuple[Any, Any, nn.ModuleList],
    readers: tuple[Any, Any],
    prompts: list[tuple[str, int]],
    device: torch.device,
) -> torch.Tensor:
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE

    llama, clip, heads = models
    labels = torch.tensor([label for _, label in prompts], device=device)
    texts = [DEFAULT_PROMPT_TEMPLATE["template"].format(text) for text, _ in prompts]
    batch = readers[0](texts, padding=True, return_tensors="pt").to(device)
    states = llama(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states[-3]
    begin = DEFAULT_PROMPT_TEMPLATE["crop_start"]
    mask = batch.attention_mask[:, begin:, None].to(states.dtype)
    mean = (states[:, begin:] * mask).sum(1) / mask.sum(1)
    last = states[torch.arange(len(states), device=device), batch.attention_mask.sum(1) - 1]
    padded = readers[1](
        [text for text, _ in prompts],
        padding="max_length",
        max_length=POOLED_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    pooled = clip(input_ids=padded.input_ids.to(device)).pooler_output
    answers = zip(heads, (mean, last, pooled), strict=True)
    return torch.stack([functional.cross_entropy(head(seen), labels) for head, seen in answers]).mean()


def _encode_bank(folder: Path, size: TextSize, seed: int) -> dict[str, torch.Tensor]:
    """Encode prompts for the transformer's training with the engine itself."""
    rng = random.Random(f"{seed}/bank")
    prompts = draw_prompts(rng, size.bank)
    # each kind is there, fast and slow
    for kind in range(len(KINDS)):
        for slow in (False, True):
            prompts.append((compose(KINDS[kind], slow, rng), label_of(kind, slow)))
    prompts += [("", -1)]
    encoded = encode_prompts([text for text, _ in prompts], encoder_loader(folder))
    states = [encoded[text]["embeds"].half() for text, _ in prompts]
    return {
        "embeds": nn.utils.rnn.pad_sequence(states, batch_first=True),
        "lengths": torch.tensor([len(state) for state in states]),
        "pooled": torch.stack([encoded[text]["pooled"].half() for text, _ in prompts]),
        "labels": torch.tensor([label for _, label in prompts]),
    }


def encoder_loader(folder: Path) -> ModelLoader:
    """The engine's loader for a folder that holds no more than the encoders."""
    names = ("text_encoder", "text_encoder_2", "image_encoder")
    parts: dict[str, Any] = {name: find_part(folder, PARTS[name]) for name in names}
    missing = cast(Any, None)
    return ModelLoader(ModelFiles(vae=missing, transformer=missing, **parts), choose_compute("cpu"))


def pick_prompts(bank: dict[str, torch.Tensor], labels: list[int], seed: tuple[object, ...]) -> torch.Tensor:
    """Draw a prompt's row for each label, sometimes the empty prompt's."""
    dice = generator(torch.device("cpu"), *seed, "prompts")
    rows = []
    for label in labels:
        empty = torch.rand(1, generator=dice) < NO_PROMPT_PART
        known = (bank["labels"] == (-1 if empty else label)).nonzero()[:, 0]
        rows.append(known[torch.randint(len(known), (1,), generator=dice)])
    return torch.cat(rows)
