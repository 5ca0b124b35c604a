"""The part of a prompt that the models read, compared with the tokens that they are given."""

import bisect
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from demo_models import random_models
from diffusers_helper.encoding import prompt_limit
from diffusers_helper.encoding.prompt_limit import PROMPT_TOKENS
from diffusers_helper.encoding.prompts import llama_tokens, load_tokenizer
from diffusers_helper.errors import InputError

ROOT = Path(random_models.__file__).parents[1]
TOKENIZER = ROOT / "demo_models" / "hunyuanvideo-community" / "HunyuanVideo" / "tokenizer"
TEXTS = {
    "English": "The woman turns around, slowly; it's 10 o'clock. She smiles!\n",
    "Japanese": "猫が走る。ｶﾒﾗは「ゆっくり」近づく、",
    "emoji": "😀 a 👨‍👩‍👧‍👦 é ❤️ ",
    "newlines": "\n\n  a\n\n\n\tb  ",
    "marks": "<|eot_id|> a <|end_header_id|>\n\n b ",
}


def find_unread(prompt: str, tokenizer: Path = TOKENIZER) -> int | None:
    return prompt_limit.find_unread(prompt, lambda: tokenizer)


@pytest.fixture(scope="module")
def tokens():
    """Splits a prompt between the template's marks, as the encoder does, without BOS."""
    tokenizer = load_tokenizer(TOKENIZER)
    return lambda prompt: llama_tokens(tokenizer, f"<|end_header_id|>\n\n{prompt}<|eot_id|>")[1:]


@pytest.fixture(scope="module")
def head(tokens) -> int:
    return len(tokens("")) - 1


def longest(text: str, count: int, tokens, head: int) -> str:
    """The longest beginning of a repeated text that has no more than `count` tokens of its own."""
    whole = "".join(itertools.islice(itertools.cycle(text), 3000))
    first = bisect.bisect(range(3000), count, key=lambda n: len(tokens(whole[:n])) - head - 1)
    return whole[: first - 1]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_prompt_is_read_to_the_last_character_whose_tokens_all_fit(text, tokens, head):
    read = longest(text, PROMPT_TOKENS, tokens, head)
    assert find_unread(read) is None
    for more in (text, text * 20):
        prompt = read + more
        first = find_unread(prompt)
        assert first is not None
        ids, limit = tokens(prompt), head + PROMPT_TOKENS
        # the read part alone gives the same tokens, but for a character (or a word) that is cut in its middle
        alone = tokens(prompt[:first])[:-1]
        assert alone == ids[: len(alone)]
        assert len(alone) <= limit
        one_more = tokens(prompt[: first + 1])[:-1]
        assert len(one_more) > limit or one_more != ids[: len(one_more)]


@pytest.mark.parametrize("text", ["\ud800", "a\udfff猫 ", "\ud83d\udc31 "])
def test_a_lone_surrogate_is_read_as_a_question_mark(text):
    prompt = text * 400
    assert find_unread(prompt) == find_unread(prompt.encode("utf-8", "replace").decode()) is not None


def test_a_prompt_whose_template_alone_is_cut_is_read_as_a_whole(tokens, head):
    prompt = "a" + "!" * 254  # in the demo's tokenizer, the line ends before a word are two tokens
    assert len(tokens(prompt)) == head + 1 + PROMPT_TOKENS
    assert find_unread(prompt) is None
    assert find_unread(f"{prompt}?") == 255


@pytest.mark.parametrize("prompt", ["", "A cat.", "!" * 255, "猫" * 85])
def test_a_short_prompt_asks_for_no_tokenizer(prompt):
    assert prompt_limit.find_unread(prompt, Mock(side_effect=AssertionError)) is None


def test_without_a_tokenizer_nothing_is_said():
    assert prompt_limit.find_unread("a" * 1000, lambda: None) is None


def test_another_file_in_the_same_place_is_read_again(tmp_path):
    tokenizer = Path(shutil.copytree(TOKENIZER, tmp_path / "tokenizer"))
    prompt = "woman " * 300
    assert find_unread(prompt, tokenizer) == find_unread(prompt) != 255
    path = tokenizer / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    values["model"]["merges"] = []  # each byte becomes a token
    path.write_text(json.dumps(values), "utf-8")
    assert find_unread(prompt, tokenizer) == 256


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_a_broken_tokenizer_is_an_error(content, tmp_path):
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match="tokenizer_broken"):
        find_unread("a" * 1000, tmp_path)


def test_no_torch_is_imported():
    code = f"""
import sys
from pathlib import Path
from diffusers_helper.public import find_unread
assert find_unread("a b " * 1000, lambda: Path({str(TOKENIZER)!r}))
assert not {{"torch", "transformers"}} & {{*sys.modules}}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
