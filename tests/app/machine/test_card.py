"""What the driver's tool answers, and what becomes of it."""

import subprocess
import sys

import pytest

from webui.eichi_utils.machine import card as machine_card
from webui.eichi_utils.machine.card import find_card, parse_cards
from webui.eichi_utils.machine.facts import CardFacts

MIB = 2**20
RTX_3060 = "NVIDIA GeForce RTX 3060, 560.94, 12288, 11011, 8.6\n"


def test_a_card_is_read_with_its_generation_memory_and_driver():
    (card,) = parse_cards(RTX_3060)
    assert card == CardFacts("NVIDIA GeForce RTX 3060", (8, 6), 12288 * MIB, 11011 * MIB, (560, 94))


def test_what_the_tool_does_not_know_is_none():
    (card,) = parse_cards("NVIDIA H100 MIG 1g.10gb, 580.65.06, [N/A], [Insufficient Permissions], [N/A]\n")
    assert (card.memory, card.free, card.capability, card.driver) == (None, None, None, (580, 65, 6))


def test_lines_that_are_no_cards_are_left_out():
    assert parse_cards("\nNo devices were found\n") == []


def test_of_several_cards_it_is_the_newest_with_the_most_memory():
    text = (
        "NVIDIA GeForce RTX 2080 Ti, 560.94, 22528, 22000, 7.5\n"
        "NVIDIA GeForce RTX 4060, 560.94, 8188, 7000, 8.9\n"
        "NVIDIA GeForce RTX 4060 Ti, 560.94, 16380, 15000, 8.9\n"
    )
    found = find_card(lambda _: text)
    assert found is not None
    assert found.name == "NVIDIA GeForce RTX 4060 Ti"


def test_a_driver_that_does_not_know_the_generation_is_asked_without_it():
    def run(command):
        if "compute_cap" in command[1]:
            raise subprocess.CalledProcessError(2, command)
        return "NVIDIA GeForce RTX 2070, 470.14, 8192, 7800\n"

    card = find_card(run)
    assert card is not None
    assert (card.capability, card.driver) == ((7, 5), (470, 14))


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA GeForce RTX 5070 Ti Laptop GPU", (12, 0)),
        ("NVIDIA GeForce RTX 4090", (8, 9)),
        ("NVIDIA GeForce RTX 3050", (8, 6)),
        ("NVIDIA GeForce GTX 1660 SUPER", (7, 5)),
        ("NVIDIA GeForce GTX 1070", (6, 1)),
        ("Quadro 4000", None),
    ],
)
def test_the_name_of_a_card_tells_its_generation(name, capability):
    assert machine_card.capability_of(name) == capability


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("nvidia-smi"),
        PermissionError("nvidia-smi"),
        subprocess.CalledProcessError(9, "nvidia-smi"),
        subprocess.TimeoutExpired("nvidia-smi", 20),
    ],
)
def test_without_an_answer_there_is_no_card(error):
    def run(_command):
        raise error

    assert find_card(run) is None


def test_a_real_program_is_run_and_read():
    assert machine_card.run_tool([sys.executable, "-c", "print('RTX')"]).split() == ["RTX"]
    with pytest.raises(subprocess.CalledProcessError):
        machine_card.run_tool([sys.executable, "-c", "raise SystemExit(9)"])


@pytest.mark.skipif(sys.platform == "win32", reason="reads Linux' list of devices")
@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [("0x10de", "0x030000", True), ("0x10de", "0x040300", False), ("0x1002", "0x030000", False)],
)
def test_a_card_without_a_driver_is_found_among_the_devices(tmp_path, vendor, kind, found):
    (tmp_path / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "class").write_text(f"{kind}\n")
    assert machine_card._is_nvidia_display(tmp_path) is found
    assert not machine_card._is_nvidia_display(tmp_path / "gone")


def test_windows_structure_has_the_size_that_windows_checks():
    assert machine_card.ctypes.sizeof(machine_card._DisplayDevice) == (
        840 if sys.platform == "win32" else 1672
    )
