"""Names of videos and of the folder for them."""

import os
import re
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError, MachineError
from webui.eichi_utils import output
from webui.eichi_utils.output import (
    MAX_BYTES,
    OWN_FOLDERS,
    PROGRAM_FOLDERS,
    check_name,
    find_stored_folder,
    new_name,
    portable_path,
    resolve_output,
    try_folder,
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


NOWHERE = ["..", "../x", "a/../../x", "a\\..\\x", "\\x", "~root", "C:", "C:x", "/tmp/../x"]
OUTSIDE = [*NOWHERE, "/", "/tmp/x", "~", "~/x", "c:\\x", "C:/x"]
SHARES = [
    "//server/share",
    "\\\\server\\share",
    "/\\server/x",
    "\\\\?\\C:\\x",
    "\\\\.\\pipe\\x",
    " //server/share",
]
REFUSED = {
    "output_folder_empty": ["", "  ", "　"],
    "output_folder_outside": OUTSIDE,
    "output_folder_network": SHARES,
    "bad_folder_name": ["con", "a/aux", "a./b", "a /b", "a/./b", "ab:c"],
    "output_folder_too_long": ["a" * 101, "a/" * 51],
    "output_folder_of_app": ["cache", "Cache", "SETTINGS/x", "hf_download\\x", "static"],
}


@pytest.mark.parametrize(("code", "name"), [(code, name) for code in REFUSED for name in REFUSED[code]])
def test_invalid_name_is_refused_with_its_code(base, name, code):
    with pytest.raises(InputError) as caught:
        resolve_output(name, base)
    assert caught.value.code == code
    assert list(base.iterdir()) == []


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder whose name our own ones could not have."""
    folder = tmp_path / ".else: where"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["", "/", "/cats", "/new/猫 (1)", "//cats"])
def test_a_whole_path_is_a_folder_anywhere(base, elsewhere, name):
    path = resolve_output(f" {elsewhere}{name} ", base, anywhere=True)
    assert path == Path(f"{elsewhere}{name}")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="no name of a folder ends in a space")
@pytest.mark.parametrize("name", ["cats ", " cats", "cats .", "猫\u3000", "👩\u200d🚀"])
def test_a_folder_that_is_there_is_taken_by_its_own_name(base, elsewhere, name):
    (elsewhere / name).mkdir()
    assert resolve_output(str(elsewhere / name), base, anywhere=True) == elsewhere / name


@pytest.mark.parametrize(("name", "parts"), [("~", []), ("~/cats", ["cats"])])
def test_the_users_home_has_a_short_name(base, elsewhere, monkeypatch, name, parts):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(elsewhere))
    assert resolve_output(name, base, anywhere=True) == elsewhere.joinpath(*parts)


def test_a_name_stays_inside_where_whole_paths_are_allowed_too(base, tmp_path):
    assert resolve_output("outputs\\cats", base, anywhere=True) == base / "outputs" / "cats"
    (base / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="output_folder_leads_out"):
        resolve_output("link/cats", base, anywhere=True)


UNTYPABLE = ["{tmp}/line\nend", "{tmp}/line\nend/new", "{tmp}/end\r", "{tmp}/\x85/x", "{tmp}/\udcff"]
"""Folders that are there, but for the last levels; no field of a page can hold their names."""
UNUSABLE = {
    "output_folder_not_whole": [*NOWHERE, *([] if sys.platform == "win32" else ["c:\\x", "C:/x"])],
    "output_folder_network": SHARES,
    "bad_folder_name": ["{tmp}/con", "{tmp}/a:b", "{tmp}/new/.b", "{tmp}/a\x00b", *UNTYPABLE],
    "output_folder_too_long": ["{tmp}/" + "a/" * 100],
    "output_folder_of_app": [
        *("{base}", "{base}/cache", "{base}/Temp/x", "{link}/cache", "{tmp}/to cache/x"),
        *map(str, (WEBUI.parent, WEBUI.parent / "venv" / "x", WEBUI / "new")),
    ],
    "output_folder_is_file": ["{tmp}/notes", "{tmp}/notes/x"],
    "output_folder_leads_out": ["{tmp}/circle"],
}


@pytest.mark.parametrize(("code", "name"), [(code, name) for code in UNUSABLE for name in UNUSABLE[code]])
def test_an_unusable_path_is_refused_with_its_code(base, tmp_path, name, code):
    (tmp_path / "notes").write_text("")
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "to cache").symlink_to(base / "cache")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    if os.name == "posix":
        for folder in ("line\nend", "end\r", "\x85", "\udcff"):
            (tmp_path / folder).mkdir()
    places = {"{tmp}": tmp_path, "{base}": base, "{link}": tmp_path / "link"}
    for place, path in places.items():
        name = name.replace(place, str(path))
    with pytest.raises(InputError) as caught:
        resolve_output(name, base, anywhere=True)
    assert caught.value.code == code


def test_a_share_is_refused_before_anything_asks_the_disk(base, monkeypatch):
    for name in ("isdir", "lexists", "realpath"):
        monkeypatch.setattr(os.path, name, Mock(side_effect=AssertionError))
    for name in SHARES:
        with pytest.raises(InputError, match="output_folder_network"):
            resolve_output(name, base, anywhere=True)


def test_a_drive_that_is_not_there_is_told_about(base, monkeypatch):
    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    with pytest.raises(MachineError, match="disk_away"):
        resolve_output(str(base / "cats"), base, anywhere=True)


def test_a_folder_is_tried_and_left_as_it_was(elsewhere):
    (elsewhere / "mine.mp4").write_text("mine")
    for folder in (elsewhere, elsewhere / "new" / "cats"):
        try_folder(folder)
        assert [path.name for path in elsewhere.iterdir()] == ["mine.mp4"]


@pytest.mark.parametrize("refused", ["mkdir", "write_bytes"])
def test_a_folder_that_takes_no_files_is_an_error_and_leaves_nothing(elsewhere, monkeypatch, refused):
    monkeypatch.setattr(Path, refused, Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(MachineError, match="no_permission") as caught:
        try_folder(elsewhere / "cats")
    assert caught.value.values["path"] == str(elsewhere / "cats")
    assert list(elsewhere.iterdir()) == []


def test_folders_of_code_and_those_that_the_app_writes_are_reserved():
    ignored = (WEBUI.parent / ".gitignore").read_text("utf-8").splitlines()
    written = {line.split("/")[2] for line in ignored if line.startswith("/webui/") and "*" not in line}
    assert len(written) > 3
    code = {path.relative_to(WEBUI).parts[0] for path in WEBUI.glob("*/*.py")}
    assert "eichi_utils" in code
    assert (code | written) - {"outputs"} <= OWN_FOLDERS
    program = {path.parent.name for path in WEBUI.parent.glob("*/*") if path.parent.name[0] != "."}
    assert program - OWN_FOLDERS <= PROGRAM_FOLDERS


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


# -- folders that are stored, in a home that is moved -----------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "新しい [home] #1 100%"
    for name in ("outputs/cats", "temp/jobs/job_1", "elsewhere"):
        (home / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    return home


@pytest.mark.parametrize(
    ("folder", "stored"),
    [
        ("{home}/outputs", "outputs"),
        ("{home}/not there/yet", "not there/yet"),
        ("{home}", "."),
        ("{link}/outputs/cats", "outputs/cats"),
        ("{home} too/outputs", "{home} too/outputs"),
        ("/mnt/videos", "/mnt/videos"),
    ],
)
def test_folder_in_home_is_stored_relative_to_it(home, tmp_path, folder, stored):
    places = {"home": home, "link": tmp_path / "link"}
    expected = stored.format(**places)
    assert portable_path(Path(folder.format(**places)), home) == expected
    if expected == stored and not Path(stored).is_absolute():
        assert find_stored_folder(stored, home, Path("/default"), Path("none")) == home / stored


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ("/old/webui/outputs", "{home}/outputs"),
        ("/old/webui/outputs/cats", "{home}/outputs/cats"),
        ("D:\\old\\webui\\outputs\\cats", "{home}/outputs/cats"),
        ("//server/share/outputs", "{home}/outputs"),
        ("/old/webui/outputs/dogs", "/default"),  # nothing there says that it was below a home
        ("/old/webui/temp", "/default"),  # the app's own
        ("/old/../outputs/../cats", "/default"),
        ("/old/outputs/..", "/default"),
        ("/media/usb/videos", "/default"),
        ("E:\\videos", "/default"),
        ("/" + "x/" * 50_000, "/default"),
        ("{tmp}/there", "{tmp}/there"),
        ("{tmp}/copied/outputs/cats", "{home}/outputs/cats"),
        ("{tmp}/another/outputs", "{tmp}/another/outputs"),
    ],
)
def test_stored_folder_is_found_after_a_move(home, tmp_path, stored, found):
    for name in (
        "there",
        "copied/temp/jobs/job_1",
        "copied/outputs/cats",
        "another/temp/jobs",
        "another/outputs",
    ):
        (tmp_path / name).mkdir(parents=True)
    places = {"home": home, "tmp": tmp_path}
    answer = find_stored_folder(stored.format(**places), home, Path("/default"), Path("temp/jobs/job_1"))
    assert answer == Path(found.format(**places))
