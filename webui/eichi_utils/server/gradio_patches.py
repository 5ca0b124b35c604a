"""Habits of gradio that this app does without: fetching files from addresses that somebody names, tracebacks
on the terminal for whatever somebody sends, and no answer at all where half a character stands in it.

The only place that changes gradio itself; `tests/faults` notices when a new version goes other ways.
"""

import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

from ..text.error_text import error_text
from ..text.translations import Translator

logger = logging.getLogger(__name__)

SHOWN_CHARACTERS = 200


def break_habits(words: Translator) -> None:
    """Change gradio for this process. `words` are for who names an address."""
    import gradio as gr
    from gradio import processing_utils, queueing, route_utils, routes, utils

    def refuse(url: str, cache_dir: str) -> str:
        del cache_dir
        sentence = error_text("image_missing", {"image": str(url)[:SHOWN_CHARACTERS]}, words)
        raise gr.Error(sentence, print_exception=False)

    async def refuse_later(url: str, cache_dir: str) -> str:
        return refuse(url, cache_dir)

    processing_utils.async_ssrf_protected_download = refuse_later
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = refuse
    for module in (queueing, route_utils, routes, utils):
        module.traceback = _ToTheLog()
    routes.orjson = _Patient(routes.orjson)


class _Patient:
    """The module `orjson`, but what it refuses is written by Python's own `json`."""

    def __init__(self, orjson: Any) -> None:
        self._orjson = orjson

    def __getattr__(self, name: str) -> Any:
        return getattr(self._orjson, name)

    def dumps(
        self, value: Any, default: Callable[[Any], Any] | None = None, option: int | None = None
    ) -> bytes:
        written: bytes
        try:
            written = self._orjson.dumps(value, default=default, option=option)
        except TypeError:
            written = json.dumps(value, default=default).encode("ascii")
        return written


class _ToTheLog:
    """The module `traceback`, but what it would print goes to the log."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    def print_exc(self, *_: Any, **__: Any) -> None:
        logger.warning("gradio could not answer", exc_info=True)
