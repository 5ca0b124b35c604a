"""Card and driver in, build of PyTorch out."""

import stat
import sys

import pytest

from scripts.torch_build import PYPI, Card, Choice, ask_cards, choose, parse_cards, still_fits


def card(name: str, capability: str | None, driver: str) -> Card:
    text = f"{name}, {driver}" + (f", {capability}" if capability else "")
    return parse_cards(text)[0]


WINDOWS = [
    # name, compute capability, driver, build
    ("GTX 1660", "7.5", "560.94", "cu126"),
    ("RTX 2060", "7.5", "581.29", "cu130"),
    ("RTX 2060", "7.5", "580.88", "cu130"),
    ("RTX 2060", "7.5", "576.80", "cu126"),
    ("RTX 3060", "8.6", "528.33", "cu126"),
    ("RTX 3060", "8.6", "560.76", "cu126"),
    ("RTX 3060 Ti", "8.6", "600.10", "cu130"),
    ("RTX 4060", "8.9", "572.16", "cu126"),
    ("RTX 4090", "8.9", "591.44", "cu130"),
    ("RTX 5070", "12.0", "570.65", "cu128"),
    ("RTX 5070", "12.0", "576.80", "cu128"),
    ("RTX 5060", "12.0", "580.88", "cu130"),
    ("TITAN V", "7.0", "580.88", "cu126"),
    ("an RTX 60", "13.0", "650.00", "cu130"),
]


@pytest.mark.parametrize(("name", "capability", "driver", "tag"), WINDOWS)
def test_windows_takes_the_build_that_the_card_and_its_driver_run(name, capability, driver, tag):
    found = card(name, capability, driver)
    assert choose((found,), windows=True) == Choice(tag, "fits", found)


@pytest.mark.parametrize(
    ("capability", "driver", "needed"),
    [
        ("8.6", "527.56", (580, 0)),
        ("12.0", "566.36", (580, 0)),
        ("7.0", "472.12", (528, 33)),
        (None, "471.96", (580, 0)),  # so old that it does not know the question
    ],
)
def test_a_driver_that_is_too_old_is_named_with_the_one_it_takes(capability, driver, needed):
    found = card("RTX", capability, driver)
    assert choose((found,), windows=True) == Choice(PYPI, "driver_too_old", found, needed)


def test_a_card_below_the_engines_limit_gets_the_cpu():
    found = card("NVIDIA GeForce GTX 1060", "6.1", "581.29")
    assert choose((found,), windows=True) == Choice(PYPI, "card_too_old", found)


@pytest.mark.parametrize(("cards", "reason"), [((), "no_card"), (None, "no_answer")])
def test_without_a_card_that_answers_pypi_decides(cards, reason):
    assert choose(cards, windows=True) == choose(cards, windows=False) == Choice(PYPI, reason)


@pytest.mark.parametrize(
    ("capability", "driver", "tag"),
    [
        ("8.6", "580.65.06", PYPI),
        ("8.6", "580.20.01", "cu126"),
        ("8.9", "535.183.01", "cu126"),
        ("12.0", "570.86.10", "cu128"),
        ("7.0", "580.95.05", "cu126"),
    ],
)
def test_linux_leaves_pypi_only_for_an_old_driver_or_an_old_card(capability, driver, tag):
    found = card("a card", capability, driver)
    assert choose((found,), windows=False) == Choice(tag, "fits", found)


def test_the_best_of_several_cards_decides():
    old, new = card("GTX 1060", "6.1", "560.94"), card("RTX 3090", "8.6", "560.94")
    assert choose((old, new), windows=True).card == new


@pytest.mark.parametrize(
    ("installed", "capability", "driver", "fits"),
    [
        ("2.13.0+cu126", "8.6", "590.10", True),  # another would be chosen today, but this one runs
        ("2.11.0+cu128", "8.6", "576.80", True),
        ("2.15.0+cu132", "12.0", "590.10", True),
        ("2.13.0+cu130", "8.6", "576.80", False),  # the driver went back
        ("2.13.0+cu126", "12.0", "590.10", False),  # a new card
        ("2.13.0+cu121", "8.6", "590.10", False),
        ("2.13.0", "8.6", "590.10", False),  # PyPI's, for the CPU
        ("2.13.0+cpu", "8.6", "590.10", False),
        (None, "8.6", "590.10", False),
    ],
)
def test_what_is_installed_stays_as_long_as_it_runs_on_the_card(installed, capability, driver, fits):
    choice = choose((card("RTX", capability, driver),), windows=True)
    assert still_fits(installed, choice) is fits


@pytest.mark.parametrize("cards", [(), None, (Card("RTX 3060", (470, 0), None),)])
def test_what_is_installed_stays_where_no_card_can_be_used(cards):
    assert still_fits("2.13.0+cu130", choose(cards, windows=True))
    assert not still_fits(None, choose(cards, windows=True))


def test_the_answer_of_nvidia_smi_is_read():
    good = "NVIDIA GeForce RTX 3060, 560.94, 8.6\n", "Tesla T4, 535.183.01, 7.5\n"
    bad = "Name, with comma\n\nX, [N/A], [N/A]\n"
    assert parse_cards(good[0] + bad + good[1]) == (
        Card("NVIDIA GeForce RTX 3060", (560, 94), (8, 6)),
        Card("Tesla T4", (535, 183), (7, 5)),
    )
    assert parse_cards("RTX 2070, 441.08, [N/A]") == (Card("RTX 2070", (441, 8), None),)


@pytest.fixture
def nvidia_smi(tmp_path):
    """A stand-in that logs its arguments and does as it is told."""

    def make(script: str) -> str:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/log"\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return str(program)

    return make


needs_sh = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")


@needs_sh
def test_cards_are_asked_for_with_their_compute_capability(nvidia_smi, tmp_path):
    assert ask_cards(nvidia_smi("echo 'RTX 3060, 560.94, 8.6'")) == (Card("RTX 3060", (560, 94), (8, 6)),)
    asked = "--query-gpu=name,driver_version,compute_cap --format=csv,noheader\n"
    assert (tmp_path / "log").read_text() == asked


@needs_sh
def test_an_old_driver_is_asked_again_without_it(nvidia_smi):
    old = nvidia_smi("case $1 in *compute_cap*) exit 2;; esac; echo 'RTX 2060, 441.08'")
    assert ask_cards(old) == (Card("RTX 2060", (441, 8), None),)


@needs_sh
@pytest.mark.parametrize("script", ["echo 'It has failed' >&2; exit 9", "echo 'No devices were found'"])
def test_a_driver_that_fails_is_no_answer(nvidia_smi, script):
    assert ask_cards(nvidia_smi(script)) is None


def test_a_program_that_cannot_be_run_is_no_answer(tmp_path):
    assert ask_cards(str(tmp_path / "missing")) is None


def test_without_nvidia_smi_there_is_no_card(monkeypatch, tmp_path):
    for name in ("PATH", "SYSTEMROOT", "PROGRAMFILES"):
        monkeypatch.setenv(name, str(tmp_path))
    assert ask_cards() == ()
