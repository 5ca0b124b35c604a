"""Every change that this app makes to gradio itself; `tests/faults` fails when a new version needs others.

Gradio imports in half of its time, asks no other computer for a file that somebody names, prints no traceback
on the terminal, starts on a busy computer, and answers also where a text holds a lone surrogate, where many
connections send nothing, and on Windows after a reset.
"""

import asyncio
import importlib
import inspect
import json
import logging
import sys
import time
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

MAX_CONNECTIONS = 250
"""Connections at a time; a browser opens six at most. A process may often open 1024 files."""
BACKLOG = 64
"""Connections that are accepted at a time, before the oldest can end: a few times as many may be open beyond
`MAX_CONNECTIONS`. Windows' `select` takes 512."""


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
    from gradio import networking, processing_utils, queueing, route_utils, routes, utils

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

    is_reachable = networking.url_ok

    def is_local_or_reachable(url: str) -> bool:
        """Gradio gives its own page three seconds, which a busy computer exceeds; it has answered before."""
        return url.startswith("http://") or is_reachable(url)

    networking.url_ok = is_local_or_reachable
    utils.is_static_file = is_static_file
    processing_utils.async_ssrf_protected_download = refuse_async
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = refuse
    for module in (queueing, route_utils, routes, utils):
        module.traceback = SimpleNamespace(**vars(traceback) | {"print_exc": lambda *_, **__: _log_failure()})
    dumps = partial(_dumps, routes.orjson.dumps)
    routes.orjson = SimpleNamespace(**vars(routes.orjson) | {"dumps": dumps})
    survive_resets()
    limit_connections()


def _log_failure() -> None:
    """Log what gradio could not answer without the error's own words, which repeat what was sent."""
    error = sys.exc_info()[1]
    if error is not None:
        places = "".join(traceback.format_tb(error.__traceback__))
        logger.warning("gradio could not answer: %s\n%s", type(error).__name__, places)


def limit_connections() -> None:
    """Keep connections that send nothing from taking all files that this process may open.

    Over `MAX_CONNECTIONS`, the oldest ends that has not sent a request yet, for whoever comes now.
    """
    from gradio import http_server
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.since = time.monotonic()
            others: set[Any] = self.connections - {self}
            if len(others) >= MAX_CONNECTIONS:
                silent = (other for other in others if other.cycle is None)
                waiting = (other for other in silent if not other.transport.is_closing())
                min(waiting, key=lambda other: other.since, default=self).transport.abort()

    uvicorn = http_server.uvicorn
    config = partial(uvicorn.Config, http=LimitedProtocol, backlog=BACKLOG)
    http_server.uvicorn = SimpleNamespace(**vars(uvicorn) | {"Config": config})


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
