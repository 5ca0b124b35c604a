"""The token ids of fixed prompts, which the makers' own tokenizers have given (`make_published_tokens.py`).

Each tokenizer.json here has the rules of the published one, and of its vocabulary what the prompts need.
"""

import json
from pathlib import Path

import pytest
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE

from diffusers_helper.encoding.prompts import llama_tokens, load_tokenizer
from tests.engine.encoding.make_published_tokens import CLIP_MARKS, LLAMA_MARKS, LLAMA_SPLIT, PROMPTS, TARGET

PUBLISHED = json.loads(TARGET.read_text("utf-8"))
CLIP_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def write_tokenizer(folder: Path, rules: dict, published: dict, marks: dict[str, int]) -> Path:
    """Write a tokenizer.json of these rules."""
    model = {"type": "BPE", "vocab": published["tokens"] | marks}
    model |= {"merges": published["merges"], **rules.pop("model")}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": number, "content": mark, "special": True} | plain for mark, number in marks.items()]
    content = {"version": "1.0", "added_tokens": added, "model": model} | rules
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture
def llama(tmp_path):
    begin = "<|begin_of_text|>"
    single = [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    named = {begin: {"id": begin, "ids": [LLAMA_MARKS[begin]], "tokens": [begin]}}
    split = {"type": "Split", "pattern": {"Regex": LLAMA_SPLIT}, "behavior": "Isolated", "invert": False}
    rules = {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single}
        | {"special_tokens": named},
        "model": {"ignore_merges": True},
    }
    return load_tokenizer(write_tokenizer(tmp_path, rules, PUBLISHED["llama"], LLAMA_MARKS))


@pytest.fixture
def clip(tmp_path):
    split = {"type": "Split", "pattern": {"Regex": CLIP_SPLIT}, "behavior": "Removed", "invert": True}
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    begin, end = CLIP_MARKS.items()
    rules = {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
        "post_processor": {"type": "RobertaProcessing", "sep": end, "cls": begin}
        | {"trim_offsets": False, "add_prefix_space": False},
        "model": {"unk_token": end[0], "end_of_word_suffix": "</w>"},
    }
    return load_tokenizer(write_tokenizer(tmp_path, rules, PUBLISHED["clip"], CLIP_MARKS))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_llama_reads_a_prompt_in_its_template_as_published(llama, prompt):
    text = DEFAULT_PROMPT_TEMPLATE["template"].format(prompt)
    assert llama_tokens(llama, text) == PUBLISHED["llama"]["ids"][prompt]


def test_llamas_head_is_what_the_model_was_trained_to_leave_out(llama):
    head = DEFAULT_PROMPT_TEMPLATE["template"].partition("{}")[0]
    assert len(llama_tokens(llama, head)) == DEFAULT_PROMPT_TEMPLATE["crop_start"] == 95


@pytest.mark.parametrize("prompt", PROMPTS)
def test_clip_reads_a_prompt_as_published(clip, prompt):
    assert clip(prompt).input_ids == PUBLISHED["clip"]["ids"][prompt]
