"""Files that are there completely or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """`with whole_file(path) as part`: write `part`; it becomes `path` if all goes well, else it goes."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # on Windows a failed writer may still hold it
            part.unlink(missing_ok=True)
