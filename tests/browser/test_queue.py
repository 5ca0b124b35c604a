"""The queue and the stop as their user sees them: cleared and brought back, changed, taken back."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.driver import WORDS, Screen
from tests.support.app import App

ENDLESS = {"resolution": 192, "steps": 100, "seconds": 10}
WAITING = "#ichi-queue li[data-state=waiting]"


@pytest.fixture
def queued(open_with, pictures: dict[str, Path]) -> Screen:
    """A tab with a running job, and three that wait."""
    screen: Screen = open_with(**ENDLESS)
    screen.put("start-image", pictures["red"])
    screen.start()
    screen.wait_until_running()
    for prompt in ("One.", "Two.", "Three."):
        screen.set("prompt", prompt)
        screen.page.wait_for_timeout(900)  # faster clicks are one
        screen.start()
    expect(screen.page.locator(WAITING)).to_have_count(3)
    return screen


def prompts(screen: Screen) -> list[str]:
    return screen.page.locator(f"{WAITING} .ichi-queue-prompt").all_inner_texts()


def test_the_queue_is_cleared_changed_and_brought_back(queued: Screen):
    page, toast = queued.page, queued.page.locator("#ichi-toast")
    expect(page.locator("#ichi-waiting")).to_have_text(re.compile("^3 waiting"))
    page.click("#ichi-clear")
    expect(page.locator(WAITING)).to_have_count(0)
    expect(queued.message).to_have_text(WORDS("live.cleared", count=3))
    expect(toast).to_be_in_viewport(ratio=1)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(toast).to_be_in_viewport(ratio=1)
    queued.click_undo()
    expect(page.locator(WAITING)).to_have_count(3)
    assert prompts(queued) == ["One.", "Two.", "Three."]
    expect(toast).to_be_hidden()

    page.locator(WAITING).first.locator(".ichi-queue-edit").click()
    expect(toast).to_contain_text(WORDS("live.editing", button=WORDS("page.start_queue")))
    queued.wait_until(lambda: queued.value("prompt") == "One.", "the job is in the form")
    queued.click_undo("live.release")
    queued.wait_until(lambda: queued.value("prompt") == "Three.", "the form holds what it held before")
    first = page.locator(WAITING).first.locator(".ichi-queue-state")
    expect(first).to_have_text(WORDS("live.state_waiting"))

    page.locator(WAITING).nth(1).locator(".ichi-queue-edit").click()
    expect(queued.message).to_have_text(WORDS("live.editing", button=WORDS("page.start_queue")))
    held = page.locator(WAITING).nth(1)
    expect(held.locator(".ichi-queue-state")).to_have_text(WORDS("live.state_held"))
    assert queued.value("prompt") == "Two."
    queued.settle()
    queued.reload()
    assert queued.value("prompt") == "Two.", "it lies in the form, whatever happens to the page"
    assert queued.picture("start-image")
    queued.set("prompt", "Two, changed.")
    queued.start()
    expect(page.locator(WAITING)).to_have_count(3)
    queued.wait_until(lambda: prompts(queued) == ["One.", "Two, changed.", "Three."], "it took its place")
    page.locator(WAITING).nth(2).locator(".ichi-queue-edit").click()
    expect(queued.message).to_have_text(WORDS("live.editing", button=WORDS("page.start_queue")))
    page.locator(WAITING).nth(2).locator(".ichi-queue-release").click()
    expect(page.locator(WAITING).nth(2).locator(".ichi-queue-state")).to_have_text(
        WORDS("live.state_waiting")
    )

    page.locator(WAITING).first.locator(".ichi-queue-remove").click()
    expect(queued.message).to_have_text(WORDS("live.removed"))
    page.keyboard.press("Escape")
    expect(toast).to_be_hidden()
    expect(page.locator(WAITING)).to_have_count(2)
    assert prompts(queued) == ["Two, changed.", "Three."]


@pytest.mark.slow
def test_a_stop_is_taken_back_before_the_job_has_noticed_it(new_app: App, open_tab, pictures):
    screen: Screen = open_tab(new_app)
    stop, status = screen.page.locator("#stop"), screen.page.locator("#ichi-status")
    expect(stop).to_be_disabled()
    screen.put("start-image", pictures["red"])
    screen.start()
    screen.wait_until_running()  # the engine is being imported, which takes seconds
    stop.click()
    expect(stop).to_have_text(WORDS("live.keep_going"))
    expect(status).to_have_text(WORDS("live.stopping_preparing"))
    stop.click()
    expect(stop).to_have_text(WORDS("page.stop"))
    expect(status).not_to_have_text(WORDS("live.stopping_preparing"))
    screen.wait_for_result()
