"""Making the app's shared things in a folder, and putting them away."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from diffusers_helper.errors import MachineError
from tests.support.page_options import options
from tests.support.queue import SOON
from webui.eichi_utils.app import STARTERS, AppState, open_app
from webui.eichi_utils.form import DEFAULTS
from webui.eichi_utils.instance import remember_address
from webui.eichi_utils.text.error_text import error_text
from webui.eichi_utils.text.translations import Translator


class Opened(ExitStack):
    """Apps that were opened, until it is closed."""

    def __call__(self, home: Path, **values: Any) -> AppState:
        app: AppState = self.enter_context(open_app(options(home, **values)))
        self.callback(lambda: app.queue.close(SOON))
        return app


@pytest.fixture
def opened(monkeypatch) -> Iterator[Opened]:
    monkeypatch.setattr("webui.eichi_utils.preflight.check_lines", lambda *_: [])  # not what is tested here
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    with Opened() as opened:
        yield opened


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def settings_file(home: Path) -> Path:
    return home / "settings" / "app_settings.json"


# -- one app in one folder ---------------------------------------------------------------------------


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:8001/", "", "[]", "{", '{"url": null}', "\0"])
def test_second_app_in_a_folder_is_refused_with_the_address(opened, tmp_path, address):
    picture = write(opened(tmp_path).uploads / "a" / "cat.png", "x")
    if address is not None and address.startswith("http"):
        remember_address(tmp_path, address)
    elif address is not None:
        write(tmp_path / "temp" / "app.json", address)
    with pytest.raises(MachineError) as caught:
        opened(tmp_path)
    assert caught.value.code == "app_runs_already"
    if address is not None and address.startswith("http"):
        assert caught.value.values == {"url": address}
    assert "does not answer" in error_text(caught.value, Translator("en")), "else its address was opened"
    assert picture.is_file(), "it deletes no uploads of the first"


def test_folder_that_cannot_be_created_is_named_and_another_is_taken(opened, tmp_path):
    file = write(tmp_path / "file", "x")
    with pytest.raises(MachineError) as caught:
        opened(file / "home")
    assert caught.value.code == "cannot_write"
    assert str(file) in str(caught.value.values["path"])
    assert len({opened(tmp_path / name).server_id for name in "ab"}) == 2


# -- what is left of earlier runs --------------------------------------------------------------------


def test_files_of_a_killed_run_and_uploads_are_deleted_and_the_rest_stays(opened, tmp_path):
    upload = write(tmp_path / "temp" / "uploads" / "0123" / "private.png", "x")
    copy = write(tmp_path / "temp" / "jobs" / "job_0123456789abcdef" / "0.png", "x")
    kept = [
        write(tmp_path / "outputs" / "a.mp4", "x"),
        write(settings_file(tmp_path), {"steps": 20}),
        write(tmp_path / "presets" / "prompt_presets.json", {"presets": []}),
    ]
    app = opened(tmp_path)
    assert not upload.parent.parent.exists()
    assert not copy.exists()
    write(app.uploads / "0123" / "private.png", "x")
    opened.close()
    assert not app.uploads.exists()
    assert all(path.is_file() for path in kept)


# -- settings and presets ----------------------------------------------------------------------------


def test_last_prompt_returns_unless_there_is_a_startup_prompt(opened, tmp_path):
    app = opened(tmp_path)
    app.presets.save("mine", "A dog runs.")
    app.remember(prompt="Something else.")
    opened.close()
    app = opened(tmp_path)
    assert app.settings.load()["prompt"] == "Something else."
    app.presets.mark_startup("mine")
    opened.close()
    assert opened(tmp_path).settings.load()["prompt"] == "A dog runs."


def test_broken_settings_and_presets_are_set_aside_with_one_notice_each(opened, tmp_path):
    assert opened(tmp_path / "first").take_notices() == []
    path = write(settings_file(tmp_path), "{")
    write(tmp_path / "presets" / "prompt_presets.json", "no JSON")
    app = opened(tmp_path)
    assert {key: app.settings.load()[key] for key in DEFAULTS} == DEFAULTS
    assert len(app.presets.names()) == len(STARTERS)
    assert all(app.presets.prompt_of(name).isascii() for name in app.presets.names())
    assert [notice.code for notice in app.take_notices()] == ["file_set_aside"] * 2
    assert app.take_notices() == []
    assert path.with_name("app_settings.broken-1.json").read_text("utf-8") == "{"


def test_unwritable_settings_hold_and_invalid_ones_are_not_remembered(opened, tmp_path):
    app = opened(tmp_path)
    write(tmp_path / "settings", "a file where the folder would be")
    app.remember(steps=20, seconds=None, prompt="A cat.", language="xx", mode="loop")
    known = app.settings.load()
    expected = {"steps": 20, "prompt": "A cat.", "mode": "loop", "seconds": DEFAULTS["seconds"]}
    assert {key: known[key] for key in expected} == expected, "as long as the app runs"
    assert known["language"] is None


# -- language ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "kept", "system", "expected"),
    [
        ("ja", "en", "zh_TW.UTF-8", "ja"),
        (None, "en", "zh_TW.UTF-8", "en"),
        (None, None, "zh_TW.UTF-8", "zh-tw"),
        (None, "xx", "en_GB", "en"),
    ],
)
def test_language_is_option_else_setting_else_system(
    opened, tmp_path, monkeypatch, command, kept, system, expected
):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("LC_ALL", system)
    write(settings_file(tmp_path), {"language": kept})
    app = opened(tmp_path, language=command)
    assert app.language == expected
    assert app.translator(None).language == app.translator("xx").language == expected
    if command is not None:
        opened.close()
        assert opened(tmp_path).language == expected, "the option is remembered"


def test_output_folder_option_wins(opened, tmp_path):
    assert opened(tmp_path / "home").output_folder("cats") == tmp_path / "home" / "cats"
    app = opened(tmp_path, output=tmp_path / "elsewhere")
    assert app.output_folder("cats") == app.output_folder("../..") == tmp_path / "elsewhere"
