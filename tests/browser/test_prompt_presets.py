"""Prompts kept under names: saved, used, deleted, and one that is marked for every start."""

from playwright.sync_api import expect

from tests.browser.driver import WORDS, Screen
from tests.support.app import App


def names(screen: Screen) -> str:
    """The text of the list of presets."""
    box = screen.page.locator("#preset input")
    box.click()
    expect(screen.page.locator("[role=option]").first).to_be_visible()
    offered = screen.page.locator("[role=listbox]").inner_text()
    box.press("Escape")
    return offered


def choose(screen: Screen, name: str) -> None:
    screen.page.locator("#preset input").click()
    with screen.asking():
        screen.page.get_by_role("option", name=name).click()


def save(screen: Screen, name: str, prompt: str) -> None:
    screen.set("prompt", prompt)
    screen.page.locator("#preset-name input, #preset-name textarea").fill(name)
    screen.click("save-preset")


def test_a_saved_preset_can_be_used(screen: Screen):
    screen.open_presets()
    save(screen, "Cat", "The cat yawns.\nIt sleeps.")
    expect(screen.message).to_have_text(WORDS("page.preset_saved", name="Cat"))
    screen.set("prompt", "")
    screen.reload().open_presets()
    choose(screen, "Cat")
    screen.click("apply-preset")
    assert screen.value("prompt") == "The cat yawns.\nIt sleeps."


def test_a_replaced_preset_is_listed_once_and_a_deleted_one_never(screen: Screen):
    screen.open_presets()
    for prompt in ("one", "two"):
        save(screen, "Twice", prompt)
    expect(screen.message).to_have_text(WORDS("page.preset_replaced", name="Twice"))
    assert names(screen).count("Twice") == 1
    screen.click("delete-preset")
    expect(screen.message).to_have_text(WORDS("page.preset_deleted", name="Twice"))
    assert "Twice" not in names(screen)
    assert screen.value("preset") == ""
    screen.click("apply-preset")
    expect(screen.message).to_have_text(WORDS("error.choose_preset"))


def test_the_preset_of_the_start_is_marked_in_every_tab(screen: Screen, app: App, open_tab):
    screen.open_presets()
    save(screen, "Begin", "It begins.")
    screen.tick("startup-preset")
    expect(screen.message).to_have_text(WORDS("page.preset_marked", name="Begin"))
    tab = open_tab(app)
    tab.open_presets()
    assert tab.is_ticked("startup-preset")
    tab.tick("startup-preset", False)
    expect(tab.message).to_have_text(WORDS("page.preset_unmarked", name="Begin"))
