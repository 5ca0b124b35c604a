"""The packages that pip is asked to install, and when. pip itself is replaced."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.install_once import Machine, install_once
from scripts.torch_build import Gpu

RTX_3060 = Gpu("RTX 3060", (560, 94), (8, 6))
RTX_5070 = Gpu("RTX 5070", (590, 10), (12, 0))
FILE = "# Tensors.\ntorch>=2.10,<3\ntorch-extra>=1\nnumpy>=2,<3\n"
CU126 = "https://download.pytorch.org/whl/cu126"
CU128 = "https://download.pytorch.org/whl/cu128"
CU130 = "https://download.pytorch.org/whl/cu130"
MIRROR = "https://mirror.example.com/whl/cu128"
PIP = ["--upgrade", "pip"]
ALL = ["-r", "requirements.txt"]
"""The call for everything."""
REST = [*ALL, "torch==X"]
"""The call for everything, with the PyTorch that was chosen nailed down."""
Steps = list[tuple[dict[str, Any], list[list[str]]]]


def torch(index: str | None = CU126, wish: str = "torch>=2.10,<3", *, anew: bool = False) -> list[str]:
    """The call for PyTorch alone."""
    source = [] if index is None else ["--index-url", index]
    return ["--no-deps", *(["--force-reinstall"] if anew else []), *source, wish]


class Computer:
    """A machine with a virtual environment, GPUs, and a pip that records its arguments."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.text = FILE
        self.calls: list[list[str]] = []
        self.variables: dict[str, str] = {}
        self.seen: list[Mapping[str, str]] = []
        self.windows = True
        self.gpus: tuple[Gpu, ...] | None = (RTX_3060,)
        self.torch: str | None = None
        self.works = True
        self.killed = False
        self.asked = 0

    def start(self, **state: Any) -> bool:
        """One start in another state; the calls of pip are those of this start."""
        vars(self).update(state, calls=[], seen=[])
        requirements = self.folder / "requirements.txt"
        requirements.write_bytes(self.text.encode())
        machine = Machine(
            environment=self.folder,
            variables=dict(self.variables),
            windows=self.windows,
            gpus=self._ask,
            torch=lambda: self.torch,
            pip=self._pip,
        )
        return install_once("app", requirements, machine)

    def _ask(self) -> tuple[Gpu, ...] | None:
        self.asked += 1
        return self.gpus

    def _pip(self, arguments: list[str], variables: Mapping[str, str]) -> int:
        values = {
            str(self.folder / "requirements.txt"): "requirements.txt",
            f"torch=={self.torch}": "torch==X",
        }
        self.calls.append([values.get(argument, argument) for argument in arguments])
        self.seen.append(variables)
        if self.killed and arguments[0] == "-r":
            raise KeyboardInterrupt
        if not self.works:
            return 1
        if "--index-url" in arguments:
            tag = arguments[arguments.index("--index-url") + 1].rpartition("/")[2]
            self.torch = f"2.13.0+{tag}"
        elif "--no-deps" in arguments or (arguments[0] == "-r" and self.torch is None):
            self.torch = "2.13.0"
        return 0


@pytest.fixture
def computer(tmp_path) -> Computer:
    return Computer(tmp_path)


@pytest.fixture
def said(capsys) -> Callable[[], str]:
    """The output since the last call."""
    return lambda: capsys.readouterr().out


WINDOWS: Steps = [({}, [PIP, torch(), REST])]
NO_GPU: Steps = [({"gpus": ()}, [torch(None), REST]), ({}, [])]
LINUX = {"windows": False}
CHOICE = {"variables": {"TORCH_INDEX": "cu128", "TORCH_VERSION": "2.10.0"}}
SCENARIOS: dict[str, Steps] = {
    "windows_installs_pytorch_for_the_gpu_then_the_rest_once": [*WINDOWS, ({}, [])],
    "changed_requirements_are_installed_again": [
        *WINDOWS,
        ({"text": FILE.replace("2.10", "2.13")}, [PIP, torch(wish="torch>=2.13,<3"), REST]),
    ],
    "line_endings_do_not_count_as_a_change": [*WINDOWS, ({"text": FILE.replace("\n", "\r\n")}, [])],
    "a_gpu_newer_than_the_build_gets_its_own": [
        *WINDOWS,
        ({"gpus": (RTX_5070,)}, [PIP, torch(CU130, anew=True), REST]),
    ],
    "a_newer_driver_changes_nothing": [*WINDOWS, ({"gpus": (Gpu("RTX 3060", (590, 10), (8, 6)),)}, [])],
    "a_driver_that_came_later_brings_the_cuda_build": [
        *NO_GPU,
        ({"gpus": (RTX_3060,)}, [PIP, torch(anew=True), REST]),
    ],
    "the_users_choice_comes_before_the_gpus": [
        (CHOICE, [PIP, torch(CU128, "torch==2.10.0"), REST]),
        ({"gpus": (RTX_5070,)}, []),
    ],
    "a_changed_choice_is_installed_at_the_next_start": [
        *WINDOWS,
        ({"variables": {"TORCH_INDEX": MIRROR}}, [PIP, torch(MIRROR, anew=True), REST]),
        ({"variables": {"TORCH_INDEX": "pypi"}}, [torch(None, anew=True), REST]),
    ],
    "linux_without_a_gpu_installs_everything_from_pypi": [(LINUX | {"gpus": ()}, [ALL])],
    "linux_with_a_new_driver_installs_everything_from_pypi": [
        (LINUX | {"gpus": (Gpu("RTX 3060", (580, 95), (8, 6)),)}, [ALL])
    ],
    "linux_with_an_old_driver_installs_an_older_cuda": [(LINUX, [PIP, torch(), REST])],
    "linux_keeps_an_installed_pytorch": [(LINUX | {"torch": "2.13.0+cpu"}, [ALL])],
    "a_version_without_an_index_is_installed_on_linux_too": [
        (
            LINUX | {"gpus": (), "variables": {"TORCH_VERSION": "2.12.0"}},
            [torch(None, "torch==2.12.0"), REST],
        )
    ],
}


@pytest.mark.parametrize("steps", SCENARIOS.values(), ids=SCENARIOS)
def test_each_start_calls_pip_for_what_changed(computer, steps):
    for state, calls in steps:
        assert computer.start(**state)
        assert computer.calls == calls


def test_the_choice_is_printed_once(computer, said):
    computer.start()
    assert "RTX 3060, driver 560.94. Taking PyTorch for CUDA 12.6" in said()
    computer.start()
    assert said() == ""


def test_an_installation_that_failed_is_repeated(computer):
    assert not computer.start(works=False)
    assert not computer.start()
    assert computer.start(works=True)
    assert computer.calls[-1] == REST


def test_an_installation_that_was_killed_is_repeated(computer):
    computer.start()
    with pytest.raises(KeyboardInterrupt):
        computer.start(text=FILE + "tqdm\n", killed=True)
    assert computer.start(text=FILE, killed=False)  # as before; what was killed has left a part, though
    assert computer.calls[-1] == REST


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"12345 678\n"])
def test_a_damaged_record_of_the_installation_repeats_it(computer, damage):
    computer.start()
    (computer.folder / "installed-app").write_bytes(damage)
    assert computer.start()
    assert computer.calls[-1] == REST


def test_without_network_a_new_gpu_starts_the_old_build(computer, said):
    computer.start()
    assert computer.start(gpus=(RTX_5070,), works=False)
    assert computer.torch == "2.13.0+cu126"
    assert "the next start tries again" in said()


@pytest.mark.parametrize(
    ("gpus", "sentence"),
    [
        ((), "No NVIDIA card was found"),
        (None, "NVIDIA's driver does not answer"),
        ((Gpu("GTX 1060", (560, 94), (6, 1)),), "GTX 1060 is too old"),
        ((Gpu("RTX 3060", (512, 15), (8, 6)),), "Update the driver to 580 or newer"),
    ],
)
def test_the_reason_against_a_gpu_is_printed_in_both_languages(computer, gpus, sentence, said):
    assert computer.start(gpus=gpus)
    text = said()
    assert sentence in text
    assert "とても遅くなります" in text


def test_pytorchs_index_is_the_only_one_queried(computer):
    mirror = {"PIP_EXTRA_INDEX_URL": "https://mirror"}
    computer.start(variables=mirror | {"HTTPS_PROXY": "http://proxy", "PIP_USER": "1"})
    pip, torch, rest = computer.seen
    assert "PIP_EXTRA_INDEX_URL" not in torch
    assert pip["PIP_EXTRA_INDEX_URL"] == rest["PIP_EXTRA_INDEX_URL"] == "https://mirror"
    assert all(variables["HTTPS_PROXY"] == "http://proxy" for variables in computer.seen)
    assert all("PIP_USER" not in variables for variables in computer.seen)


@pytest.mark.parametrize(("state", "asked"), [({}, 1), ({"text": "pytest\ntorchvision>=0.1\n"}, 0)])
def test_linux_queries_the_gpu_once_and_only_for_pytorch(computer, state, asked):
    for _ in range(2):
        assert computer.start(windows=False, **state)
        assert computer.asked == asked
