"""Several jobs: pictures that are given at once, the list of jobs, and what can be done to them there."""

import pytest
from playwright.sync_api import expect

from diffusers_helper.media.embedded_request import load_request
from tests.browser.driver import WORDS, Screen
from tests.support.app import App

ENDLESS = {"resolution": 192, "steps": 100, "seconds": 10}


def states(screen: Screen) -> list[str]:
    return [row["state"] for row in screen.queue()]


@pytest.mark.slow
def test_several_opened_pictures_become_a_video_each(screen: Screen, pictures):
    screen.put("inbox-box", pictures["red"], pictures["green"], pictures["blue"])
    expect(screen.message).to_have_text(WORDS("page.several_chosen", count=3))
    expect(screen.page.locator("#several-images .thumbnail-item")).to_have_count(3)
    expect(screen.page.locator("#start-image")).to_be_hidden()
    assert screen.outlook().text.endswith(WORDS("page.outlook_videos", count=3))

    before = len(screen.queue())
    screen.start()
    screen.wait_until(lambda: len(screen.queue()) >= before + 3, "three jobs are listed")
    assert screen.page.locator("#ichi-queue .ichi-queue-thumbnail:visible").count() >= 3
    screen.wait_until(lambda: states(screen)[:3] == ["done"] * 3, "they are made")

    newest, _, oldest = screen.queue()[:3]
    assert newest["name"] in screen.text("ichi-caption")
    screen.queue_button(oldest["name"], "show").click()
    assert oldest["name"] in screen.text("ichi-caption")


@pytest.mark.parametrize("place", ["body", "#start-image button.upload-container"])
def test_dropped_pictures_become_several_start_images(screen: Screen, pictures, place):
    screen.drop(pictures["red"], pictures["green"], on=place)
    expect(screen.page.locator("#several-images .thumbnail-item")).to_have_count(2)
    assert screen.outlook().text.endswith(WORDS("page.outlook_videos", count=2))
    with screen.asking():
        screen.page.locator("#several-images .icon-button").last.click()
    expect(screen.page.locator("#start-image")).to_be_visible()
    expect(screen.page.locator("#several-images")).to_be_hidden()


def test_one_dropped_picture_goes_where_it_is_dropped(screen: Screen, pictures):
    screen.drop(pictures["green"], on="#end-image button.upload-container")
    assert "green.png" in screen.picture("end-image")
    assert not screen.picture("start-image")
    screen.drop(pictures["red"], on="#start-image button.upload-container")
    assert "red.png" in screen.picture("start-image")
    screen.drop(pictures["blue"])
    assert "blue.png" in screen.picture("start-image")


@pytest.mark.slow
def test_jobs_can_be_moved_up_removed_and_stopped(open_with, app: App, pictures):
    screen = open_with(**ENDLESS)
    before = [row["prompt"] for row in screen.queue()]
    screen.put("start-image", pictures["red"])
    screen.start()
    screen.wait_until_running()
    screen = open_with()
    screen.put("start-image", pictures["red"])
    for number, prompt in enumerate(("first", "second", "third"), start=1):
        screen.set("prompt", prompt)
        screen.start()
        expect(screen.message).to_have_text(WORDS("page.queued", count=number))
    waiting = {row["prompt"]: row for row in screen.queue() if row["state"] == "waiting"}
    assert list(waiting) == ["first", "second", "third"]
    up, remove = WORDS("live.up"), WORDS("live.remove")
    assert [row["buttons"] for row in waiting.values()] == [[remove], [up, remove], [up, remove]]

    screen.queue_button(waiting["third"]["name"], "up").click()
    screen.wait_until(
        lambda: [row["prompt"] for row in screen.queue()][1:4] == ["first", "third", "second"], "moved up"
    )
    screen.queue_button(waiting["second"]["name"], "remove").click()
    screen.wait_until(
        lambda: [row["prompt"] for row in screen.queue()][1:] == ["first", "third", *before], "removed"
    )

    screen.click("stop")
    screen.wait_until(lambda: states(screen)[:2] == ["done", "done"], "the others are made")
    unfinished = screen.page.locator("#ichi-unfinished > li")  # where a section of it was done by then
    assert states(screen)[2:3] == ["stopped"] or unfinished.count() > 0
    whole = [path for path in app.videos() if not path.stem.endswith("_unfinished")]
    assert [load_request(path).prompt for path in whole[-2:]] == ["first", "third"]
    assert [row["prompt"] for row in screen.queue()][:2] == ["third", "first"], "the newest stands first"
