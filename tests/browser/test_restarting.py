"""The app started again: the settings come back, open pages come back, and a second start is none."""

import re

import pytest
from playwright.sync_api import Route, expect

from tests.browser.driver import NO_ANSWER, WORDS, Screen
from tests.support.app import App, free_port

pytestmark = pytest.mark.slow


def test_an_open_page_comes_back_with_the_app_and_its_settings(screen: Screen, app: App):
    screen.trouble.allow(NO_ANSWER)
    screen.set("prompt", "日本語も\nsecond line")
    screen.set("seconds", 7.5)
    screen.page.evaluate("window.isOld = true")
    app.stop()
    expect(screen.page.locator("#ichi-lost")).to_have_text(WORDS("live.lost"))
    app.start()
    screen.page.wait_for_function("!window.isOld && document.getElementById('start')")
    expect(screen.page.locator("#ichi-lost")).to_be_hidden()
    expect(screen.page.locator("#outlook p")).to_be_visible()
    screen.settle()
    assert (screen.value("prompt"), screen.value("seconds")) == ("日本語も\nsecond line", "7.5")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_an_open_page_has_its_pictures_and_what_was_typed_meanwhile(screen: Screen, app: App, pictures, end):
    screen.trouble.allow(f"{NO_ANSWER}|Server stopped unexpectedly")
    screen.put("start-image", pictures["red"])
    screen.put("end-image", pictures["green"])
    screen.page.evaluate("window.isOld = true")
    getattr(app, end)()
    expect(screen.page.locator("#ichi-lost")).to_be_visible()
    screen.page.fill("#prompt textarea", "Typed while nobody listened.")
    screen.page.set_input_files("#end-image input[type=file]", pictures["blue"])
    expect(screen.page.locator(".toast-wrap")).to_be_hidden()
    app.start()
    screen.page.wait_for_function("!window.isOld && document.getElementById('start')")
    screen.wait_until(lambda: "red.png" in screen.picture("start-image"), "the start image is back")
    screen.wait_until(lambda: "green.png" in screen.picture("end-image"), "the end image is back")
    assert screen.value("prompt") == "Typed while nobody listened."
    screen.wait_until(
        lambda: app.kept_settings().get("prompt") == "Typed while nobody listened.", "it is remembered"
    )
    expect(screen.page.locator("#ichi-lost")).to_be_hidden()


def form(app: App) -> str:
    """Return what is remembered of the form beside the settings."""
    return str(app.kept_settings().get("form", ""))


def test_a_tab_that_is_opened_after_a_restart_has_the_pictures_and_the_rows(
    screen: Screen, app: App, pictures, open_tab
):
    screen.put("start-image", pictures["red"])
    screen.put("end-image", pictures["green"])
    screen.open_panel()
    screen.tick("use-keyframes")
    row = screen.page.locator("#section-0 textarea")
    row.fill("It ends.")
    screen.wait_until(
        lambda: all(name in form(app) for name in ("red.png", "green.png", "It ends.")), "it is remembered"
    )
    held = form(app)
    screen.page.context.close()
    app.stop()
    app.start()
    tab = open_tab(app)
    tab.wait_until(lambda: "red.png" in tab.picture("start-image"), "the start image is back")
    tab.wait_until(lambda: "green.png" in tab.picture("end-image"), "the end image is back")
    tab.open_panel()
    expect(tab.page.locator("#section-0 textarea")).to_have_value("It ends.")
    tab.settle()
    assert form(app) == held, "to open a page changes nothing"
    tab.page.click(f"#end-image [aria-label$='{WORDS('live.take_away')}']")
    tab.wait_until(lambda: "green.png" not in form(app), "it is forgotten")


def test_a_network_that_is_away_for_a_while_takes_nothing(screen: Screen, pictures):
    """The page notices at the first thing that it cannot send, and says when it can again."""
    screen.trouble.allow("ERR_INTERNET_DISCONNECTED|ERR_FAILED")
    screen.put("start-image", pictures["red"])
    screen.page.context.set_offline(True)
    screen.page.set_input_files("#end-image input[type=file]", pictures["green"])
    expect(screen.page.locator("#ichi-lost")).to_have_text(WORDS("live.lost"))
    expect(screen.page.locator(".toast-wrap")).to_be_hidden()
    screen.page.context.set_offline(False)
    expect(screen.page.locator("#ichi-lost")).to_be_hidden()
    screen.page.wait_for_timeout(2000)  # it may load itself anew
    screen.wait_until(lambda: "red.png" in screen.picture("start-image"), "the start image stays")
    screen.settle()
    screen.put("end-image", pictures["green"])
    assert "green.png" in screen.picture("end-image")


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        ("text/plain; charset=utf-8", "The disk is full.", "The disk is full."),
        ("text/html", "<html>Bad Gateway</html>", None),
        ("text/plain", "", None),
    ],
)
def test_an_upload_that_fails_is_told_in_our_words(screen: Screen, pictures, kind, body, sentence):
    screen.trouble.allow("status of 502|upload_progress|Method not implemented|Error: HTTP 502|HTTP 502")
    languages: list[str | None] = []

    def fail(route: Route) -> None:
        languages.append(route.request.headers.get("accept-language"))
        route.fulfill(status=502, body=body, content_type=kind)

    screen.page.route(re.compile(r"/upload\?"), fail)
    screen.page.set_input_files("#start-image input[type=file]", pictures["red"])
    expect(screen.message).to_have_text(sentence or WORDS("page.not_sent"))
    expect(screen.page.locator(".toast-wrap")).to_be_hidden()
    expect(screen.page.locator("#ichi-lost")).to_be_hidden()
    assert languages == ["en"], "the server answers in the tab's language"


def test_a_second_start_says_where_the_app_is(app: App):
    for port in (app.port, free_port()):  # the second is found by its folder
        second = app.run("--lang", "en", port=port)
        assert (second.returncode, second.stderr) == (0, f"{WORDS('page.already_running', url=app.url)}\n")
