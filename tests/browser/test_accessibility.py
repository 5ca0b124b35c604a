"""axe-core on the page in all its states, light and dark: it finds nothing that some people cannot use."""

import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.driver import Screen
from tests.support.app import MODELS, App

pytestmark = pytest.mark.slow

LONG = {"resolution": 192, "steps": 100, "seconds": 20}
"""A job that does not end by itself."""
CONFIG = Path("lllyasviel") / "FramePackI2V_HY" / "config.json"
AXE = files("axe_playwright_python").joinpath("axe.min.js")
FIND = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
    .flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target} ${node.failureSummary}`))"""


@pytest.fixture
def app(tmp_path: Path, refusal: dict[str, str]) -> Iterator[App]:
    models = Path(shutil.copytree(MODELS, tmp_path / "models"))
    app = App(tmp_path / "app", models=models, environment=refusal)
    app.keep_settings()
    app.start()
    yield app
    app.stop()


class Audit:
    """The violations that axe finds on a page."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.found: list[str] = []

    def look(self, state: str) -> None:
        """Look at the page as it is, in both themes."""
        page = self._screen.page
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE.read_text("utf-8"))
            page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
        for theme in ("light", "dark"):
            page.evaluate("isDark => document.body.classList.toggle('dark', isDark)", theme == "dark")
            self.found += [f"{state}, {theme}: {violation}" for violation in page.evaluate(FIND)]
        page.evaluate("document.body.classList.remove('dark')")


@pytest.mark.parametrize("language", ["ja", "en"])
def test_axe_finds_nothing_in_any_state_of_the_form(app: App, open_tab: Open, pictures, language):
    app.keep_settings(language=language)
    screen = open_tab(app)
    page, audit = screen.page, Audit(screen)
    audit.look("empty")

    screen.put("start-image", pictures["yellow"])
    screen.put("end-image", pictures["red"])
    screen.set("prompt", "猫が歩く。" * 60)
    page.focus("#prompt textarea")
    expect(page.locator("#ichi-hint")).to_be_visible()
    expect(page.locator("#unread p")).to_be_visible()
    audit.look("filled")
    screen.set("prompt", "The cat walks.")

    screen.open_presets()
    screen.set("crf", 30)
    screen.tick("use-keyframes")
    expect(page.locator("#section-0")).to_be_visible()
    screen.set("output-folder", "../elsewhere")
    expect(page.locator("#ichi-toast .ichi-error")).to_be_visible()
    audit.look("panel with an error")
    screen.set("output-folder", "outputs")
    screen.tick("use-keyframes", False)
    page.click("#panel > button.label-wrap")

    before = screen.text("ichi-caption")
    screen.start()
    page.wait_for_function(
        "before => document.getElementById('ichi-caption').textContent !== before", arg=before
    )
    screen.wait_until_idle()
    expect(page.locator("#ichi-strip li")).to_have_count(1)
    audit.look("done")
    assert audit.found == []


@pytest.mark.parametrize("language", ["ja", "en"])
def test_axe_finds_nothing_in_any_state_of_jobs(app: App, open_tab: Open, pictures, language):
    app.keep_settings(**LONG, language=language)
    screen = open_tab(app)
    page, audit = screen.page, Audit(screen)
    screen.put("start-image", pictures["yellow"])
    screen.start()
    page.wait_for_function("(document.getElementById('ichi-preview').src || '').includes('/preview/')")
    audit.look("running")
    for count in (2, 3):
        screen.start()
        expect(page.locator("#ichi-queue li")).to_have_count(count)
    page.wait_for_function("!document.getElementById('ichi-switch').hidden")
    audit.look("section done, queue")
    page.click("#ichi-clear")
    screen.stop()
    screen.wait_until_idle()
    audit.look("stopped")
    page.click("#ichi-failure-close")
    expect(page.locator("#ichi-unfinished li")).to_have_count(1)
    audit.look("unfinished")

    (app.home.parent / "models" / CONFIG).unlink()
    screen.start()
    expect(page.locator("#ichi-failure.ichi-error")).to_be_visible()
    audit.look("failed")
    assert audit.found == []
