"""What is different while the demo's tiny models make the videos: `--demo`, or before a download."""

from .settings.settings import Field

RESOLUTION = 192
"""What the demo's models were trained for."""
SETTINGS_FILE = "demo_settings.json"
"""The settings of `--demo` are kept apart: its resolution is not that of the real models."""


def demo_fields(fields: dict[str, Field]) -> dict[str, Field]:
    """The settings, with the demo's resolution where none was chosen."""
    return fields | {"resolution": Field(RESOLUTION, fields["resolution"].check)}
