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
WHOLE_TORCH = ["--no-cache-dir", "torch>=2.10,<3"]
"""The call for PyTorch with what it depends on."""
REST = [*ALL, "torch==X"]
"""The call for everything, with the PyTorch that was chosen nailed down."""
Steps = list[tuple[dict[str, Any], list[list[str]]]]


def torch(index: str | None = CU126, wish: str = "torch>=2.10,<3", *, anew: bool = False) -> list[str]:
    """The call for PyTorch alone."""
    source = [] if index is None else ["--index-url", index]
    return ["--no-deps", "--no-cache-dir", *(["--force-reinstall"] if anew else []), *source, wish]


def triton(version: str) -> list[str]:
    """The call for the Triton that fits PyTorch."""
    return ["--no-deps", "--retries", "1", "--timeout", "10", f"triton-windows=={version}"]


class Computer:
    """A machine with a virtual environment, GPUs, and a pip that records its arguments."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.text = FILE
        self.constraints = ""
        self.build = "2.13.0"
        self.calls: list[list[str]] = []
        self.variables: dict[str, str] = {}
        self.seen: list[Mapping[str, str]] = []
        self.windows = True
        self.gpus: tuple[Gpu, ...] | None = (RTX_3060,)
        self.torch: str | None = None
        self.triton: str | None = "3.7.1.post27"
        self.fails: tuple[str, ...] = ()
        self.works = True
        self.killed = False
        self.asked = 0

    def start(self, **state: Any) -> bool:
        """One start in another state; the calls of pip are those of this start."""
        vars(self).update(state, calls=[], seen=[])
        requirements = self.folder / "requirements.txt"
        requirements.write_bytes(self.text.encode())
        if self.constraints:
            (self.folder / "constraints.txt").write_text(self.constraints)
        machine = Machine(
            environment=self.folder,
            variables=dict(self.variables),
            windows=self.windows,
            gpus=self._ask,
            torch=lambda: self.torch,
            triton=lambda: self.triton,
            pip=self._pip,
        )
        return install_once("app", requirements, machine)

    def _ask(self) -> tuple[Gpu, ...] | None:
        self.asked += 1
        return self.gpus

    def _pip(self, arguments: list[str], variables: Mapping[str, str]) -> int:
        values = {
            str(self.folder / "requirements.txt"): "requirements.txt",
            str(self.folder / "constraints.txt"): "constraints.txt",
            f"torch=={self.torch}": "torch==X",
        }
        self.calls.append([values.get(argument, argument) for argument in arguments])
        self.seen.append(variables)
        if self.killed and arguments[0] == "-r":
            raise KeyboardInterrupt
        if not self.works or any(argument.startswith(self.fails) for argument in arguments if self.fails):
            return 1
        if arguments[-1].startswith("triton-windows=="):
            self.triton = arguments[-1].removeprefix("triton-windows==")
            return 0
        if "--index-url" in arguments:
            tag = arguments[arguments.index("--index-url") + 1].rpartition("/")[2]
            self.torch = f"{self.build}+{tag}"
        elif "--no-cache-dir" in arguments or (arguments[0] == "-r" and self.torch is None):
            self.torch = self.build
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
LIMITS = ["-c", "constraints.txt"]
LIMITED = {"constraints": "torch<=2.14.1\nnumpy==2.4.6\n"}
NO_TRITON = {"triton": None}
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
    "linux_without_a_gpu_installs_everything_from_pypi": [
        (LINUX | {"gpus": ()}, [WHOLE_TORCH, ALL]),
        ({}, []),
    ],
    "linux_with_a_new_driver_installs_everything_from_pypi": [
        (LINUX | {"gpus": (Gpu("RTX 3060", (580, 95), (8, 6)),)}, [WHOLE_TORCH, ALL])
    ],
    "linux_with_an_old_driver_installs_an_older_cuda": [(LINUX, [PIP, torch(), REST])],
    "linux_keeps_an_installed_pytorch": [(LINUX | {"torch": "2.13.0+cpu"}, [ALL])],
    "triton_comes_last_and_again_with_another_pytorch": [
        (NO_TRITON, [PIP, torch(), REST, triton("3.7.1.post27")]),
        ({}, []),
        ({"torch": "2.14.1+cu126"}, [triton("3.8.0.post29")]),
        ({"torch": "2.12.0+cu126"}, [triton("3.7.0.post26")]),
        ({"torch": "2.11.0+cu126"}, [triton("3.6.0.post26")]),
        ({"torch": "2.15.0+cu126"}, []),
        ({"torch": "2.13.0", "gpus": ()}, []),
    ],
    "a_gpu_that_triton_does_not_know_gets_none": [
        (NO_TRITON | {"gpus": (Gpu("RTX 2060", (560, 94), (7, 5)),)}, [PIP, torch(), REST]),
        ({"gpus": (Gpu("RTX 2060", (560, 94), None),)}, []),
        ({"gpus": None}, []),
    ],
    "linux_gets_triton_with_pytorch": [(LINUX | NO_TRITON, [PIP, torch(), REST])],
    "a_triton_that_cannot_be_had_is_no_failure": [
        (NO_TRITON | {"fails": ("triton",)}, [PIP, torch(), REST, triton("3.7.1.post27")]),
        ({}, [triton("3.7.1.post27")]),
        ({"fails": ()}, [triton("3.7.1.post27")]),
        ({}, []),
    ],
    "the_tried_versions_are_installed": [
        (LIMITED, [PIP, [*torch(), *LIMITS], [*REST, *LIMITS]]),
        ({}, []),
        (
            {"constraints": "torch<=2.14.1\nnumpy==2.5.0\n"},
            [PIP, [*torch(), *LIMITS], [*REST, *LIMITS]],
        ),
    ],
    "versions_that_pip_cannot_follow_are_left_once": [
        (
            LIMITED | LINUX | {"gpus": (), "fails": ("-c",)},
            [[*WHOLE_TORCH, *LIMITS], WHOLE_TORCH, [*ALL, *LIMITS], ALL],
        ),
        ({}, []),
    ],
    "the_users_pytorch_is_not_limited": [
        (LIMITED | CHOICE, [PIP, torch(CU128, "torch==2.10.0"), [*REST, *LIMITS]]),
    ],
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
    assert "RTX 3060, driver 560.94. Installing PyTorch for CUDA 12.6" in said()
    computer.start()
    assert said() == ""


def test_an_installation_that_failed_is_repeated(computer):
    assert not computer.start(works=False, **LINUX, gpus=())
    assert computer.calls == [WHOLE_TORCH]
    computer.windows, computer.gpus = True, (RTX_3060,)
    assert not computer.start(works=False)
    assert not computer.start()
    assert computer.start(works=True)
    assert computer.calls[-1] == REST


def test_what_could_not_be_followed_is_said(computer, said):
    computer.start(**LIMITED, fails=("-c",))
    assert "The tested versions could not be installed" in said()
    assert not computer.start(works=False, text=FILE + "tqdm\n")
    computer.start(works=True, fails=("triton",), triton=None)
    assert "Triton could not be installed" in said()


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
    assert "The next start tries again" in said()


@pytest.mark.parametrize(
    ("gpus", "sentence"),
    [
        ((), "No NVIDIA GPU was found"),
        (None, "NVIDIA's driver does not respond"),
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
