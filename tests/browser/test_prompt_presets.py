"""Prompts kept under names. What the presets' buttons do is tested in tests/app/page/test_handlers.py."""

from playwright.sync_api import expect

from tests.browser.driver import WORDS, Screen


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
