"""The Start button: as many jobs as somebody wanted, and with the pictures that were on their way."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Open
from tests.browser.driver import WORDS, Screen
from tests.support.app import App
from tests.support.page_state import state

UPLOAD = re.compile(r"/upload(\?|$)")
ENDLESS = {"resolution": 192, "steps": 100, "seconds": 10}


def jobs(app: App) -> int:
    """How many jobs run or wait."""
    return len([job for job in state(app)["queue"] if job["state"] in ("running", "waiting")])


@pytest.fixture
def ready(open_with: Open, pictures) -> Screen:
    """A page with a picture, whose jobs do not end by themselves."""
    screen = open_with(**ENDLESS)
    screen.put("start-image", pictures["red"])
    return screen


def double_click(screen: Screen) -> None:
    screen.page.dblclick("#start")


def click_twice(screen: Screen) -> None:
    """The second click comes 300 ms later, by no timer: a busy computer keeps those waiting."""
    screen.page.locator("#start").evaluate("""button => {
        button.click();
        const begin = performance.now();
        const again = () => performance.now() < begin + 300 ? queueMicrotask(again) : button.click();
        again();
    }""")


def press_enter_twice(screen: Screen) -> None:
    screen.page.focus("#start")
    screen.page.keyboard.press("Enter")
    screen.page.keyboard.press("Enter")


def hold_enter(screen: Screen) -> None:
    screen.page.focus("#start")
    for _ in range(12):
        screen.page.keyboard.down("Enter")
        screen.page.wait_for_timeout(100)
    screen.page.keyboard.up("Enter")


WAYS = [double_click, click_twice, press_enter_twice, hold_enter]


@pytest.mark.parametrize("way", WAYS)
def test_clicks_that_follow_each_other_fast_are_one(ready: Screen, app: App, way: Callable[[Screen], None]):
    way(ready)
    ready.wait_until_running()
    ready.settle()
    assert jobs(app) == 1
    assert ready.page.evaluate("document.activeElement.id") in ("start", "")


@pytest.mark.slow
def test_a_second_start_is_announced_as_one_and_adds_a_job(ready: Screen, app: App, open_tab: Open):
    expect(ready.page.locator("#start")).to_have_text(WORDS("page.start"))
    ready.start()
    ready.wait_until_running()
    other = open_tab(app)
    ready.reload()
    for tab in (ready, other):
        expect(tab.page.locator("#start")).to_have_text(WORDS("page.start_queue"))
    ready.start()
    expect(ready.message).to_have_text(WORDS("page.queued", count=1))
    ready.choose_language("ja")
    expect(ready.page.locator("#start")).to_have_text("キューに追加")
    assert jobs(app) == 2
    ready.end_jobs()
    expect(ready.page.locator("#start")).to_have_text("開始")
    expect(other.page.locator("#start")).to_have_text(WORDS("page.start"))


@pytest.mark.parametrize("place", ["start-image", pytest.param("inbox-box", marks=pytest.mark.slow)])
def test_start_waits_for_a_picture_that_is_on_its_way(
    open_with: Open, app: App, pictures: dict[str, Path], place: str
):
    screen = open_with(**ENDLESS)
    held: list[Route] = []
    screen.page.route(UPLOAD, lambda route: held.append(route))
    screen.page.set_input_files(f"#{place} input[type=file]", pictures["green"])
    screen.wait_until(lambda: held, "it is on its way")
    assert "Uploading" not in screen.page.locator("#left").inner_text()
    if place == "start-image":
        waiting = screen.page.locator("#start-image .wrap:has(> .uploading)")
        shown = waiting.evaluate("box => getComputedStyle(box, '::before').content")
        assert shown == json.dumps(WORDS("live.sending"), ensure_ascii=False)
    for _ in range(3):
        screen.page.locator("#start").evaluate("button => button.click()")
    screen.page.wait_for_timeout(300)
    expect(screen.page.locator("#start")).to_have_attribute("aria-disabled", "true")
    assert jobs(app) == 0
    held[0].continue_()
    screen.wait_until_running()
    screen.settle()
    assert jobs(app) == 1
    expect(screen.message).to_have_count(0)


def test_nothing_starts_with_the_picture_before_where_the_new_one_does_not_come(
    ready: Screen, app: App, pictures: dict[str, Path]
):
    held: list[Route] = []
    ready.trouble.allow("ERR_FAILED|status of 404|^Response ")
    ready.page.route(UPLOAD, lambda route: held.append(route))
    ready.page.set_input_files("#start-image input[type=file]", pictures["green"])
    ready.wait_until(lambda: held, "it is on its way")
    ready.page.click("#start")
    held[0].abort()
    either = "page.not_sent", "error.choose_start_image"  # whichever is said last
    expect(ready.message).to_have_text(re.compile("|".join(re.escape(WORDS(key)) for key in either)))
    expect(ready.page.locator("#start[aria-disabled]")).to_have_count(0)
    ready.page.wait_for_timeout(500)
    ready.settle()
    assert jobs(app) == 0


FOUR_CLICKS = """async () => {
    for (let count = 0; count < 4; count += 1) {
        document.getElementById("start").click();
        await new Promise((go) => setTimeout(go, 50));
    }
}"""


def test_a_click_while_the_page_is_loading_makes_one_job_or_none(ready: Screen, app: App):
    page = ready.page
    page.reload(wait_until="commit")
    page.wait_for_selector("#start", state="attached")
    page.evaluate(FOUR_CLICKS)
    ready.settle()
    page.wait_for_timeout(700)
    assert jobs(app) <= 1


@pytest.mark.slow
def test_a_double_click_on_again_makes_one_more_video(screen: Screen, app: App, pictures: dict[str, Path]):
    screen.put("start-image", pictures["red"])
    caption, before = screen.make_video(), len(app.videos())
    with screen.asking():
        screen.page.dblclick("#again")
    screen.wait_for_result(caption)
    screen.page.wait_for_timeout(300)
    screen.wait_until_idle()
    assert len(app.videos()) == before + 1


def test_on_a_phone_a_start_brings_what_is_made_into_sight(open_with, pictures):
    screen = open_with(resolution=192, steps=100, seconds=10)
    screen.page.set_viewport_size({"width": 420, "height": 860})
    screen.put("start-image", pictures["red"])
    expect(screen.page.locator("#ichi-screen")).not_to_be_in_viewport(ratio=0.9)
    screen.start()
    screen.wait_until_running()
    for part in ("#ichi-screen", "#ichi-progress", "#stop"):
        expect(screen.page.locator(part)).to_be_in_viewport(ratio=1)
