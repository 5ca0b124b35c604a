"""The GPU that CUDA would choose, and one without a driver."""

import ctypes
import struct
import sys
from types import SimpleNamespace

import pytest

from scripts.torch_build import parse_gpus
from webui.eichi_utils.machine import gpu as machine_gpu
from webui.eichi_utils.machine.gpu import find_gpu, has_nvidia_hardware

THREE = """NVIDIA GeForce RTX 2080 Ti, 560.94, 22528, 22000, 7.5
NVIDIA GeForce RTX 4060, 560.94, 8188, 7000, 8.9
NVIDIA GeForce RTX 4060 Ti, 560.94, 16380, 15000, 8.9
"""


@pytest.mark.parametrize(
    ("gpus", "name"), [(parse_gpus(THREE), "NVIDIA GeForce RTX 4060 Ti"), ((), None), (None, None)]
)
def test_the_newest_gpu_with_the_most_memory_is_found(monkeypatch, gpus, name):
    monkeypatch.setattr(machine_gpu, "query_gpus", lambda: gpus)
    found = find_gpu()
    assert (found and found.name) == name


@pytest.mark.skipif(sys.platform == "win32", reason="reads Linux' list of devices")
@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [("0x10de", "0x030000", True), ("0x10de", "0x040300", False), ("0x1002", "0x030000", False)],
)
def test_linux_lists_a_gpu_without_a_driver(tmp_path, vendor, kind, found):
    (tmp_path / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "class").write_text(f"{kind}\n")
    assert machine_gpu._is_nvidia_display(tmp_path) is found
    assert not machine_gpu._is_nvidia_display(tmp_path / "gone")


@pytest.mark.parametrize(
    ("identities", "found"),
    [
        (["PCI\\VEN_8086&DEV_3E92", "PCI\\ven_10de&dev_2504"], True),
        (["PCI\\VEN_1002&DEV_73FF"], False),
        (["PCI\\VEN_8086&DEV_3E92"] * 100, False),
        ([], False),
    ],
)
def test_windows_lists_a_gpu_without_a_driver(monkeypatch, identities, found):
    def list_device(_parent, number, device, _flags):
        assert struct.unpack_from("I", device) == (840,) == (len(device),)
        if number >= len(identities):
            return False
        device[328 : 328 + 2 * len(identities[number])] = identities[number].encode("utf-16-le")
        return True

    user32 = SimpleNamespace(EnumDisplayDevicesW=list_device)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(user32=user32), raising=False)
    assert has_nvidia_hardware() is found
