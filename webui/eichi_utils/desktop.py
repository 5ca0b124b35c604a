"""The desktop of the computer on which the app runs: shows a file in its folder, and asks for a folder.

Each is done by the system's own programs, in processes of their own. Knows no page: a browser elsewhere must
not open anything here.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from diffusers_helper.errors import InputError

WINDOWS_DIALOG = Path(__file__).with_name("windows_dialog.py")
CHOOSE_ON_MAC = "on run argv", "POSIX path of (choose folder with prompt (item 1 of argv))", "end run"
LOOK_SECONDS = 0.2
"""Seconds between two looks at a dialog that is open."""
_one_dialog = threading.Lock()


def has_folder_dialog() -> bool:
    """Return whether the system can ask for a folder."""
    return _dialog("", Path()) is not None


def ask_folder(title: str, start: Path, closing: threading.Event) -> Path | None:
    """Ask for a folder in the system's own dialog, until somebody has answered or the app ends.

    Args:
        start: the folder to begin at, where the system can do that.

    Returns:
        None where the dialog was closed without an answer.

    Raises:
        InputError: it is open already, or cannot be shown.
    """
    while not start.is_dir() and start != start.parent:
        start = start.parent
    command = _dialog(title, start)
    if not _one_dialog.acquire(blocking=False):
        raise InputError("folder_dialog_open")
    try:
        if command is None:
            raise InputError("folder_dialog_failed")
        return _answer(command, closing)
    except OSError as error:
        raise InputError("folder_dialog_failed") from error
    finally:
        _one_dialog.release()


def _dialog(title: str, start: Path) -> list[str] | None:
    """Return the command that asks for a folder and writes its path; None where there is none."""
    if sys.platform == "win32":
        return [sys.executable, str(WINDOWS_DIALOG), title, str(start)]
    if sys.platform == "darwin":
        return ["osascript", *(part for line in CHOOSE_ON_MAC for part in ("-e", line)), title]
    if not _has_screen():
        return None
    if (zenity := shutil.which("zenity")) is not None:
        return [zenity, "--file-selection", "--directory", f"--title={title}", f"--filename={start}/"]
    if (kdialog := shutil.which("kdialog")) is not None:
        return [kdialog, "--title", title, "--getexistingdirectory", str(start)]
    return None


def _answer(command: list[str], closing: threading.Event) -> Path | None:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows' Python has a terminal otherwise
    with subprocess.Popen(command, creationflags=hidden, **pipes) as process:  # type: ignore[call-overload]
        while process.poll() is None:
            if closing.wait(LOOK_SECONDS):
                process.kill()
        written: bytes = process.stdout.read()
    path = os.fsdecode(written).removesuffix("\n").removesuffix("\r")
    return Path(path) if process.returncode == 0 and path else None


def show_in_file_manager(file: Path) -> bool:
    """Show a file in its folder on this computer's screen, marked where the system can do that.

    Returns:
        False where nothing can show it.
    """
    try:
        if sys.platform == "win32":
            _launch(["explorer", "/select,", str(file.absolute())])
            return True
        if sys.platform == "darwin":
            return _start_opener("-R", str(file.absolute()))
        return _start_opener(str(file.parent.absolute()))
    except OSError:
        return False


def _start_opener(*arguments: str) -> bool:
    command = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if command is None or not _has_screen():
        return False
    _launch([command, *arguments])
    return True


def _has_screen() -> bool:
    return bool(sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _launch(command: list[str]) -> None:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the app's terminal is not meant for it
    )
    threading.Thread(target=process.wait, name="file manager", daemon=True).start()  # leaves no zombie
