"""PyTorch in any state of repair, seen from outside."""

import json
import sys
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from diffusers_helper.chosen_kernels import ChosenKernels
from diffusers_helper.errors import MachineError
from scripts.torch_build import Gpu
from webui.eichi_utils.machine import torch_probe
from webui.eichi_utils.machine.torch_probe import TorchFacts, find_torch, probe_torch

BUILD = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.11.0+cu128'
debug = False
cuda: Optional[str] = '12.8'
git_version = 'abc'
hip: Optional[str] = None
"""


@pytest.mark.parametrize(
    ("old", "new", "facts"),
    [
        ("", "", TorchFacts("2.11.0+cu128", (12, 8), "3.6.0")),
        (
            "cuda: Optional[str] = '12.8'",
            "cuda: Optional[str] = None",
            TorchFacts("2.11.0+cu128", None, "3.6.0"),
        ),
        ("cuda: Optional[str]", "cuda", TorchFacts("2.11.0+cu128", (12, 8), "3.6.0")),  # older builds
    ],
)
def test_a_build_is_found_in_its_files(monkeypatch, tmp_path, old, new, facts):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(BUILD.replace(old, new))
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(tmp_path)
    notes = tmp_path / "triton_windows-3.6.0.dist-info"
    notes.mkdir()
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: triton-windows\nVersion: 3.6.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # where no other Triton lies
    assert find_torch() == facts


def test_a_missing_pytorch_has_no_version(monkeypatch):
    monkeypatch.setattr(torch_probe.importlib.util, "find_spec", lambda _: None)
    assert find_torch() == TorchFacts(version=None)


def test_the_real_pytorch_reports_from_its_own_process():
    report = probe_torch(find_torch())
    assert (report.version, report.failure) == (torch.__version__, None)
    assert (report.gpu is not None) is torch.cuda.is_available()
    assert report.gpu or report.no_gpu_reason


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("import os; os.write(2, b'c10.dll\\n'); os._exit(3)", "exit status 3 c10.dll"),
        ("print('')", "exit status 0"),
        ("print('[1]')", "exit status 0"),
        ("print('nonsense')", "exit status 0"),
        ("""print('{"gpu": {"unknown": 1}}')""", "exit status 0"),
        ("import time; time.sleep(30)", "TimeoutExpired"),
    ],
)
def test_what_is_no_report_is_a_failure_with_its_last_words(monkeypatch, program, failure):
    monkeypatch.setattr(torch_probe, "TIMEOUT", 2)
    assert (probe_torch(TorchFacts("2"), [sys.executable, "-c", program]).failure or "").startswith(failure)


def test_a_pytorch_that_cannot_be_imported_is_a_failure(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert torch_probe.make_report()["failure"].startswith("ModuleNotFoundError")


def test_a_report_is_parsed_completely():
    sent = {
        "gpu": {"name": "RTX", "capability": (8, 9), "memory": 8, "free": 7},
        "error": {"code": "card_not_supported", "values": {"card": "RTX", "torch": "2"}},
        "attention": "flash",
        "product": "pytorch",
    }
    report = probe_torch(TorchFacts("2"), [sys.executable, "-c", f"print({json.dumps(sent)!r})"])
    assert report.gpu == Gpu("RTX", None, (8, 9), 8, 7)
    assert (report.attention, report.product, report.int8_attention) == ("flash", "pytorch", None)
    assert report.error is not None
    assert (report.error.code, report.error.values) == ("card_not_supported", {"card": "RTX", "torch": "2"})


@pytest.mark.parametrize(
    ("raised", "cause", "code", "lacks_kernels"),
    [
        (MachineError("card_not_supported"), "CUDA error: unknown error", "card_not_supported", False),
        (MachineError("card_not_supported"), "CUDA error: no kernel image is", "card_not_supported", True),
        (RuntimeError("driver"), None, "unexpected", False),
    ],
)
def test_the_engines_error_is_part_of_the_report(monkeypatch, raised, cause, code, lacks_kernels):
    def choose(_device):
        raise raised from RuntimeError(cause)

    monkeypatch.setattr("diffusers_helper.device.choose_compute", choose)
    report = torch_probe.make_report()
    assert (report["error"]["code"], report["lacks_kernels"]) == (code, lacks_kernels)


@pytest.fixture
def sound_gpu(monkeypatch):
    """A PyTorch that computes on a GPU, whose kernels are those that a test sets."""
    description = {"gpu": {"name": "RTX", "capability": (8, 9), "memory": 8, "free": 7}}
    monkeypatch.setattr(torch_probe, "_describe_gpu", lambda: description)
    monkeypatch.setattr("diffusers_helper.device.choose_compute", lambda _: None)
    return lambda choose: monkeypatch.setattr("diffusers_helper.chosen_kernels.choose_kernels", choose)


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    torch_probe.write_report()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_chosen_kernels_are_reported_after_all_the_rest(sound_gpu, capsys):
    sound_gpu(lambda _: ChosenKernels("cudnn", "triton", int8_attention=True))
    first, last = written(capsys)
    assert last == first | {"attention": "cudnn", "product": "triton", "int8_attention": True}


def test_kernels_that_cannot_be_tried_leave_the_rest_of_the_report(sound_gpu, capsys):
    sound_gpu(Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
    first, last = written(capsys)
    assert last == first
    assert first["gpu"]["name"] == "RTX"


def test_kernels_that_end_the_process_leave_the_rest_of_the_report():
    program = 'import os; print(\'{"no_gpu_reason": "x"}\', flush=True); os._exit(3)'
    report = probe_torch(TorchFacts("2"), [sys.executable, "-c", program])
    assert (report.no_gpu_reason, report.failure) == ("x", None)


def test_without_a_gpu_no_kernels_are_tried(monkeypatch, capsys):
    monkeypatch.setattr(torch_probe, "_describe_gpu", lambda: {"no_gpu_reason": "none"})
    assert written(capsys) == [{"no_gpu_reason": "none"}]
