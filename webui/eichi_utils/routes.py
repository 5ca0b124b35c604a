"""The app's own addresses below `/ichi/`: live state, previews, videos, and what is done to a waiting job.

Serves files of jobs by the job's id, never by a path. Everything that changes something demands a header
that a foreign web page cannot send without being asked first.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from .app_state import AppState
from .live import page_state
from .translations import Translator

LOOK_SECONDS = 0.15
"""How often the queue's version is looked at for each open page."""
SIGN_OF_LIFE_SECONDS = 15
OWN_HEADER = "X-Endframe-Ichi"
NO_STORE = {"Cache-Control": "no-store"}
KEEP = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}


def make_routes(app: AppState) -> list[BaseRoute]:
    """Routes for the server, in front of gradio's."""

    async def events(request: Request) -> Response:
        language = request.query_params.get("lang", "")
        words = app.words(language)
        return StreamingResponse(_states(app, words), media_type="text/event-stream", headers=NO_STORE)

    async def hello(_: Request) -> Response:
        return JSONResponse({"app": "endframe-ichi", "server": app.server_id}, headers=NO_STORE)

    async def preview(request: Request) -> Response:
        return _picture(await asyncio.to_thread(app.queue.preview, request.path_params["job"]))

    async def thumbnail(request: Request) -> Response:
        return _picture(app.queue.thumbnail(request.path_params["job"]))

    async def video(request: Request) -> Response:
        job = app.queue.find(request.path_params["job"])
        if job is None or job.video is None or not job.video.is_file():
            return Response(status_code=404)
        return FileResponse(job.video, media_type="video/mp4", headers=KEEP)

    async def act(request: Request) -> Response:
        if OWN_HEADER not in request.headers:
            return Response(status_code=403)
        actions = {"remove": app.queue.remove, "up": app.queue.move_up, "stop": app.queue.stop}
        action = actions.get(request.path_params["action"])
        if action is None:
            return Response(status_code=404)
        done = await asyncio.to_thread(action, request.path_params["job"])
        return JSONResponse({"done": done}, headers=NO_STORE)

    return [
        Route("/ichi/hello", hello),
        Route("/ichi/events", events),
        Route("/ichi/jobs/{job}/preview/{number:int}", preview),
        Route("/ichi/jobs/{job}/thumbnail", thumbnail),
        Route("/ichi/jobs/{job}/video/{number:int}.mp4", video),
        Route("/ichi/jobs/{job}/{action}", act, methods=["POST"]),
    ]


async def _states(app: AppState, words: Translator) -> AsyncIterator[str]:
    """The state whenever it changed, for as long as the page listens; the time left while a job runs."""
    seen: object = None
    is_running, quiet = False, 0.0
    while not app.closing.is_set():
        now = (app.queue.version, app.sound, int(time.monotonic()) if is_running else 0)
        if now != seen:
            view = app.queue.view()
            is_running = view.running is not None
            seen, quiet = now, 0.0
            state = page_state(view, words, server=app.server_id, sound=app.sound)
            yield f"data: {json.dumps(state, ensure_ascii=False)}\n\n"
        elif quiet >= SIGN_OF_LIFE_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"  # a connection that has died is noticed by writing to it
        await asyncio.sleep(LOOK_SECONDS)
        quiet += LOOK_SECONDS


def _picture(content: bytes | None) -> Response:
    if content is None:
        return Response(status_code=404)
    return Response(content, media_type="image/webp", headers=KEEP)
