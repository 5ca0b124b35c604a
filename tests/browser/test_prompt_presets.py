"""Prompts kept under names: saved, used, deleted, and one that stands there at every start."""

from playwright.sync_api import expect

from tests.browser.driver import WORDS, Screen
from tests.support.app import App


def names(screen: Screen) -> list[str]:
    """The presets in the list."""
    box = screen.page.locator("#preset input")
    box.click()
    expect(screen.page.locator("[role=option]").first).to_be_visible()
    offered = [
        text.strip().lstrip("✓").strip() for text in screen.page.locator("[role=option]").all_inner_texts()
    ]
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


def test_saving_under_the_same_name_replaces(screen: Screen):
    screen.open_presets()
    save(screen, "Twice", "one")
    save(screen, "Twice", "two")
    expect(screen.message).to_have_text(WORDS("page.preset_replaced", name="Twice"))
    assert names(screen).count("Twice") == 1


def test_a_deleted_preset_is_gone(screen: Screen):
    screen.open_presets()
    save(screen, "Gone", "x")
    screen.click("delete-preset")
    expect(screen.message).to_have_text(WORDS("page.preset_deleted", name="Gone"))
    assert "Gone" not in names(screen)
    assert screen.value("preset") == ""


def test_a_preset_needs_a_name_and_a_prompt(screen: Screen):
    screen.open_presets()
    save(screen, "Empty", "")
    expect(screen.message).to_have_text(WORDS("error.preset_without_prompt"))
    save(screen, "", "something")
    expect(screen.message).to_have_text(WORDS("error.bad_preset_name", name="", length=100))


def test_using_a_preset_needs_a_choice(screen: Screen):
    screen.open_presets()
    screen.click("apply-preset")
    expect(screen.message).to_have_text(WORDS("error.choose_preset"))


def test_the_marked_preset_is_the_prompt_at_the_next_start(screen: Screen, app: App, open_tab):
    screen.open_presets()
    save(screen, "Begin", "It begins.")
    screen.tick("startup-preset")
    expect(screen.message).to_have_text(WORDS("page.preset_marked", name="Begin"))
    screen.set("prompt", "something else")
    screen.close()

    app.stop()
    app.start()
    tab = open_tab(app)
    assert tab.value("prompt") == "It begins."
    tab.open_presets()
    assert tab.is_ticked("startup-preset")
    tab.tick("startup-preset", False)
    expect(tab.message).to_have_text(WORDS("page.preset_unmarked", name="Begin"))
