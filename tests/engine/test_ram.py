"""RAM as the system and a container report it."""

import ctypes
from types import SimpleNamespace

import psutil
import pytest

from diffusers_helper.ram import SystemMemory, peak_process_bytes, read_ram

GIB = 2**30


@pytest.fixture
def sixteen_gib(monkeypatch):
    """A machine with 16 GiB of RAM, 10 of them free, and a swap or page file of 4 with 2 free."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GIB, available=10 * GIB))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=4 * GIB, free=2 * GIB))


@pytest.mark.usefixtures("sixteen_gib")
@pytest.mark.parametrize(
    ("maximum", "memory"),
    [
        (None, SystemMemory(16 * GIB, 10 * GIB, 12 * GIB)),
        ("max", SystemMemory(16 * GIB, 10 * GIB, 12 * GIB)),
        (8 * GIB, SystemMemory(8 * GIB, 3 * GIB, 3 * GIB)),
        (99 * GIB, SystemMemory(16 * GIB, 10 * GIB, 10 * GIB)),
    ],
)
def test_a_container_has_what_its_limit_leaves(tmp_path, maximum, memory):
    """The container uses 6 GiB, of which 1 GiB is its file cache."""
    if maximum is not None:
        for name, text in (("max", maximum), ("current", 6 * GIB), ("stat", f"anon 5\nfile {GIB}")):
            (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert read_ram(tmp_path) == memory


@pytest.mark.usefixtures("sixteen_gib")
def test_windows_commits_no_more_than_ram_and_page_file(windows, monkeypatch):
    """psutil's performance counters may be switched off."""

    def fail():
        raise RuntimeError("PdhAddEnglishCounterW failed. Performance counters may be disabled.")

    def fill(status):
        assert status[0] == ctypes.sizeof(status) == 64
        status[3], status[4] = 20 * GIB, 7 * GIB
        return works

    windows.kernel32.GlobalMemoryStatusEx = fill
    monkeypatch.setattr(psutil, "swap_memory", fail)
    works = True
    assert read_ram() == SystemMemory(16 * GIB, 10 * GIB, 7 * GIB, page_file=4 * GIB)
    works = False
    with pytest.raises(OSError, match="GlobalMemoryStatusEx"):
        read_ram()


def test_this_machine_reports_its_memory():
    memory = read_ram()
    assert 0 < memory.available <= memory.total
    assert memory.committable > 0


def test_the_most_ram_of_this_process_is_no_less_than_it_has_now():
    before = psutil.Process().memory_info().rss
    filled = bytearray(b"x" * 50_000_000)
    assert before <= peak_process_bytes() < read_ram().total
    assert peak_process_bytes() >= len(filled)


@pytest.mark.usefixtures("windows")
def test_windows_knows_the_most_ram_of_this_process(monkeypatch):
    memory = SimpleNamespace(peak_wset=3 * GIB)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: memory))
    assert peak_process_bytes() == 3 * GIB
