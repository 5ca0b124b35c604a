"""Jobs that ended before their video was there: one sees what is kept, and finishes it with one click."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from diffusers_helper.media.video import read_frames
from tests.browser.driver import NO_ANSWER, WORDS, Screen, like, pattern
from tests.support.app import App

LONG = {"seconds": 5, "steps": 4, "resolution": 96}
"""Four sections."""


def rows(screen: Screen) -> Locator:
    return screen.page.locator("#ichi-unfinished > li")


def begin(screen: Screen, picture: Path) -> None:
    """Start a job, and wait until a section is finished."""
    screen.put("start-image", picture)
    screen.start()
    so_far = pattern("live.caption_so_far", seconds=re.escape("1.1"))
    # Asked at each frame: a quick computer makes the next section within a second.
    screen.page.wait_for_function(
        "so_far => new RegExp(so_far).test(document.getElementById('ichi-caption').textContent)", arg=so_far
    )


def finish(screen: Screen, button: Locator) -> None:
    """Finish an unfinished job, and wait for its video."""
    button.click()
    screen.wait_until_running()
    screen.wait_until_idle()


def kept(done: str = "[123]") -> re.Pattern[str]:
    return like("live.unfinished_kept", kept=pattern("live.kept", done=done, sections="4"))


@pytest.fixture
def clean(open_with):
    """A tab whose jobs take a while, and on which nothing is left of earlier ones."""
    screen = open_with(**LONG)
    if screen.page.locator("#ichi-failure").is_visible():
        screen.page.locator("#ichi-failure-close").click()
    while rows(screen).count():
        discard(screen)
    return screen


def discard(screen: Screen) -> None:
    before = rows(screen).count()
    rows(screen).first.locator(".ichi-queue-discard").click()
    expect(rows(screen)).to_have_count(before - 1)


def test_a_stop_is_shown_at_once_and_the_job_finished_with_one_click(clean: Screen, app: App, pictures):
    begin(clean, pictures["red"])
    clean.record()
    clean.stop()
    clean.wait_until_idle()
    done = {"kept": pattern("live.kept")}
    stopping = like("live.stopping_kept", **done), like("live.stopping_decoding_kept", **done)
    assert any(each.fullmatch(now["status"]) for now in clean.recorded() for each in stopping)
    expect(clean.page.locator("#ichi-caption")).to_have_text(like("live.caption_kept"))
    expect(clean.page.locator("#ichi-failure-title")).to_have_text(like("live.ended_stopped"))
    expect(clean.page.locator("#ichi-failure-text")).to_have_text(kept())
    expect(clean.page.locator("#ichi-failure-copy")).to_be_hidden()
    expect(rows(clean)).to_have_count(0)  # its job stands on the stage
    before = set(app.videos())
    finish(clean, clean.page.locator("#ichi-failure-finish"))
    expect(clean.page.locator("#ichi-failure")).to_be_hidden()
    expect(rows(clean)).to_have_count(0)
    (video,) = set(app.videos()) - before
    assert len(list(read_frames(video))) == 145
    assert not video.with_name(f"{video.stem}_unfinished.mp4").exists(), "the whole video took its place"


def test_what_was_told_of_a_stopped_job_is_closed_for_good(clean: Screen, pictures):
    told = clean.page.locator("#ichi-failure")
    begin(clean, pictures["red"])
    clean.stop()
    expect(told).to_be_visible()
    clean.page.locator("#ichi-failure-close").click()
    expect(rows(clean)).to_have_count(1)
    clean.reload()
    expect(rows(clean)).to_have_count(1)
    expect(told).to_be_hidden()
    rows(clean).locator(".ichi-queue-finish").click()
    clean.wait_until_running()
    clean.stop()
    expect(told).to_be_visible()
    clean.page.locator("#ichi-failure-close").click()
    discard(clean)


def test_a_picture_that_is_chosen_after_a_stop_has_the_stage_for_itself(clean: Screen, pictures):
    told, picture = clean.page.locator("#ichi-failure"), clean.page.locator("#ichi-picture")
    begin(clean, pictures["red"])
    clean.stop()
    expect(told).to_be_visible()
    clean.put("start-image", pictures["green"])
    expect(picture).to_be_visible()
    expect(told).to_be_hidden()
    expect(rows(clean)).to_have_count(1)
    rows(clean).locator(".ichi-queue-show").click()
    expect(picture).to_be_hidden()
    clean.drop(pictures["blue"], pictures["yellow"])
    expect(picture).to_be_visible()
    assert "blue" in str(picture.get_attribute("src")), "the first of several"
    expect(told).to_be_hidden()
    discard(clean)


@pytest.mark.slow
def test_an_unfinished_job_that_was_deleted_comes_back(clean: Screen, app: App, pictures):
    begin(clean, pictures["blue"])
    clean.stop()
    clean.wait_until_idle()
    left = max(app.outputs.glob("*_unfinished.mp4"), key=lambda path: path.stat().st_mtime)
    clean.page.locator("#ichi-failure-close").click()
    discard(clean)
    assert not list((app.home / "temp" / "jobs").glob("job_*"))
    expect(clean.message).to_have_text(WORDS("live.discarded"))
    clean.click_undo()
    expect(rows(clean)).to_have_count(1)
    expect(rows(clean).locator(".ichi-queue-kept")).to_have_text(kept())
    assert left.exists()


@pytest.mark.slow
def test_after_a_crash_the_job_is_back_and_the_queue_goes_on(clean: Screen, app: App, pictures):
    clean.open_panel()
    clean.set("steps", 16)  # a busy computer, too, ends the app before the job's end
    begin(clean, pictures["red"])
    clean.put("start-image", pictures["green"])
    clean.set("seconds", 1)
    clean.start()
    waits = WORDS("live.state_waiting")
    clean.wait_until(lambda: any(row["state"] == waits for row in clean.queue()), "the second job waits")
    clean.trouble.allow(NO_ANSWER)
    clean.page.evaluate("window.isOld = true")
    app.kill()
    app.start()
    clean.page.wait_for_function("!window.isOld && document.getElementById('start')")
    expect(rows(clean)).to_have_count(1)
    row = rows(clean).first
    expect(row.locator(".ichi-queue-state")).to_have_text(WORDS("live.state_interrupted"))
    expect(row.locator(".ichi-queue-kept")).to_have_text(kept())
    expect(row.locator("img")).to_be_visible()
    clean.wait_for_result()  # of the job that waited
    row.locator(".ichi-queue-show").click()
    expect(clean.page.locator("#ichi-caption")).to_have_text(like("live.caption_kept"))
    name = row.locator(".ichi-queue-name").inner_text()
    finish(clean, row.locator(".ichi-queue-finish"))
    assert len(list(read_frames(app.outputs / f"{name}.mp4"))) == 145
