"""The live half of a page, as a browser gets it."""

import html
import json
import re
import urllib.request
from typing import Any

from tests.support.app import App


def state(app: App) -> dict[str, Any]:
    """The state that the live half of a page would show now."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{app.url}ichi/events?lang=en", timeout=30) as answer:
        shown: dict[str, Any] = json.loads(answer.readline().removeprefix(b"data: "))
        return shown


def text(markup: str) -> str:
    """The first paragraph of a message, as it is read."""
    found = re.search(r"<p[^>]*>(.*?)</p>", markup, re.DOTALL)
    return html.unescape(found.group(1)) if found else ""
