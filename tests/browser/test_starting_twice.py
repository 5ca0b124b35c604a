"""A second start: on the same port, on one that another program has, in the same folder."""

import socket
from collections.abc import Iterator

import pytest

from tests.browser.driver import WORDS
from tests.support.app import App, free_port


def test_a_second_start_on_the_same_port_says_where_the_app_is(app: App):
    second = app.run("--lang", "en")
    assert (second.returncode, second.stderr) == (0, f"{WORDS('page.already_running', url=app.url)}\n")


def test_a_second_start_in_a_folder_opens_the_running_app(app: App):
    second = app.run("--lang", "en", port=free_port())
    assert (second.returncode, second.stderr) == (0, f"{WORDS('page.already_running', url=app.url)}\n")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_of_another_program_is_said(app: App, tmp_path, taken_port):
    second = app.run("--lang", "en", home=tmp_path, port=taken_port)
    reason = WORDS("error.port_taken", port=taken_port)
    assert (second.returncode, second.stderr) == (1, f"{WORDS('failed', reason=reason)}\n")
