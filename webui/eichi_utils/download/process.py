"""The process that downloads (`python -m`), the only part of the app that talks to the network.

It reports each change of the download as a line of JSON. When its standard input is closed, to stop it or
because the app died, it ends at once; what has come is kept.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ..support.failures import describe_failure
from .fetch import download
from .model_folders import ModelFolders
from .progress import DownloadView, Progress


def main(request: str, report: Callable[[DownloadView], None]) -> None:
    """Call `download` with the arguments in `request` (JSON); every failure is reported."""
    progress = Progress(report)
    try:
        values = json.loads(request)
        given, own, *caches = (path and Path(path) for path in values["folders"])
        download(ModelFolders(given, own, tuple(caches)), progress, check=values["check"])
    except BaseException as error:  # noqa: BLE001  (the app reports it)
        progress.enter("failed", failure=describe_failure(error))
    else:
        progress.enter("done")


def _connect() -> Callable[[DownloadView], None]:
    """Take the pipes away from the standard streams, where libraries could write and, on Windows, hang.

    Returns:
        A function that writes a report.
    """
    orders, reports = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def end_with_the_app() -> None:
        with contextlib.suppress(OSError):
            os.read(orders, 1)
        os._exit(0)

    threading.Thread(target=end_with_the_app, daemon=True).start()

    def report(view: DownloadView) -> None:
        os.write(reports, json.dumps(asdict(view), default=str).encode() + b"\n")

    return report


if __name__ == "__main__":
    main(sys.argv[1], _connect())
