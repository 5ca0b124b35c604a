"""The app's own routes below `/ichi/`: live state, previews, videos, actions on jobs and the download.

Serves files of jobs by the job's id, never by a path. Everything that changes something demands a header
that a foreign web page cannot send without being asked first.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from diffusers_helper.errors import EngineError

from ..app import AppState
from ..desktop import show_in_file_manager
from ..jobs.pictures import make_preview
from ..text.translations import Translator
from . import messages
from .state import page_state

STATIC = Path(__file__).resolve().parents[2] / "static"
SAMPLE = Path(__file__).resolve().parents[3] / "examples" / "coffee.png"
"""The picture that an empty stage offers."""
POLL_SECONDS = 0.15
"""Seconds between two checks of the queue's version, for each open page."""
KEEP_ALIVE_SECONDS = 15
OWN_HEADER = "X-Endframe-Ichi"
NO_STORE = {"Cache-Control": "no-store"}
CACHEABLE = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}


def static_html(name: str) -> str:
    """Return a part of the page that its script brings to life."""
    return (STATIC / name).read_text("utf-8")


def make_routes(app: AppState) -> list[BaseRoute]:
    """Return the routes that the server asks before gradio's."""
    routes = _Routes(app)
    return [
        Route("/ichi/hello", routes.hello),
        Route("/ichi/events", routes.events),
        Route("/ichi/stream.js", routes.stream_script),
        Route("/ichi/sample", routes.sample),
        Route("/ichi/download/{action}", routes.act_on_download, methods=["POST"]),
        Route("/ichi/outdated/{action}", routes.act_on_outdated, methods=["POST"]),
        Route("/ichi/recent/{video}/thumbnail", routes.recent_thumbnail),
        Route("/ichi/recent/{video}/video.mp4", routes.recent_video),
        Route("/ichi/recent/{video}/{action}", routes.act_on_recent, methods=["POST"]),
        Route("/ichi/jobs/{job}/preview/{number:int}", routes.preview),
        Route("/ichi/jobs/{job}/thumbnail", routes.thumbnail),
        Route("/ichi/jobs/{job}/video/{number:int}.mp4", routes.video),
        Route("/ichi/jobs/{job}/{action}", routes.act_on_job, methods=["POST"]),
        Route("/ichi/queue/{action}", routes.act_on_queue, methods=["POST"]),
        Route("/ichi/form", routes.keep_form, methods=["POST"]),
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

    async def sample(self, _: Request) -> Response:
        return FileResponse(SAMPLE, media_type="image/png", headers=CACHEABLE)

    async def no_heartbeat(self, _: Request) -> Response:
        """Close gradio's heartbeat: with its connection for each tab, of the six that a browser opens, the
        third tab would wait for ever."""
        return Response(status_code=204, headers=NO_STORE)

    async def preview(self, request: Request) -> Response:
        job = self._app.queue.find(request.path_params["job"])
        if job is None or job.preview is None:
            return _picture(None)
        return _picture(await asyncio.to_thread(make_preview, job.preview))

    async def thumbnail(self, request: Request) -> Response:
        job = self._app.queue.find(request.path_params["job"])
        return _picture(None if job is None else job.thumbnail)

    async def video(self, request: Request) -> Response:
        job = self._app.queue.find(request.path_params["job"])
        if job is None or job.video is None or not os.path.isfile(job.video):  # noqa: PTH113  (is_file may raise)
            return Response(status_code=404)
        return FileResponse(job.video, media_type="video/mp4", headers=CACHEABLE)

    async def recent_thumbnail(self, request: Request) -> Response:
        return _picture(await asyncio.to_thread(self._app.recent.thumbnail, request.path_params["video"]))

    async def recent_video(self, request: Request) -> Response:
        video = self._app.recent.find(request.path_params["video"])
        if video is None or not os.path.isfile(video.path):  # noqa: PTH113
            return Response(status_code=404)
        return FileResponse(video.path, media_type="video/mp4", headers=CACHEABLE)

    async def act_on_recent(self, request: Request) -> Response:
        """Show one of the newest videos in its folder."""
        video = self._app.recent.find(request.path_params["video"])
        if video is None:
            return Response(status_code=404)
        return await self._act(request, {"folder": lambda: self._show_in_folder(video.path, request)})

    def _show_in_folder(self, path: Path, request: Request) -> object:
        """Show a file on this computer's screen; where that cannot be seen, tell where it is."""
        is_shown = self._app.is_private and show_in_file_manager(path)
        return is_shown or messages.note(self._words(request)("page.folder_is", path=path.parent))

    async def act_on_job(self, request: Request) -> Response:
        """Act on a job; `restore` takes several ids, parted by commas."""
        queue, job, words = self._app.queue, request.path_params["job"], self._words(request)
        undo = words("live.undo"), f"jobs/{job}/restore"
        removed = {name: messages.note(words(f"live.{name}"), undo) for name in ("removed", "discarded")}
        late = {"keep": "live.stops_already", "restore": "live.undo_too_late"}
        actions: dict[str, Callable[[], object]] = {
            "remove": lambda: queue.remove(job) and (queue.find(job) is not None or removed["removed"]),
            "up": lambda: queue.move_up(job),
            "stop": lambda: queue.stop(job),
            "keep": lambda: queue.keep_going(job),
            "finish": lambda: queue.finish(job),
            "short": lambda: queue.finish(job, short=True),
            "discard": lambda: queue.discard(job) and removed["discarded"],
            "restore": lambda: queue.restore(job.split(",")),
            "folder": lambda: self._show_job(job, request),
        }
        return await self._act(request, actions, late)

    def _show_job(self, job_id: str, request: Request) -> object:
        job = self._app.queue.find(job_id)
        if job is None or job.state != "done" or job.video is None:
            return False
        return self._show_in_folder(job.video, request)

    async def act_on_queue(self, request: Request) -> Response:
        """Act on all that wait."""
        words = self._words(request)

        def clear() -> object:
            cleared = self._app.queue.clear()
            undo = words("live.undo"), f"jobs/{','.join(cleared)}/restore"
            return cleared and messages.note(words("live.cleared", count=len(cleared)), undo)

        return await self._act(request, {"clear": clear})

    async def keep_form(self, request: Request) -> Response:
        """Remember what a form holds beside the settings."""
        if OWN_HEADER not in request.headers:
            return Response(status_code=403)
        form = (await request.body()).decode("utf-8", "replace")
        await asyncio.to_thread(self._app.keep_form, form)
        return Response(status_code=204, headers=NO_STORE)

    async def act_on_download(self, request: Request) -> Response:
        download = self._app.preflight.download
        actions = {"start": download.start, "cancel": download.cancel}
        return await self._act(request, actions)

    async def act_on_outdated(self, request: Request) -> Response:
        """Delete the 8-bit weights that an earlier version has left."""
        return await self._act(request, {"delete": self._app.preflight.delete_outdated})

    def _words(self, request: Request) -> Translator:
        return self._app.translator(request.query_params.get("lang", ""))

    async def _act(
        self,
        request: Request,
        actions: Mapping[str, Callable[[], object]],
        late: Mapping[str, str] = MappingProxyType({}),
    ) -> Response:
        """Do what the page asks for. The answer tells whether that was done, and what the page says of it: an
        action's text, why it was not possible, or that it comes too `late` (keys of texts)."""
        if OWN_HEADER not in request.headers:
            return Response(status_code=403)
        action = actions.get(name := request.path_params["action"])
        if action is None:
            return Response(status_code=404)
        try:
            result = await asyncio.to_thread(action)
            answer: dict[str, Any] = {"done": bool(result)}
            if isinstance(result, str):
                answer["said"] = result
            elif not result and name in late:
                answer["said"] = messages.note(self._words(request)(late[name]))
        except EngineError as error:
            answer = {"done": False, "said": messages.problem(error, self._words(request))}
        return JSONResponse(answer, headers=NO_STORE)


async def _states(app: AppState, words: Translator) -> AsyncIterator[str]:
    """The state whenever it changed, for as long as the page listens; the time left while a job runs."""
    seen: object = None
    is_running, quiet = False, 0.0
    while not app.closing.is_set():
        preflight, sound = app.preflight.view(), app.settings.load()["sound"]
        trouble = app.trouble
        seconds = int(time.monotonic()) if is_running else 0
        recent, gone = app.recent.view(), app.recent.gone
        now = (app.queue.version, preflight, sound, trouble and trouble.code, recent, gone, seconds)
        if now != seen:
            view = app.queue.view().without(gone)
            is_running = view.running is not None
            seen, quiet = now, 0.0
            speed = app.speed.speeds.get(app.settings.load()["machine"])
            named = {"server": app.server_id, "sound": sound, "trouble": trouble, "speed": speed}
            state = page_state(view, preflight, words, recent=recent, **named)
            yield f"data: {json.dumps(state, ensure_ascii=False)}\n\n"
        elif quiet >= KEEP_ALIVE_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"  # a connection that has died is noticed by writing to it
        await asyncio.sleep(POLL_SECONDS)
        quiet += POLL_SECONDS
    app.has_open_pages.set()


def _picture(content: bytes | None) -> Response:
    """Answer with a WebP picture; one that went while the page was asking for it is no error."""
    if content is None:
        return Response(status_code=204, headers=NO_STORE)
    return Response(content, media_type="image/webp", headers=CACHEABLE)
