"""The app's own addresses: what they give, to whom, and what they refuse."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from diffusers_helper.events import Event, Finished, SectionDone, StageStarted, StepDone, Stopped
from tests.support.fake_app import add_job, ended, fake_app, wait_for
from tests.support.queue import SOON
from webui.eichi_utils.app import AppState
from webui.eichi_utils.jobs.queue import JobSpec
from webui.eichi_utils.page.routes import LOOK_SECONDS, OWN_HEADER, make_routes
from webui.eichi_utils.text.translations import LANGUAGES, Translator

OURS = {OWN_HEADER: "1"}
VIDEO = bytes(range(256)) * 8
WEBP = "image/webp"


class Pretender:
    """Shows a preview and a video so far, waits until it may go on, then leaves a video."""

    def __init__(self) -> None:
        self.go_on = threading.Semaphore(0)

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Iterator[Event]:
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
    wait_for(app, lambda view: view.running and view.running.video)
    return job_id


@pytest.fixture
def done(app, pretender, running) -> str:
    pretender.go_on.release()
    ended(app, running)
    return running


# -- files of jobs -----------------------------------------------------------------------------------


def test_a_second_start_recognises_the_app(client, app):
    assert client.get("/ichi/hello").json() == {"app": "endframe-ichi", "server": app.server_id}


def test_the_running_jobs_preview_and_thumbnail_are_pictures_that_browsers_keep(client, running):
    for what in ("preview/1", "thumbnail"):
        answer = client.get(f"/ichi/jobs/{running}/{what}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, WEBP)
        assert answer.content[:4] == b"RIFF"
        assert "max-age" in answer.headers["cache-control"]
        assert "public" not in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_job_that_has_ended_has_no_preview_any_more(client, done):
    answer = client.get(f"/ichi/jobs/{done}/preview/1")
    assert (answer.status_code, answer.content) == (204, b""), "a page may have asked a moment before"
    assert client.get(f"/ichi/jobs/{done}/thumbnail").status_code == 200


def test_the_video_so_far_and_then_the_finished_one_are_served(client, app, pretender, running):
    answer = client.get(f"/ichi/jobs/{running}/video/36.mp4")
    assert (answer.content, answer.headers["content-type"]) == (b"so far", "video/mp4")
    pretender.go_on.release()
    ended(app, running)
    assert client.get(f"/ichi/jobs/{running}/video/37.mp4").content == VIDEO


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-", 0, 2047),
        ("bytes=100-199", 100, 199),
        ("bytes=-48", 2000, 2047),
        ("bytes=2000-9999", 2000, 2047),
    ],
)
def test_a_part_of_a_video_can_be_asked_for_as_players_do(client, done, asked, first, last):
    answer = client.get(f"/ichi/jobs/{done}/video/37.mp4", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(VIDEO)}"
    assert answer.content == VIDEO[first : last + 1]


def test_a_part_behind_the_videos_end_is_refused(client, done):
    answer = client.get(f"/ichi/jobs/{done}/video/37.mp4", headers={"Range": "bytes=5000-"})
    assert answer.status_code == 416


def test_a_video_that_was_moved_away_is_not_found(client, app, done):
    video = app.queue.find(done).video
    video.rename(video.with_suffix(".old"))
    assert client.get(f"/ichi/jobs/{done}/video/37.mp4").status_code == 404


@pytest.mark.usefixtures("running")
def test_a_waiting_job_has_a_thumbnail_and_nothing_else(client, app):
    waiting = add_job(app)
    assert client.get(f"/ichi/jobs/{waiting}/thumbnail").status_code == 200
    assert client.get(f"/ichi/jobs/{waiting}/preview/1").status_code == 204
    assert client.get(f"/ichi/jobs/{waiting}/video/37.mp4").status_code == 404


@pytest.mark.parametrize(
    "job",
    [
        "0123456789abcdef",
        "x",
        "%00",
        "..",
        "%2e%2e",
        "..%2f..%2fsettings",
        "..%5c..",
        "%2fetc%2fpasswd",
        "C:%5cWindows",
        "job_0123456789abcdef",
        "\U0001f431",
        "a" * 5000,
    ],
)
@pytest.mark.parametrize("what", ["thumbnail", "preview/1", "video/1.mp4"])
@pytest.mark.usefixtures("done")
def test_what_is_no_jobs_id_is_not_found(client, job, what):
    assert client.get(f"/ichi/jobs/{job}/{what}").status_code == 404


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "1/../../../../../settings/app_settings", "%2e%2e"])
def test_what_is_no_number_of_a_video_is_not_found(client, app, done, number):
    app.settings.update(steps=20)
    assert client.get(f"/ichi/jobs/{done}/video/{number}.mp4").status_code == 404


def test_nothing_but_the_videos_of_jobs_is_served_of_the_output_folder(client, app, done):
    video = app.queue.find(done).video
    other = video.with_name("private.mp4")
    other.write_bytes(b"private")
    for name in (other.name, other.stem, video.name, f"../{other.name}", f"..%2f{other.name}"):
        for address in (f"/ichi/{name}", f"/ichi/jobs/{name}", f"/ichi/jobs/{done}/{name}"):
            assert client.get(address).status_code in (404, 405)
        assert client.get(f"/ichi/jobs/{name}/video/37.mp4").status_code == 404


# -- actions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["remove", "up", "stop"])
def test_an_action_without_the_pages_own_header_is_refused(client, app, running, action):
    waiting = [add_job(app), add_job(app)]
    before = app.queue.version
    for job in (running, *waiting):
        assert client.post(f"/ichi/jobs/{job}/{action}").status_code == 403
        assert client.get(f"/ichi/jobs/{job}/{action}", headers=OURS).status_code == 405
    assert app.queue.version == before


def test_a_download_without_the_pages_own_header_is_refused(client, app):
    for action in ("start", "cancel"):
        assert client.post(f"/ichi/download/{action}").status_code == 403
    assert app.setup.download.view().state == "idle"
    assert client.post("/ichi/download/erase", headers=OURS).status_code == 404


@pytest.mark.usefixtures("running")
def test_waiting_jobs_can_be_moved_up_and_removed(client, app):
    first, second = add_job(app), add_job(app)
    assert client.post(f"/ichi/jobs/{second}/up", headers=OURS).json() == {"done": True}
    assert [job.id for job in app.queue.view().waiting] == [second, first]
    assert client.post(f"/ichi/jobs/{second}/remove", headers=OURS).json() == {"done": True}
    assert [job.id for job in app.queue.view().waiting] == [first]


def test_the_running_job_can_be_stopped(client, app, running):
    assert client.post(f"/ichi/jobs/{running}/stop", headers=OURS).json() == {"done": True}
    assert ended(app, running).state == "stopped"


def test_an_action_on_a_job_that_is_not_there_any_more_does_nothing(client, app, done):
    version = app.queue.version
    for job in (done, "0123456789abcdef"):
        for action in ("remove", "up", "stop"):
            assert client.post(f"/ichi/jobs/{job}/{action}", headers=OURS).json() == {"done": False}
    assert app.queue.version == version


@pytest.mark.parametrize("action", ["add", "close", "__class__", "REMOVE", "view"])
def test_an_unknown_action_is_not_found(client, running, action):
    assert client.post(f"/ichi/jobs/{running}/{action}", headers=OURS).status_code == 404


# -- the stream --------------------------------------------------------------------------------------


class Listener:
    """A page that listens to the stream; to be used in an event loop."""

    def __init__(self, app: AppState, query: str = "lang=en") -> None:
        self._asgi = Starlette(routes=make_routes(app))
        self._query = query
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._task = asyncio.create_task(self._listen())
        self.headers: dict[str, str] = {}
        self.status = 0

    async def state(self) -> dict[str, Any]:
        """The next state that comes."""
        while True:
            message = await asyncio.wait_for(self._inbox.get(), SOON)
            text = message.get("body", b"").decode()
            if text.startswith("data: "):
                assert text.endswith("\n\n")
                assert "\n" not in text[:-2], "a line end inside would cut the message"
                state: dict[str, Any] = json.loads(text[6:])
                return state

    async def until(self, is_so: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        while not is_so(state := await self.state()):
            pass
        return state

    def is_quiet(self) -> bool:
        return self._inbox.empty()

    async def end(self) -> None:
        """Wait for the stream's end."""
        await asyncio.wait_for(self._task, SOON)

    async def leave(self) -> None:
        self._gone.set()
        await self.end()

    async def _listen(self) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/ichi/events",
            "raw_path": b"/ichi/events",
            "root_path": "",
            "query_string": self._query.encode(),
            "headers": [],
            "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
        }
        await self._asgi(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            await self._inbox.put(message)


def listening(test: Callable[[AppState], Awaitable[None]], app: AppState) -> None:
    """Run a test that listens; the app closes at its end."""
    try:
        asyncio.run(asyncio.wait_for(_run(test, app), 2 * SOON))
    finally:
        app.closing.set()


async def _run(test: Callable[[AppState], Awaitable[None]], app: AppState) -> None:
    await test(app)


def test_a_page_gets_the_whole_state_at_once_and_in_its_language(app, running):
    async def listen(app: AppState) -> None:
        for language in LANGUAGES:
            begun = time.monotonic()
            page = Listener(app, f"lang={language}")
            state = await page.state()
            assert time.monotonic() - begun < 5 * LOOK_SECONDS + 1
            assert (state["server"], state["job"]["id"]) == (app.server_id, running)
            assert state["words"]["live.queue"] == Translator(language)("live.queue")
            assert page.headers["content-type"].startswith("text/event-stream")
            assert page.headers["cache-control"] == "no-store"
            await page.leave()

    listening(listen, app)


@pytest.mark.parametrize("query", ["", "lang=", "lang=xx", "lang=../../etc", "lang=en%00", "x=y"])
def test_a_language_that_there_is_none_of_means_the_apps_own(app, query):
    async def listen(app: AppState) -> None:
        page = Listener(app, query)
        assert (await page.state())["words"]["live.queue"] == Translator("en")("live.queue")
        await page.leave()

    listening(listen, app)


def test_a_page_hears_of_every_change_and_is_left_alone_otherwise(app, pretender):
    async def listen(app: AppState) -> None:
        page = Listener(app)
        assert (await page.state())["job"] is None
        await asyncio.sleep(4 * LOOK_SECONDS)
        assert page.is_quiet(), "nothing has changed"
        job = await asyncio.to_thread(add_job, app)
        assert (await page.until(lambda state: state["results"]))["job"]["id"] == job
        app.settings.update(sound=False)
        await page.until(lambda state: state["sound"] is False)
        pretender.go_on.release()
        state = await page.until(lambda state: state["job"] is None)
        assert state["results"][0]["complete"]
        await page.leave()

    listening(listen, app)


@pytest.mark.usefixtures("running")
def test_the_time_left_goes_on_while_a_job_computes_a_long_step(app):
    async def listen(app: AppState) -> None:
        page = Listener(app)
        versions = [(await page.state())["version"] for _ in range(2)]
        assert versions[0] == versions[1], "nothing has changed but the time"
        await page.leave()

    listening(listen, app)


def test_a_prompt_with_line_ends_and_odd_letters_does_not_break_the_stream(app):
    prompt = "a\r\nb\u2028c\x00\n\ndata: {}\n\n\U0001f431\u732b"

    async def listen(app: AppState) -> None:
        page = Listener(app)
        await asyncio.to_thread(add_job, app, prompt=prompt)
        state = await page.until(lambda state: state["job"])
        assert state["job"]["label"].endswith("data: {} \U0001f431\u732b")
        await page.leave()

    listening(listen, app)


def test_fifty_pages_listen_at_once_and_all_see_the_same(app):
    async def listen(app: AppState) -> None:
        pages = [Listener(app) for _ in range(50)]
        job = await asyncio.to_thread(add_job, app)
        states = [await page.until(lambda state: state["results"]) for page in pages]
        assert {state["job"]["id"] for state in states} == {job}
        assert len({json.dumps(state["job"]) for state in states}) == 1
        for page in pages:
            await page.leave()

    listening(listen, app)


def test_all_streams_end_when_the_app_closes(app):
    async def listen(app: AppState) -> None:
        pages = [Listener(app) for _ in range(5)]
        for page in pages:
            await page.state()
        app.closing.set()
        begun = time.monotonic()
        for page in pages:
            await page.end()
        assert time.monotonic() - begun < 5 * LOOK_SECONDS + 1

    listening(listen, app)


def test_a_stream_that_begins_while_the_app_closes_ends_at_once(app, client):
    app.closing.set()
    answer = client.get("/ichi/events?lang=en")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_page_that_went_away_is_listened_for_no_more(app):
    async def listen(app: AppState) -> None:
        page = Listener(app)
        await page.state()
        await page.leave()

    listening(listen, app)


def test_a_quiet_stream_gives_a_sign_of_life(app, monkeypatch):
    monkeypatch.setattr("webui.eichi_utils.page.routes.SIGN_OF_LIFE_SECONDS", 2 * LOOK_SECONDS)

    async def listen(app: AppState) -> None:
        page = Listener(app)
        await page.state()
        message = await asyncio.wait_for(page._inbox.get(), SOON)
        assert message["body"].startswith(b":"), "a comment: no message to the page"
        await page.leave()

    listening(listen, app)


@pytest.mark.usefixtures("done")
def test_paths_of_this_computer_are_in_no_state(app, tmp_path):
    async def listen(app: AppState) -> None:
        page = Listener(app)
        assert str(tmp_path) not in json.dumps(await page.state())
        await page.leave()

    listening(listen, app)
