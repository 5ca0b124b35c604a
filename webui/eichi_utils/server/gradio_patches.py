"""Every change that this app makes to gradio itself; `tests/faults` fails when a new version needs others.

Gradio imports in half of its time, downloads nothing from an address that somebody names, prints no traceback
on the terminal, and answers also where a text holds a lone surrogate.
"""

import contextlib
import importlib
import inspect
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ..text.error_text import error_text
from ..text.translations import Translator

logger = logging.getLogger(__name__)

SHOWN_CHARACTERS = 200


def import_gradio_fast() -> None:
    """Import gradio without the type stubs that it would write for editors at every start.

    That takes more than a second. Gradio skips classes whose source cannot be found, so while it is imported,
    its classes have none.
    """
    if "gradio" not in sys.modules:
        with _hidden_sources("gradio."):
            importlib.import_module("gradio")


@contextlib.contextmanager
def _hidden_sources(package: str) -> Iterator[None]:
    """Make `inspect.getfile` fail for classes of a package."""
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith(package):
            raise OSError("not now")
        return original(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = original


def patch_gradio(words: Translator) -> None:
    """Patch gradio in this process; the refusal to download an address is in these `words`."""
    import gradio as gr
    from gradio import processing_utils, queueing, route_utils, routes, utils

    def refuse(url: str, cache_dir: str) -> str:
        del cache_dir
        sentence = error_text("image_missing", {"image": str(url)[:SHOWN_CHARACTERS]}, words)
        raise gr.Error(sentence, print_exception=False)

    async def refuse_async(url: str, cache_dir: str) -> str:
        return refuse(url, cache_dir)

    processing_utils.async_ssrf_protected_download = refuse_async
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = refuse
    for module in (queueing, route_utils, routes, utils):
        module.traceback = _LoggedTraceback()
    routes.orjson = _LenientOrjson(routes.orjson)


class _LenientOrjson:
    """The module `orjson`, with Python's own `json` for what it refuses to write."""

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


class _LoggedTraceback:
    """The module `traceback`, printing to the log."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    def print_exc(self, *_: Any, **__: Any) -> None:
        logger.warning("gradio could not answer", exc_info=True)
