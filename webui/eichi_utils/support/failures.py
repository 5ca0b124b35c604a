"""Every failure of the app: a code with values for a sentence, and details for a report."""

import functools
import platform
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from diffusers_helper.errors import EngineError, ErrorCode, InputError, MachineError
from diffusers_helper.public import disk_error, is_limit
from diffusers_helper.version import VERSION

from .redaction import redact

MAX_REASON = 300
MAX_DETAILS = 20_000
MISSING_DLL = (126, 127, 1114)
"""Windows' error numbers of a DLL that is missing, too old, or does not start."""
LIBRARIES = ("torch", "diffusers", "transformers", "gradio", "numpy", "pillow", "av")


@dataclass(frozen=True)
class Failure:
    """The reason why something ended. `code` and `values` make the sentence `error.<code>`.

    `details` are for support; they hold no picture and none of the user's own texts.
    """

    code: ErrorCode
    values: dict[str, object]
    details: str


def as_engine_error(error: BaseException) -> EngineError:
    """Return the same failure with a code: its own, out of memory, of the disk, else `unexpected`."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, MemoryError):
        return MachineError("out_of_memory")
    if (
        isinstance(error, OSError)
        and is_limit(error)
        and not isinstance(error, ConnectionError | TimeoutError)
    ):
        return disk_error(error, Path(error.filename or "?"))
    if getattr(error, "winerror", None) in MISSING_DLL:
        return MachineError("torch_dll", reason=shorten(error))
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return MachineError("unexpected", reason=shorten(error), place=place)


def shorten(error: BaseException) -> str:
    """Return an error's type and message in one line of at most MAX_REASON characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON]


def describe_failure(error: BaseException, hide: Iterable[str] = ()) -> Failure:
    """Describe a failure without keeping the error, and so what its frames hold, alive.

    Args:
        hide: the user's own texts (prompts), which must not get into the details.
    """
    known = as_engine_error(error)
    lines = "".join(traceback.format_exception(error))
    details = redact(f"{versions()}\n\n{lines}", hide)  # before the cut: half a text is no match
    return Failure(known.code, dict(known.values), cut(details, MAX_DETAILS))


def cut(text: str, longest: int) -> str:
    """Cut the middle out of a text that is too long: where it begins and ends matters most."""
    return text if len(text) <= longest else f"{text[: longest // 2]}\n[...]\n{text[-longest // 2 :]}"


def loggable(error: InputError) -> str:
    """Return what a log may hold of a refused request: the error's code and the field that it is about.

    The values hold what was written, private texts among it; an unknown key may be such a text itself.
    """
    field = error.values.get("nearest" if error.code == "unknown_key" else "field")
    return error.code if field is None else f"{error.code} ({field})"


@functools.cache  # to describe a failure, no file need be opened: there may be too many open
def versions() -> str:
    """Return the versions of the app, Python, the system and the libraries, which are not imported."""
    found = [f"Endframe Ichi {VERSION}", f"Python {platform.python_version()}", platform.platform()]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} is not installed")
    return ", ".join(found)
