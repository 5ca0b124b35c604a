"""Builds a complete set of tiny models with random weights, in the folder layout of the real ones.

The set holds everything a video needs, in about 6 MB, with the real file formats, key names and sharding, so
that the whole app runs on any machine. The weights are random: every video made with them is noise.

Knows the libraries' model classes. Does not know the engine, which reads these folders like any other models.
Importing this module is cheap: torch and the model libraries are imported when a set is built.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import SiglipVisionModel

TEXT_ENCODER = "hunyuanvideo-community/HunyuanVideo/text_encoder"
TOKENIZER = "hunyuanvideo-community/HunyuanVideo/tokenizer"
TEXT_ENCODER_2 = "hunyuanvideo-community/HunyuanVideo/text_encoder_2"
TOKENIZER_2 = "hunyuanvideo-community/HunyuanVideo/tokenizer_2"
VAE = "hunyuanvideo-community/HunyuanVideo/vae"
IMAGE_ENCODER = "lllyasviel/flux_redux_bfl/image_encoder"
FEATURE_EXTRACTOR = "lllyasviel/flux_redux_bfl/feature_extractor"
TRANSFORMER = "lllyasviel/FramePackI2V_HY"

# A file of this name at the top of a set says how it was built, and lists its files with their sizes.
MANIFEST = "random_models.json"
# Raised when the builder changes, so that a set of an older builder is made anew.
FORMAT = 1

LLAMA_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<pad>",
)
CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
VOCABULARY = 600  # at most; the sentences may hold less
LLAMA_MAX_TOKENS = 8192
CLIP_MAX_TOKENS = 77

TEXT_WIDTH = 64
POOLED_WIDTH = 32
IMAGE_WIDTH = 48
IMAGE_SIZE = 64

# What the tokenizers learn their merges from; other text falls back to bytes. The last four hold the words of
# the system prompt, so that it takes hardly more tokens than in the real one and leaves room for a prompt.
SENTENCES = (
    "Steam rises from the cup, the camera slowly moves in.",
    "The girl dances gracefully, with clear movements, full of charm.",
    "A cat looks up, blinks, and turns its head to the window.",
    "The rocket rises into the sky while smoke rolls over the ground.",
    "The wind moves the trees and the grass, and the clouds drift across the evening sky.",
    "system: Describe the main content of the video to the user by detailing the following aspects.",
    "1. theme 2. color, shape, size, texture 3. quantity and text 4. objects 5. Actions and events",
    "The spatial and temporal relationships, behaviors, physical movement changes, background environment",
    "light, style and atmosphere, camera angles, movements, and transitions used in it",
)


def build_random_models(folder: Path, *, seed: int = 0) -> Path:
    """Make sure that `folder` holds a complete set of random models for `seed`, and return it.

    A complete set is left alone, an older or damaged one is replaced. The set gets its name when all of it is
    written. The same seed and library versions give the same bytes.

    Raises FileExistsError when there is something at `folder` that this function didn't write.
    """
    folder = Path(folder)
    if is_complete(folder, seed=seed):
        return folder
    if _is_foreign(folder):
        raise FileExistsError(f"{folder} exists and is not a set of random models: choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        built = Path(temporary, "new")
        _write_models(built, seed)
        write_json(built / MANIFEST, {"format": FORMAT, "seed": seed, "files": _file_sizes(built)})
        _move_into_place(built, folder, seed)
    return folder


def is_complete(folder: Path, *, seed: int = 0) -> bool:
    """Check that `folder` is a complete set that this version built with `seed`."""
    try:
        manifest = read_json(folder / MANIFEST)
        is_of_this_version = (manifest["format"], manifest["seed"]) == (FORMAT, seed)
        return is_of_this_version and _file_sizes(folder).items() >= manifest["files"].items()
    except (OSError, ValueError, KeyError, TypeError):  # there is no manifest, or it is damaged
        return False


def _is_foreign(folder: Path) -> bool:
    if not folder.is_dir():
        return folder.exists()
    return any(folder.iterdir()) and not (folder / MANIFEST).is_file()


def _file_sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _move_into_place(built: Path, folder: Path, seed: int) -> None:
    """Give a finished set its name, unless another process has finished the same one in the meantime.

    What had the name before goes to the temporary folder, to be deleted with it.
    """
    if is_complete(folder, seed=seed):
        return
    if folder.exists():
        folder.rename(built.with_name("old"))
    built.rename(folder)


def _write_models(built: Path, seed: int) -> None:
    import torch

    vocabulary = write_llama_tokenizer(built / TOKENIZER)
    vocabulary_2 = write_clip_tokenizer(built / TOKENIZER_2)
    write_feature_extractor(built / FEATURE_EXTRACTOR)
    with no_progress_bars(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _write_text_encoder(built / TEXT_ENCODER, vocabulary)
        _write_text_encoder_2(built / TEXT_ENCODER_2, vocabulary_2)
        make_image_encoder(IMAGE_WIDTH, IMAGE_SIZE).save_pretrained(built / IMAGE_ENCODER)
        _write_vae(built / VAE)
        _write_transformer(built / TRANSFORMER)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from showing a bar for each file, and leave its setting as it was."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def write_llama_tokenizer(
    folder: Path, texts: Sequence[str] = SENTENCES, vocabulary: int = VOCABULARY
) -> int:
    """A byte-level BPE that puts <|begin_of_text|> first, as Llama 3 does. Returns its vocabulary's size."""
    begin, end, *_, pad = LLAMA_SPECIAL
    # Upstream names a class that garbles these tokenizers in transformers 5, so a reader must not trust it.
    config = {
        "bos_token": begin,
        "eos_token": end,
        "model_max_length": LLAMA_MAX_TOKENS,
        "pad_token": pad,
        "padding_side": "right",
        "tokenizer_class": "LlamaTokenizerFast",
    }
    tokenizer = _train_byte_level_bpe(LLAMA_SPECIAL, f"{begin} $A", texts, vocabulary)
    return _write_tokenizer(folder, tokenizer, config)


def write_clip_tokenizer(folder: Path, texts: Sequence[str] = SENTENCES, vocabulary: int = VOCABULARY) -> int:
    """A byte-level BPE with CLIP's start and end around the text. Returns its vocabulary's size."""
    start, end = CLIP_SPECIAL
    config = {
        "bos_token": start,
        "eos_token": end,
        "model_max_length": CLIP_MAX_TOKENS,
        "pad_token": end,
        "tokenizer_class": "TokenizersBackend",
        "unk_token": end,
    }
    tokenizer = _train_byte_level_bpe(CLIP_SPECIAL, f"{start} $A {end}", texts, vocabulary)
    return _write_tokenizer(folder, tokenizer, config)


def _train_byte_level_bpe(
    special_tokens: tuple[str, ...], template: str, texts: Sequence[str], vocabulary: int
) -> Tokenizer:
    """Learn merges from texts. The special tokens get the first ids, in their order.

    The template has those that stand around a text, which is `$A`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    around = [(token, tokenizer.token_to_id(token)) for token in special_tokens if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    return tokenizer


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, config: dict[str, Any]) -> int:
    write_json(folder / "tokenizer_config.json", {"backend": "tokenizers", **config})
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


def write_feature_extractor(folder: Path, side: int = IMAGE_SIZE) -> None:
    config = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
    write_json(folder / "preprocessor_config.json", config)


def _write_text_encoder(folder: Path, vocabulary: int) -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LLAMA_MAX_TOKENS,
        bos_token_id=LLAMA_SPECIAL.index("<|begin_of_text|>"),
        eos_token_id=LLAMA_SPECIAL.index("<|end_of_text|>"),
        pad_token_id=LLAMA_SPECIAL.index("<pad>"),
    )
    LlamaModel(config).save_pretrained(folder, max_shard_size="100KB")


def _write_text_encoder_2(folder: Path, vocabulary: int) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=POOLED_WIDTH,
        intermediate_size=2 * POOLED_WIDTH,
        projection_dim=POOLED_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_MAX_TOKENS,
        bos_token_id=CLIP_SPECIAL.index("<|startoftext|>"),
        eos_token_id=CLIP_SPECIAL.index("<|endoftext|>"),
        pad_token_id=CLIP_SPECIAL.index("<|endoftext|>"),
    )
    CLIPTextModel(config).save_pretrained(folder)


def make_image_encoder(width: int, side: int) -> SiglipVisionModel:
    """A small vision encoder for square pictures of `side` pixels."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=16,
    )
    return SiglipVisionModel(config)


def _write_vae(folder: Path) -> None:
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo(block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4)
    vae.save_pretrained(folder)


def _write_transformer(folder: Path) -> None:
    """The shards are small, so that readers meet blocks that span two files, as they do in the real set."""
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    transformer = HunyuanVideoFramepackTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        num_layers=2,
        num_single_layers=3,
        num_refiner_layers=1,
        rope_axes_dim=(8, 12, 12),
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        has_image_proj=True,
        image_proj_dim=IMAGE_WIDTH,
        has_clean_x_embedder=True,
    )
    transformer.save_pretrained(folder, max_shard_size="600KB")
    config = read_json(folder / "config.json")
    # The published checkpoint names upstream's own class, not the one of diffusers.
    write_json(folder / "config.json", config | {"_class_name": "HunyuanVideoTransformer3DModelPacked"})


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command line: build a set in a folder and say what is there."""
    parser = argparse.ArgumentParser(
        description="Build tiny models with random weights, to try the app without the real ones."
    )
    parser.add_argument("folder", type=Path, help="where the set goes")
    parser.add_argument("--seed", type=int, default=0, help="the weights depend on it (default: 0)")
    options = parser.parse_args(arguments)
    try:
        folder = build_random_models(options.folder, seed=options.seed)
    except OSError as error:
        print(f"The models could not be built: {error}", file=sys.stderr)
        return 1
    sizes = _file_sizes(folder).values()
    print(f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB, random weights (seed {options.seed}).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
