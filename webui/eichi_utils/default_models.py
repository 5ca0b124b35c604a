"""Which models to use when nobody names a folder: the download if there is one, else a tiny stand-in."""

from collections.abc import Generator
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice
from diffusers_helper.model_files import ModelFiles, find_models

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADED = ROOT / "webui" / "hf_download"
RANDOM = ROOT / "demo_models" / "random"


def default_models() -> Generator[Notice, None, ModelFiles]:
    """The downloaded models; where nothing was downloaded, tiny ones with random weights, and tells so.

    Raises:
        InputError: there is a download, but it is not complete.
        MachineError: the stand-in cannot be written.
    """
    if DOWNLOADED.is_dir() and any(DOWNLOADED.iterdir()):
        return find_models(DOWNLOADED)
    yield Notice("random_models", {"path": str(DOWNLOADED)})
    from demo_models.random_models import build_random_models

    try:
        build_random_models(RANDOM)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MachineError("cannot_write", path=str(RANDOM), reason=reason) from error
    return find_models(RANDOM)
