"""The page at several widths: nothing to scroll at first sight, nothing over another, nothing cut off."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import SIZE, running
from tests.browser.driver import Screen
from tests.browser.find_browser import launch
from tests.support.app import App


@pytest.fixture(scope="module")
def app(new_app: App) -> App:
    return new_app


@pytest.fixture
def own_app(tmp_path: Path, refusal: dict[str, str]) -> Iterator[App]:
    """An app without any job: a second one would bring the list of jobs."""
    with running(tmp_path, refusal) as app:
        yield app


LANGUAGES = ["ja", *(pytest.param(language, marks=pytest.mark.slow) for language in ("en", "zh-tw"))]
FIRST_SIGHT = (
    "start-image", "end-image", "prompt", "seconds", "outlook", "start", "inbox", "panel",
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
    app.keep_settings(language=language, loop=True, use_keyframes=True, seconds=2.5)
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
    for width in (360, 420, 1280, 1920):
        screen.page.set_viewport_size({"width": width, "height": 800})
        is_too_wide = screen.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert (overlaps(screen), is_too_wide) == ([], False), width


ZOOMED = {"width": 1067, "height": 600}
"""A screen of 1600 x 900 at 150 % zoom."""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("has_picture", [pytest.param(False, marks=pytest.mark.slow), True])
def test_at_150_percent_the_form_and_the_stage_are_in_sight(
    app: App, open_tab, pictures, language, has_picture
):
    app.keep_settings(language=language, seconds=2.5)
    screen = open_tab(app)
    screen.page.set_viewport_size(ZOOMED)
    if has_picture:
        screen.put("start-image", pictures["yellow"])
    for name in ("start-image", "end-image", "prompt", "seconds-choice", "start", "ichi-screen"):
        box = screen.page.locator(f"#{name}").bounding_box()
        assert box is not None, name
        assert box["y"] >= 0, name
        assert box["y"] + box["height"] <= ZOOMED["height"], name
    assert overlaps(screen) == []


# -- nothing jumps -----------------------------------------------------------------------------------------

WATCH = """() => {
    window.shifts = [];
    const name = (node) => node && (node.id || node.className || node.nodeName);
    const say = ({ x, y, width, height }) => [x, y, width, height].map(Math.round).join();
    new PerformanceObserver((list) => {
        for (const { value, sources } of list.getEntries())
            for (const { node, previousRect, currentRect } of sources)
                window.shifts.push([value, name(node), say(previousRect), say(currentRect)].join(" "));
    }).observe({ type: "layout-shift", buffered: true });
}"""


@pytest.mark.parametrize(
    "size", [(1067, 600), *(pytest.param(size, marks=pytest.mark.slow) for size in ((1280, 800), (390, 844)))]
)
def test_nothing_jumps_while_somebody_types_starts_and_reads(own_app: App, open_tab, pictures, size):
    own_app.keep_settings(seconds=30, steps=20)  # its job does not end meanwhile
    screen = open_tab(own_app)
    page, found = screen.page, {}
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.evaluate(WATCH)

    def look(after: str) -> None:
        screen.settle()
        page.wait_for_timeout(300)
        if shifts := page.evaluate("window.shifts.splice(0)"):
            found[after] = shifts

    look("the page itself")
    found.clear()
    screen.start()
    expect(screen.message).to_be_visible()
    look("a message")
    field = page.locator("#prompt textarea")
    field.press_sequentially("The cat walks. 猫が歩く。")
    look("typing")
    field.fill("A cat walks.\n" * 60)
    expect(page.locator("#unread p")).to_be_visible()
    look("a prompt that is too long")
    for choice in ("1", "16", "other"):
        screen.choose("seconds-choice", choice)
        look(f"the length {choice}")
    screen.set("seconds", 30)
    screen.put("start-image", pictures["yellow"])
    look("a picture")
    screen.start()
    screen.wait_until_running()
    look("Start")
    expect(page.locator("#ichi-notices")).not_to_be_empty()
    expect(screen.message).to_have_text(page.locator("#ichi-notices").text_content())
    look("a notice that comes with the job")
    screen.end_jobs()
    assert found == {}


STOPPED = """lines => {
    const ids = ["stage", "ichi-screen", "ichi-failure"];
    const [stage, screen, failure] = ids.map((id) => document.getElementById(id));
    const before = stage.offsetHeight;
    document.getElementById("ichi-failure-title").textContent = "It was stopped.";
    document.getElementById("ichi-failure-text").textContent = "It is kept.\\n".repeat(lines);
    failure.hidden = false;
    const after = stage.offsetHeight - before, left = screen.offsetHeight;
    failure.hidden = true;
    return [after, left];
}"""


@pytest.mark.parametrize("size", [(360, 800), (420, 800), (1067, 600), (1280, 800), (1920, 1080)])
def test_the_stage_is_as_high_while_it_says_what_is_kept(app: App, open_tab, size):
    page = open_tab(app).page
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    for lines in (1, 2, 3):
        grown, left = page.evaluate(STOPPED, lines)
        assert (grown, left >= 170) == (0, True), (lines, left)


def test_the_lists_of_jobs_are_told_apart(app: App, open_tab):
    page = open_tab(app).page
    for width in (360, 420, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        first, second = page.evaluate("""() => ["unfinished", "queue"].map((name) => {
            const box = document.getElementById(`ichi-${name}-box`);
            box.hidden = false;
            return box;
        }).map((box) => box.getBoundingClientRect().toJSON())""")
        assert second["top"] - first["bottom"] >= 14, width


def test_the_ring_around_a_checkbox_is_whole(app: App, open_tab):
    page = open_tab(app).page
    clipped = """box => {
        const found = [];
        for (let one = box; one.id !== "left"; one = one.parentElement)
            if (getComputedStyle(one).overflowX !== "visible") found.push(one.className);
        return found;
    }"""
    assert page.locator("#loop input").evaluate(clipped) == []


# -- scrollbars, which browsers that are driven hide ---------------------------------------------------------

SCROLLING = """() => [...document.querySelectorAll("body *")].filter((element) => {
    const { overflowX, overflowY } = getComputedStyle(element), scrolls = /auto|scroll/;
    const width = element.offsetWidth - element.clientWidth;
    const height = element.offsetHeight - element.clientHeight;
    return scrolls.test(overflowX) && height > 8 || scrolls.test(overflowY) && width > 8;
}).map((element) => element.id || element.className)"""


def test_scrollbars_stand_nowhere_without_need_and_move_nothing(app: App, browser: Browser):
    app.keep_settings()
    showing = launch(browser.browser_type, ignore_default_args=["--hide-scrollbars"])
    assert showing is not None
    page = showing.new_page(viewport={"width": 1280, "height": 1200}, locale="en-US")
    screen = Screen(page, app.url).open()
    parts = "#header", "#left", "#stage", "#ichi-language"
    places = [page.locator(part).bounding_box() for part in parts]
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    assert page.evaluate(SCROLLING) == []
    screen.open_panel()
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight")
    assert page.evaluate(SCROLLING) == []
    assert [page.locator(part).bounding_box() for part in parts] == places
    showing.close()


def test_the_browsers_own_parts_are_dark_in_the_dark(app: App, browser: Browser):
    context = browser.new_context(viewport=SIZE, locale="en-US", color_scheme="dark")
    screen = Screen(context.new_page(), app.url).open()
    field = screen.page.locator("#prompt textarea")
    assert field.evaluate("field => getComputedStyle(field).colorScheme") == "dark"
    context.close()
