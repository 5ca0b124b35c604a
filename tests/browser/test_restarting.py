"""The app started again: the settings come back, open pages come back, and a second start is none."""

from playwright.sync_api import expect

from tests.browser.driver import NO_ANSWER, WORDS, Screen
from tests.support.app import App, free_port


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


def test_a_second_start_says_where_the_app_is(app: App):
    for port in (app.port, free_port()):  # the second is found by its folder
        second = app.run("--lang", "en", port=port)
        assert (second.returncode, second.stderr) == (0, f"{WORDS('page.already_running', url=app.url)}\n")
