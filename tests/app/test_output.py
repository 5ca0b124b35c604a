"""Names of videos and of the folder for them, and the file manager that shows it."""

import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffusers_helper.errors import InputError, MachineError
from webui.eichi_utils import output
from webui.eichi_utils.output import (
    MAX_BYTES,
    OWN_FOLDERS,
    check_name,
    new_name,
    open_in_file_manager,
    resolve_output,
)

WEBUI = Path(output.__file__).parents[1]


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["video", "a.b-c_d (1)", "猫の動画", "Zoë's video", "a" * 100, "com10", "console"]
)
def test_plain_name_is_valid(name):
    assert check_name(name) == name


BAD = ["con", "NUL.txt", "COM1", "COM¹", "conin$", "aux .mp4", "ab:c", "a*", 'a"', "a|b", "a?", "<a>", "."]
BAD += ["a\nb", "a\x00", "a\x7fb", "a\x85b", "a\u2028b", "\u202ea", "\ud800", "a.", "a ", " a", ".a"]


@pytest.mark.parametrize("name", [*BAD, "", "..", "a/b", "a\\b", "a" * 101, "猫" * 70], ids=ascii)
def test_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(InputError, match="bad_name"):
        check_name(name)


def test_longest_name_leaves_room_for_endings():
    longest = "猫" * (MAX_BYTES // 3)
    assert len(f"{check_name(longest)}_section_001.mp4.part".encode()) <= 255


def test_new_name_is_date_and_time(tmp_path):
    assert re.fullmatch(r"\d{6}_\d{6}_\d{3}", new_name(tmp_path))
    assert check_name(new_name(tmp_path))
    assert new_name(tmp_path / ("a" * 300)), "a folder that cannot exist is refused later"


@pytest.mark.parametrize("ending", [".mp4", ".png", ".job"])
def test_new_name_is_unique(tmp_path, monkeypatch, ending):
    now = datetime(2025, 1, 2, 3, 4, 5)
    monkeypatch.setattr("webui.eichi_utils.output.datetime", SimpleNamespace(now=lambda: now))
    first = new_name(tmp_path)
    (tmp_path / f"{first}{ending}").write_text("")
    second = new_name(tmp_path)
    (tmp_path / f"{second}{ending}").symlink_to("nowhere")
    assert [first, second, new_name(tmp_path)] == [first, f"{first}_2", f"{first}_3"]
    assert new_name(tmp_path, {f"{first}_3"}) == f"{first}_4", "a job that waits has it"


# -- the output folder -------------------------------------------------------------------------------


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
def test_name_becomes_folder_below_base(base, name, parts):
    assert resolve_output(name, base) == base.joinpath(*parts)
    assert list(base.iterdir()) == []


OUTSIDE = ["..", "../x", "a/../../x", "a\\..\\x", "/", "/tmp/x", "\\x", "//server/share", "\\\\server\\share"]
OUTSIDE += ["~", "~/x", "~root", "C:", "C:x", "c:\\x", "C:/x"]
REFUSED = {
    "output_folder_empty": ["", "  ", "　"],
    "output_folder_outside": OUTSIDE,
    "bad_folder_name": ["con", "a/aux", "a./b", "a/b ", "a/./b", "ab:c"],
    "output_folder_too_long": ["a" * 101, "a/" * 51],
    "output_folder_of_app": ["cache", "Cache", "SETTINGS/x", "hf_download\\x", "static"],
}


@pytest.mark.parametrize(("code", "name"), [(code, name) for code in REFUSED for name in REFUSED[code]])
def test_invalid_name_is_refused_with_its_code(base, name, code):
    with pytest.raises(InputError) as caught:
        resolve_output(name, base)
    assert caught.value.code == code
    assert list(base.iterdir()) == []


def test_folders_of_code_and_those_that_the_app_writes_are_reserved():
    ignored = (WEBUI.parent / ".gitignore").read_text("utf-8").splitlines()
    written = {line.split("/")[2] for line in ignored if line.startswith("/webui/")}
    assert len(written) > 3
    code = {path.relative_to(WEBUI).parts[0] for path in WEBUI.glob("*/*.py")}
    assert "eichi_utils" in code
    assert (code | written) - {"outputs"} <= OWN_FOLDERS


@pytest.mark.parametrize("name", ["notes", "notes/cats"])
def test_file_instead_of_folder_is_refused(base, name):
    (base / "notes").write_text("")
    with pytest.raises(InputError, match="output_folder_is_file"):
        resolve_output(name, base)


@pytest.mark.parametrize(
    ("name", "target", "code"),
    [
        ("link", "../elsewhere", "output_folder_leads_out"),
        ("link/cats", "../elsewhere", "output_folder_leads_out"),
        ("link", "../missing", "output_folder_leads_out"),
        ("link/cats", "../missing", "output_folder_leads_out"),
        ("link", "link", "output_folder_"),  # a circle
        ("link", "cache", "output_folder_of_app"),
        ("link/cats", "cache", "output_folder_of_app"),
        ("link", ".", "output_folder_of_app"),
    ],
)
def test_link_elsewhere_is_refused(base, name, target, code):
    (base / "../elsewhere").mkdir()
    (base / "cache").mkdir()
    (base / "link").symlink_to(base / target)
    with pytest.raises(InputError, match=code):
        resolve_output(name, base)


def test_link_inside_base_is_accepted(base, tmp_path):
    (base / "outputs" / "cats").mkdir(parents=True)
    assert resolve_output("outputs/cats", base) == base / "outputs" / "cats"
    (base / "link").symlink_to(base / "outputs")
    assert resolve_output("link", base) == base / "link"
    (tmp_path / "app").symlink_to(base)
    assert resolve_output("outputs", tmp_path / "app") == tmp_path / "app" / "outputs"


# -- the file manager --------------------------------------------------------------------------------


@pytest.fixture
def desktop(monkeypatch) -> list[tuple[list[str], dict]]:
    """A Linux desktop; what is started on it."""
    started: list[tuple[list[str], dict]] = []

    def start(command: list[str], **options: object) -> SimpleNamespace:
        started.append((command, options))
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(output.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delattr(os, "startfile", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    return started


@pytest.mark.parametrize(("platform", "program"), [("linux", "xdg-open"), ("darwin", "open")])
def test_folder_is_created_and_opened_without_shell(desktop, base, monkeypatch, platform, program):
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "darwin":
        monkeypatch.delenv("DISPLAY")
    assert open_in_file_manager(base / "outputs" / "; rm x") is True
    [(command, options)] = desktop
    assert command == [f"/usr/bin/{program}", str(base / "outputs" / "; rm x")]
    assert not options.get("shell")
    assert (base / "outputs" / "; rm x").is_dir()


def test_windows_uses_startfile(desktop, base, monkeypatch):
    opened = []
    monkeypatch.setattr(os, "startfile", opened.append, raising=False)
    assert open_in_file_manager(base) is True
    assert opened == [str(base)]
    assert desktop == []


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "not executable")


@pytest.mark.parametrize("lacks", ["file manager", "display", "rights"])
def test_folder_that_nothing_can_show_returns_false(desktop, base, monkeypatch, lacks):
    if lacks == "file manager":
        monkeypatch.setattr(output.shutil, "which", lambda _: None)
    elif lacks == "display":
        monkeypatch.delenv("DISPLAY")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    else:
        monkeypatch.setattr(subprocess, "Popen", refuse)
    assert open_in_file_manager(base / "outputs") is False
    assert (base / "outputs").is_dir()
    assert desktop == []


@pytest.mark.usefixtures("desktop")
def test_folder_that_cannot_be_created_is_an_error(base):
    (base / "notes").write_text("")
    with pytest.raises(MachineError, match="cannot_write"):
        open_in_file_manager(base / "notes" / "cats")
