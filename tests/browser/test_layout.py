"""The page at several widths: nothing to scroll at first sight, nothing over another, nothing cut off."""

import itertools

import pytest
from playwright.sync_api import expect

from tests.browser.driver import Screen
from tests.support.app import App


@pytest.fixture(scope="module")
def app(new_app: App) -> App:
    return new_app


LANGUAGES = ("ja", "en", "zh-tw")
FIRST_SIGHT = (
    "start-image", "end-image", "prompt", "seconds", "outlook", "start", "stop", "inbox", "panel",
    "ichi-screen",
)  # fmt: skip


def overlaps(screen: Screen) -> list[tuple[str, str]]:
    """Parts of the page that lie over each other, though neither holds the other."""
    boxes = list(enumerate(screen.page.evaluate("inside.boxes()")))
    found = []
    for (number, a), (other, b) in itertools.combinations(boxes, 2):
        if number in b["around"] or other in a["around"]:
            continue
        width = min(a["right"], b["right"]) - max(a["left"], b["left"])
        height = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
        if width > 2 and height > 2:
            found.append((a["name"], b["name"]))
    return found


def test_start_is_in_sight_while_the_models_are_offered(tmp_path, open_tab):
    app = App(tmp_path / "new", models=tmp_path / "nowhere")
    app.keep_settings(language="ja")
    app.start()
    try:
        screen = open_tab(app)
        setup = screen.page.locator("#ichi-setup")
        expect(screen.page.locator("#ichi-download-button")).to_have_count(1)
        if setup.get_attribute("open") is None:  # where there is a card, it opens by itself
            screen.page.locator("#ichi-setup-title").click()
        expect(screen.page.locator("#ichi-download-button")).to_be_visible()
        box = screen.page.locator("#start").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 800
        assert overlaps(screen) == []
    finally:
        app.stop()


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_overlaps_and_first_sight_needs_no_scrolling(app: App, open_tab, pictures, language):
    app.keep_settings(language=language, mode="loop", use_keyframes=True, use_all_padding=True, seconds=2.5)
    screen = open_tab(app)
    assert screen.page.evaluate("document.documentElement.scrollHeight") <= 800
    for name in FIRST_SIGHT:
        box = screen.page.locator(f"#{name}").bounding_box()
        assert box is not None, name
        assert box["y"] >= 0, name
        assert box["y"] + box["height"] <= 800, name
    assert_tidy(screen)

    screen.put("start-image", pictures["yellow"])
    screen.open_presets()
    expect(screen.page.locator("#section-1")).to_be_visible()
    screen.click("apply-preset")
    expect(screen.message).to_be_visible()
    screen.page.wait_for_function(  # the panel has unfolded
        "document.querySelector('#panel').getAnimations({ subtree: true }).length === 0"
    )
    assert_tidy(screen)


def assert_tidy(screen: Screen) -> None:
    """Check the page at several widths."""
    for width in (420, 1280, 1920):
        screen.page.set_viewport_size({"width": width, "height": 800})
        is_too_wide = screen.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert (overlaps(screen), is_too_wide) == ([], False), width
