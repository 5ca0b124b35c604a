"""Every change that this app makes to gradio itself; `tests/faults` fails when a new version needs others.

Gradio imports in half of its time, asks no other computer for a file that somebody names, prints no traceback
on the terminal, and answers also where a text holds a lone surrogate, and on Windows after a reset.
"""

import asyncio
import importlib
import inspect
import json
import logging
import sys
import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from diffusers_helper.errors import InputError

from ..text.error_text import error_text
from ..text.translations import Translator
from ..uploads.files import SHOWN_CHARACTERS, is_share

logger = logging.getLogger(__name__)


def import_gradio_fast() -> None:
    """Import gradio without the type stubs that it would write for editors at every start.

    That takes more than a second. Gradio skips classes whose source cannot be found, so while it is imported,
    its classes have none.
    """
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("not now")
        return original(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        importlib.import_module("gradio")
    finally:
        inspect.getfile = original


def patch_gradio(words: Translator) -> None:
    """Patch gradio in this process; the refusal to download an address is in these `words`."""
    import gradio as gr
    from gradio import processing_utils, queueing, route_utils, routes, utils

    def refuse(url: str, cache_dir: str) -> str:
        del cache_dir
        error = InputError("image_missing", image=str(url)[:SHOWN_CHARACTERS])
        raise gr.Error(error_text(error, words), print_exception=False)

    async def refuse_async(url: str, cache_dir: str) -> str:
        return refuse(url, cache_dir)

    def is_static_file(file: Any) -> bool:
        if is_share(path := getattr(file, "path", file), Path(utils.get_upload_folder())):
            refuse(path, "")
        return False  # the app has none

    utils.is_static_file = is_static_file
    processing_utils.async_ssrf_protected_download = refuse_async
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = refuse
    log = partial(logger.warning, "gradio could not answer", exc_info=True)
    for module in (queueing, route_utils, routes, utils):
        module.traceback = SimpleNamespace(**vars(traceback) | {"print_exc": lambda *_, **__: log()})
    dumps = partial(_dumps, routes.orjson.dumps)
    routes.orjson = SimpleNamespace(**vars(routes.orjson) | {"dumps": dumps})
    survive_resets()


def survive_resets() -> None:
    """Take asyncio's other loop on Windows, whose own stops listening after one reset (cpython#93821)."""
    from uvicorn.loops import asyncio as loops

    if sys.platform == "win32":
        loops.asyncio_loop_factory = lambda **_: asyncio.SelectorEventLoop


def _dumps(orjson_dumps: Any, value: Any, default: Any = None, option: int | None = None) -> bytes:
    """Write JSON as `orjson` does, and with Python's own `json` what that refuses to write."""
    try:
        return bytes(orjson_dumps(value, default=default, option=option))
    except TypeError:
        return json.dumps(value, default=default).encode("ascii")
