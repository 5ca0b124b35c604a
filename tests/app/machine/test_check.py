"""The check: how facts are gathered, what the terminal shows, the exit status."""

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import MachineError
from scripts.torch_build import Gpu
from tests.support.terminal import Terminal
from tests.support.tiny import MODELS
from webui import endframe_ichi
from webui.eichi_utils.engine_options import DEMO, EngineOptions
from webui.eichi_utils.machine import check
from webui.eichi_utils.machine.check import gather_facts, has_nvidia_hardware
from webui.eichi_utils.machine.rules import CheckLine, MachineFacts, fails, good, slow
from webui.eichi_utils.machine.torch_probe import TorchFacts
from webui.eichi_utils.text.translations import Translator

GIB = 2**30
ENGLISH = Translator("en")
RTX_4060 = Gpu("RTX 4060", (581, 15), (8, 9), 8 * GIB, 7 * GIB)
GOOD, SLOW, FAILS = good("card", card="RTX 4060"), slow("no_card"), fails("torch_missing")


@pytest.fixture
def options(tmp_path) -> tuple[EngineOptions, Path]:
    return EngineOptions(MODELS, tmp_path / "cache", "auto", None), tmp_path / "outputs"


@pytest.fixture
def run(options, monkeypatch):
    """Runs a check that finds these lines; returns the exit status and the lines that are shown."""

    def run(*lines: CheckLine, words: Translator = ENGLISH, encoding: str = "utf-8") -> tuple[int, list[str]]:
        monkeypatch.setattr(check, "check_lines", lambda *_, **__: list(lines))
        monkeypatch.setattr(sys, "stdout", terminal := Terminal(encoding))
        return check.run_check(*options, words), terminal.shown().splitlines()

    return run


def test_this_machine_is_checked_without_importing_torch(tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from webui.eichi_utils.engine_options import EngineOptions\n"
        "from webui.eichi_utils.machine.check import check_lines\n"
        f"models, folder = Path({str(MODELS)!r}), Path({str(tmp_path)!r})\n"
        "lines = check_lines(EngineOptions(models, folder, 'auto', None), folder)\n"
        "assert 'models_demo' in [line.code for line in lines], lines\n"
        "print('torch' in sys.modules, 'gradio' in sys.modules)\n"
    )
    shown = subprocess.check_output([sys.executable, "-c", program], cwd=endframe_ichi.ROOT)
    assert shown.split() == [b"False", b"False"]


@pytest.mark.parametrize("models", [DEMO, MODELS])
def test_the_check_knows_when_the_demo_is_asked_for(options, models):
    engine, output = options
    assert gather_facts(replace(engine, models=models), output).demo is (models == DEMO)


def test_facts_that_fail_are_unknown(options, monkeypatch):
    asked = ("find_torch", "query_gpus", "has_nvidia_hardware", "read_ram")
    for name in (*asked, "inspect_models", "inspect_folder"):
        monkeypatch.setattr(check, name, Mock(side_effect=RuntimeError("out of order")))
    facts = gather_facts(*options, probe=True)
    assert facts == MachineFacts(sys.version_info[:2], facts.python_bits, on_windows=sys.platform == "win32")
    assert check.check_lines(*options)


def test_pytorch_is_probed_on_request_only(options, monkeypatch):
    monkeypatch.setattr(check, "probe_torch", lambda _: pytest.fail("probed"))
    assert gather_facts(*options).torch is not None
    monkeypatch.setattr(check, "find_torch", lambda: TorchFacts(None))
    assert gather_facts(*options, probe=True).torch == TorchFacts(None)


def test_the_gpu_is_the_best_or_the_one_that_pytorch_uses_up_to_a_limit(options, monkeypatch):
    used = Gpu("RTX 3060", None, (8, 6), 12 * GIB, 11 * GIB)
    old, larger = replace(RTX_4060, capability=(7, 5), memory=24 * GIB), replace(RTX_4060, memory=16 * GIB)
    monkeypatch.setattr(check, "query_gpus", lambda: (old, RTX_4060, larger))
    monkeypatch.setattr(check, "probe_torch", lambda facts: replace(facts, gpu=used))
    assert gather_facts(*options).gpu == larger
    engine, output = options
    assert gather_facts(replace(engine, vram_gb=7.5), output).memory_limit == int(7.5 * GIB)
    without = gather_facts(replace(engine, device="cpu"), output)
    assert (without.gpu, without.gpu_without_driver) == (None, False)
    assert gather_facts(*options, probe=True).gpu == replace(used, driver=(581, 15))


@pytest.mark.skipif(sys.platform == "win32", reason="reads Linux' list of devices")
@pytest.mark.parametrize(
    ("vendor", "kind", "found"), [("10DE", "03", True), ("10DE", "04", False), ("1002", "03", False)]
)
def test_linux_lists_a_gpu_without_a_driver(tmp_path, vendor, kind, found):
    (tmp_path / "0000:01:00.0").mkdir()
    identity = f"pci:v0000{vendor}d00002504sv00001462sd0000397Dbc{kind}sc00i00\n"
    (tmp_path / "0000:01:00.0" / "modalias").write_text(identity)
    assert has_nvidia_hardware(tmp_path) is found


@pytest.mark.parametrize(
    ("vendors", "found"), [(["8086", "10de"], True), (["1002"], False), (["8086"] * 100, False), ([], False)]
)
def test_windows_lists_a_gpu_without_a_driver(windows, vendors, found):
    def list_device(_parent, number, device, _flags):
        assert struct.unpack_from("I", device) == (840,) == (len(device),)
        if number < len(vendors):
            device[328:370] = f"PCI\\VEN_{vendors[number]}&DEV_2504".encode("utf-16-le")
        return number < len(vendors)

    windows.user32.EnumDisplayDevicesW = list_device
    assert has_nvidia_hardware() is found


@pytest.mark.parametrize(
    ("lines", "level"), [([GOOD], "good"), ([GOOD, SLOW], "slow"), ([FAILS, SLOW], "fails"), ([], "good")]
)
def test_the_exit_status_is_1_if_something_will_fail(run, lines, level):
    assert check.worst_level(lines) == level
    status, shown = run(*lines)
    assert (status, shown[-1]) == (1 if level == "fails" else 0, ENGLISH(f"check.result.{level}"))


def test_each_line_has_a_mark_and_what_to_do_below_it(run):
    full = fails("torch_refuses", torch="2.11", reason=MachineError("out_of_memory"))
    _, lines = run(GOOD, SLOW, full, good("card", card="a\x1b[2J\nb"))
    assert lines[0] == "[ok] The GPU RTX 4060 is new enough."
    marks = ["[ok", "[slow", "    -", "[will fail", "    -", "[ok"]
    assert all(line.startswith(mark) for line, mark in zip(lines, marks, strict=False))
    assert lines[4] == f"    -> {ENGLISH('error.out_of_memory')}", "an error is shown as its own sentence"
    assert lines[5] == "[ok] The GPU a\\x1b[2J\\nb is new enough."


class Japanese(Translator):
    """A translator whose marks not every terminal can show."""

    def __call__(self, key: str, /, **values: object) -> str:
        return "良" if key.startswith("check.mark.") else super().__call__(key, **values)


@pytest.mark.parametrize(
    ("encoding", "begin"), [("utf-8", "[良] The GPU 石"), ("ascii", "[ok] The GPU \\u77f3")]
)
def test_a_terminal_with_few_letters_gets_plain_ones(run, encoding, begin):
    _, lines = run(good("card", card="石"), words=Japanese("en"), encoding=encoding)
    assert lines[0].startswith(begin)


@pytest.mark.parametrize(
    ("options", "language"),
    [("--check", "ja"), ("--download", "ja"), ("--check --lang zh-tw", "zh-tw"), ("--lang ja", "en")],
)
def test_only_a_video_without_a_page_is_made_in_english(monkeypatch, tmp_path, capsys, options, language):
    """Programs read `--headless`, and people the check or the download that is done in place of it."""
    spoken = []
    for name in ("machine.check.run_check", "download.command.run_download", "headless.run_headless"):
        run = f"webui.eichi_utils.{name}"
        monkeypatch.setattr(run, lambda *given: spoken.append(given[-1].language) or 0)
    monkeypatch.setattr(endframe_ichi, "system_language", lambda: "ja")
    endframe_ichi.main(["--headless", "a.json", "--demo", "--home", str(tmp_path), *options.split()])
    assert spoken == [language]
    assert capsys.readouterr().err == f"{ENGLISH('demo.models')}\n"
