"""What is answered where answering failed: a sentence, never a traceback."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse

from diffusers_helper.errors import EngineError, MachineError

from ..support.failures import as_engine_error

logger = logging.getLogger(__name__)


class ErrorResponse:
    """Plain ASGI. Whatever is raised behind it goes to the log, and the one who asked gets a sentence.

    Args:
        explain: makes the sentence of a failure.
        uploads: the folder that is full where a disk is.
    """

    def __init__(self, app: Any, explain: Callable[[EngineError], str], uploads: Path) -> None:
        self._app = app
        self._explain = explain
        self._uploads = uploads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        has_begun = False

        async def note_begin(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, note_begin)
        except Exception as error:
            if scope["type"] != "http":
                raise
            logger.warning("%s %r failed", scope["method"], scope["path"], exc_info=True)
            if has_begun:  # it ends here; the server sees by itself where bytes are missing
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            sentence = self._explain(self._known(error))
            await PlainTextResponse(sentence, status_code=500)(scope, receive, send)

    def _known(self, error: Exception) -> EngineError:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return MachineError("disk_full", path=str(self._uploads))
        return as_engine_error(error)
