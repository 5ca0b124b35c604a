"""Importing gradio in half of its time.

At every import gradio reads the source of each of its components and writes type stubs for editors beside
them, which takes more than a second of the start. It leaves that out for classes whose source cannot be
found, so while it is imported, its classes' sources cannot be found.
"""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any


def import_gradio() -> None:
    """Import gradio, unless it has been."""
    if "gradio" not in sys.modules:
        with _hidden_sources("gradio."):
            importlib.import_module("gradio")


@contextlib.contextmanager
def _hidden_sources(package: str) -> Iterator[None]:
    """While inside, `inspect.getfile` finds no file of a class of that package."""
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith(package):
            raise OSError("not now")
        return original(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = original
