"""The demo (`--demo`): tiny models that come with the app, whatever was downloaded. Knows no page."""

from dataclasses import dataclass
from pathlib import Path

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.model_files import find_models

from .default_models import RANDOM, ROOT
from .settings import Field

TRAINED = ROOT / "demo_models"
RESOLUTION = 192
"""What the demo's models were trained for."""
SETTINGS_FILE = "demo_settings.json"
"""The demo's settings are kept apart: its resolution is not that of the real models."""


@dataclass(frozen=True)
class Demo:
    """The demo's models: the trained ones or, where these are not there, some whose video is noise."""

    models: Path
    is_trained: bool


def find_demo() -> Demo:
    """The trained models, else the random ones, which are made where they are missing.

    Raises:
        MachineError: they cannot be written.
    """
    try:
        find_models(TRAINED)
    except InputError:
        return Demo(_random_models(), is_trained=False)
    return Demo(TRAINED, is_trained=True)


def demo_fields(fields: dict[str, Field]) -> dict[str, Field]:
    """The settings, with the demo's resolution where none was chosen."""
    return fields | {"resolution": Field(RESOLUTION, fields["resolution"].check)}


def _random_models() -> Path:
    from demo_models.random_models import build_random_models

    try:
        return build_random_models(RANDOM)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MachineError("cannot_write", path=str(RANDOM), reason=reason) from error
