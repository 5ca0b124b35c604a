"""The import of the engine, which takes seconds: in a thread, as soon as there is a picture to use."""

import logging
import threading
from functools import cache

logger = logging.getLogger(__name__)


def begin_import() -> None:
    """Begin to import the engine and the libraries of its models, unless that has begun."""
    _thread()


def finish_import() -> None:
    """Wait for the import. What failed is imported again by the one who needs it, and fails there."""
    _thread().join()


@cache
def _thread() -> threading.Thread:
    thread = threading.Thread(target=_import, name="import", daemon=True)
    thread.start()
    return thread


def _import() -> None:
    try:
        from diffusers_helper.engine import import_models

        import_models()
    except Exception:
        logger.warning("the engine could not be imported", exc_info=True)
