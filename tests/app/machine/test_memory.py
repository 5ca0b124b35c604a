"""RAM as Windows, Linux and a container tell it."""

import ctypes

import pytest

from webui.eichi_utils.machine.facts import MemoryFacts
from webui.eichi_utils.machine_memory import MemoryStatus, linux_memory, read_memory, windows_memory

GIB = 2**30
MEMINFO = """MemTotal:       16777216 kB
MemFree:         1048576 kB
MemAvailable:   10485760 kB
SwapTotal:       4194304 kB
SwapFree:        2097152 kB
HugePages_Total:       0
"""


def container(folder, limit: str, used: int, cached: int):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\nfile {cached}\n")
    return folder


def test_linux_promises_what_is_free_and_the_swap(tmp_path):
    assert linux_memory(MEMINFO, tmp_path) == MemoryFacts(16 * GIB, 10 * GIB, 12 * GIB, None)


def test_a_container_has_what_its_limit_leaves(tmp_path):
    cgroup = container(tmp_path, str(8 * GIB), used=6 * GIB, cached=1 * GIB)
    assert linux_memory(MEMINFO, cgroup) == MemoryFacts(8 * GIB, 3 * GIB, 3 * GIB, None)


def test_a_container_without_a_limit_is_like_none(tmp_path):
    cgroup = container(tmp_path, "max", used=6 * GIB, cached=0)
    assert linux_memory(MEMINFO, cgroup).total == 16 * GIB


@pytest.mark.parametrize(("commit_limit", "page_file"), [(24 * GIB, 8 * GIB), (16 * GIB, 0), (15 * GIB, 0)])
def test_windows_page_file_is_what_may_be_promised_beyond_ram(commit_limit, page_file):
    status = MemoryStatus(
        total=16 * GIB, available=9 * GIB, commit_limit=commit_limit, commit_available=7 * GIB
    )
    assert windows_memory(status) == MemoryFacts(16 * GIB, 9 * GIB, 7 * GIB, page_file)


def test_windows_structure_has_the_size_that_windows_checks():
    assert ctypes.sizeof(MemoryStatus) == 64


def test_this_machine_tells_its_memory():
    memory = read_memory()
    assert 0 < memory.available <= memory.total
    assert memory.promised > 0
