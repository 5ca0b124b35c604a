"""The toast by itself, without an app, with a clock that is wound by hand."""

from collections.abc import Iterator
from datetime import datetime

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from diffusers_helper.errors import InputError
from tests.browser.driver import WORDS
from webui.eichi_utils.page import messages
from webui.eichi_utils.page.routes import STATIC

LASTING = 8000
NOTE = messages.note("Removed.", ("Undo", "jobs/a/restore"))
OTHER = messages.note("Something else.")
PROBLEM = messages.problem(InputError("no_result"), WORDS)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.clock.install(time=datetime(2026, 1, 1, 10))
    page.set_content(f'<div id="message"></div>{(STATIC / "toast.html").read_text("utf-8")}')
    page.add_script_tag(path=STATIC / "toast.js")
    page.clock.pause_at(datetime(2026, 1, 1, 11))  # it goes on by itself until then
    yield page
    page.close()


@pytest.fixture
def toast(page: Page) -> Locator:
    toast = page.locator("#ichi-toast")
    expect(toast).to_be_hidden()
    return toast


def show(page: Page, markup: str) -> None:
    page.evaluate("markup => ichiToast.show(markup)", markup)


def handler_says(page: Page, markup: str) -> None:
    """Put a message where handlers of gradio put it."""
    page.evaluate("markup => { document.getElementById('message').innerHTML = markup; }", markup)


def test_a_note_goes_by_itself_and_the_next_one_has_its_own_time(page, toast):
    show(page, NOTE)
    expect(toast.get_by_role("status")).to_contain_text("Removed.")
    page.clock.run_for(LASTING - 100)
    show(page, OTHER)
    page.clock.run_for(LASTING - 100)
    expect(toast).to_contain_text("Something else.")
    page.clock.run_for(200)
    expect(toast).to_be_hidden()


def test_one_undo_brings_back_all_that_was_removed_while_it_stands_there(page, toast):
    undo = toast.locator("[data-ichi-undo]")
    for name in ("b", "c,d"):
        show(page, NOTE)
        show(page, messages.note("Removed.", ("Undo", f"jobs/{name}/restore")))
        expect(undo).to_have_attribute("data-ichi-undo", f"jobs/a,{name}/restore")
        page.evaluate("ichiToast.close()")
    show(page, OTHER)
    show(page, NOTE)
    expect(undo).to_have_attribute("data-ichi-undo", "jobs/a/restore")
    show(page, messages.note("Settings were reset.", ("Undo", "settings:{}")))
    expect(undo).to_have_attribute("data-ichi-undo", "settings:{}")


def test_an_error_stays_until_it_is_closed(page, toast):
    show(page, PROBLEM)
    expect(toast.get_by_role("alert")).to_contain_text(WORDS("error.no_result"))
    page.clock.run_for(10 * LASTING)
    expect(toast).to_be_visible()
    page.keyboard.press("Escape")
    expect(toast).to_be_hidden()
    show(page, PROBLEM)
    page.click("#ichi-toast-close")
    expect(toast).to_be_hidden()


@pytest.mark.parametrize("way", ["pointer", "focus"])
def test_a_note_stays_while_a_pointer_or_the_focus_rests_on_it(page, toast, way):
    show(page, NOTE)
    undo = toast.get_by_role("button", name="Undo")
    undo.hover() if way == "pointer" else undo.focus()
    page.clock.run_for(3 * LASTING)
    expect(toast).to_be_visible()
    page.mouse.move(0, 600)
    page.evaluate("document.activeElement.blur()")
    page.clock.run_for(LASTING)
    expect(toast).to_be_hidden()


def test_what_a_handler_says_is_shown_and_goes_with_its_message(page, toast):
    handler_says(page, PROBLEM)
    expect(toast.get_by_role("alert")).to_contain_text(WORDS("error.no_result"))
    handler_says(page, OTHER)
    expect(toast.get_by_role("status")).to_contain_text("Something else.")
    page.keyboard.press("Escape")
    page.evaluate("document.getElementById('message').append(document.createElement('div'))")  # Gradio's own
    page.wait_for_timeout(100)
    assert toast.is_hidden()
    handler_says(page, messages.note("Something else."))
    expect(toast).to_be_visible()
    handler_says(page, messages.NOTHING)
    expect(toast).to_be_hidden()
