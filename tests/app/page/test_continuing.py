"""A page whose start image continues a video: joined to it, unless somebody does not want that."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.images import read_image
from diffusers_helper.media.video import count_frames, read_frames, read_last_frame
from tests.support.app import SMALL, App, wait_until
from tests.support.page_client import PageClient
from tests.support.page_state import state, text
from webui.eichi_utils.text.translations import Translator

pytestmark = pytest.mark.slow

WORDS = Translator("en")
SMALLEST: dict[str, Any] = SMALL | {"steps": 1, "section_seconds": 0.5}


@pytest.fixture
def page(app: App) -> Iterator[PageClient]:
    """A page of its own with small settings."""
    app.keep_settings(**SMALLEST)
    with PageClient(app.url) as page:
        yield page.open()
        wait_until(lambda: state(app)["job"] is None, "all jobs have ended")


@pytest.fixture
def first(app: App, page: PageClient, cat: Path) -> Path:
    """A finished video, which the page continues."""
    page.choose("start-image", page.upload(cat))
    (video,) = made(app, page)
    assert not is_offered(page)
    proceed(app, page)
    return video


def made(app: App, page: PageClient, button: str = "start", job: str = "") -> list[Path]:
    """Press a button, and wait for the videos; returns them, the joined one last."""
    before = set(app.videos())
    page.click(button, job=job)
    wait_until(lambda: state(app)["job"] is not None or set(app.videos()) - before, "the job has begun")
    wait_until(lambda: state(app)["job"] is None, "the job has ended")
    return sorted(set(app.videos()) - before)


def newest(app: App) -> dict[str, Any]:
    """The newest result of a job."""
    result: dict[str, Any] = state(app)["results"][0]
    return result


def proceed(app: App, page: PageClient) -> None:
    assert text(page.click("continue", job=newest(app)["id"])) == WORDS("page.continued")
    page.send("start-image", "change")


def is_offered(page: PageClient) -> bool:
    return bool(page.properties["join"]["visible"])


def check_joined(first: Path, part: Path, joined: Path) -> None:
    frames = [*read_frames(first), *list(read_frames(part))[1:]]
    for frame, own in zip(frames, read_frames(joined), strict=True):
        assert np.array_equal(frame, own)


def test_a_continued_video_is_delivered_alone_and_joined_and_so_on(app, page, first):
    assert is_offered(page)
    assert page.shown["join"] is True
    total = count_frames(first)
    for last in (first, None):
        total += count_frames(first) - 1
        told = WORDS("page.outlook_joined", seconds=f"{total / 30:.2f}")
        assert told in text(page.shown["outlook"])
        before = last or app.outputs / newest(app)["file"]
        part, joined = made(app, page)
        check_joined(before, part, joined)
        assert joined.name == f"{part.stem}_joined.mp4"
        assert newest(app)["file"] == joined.name, "it plays on the stage"
        assert newest(app)["caption"].startswith(f"{total} frames, {total / 30:.2f} s")
        listed = [video["file"] for video in wait_until(partial(recent, app, part), "it is listed")]
        assert listed[:2] == [joined.name, part.name]
        proceed(app, page)
        assert is_offered(page)


def recent(app: App, video: Path) -> list[dict[str, Any]]:
    videos: list[dict[str, Any]] = state(app)["recent"]["videos"]
    return videos if any(item["file"] == video.name for item in videos) else []


@pytest.mark.usefixtures("first")
def test_whoever_does_not_want_it_gets_the_new_part_alone(app, page):
    page.set(join=False)
    assert WORDS("page.outlook_joined", seconds="") not in text(page.shown["outlook"])
    assert "with the previous video" not in text(page.shown["outlook"])
    (part,) = made(app, page)
    assert load_request(part).previous_video is None
    assert app.kept_settings()["join"] is False
    proceed(app, page)
    assert (is_offered(page), page.shown["join"]) == (True, False)


@pytest.mark.parametrize("way", ["replaced", "cleared", "the video is gone"])
def test_another_start_image_joins_nothing(app, page, first, cat, way):
    if way == "replaced":
        page.choose("start-image", page.upload(cat))
    elif way == "cleared":
        page.shown["start-image"] = None
    else:
        first.unlink()
    page.send("start-image", "change")
    assert not is_offered(page)
    assert "with the previous video" not in text(page.shown["outlook"])
    if way != "cleared":
        (part,) = made(app, page)
        assert load_request(part).previous_video is None


def test_it_comes_back_with_the_picture_when_the_page_is_loaded_anew(app, page, first):
    assert "previous" not in page.shown["kept"], "a browser names no file"
    with PageClient(app.url) as again:
        again.shown["kept"] = page.shown["kept"]
        again.open()
        again.send("start-image", "change")
        assert is_offered(again)
        part, joined = made(app, again)
        check_joined(first, part, joined)


@pytest.mark.parametrize("key", ["previous_video", "hidden"])
def test_a_browser_cannot_name_a_video(app, page, first, key):
    kept = json.loads(page.shown["kept"]) | {"start": [str(first)], "previous_video": str(first)}
    kept["hidden"] = {"previous_video": str(first)}
    if key == "hidden":
        page.shown["several-images"] = None
    with PageClient(app.url) as again:
        again.shown["kept"] = json.dumps(kept)
        again.open()
        again.shown["start-image"] = None
        again.send("start-image", "change")
        assert not is_offered(again)
        assert "with the previous video" not in text(again.shown["outlook"])


def test_its_size_is_that_of_the_video_before_and_the_page_says_so(app, page, first):
    size = " × ".join(map(str, read_last_frame(first).shape[1::-1]))
    sentence = WORDS("page.outlook_joined_size")
    assert sentence not in text(page.shown["outlook"])
    page.set(resolution=128)
    assert size in text(page.shown["outlook"])
    assert sentence in text(page.shown["outlook"])
    page.set(join=False)
    assert size not in text(page.shown["outlook"])
    assert sentence not in text(page.shown["outlook"])
    page.set(join=True)
    part, joined = made(app, page)
    check_joined(first, part, joined)


@pytest.mark.slow
def test_settings_of_a_joined_video_and_another_try_join_again(app, page, first, cat):
    part, joined = made(app, page)
    job = newest(app)["id"]
    again = made(app, page, "again", job)
    check_joined(first, *again)
    assert load_request(again[0]).seed != load_request(part).seed
    page.choose("start-image", page.upload(cat))
    page.send("start-image", "change")
    page.set(join=False)
    assert text(page.click("take-settings", job=newest(app)["id"])) == WORDS("page.restored")
    page.send("start-image", "change")
    assert (is_offered(page), page.shown["join"]) == (True, True)
    shown = Path(page.shown["start-image"]["path"].removesuffix(".view.png"))
    assert np.array_equal(read_image(str(shown)), read_last_frame(first))
    check_joined(first, *made(app, page))
    assert page.choose("inbox", [page.upload(joined)])
    page.send("start-image", "change")
    assert not is_offered(page), "an uploaded file has no video beside it"


def test_a_notice_about_what_was_not_joined_stays_beside_the_result(app, page, first):
    first.write_bytes(first.read_bytes()[:-300])
    (part,) = made(app, page)
    lines = newest(app)["caption"].split("\n")
    assert lines[1] == part.stem
    assert str(first) in lines[2]
    assert newest(app)["file"] == part.name
