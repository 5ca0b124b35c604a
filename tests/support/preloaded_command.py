"""The command for processes that are forked and killed by the dozen: importing this loads all that it needs.

Nothing here may start a thread, or no process could be forked from the one that has imported it.
"""

import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from tests.support.tiny import make_loader  # noqa: E402
from webui.endframe_ichi import main  # noqa: E402

make_loader().verify()  # imports the models' classes, which are found only when they are asked for


def run_command(arguments: list[str], said: Path) -> None:
    """`--headless` as a process of its own; ends it with the command's exit status."""
    with said.open("a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        status = main(arguments)
    sys.exit(status)


def run_until_write(arguments: list[str], said: Path, number: int) -> None:
    """The same, but the process is killed before it has put its `number`-th file onto the disk for good."""
    flush, left = os.fsync, number

    def kill_or_flush(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    os.fsync = kill_or_flush  # type: ignore[assignment]
    run_command(arguments, said)
