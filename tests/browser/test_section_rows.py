"""Pictures and prompts of single sections: as many rows as the length has, red and blue copies in a loop."""

from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.driver import GONE, WORDS, Screen
from webui.eichi_utils.text.translations import Translator
from webui.eichi_utils.uploads.files import VIEW

pytestmark = pytest.mark.slow


@pytest.fixture
def rows(screen: Screen) -> Screen:
    """A page with the rows of two sections."""
    screen.open_panel()
    screen.tick("use-keyframes")
    screen.set("seconds", 2.5)
    expect_rows(screen, 2)
    return screen


def expect_rows(screen: Screen, count: int) -> None:
    expect(screen.page.locator(".ichi-row")).to_have_count(count)


def pictured(screen: Screen) -> list[str]:
    """The name of each row's picture file."""
    count = screen.page.locator(".ichi-row").count()
    shown = (screen.picture(f"section-{number}") for number in range(count))
    return [address.rpartition("/")[2].removesuffix(VIEW) for address in shown]


def test_as_many_rows_as_sections_keep_what_they_hold(rows: Screen, pictures):
    rows.put("start-image", pictures["red"])
    rows.put("section-1", pictures["blue"])
    with rows.asking():
        rows.page.fill("#section-1 textarea", "It turns.")
    for seconds, count in ((1, 1), (5, 4), (2.5, 2)):
        rows.set("seconds", seconds)
        expect_rows(rows, count)
    assert pictured(rows) == ["", "blue.png"]
    assert rows.page.locator("#section-1 textarea").input_value() == "It turns."
    rows.choose("section-seconds", "0.5")
    expect_rows(rows, 4)
    assert rows.outlook().sections == 4
    rows.tick("use-keyframes", False)
    expect_rows(rows, 0)


def test_a_loop_copies_red_to_even_and_blue_to_odd_sections(rows: Screen, pictures):
    rows.set("seconds", 5)
    expect_rows(rows, 4)
    rows.tick("loop")
    expect(rows.page.locator(".ichi-row.ichi-red")).to_have_count(2)
    expect(rows.page.locator(".ichi-row.ichi-blue")).to_have_count(2)
    rows.put("section-0", pictures["red"])
    rows.wait_until(lambda: pictured(rows) == ["red.png", "", "red.png", ""], "red is copied")
    rows.put("section-1", pictures["blue"])
    rows.wait_until(
        lambda: pictured(rows) == ["red.png", "blue.png", "red.png", "blue.png"], "blue is copied"
    )
    rows.page.click("#section-0 .icon-button")
    rows.wait_until(lambda: pictured(rows) == ["", "blue.png", "", "blue.png"], "no red one any more")
    rows.put("section-0", pictures["red"])
    rows.tick("copy-keyframes", False)
    rows.wait_until(lambda: pictured(rows) == ["red.png", "blue.png", "", ""], "no copies any more")


def test_a_picture_that_cannot_be_read_leaves_its_row_empty(rows: Screen, tmp_path):
    (tmp_path / "notes.png").write_text("These are my notes.", "utf-8")
    rows.trouble.allow(GONE)
    rows.put("section-0", tmp_path / "notes.png")
    expect(rows.message).to_have_text(WORDS("error.not_an_image", image="notes.png"))
    rows.wait_until(lambda: pictured(rows) == ["", ""], "the row is empty again")


def test_what_is_written_while_the_rows_change_stays_in_its_field(rows: Screen):
    text = "It turns in a circle."
    field = rows.page.locator("#section-1 textarea")
    field.focus()
    for number, letter in enumerate(text):
        if number in (3, 6, 9):  # not a click, which would take the focus away
            seconds = {3: "4", 6: "6", 9: "2"}[number]
            rows.page.evaluate(
                f"document.querySelector('#seconds-choice input[value=\"{seconds}\"]').click()"
            )
        rows.page.keyboard.type(letter)
        rows.page.wait_for_timeout(50)
    expect_rows(rows, 2)
    assert field.input_value() == text
    rows.wait_until(lambda: remembered(rows)["prompts"] == {"1": text}, "it is remembered")


def test_a_text_written_while_pictures_are_read_is_kept(rows: Screen, tmp_path):
    """Each answer of the server tells of its own field alone."""
    Image.new("RGB", (4000, 3000), "red").save(tmp_path / "large.png")
    for section in (0, 1):
        rows.page.set_input_files(f"#section-{section} input[type=file]", tmp_path / "large.png")
    rows.page.fill("#section-0 textarea", "It turns.")
    rows.page.fill("#section-1 textarea", "It stops.")
    rows.wait_until(lambda: pictured(rows) == ["large.png", "large.png"], "the pictures are read")
    rows.wait_until(lambda: all(remembered(rows)["rows"].get(key) for key in "01"), "both are remembered")
    texts = {"0": "It turns.", "1": "It stops."}
    rows.wait_until(lambda: remembered(rows)["prompts"] == texts, "so are the texts")
    assert rows.page.locator("#section-0 textarea").input_value() == "It turns."


def test_another_language_leaves_the_rows_as_they_are(rows: Screen, pictures):
    rows.put("section-0", pictures["red"])
    with rows.asking():
        rows.page.fill("#section-0 textarea", "It turns.")
    rows.choose_language("ja")
    rows.settle()
    label = Translator("ja")("page.row", section=0, begin="1.2", end="2.4")
    expect(rows.page.locator("#section-0").get_by_text(label).first).to_be_visible()
    assert pictured(rows) == ["red.png", ""]
    assert rows.page.locator("#section-0 textarea").input_value() == "It turns."


def remembered(screen: Screen) -> dict[str, Any]:
    """Return what the tab remembers of its form."""
    kept: dict[str, Any] = screen.page.evaluate("JSON.parse(ichi.kept())")
    return kept
