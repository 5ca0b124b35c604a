"""The part of a prompt that the models read, found with the tokenizer alone: no model and no torch is loaded.

Llama's limit is the one that counts: CLIP reads only the first 75 tokens, but gives no more than one vector.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROMPT_TOKENS = 256
"""Tokens of the user's prompt (with the template's end) that the model was trained for."""
BEFORE, BEHIND = "<|end_header_id|>\n\n", "<|eot_id|>"
"""The template's texts around the prompt, back to a mark at which every tokenizer parts words."""


def find_unread(prompt: str, find_tokenizer: Callable[[], Path | None]) -> int | None:
    """Return the index of the first character that Llama does not read, None where it reads all.

    The template's head is left out: `encode_prompts` accepts no other length of Llama's.

    Args:
        find_tokenizer: returns the folder of Llama's tokenizer, None where there is none; called only for a
            prompt that may be too long.

    Raises:
        InputError: its file is broken.
    """
    encoded = prompt.encode("utf-8", "replace")  # a lone surrogate becomes a question mark
    if len(encoded) < PROMPT_TOKENS:  # a token has at least one byte
        _load.cache_clear()  # Llama's takes 90 MB
        return None
    tokenizer = find_tokenizer()
    if tokenizer is None:
        return None
    path = tokenizer / "tokenizer.json"
    try:
        splitter = _load(path, path.stat().st_mtime_ns)
        head = len(splitter.encode(BEFORE, add_special_tokens=False).ids)
        offsets = splitter.encode(f"{BEFORE}{encoded.decode()}{BEHIND}", add_special_tokens=False).offsets
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise InputError("tokenizer_broken", path=str(tokenizer)) from error
    if len(offsets) <= head + PROMPT_TOKENS:
        return None
    first = offsets[head + PROMPT_TOKENS][0] - len(BEFORE)
    return first if first < len(prompt) else None


@lru_cache(maxsize=1)
def _load(path: Path, changed: int) -> "Tokenizer":  # noqa: ARG001  (another file has another time)
    from tokenizers import Tokenizer

    splitter = Tokenizer.from_file(str(path))
    splitter.no_truncation()
    splitter.no_padding()
    return splitter
