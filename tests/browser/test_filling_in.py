"""Filling in the form: pictures that are dropped, and prompts that are kept under names."""

import pytest
from playwright.sync_api import expect

from tests.browser.driver import WORDS, Screen


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


def test_a_saved_preset_can_be_used(screen: Screen):
    screen.open_presets()
    screen.set("prompt", "The cat yawns.\nIt sleeps.")
    screen.page.locator("#preset-name input, #preset-name textarea").fill("Cat")
    screen.click("save-preset")
    expect(screen.message).to_have_text(WORDS("page.preset_saved", name="Cat"))
    screen.set("prompt", "")
    screen.reload().open_presets()
    screen.page.locator("#preset input").click()
    with screen.asking():
        screen.page.get_by_role("option", name="Cat").click()
    screen.click("apply-preset")
    assert screen.value("prompt") == "The cat yawns.\nIt sleeps."
