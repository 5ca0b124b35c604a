"""Windows' own dialog for a folder, in a process of its own: `python windows_dialog.py TITLE START`.

Writes the chosen path to its output in UTF-8. Ends with 1 where none was chosen. Uses the COM interfaces
IFileOpenDialog and IShellItem through ctypes, because not every Python for Windows has tkinter.
"""

import ctypes
import sys
import uuid
from typing import Any

PICK_FOLDERS, REAL_FOLDERS_ONLY = 0x20, 0x40
PATH_OF_FILE_SYSTEM = 0x80058000
TOPMOST, IN_PROCESS, STA = 8, 1, 2
DIALOG_CLASS = "DC1C5A9C-E88A-4DDE-A5A1-60F82A20AEF7"
DIALOG, ITEM = "D57C7288-D4AD-4768-BE02-9D969532D960", "43826D1E-E718-42EE-BC55-A1E261C37BFE"
SHOW, SET_OPTIONS, SET_FOLDER, SET_TITLE, GET_RESULT, GET_NAME = 3, 9, 12, 17, 20, 5
"""The places of the methods in their interfaces' tables."""


def choose(title: str, start: str) -> str:
    """Return the path that the user chooses; raises OSError where that is none."""
    windll: Any = ctypes.windll  # type: ignore[attr-defined]
    ole, shell, user = windll.ole32, windll.shell32, windll.user32
    user.CreateWindowExW.restype = ctypes.c_void_p
    ole.CoInitializeEx(None, STA)
    dialog, item, text = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_wchar_p()
    made = (_guid(DIALOG_CLASS), None, IN_PROCESS, _guid(DIALOG), ctypes.byref(dialog))
    _check(ole.CoCreateInstance(*made))
    _call(dialog, SET_OPTIONS, ctypes.c_uint(PICK_FOLDERS | REAL_FOLDERS_ONLY))
    _call(dialog, SET_TITLE, ctypes.c_wchar_p(title))
    if shell.SHCreateItemFromParsingName(ctypes.c_wchar_p(start), None, _guid(ITEM), ctypes.byref(item)) == 0:
        _call(dialog, SET_FOLDER, item)
    # a dialog is in front of its owner, and this one is in front of the browser
    owner = user.CreateWindowExW(TOPMOST, ctypes.c_wchar_p("STATIC"), None, 0, *[0] * 4, *[None] * 4)
    user.SetForegroundWindow(ctypes.c_void_p(owner))
    _call(dialog, SHOW, ctypes.c_void_p(owner))
    _call(dialog, GET_RESULT, ctypes.byref(item))
    _call(item, GET_NAME, ctypes.c_uint(PATH_OF_FILE_SYSTEM), ctypes.byref(text))
    return text.value or ""


def _guid(text: str) -> Any:
    return ctypes.create_string_buffer(uuid.UUID(text).bytes_le, 16)


def _call(thing: Any, method: int, *arguments: Any) -> None:
    """Call a method of a COM interface."""
    table = ctypes.cast(thing, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    kinds = [
        type(argument) if isinstance(argument, ctypes._SimpleCData) else ctypes.c_void_p
        for argument in arguments
    ]
    function = ctypes.WINFUNCTYPE(ctypes.c_long, ctypes.c_void_p, *kinds)(table[method])  # type: ignore[attr-defined]
    _check(function(thing, *arguments))


def _check(result: int) -> None:
    if result < 0:  # cancelled, too
        raise OSError(f"{result & 0xFFFFFFFF:#x}")


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(choose(*sys.argv[1:3]).encode("utf-8", "surrogatepass"))
    except OSError as error:
        sys.exit(str(error))
