"""Makes `published_tokens.json` from the published vocabularies; run by a person, never by the tests.

    python -m tests.engine.encoding.make_published_tokens LLAMA_TOKENIZER_MODEL CLIP_BPE_VOCABULARY

The first is Llama 3's `tokenizer.model` (in the PyPI package llama-models), the second CLIP's
`bpe_simple_vocab_16e6.txt.gz` (in open_clip_torch). Needs tiktoken, and open_clip's `SimpleTokenizer`, which
split the prompts in the makers' own ways, without a tokenizer.json. Of the vocabularies only those tokens are
kept that the prompts can be made of.
"""

import base64
import gzip
import itertools
import json
import re
import sys
import unicodedata
from functools import partial
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("published_tokens.json")
LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_MARKS = {
    "<|begin_of_text|>": 128000,
    "<|end_of_text|>": 128001,
    "<|start_header_id|>": 128006,
    "<|end_header_id|>": 128007,
    "<|eot_id|>": 128009,
}
CLIP_MARKS = {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
PROMPTS = [
    "",
    "A cat walks, slowly.",
    "It's 1,234.56 years later; SHE'S smiling at the camera!!",
    "  two  spaces,\ttabs\nand\n\n\nlines \r\n end  ",
    "女性が振り向いて、微笑む。カメラはゆっくりズームイン。",
    "一隻貓在雨中跳舞，背景是夜市。",
    "A 🐱 and a 💃🏽 with 👨‍👩‍👧, ☂️…",
    "Café Zoë, Cafe\u0301, Ångström; 한국어, русский, العربية",
    "typed <|eot_id|> and <|endoftext|>, <|begin_of_text|><|startoftext|> marks",
    "{} {0} %s \\n \"quotes\" 'single' <html> & a-b_c/d",
]
"""Prompts with what splits words in other ways: case, spaces, scripts, emoji, the vocabularies' own marks."""


def make_llama(vocabulary: Path, template: str) -> dict[str, Any]:
    """Return the tokens, their merges and the ids of the prompts in Llama's template."""
    import tiktoken

    lines = (line.split() for line in vocabulary.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    encoding = tiktoken.Encoding(
        "llama", pat_str=LLAMA_SPLIT, mergeable_ranks=ranks, special_tokens=LLAMA_MARKS
    )
    texts = [template.format(prompt) for prompt in PROMPTS]
    ids = [
        [LLAMA_MARKS["<|begin_of_text|>"], *encoding.encode(text, allowed_special="all")] for text in texts
    ]
    content = "\n".join(texts).encode()
    kept = {token: rank for token, rank in ranks.items() if len(token) == 1 or token in content}
    letters = _byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in sorted(kept, key=kept.__getitem__):
        halves = ((token[:at], token[at:]) for at in range(1, len(token)))
        pairs = [(kept[a], kept[b], a, b) for a, b in halves if a in kept and b in kept]
        merges += [[written(a), written(b)] for _, _, a, b in sorted(pairs)]
    tokens = {written(token): rank for token, rank in sorted(kept.items(), key=lambda item: item[1])}
    return {"tokens": tokens, "merges": merges, "ids": dict(zip(PROMPTS, ids, strict=True))}


def make_clip(vocabulary: Path) -> dict[str, Any]:
    """Return the tokens, their merges and the ids of the prompts. The published tokenizer repairs no text."""
    from open_clip import tokenizer as package

    package.ftfy.fix_text = partial(unicodedata.normalize, "NFC")
    tokenizer = package.SimpleTokenizer(str(vocabulary))
    begin, end = CLIP_MARKS.values()

    def split(prompt: str) -> list[int]:
        parts = re.split("(" + "|".join(map(re.escape, CLIP_MARKS)) + ")", prompt)
        ids = ([CLIP_MARKS[part]] if part in CLIP_MARKS else tokenizer.encode(part) for part in parts)
        return [begin, *itertools.chain(*ids), end]

    ids = {prompt: split(prompt) for prompt in PROMPTS}
    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = _byte_letters()
    content = unicodedata.normalize("NFC", re.sub(r"\s+", " ", "\n".join(PROMPTS).lower()))
    written = "".join(letters[byte] for byte in content.encode())
    merges = [pair for pair in map(str.split, lines) if "".join(pair).removesuffix("</w>") in written]
    names = [*letters.values(), *(f"{letter}</w>" for letter in letters.values()), *map("".join, merges)]
    tokens = {name: tokenizer.encoder[name] for name in names}
    return {"tokens": tokens, "merges": merges, "ids": ids}


def _byte_letters() -> dict[int, str]:
    """Return the letters that stand for bytes in both vocabularies: those that can be seen are themselves."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = itertools.count(256)
    return {byte: chr(byte) for byte in seen} | {
        byte: chr(next(others)) for byte in range(256) if byte not in seen
    }


if __name__ == "__main__":
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE

    made = {
        "llama": make_llama(Path(sys.argv[1]), DEFAULT_PROMPT_TEMPLATE["template"]),
        "clip": make_clip(Path(sys.argv[2])),
    }
    TARGET.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")), "utf-8")
