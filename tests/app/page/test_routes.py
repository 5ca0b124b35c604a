"""The app's own addresses: what they give, to whom, and what they refuse."""

import asyncio
import json
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from diffusers_helper.events import Event, Finished, SectionDone, StageStarted, StepDone, Stopped
from tests.support.fake_app import add_job, ended, fake_app
from tests.support.queue import SOON, wait_until
from webui.eichi_utils.app import AppState
from webui.eichi_utils.jobs.job import JobSpec
from webui.eichi_utils.page.routes import OWN_HEADER, POLL_SECONDS, make_routes
from webui.eichi_utils.text.translations import LANGUAGES, Translator

EVENTS = "/ichi/events"
OURS = {OWN_HEADER: "1"}
VIDEO = b"the video"


class Pretender:
    """Shows a preview and a video so far, waits until it may go on, then leaves a video."""

    def __init__(self) -> None:
        self.go_on = threading.Semaphore(0)

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        spec.folder.mkdir(exist_ok=True)
        part, video = spec.folder / f"{spec.name}.part.mp4", spec.folder / f"{spec.name}.mp4"
        yield StageStarted("sampling", 0)
        yield StepDone(0, 1, 1, 2, True, np.full((4, 36, 3), 200, np.uint8))
        part.write_bytes(b"so far")
        yield SectionDone(0, 1, 36, part)
        while not self.go_on.acquire(timeout=0.02):
            if stop.is_set():
                yield Stopped(None, 0, 1)
                return
        video.write_bytes(VIDEO)
        yield Finished(video, 37, 37 / 30, 64, 64, 1.0)
        part.unlink()


@pytest.fixture
def pretender() -> Pretender:
    return Pretender()


@pytest.fixture
def app(tmp_path, pretender) -> Iterator[AppState]:
    with fake_app(tmp_path, pretender) as app:
        yield app


@pytest.fixture
def client(app) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=make_routes(app))) as client:
        yield client


@pytest.fixture
def running(app) -> str:
    """The id of a job that shows a video so far and waits."""
    job_id = add_job(app)
    wait_until(app.queue, lambda view: view.running and view.running.video)
    return job_id


@pytest.fixture
def done(app, pretender, running) -> str:
    pretender.go_on.release()
    ended(app, running)
    return running


# -- files of jobs -----------------------------------------------------------------------------------


def test_hello_identifies_the_app(client, app):
    assert client.get("/ichi/hello").json() == {"app": "endframe-ichi", "server": app.server_id}


def test_preview_and_thumbnail_are_pictures_that_browsers_keep(client, running):
    kept = {"content-type": "image/webp", "cache-control": "private, max-age=3600"}
    kept |= {"x-content-type-options": "nosniff"}
    for what in ("preview/1", "thumbnail"):
        answer = client.get(f"/ichi/jobs/{running}/{what}")
        assert (answer.status_code, answer.content[:4]) == (200, b"RIFF")
        assert kept.items() <= dict(answer.headers).items()


def test_the_partial_and_then_the_finished_video_are_served(client, app, pretender, running):
    waiting = add_job(app)
    answer = client.get(f"/ichi/jobs/{running}/video/36.mp4")
    assert (answer.content, answer.headers["content-type"]) == (b"so far", "video/mp4")
    paths = ("thumbnail", "preview/1", "video/37.mp4")
    codes = [client.get(f"/ichi/jobs/{waiting}/{path}").status_code for path in paths]
    assert codes == [200, 204, 404], "a waiting job has a thumbnail alone"
    pretender.go_on.release()
    ended(app, running)
    assert client.get(f"/ichi/jobs/{running}/video/37.mp4").content == VIDEO
    codes = [client.get(f"/ichi/jobs/{running}/{path}").status_code for path in paths]
    assert codes == [200, 204, 200], "a page may have asked for the preview a moment before"
    video = app.queue.find(running).video
    video.rename(video.with_suffix(".old"))
    assert client.get(f"/ichi/jobs/{running}/video/37.mp4").status_code == 404


def test_players_can_ask_for_a_part_of_a_video(client, done):
    path = f"/ichi/jobs/{done}/video/37.mp4"
    for asked, first, last in (("0-", 0, 8), ("2-5", 2, 5), ("-3", 6, 8)):
        answer = client.get(path, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, VIDEO[first : last + 1])
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(VIDEO)}"
    assert client.get(path, headers={"Range": "bytes=50-"}).status_code == 416


NO_JOBS = (
    *("0123456789abcdef", "x", "%00", "..", "%2e%2e", "..%2f..%2fsettings", "..%5c..", "%2fetc%2fpasswd"),
    *("C:%5cWindows", "job_0123456789abcdef", "\U0001f431", "a" * 5000),
)
NO_NUMBERS = ("x", "-1", "1.5", "1/../../../../../settings/app_settings", "%2e%2e")


def test_nothing_but_files_of_jobs_is_served(client, app, done):
    app.settings.update(steps=20)
    paths = [f"{job}/{what}" for job in NO_JOBS for what in ("thumbnail", "preview/1", "video/1.mp4")]
    paths += [f"{done}/video/{number}.mp4" for number in NO_NUMBERS]
    video = app.queue.find(done).video
    (other := video.with_name("private.mp4")).write_bytes(b"private")
    for name in (other.name, other.stem, video.name, f"../{other.name}", f"..%2f{other.name}"):
        paths += [f"{name}/video/37.mp4", f"../{name}", name, f"{done}/{name}"]
    assert {client.get(f"/ichi/jobs/{path}").status_code for path in paths} <= {404, 405}


# -- actions -----------------------------------------------------------------------------------------


def test_an_action_needs_the_pages_own_header_and_a_known_name(client, app, running):
    waiting = [add_job(app), add_job(app)]
    before = app.queue.version
    for job in (running, *waiting):
        for action in ("remove", "up", "stop"):
            assert client.post(f"/ichi/jobs/{job}/{action}").status_code == 403
            assert client.get(f"/ichi/jobs/{job}/{action}", headers=OURS).status_code == 405
    for action in ("start", "cancel"):
        assert client.post(f"/ichi/download/{action}").status_code == 403
    for action in ("add", "close", "__class__", "REMOVE", "view"):
        for path in (f"jobs/{running}", "download"):
            assert client.post(f"/ichi/{path}/{action}", headers=OURS).status_code == 404
    assert app.queue.version == before
    assert app.preflight.download.view().state == "idle"


def test_jobs_can_be_moved_up_removed_and_stopped(client, app, running):
    first, second = add_job(app), add_job(app)

    def act(job: str, action: str) -> bool:
        answer = client.post(f"/ichi/jobs/{job}/{action}", headers=OURS).json()
        return bool(answer["done"])

    assert act(second, "up")
    assert [job.id for job in app.queue.view().waiting] == [second, first]
    assert act(second, "remove")
    assert act(first, "remove")
    assert act(running, "stop")
    assert ended(app, running).state == "stopped"
    version = app.queue.version
    gone = [act(job, action) for job in (first, "0123456789abcdef") for action in ("remove", "up", "stop")]
    assert gone == [False] * 6
    assert app.queue.version == version


# -- the stream --------------------------------------------------------------------------------------


async def stream(app: AppState, query: str = "lang=en") -> StreamingResponse:
    """The answer to a page that listens."""
    (route,) = [route for route in make_routes(app) if isinstance(route, Route) and route.path == EVENTS]
    answer: StreamingResponse = await route.endpoint(
        Request({"type": "http", "query_string": query.encode()})
    )
    return answer


async def message(page: StreamingResponse) -> str:
    """The next piece of the stream."""
    return str(await asyncio.wait_for(anext(page.body_iterator), SOON))


async def until(page: StreamingResponse, is_so: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The next state of the stream of which something is so."""
    while True:
        text = await message(page)
        assert text.endswith("\n\n")
        assert "\n" not in text[:-2], "a line end inside would cut the message"
        if text.startswith("data: ") and is_so(state := json.loads(text[6:])):
            return dict(state)


def anything(_: object) -> bool:
    return True


def test_a_page_gets_the_whole_state_in_its_language(app, running):
    async def listen() -> None:
        for query in (*(f"lang={language}" for language in LANGUAGES), "", "lang=xx", "lang=../../etc"):
            page = await stream(app, query)
            state = await until(page, anything)
            assert (state["server"], state["job"]["id"]) == (app.server_id, running)
            language = query.removeprefix("lang=")
            words = Translator(language if language in LANGUAGES else "en")
            assert state["words"]["live.queue"] == words("live.queue")
            assert str(app.home) not in json.dumps(state), "paths of this computer are no page's business"
            assert page.headers["content-type"].startswith("text/event-stream")
            assert page.headers["cache-control"] == "no-store"
            later = await until(page, anything)
            assert later["version"] == state["version"], "nothing has changed but the time left"

    asyncio.run(listen())


def test_a_page_is_sent_every_change_and_nothing_else(app, pretender):
    prompt = "a\r\nb\u2028c\x00\n\ndata: {}\n\n\U0001f431\u732b"

    async def listen() -> None:
        page = await stream(app)
        assert (await until(page, anything))["job"] is None
        waiting = asyncio.create_task(message(page))
        await asyncio.sleep(4 * POLL_SECONDS)
        assert not waiting.done(), "nothing has changed"
        job = await asyncio.to_thread(add_job, app, prompt=prompt)
        await waiting
        state = await until(page, lambda state: state["results"])
        assert state["job"]["id"] == job
        assert state["job"]["label"].endswith("data: {} \U0001f431\u732b"), "line ends break no message"
        app.settings.update(sound=False)
        await until(page, lambda state: state["sound"] is False)
        pretender.go_on.release()
        state = await until(page, lambda state: state["job"] is None)
        assert state["results"][0]["complete"]

    asyncio.run(listen())


def test_fifty_pages_see_the_same_until_the_app_closes(app, client):
    async def listen() -> None:
        pages = [await stream(app) for _ in range(50)]
        job = await asyncio.to_thread(add_job, app)
        states = [await until(page, lambda state: state["results"]) for page in pages]
        assert {state["job"]["id"] for state in states} == {job}
        assert len({json.dumps(state["job"]) for state in states}) == 1
        app.closing.set()
        for page in pages:
            with pytest.raises(StopAsyncIteration):
                await until(page, lambda _: False)

    asyncio.run(listen())
    answer = client.get(f"{EVENTS}?lang=en")
    assert (answer.status_code, answer.content) == (200, b""), "a stream that begins now ends at once"


def test_a_quiet_stream_is_kept_alive(app, monkeypatch):
    monkeypatch.setattr("webui.eichi_utils.page.routes.KEEP_ALIVE_SECONDS", 2 * POLL_SECONDS)

    async def listen() -> None:
        page = await stream(app)
        await until(page, anything)
        assert (await message(page)).startswith(":"), "a comment: no message to the page"

    asyncio.run(listen())
