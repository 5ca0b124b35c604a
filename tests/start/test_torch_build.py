"""The build of PyTorch for a GPU and its driver, and how nvidia-smi is read."""

import stat
import sys

import pytest

from scripts.torch_build import (
    PYPI,
    Choice,
    Gpu,
    build_for,
    choose,
    oldest_driver,
    parse_gpus,
    query_gpus,
    still_fits,
)

MIB = 2**20


def gpu(name: str, capability: str | None, driver: str) -> Gpu:
    text = f"{name}, {driver}, 12288, 11011" + (f", {capability}" if capability else "")
    return parse_gpus(text)[0]


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
def test_windows_takes_the_build_for_the_gpu_and_its_driver(name, capability, driver, tag):
    found = gpu(name, capability, driver)
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
def test_a_driver_that_is_too_old_is_named_with_the_needed_one(capability, driver, needed):
    found = gpu("RTX", capability, driver)
    assert choose((found,), windows=True) == Choice(PYPI, "driver_too_old", found, needed)


def test_a_gpu_below_the_engines_limit_gets_the_cpu():
    found = gpu("NVIDIA GeForce GTX 1060", "6.1", "581.29")
    assert choose((found,), windows=True) == Choice(PYPI, "card_too_old", found)


@pytest.mark.parametrize(("gpus", "reason"), [((), "no_card"), (None, "no_answer")])
def test_without_a_gpu_pypi_decides(gpus, reason):
    assert choose(gpus, windows=True) == choose(gpus, windows=False) == Choice(PYPI, reason)


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
def test_linux_leaves_pypi_only_for_an_old_driver_or_gpu(capability, driver, tag):
    found = gpu("a GPU", capability, driver)
    assert choose((found,), windows=False) == Choice(tag, "fits", found)


def test_the_best_of_several_gpus_decides():
    old, new = gpu("GTX 1060", "6.1", "560.94"), gpu("RTX 3090", "8.6", "560.94")
    assert choose((old, new), windows=True).gpu == new


@pytest.mark.parametrize(
    ("installed", "capability", "driver", "fits"),
    [
        ("2.13.0+cu126", "8.6", "590.10", True),  # another would be chosen today, but this one runs
        ("2.11.0+cu128", "8.6", "576.80", True),
        ("2.15.0+cu132", "12.0", "590.10", True),
        ("2.13.0+cu130", "8.6", "576.80", False),  # the driver went back
        ("2.13.0+cu126", "12.0", "590.10", False),  # a new GPU
        ("2.13.0+cu121", "8.6", "590.10", False),
        ("2.13.0", "8.6", "590.10", False),  # PyPI's, for the CPU
        ("2.13.0+cpu", "8.6", "590.10", False),
        (None, "8.6", "590.10", False),
    ],
)
def test_installed_pytorch_stays_while_it_runs_on_the_gpu(installed, capability, driver, fits):
    choice = choose((gpu("RTX", capability, driver),), windows=True)
    assert still_fits(installed, choice) is fits


@pytest.mark.parametrize("gpus", [(), None, (Gpu("RTX 3060", (470, 0), None),)])
def test_installed_pytorch_stays_without_a_usable_gpu(gpus):
    assert still_fits("2.13.0+cu130", choose(gpus, windows=True))
    assert not still_fits(None, choose(gpus, windows=True))


@pytest.mark.parametrize(
    ("cuda", "tag"),
    [((12, 1), None), ((12, 6), "cu126"), ((12, 9), "cu128"), ((13, 0), "cu130"), ((15, 2), "cu130")],
)
def test_a_cuda_version_has_the_kernels_of_one_build(cuda, tag):
    build = build_for(cuda)
    assert (build and build.tag) == tag


@pytest.mark.parametrize(
    ("cuda", "windows", "linux"),
    [
        ((11, 8), None, None),
        ((12, 8), (528, 33), (525, 60)),
        ((13, 2), (580, 0), (580, 65)),
        ((15, 0), None, None),
    ],
)
def test_the_oldest_driver_depends_on_cudas_major_version(cuda, windows, linux):
    assert (oldest_driver(cuda, windows=True), oldest_driver(cuda, windows=False)) == (windows, linux)


def test_the_output_of_nvidia_smi_is_parsed():
    good = "NVIDIA GeForce RTX 3060, 560.94, 12288, 11011, 8.6\n", "Tesla T4, 535.183.01, [N/A], [N/A], 7.5\n"
    bad = "Name, with comma\n\nX, [N/A], [N/A], 1, 1\nNo devices were found\n"
    assert parse_gpus(good[0] + bad + good[1]) == (
        Gpu("NVIDIA GeForce RTX 3060", (560, 94), (8, 6), 12288 * MIB, 11011 * MIB),
        Gpu("Tesla T4", (535, 183), (7, 5)),
    )
    assert parse_gpus("RTX 2070, 441.08, 8192, 8000, [N/A]")[0].capability is None


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
def test_gpus_are_queried_with_their_compute_capability(nvidia_smi, tmp_path):
    program = nvidia_smi("echo 'RTX 3060, 560.94, 12288, 11011, 8.6'")
    assert query_gpus(program) == (Gpu("RTX 3060", (560, 94), (8, 6), 12288 * MIB, 11011 * MIB),)
    fields = "name,driver_version,memory.total,memory.free,compute_cap"
    asked = f"--query-gpu={fields} --format=csv,noheader,nounits\n"
    assert (tmp_path / "log").read_text() == asked


@needs_sh
def test_an_old_driver_is_queried_again_without_it(nvidia_smi):
    old = nvidia_smi("case $1 in *compute_cap*) exit 2;; esac; echo 'RTX 2060, 441.08, 6144, 6000'")
    assert query_gpus(old) == (Gpu("RTX 2060", (441, 8), None, 6144 * MIB, 6000 * MIB),)


@needs_sh
@pytest.mark.parametrize("script", ["echo 'It has failed' >&2; exit 9", "echo 'No devices were found'"])
def test_a_driver_that_fails_gives_none(nvidia_smi, script):
    assert query_gpus(nvidia_smi(script)) is None


def test_a_program_that_cannot_be_run_gives_none(tmp_path):
    assert query_gpus(str(tmp_path / "missing")) is None


def test_without_nvidia_smi_there_are_no_gpus(monkeypatch, tmp_path):
    for name in ("PATH", "SYSTEMROOT", "PROGRAMFILES"):
        monkeypatch.setenv(name, str(tmp_path))
    assert query_gpus() == ()
