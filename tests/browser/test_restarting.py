"""A restart of the app: the settings that come back, and pages that were open."""

import json

from playwright.sync_api import expect

from tests.browser.driver import WORDS, Screen
from tests.support.app import App

NO_ANSWER = (
    "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_NETWORK"
)


def test_the_settings_come_back_as_they_were_left(screen: Screen, app: App, open_tab):
    screen.set("prompt", "日本語も\nsecond line")
    screen.set("seconds", 7.5)
    screen.open_panel()
    for field, value in {"steps": 7, "guidance": 3.5, "crf": 30, "output-folder": "outputs/cats"}.items():
        screen.set(field, value)
    screen.choose("mode", "loop")
    screen.choose("section-seconds", "0.5")
    screen.tick("random-seed", False)
    screen.set("seed", str(2**63 - 1))
    screen.tick("teacache", False)
    screen.tick("use-all-padding")
    screen.set("all-padding", 0.4)
    screen.tick("sound", False)
    screen.close()

    app.stop()
    app.start()
    tab = open_tab(app)
    tab.open_panel()
    texts = ("prompt", "seconds", "steps", "guidance", "crf", "output-folder", "seed", "all-padding")
    assert [tab.value(field) for field in texts] == [
        "日本語も\nsecond line", "7.5", "7", "3.5", "30", "outputs/cats", str(2**63 - 1), "0.4",
    ]  # fmt: skip
    assert (tab.chosen("mode"), tab.chosen("section-seconds")) == ("loop", "0.5")
    ticks = ("random-seed", "teacache", "use-all-padding", "sound")
    assert [tab.is_ticked(field) for field in ticks] == [False, False, True, False]


def test_an_open_page_reports_a_lost_app_and_comes_back_with_it(screen: Screen, app: App):
    screen.trouble.allow(NO_ANSWER)
    screen.page.evaluate("window.isOld = true")
    app.stop()
    expect(screen.page.locator("#ichi-lost")).to_have_text(WORDS("live.lost"))
    app.start()
    screen.page.wait_for_function("!window.isOld && document.getElementById('start')")
    expect(screen.page.locator("#ichi-lost")).to_be_hidden()
    expect(screen.page.locator("#outlook p")).to_be_visible()


def test_a_broken_settings_file_is_set_aside_and_said(screen: Screen, app: App, open_tab):
    screen.close()
    app.stop()
    settings = app.home / "settings" / "app_settings.json"
    settings.write_text('{"steps": 3', "utf-8")
    app.start()
    tab = open_tab(app)
    expect(tab.message).to_contain_text("app_settings.broken")
    assert len([path for path in settings.parent.iterdir() if path.read_text("utf-8") == '{"steps": 3']) == 1
    assert tab.reload().message.count() == 0, "said once"
    tab.set("prompt", "new")
    tab.wait_until(lambda: json.loads(settings.read_text("utf-8")).get("prompt") == "new", "kept again")
