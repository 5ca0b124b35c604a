"""Which models to use when nobody names a folder: the download if there is one, else the demo's."""

from collections.abc import Generator
from pathlib import Path

from diffusers_helper.events import Notice
from diffusers_helper.weights.model_files import ModelFiles, find_models

from .download.model_folders import ModelFolders, find_models_in, take_inventory

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADED = ROOT / "webui" / "hf_download"
DEMO = ROOT / "demo_models"
"""The tiny trained models that come with the app."""
DEMO_RESOLUTION = 192
"""Pixels, which the demo's models were trained for."""


def has_download(places: ModelFolders) -> bool:
    """Whether there are models, or the app's own download of them was begun."""
    is_begun = places.own.is_dir() and any(path.is_dir() for path in places.own.iterdir())
    return is_begun or take_inventory(places).state == "complete"


def default_models(places: ModelFolders) -> Generator[Notice, None, ModelFiles]:
    """The models of this computer; where nothing was downloaded, the demo's, and tells so.

    Raises:
        InputError: there is a download, but it is not complete.
    """
    if has_download(places):
        return find_models_in(places)
    yield Notice("demo_models", {"path": str(places.own)})
    return find_models(DEMO)
