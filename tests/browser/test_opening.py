"""Opening a page changes nothing: only what a person has changed is remembered, and comes back."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.conftest import Open
from tests.support.app import App

pytestmark = pytest.mark.slow

MINE: dict[str, Any] = {
    "prompt": "It is mine.",
    "seconds": 1.5,
    "steps": 7,
    "crf": 33,
    "resolution": 96,
    "teacache": False,
    "loop": True,
    "random_seed": False,
    "seed": "41",
    "all_padding": 1.4,
    "use_keyframes": True,
    "output_folder": "mine",
    "sound": False,
}


@pytest.fixture
def mine(app: App) -> App:
    """An app whose settings all differ from their defaults."""
    app.keep_settings(**{key: value for key, value in MINE.items() if key not in ("output_folder", "sound")})
    app.keep_settings(**MINE)
    assert kept(app) == MINE
    return app


def kept(app: App) -> dict[str, Any]:
    settings = app.kept_settings()
    return {key: settings.get(key) for key in MINE}


@pytest.mark.slow
def test_a_tab_closed_at_any_moment_of_loading_changes_nothing(mine: App, browser: Browser, open_tab: Open):
    for moment in range(20):
        page = browser.new_page()
        page.goto(mine.url, wait_until="commit")
        page.wait_for_timeout(moment * 60)
        page.close()
    open_tab(mine)
    assert kept(mine) == MINE


def test_opening_reloading_and_going_back_asks_for_nothing_to_be_remembered(mine: App, open_tab: Open):
    screen = open_tab(mine)
    assert (screen.value("prompt"), screen.value("seconds")) == (MINE["prompt"], "1.5")
    screen.reload()
    screen.page.goto(f"{mine.url}ichi/hello")
    screen.page.go_back()
    expect(screen.page.locator("#outlook p")).to_be_visible()
    screen.settle()
    screen.open_panel()
    assert (screen.value("steps"), screen.is_ticked("loop"), screen.is_ticked("sound")) == ("7", True, False)
    expect(screen.page.locator("#all-padding")).to_be_visible()
    assert kept(mine) == MINE


def test_a_second_tab_takes_and_spoils_nothing(mine: App, open_tab: Open):
    first, second = open_tab(mine), open_tab(mine)
    first.set("prompt", "The first tab's.")
    second.open_panel()
    second.set("steps", 9)
    third = open_tab(mine)
    assert third.value("prompt") == "The first tab's."
    assert kept(mine) == MINE | {"prompt": "The first tab's.", "steps": 9}


def test_what_is_filled_in_before_the_first_answer_stays(mine: App, open_tab: Open, pictures):
    """The page's first question is held back, and is answered at last."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route) if not held else route.continue_()

    screen = open_tab(mine)
    screen.page.route("**/queue/join*", hold)
    screen.page.goto(mine.url)
    screen.page.wait_for_selector("#start-image input[type=file]", state="attached")
    screen.wait_until(lambda: held, "the page has asked")
    screen.page.set_input_files("#start-image input[type=file]", pictures["red"])
    screen.page.fill("#prompt textarea", "An early one.")
    screen.wait_until(lambda: kept(mine)["prompt"] == "An early one.", "it is remembered")
    held[0].continue_()
    screen.settle()
    assert kept(mine) == MINE | {"prompt": "An early one."}
    assert screen.value("prompt") == "An early one."
    assert "red.png" in screen.picture("start-image")


@pytest.mark.parametrize("way", ["paste", "insert", "delete"])
def test_a_text_is_remembered_however_it_is_written(mine: App, open_tab: Open, way):
    """An input method, the clipboard and Backspace press no key that Gradio calls an input."""
    screen = open_tab(mine)
    field = screen.page.locator("#prompt textarea")
    field.focus()
    screen.page.keyboard.press("Control+A")
    with screen.asking():
        if way == "paste":
            screen.page.evaluate("document.execCommand('insertText', false, 'Pasted.')")
        elif way == "insert":
            screen.page.keyboard.insert_text("女性が振り向く")
        else:
            screen.page.keyboard.press("Delete")
    expected = {"paste": "Pasted.", "insert": "女性が振り向く", "delete": ""}[way]
    screen.wait_until(lambda: kept(mine)["prompt"] == expected, "it is remembered")


def test_a_number_beyond_a_slider_is_remembered_as_the_page_shows_it(mine: App, open_tab: Open):
    screen = open_tab(mine)
    screen.open_panel()
    for field, typed in (("steps", "500"), ("steps", "")):
        screen.set(field, typed)
        shown = screen.value(field)
        screen.wait_until(lambda f=field, s=shown: str(kept(mine)[f]) == s, "it is as it is shown")


def test_what_is_typed_right_before_a_reload_is_shown_and_remembered(mine: App, open_tab: Open):
    screen = open_tab(mine)
    screen.open_panel()
    screen.page.fill("#seconds input[type=number]", "2.5")
    row = screen.page.locator("#section-1 textarea")
    expect(row).to_be_visible()
    screen.page.uncheck("#loop input")
    screen.page.fill("#steps input[type=number]", "8")
    screen.page.fill("#prompt textarea", "A late one.")
    row.fill("It turns.")
    screen.reload()
    screen.open_panel()
    assert (screen.value("prompt"), screen.value("seconds")) == ("A late one.", "2.5")
    assert (screen.is_ticked("loop"), screen.value("steps")) == (False, "8")
    expect(row).to_have_value("It turns.")
    changed = {"prompt": "A late one.", "seconds": 2.5, "loop": False, "steps": 8}
    screen.wait_until(lambda: kept(mine) == MINE | changed, "it is remembered")
    screen.wait_until(lambda: "It turns." in screen.page.evaluate("ichi.kept()"), "the tab remembers it")


def test_a_reload_takes_what_another_tab_has_changed(mine: App, open_tab: Open):
    first, second = open_tab(mine), open_tab(mine)
    first.set("prompt", "The first tab's.")
    first.page.wait_for_timeout(5000)  # else it could still be on its way
    second.set("prompt", "The second tab's.")
    first.reload()
    assert first.value("prompt") == "The second tab's."
    assert kept(mine) == MINE | {"prompt": "The second tab's."}


def test_another_language_changes_the_language_alone(mine: App, open_tab: Open):
    screen = open_tab(mine)
    before = mine.kept_settings()
    screen.choose_language("ja")
    screen.wait_until(lambda: mine.kept_settings()["language"] == "ja", "it is remembered")
    screen.reload()
    assert mine.kept_settings() == before | {"language": "ja"}


def test_pictures_come_back_with_a_reload_and_no_other_tab_has_them(mine: App, open_tab: Open, pictures):
    screen = open_tab(mine)
    screen.put("start-image", pictures["red"])
    screen.put("end-image", pictures["green"])
    screen.open_panel()
    screen.put("section-0", pictures["blue"])
    screen.page.fill("#section-0 textarea", "It turns.")
    screen.wait_until(lambda: "It turns." in screen.page.evaluate("ichi.kept()"), "the tab remembers it")
    screen.reload()
    screen.open_panel()
    for place, name in {"start-image": "red", "end-image": "green", "section-0": "blue"}.items():
        screen.wait_until(lambda p=place, n=name: f"{n}.png" in screen.picture(p), place)
    assert screen.page.locator("#section-0 textarea").input_value() == "It turns."
    other = open_tab(mine)
    assert not other.picture("start-image")
