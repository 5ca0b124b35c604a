"""The way from a picture to a video that plays: the estimate, the progress, the result."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from diffusers_helper.media.video import read_frames
from tests.browser.driver import WORDS, Screen, like, pattern
from tests.support.app import App

LONGER = {"resolution": 96, "steps": 40, "seconds": 2.5}
"""Two sections, whose steps take long enough to be seen."""
SO_FAR = like("live.caption_so_far", seconds="1.1")
ENDLESS = {"resolution": 192, "steps": 100, "seconds": 10}
"""A job to be stopped."""


@pytest.fixture(scope="module")
def watched(app: App, browser: Browser, pictures: dict[str, Path]) -> list[dict[str, Any]]:
    """All that the page showed while a video was made that is not the first."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    app.keep_settings()
    screen = Screen(context.new_page(), app.url).open()
    if not app.videos():
        screen.put("start-image", pictures["red"])
        screen.make_video()
    app.keep_settings(**LONGER)
    screen.open()
    screen.put("start-image", pictures["red"])
    screen.record()
    screen.make_video()
    recorded = screen.recorded()
    assert screen.trouble.found == []
    context.close()
    return recorded


def status_of(section: int) -> str:
    """An expression for what stands there while one of two sections is sampled."""
    number = pattern("live.section", number=str(section), sections="2")
    return "(?i)" + pattern(
        "live.status", section=number, stage=pattern("live.step", step=r"\d+", steps="40")
    )


def played(screen: Screen) -> dict[str, float]:
    """Play the video that is shown from its beginning; what the browser knows of it then."""
    if not screen.page.evaluate(
        """document.createElement('video').canPlayType('video/mp4; codecs="avc1.640028"')"""
    ):
        pytest.skip("This browser cannot play H.264: use Debian's chromium, Chrome or Edge.")
    screen.page.evaluate("{ const v = document.getElementById('ichi-video'); v.currentTime = 0; v.play(); }")
    screen.page.wait_for_function("document.getElementById('ichi-video').currentTime > 0.3")
    known: dict[str, float] = screen.page.evaluate(
        "(() => { const v = document.getElementById('ichi-video');"
        " return { width: v.videoWidth, height: v.videoHeight, seconds: v.duration }; })()"
    )
    return known


def test_one_picture_and_one_click_make_a_video_offline(screen: Screen, app: App, pictures, refusal):
    screen.put("start-image", pictures["red"])
    announced, before = screen.outlook(), set(app.videos())
    size = (announced.width, announced.height)
    assert (announced.frames, announced.seconds, announced.sections) == (37, 1.23, 1)
    caption = screen.make_video()
    (video,) = set(app.videos()) - before
    values = {"name": video.stem, "width": str(size[0]), "height": str(size[1]), "seconds": "1.23"}
    assert like("live.caption_done", frames="37", seed=r"\d+", **values).fullmatch(caption)
    shapes = [frame.shape for frame in read_frames(video)]
    assert shapes == [(size[1], size[0], 3)] * 37
    known = played(screen)
    assert (known["width"], known["height"]) == size
    assert round(known["seconds"] * 30) == 37
    expect(screen.page.locator("#outlook p")).to_have_text(like("page.outlook_duration", time=r"\d+ .*"))
    asked = Path(refusal["ASKED_OF_THE_NETWORK"])
    assert not asked.exists(), asked.read_text("utf-8")


def test_sections_steps_and_time_left_are_told(watched):
    told = {now["status"] for now in watched}
    for section in (1, 2):
        assert any(re.fullmatch(status_of(section) + ".*", status) for status in told), told
        assert WORDS("stage.decoding") in " ".join(told)
    assert any(like("live.left").fullmatch(now["left"]) for now in watched)


def test_the_tabs_progress_never_falls_and_previews_are_shown(watched):
    title = like("live.page_title_running", percent=r"(\d+)")
    running = [now for now in watched if now["running"]]
    percents = [int(found[1]) for now in running if (found := title.fullmatch(now["title"]))]
    assert percents == sorted(percents)
    assert len(set(percents)) > 3
    assert len({now["preview"] for now in running if now["preview"]}) > 2
    assert watched[-1]["title"] == "Endframe Ichi"


def test_the_stage_shows_the_preview_until_there_is_a_video_so_far(watched):
    new = [address for address in dict.fromkeys(now["video"] for now in watched if now["running"]) if address]
    assert len(new) in (1, 2), "the first section's, and perhaps the last one so far"
    assert watched[-1]["video"].endswith("?done")
    first_section = [now for now in watched if now["running"] and re.match(status_of(1), now["status"])]
    assert {now["video"] for now in first_section} == {""}
    assert first_section[-1]["preview"]
    second_section = [now for now in watched if re.match(status_of(2), now["status"])]
    assert {now["video"] for now in second_section} == {new[0]}


def test_the_video_so_far_plays_while_the_next_section_is_made(watched):
    second = "(?i)" + pattern("live.section", number="2", sections="2")
    assert any(now["playing"] for now in watched if re.match(second, now["status"]))
    assert any(SO_FAR.fullmatch(now["caption"]) for now in watched)


@pytest.mark.slow
def test_a_reload_and_another_tab_show_the_job_and_can_stop_it(open_with, app: App, pictures, open_tab):
    screen = open_with(**ENDLESS)
    screen.put("start-image", pictures["red"])
    screen.start()
    screen.wait_until_stepping()
    name = screen.text("ichi-job-name")
    screen.reload()
    other = open_tab(app)
    for tab in (screen, other):
        tab.wait_until_stepping()
        assert tab.text("ichi-job-name") == name
    screen.record()
    other.stop()
    screen.wait_until_idle()
    other.wait_until_idle()
    assert not any(WORDS("stage.decoding") in now["status"] for now in screen.recorded())
    expect(screen.page.locator("#ichi-announcer")).to_have_text(like("live.ended_stopped"))


def test_a_sound_tells_that_a_video_is_finished(watched):
    assert {now["chimes"] for now in watched if now["running"]} == {0}
    assert watched[-1]["chimes"] == 1


@pytest.mark.slow
def test_many_tabs_of_one_browser_work_side_by_side(screen: Screen, app: App):
    """A browser opens six connections to a server: no tab may hold one for long."""
    tabs = [Screen(screen.page.context.new_page(), app.url).open() for _ in range(6)]
    for tab in (tabs[-1], screen):
        tab.start()
        expect(tab.message).to_have_text(WORDS("error.choose_start_image"))
    assert [tab.trouble.found for tab in tabs] == [[]] * 6
