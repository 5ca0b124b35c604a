"""The page without a mouse: an order that makes sense, a name for everything, a video from keys alone."""

import pytest
from playwright.sync_api import expect

from tests.browser.driver import Screen

pytestmark = pytest.mark.slow

ORDER = [
    "ichi-language",
    *("start-image", "end-image", "prompt", "seconds-choice", "loop", "start", "inbox", "panel"),
]
NEED_A_NAME = {
    "button", "textbox", "searchbox", "combobox", "listbox", "option", "checkbox", "radio", "slider",
    "spinbutton", "link", "progressbar", "region", "DisclosureTriangle",
}  # fmt: skip


def focused(screen: Screen) -> str:
    name: str = screen.page.evaluate("inside.focused()")
    return name


def tab_to(screen: Screen, name: str) -> list[str]:
    """Press Tab until something has the focus; gives what had it on the way."""
    way: list[str] = []
    while not way or way[-1] != name:
        screen.page.keyboard.press("Tab")
        way.append(focused(screen))
        assert len(way) < 60, way
    return way


def names_missing(screen: Screen) -> list[str]:
    """Parts that a screen reader could not call by a name."""
    session = screen.page.context.new_cdp_session(screen.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    seen = [node for node in nodes if not node.get("ignored")]
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in seen]
    assert len([role for role, _ in roles if role in NEED_A_NAME]) > 10
    return [role for role, name in roles if role in NEED_A_NAME and not name]


def test_tab_goes_through_the_page_from_top_to_bottom(screen: Screen):
    way = [name for name in tab_to(screen, "panel") if name in ORDER]
    assert list(dict.fromkeys(way)) == ORDER
    assert way == sorted(way, key=ORDER.index), "nothing is come to twice"


def test_everything_has_a_name(open_with, pictures):
    tab = open_with(loop=True, use_keyframes=True, seconds=2.5)
    tab.put("start-image", pictures["red"])
    tab.open_presets()
    expect(tab.page.locator("#section-1")).to_be_visible()
    tab.page.wait_for_function("!document.body.innerHTML.includes('aria-label=\"Upload file\"')")
    assert names_missing(tab) == []


def test_keys_open_and_close_the_panel(screen: Screen):
    tab_to(screen, "panel")
    steps = expect(screen.page.locator("#steps"))
    screen.page.keyboard.press("Enter")
    steps.to_be_visible()
    screen.page.keyboard.press("Space")
    steps.to_be_hidden()
    screen.page.keyboard.press("Space")
    steps.to_be_visible()
    tab_to(screen, "steps")


def test_keys_choose_a_file(screen: Screen, pictures):
    for name, colour in (("start-image", "red"), ("inbox", "green")):
        tab_to(screen, name)
        with screen.page.expect_file_chooser() as chooser, screen.asking():
            screen.page.keyboard.press("Enter")
            chooser.value.set_files(pictures[colour])
        assert f"{colour}.png" in screen.picture("start-image")


def test_a_video_is_started_and_stopped_with_keys_alone(open_with, pictures):
    screen = open_with(resolution=192, steps=100, seconds=10)
    screen.put("start-image", pictures["red"])
    tab_to(screen, "prompt")
    screen.page.keyboard.type("The cat yawns.")
    tab_to(screen, "start")
    screen.page.keyboard.press("Enter")
    screen.wait_until_running()
    expect(screen.page.locator("#ichi-job-name")).to_contain_text("The cat yawns.")
    assert "panel" not in tab_to(screen, "stop"), "the stage comes before the settings"
    screen.page.keyboard.press("Space")
    screen.wait_until_idle()


def test_arrows_move_between_the_choices_of_a_field(screen: Screen):
    screen.choose("seconds-choice", "1")
    screen.page.focus("#seconds-choice input[value='1']")
    with screen.asking():
        screen.page.keyboard.press("ArrowRight")
    assert screen.chosen("seconds-choice") == "2"
    screen.page.keyboard.press("Tab")
    assert focused(screen) == "loop", "the choices are one stop"
    screen.page.keyboard.press("Shift+Tab")
    with screen.asking():
        screen.page.keyboard.press("ArrowLeft")
    assert screen.chosen("seconds-choice") == "1"
    expect(screen.page.locator("#outlook p")).to_contain_text("1.23")


def test_ctrl_and_enter_start_from_every_field(open_with, pictures):
    screen = open_with(seconds=2)
    screen.put("start-image", pictures["red"])
    for field in ("#seconds-choice input[value='2']", "#loop input"):
        screen.page.focus(field)
        before = screen.text("ichi-caption")
        screen.page.keyboard.press("Control+Enter")
        screen.wait_for_result(before)


def test_a_click_on_other_lets_one_type_the_number_at_once(open_with):
    screen = open_with(seconds=1)
    screen.page.locator("#seconds-choice label").last.click()
    expect(screen.page.locator("#seconds input[type=number]")).to_be_focused()
    with screen.asking():
        screen.page.keyboard.type("2.5")
    expect(screen.page.locator("#outlook p")).to_contain_text("2.43")
