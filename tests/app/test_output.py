"""The folder for videos: a name inside of the app's folder, and nothing else."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError, MachineError
from webui.eichi_utils import output as output_folder
from webui.eichi_utils.output import OWN_FOLDERS, open_in_file_manager, resolve_output

WEBUI = Path(output_folder.__file__).parents[1]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "webui"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("outputs", ["outputs"]),
        ("outputs/cats", ["outputs", "cats"]),
        ("outputs\\cats", ["outputs", "cats"]),
        ("outputs/", ["outputs"]),
        ("a//b", ["a", "b"]),
        ("猫の動画 (1)", ["猫の動画 (1)"]),
        ("a~b", ["a~b"]),
        ("outputs/cache", ["outputs", "cache"]),
        ("caches", ["caches"]),
        ("a" * 100, ["a" * 100]),
    ],
)
def test_a_name_is_a_folder_inside_of_the_apps(base, name, parts):
    assert resolve_output(name, base) == base.joinpath(*parts)
    assert list(base.iterdir()) == []


def test_a_folder_that_is_there_already_is_taken(base):
    (base / "outputs" / "cats").mkdir(parents=True)
    assert resolve_output("outputs/cats", base) == base / "outputs" / "cats"


def refusals() -> list[tuple[str, str]]:
    outside = [
        "..",
        "../x",
        "a/../../x",
        "a\\..\\x",
        "/",
        "/tmp/x",
        "\\x",
        "//server/share",
        "\\\\server\\share",
    ]
    outside += ["~", "~/x", "~root", "C:", "C:x", "c:\\x", "C:/x"]
    no_folder = ["con", "NUL.txt", "a/aux", "COM1", "ab:c", "a*", 'a"', "a|b", "a?", "<a>", "a\nb", "a\x00"]
    no_folder += ["a.", "a ", " a", ".a", "a./b", "a/b ", ".", "a/./b", "\u202ea", "\ud800", "猫" * 70]
    return [
        *((name, "output_folder_empty") for name in ("", "  ", "　")),
        *((name, "output_folder_outside") for name in outside),
        *((name, "bad_folder_name") for name in no_folder),
        *((name, "output_folder_too_long") for name in ("a" * 101, "a/" * 51)),
        *(
            (name, "output_folder_of_app")
            for name in ("cache", "Cache", "SETTINGS/x", "hf_download\\x", "static")
        ),
    ]


@pytest.mark.parametrize(("name", "code"), refusals())
def test_any_other_name_is_refused_with_its_sentence(base, name, code):
    with pytest.raises(InputError) as caught:
        resolve_output(name, base)
    assert caught.value.code == code
    assert list(base.iterdir()) == []


def test_every_folder_that_the_app_writes_is_its_own():
    ignored = (WEBUI.parent / ".gitignore").read_text("utf-8").splitlines()
    written = {line.split("/")[2] for line in ignored if line.startswith("/webui/")}
    assert len(written) > 3
    assert written - {"outputs"} <= OWN_FOLDERS


def test_every_folder_of_the_apps_code_is_its_own():
    code = {path.relative_to(WEBUI).parts[0] for path in WEBUI.glob("*/*.py")}
    assert "eichi_utils" in code
    assert code <= OWN_FOLDERS


@pytest.mark.parametrize("name", ["notes", "notes/cats"])
def test_a_file_is_no_folder(base, name):
    (base / "notes").write_text("")
    with pytest.raises(InputError, match="output_folder_is_file"):
        resolve_output(name, base)


@pytest.mark.parametrize("name", ["link", "link/cats"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_that_leads_out_is_refused(base, tmp_path, name, there):
    elsewhere = tmp_path / "elsewhere"
    if there:
        elsewhere.mkdir()
    (base / "link").symlink_to(elsewhere)
    with pytest.raises(InputError, match="output_folder_leads_out"):
        resolve_output(name, base)


def test_a_link_in_a_circle_is_refused(base):
    (base / "link").symlink_to(base / "link")
    with pytest.raises(InputError, match="output_folder_"):
        resolve_output("link", base)


@pytest.mark.parametrize("target", ["cache", "."])
def test_a_link_to_the_apps_own_folders_is_refused(base, target):
    (base / "cache").mkdir()
    (base / "link").symlink_to(base / target)
    with pytest.raises(InputError, match="output_folder_of_app"):
        resolve_output("link", base)


def test_a_link_inside_is_taken_and_so_is_an_app_behind_a_link(base, tmp_path):
    (base / "outputs").mkdir()
    (base / "link").symlink_to(base / "outputs")
    assert resolve_output("link", base) == base / "link"
    (tmp_path / "app").symlink_to(base)
    assert resolve_output("outputs", tmp_path / "app") == tmp_path / "app" / "outputs"


# -- the file manager --------------------------------------------------------------------------------


class FakeProcess:
    """Stands in for a started program and remembers how it was started."""

    started: list[tuple[list[str], dict]] = []  # noqa: RUF012  (emptied by the fixture)

    def __init__(self, command: list[str], **options: object) -> None:
        self.started.append((command, options))
        self.waited = threading.Event()

    def wait(self) -> int:
        self.waited.set()
        return 0


@pytest.fixture
def desktop(monkeypatch) -> list[tuple[list[str], dict]]:
    """A Linux desktop; what is started on it."""
    FakeProcess.started.clear()
    monkeypatch.setattr(subprocess, "Popen", FakeProcess)
    monkeypatch.setattr(output_folder.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delattr(os, "startfile", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    return FakeProcess.started


def test_the_folder_is_made_and_shown_without_a_shell(desktop, base):
    assert open_in_file_manager(base / "outputs" / "; rm x") is True
    [(command, options)] = desktop
    assert command == ["/usr/bin/xdg-open", str(base / "outputs" / "; rm x")]
    assert not options.get("shell")
    assert (base / "outputs" / "; rm x").is_dir()


def test_a_mac_has_its_own_opener_and_needs_no_display(desktop, base, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("DISPLAY")
    assert open_in_file_manager(base) is True
    assert desktop[0][0] == ["/usr/bin/open", str(base)]


def test_windows_opens_it_itself(desktop, base, monkeypatch):
    opened = []
    monkeypatch.setattr(os, "startfile", opened.append, raising=False)
    assert open_in_file_manager(base) is True
    assert opened == [str(base)]
    assert desktop == []


@pytest.mark.usefixtures("desktop")
def test_without_a_file_manager_it_says_so(base, monkeypatch):
    monkeypatch.setattr(output_folder.shutil, "which", lambda _: None)
    assert open_in_file_manager(base / "outputs") is False
    assert (base / "outputs").is_dir()


def test_without_a_screen_it_says_so(desktop, base, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert open_in_file_manager(base) is False
    assert desktop == []


@pytest.mark.usefixtures("desktop")
def test_a_file_manager_that_cannot_be_started_is_none(base, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "not executable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert open_in_file_manager(base) is False


@pytest.mark.usefixtures("desktop")
def test_a_folder_that_cannot_be_made_is_a_failure_with_a_sentence(base):
    (base / "notes").write_text("")
    with pytest.raises(MachineError, match="cannot_write"):
        open_in_file_manager(base / "notes" / "cats")
