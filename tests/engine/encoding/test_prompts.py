"""Tokenizers as in the published folders."""

import json

import pytest

from diffusers_helper.encoding.prompts import load_tokenizer
from diffusers_helper.errors import InputError
from tests.support.tiny import MODELS

REPOSITORY = MODELS / "hunyuanvideo-community" / "HunyuanVideo"


def test_the_llama_tokenizer_keeps_its_spaces():
    tokenizer = load_tokenizer(REPOSITORY / "tokenizer")
    text = "A cat walks, slowly."
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer.padding_side == "right"


def test_a_clip_tokenizer_needs_no_tokenizer_json(tmp_path):
    characters = [chr(code) for code in range(33, 127)]
    endings = [f"{character}</w>" for character in characters]
    words = [*characters, *endings, "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"})
    )
    ids = load_tokenizer(tmp_path)("A cat", padding="max_length", max_length=77, truncation=True).input_ids
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    assert ids == [start, vocabulary["a</w>"], vocabulary["cat</w>"]] + [end] * 74


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer_broken"
