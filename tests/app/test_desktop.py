"""The desktop of this computer: it shows a file in its folder, and the dialog for a folder."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError
from tests.support.app import wait_until
from webui.eichi_utils import desktop as desktop_module
from webui.eichi_utils.desktop import ask_folder, has_folder_dialog, show_in_file_manager

# -- the file manager --------------------------------------------------------------------------------


@pytest.fixture
def desktop(monkeypatch) -> list[tuple[list[str], dict]]:
    """A Linux desktop; what is started on it."""
    started: list[tuple[list[str], dict]] = []

    def start(command: list[str], **options: object) -> SimpleNamespace:
        started.append((command, options))
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    return started


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("linux", ["/usr/bin/xdg-open", "{folder}"]),
        ("darwin", ["/usr/bin/open", "-R", "{file}"]),
        ("win32", ["explorer", "/select,", "{file}"]),
    ],
)
def test_a_file_is_shown_in_its_folder_and_marked_where_that_is_possible(
    desktop, tmp_path, monkeypatch, platform, command
):
    monkeypatch.setattr(sys, "platform", platform)
    file = tmp_path / "猫 & ; rm x.mp4"
    assert show_in_file_manager(file) is True
    assert [started for started, _ in desktop] == [
        [part.format(folder=file.parent, file=file) for part in command]
    ]
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=FileNotFoundError))
    assert show_in_file_manager(file) is False


@pytest.mark.parametrize("lacks", ["file manager", "display"])
def test_without_a_desktop_nothing_is_shown(desktop, tmp_path, monkeypatch, lacks):
    if lacks == "file manager":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    else:
        monkeypatch.delenv("DISPLAY")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert show_in_file_manager(tmp_path / "cat.mp4") is False
    assert desktop == []


# -- the dialog for a folder -----------------------------------------------------------------------------


@pytest.fixture
def open_end() -> threading.Event:
    return threading.Event()


def answer_with(monkeypatch: pytest.MonkeyPatch, program: str) -> list[list[str]]:
    """Let a Python program stand in for the dialog; returns the commands of the dialogs that open."""
    asked = []
    command = desktop_module._dialog

    def stand_in(title: str, start: Path) -> list[str]:
        asked.append(command(title, start) or [])
        return [sys.executable, "-c", program]

    monkeypatch.setattr(desktop_module, "_dialog", stand_in)
    return asked


@pytest.mark.parametrize(
    ("platform", "programs", "command"),
    [
        ("linux", ["zenity", "kdialog"], ["/usr/bin/zenity", "--file-selection", "--directory"]),
        ("linux", ["kdialog"], ["/usr/bin/kdialog", "--title", "出力"]),
        ("darwin", [], ["osascript", "-e", "on run argv"]),
        ("win32", [], [sys.executable, str(desktop_module.WINDOWS_DIALOG), "出力"]),
    ],
)
def test_each_system_has_its_dialog(monkeypatch, tmp_path, open_end, platform, programs, command):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_folder_dialog()
    asked = answer_with(monkeypatch, "print()")
    ask_folder("出力", tmp_path / "not" / "there", open_end)
    assert asked[0][:3] == command
    assert platform == "darwin" or any(str(tmp_path) in part for part in asked[0][3:])
    assert not any("not" in part for part in asked[0][3:])


@pytest.mark.parametrize("lacks", ["a screen", "a program"])
def test_without_a_dialog_the_page_offers_none(monkeypatch, tmp_path, open_end, lacks):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/zenity" if lacks == "a screen" else None)
    if lacks == "a screen":
        monkeypatch.delenv("DISPLAY", raising=False)
    else:
        monkeypatch.setenv("DISPLAY", ":0")
    assert not has_folder_dialog()
    for _ in range(2):
        with pytest.raises(InputError, match="folder_dialog_failed"):
            ask_folder("", tmp_path, open_end)


WRITE = "import sys; sys.stdout.buffer.write('{}'.encode()); sys.exit({})"


@pytest.mark.parametrize(
    ("written", "status", "path"),
    [
        ("/home/mia/猫 \\n", 0, "/home/mia/猫 "),
        ("/home/mia/猫\\n\\n", 0, "/home/mia/猫\n"),
        ("C:\\\\猫\\r\\n", 0, "C:\\猫"),
        ("/tmp", 1, None),
        ("\\n", 0, None),
    ],
)
def test_the_answer_is_a_path_unless_the_dialog_was_closed(
    monkeypatch, open_end, tmp_path, written, status, path
):
    answer_with(monkeypatch, WRITE.format(written, status))
    assert ask_folder("", tmp_path, open_end) == (path and Path(path))


def test_one_dialog_is_open_at_a_time_and_none_outlives_the_app(monkeypatch, tmp_path, open_end):
    mark = tmp_path / "open"
    answer_with(monkeypatch, f"open({str(mark)!r}, 'w'); import time; time.sleep(60)")
    answers: list[Path | None] = []
    first = threading.Thread(target=lambda: answers.append(ask_folder("", tmp_path, open_end)))
    first.start()
    wait_until(mark.exists, "the dialog is open")
    with pytest.raises(InputError, match="folder_dialog_open"):
        ask_folder("", tmp_path, open_end)
    open_end.set()
    first.join(10)
    assert answers == [None]


def test_a_program_that_is_gone_is_said(monkeypatch, tmp_path, open_end):
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=FileNotFoundError))
    answer_with(monkeypatch, "")
    with pytest.raises(InputError, match="folder_dialog_failed"):
        ask_folder("", tmp_path, open_end)
