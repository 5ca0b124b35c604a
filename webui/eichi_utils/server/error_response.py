"""The response to a request whose handler failed: a sentence, never a traceback."""

import logging
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.public import DISK_CODES

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
        answer = _HeldStart(send)
        try:
            await self._app(scope, receive, answer)
            await answer.begin()
        except Exception as caught:
            if scope["type"] != "http":
                raise
            logger.warning("%s %r failed", scope["method"], scope["path"], exc_info=True)
            if answer.has_begun:  # it ends here; the server notices missing bytes
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            # Starlette raises another error where the file is gone before the answer's start.
            missed = caught.__context__ if isinstance(caught, RuntimeError) else answer.start and caught
            status, error = 500, as_engine_error(caught)
            if isinstance(missed, FileNotFoundError):
                status, error = 404, InputError("image_missing", image=scope["path"].rpartition("/")[2])
            elif isinstance(caught, OSError) and caught.errno in DISK_CODES:
                error = MachineError(DISK_CODES[caught.errno], path=str(self._uploads))
            await PlainTextResponse(error_text(error, self._words), status)(scope, receive, send)


class _HeldStart:
    """A `send` that holds the start of an answer until its first bytes come.

    A file may be deleted in between, as an upload is that is refused while a page fetches its preview.
    """

    def __init__(self, send: Any) -> None:
        self.has_begun = False
        self.start: Any = None
        self._send = send

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            await self.begin()
            await self._send(message)

    async def begin(self) -> None:
        """Send the start, if one is held."""
        if self.start is not None:
            start, self.start, self.has_begun = self.start, None, True
            await self._send(start)
