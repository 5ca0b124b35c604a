"""The live half of a page, as a browser gets it, and the state of a preflight that has nothing to say."""

import html
import json
import re
from pathlib import Path
from typing import Any

import httpx

from tests.support.app import App
from webui.eichi_utils.download.download import DownloadView
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.preflight import PreflightView

EMPTY_PREFLIGHT = PreflightView(None, None, ModelFolders(None, Path("models")), DownloadView())


def state(app: App) -> dict[str, Any]:
    """The state that the live half of a page would show now."""
    with httpx.stream("GET", f"{app.url}ichi/events?lang=en", trust_env=False, timeout=30) as answer:
        shown: dict[str, Any] = json.loads(next(answer.iter_lines()).removeprefix("data: "))
        return shown


def text(markup: str) -> str:
    """The first paragraph of a message, as it is read."""
    found = re.search(r"<p[^>]*>(.*?)</p>", markup, re.DOTALL)
    return html.unescape(found.group(1)) if found else ""
