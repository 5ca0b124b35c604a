"""The process that downloads (`python -m`), the only part of the app that talks to the network.

It reports each change of the download as a line of JSON. When its standard input is closed, to stop it or
because the app died, it ends at once; what has come is kept.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.public import exclusive_lock

from ..support.failures import describe_failure
from .fetch import PAUSES, Backoff, Fetcher
from .hub import ConnectionLost, Hub
from .model_folders import ModelFolders, find_models_in
from .needed_files import RemoteFile
from .plan import check_room, make_plan
from .progress import DownloadView, Progress

LOCK = ".download.lock"
"""The name of the file in the target folder that is locked while a download writes there."""


def download(
    folders: ModelFolders, progress: Progress, *, check: bool = False, pauses: Sequence[float] = PAUSES
) -> None:
    """Fetch what is missing.

    Args:
        check: also read the files that this app downloaded before, and fetch the damaged ones again.
        pauses: seconds before each new try while the connection is lost.

    Raises:
        MachineError: no connection, no room, another download runs, or the hub's files cannot be used.
        InputError: the models cannot be used, or HF_ENDPOINT is no address.
    """
    hub = Hub()
    backoff = Backoff(hub.host, pauses)
    busy = MachineError("download_runs_already", path=str(folders.target))
    with exclusive_lock(folders.target / LOCK, busy):
        try:
            _fetch_all(folders, hub, progress, backoff, check)
            find_models_in(folders)  # what came is what the jobs will take
        except InputError:
            if check:
                raise
            # All is there and as long as it should be, but cannot be used: so its content is checked.
            _fetch_all(folders, hub, progress, backoff, True)
            find_models_in(folders)


def _fetch_all(folders: ModelFolders, hub: Hub, progress: Progress, backoff: Backoff, check: bool) -> None:
    def list_files(repository: str) -> list[RemoteFile]:
        while True:
            progress.enter("asking")
            try:
                return hub.list_files(repository)
            except ConnectionLost as error:
                progress.enter("waiting", last_error=error.reason)
                backoff.wait(error)

    plan = make_plan(folders, list_files, check=check)
    progress.plan(plan.total_bytes, plan.needed_bytes)
    check_room(plan, folders.target)
    fetcher = Fetcher(hub, progress, backoff)
    for file in plan.files:
        if not file.is_complete:
            fetcher.fetch(file)
        elif check:
            fetcher.check(file)


def main(request: str) -> None:
    """Call `download` with the arguments in `request` (JSON); every failure is reported."""
    progress = Progress(_connect())
    # The app keeps its libraries offline and silent; this process is the exception.
    os.environ |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
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
            while os.read(orders, 1):
                pass
        os._exit(0)

    threading.Thread(target=end_with_the_app, daemon=True).start()

    def report(view: DownloadView) -> None:
        os.write(reports, json.dumps(asdict(view), default=str).encode() + b"\n")

    return report


if __name__ == "__main__":
    main(sys.argv[1])
