"""Options of a page on a free port."""

from pathlib import Path
from typing import Any

from tests.support.app import free_port
from webui.eichi_utils.app import PageOptions
from webui.eichi_utils.engine_options import EngineOptions


def options(home: Path, **values: Any) -> PageOptions:
    plain: dict[str, Any] = {
        "server": "127.0.0.1",
        "port": free_port(),
        "share": False,
        "in_browser": False,
        "language": None,
        "login": None,
        "home": home,
        "output": None,
        "engine": EngineOptions(None, home / "cache", "cpu", None),
    }
    return PageOptions(**plain | values)
