"""Making the app's shared things in a folder, and putting them away."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError, MachineError
from tests.support.app import wait_until
from tests.support.page_options import options
from tests.support.queue import SOON
from webui.eichi_utils.app import STARTERS, AppState, _watch_home, open_app
from webui.eichi_utils.engine_options import ROOT
from webui.eichi_utils.form import DEFAULTS
from webui.eichi_utils.instance import end_running_app, only_app, place_of, remember_address
from webui.eichi_utils.server import server
from webui.eichi_utils.text.error_text import error_text
from webui.eichi_utils.text.translations import Translator

LOGIN = ("mia", "a password")


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
    assert "does not respond" in error_text(caught.value, Translator("en")), "else its address was opened"
    assert picture.is_file(), "it deletes no uploads of the first"


SILENT_APP = """
import sys, time
from pathlib import Path
from webui.eichi_utils.instance import only_app
with only_app(Path(sys.argv[1])):
    print("has it", flush=True)
    time.sleep(600)
"""


PARENT = "import subprocess, sys, time; process = subprocess.Popen(sys.argv[1:]); time.sleep(600)"
"""Never asks how its child has ended."""


def test_app_whose_end_nobody_notices_counts_as_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("webui.eichi_utils.instance.ENDING_SECONDS", 1)
    command = [sys.executable, "-c", PARENT, sys.executable, "-c", SILENT_APP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        assert end_running_app(tmp_path)
        process.kill()


@pytest.fixture
def silent_app(tmp_path):
    """A process that has the folder and answers nobody."""
    command = [sys.executable, "-c", SILENT_APP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("answer", "is_terminal", "ends"),
    [
        ("y\n", True, True),
        ("Y\n", True, True),
        ("n\n", True, False),
        ("", True, False),
        ("y\n", False, False),
    ],
)
def test_app_that_does_not_answer_is_ended_for_who_wants_it(
    silent_app, tmp_path, monkeypatch, answer, is_terminal, ends
):
    words, served = Translator("en"), []
    monkeypatch.setattr("webui.eichi_utils.instance.STARTING_SECONDS", 0.1)
    for name in ("stdin", "stderr"):
        stream = io.StringIO(answer)
        stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, name, stream)

    @contextlib.contextmanager
    def serving(options):
        with only_app(options.home):
            served.append(1)
            yield SimpleNamespace(queue=SimpleNamespace(notices=[])), "http://127.0.0.1:1/"

    monkeypatch.setattr(server, "serving", serving)
    monkeypatch.setattr(server, "_wait_for_end", lambda: None)
    options = SimpleNamespace(home=tmp_path, in_browser=False)
    if ends:
        assert server._serve(options, words) is None
        assert silent_app.wait(10) is not None
    else:
        with pytest.raises(MachineError, match="app_runs_already"):
            server._serve(options, words)
        assert silent_app.poll() is None
    assert bool(served) is ends
    assert (words("page.end_other") in sys.stderr.getvalue()) is is_terminal  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "known",
    ["[]", "{", '{"process": 0}', '{"process": "x", "begun": 0}', {"begun": 5.0}, {"process": 2**31 - 1}],
)
def test_another_process_of_that_number_is_not_ended(silent_app, tmp_path, known):
    file = tmp_path / "temp" / "app.json"
    write(file, known if isinstance(known, str) else json.loads(file.read_text()) | known)
    assert not end_running_app(tmp_path)
    assert silent_app.poll() is None


@pytest.mark.parametrize("made_anew", [False, True])
def test_home_that_is_moved_while_the_app_runs_is_told(opened, tmp_path, monkeypatch, capsys, made_anew):
    monkeypatch.setattr("webui.eichi_utils.app.WATCH_SECONDS", 0.01)
    home, moved = tmp_path / "home", tmp_path / "moved"
    app = opened(home)
    assert app.trouble is None
    remember_address(home, "http://127.0.0.1:8001/")
    home.rename(moved)
    if made_anew:
        (home / "logs").mkdir(parents=True)
    trouble = wait_until(lambda: app.trouble, "it is told")
    assert (trouble.code, trouble.values) == ("home_moved", {"path": str(home)})
    wait_until(lambda: "was moved, renamed or deleted" in capsys.readouterr().err, "on the terminal, too")
    if not made_anew:
        moved.rename(home)
        wait_until(lambda: app.trouble is None, "it is back")


def test_temp_that_is_emptied_while_the_app_runs_is_no_trouble(opened, tmp_path, monkeypatch):
    app = opened(tmp_path / "home")
    shutil.rmtree(tmp_path / "home" / "temp")
    watch = Mock(side_effect=chain([False, False], repeat(True)))  # another thread waits, too
    monkeypatch.setattr(app.closing, "wait", watch)
    _watch_home(app, place_of(tmp_path / "home"))
    assert app.trouble is None


def test_folder_that_cannot_be_created_is_named_and_another_is_taken(opened, tmp_path):
    file = write(tmp_path / "file", "x")
    with pytest.raises(MachineError) as caught:
        opened(file / "home")
    assert caught.value.code == "cannot_write"
    assert str(file) in str(caught.value.values["path"])
    assert len({opened(tmp_path / name).server_id for name in "ab"}) == 2


# -- what is left of earlier runs --------------------------------------------------------------------


LEFT = [
    *("settings/app_settings.json", "settings/speed.json", "presets/prompt_presets.json", "temp/app.json"),
    *("temp/jobs/job_0123456789abcde0/job.json", "cache/0123.safetensors", "logs/a.log"),
    "temp/demo_jobs/unreadable_0123456789abcdef/work/section_000.frames",
]
"""Files of which a killed run leaves parts."""
RESUMED = [
    *("hf_download/a/b.safetensors.0123456789ab", "temp/headless/0/request.json", "outputs/film.mp4"),
    "cache/eight_bit/models/a.safetensors",
]
"""Files whose parts are resumed, belong to another run, or to nobody that we know."""


def test_files_of_a_killed_run_and_uploads_are_deleted_and_the_rest_stays(opened, tmp_path):
    upload = write(tmp_path / "temp" / "uploads" / "0123" / "private.png", "x")
    os.utime(upload, (0, 0))
    copy = write(tmp_path / "temp" / "jobs" / "job_0123456789abcdef" / "0.png", "x")
    kept = [
        write(tmp_path / "outputs" / "a.mp4", "x"),
        write(settings_file(tmp_path), {"steps": 20}),
        write(tmp_path / "presets" / "prompt_presets.json", {"presets": []}),
    ]
    parts = [write(tmp_path / f"{name}.part", "x") for name in LEFT]
    kept += [write(tmp_path / f"{name}.part", "x") for name in RESUMED]
    (tmp_path / "presets" / "folder.part").mkdir()
    app = opened(tmp_path)
    assert not upload.exists()
    assert not copy.exists()
    assert [path for path in parts if path.exists()] == []
    write(app.uploads / "0123" / "private.png", "x")
    opened.close()
    assert not app.uploads.exists()
    assert all(path.is_file() for path in kept)


def test_uploads_stay_for_pages_that_wait_for_the_next_start(opened, tmp_path):
    app = opened(tmp_path)
    upload = write(app.uploads / "0123" / "mine.png", "x")
    app.has_open_pages.set()
    opened.close()
    assert upload.exists()
    opened(tmp_path)
    assert upload.exists()
    opened.close()
    assert not upload.exists()


def test_uploads_that_the_form_held_are_there_at_the_next_start_however_late(opened, tmp_path):
    app = opened(tmp_path)
    names = ("0123/mine.png", "0123/mine.png.view.png", "continued/last.png", "continued/last.png.video")
    mine = [write(app.uploads / name, "x") for name in names]
    other = write(app.uploads / "4567" / "other.png", "x")
    app.remember(form=json.dumps({"start": [str(mine[0])], "rows": {"1": [str(mine[2])]}, "end": ["/etc"]}))
    opened.close()
    assert ([path.exists() for path in mine], other.exists()) == ([True] * 4, False)
    for path in mine:
        os.utime(path, (0, 0))
    app = opened(tmp_path)
    assert all(path.exists() for path in mine)
    for form in ("", "[" * 10**5, '"/"', "7"):
        app.remember(form=form)
    opened.close()
    assert not app.uploads.exists()


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
    app.remember(steps=20, seconds=None, prompt="A cat.", language="xx", loop=True)
    known = app.settings.load()
    expected = {"steps": 20, "prompt": "A cat.", "loop": True, "seconds": DEFAULTS["seconds"]}
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


@pytest.mark.parametrize(
    ("values", "is_private"),
    [
        ({}, True),
        ({"server": "localhost"}, True),
        ({"server": "::1"}, True),
        ({"server": "0.0.0.0", "login": LOGIN}, False),
        ({"server": "192.168.0.2", "login": LOGIN}, False),
        ({"share": True, "login": LOGIN}, False),
        ({"login": LOGIN}, False),
        ({"root_path": "/video"}, False),
        ({"root_path": "/"}, True),
    ],
)
def test_only_pages_on_this_computer_name_folders_outside_the_apps(opened, tmp_path, values, is_private):
    app = opened(tmp_path / "home", **values)
    assert app.is_private is is_private
    elsewhere = str(tmp_path / "elsewhere")
    if is_private:
        assert app.output_folder(elsewhere) == Path(elsewhere)
    else:
        with pytest.raises(InputError, match="output_folder_outside"):
            app.output_folder(elsewhere)
        app.remember(output_folder=elsewhere)  # chosen on this computer before
        assert app.output_folder(elsewhere) == app.chosen_output == Path(elsewhere)
        with pytest.raises(InputError, match="output_folder_outside"):
            app.output_folder(f"{elsewhere}/cats")


def test_a_share_in_the_settings_file_is_not_asked(opened, tmp_path):
    app = opened(tmp_path)
    app.remember(output_folder="//server/share")
    with pytest.raises(InputError, match="output_folder_network"):
        _ = app.chosen_output
    assert app.checked_output == tmp_path / "outputs"


def test_output_folder_option_wins(opened, tmp_path):
    assert opened(tmp_path / "home").output_folder("cats") == tmp_path / "home" / "cats"
    app = opened(tmp_path, output=tmp_path / "elsewhere")
    assert app.output_folder("cats") == app.output_folder("../..") == tmp_path / "elsewhere"
