"""Tokenizers and image processors as in the published folders."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from diffusers_helper.encoding import prompts
from diffusers_helper.encoding.conditioning import encode_vision
from diffusers_helper.encoding.prompts import encode_prompts, load_tokenizer
from diffusers_helper.errors import InputError
from tests.support.tiny import MODELS, make_loader

REPOSITORY = MODELS / "hunyuanvideo-community" / "HunyuanVideo"


def test_the_llama_tokenizer_keeps_its_spaces():
    tokenizer = load_tokenizer(REPOSITORY / "tokenizer")
    text = "A cat walks, slowly."
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer.padding_side == "right"


@pytest.mark.parametrize("bos", [[], ["<|begin_of_text|>"] * 2], ids=["none", "two"])
def test_a_beginning_is_added_where_it_is_missing_and_two_are_refused(bos, tmp_path):
    """A head of another length would cost the prompt's first word, or leave a piece of the template."""
    models = shutil.copytree(MODELS, tmp_path / "models")
    path = models / "hunyuanvideo-community" / "HunyuanVideo" / "tokenizer" / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    template = {"type": "TemplateProcessing", "special_tokens": {}}
    template["single"] = [{"SpecialToken": {"id": text, "type_id": 0}} for text in bos]
    template["single"] += [{"Sequence": {"id": "A", "type_id": 0}}]
    template["special_tokens"] = {text: {"id": text, "ids": [0], "tokens": [text]} for text in bos}
    path.write_text(json.dumps(values | {"post_processor": template | {"pair": template["single"]}}), "utf-8")
    if bos:
        with pytest.raises(InputError, match="tokenizer_foreign"):
            encode_prompts(["A cat."], make_loader(models))
    else:
        found, expected = (
            encode_prompts(["A cat."], make_loader(root))["A cat."] for root in (models, MODELS)
        )
        assert all(found[name].equal(tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(("length", "is_right"), [(0, False), (94, False), (95, True), (96, False)])
def test_llamas_own_vocabulary_makes_95_tokens_of_the_head(length, is_right):
    class Llama:
        name_or_path = "tokenizer"
        __len__ = lambda _: 128256  # noqa: E731
        __call__ = lambda *_: SimpleNamespace(input_ids=[128000, *range(1, length)][:length])  # noqa: E731
        convert_tokens_to_ids = lambda *_: 128000  # noqa: E731

    with nullcontext() if is_right else pytest.raises(InputError):
        prompts._check_head(Llama(), "a head", 95)


@pytest.mark.parametrize("change", [{}, {"pad_token": None}, {"model_max_length": "long"}])
def test_a_clip_tokenizer_needs_no_tokenizer_json(tmp_path, change):
    characters = [chr(code) for code in range(33, 127)]
    endings = [f"{character}</w>" for character in characters]
    words = [*characters, *endings, "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
            | change
        )
    )
    ids = load_tokenizer(tmp_path)("A cat", padding="max_length", max_length=77, truncation=True).input_ids
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    assert ids == [start, vocabulary["a</w>"], vocabulary["cat</w>"]] + [end] * 74


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer_broken"


def test_a_broken_image_processor_is_named(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("[")
    loader = make_loader()
    part = replace(loader.files.image_encoder, processor=tmp_path)
    loader.files = replace(loader.files, image_encoder=part)
    with pytest.raises(InputError, match="model_file_broken"):
        encode_vision(np.zeros((32, 32, 3), np.uint8), loader)


@pytest.mark.parametrize("key", ["bos_token", "pad_token", "model_max_length", "additional_special_tokens"])
def test_settings_of_a_tokenizer_change_no_token(key, tmp_path):
    shutil.copytree(REPOSITORY / "tokenizer", folder := tmp_path / "tokenizer")
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(values | {key: ["cat"] if key.endswith("s") else "cat"}), "utf-8")
    text = "A cat walks."
    assert load_tokenizer(folder)(text).input_ids == load_tokenizer(REPOSITORY / "tokenizer")(text).input_ids


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path):
    for name, other in (("tokenizer", "tokenizer_2"), ("tokenizer_2", "tokenizer")):
        models = shutil.copytree(MODELS, tmp_path / name)
        shutil.copy(REPOSITORY / other / "tokenizer.json", models / REPOSITORY.relative_to(MODELS) / name)
        with pytest.raises(InputError, match="tokenizer_"):
            encode_prompts(["A cat."], make_loader(models))
