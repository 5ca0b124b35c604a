"""How fast this machine was in earlier jobs, kept in a file: what tells how long the next one will take.

A machine is any text that says what the speed depends on: the card and the models. Knows no card itself.
"""

import logging
import math
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diffusers_helper.errors import MachineError

from ..settings.json_file import JsonFile
from .eta import Pace, TimeLeft, Work

logger = logging.getLogger(__name__)

NEW_WEIGHT = 0.5
"""What a new job counts against all before: the book follows a machine that changes."""
MAX_GROWTH = 4.0
"""A figure counts for at most so many times what was known: the computer may have slept in a job."""
MAX_MACHINES, MAX_THRESHOLDS = 20, 20
"""More are not kept; those that were not used for longest go first."""
_FIGURES = ("overhead", "computed_step", "decoding", "saving")


class SpeedBook:
    """What was learnt of each machine, in one JSON file. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = JsonFile(path, _is_book)
        self.notices = self._file.notices
        value = self._file.value
        self._machines: dict[str, dict[str, Any]] = value["machines"] if isinstance(value, dict) else {}
        self._lock = threading.RLock()

    def estimate(self, machine: str, work: Work) -> float | None:
        """Seconds that a whole job takes; None where no job has finished on this machine.

        Where no job had this threshold, the nearest one that had counts; where none skipped a step, the
        estimate is for no skipping: rather too long.
        """
        pace = self.pace(machine, work)
        return None if pace is None else pace.seconds(work)

    def pace(self, machine: str, work: Work) -> Pace | None:
        """What is known of a machine at the threshold of `work`."""
        with self._lock:
            kept = self._machines.get(machine)
            if kept is None:
                return None
            share = _share(kept["shares"], work.teacache_threshold)
            figures = {figure: kept[figure] for figure in _FIGURES}
            return Pace(**figures, skipped_step=kept.get("skipped_step"), computed_share=share)

    def learn(self, machine: str, work: Work, measured: Pace) -> None:
        """Take note of a finished job. A file that cannot be written is logged, no more."""
        with self._lock:
            kept = _mixed(self._machines.pop(machine, None), work, measured)
            self._machines[machine] = kept
            self._machines = dict(list(self._machines.items())[-MAX_MACHINES:])
            try:
                self._file.write({"machines": self._machines})
            except MachineError as error:
                logger.warning("the speed of this machine is not kept: %s", error)

    def clock(self, machine: str | None, work: Work) -> TimeLeft:
        """A clock for a job that begins: it goes by what is known, and what it measures is learnt."""
        if machine is None:
            return TimeLeft(work)
        learn: Callable[[Pace], None] = partial(self.learn, machine, work)
        return TimeLeft(work, self.pace(machine, work), learn)


def _share(shares: dict[str, float], threshold: float | None) -> float:
    """The share of computed steps at the nearest known threshold."""
    if threshold is None or not shares:
        return 1.0
    return shares[min(shares, key=lambda known: abs(float(known) - threshold))]


def _mixed(kept: dict[str, Any] | None, work: Work, measured: Pace) -> dict[str, Any]:
    """What is known of a machine after one more job."""
    old: dict[str, Any] = {"skipped_step": None, "shares": {}} | (kept or {})
    mixed = {figure: _mix(old.get(figure), getattr(measured, figure)) for figure in _FIGURES}
    skipped = measured.skipped_step
    mixed["skipped_step"] = old["skipped_step"] if skipped is None else _mix(old["skipped_step"], skipped)
    shares = dict(old["shares"])
    if work.teacache_threshold is not None:
        key = f"{work.teacache_threshold:g}"
        shares[key] = _mix(shares.pop(key, None), measured.computed_share)
    return mixed | {"shares": dict(list(shares.items())[-MAX_THRESHOLDS:])}


def _mix(old: float | None, new: float) -> float:
    if not old:
        return new
    return (1 - NEW_WEIGHT) * old + NEW_WEIGHT * min(new, MAX_GROWTH * old)


def _is_book(value: object) -> bool:
    machines = value.get("machines") if isinstance(value, dict) else None
    return isinstance(machines, dict) and all(_is_machine(kept) for kept in machines.values())


def _is_machine(kept: object) -> bool:
    if not isinstance(kept, dict) or not isinstance(kept.get("shares"), dict):
        return False
    has_figures = all(_is_figure(kept.get(figure)) for figure in _FIGURES)
    has_skipped = kept.get("skipped_step") is None or _is_figure(kept["skipped_step"])
    return has_figures and has_skipped and all(_is_share(*item) for item in kept["shares"].items())


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_share(threshold: str, share: object) -> bool:
    try:
        is_threshold = math.isfinite(float(threshold))
    except ValueError:
        return False
    return is_threshold and _is_figure(share)
