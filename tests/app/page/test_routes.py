"""The app's own addresses: what they give, to whom, and what they refuse."""

import asyncio
import errno
import json
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Event, Finished, SectionDone, StageStarted, StepDone, Stopped
from diffusers_helper.media.embedded_request import LEFT_OUT
from diffusers_helper.media.video import write_mp4
from tests.support.fake_app import add_job, ended, fake_app
from tests.support.page_state import EMPTY_PREFLIGHT, text
from tests.support.queue import SOON, wait_until
from webui.eichi_utils.app import AppState
from webui.eichi_utils.jobs.job import JobSpec
from webui.eichi_utils.jobs.stop import StopRequest
from webui.eichi_utils.page.routes import OWN_HEADER, POLL_SECONDS, make_routes
from webui.eichi_utils.page.state import page_state
from webui.eichi_utils.text.translations import LANGUAGES, Translator

EVENTS = "/ichi/events"
OURS = {OWN_HEADER: "1"}
VIDEO = b"the video"
WORDS = Translator("en")


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


def assert_nothing_is_served(client: TestClient, paths: list[str]) -> None:
    for path in paths:
        answer = client.get(path)
        assert answer.status_code in (404, 405) or (answer.status_code, answer.content) == (204, b""), path


def test_nothing_but_files_of_jobs_is_served(client, app, done):
    app.settings.update(steps=20)
    paths = [f"{job}/{what}" for job in NO_JOBS for what in ("thumbnail", "preview/1", "video/1.mp4")]
    paths += [f"{done}/video/{number}.mp4" for number in NO_NUMBERS]
    video = app.queue.find(done).video
    (other := video.with_name("private.mp4")).write_bytes(b"private")
    for name in (other.name, other.stem, video.name, f"../{other.name}", f"..%2f{other.name}"):
        paths += [f"{name}/video/37.mp4", f"../{name}", name, f"{done}/{name}"]
    assert_nothing_is_served(client, [f"/ichi/jobs/{path}" for path in paths])


@pytest.fixture
def recent(app) -> str:
    """The id of a video in the output folder that no job of this run has made."""
    (folder := app.home / "outputs").mkdir(exist_ok=True)
    write_mp4(folder / "猫 #1 100%.mp4", [np.zeros((32, 32, 3), np.uint8)] * 2, crf=40, comment=LEFT_OUT)
    app.recent.look()
    (video,) = app.recent.view()
    return str(video.id)


def test_videos_of_the_output_folder_are_served_by_their_ids_while_they_are_there(client, app, recent):
    path = app.recent.find(recent).path
    content = path.read_bytes()
    answer = client.get(f"/ichi/recent/{recent}/video.mp4", headers={"Range": "bytes=4-7"})
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (206, b"ftyp", "video/mp4")
    assert client.get(f"/ichi/recent/{recent}/video.mp4").content == content
    thumbnail = client.get(f"/ichi/recent/{recent}/thumbnail")
    assert (thumbnail.headers["content-type"], thumbnail.content[:4]) == ("image/webp", b"RIFF")
    path.unlink()
    assert client.get(f"/ichi/recent/{recent}/video.mp4").status_code == 404
    app.recent.look()
    codes = [client.get(f"/ichi/recent/{recent}/{path}").status_code for path in ("video.mp4", "thumbnail")]
    assert codes == [404, 204], "a page may have asked for the thumbnail a moment before"


def test_a_video_on_a_drive_that_does_not_answer_is_not_there(client, app, recent, done, monkeypatch):
    ask = os.stat
    away = {str(app.queue.find(done).video), str(app.recent.find(recent).path)}

    def stat(path, *options, **named):
        if str(path) in away:
            raise OSError(errno.EIO, "Input/output error")
        return ask(path, *options, **named)

    monkeypatch.setattr(os, "stat", stat)
    for path in (f"jobs/{done}/video/37.mp4", f"recent/{recent}/video.mp4"):
        assert client.get(f"/ichi/{path}").status_code == 404


def test_nothing_but_listed_videos_of_the_output_folder_is_served(client, app, recent):
    video = app.recent.find(recent).path
    write_mp4(app.home / "private.mp4", [np.zeros((32, 32, 3), np.uint8)], crf=40, comment=LEFT_OUT)
    (video.with_name("holiday.mp4")).write_bytes(b"private")
    names = [video.name, video.stem, "holiday.mp4", "holiday", "../private.mp4", "..%2fprivate.mp4"]
    names += ["..%5cprivate.mp4", f"{recent}%2f..%2f..%2fprivate", f"{recent}.webp", recent[:-1]]
    names += [str(app.home / "private.mp4"), *NO_JOBS]
    paths = [f"{name}/{what}" for name in names for what in ("thumbnail", "video.mp4", "private.mp4")]
    paths += [f"{recent}/{name}" for name in names]
    assert_nothing_is_served(client, [f"/ichi/recent/{path}" for path in paths])
    posted = [client.post(f"/ichi/recent/{name}/folder", headers=OURS).status_code for name in names]
    assert set(posted) <= {404, 405}


def test_a_video_is_shown_in_its_folder_or_the_page_says_where_that_is(client, app, recent, monkeypatch):
    path = f"/ichi/recent/{recent}/folder"
    shows = Mock(return_value=True)
    monkeypatch.setattr("webui.eichi_utils.page.routes.show_in_file_manager", shows)
    assert client.post(path).status_code == 403
    assert not shows.called
    assert client.post(path, headers=OURS).json() == {"done": True}
    shows.assert_called_once_with(app.recent.find(recent).path)
    shows.return_value = False
    told_the_folder(client, app, path)


def test_the_video_of_a_job_is_shown_in_its_folder_once_it_is_done(
    client, app, running, pretender, monkeypatch
):
    shows = Mock(return_value=True)
    monkeypatch.setattr("webui.eichi_utils.page.routes.show_in_file_manager", shows)
    path = f"/ichi/jobs/{running}/folder"
    assert client.post(path, headers=OURS).json() == {"done": False}
    assert client.post("/ichi/jobs/nothing/folder", headers=OURS).json() == {"done": False}
    assert not shows.called
    pretender.go_on.release()
    job = ended(app, running)
    assert client.post(path, headers=OURS).json() == {"done": True}
    shows.assert_called_once_with(job.video)
    shows.return_value = False
    told_the_folder(client, app, path)


def test_a_page_elsewhere_opens_nothing_on_this_computer(client, app, recent, monkeypatch):
    shows = Mock(return_value=True)
    monkeypatch.setattr("webui.eichi_utils.page.routes.show_in_file_manager", shows)
    monkeypatch.setattr(AppState, "is_private", False)
    told_the_folder(client, app, f"/ichi/recent/{recent}/folder")
    assert not shows.called


def told_the_folder(client: TestClient, app: AppState, path: str) -> None:
    answer = client.post(f"{path}?lang=ja", headers=OURS).json()
    assert Translator("ja")("page.folder_is", path=app.home / "outputs") in answer["said"]


# -- actions -----------------------------------------------------------------------------------------


def test_an_action_needs_the_pages_own_header_and_a_known_name(client, app, running):
    waiting = [add_job(app), add_job(app)]
    before = app.queue.version
    for job in (running, *waiting):
        for action in ("remove", "up", "stop"):
            assert client.post(f"/ichi/jobs/{job}/{action}").status_code == 403
            assert client.get(f"/ichi/jobs/{job}/{action}", headers=OURS).status_code == 405
    for action in ("download/start", "download/cancel", "outdated/delete"):
        assert client.post(f"/ichi/{action}").status_code == 403
    for action in ("add", "close", "__class__", "REMOVE", "view"):
        for path in (f"jobs/{running}", "download", "outdated"):
            assert client.post(f"/ichi/{path}/{action}", headers=OURS).status_code == 404
    assert app.queue.version == before
    assert app.preflight.download.view().state == "idle"


def test_why_something_cannot_be_deleted_is_answered_in_the_pages_language(client, app, monkeypatch):
    monkeypatch.setattr(app.preflight, "delete_outdated", Mock(side_effect=MachineError("closing")))
    for lang in ("en", "ja"):
        answer = client.post(f"/ichi/outdated/delete?lang={lang}", headers=OURS).json()
        assert (answer["done"], text(answer["said"])) == (False, Translator(lang)("error.closing"))


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


def test_what_is_deleted_is_told_with_the_address_that_brings_it_back(client, app, running):
    assert app.queue.find(running).state == "running"
    jobs = [add_job(app), add_job(app)]

    def said(address: str) -> str:
        answer = client.post(f"/ichi/{address}?lang=en", headers=OURS).json()
        assert answer["done"]
        return str(answer["said"])

    for address, told in (
        (f"jobs/{jobs[0]}/remove", WORDS("live.removed")),
        ("queue/clear", WORDS("live.cleared", count=2)),
    ):
        markup = said(address)
        assert text(markup) == told
        (undo,) = re.findall(r'data-ichi-undo="([^"]+)"', markup)
        assert client.post(f"/ichi/{undo}", headers=OURS).json() == {"done": True}
        assert [job.id for job in app.queue.view().waiting] == jobs
    late = client.post(f"/ichi/{undo}?lang=ja", headers=OURS).json()
    assert (late["done"], text(late["said"])) == (False, Translator("ja")("live.undo_too_late"))
    assert client.post("/ichi/queue/clear").status_code == 403
    assert client.post("/ichi/queue/close", headers=OURS).status_code == 404


def test_a_stop_that_nobody_has_noticed_is_taken_back(client, app, pretender, running, monkeypatch):
    monkeypatch.setattr(StopRequest, "is_set", lambda _: False)  # in a long step

    def act(action: str) -> dict[str, Any]:
        return dict(client.post(f"/ichi/jobs/{running}/{action}?lang=en", headers=OURS).json())

    assert (act("keep")["done"], text(act("keep")["said"])) == (False, WORDS("live.stops_already"))
    assert act("stop") == {"done": True}
    shown = state_of(app)
    assert (shown["stop"], shown["can_stop"]) == (WORDS("live.keep_going"), True)
    assert act("keep") == {"done": True}
    shown = state_of(app)
    assert (shown["stop"], shown["can_stop"], shown["job"]["stopping"]) == (WORDS("page.stop"), True, False)
    pretender.go_on.release()
    assert ended(app, running).state == "done"


def state_of(app: AppState) -> dict[str, Any]:
    named = {"server": "s", "sound": True}
    return page_state(app.queue.view(), EMPTY_PREFLIGHT, WORDS, **named)


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


def test_a_page_is_sent_the_videos_of_the_output_folder_as_they_come_and_go(app, recent):
    async def listen() -> None:
        page = await stream(app, "lang=ja")
        (video,) = (await until(page, anything))["recent"]["videos"]
        assert (video["file"], list(video["actions"])) == ("猫 #1 100%.mp4", ["continue", "folder"])
        app.recent.find(recent).path.unlink()
        app.recent.look()
        assert (await until(page, anything))["recent"]["videos"] == []

    asyncio.run(listen())


def test_a_page_is_told_that_the_video_of_a_job_is_gone_or_back(app, done):
    video = app.queue.find(done).video

    async def listen() -> None:
        page = await stream(app)
        assert [result["id"] for result in (await until(page, anything))["results"]] == [done]
        away = video.rename(video.with_name("renamed"))
        app.recent.look()
        state = await until(page, anything)
        assert state["results"] == state["queue"] == []
        away.rename(video)
        app.recent.look()
        state = await until(page, anything)
        assert [each["id"] for each in (*state["results"], *state["queue"])] == [done] * 2

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
