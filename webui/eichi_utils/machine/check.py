"""The check of the machine before anything is loaded: facts gathered, judged, and told in plain words.

For `--check` and for the page. Imports no torch; what PyTorch itself says comes from a process of its own,
and only if it was asked for. Whatever goes wrong while gathering is a fact that is not known.
"""

import logging
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from diffusers_helper.errors import EngineError
from diffusers_helper.limits import GIB
from diffusers_helper.ram import read_ram

from ..terminal import write_line
from ..text.error_text import error_text
from ..text.translations import Translator
from .card import find_card, has_nvidia_hardware
from .facts import CardFacts, MachineFacts, TorchFacts
from .memory_and_disk import look_at_folder, look_at_models
from .rules import CheckLine, Level, check_machine
from .torch_probe import ask_torch, find_torch

if TYPE_CHECKING:
    from ..engine_options import EngineOptions

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class CheckOptions:
    """What to look at. `ask_torch` lets PyTorch try the card in a process of its own, which takes seconds."""

    engine: "EngineOptions"
    output: Path
    ask_torch: bool = False


def run_check(options: CheckOptions, words: Translator) -> int:
    """Print the check; returns the exit status: 1 where something will fail, else 0."""
    lines = check_lines(options)
    for line in lines:
        _print_line(line, words, sys.stdout)
    level = worst_level(lines)
    write_line(words(f"check.result.{level}"), sys.stdout)
    return 1 if level == "fails" else 0


def check_lines(options: CheckOptions) -> list[CheckLine]:
    """Look at the machine, and tell the log. Without `ask_torch`, a second or two; never raises.
    For any thread."""
    lines = check_machine(gather_facts(options))
    words = Translator("en")
    for line in lines:
        logger.info("%s: %s", line.level, " -> ".join(filter(None, line_text(line, words))))
    return lines


def check_for_log(options: CheckOptions) -> None:
    """Check the machine for the log only, in a thread of its own; returns at once."""
    threading.Thread(target=check_lines, args=(options,), name="check", daemon=True).start()


def worst_level(lines: list[CheckLine]) -> Level:
    """What is the matter in all: `fails` if anything will fail, else `slow` if anything is."""
    levels = {line.level for line in lines}
    return "fails" if "fails" in levels else "slow" if "slow" in levels else "good"


def line_text(line: CheckLine, words: Translator) -> tuple[str, str | None]:
    """The sentence of a line, and the one thing to do; None where nothing is to be done."""
    values = {
        name: error_text(value.code, value.values, words) if isinstance(value, EngineError) else value
        for name, value in line.values.items()
    }
    key = f"check.{line.code}.{line.level}"
    return words(key, **values), words(f"{key}.do", **values) if words.has(f"{key}.do") else None


def gather_facts(options: CheckOptions) -> MachineFacts:
    """All facts that can be had; the others are None. Never raises."""
    engine = options.engine
    torch = _try(find_torch)
    if options.ask_torch and torch is not None and torch.version is not None:
        torch = replace(torch, answer=_try(ask_torch))
    card = _merge(_try(find_card), torch)
    return MachineFacts(
        python=sys.version_info[:2],
        python_bits=struct.calcsize("P") * 8,
        on_windows=sys.platform == "win32",
        device=engine.device,
        memory_limit=int(engine.vram_gb * GIB) if engine.vram_gb is not None else None,
        card=card,
        card_without_driver=card is None and bool(_try(has_nvidia_hardware)),
        torch=torch,
        memory=_try(read_ram),
        models=_try(lambda: look_at_models(engine.folders)),
        output=_try(lambda: look_at_folder(options.output)),
        eight_bit=engine.eight_bit,
    )


def _merge(card: CardFacts | None, torch: TorchFacts | None) -> CardFacts | None:
    """The card that PyTorch takes, if it was asked, with its driver, which only nvidia-smi knows."""
    taken = torch.answer.card if torch is not None and torch.answer is not None else None
    if taken is None:
        return card
    return replace(taken, driver=card.driver if card is not None else None)


def _try(ask: Callable[[], _T]) -> _T | None:
    """A fact, or None: a check that fails where the machine is in disorder would be of no use."""
    try:
        return ask()
    except Exception:
        logger.info("a fact cannot be had", exc_info=True)
        return None


def _print_line(line: CheckLine, words: Translator, stream: TextIO) -> None:
    text, advice = line_text(line, words)
    write_line(f"[{_mark(line.level, words, stream.encoding or 'utf-8')}] {text}", stream)
    if advice is not None:
        write_line(f"    -> {advice}", stream)


def _mark(level: Level, words: Translator, encoding: str) -> str:
    """The mark in the language of the words; in plain letters where the terminal can't show that."""
    mark = words(f"check.mark.{level}")
    try:
        mark.encode(encoding)
    except UnicodeEncodeError:
        return Translator("en")(f"check.mark.{level}")
    return mark
