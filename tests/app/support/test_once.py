"""Files that several threads want at the same time."""

import threading
import time
from pathlib import Path

from webui.eichi_utils.support.once import write_once


def test_a_file_that_many_want_at_once_is_written_once(tmp_path):
    path, written = tmp_path / "new" / "a.png", []

    def write(part: Path) -> None:
        written.append(part)
        time.sleep(0.05)
        part.write_text("whole")

    def want() -> None:
        write_once(path, write)
        seen.append(path.read_text())

    seen: list[str] = []
    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, len(written)) == (["whole"] * 8, 1)
    assert list(path.parent.iterdir()) == [path]
