"""Pictures and prompts of single sections: as many rows as the length has, red and blue copies in a loop."""

import pytest
from playwright.sync_api import expect

from tests.browser.driver import GONE, WORDS, Screen
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
    rows.tick("copy-keyframes", False)
    rows.wait_until(lambda: pictured(rows) == ["red.png", "blue.png", "", ""], "no copies any more")


def test_a_picture_that_cannot_be_read_leaves_its_row_empty(rows: Screen, tmp_path):
    (tmp_path / "notes.png").write_text("These are my notes.", "utf-8")
    rows.trouble.allow(GONE)
    rows.put("section-0", tmp_path / "notes.png")
    expect(rows.message).to_have_text(WORDS("error.not_an_image", image="notes.png"))
    rows.wait_until(lambda: pictured(rows) == ["", ""], "the row is empty again")
