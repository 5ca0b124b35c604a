"""The build of PyTorch for a GPU and its driver, and how nvidia-smi is read."""

import os
import sys
from unittest.mock import Mock

import pytest

from scripts.torch_build import (
    PYPI,
    Choice,
    Gpu,
    build_for,
    choose,
    find_dlls,
    oldest_driver,
    parse_gpus,
    query_gpus,
    still_fits,
)

MIB = 2**20
NEWEST, OLD = (580, 0), (528, 33)
"""Windows drivers that are named where a newer one is needed."""


def gpu(capability: str | None, driver: str, name: str = "RTX") -> Gpu:
    text = f"{name}, {driver}, 12288, 11011" + (f", {capability}" if capability else "")
    return parse_gpus(text)[0]


@pytest.mark.parametrize(
    ("windows", "capability", "driver", "tag", "reason"),
    [
        (True, "7.5", "580.88", "cu130", ["fits"]),
        (True, "7.5", "576.80", "cu126", ["fits"]),
        (True, "8.6", "528.33", "cu126", ["fits"]),
        (True, "8.6", "600.10", "cu130", ["fits"]),
        (True, "12.0", "570.65", "cu128", ["fits"]),
        (True, "12.0", "580.88", "cu130", ["fits"]),
        (True, "7.0", "580.88", "cu126", ["fits"]),
        (True, "13.0", "650.00", "cu130", ["fits"]),
        (True, "8.6", "527.56", PYPI, ["driver_too_old", NEWEST]),
        (True, "12.0", "566.36", PYPI, ["driver_too_old", NEWEST]),
        (True, "7.0", "472.12", PYPI, ["driver_too_old", OLD]),
        (True, None, "471.96", PYPI, ["driver_too_old", NEWEST]),  # too old to know the question
        (True, "6.1", "581.29", PYPI, ["card_too_old"]),  # below the engine's limit
        # Linux leaves PyPI only for an old driver or GPU.
        (False, "8.6", "580.65.06", PYPI, ["fits"]),
        (False, "8.6", "580.20.01", "cu126", ["fits"]),
        (False, "8.9", "535.183.01", "cu126", ["fits"]),
        (False, "12.0", "570.86.10", "cu128", ["fits"]),
        (False, "7.0", "580.95.05", "cu126", ["fits"]),
    ],
)
def test_the_build_is_for_the_gpu_and_its_driver(windows, capability, driver, tag, reason):
    found, (code, *needed) = gpu(capability, driver), reason
    assert choose((found,), windows=windows) == Choice(tag, code, found, *needed)


@pytest.mark.parametrize(("gpus", "reason"), [((), "no_card"), (None, "no_answer")])
def test_without_a_gpu_pypi_decides(gpus, reason):
    assert choose(gpus, windows=True) == choose(gpus, windows=False) == Choice(PYPI, reason)


def test_the_best_of_several_gpus_decides():
    old, new = gpu("6.1", "560.94"), gpu("8.6", "560.94")
    assert choose((old, new), windows=True).gpu == new


@pytest.mark.parametrize(
    ("installed", "gpus", "fits"),
    [
        ("2.13.0+cu126", [gpu("8.6", "590.10")], True),  # another would be chosen today, but this one runs
        ("2.11.0+cu128", [gpu("8.6", "576.80")], True),
        ("2.15.0+cu132", [gpu("12.0", "590.10")], True),
        ("2.13.0+cu130", [gpu("8.6", "576.80")], False),  # the driver went back
        ("2.13.0+cu126", [gpu("12.0", "590.10")], False),  # a new GPU
        ("2.13.0+cu121", [gpu("8.6", "590.10")], False),
        ("2.13.0", [gpu("8.6", "590.10")], False),  # PyPI's, for the CPU
        ("2.13.0+cpu", [gpu("8.6", "590.10")], False),
        (None, [gpu("8.6", "590.10")], False),
        # Without a GPU that can be used, what is installed stays.
        *(("2.13.0+cu130", gpus, True) for gpus in ([], None, [gpu(None, "470.0")])),
        *((None, gpus, False) for gpus in ([], None, [gpu(None, "470.0")])),
    ],
)
def test_installed_pytorch_stays_while_it_runs_on_the_gpu(installed, gpus, fits):
    choice = choose(gpus if gpus is None else tuple(gpus), windows=True)
    assert still_fits(installed, choice) is fits


@pytest.mark.parametrize(
    ("cuda", "tag", "windows", "linux"),
    [
        ((11, 8), "cu126", None, None),
        ((12, 1), "cu126", (528, 33), (525, 60)),
        ((12, 6), "cu126", (528, 33), (525, 60)),
        ((12, 9), "cu128", (528, 33), (525, 60)),
        ((13, 0), "cu130", (580, 0), (580, 65)),
        ((13, 2), "cu130", (580, 0), (580, 65)),
        ((15, 2), "cu130", None, None),
    ],
)
def test_a_cuda_version_has_the_kernels_of_one_build_and_an_oldest_driver(cuda, tag, windows, linux):
    assert build_for(cuda).tag == tag
    assert (oldest_driver(cuda, windows=True), oldest_driver(cuda, windows=False)) == (windows, linux)


def test_the_output_of_nvidia_smi_is_parsed():
    good = "NVIDIA GeForce RTX 3060, 560.94, 12288, 11011, 8.6\n", "Tesla T4, 535.183.01, [N/A], [N/A], 7.5\n"
    bad = "Name, with comma\n\nX, [N/A], [N/A], 1, 1\nNo devices were found\n"
    assert parse_gpus(good[0] + bad + good[1]) == (
        Gpu("NVIDIA GeForce RTX 3060", (560, 94), (8, 6), 12288 * MIB, 11011 * MIB),
        Gpu("Tesla T4", (535, 183, 1), (7, 5)),
    )
    assert parse_gpus("RTX 2070, 441.08, 8192, 8000, [N/A]")[0].capability is None


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "num_queries", "gpus"),
    [
        (
            "echo 'RTX 3060, 560.94, 12288, 11011, 8.6'",
            1,
            (Gpu("RTX 3060", (560, 94), (8, 6), 12288 * MIB, 11011 * MIB),),
        ),
        (  # an old driver does not know the compute capability
            "case $1 in *compute_cap*) exit 2;; esac; echo 'RTX 2060, 441.08, 6144, 6000'",
            2,
            (Gpu("RTX 2060", (441, 8), None, 6144 * MIB, 6000 * MIB),),
        ),
        ("echo 'It has failed' >&2; exit 9", 2, None),
        ("echo 'No devices were found'", 1, None),
    ],
)
def test_gpus_are_queried_first_with_their_compute_capability(tmp_path, script, num_queries, gpus):
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/log"\n{script}\n')
    program.chmod(0o755)
    assert query_gpus(str(program)) == gpus
    fields = "name,driver_version,memory.total,memory.free,compute_cap"
    asked = (tmp_path / "log").read_text().splitlines()
    assert asked[0] == f"--query-gpu={fields} --format=csv,noheader,nounits"
    assert len(asked) == num_queries


def test_there_are_no_gpus_without_nvidia_smi_and_no_answer_where_it_cannot_be_run(monkeypatch, tmp_path):
    assert query_gpus(str(tmp_path / "missing")) is None
    for name in ("PATH", "SYSTEMROOT", "PROGRAMFILES"):
        monkeypatch.setenv(name, str(tmp_path))
    assert query_gpus() == ()


@pytest.mark.usefixtures("windows")
def test_torch_finds_the_runtime_that_pip_installs(monkeypatch):
    monkeypatch.setattr(os, "add_dll_directory", add := Mock(), raising=False)
    find_dlls()
    add.assert_called_once_with(sys.prefix)
