"""The memory of a tab: what its form held beside the settings, as JSON in the browser.

A program may send anything in its place.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..form import HIDDEN_SETTINGS, Pictures, Row, Values
from ..uploads.files import uploaded_paths
from .widgets import NOT_EDITED, Data, Edited, Page, text_of


@dataclass(frozen=True)
class Kept:
    """All that a form holds beside its plain values, as `Page` names it."""

    pictures: Pictures
    hidden: Values
    seed_source: dict[str, Any] | None = None
    edited: Edited = NOT_EDITED


def write_kept(page: Page, data: Data, pictures: Pictures) -> str:
    """Return the JSON that a tab is to remember of its form, which holds these pictures."""
    kept = {
        "start": pictures.start,
        "end": [pictures.end] if pictures.end else [],
        "position": pictures.position,
        "rows": {section: [row.image] if row.image else [] for section, row in pictures.rows.items()},
        "prompts": {section: row.prompt for section, row in pictures.rows.items()},
        "hidden": data[page.hidden_settings],
        "edited": vars(data[page.edited]),
        "seed": data[page.seed_source] if page.is_seed_from_file(data) else None,
    }
    return json.dumps(kept)


def read_kept(page: Page, text: object) -> Kept | None:
    """Return what JSON holds, as far as its pictures are still there.

    None where it is empty, of another version of the app, or of a program.
    """
    try:
        kept = json.loads(str(text))
        rows = {
            int(section): Row(next(iter(_paths(page, kept["rows"].get(section))), None), str(prompt))
            for section, prompt in kept["prompts"].items()
        }
        ends, position = _paths(page, kept["end"]), kept.get("position")
        pictures = Pictures(tuple(_paths(page, kept["start"])), next(iter(ends), None), rows, position)
        hidden = {name: kept["hidden"][name] for name in HIDDEN_SETTINGS if name in kept["hidden"]}
        seed = kept.get("seed")
        source = seed and {"seed": str(seed["seed"]), "pictures": list(seed["pictures"])}
        edited = kept.get("edited") or vars(NOT_EDITED)
        return Kept(pictures, hidden, source, Edited(str(edited["job"]), str(edited["before"])))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def kept_paths(page: Page, data: Data, place: str) -> list[str]:
    """The pictures that a tab remembers at one place, as far as they are still there."""
    try:
        return _paths(page, json.loads(text_of(data, page.inputs.kept) or "{}").get(place))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []


def _paths(page: Page, kept: Any) -> list[str]:
    paths = uploaded_paths([{"path": path} for path in kept or []], page.app.uploads)
    return [path for path in paths if Path(path).is_file()]
