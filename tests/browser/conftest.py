"""An app and a browser for the tests of a module, and tabs that must show no error and ask no other host."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ViewportSize, sync_playwright

from tests.browser.driver import Screen
from tests.browser.find_browser import launch, no_browser
from tests.support.app import App

SIZE: ViewportSize = {"width": 1280, "height": 800}
OpenTab = Callable[..., Screen]
OpenWith = Callable[..., Screen]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A running app with small settings; the tests of a module share it."""
    app = App(tmp_path_factory.mktemp("app"))
    app.keep_settings()
    app.start()
    yield app
    app.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            no_browser()
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[OpenTab]:
    """Opens an app's page in a new tab. At the end, no tab may have had any trouble."""
    contexts: list[BrowserContext] = []
    screens: list[Screen] = []

    def open_one(app: App, **options: Any) -> Screen:
        context = browser.new_context(viewport=SIZE, locale="en-US", **options)
        contexts.append(context)
        screens.append(Screen(context.new_page(), app.url))
        return screens[-1].open()

    yield open_one
    found = [trouble for screen in screens for trouble in screen.trouble.found]
    for context in contexts:
        context.close()
    assert found == []


@pytest.fixture
def open_with(app: App, open_tab: OpenTab) -> Iterator[OpenWith]:
    """Opens a tab after the settings were made small again, but for those that are given."""
    screens: list[Screen] = []

    def open_one(**settings: Any) -> Screen:
        app.keep_settings(**settings)
        screens.append(open_tab(app))
        return screens[-1]

    yield open_one
    for screen in screens:
        if not screen.page.is_closed():
            screen.end_jobs()


@pytest.fixture
def screen(open_with: OpenWith) -> Screen:
    """A tab of an app whose settings are small again."""
    return open_with()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small pictures of one colour each, of different shapes."""
    folder = tmp_path_factory.mktemp("pictures")
    shapes = {"red": (96, 64), "green": (64, 96), "blue": (80, 80), "yellow": (120, 60)}
    paths = {name: folder / f"{name}.png" for name in shapes}
    for name, shape in shapes.items():
        Image.new("RGB", shape, name).save(paths[name])
    return paths
