"""Several jobs: pictures that are given at once, the list of jobs, and what can be done to them there."""

import av
import pytest
from playwright.sync_api import expect

from diffusers_helper.media.embedded_request import load_request
from tests.browser.driver import WORDS, Screen
from tests.support.app import App

ENDLESS = {"resolution": 192, "steps": 100, "seconds": 10}


def width_and_height(path) -> tuple[int, int]:
    with av.open(path) as video:
        return video.streams.video[0].width, video.streams.video[0].height


def states(screen: Screen) -> list[str]:
    return [row.state for row in screen.queue()]


def wait_for_states(screen: Screen, *expected: str) -> None:
    screen.wait_until(lambda: tuple(states(screen)) == expected, f"the jobs are {expected}")


@pytest.mark.slow
def test_several_opened_pictures_become_a_video_each(screen: Screen, app: App, pictures):
    screen.open_files(pictures["red"], pictures["green"], pictures["blue"])
    expect(screen.message).to_have_text(WORDS("page.several_chosen", count=3))
    expect(screen.page.locator("#several-images .thumbnail-item")).to_have_count(3)
    expect(screen.page.locator("#start-image")).to_be_hidden()
    assert screen.outlook().text.endswith(WORDS("page.outlook_videos", count=3))

    screen.start()
    screen.wait_until(lambda: len(screen.queue()) == 3, "three jobs are listed")
    assert screen.page.locator("#ichi-queue .ichi-queue-thumbnail:visible").count() == 3
    wait_for_states(screen, "done", "done", "done")

    newest, _, oldest = screen.queue()
    assert newest.name in screen.text("ichi-caption")
    screen.queue_button(oldest.name, "show").click()
    assert oldest.name in screen.text("ichi-caption")
    wide, tall, square = [width_and_height(path) for path in app.videos()]
    assert wide[0] > wide[1]
    assert tall[0] < tall[1]
    assert square[0] == square[1]


def test_pictures_dropped_anywhere_become_start_images(screen: Screen, pictures):
    screen.drop(pictures["red"], pictures["green"])
    expect(screen.page.locator("#several-images .thumbnail-item")).to_have_count(2)
    assert screen.outlook().text.endswith(WORDS("page.outlook_videos", count=2))


def test_pictures_dropped_on_the_start_image_become_several(screen: Screen, pictures):
    screen.drop(pictures["red"], pictures["green"], on="#start-image button.upload-container")
    expect(screen.page.locator("#several-images .thumbnail-item")).to_have_count(2)


@pytest.mark.parametrize("place", ["start-image", "end-image"])
def test_one_picture_dropped_on_a_place_goes_there(screen: Screen, pictures, place):
    screen.drop(pictures["red"], on=f"#{place} button.upload-container")
    assert [screen.picture(name) != "" for name in ("start-image", "end-image")] == [
        place == "start-image",
        place == "end-image",
    ]


def test_one_picture_dropped_beside_becomes_the_start_image(screen: Screen, pictures):
    screen.drop(pictures["red"])
    assert "red.png" in screen.picture("start-image")


def test_emptied_several_pictures_give_their_place_back(screen: Screen, pictures):
    screen.open_files(pictures["red"], pictures["green"])
    with screen.asking():
        screen.page.locator("#several-images .icon-button").last.click()
    expect(screen.page.locator("#start-image")).to_be_visible()
    expect(screen.page.locator("#several-images")).to_be_hidden()


@pytest.mark.slow
def test_jobs_can_be_moved_up_removed_and_stopped(open_with, app: App, pictures):
    screen = open_with(**ENDLESS)
    before = [row.prompt for row in screen.queue()]
    screen.choose_start(pictures["red"])
    screen.start()
    screen.wait_until_running()
    screen = open_with()
    screen.choose_start(pictures["red"])
    for number, prompt in enumerate(("first", "second", "third"), start=1):
        screen.set("prompt", prompt)
        screen.start()
        expect(screen.message).to_have_text(WORDS("page.queued", count=number))
    waiting = {row.prompt: row for row in screen.queue() if row.state == "waiting"}
    assert list(waiting) == ["first", "second", "third"]
    up, remove = WORDS("live.up"), WORDS("live.remove")
    assert [row.buttons for row in waiting.values()] == [(remove,), (up, remove), (up, remove)]

    screen.queue_button(waiting["third"].name, "up").click()
    screen.wait_until(
        lambda: [row.prompt for row in screen.queue()][1:4] == ["first", "third", "second"], "moved up"
    )
    screen.queue_button(waiting["second"].name, "remove").click()
    screen.wait_until(
        lambda: [row.prompt for row in screen.queue()][1:] == ["first", "third", *before], "removed"
    )

    screen.click("stop")
    screen.wait_until(lambda: states(screen)[:2] == ["done", "done"], "the others are made")
    unfinished = screen.page.locator("#ichi-unfinished > li")  # where a section of it was done by then
    assert states(screen)[2:3] == ["stopped"] or unfinished.count() > 0
    whole = [path for path in app.videos() if not path.stem.endswith("_unfinished")]
    assert [load_request(path).prompt for path in whole[-2:]] == ["first", "third"]
    assert [row.prompt for row in screen.queue()][:2] == ["third", "first"], "the newest stands first"
