"""Take pictures of the page in its states, from a running demo: for the README, and to be looked at.

    python -m docs.screenshots [--languages ja en zh-tw] [--folder DIR]

Each state is shown 1280, 1920 and 420 pixels wide, light and dark: LANGUAGE-STATE-WIDTH[-dark].png. It needs
a browser, as the tests do, and takes some minutes for each language.
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.driver import Screen
from tests.browser.find_browser import launch
from tests.support.app import ROOT, App
from webui.eichi_utils.page.job_handlers import SAMPLE_PROMPT

SAMPLE = ROOT / "examples" / "coffee.png"
DEMO = {"resolution": 192, "steps": 16, "seconds": 2}
SIZES = {"1920": (1920, 1080), "420": (420, 900), "1280": (1280, 800)}
"""The last one stays."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", nargs="+", default=["ja", "en", "zh-tw"])
    parser.add_argument("--folder", type=Path, default=Path("screenshots"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        browser = launch(playwright.chromium)
        assert browser is not None, "there is no browser"
        for language in options.languages:
            app = App(Path(home, language), models=ROOT / "demo_models")
            app.keep_settings(**DEMO, language=language)
            app.start()
            try:
                show_all(browser, app, options.folder / language)
            finally:
                app.stop()


def show_all(browser: Browser, app: App, prefix: Path) -> None:
    """Go through the states of one page, and save pictures of each."""
    screen = Screen(browser.new_context(viewport={"width": 1280, "height": 800}).new_page(), app.url).open()
    page = screen.page
    page.set_default_timeout(300_000)  # a busy computer takes minutes

    def save(state: str) -> None:
        for name, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for ending in ("", "-dark"):
                page.evaluate("dark => document.body.classList.toggle('dark', dark)", bool(ending))
                page.evaluate("window.scrollTo(0, 0)")
                page.wait_for_timeout(400)
                page.screenshot(path=f"{prefix}-{state}-{name}{ending}.png", full_page=True)
        page.evaluate("document.body.classList.remove('dark')")

    def start_until(expression: str) -> None:
        screen.start()
        page.wait_for_function(expression)

    save("empty")
    screen.put("start-image", SAMPLE)
    screen.set("prompt", SAMPLE_PROMPT)
    save("ready")
    screen.open_panel()
    save("panel")
    page.click("#panel > button.label-wrap")
    start_until("(document.getElementById('ichi-preview').src || '').includes('/preview/')")
    save("running")
    page.wait_for_function("!document.getElementById('ichi-switch').hidden")
    save("so-far")
    for _ in range(4):
        screen.start()
        page.wait_for_timeout(1000)
    page.click("#ichi-toast-close")
    save("queue")
    page.click("#ichi-clear")
    page.wait_for_function("document.querySelectorAll('#ichi-strip li').length")
    page.wait_for_function("document.getElementById('ichi-job').hidden")
    save("done")
    start_until("!document.getElementById('ichi-switch').hidden")
    page.click("#stop")
    page.wait_for_function("!document.getElementById('ichi-failure').hidden")
    save("stopped")
    page.click("#ichi-failure-close")
    save("unfinished")
    start_until("!document.getElementById('ichi-job').hidden")
    away = app.outputs.rename(app.outputs.with_name("away"))
    app.outputs.write_text("no folder")  # so that the job fails when it writes
    page.wait_for_function("!document.getElementById('ichi-failure').hidden")
    save("failed")
    app.outputs.unlink()
    away.rename(app.outputs)


if __name__ == "__main__":
    main()
