"""A lock that one process holds at a time."""

import contextlib
import errno
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import EngineError
from .disk_errors import disk_errors


@contextlib.contextmanager
def exclusive_lock(lock_file: Path, busy: EngineError) -> Iterator[bool]:
    """Hold a lock file while the block runs, also if another thread ends it; create its folder.

    The system releases it if this process dies. The file may stay. Yields False on a share without locks.

    Raises:
        EngineError: `busy`, where another process, or another block of this one, holds it.
        MachineError: the folder or the file cannot be written.
    """
    lock = FileLock(lock_file, thread_local=False)
    warnings.filterwarnings("ignore", "flock not supported")  # then it is there as long as its file
    with disk_errors(lock_file.parent, lock_file.parent):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise busy from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
    try:
        yield lock.is_locked
    finally:
        lock.release()
