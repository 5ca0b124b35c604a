"""The response to a request whose handler failed: a sentence, never a traceback."""

import logging
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse

from diffusers_helper.errors import EngineError, MachineError
from diffusers_helper.public import DISK_FULL

from ..support.failures import as_engine_error
from ..text.error_text import error_text
from ..text.translations import Translator

logger = logging.getLogger(__name__)


class ErrorResponse:
    """Plain ASGI. Logs whatever is raised behind it, and answers with a sentence in these `words`.

    `uploads` is the folder to name where a disk is full.
    """

    def __init__(self, app: Any, words: Translator, uploads: Path) -> None:
        self._app = app
        self._words = words
        self._uploads = uploads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        has_begun = False

        async def note_begin(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, note_begin)
        except Exception as caught:
            if scope["type"] != "http":
                raise
            logger.warning("%s %r failed", scope["method"], scope["path"], exc_info=True)
            if has_begun:  # it ends here; the server notices missing bytes
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            error = self._with_code(caught)
            sentence = error_text(error.code, error.values, self._words)
            await PlainTextResponse(sentence, status_code=500)(scope, receive, send)

    def _with_code(self, error: Exception) -> EngineError:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return MachineError("disk_full", path=str(self._uploads))
        return as_engine_error(error)
