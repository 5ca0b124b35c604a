"""Errors of the disk as codes, and the lock that one process holds."""

import errno
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.files.disk_errors import disk_code, disk_errors
from diffusers_helper.files.exclusive_lock import exclusive_lock

FOLDER = Path("/videos")


def of_windows(number: int, own: int, *name: str) -> OSError:
    """An error with the number of Windows, and with the one that Python takes it for."""
    error = OSError(number, "no", *name)
    error.winerror = own
    return error


@pytest.mark.parametrize(
    ("error", "file", "code", "path"),
    [
        (OSError(errno.ENOSPC, "no", "/other"), None, "disk_full", FOLDER),
        (OSError(errno.EDQUOT, "no"), FOLDER / "a", "disk_quota", FOLDER),
        (OSError(errno.EROFS, "no"), None, "disk_read_only", FOLDER),
        (OSError(errno.EFBIG, "no", "/b"), None, "disk_file_limit", FOLDER),
        (OSError(errno.EHOSTDOWN, "no", "/b"), None, "disk_away", FOLDER),
        (OSError(errno.ESTALE, "no"), FOLDER / "a", "disk_away", FOLDER),
        (OSError(errno.ENOTCONN, "no", "/b"), None, "disk_away", FOLDER),
        (OSError(errno.EACCES, "no", "/b"), None, "no_permission", "/b"),
        (OSError(errno.EPERM, "no"), FOLDER / "a", "no_permission", FOLDER / "a"),
        (OSError(errno.ENOENT, "no", "/b"), None, "path_gone", "/b"),
        (OSError(errno.ENOTDIR, "no", "/b"), None, "cannot_write", "/b"),
        (OSError(errno.ENAMETOOLONG, "no", "/b"), None, "path_too_long", "/b"),
        (OSError(errno.EILSEQ, "no", "/b"), None, "name_refused", "/b"),
        (OSError(errno.EINVAL, "no", "/a:b"), None, "name_refused", "/a:b"),
        (OSError(errno.EINVAL, "no"), None, "cannot_write", FOLDER),
        (of_windows(errno.EINVAL, 64, "/b"), None, "disk_away", FOLDER),
        (of_windows(errno.ENOENT, 53), None, "disk_away", FOLDER),
        (of_windows(errno.EACCES, 21, "/b"), None, "disk_away", FOLDER),
        (of_windows(errno.EACCES, 19, "/b"), None, "disk_read_only", FOLDER),
        (of_windows(errno.EINVAL, 223), None, "disk_file_limit", FOLDER),
        (of_windows(errno.EINVAL, 1295), None, "disk_quota", FOLDER),
        (of_windows(errno.EINVAL, 39), None, "disk_full", FOLDER),
        (of_windows(errno.EINVAL, 123, "/b"), None, "name_refused", "/b"),
        (of_windows(errno.ENOENT, 206, "/b"), None, "path_too_long", "/b"),
        (of_windows(errno.EACCES, 32, "/b"), None, "no_permission", "/b"),
        (OSError(errno.EIO, "no", "/b"), None, "cannot_write", "/b"),
        (OSError(errno.EIO, "no", "/b"), FOLDER / "a", "cannot_write", FOLDER / "a"),
        (OSError("no"), None, "cannot_write", FOLDER),
    ],
)
def test_disk_errors_become_codes_with_paths(error, file, code, path):
    with pytest.raises(MachineError) as caught, disk_errors(FOLDER, file):
        raise error
    assert caught.value.code == code
    reason = {"reason": "no"} if code in ("cannot_write", "no_permission") else {}
    assert caught.value.values == {"path": str(path)} | reason
    assert caught.value.__cause__ is error


AWAY = ["ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "ETIMEDOUT", "ECONNABORTED"]
AWAY += ["ECONNRESET", "ESTALE", "ENODEV", "ENXIO"]
WINDOWS_AWAY = [21, 51, 53, 54, 55, 59, 64, 67, 121, 1167, 1231, 1232, 1236]


def test_every_way_in_which_a_disk_goes_away_is_known():
    assert {disk_code(OSError(getattr(errno, name), "no", "/b")) for name in AWAY} == {"disk_away"}
    assert {disk_code(of_windows(errno.EINVAL, own, "/b")) for own in WINDOWS_AWAY} == {"disk_away"}
    assert disk_code(of_windows(errno.EINVAL, 112, "/b")) == "disk_full"


def test_other_errors_pass_unchanged():
    with pytest.raises(ValueError, match="other"), disk_errors(FOLDER):
        raise ValueError("other")


def test_a_second_holder_gets_the_callers_error(tmp_path):
    lock, busy = tmp_path / "new" / "lock", InputError("output_busy")
    with exclusive_lock(lock, busy):
        with pytest.raises(InputError) as caught, exclusive_lock(lock, busy):
            pass
        assert caught.value is busy
    with exclusive_lock(lock, busy):
        assert lock.exists()


@pytest.mark.parametrize("name", ["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EINVAL"])
def test_a_file_system_without_locks_is_used_all_the_same(tmp_path, monkeypatch, name):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(getattr(errno, name), "")))
    with exclusive_lock(tmp_path / "lock", InputError("output_busy")) as is_locked:
        assert is_locked is (name == "ENOSYS"), "there, the file itself is the lock"


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    lock = tmp_path / "lock"
    program = (
        "import os, sys; from pathlib import Path;"
        "from diffusers_helper.files.exclusive_lock import exclusive_lock;"
        "held = exclusive_lock(Path(sys.argv[1]), RuntimeError()); held.__enter__(); os._exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(lock)], check=False).returncode == 7
    with exclusive_lock(lock, InputError("output_busy")):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MachineError, match="cannot_write"),
        exclusive_lock(tmp_path / "file" / "lock", InputError("x")),
    ):
        pass
