"""The running app that faults are tried on."""

from collections.abc import Iterator

import pytest

from tests.support.app import SMALL, App
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with small settings that speaks English on its terminal; the tests of a module share it."""
    app = App(tmp_path_factory.mktemp("app"), environment=ENGLISH_WITHOUT_SCREEN)
    app.keep_settings(**SMALL)
    app.start()
    yield app
    app.stop()
