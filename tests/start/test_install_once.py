"""The packages that pip is asked to install, and when. pip itself is replaced."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from scripts.install_once import Machine, install_once
from scripts.torch_build import Gpu

RTX_3060 = Gpu("RTX 3060", (560, 94), (8, 6))
RTX_5070 = Gpu("RTX 5070", (590, 10), (12, 0))
FILE = "# Tensors.\ntorch>=2.10,<3\ntorch-extra>=1\nnumpy>=2,<3\n"
CU126 = "https://download.pytorch.org/whl/cu126"
PIP = ["--upgrade", "pip"]


class Computer:
    """A machine with a virtual environment, GPUs, and a pip that records its arguments."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.requirements = folder / "requirements.txt"
        self.requirements.write_text(FILE)
        self.calls: list[list[str]] = []
        self.variables: dict[str, str] = {}
        self.seen: list[Mapping[str, str]] = []
        self.windows = True
        self.gpus: tuple[Gpu, ...] | None = (RTX_3060,)
        self.torch: str | None = None
        self.works = True
        self.killed = False
        self.asked = 0

    def start(self) -> bool:
        """One start; the calls of pip are those of this start."""
        self.calls.clear()
        self.seen.clear()
        machine = Machine(
            environment=self.folder,
            variables=dict(self.variables),
            windows=self.windows,
            gpus=self._ask,
            torch=lambda: self.torch,
            pip=self._pip,
        )
        return install_once("app", self.requirements, machine)

    def _ask(self) -> tuple[Gpu, ...] | None:
        self.asked += 1
        return self.gpus

    def _pip(self, arguments: list[str], variables: Mapping[str, str]) -> int:
        self.calls.append(arguments)
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

    def rest(self) -> list[str]:
        """The call for everything, with the PyTorch that was chosen nailed down."""
        return ["-r", str(self.requirements), f"torch=={self.torch}"]


@pytest.fixture
def computer(tmp_path) -> Computer:
    return Computer(tmp_path)


@pytest.fixture
def said(capsys) -> Callable[[], str]:
    """The output since the last call."""
    return lambda: capsys.readouterr().out


def test_windows_installs_pytorch_for_the_gpu_then_the_rest(computer, said):
    assert computer.start()
    torch = ["--no-deps", "--index-url", CU126, "torch>=2.10,<3"]
    assert computer.calls == [PIP, torch, computer.rest()]
    assert "RTX 3060, driver 560.94. Taking PyTorch for CUDA 12.6" in said()


def test_a_second_start_installs_and_prints_nothing(computer, said):
    computer.start()
    said()
    assert computer.start()
    assert computer.calls == []
    assert said() == ""


def test_changed_requirements_are_installed_again(computer):
    computer.start()
    computer.requirements.write_text(FILE.replace("2.10", "2.13"))
    assert computer.start()
    torch = ["--no-deps", "--index-url", CU126, "torch>=2.13,<3"]
    assert computer.calls == [PIP, torch, computer.rest()]


def test_line_endings_do_not_count_as_a_change(computer):
    computer.start()
    computer.requirements.write_bytes(FILE.replace("\n", "\r\n").encode())
    assert computer.start()
    assert computer.calls == []


def test_an_installation_that_failed_is_repeated(computer):
    computer.works = False
    assert not computer.start()
    assert not computer.start()
    computer.works = True
    assert computer.start()
    assert computer.calls[-1] == computer.rest()


def test_an_installation_that_was_killed_is_repeated(computer):
    computer.start()
    computer.requirements.write_text(FILE + "tqdm\n")
    computer.killed = True
    with pytest.raises(KeyboardInterrupt):
        computer.start()
    computer.killed = False
    computer.requirements.write_text(FILE)  # as it was before; what was killed has left a part, though
    assert computer.start()
    assert computer.calls[-1] == computer.rest()


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"12345 678\n"])
def test_a_damaged_record_of_the_installation_repeats_it(computer, damage):
    computer.start()
    (computer.folder / "installed-app").write_bytes(damage)
    assert computer.start()
    assert computer.calls[-1] == computer.rest()


def test_a_gpu_newer_than_the_build_gets_its_own(computer):
    computer.start()
    computer.gpus = (RTX_5070,)
    assert computer.start()
    index = "https://download.pytorch.org/whl/cu130"
    torch = ["--no-deps", "--force-reinstall", "--index-url", index, "torch>=2.10,<3"]
    assert computer.calls == [PIP, torch, computer.rest()]


def test_without_network_a_new_gpu_starts_the_old_build(computer, said):
    computer.start()
    computer.gpus, computer.works = (RTX_5070,), False
    assert computer.start()
    assert computer.torch == "2.13.0+cu126"
    assert "the next start tries again" in said()


def test_a_newer_driver_changes_nothing(computer):
    computer.start()
    computer.gpus = (Gpu("RTX 3060", (590, 10), (8, 6)),)
    assert computer.start()
    assert computer.calls == []


def test_a_driver_that_came_later_brings_the_cuda_build(computer, said):
    computer.gpus = ()
    assert computer.start()
    assert computer.calls == [["--no-deps", "torch>=2.10,<3"], computer.rest()]
    assert "No NVIDIA card was found" in said()
    assert computer.start()
    assert computer.calls == []
    computer.gpus = (RTX_3060,)
    assert computer.start()
    assert computer.torch == "2.13.0+cu126"


@pytest.mark.parametrize(
    ("gpus", "sentence"),
    [
        (None, "NVIDIA's driver does not answer"),
        ((Gpu("GTX 1060", (560, 94), (6, 1)),), "GTX 1060 is too old"),
        ((Gpu("RTX 3060", (512, 15), (8, 6)),), "Update the driver to 580 or newer"),
    ],
)
def test_the_reason_against_a_gpu_is_printed_in_both_languages(computer, gpus, sentence, said):
    computer.gpus = gpus
    assert computer.start()
    text = said()
    assert sentence in text
    assert "とても遅くなります" in text


def test_the_users_choice_comes_before_the_gpus(computer):
    computer.variables = {"TORCH_INDEX": "cu128", "TORCH_VERSION": "2.10.0"}
    assert computer.start()
    index = "https://download.pytorch.org/whl/cu128"
    assert computer.calls[1] == ["--no-deps", "--index-url", index, "torch==2.10.0"]
    computer.gpus = (RTX_5070,)
    assert computer.start()
    assert computer.calls == []


def test_a_changed_choice_is_installed_at_the_next_start(computer):
    computer.start()
    computer.variables = {"TORCH_INDEX": "https://mirror.example.com/whl/cu128"}
    assert computer.start()
    source = ["--index-url", "https://mirror.example.com/whl/cu128"]
    assert computer.calls[1] == ["--no-deps", "--force-reinstall", *source, "torch>=2.10,<3"]
    computer.variables = {"TORCH_INDEX": "pypi"}
    assert computer.start()
    assert computer.calls == [["--no-deps", "--force-reinstall", "torch>=2.10,<3"], computer.rest()]


def test_pytorchs_index_is_the_only_one_queried(computer):
    computer.variables = {
        "PIP_EXTRA_INDEX_URL": "https://mirror",
        "HTTPS_PROXY": "http://proxy",
        "PIP_USER": "1",
    }
    computer.start()
    pip, torch, rest = computer.seen
    assert "PIP_EXTRA_INDEX_URL" not in torch
    assert pip["PIP_EXTRA_INDEX_URL"] == rest["PIP_EXTRA_INDEX_URL"] == "https://mirror"
    assert all(variables["HTTPS_PROXY"] == "http://proxy" for variables in computer.seen)
    assert all("PIP_USER" not in variables for variables in computer.seen)


@pytest.mark.parametrize("gpus", [(), (Gpu("RTX 3060", (580, 95), (8, 6)),)])
def test_linux_installs_everything_from_pypi(computer, gpus):
    computer.windows, computer.gpus = False, gpus
    assert computer.start()
    assert computer.calls == [["-r", str(computer.requirements)]]


def test_linux_with_an_old_driver_installs_an_older_cuda(computer):
    computer.windows = False
    assert computer.start()
    assert computer.calls[1] == ["--no-deps", "--index-url", CU126, "torch>=2.10,<3"]


def test_linux_keeps_an_installed_pytorch(computer):
    computer.windows, computer.torch = False, "2.13.0+cpu"
    assert computer.start()
    assert computer.calls == [["-r", str(computer.requirements)]]
    assert computer.torch == "2.13.0+cpu"


def test_linux_does_not_query_the_gpu_at_every_start(computer):
    computer.windows = False
    computer.start()
    assert computer.asked == 1
    assert computer.start()
    assert computer.asked == 1


def test_a_version_without_an_index_is_installed_on_linux_too(computer):
    computer.windows, computer.gpus = False, ()
    computer.variables = {"TORCH_VERSION": "2.12.0"}
    assert computer.start()
    assert computer.calls[0] == ["--no-deps", "torch==2.12.0"]


def test_requirements_without_pytorch_query_no_gpu(computer):
    computer.requirements.write_text("pytest\ntorchvision>=0.1\n")
    assert computer.start()
    assert computer.asked == 0
    assert computer.calls == [["-r", str(computer.requirements)]]
