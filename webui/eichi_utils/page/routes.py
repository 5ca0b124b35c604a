"""The app's own routes below `/ichi/`: live state, previews, videos, actions on jobs and the download.

Serves files of jobs by the job's id, never by a path. Everything that changes something demands a header
that a foreign web page cannot send without being asked first.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ..app import AppState
from ..jobs.pictures import make_preview
from ..text.translations import Translator
from .state import page_state

STATIC = Path(__file__).resolve().parents[2] / "static"
POLL_SECONDS = 0.15
"""Seconds between two checks of the queue's version, for each open page."""
KEEP_ALIVE_SECONDS = 15
OWN_HEADER = "X-Endframe-Ichi"
NO_STORE = {"Cache-Control": "no-store"}
CACHEABLE = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}


def make_routes(app: AppState) -> list[BaseRoute]:
    """Return the routes that the server asks before gradio's."""
    routes = _Routes(app)
    return [
        Route("/ichi/hello", routes.hello),
        Route("/ichi/events", routes.events),
        Route("/ichi/stream.js", routes.stream_script),
        Route("/ichi/download/{action}", routes.act_on_download, methods=["POST"]),
        Route("/ichi/jobs/{job}/preview/{number:int}", routes.preview),
        Route("/ichi/jobs/{job}/thumbnail", routes.thumbnail),
        Route("/ichi/jobs/{job}/video/{number:int}.mp4", routes.video),
        Route("/ichi/jobs/{job}/{action}", routes.act_on_job, methods=["POST"]),
        Route("/gradio_api/heartbeat/{session}", routes.no_heartbeat),
    ]


class _Routes:
    """The handlers of the routes."""

    def __init__(self, app: AppState) -> None:
        self._app = app

    async def hello(self, _: Request) -> Response:
        """Identify the app, so that a second start finds the first."""
        return JSONResponse({"app": "endframe-ichi", "server": self._app.server_id}, headers=NO_STORE)

    async def events(self, request: Request) -> Response:
        """The live state, for as long as the page listens."""
        words = self._app.translator(request.query_params.get("lang", ""))
        return StreamingResponse(_states(self._app, words), media_type="text/event-stream", headers=NO_STORE)

    async def stream_script(self, _: Request) -> Response:
        """The worker that lets all tabs of a browser share a stream; workers need an address of their own."""
        return FileResponse(STATIC / "stream.js", media_type="text/javascript", headers=NO_STORE)

    async def no_heartbeat(self, _: Request) -> Response:
        """Close gradio's heartbeat: with its connection for each tab, of the six that a browser opens, the
        third tab would wait for ever."""
        return Response(status_code=204, headers=NO_STORE)

    async def preview(self, request: Request) -> Response:
        job = self._app.queue.find(request.path_params["job"])
        if job is None:
            return _picture(None)
        if job.preview is None:  # it ended while the page was asking
            return Response(status_code=204, headers=NO_STORE)
        return _picture(await asyncio.to_thread(make_preview, job.preview))

    async def thumbnail(self, request: Request) -> Response:
        job = self._app.queue.find(request.path_params["job"])
        return _picture(None if job is None else job.thumbnail)

    async def video(self, request: Request) -> Response:
        job = self._app.queue.find(request.path_params["job"])
        if job is None or job.video is None or not job.video.is_file():
            return Response(status_code=404)
        return FileResponse(job.video, media_type="video/mp4", headers=CACHEABLE)

    async def act_on_job(self, request: Request) -> Response:
        queue, job = self._app.queue, request.path_params["job"]
        actions: dict[str, Callable[[str], bool]] = {
            "remove": queue.remove,
            "up": queue.move_up,
            "stop": queue.stop,
            "finish": queue.finish,
            "short": partial(queue.finish, short=True),
            "discard": queue.discard,
        }
        return await _act(request, {name: partial(action, job) for name, action in actions.items()})

    async def act_on_download(self, request: Request) -> Response:
        download = self._app.preflight.download
        actions = {"start": download.start, "cancel": download.cancel}
        return await _act(request, actions)


async def _act(request: Request, actions: Mapping[str, Callable[[], bool]]) -> Response:
    if OWN_HEADER not in request.headers:
        return Response(status_code=403)
    action = actions.get(request.path_params["action"])
    if action is None:
        return Response(status_code=404)
    return JSONResponse({"done": await asyncio.to_thread(action)}, headers=NO_STORE)


async def _states(app: AppState, words: Translator) -> AsyncIterator[str]:
    """The state whenever it changed, for as long as the page listens; the time left while a job runs."""
    seen: object = None
    is_running, quiet = False, 0.0
    while not app.closing.is_set():
        preflight, sound = app.preflight.view(), app.settings.load()["sound"]
        now = (app.queue.version, preflight, sound, int(time.monotonic()) if is_running else 0)
        if now != seen:
            view = app.queue.view()
            is_running = view.running is not None
            seen, quiet = now, 0.0
            state = page_state(view, preflight, words, server=app.server_id, sound=sound)
            yield f"data: {json.dumps(state, ensure_ascii=False)}\n\n"
        elif quiet >= KEEP_ALIVE_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"  # a connection that has died is noticed by writing to it
        await asyncio.sleep(POLL_SECONDS)
        quiet += POLL_SECONDS


def _picture(content: bytes | None) -> Response:
    if content is None:
        return Response(status_code=404)
    return Response(content, media_type="image/webp", headers=CACHEABLE)
