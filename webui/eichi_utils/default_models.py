"""Which models to use when nobody names a folder: the download if there is one, else a tiny stand-in."""

from collections.abc import Generator
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice
from diffusers_helper.model_files import ModelFiles, find_models

from .download_places import Places, find_models_in, look

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADED = ROOT / "webui" / "hf_download"
RANDOM = ROOT / "demo_models" / "random"


def default_models(places: Places) -> Generator[Notice, None, ModelFiles]:
    """The models of this computer; where nothing was downloaded, tiny ones with random weights, and tells so.

    Raises:
        InputError: there is a download, but it is not complete.
        MachineError: the stand-in cannot be written.
    """
    is_begun = places.own.is_dir() and any(path.is_dir() for path in places.own.iterdir())
    if is_begun or look(places).state == "complete":
        return find_models_in(places)
    yield Notice("random_models", {"path": str(places.own)})
    from demo_models.random_models import build_random_models

    try:
        build_random_models(RANDOM)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MachineError("cannot_write", path=str(RANDOM), reason=reason) from error
    return find_models(RANDOM)
