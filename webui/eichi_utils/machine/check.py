"""The check of the machine before anything is loaded: facts are gathered, judged and put into words.

For `--check` and for the page. Imports no torch; PyTorch's own report comes from a process of its own, and
only on request. Whatever fails while gathering is a fact that is unknown.
"""

import ctypes
import logging
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TypeVar, get_args

from diffusers_helper.errors import EngineError
from diffusers_helper.limits import GIB
from diffusers_helper.public import installed_versions, read_failure
from diffusers_helper.ram import read_ram
from scripts.torch_build import query_gpus

from ..engine_options import DEMO, EngineOptions
from ..terminal import write_line
from ..text.error_text import error_text
from ..text.translations import Translator
from .disk import inspect_folder, inspect_models
from .rules import CheckLine, Level, MachineFacts, check_machine
from .torch_probe import find_torch, probe_torch

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
DEVICE_BYTES, MAX_DEVICES = 840, 64
"""The bytes of DISPLAY_DEVICEW of the Windows API, which begins with them; the most adapters to look at."""


def run_check(engine: EngineOptions, output: Path, words: Translator) -> int:
    """Print the check; returns the exit status: 1 where something will fail, else 0."""
    lines = check_lines(engine, output, probe=True)
    for line in lines:
        text, advice = line_text(line, words)
        write_line(f"[{_mark(line.level, words)}] {text}", sys.stdout)
        if advice is not None:
            write_line(f"    -> {advice}", sys.stdout)
    level = worst_level(lines)
    write_line(words(f"check.result.{level}"), sys.stdout)
    return 1 if level == "fails" else 0


def check_lines(engine: EngineOptions, output: Path, *, probe: bool = False) -> list[CheckLine]:
    """Check the machine and log the result; takes a second or two without `probe`. Never raises.

    Safe in any thread.
    """
    lines = check_machine(gather_facts(engine, output, probe=probe))
    words = Translator("en")
    for line in lines:
        logger.info("%s: %s", line.level, " -> ".join(filter(None, line_text(line, words))))
    return lines


def worst_level(lines: list[CheckLine]) -> Level:
    """Return the result of all lines: `fails` if anything will fail, else `slow` if anything is."""
    return max((line.level for line in lines), key=get_args(Level).index, default="good")


def line_text(line: CheckLine, words: Translator) -> tuple[str, str | None]:
    """Return the sentence of a line, and the advice; None where there is nothing to do."""
    values = {
        name: error_text(value, words) if isinstance(value, EngineError) else value
        for name, value in line.values.items()
    }
    key = f"check.{line.code}.{line.level}"
    return words(key, **values), words(f"{key}.do", **values) if words.has(f"{key}.do") else None


def gather_facts(engine: EngineOptions, output: Path, *, probe: bool = False) -> MachineFacts:
    """Gather all facts that can be known; the others are None. Never raises.

    `probe` lets PyTorch compute on the GPU, which takes seconds.
    """
    torch = _try(find_torch)
    if probe and torch is not None and torch.version is not None:
        torch = probe_torch(torch)
    gpus = _try(query_gpus)
    gpu = max(gpus, key=lambda gpu: gpu.rank) if gpus else None  # CUDA would choose it first
    if torch is not None and torch.gpu is not None:  # PyTorch knows better, but for the driver
        gpu = replace(torch.gpu, driver=gpu.driver if gpu else None)
    return MachineFacts(
        python=sys.version_info[:2],
        python_bits=struct.calcsize("P") * 8,
        on_windows=sys.platform == "win32",
        device=engine.device,
        memory_limit=int(engine.vram_gb * GIB) if engine.vram_gb is not None else None,
        gpu=gpu if engine.device != "cpu" else None,
        gpu_without_driver=gpu is None and bool(_try(has_nvidia_hardware)),
        torch=torch,
        memory=_try(read_ram),
        models=_try(lambda: inspect_models(engine.folders, engine.cache)),
        output=_try(lambda: inspect_folder(output)),
        eight_bit=engine.eight_bit,
        outdated=tuple(_try(engine.find_outdated) or ()),
        demo=engine.models == DEMO,
        compiler_failure=_try(lambda: read_failure(engine.cache, installed_versions(engine.cache))),
    )


def has_nvidia_hardware(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Return whether an NVIDIA GPU (PCI vendor 10de) is plugged in, with or without its driver.

    Linux lists all devices in the folder `devices`.
    """
    if sys.platform != "win32":
        identities = (path.read_text("ascii") for path in devices.glob("*/modalias"))
        return any(re.match("pci:v000010DE.*bc03", identity) for identity in identities)
    # of the display adapters, one has an identity like `PCI\VEN_10DE&DEV_2504...`
    device = ctypes.create_string_buffer(struct.pack("I", DEVICE_BYTES), DEVICE_BYTES)
    list_device = ctypes.windll.user32.EnumDisplayDevicesW
    found = takewhile(lambda number: list_device(None, number, device, 0), range(MAX_DEVICES))
    return any("VEN_10DE".encode("utf-16-le") in device.raw.upper() for _ in found)


def _try(ask: Callable[[], _T]) -> _T | None:
    """Return a fact, or None: the check must work on a machine that does not."""
    try:
        return ask()
    except Exception:
        logger.info("a fact is unknown", exc_info=True)
        return None


def _mark(level: Level, words: Translator) -> str:
    """Return the mark of a line, in English where the terminal cannot show the language's own."""
    key, encoding = f"check.mark.{level}", sys.stdout.encoding or "utf-8"
    mark = words(key)
    is_shown = mark.encode(encoding, "ignore").decode(encoding) == mark
    return mark if is_shown else Translator("en")(key)
