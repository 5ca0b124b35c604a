"""The memory of a tab: what its form held beside the settings, as JSON in the browser.

A program may send anything in its place.
"""

import json
from pathlib import Path
from typing import Any

from ..form import Pictures
from ..uploads.files import uploaded_paths
from .widgets import Data, Page, text_of


def write_kept(page: Page, data: Data, pictures: Pictures) -> str:
    """Return the JSON that a tab is to remember of its form, which holds these pictures."""
    kept = {
        "start": pictures.start,
        "end": [pictures.end] if pictures.end else [],
        "position": pictures.position,
        "rows": {section: [row.image] if row.image else [] for section, row in pictures.rows.items()},
        "prompts": {section: row.prompt for section, row in pictures.rows.items()},
        "hidden": data[page.hidden_settings],
        "edited": data[page.edited],
        "seed": data[page.seed_source] if page.is_seed_from_file(data) else None,
    }
    return json.dumps(kept)


def read_kept(page: Page, data: Data) -> Any:
    """Return the JSON that a tab remembers of its form. Raises ValueError where it is none."""
    return json.loads(text_of(data, page.inputs.kept) or "{}")


def kept_paths(page: Page, data: Data, *keys: str) -> list[str]:
    """The pictures that a tab remembers at one place, as far as they are still there."""
    try:
        kept = read_kept(page, data)
        for key in keys:
            kept = kept.get(key) or {}
        paths = uploaded_paths([{"path": path} for path in kept], page.app.uploads)
    except (ValueError, TypeError, AttributeError, RecursionError):  # a program's
        return []
    return [path for path in paths if Path(path).is_file()]
