"""A GPU is found without its driver."""

import ctypes
import struct
import sys
from types import SimpleNamespace

import pytest

from webui.eichi_utils.machine.gpu import has_nvidia_hardware


@pytest.mark.skipif(sys.platform == "win32", reason="reads Linux' list of devices")
@pytest.mark.parametrize(
    ("identity", "found"),
    [
        ("pci:v000010DEd00002504sv00001462sd0000397Dbc03sc00i00\n", True),
        ("pci:v000010DEd0000228Esv00001462sd0000397Dbc04sc03i00\n", False),
        ("pci:v00001002d000073FFsv00001462sd0000397Dbc03sc00i00\n", False),
    ],
)
def test_linux_lists_a_gpu_without_a_driver(tmp_path, identity, found):
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "modalias").write_text(identity)
    assert has_nvidia_hardware(tmp_path) is found


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
