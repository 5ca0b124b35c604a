"""An app and a browser that tests share, and tabs that must show no error and ask no other host."""

import contextlib
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
Open = Callable[..., Screen]


@pytest.fixture(scope="session")
def refusal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python without a network; what it asks of one is written to a file."""
    asked = tmp_path_factory.mktemp("network") / "asked.txt"
    return {"PYTHONPATH": str(Path(__file__).with_name("offline")), "ASKED_OF_THE_NETWORK": str(asked)}


@contextlib.contextmanager
def running(home: Path, refusal: dict[str, str]) -> Iterator[App]:
    """An app with small settings and without a network."""
    app = App(home, environment=refusal)
    app.keep_settings()
    app.start()
    yield app
    app.stop()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, refusal: dict[str, str]) -> Iterator[App]:
    """The app that earlier tests have used, because a start and a first job take long."""
    with running(tmp_path_factory.mktemp("app"), refusal) as app:
        yield app


@pytest.fixture(scope="module")
def new_app(tmp_path_factory: pytest.TempPathFactory, refusal: dict[str, str]) -> Iterator[App]:
    """An app that shows nothing that other modules have made."""
    with running(tmp_path_factory.mktemp("new_app"), refusal) as app:
        yield app


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its module, because playwright's event loop would stop other tests from starting theirs."""
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        if browser is None:
            no_browser()
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Open]:
    """Opens an app's page in a new tab. At the end, no tab may have had any trouble."""
    contexts: list[BrowserContext] = []
    screens: list[Screen] = []

    def open_one(app: App) -> Screen:
        context = browser.new_context(viewport=SIZE, locale="en-US")
        contexts.append(context)
        screens.append(Screen(context.new_page(), app.url))
        return screens[-1].open()

    yield open_one
    found = [trouble for screen in screens for trouble in screen.trouble.found]
    for context in contexts:
        context.close()
    assert found == []


@pytest.fixture
def open_with(app: App, open_tab: Open) -> Iterator[Open]:
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
def screen(open_with: Open) -> Screen:
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
