"""The speed of each machine in its last job, kept in a file, to estimate the next one.

A machine is any text that names what the speed depends on: the GPU and the models.
"""

import json
import logging
import math
from dataclasses import asdict
from functools import partial
from pathlib import Path

from diffusers_helper.public import atomic_write

from .eta import TYPICAL, Eta, JobSize, Speed

logger = logging.getLogger(__name__)


class SpeedHistory:
    """The speeds in one JSON file. Safe to use from any thread: values are replaced, never changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._speeds = _read(path)

    def speed(self, machine: str | None) -> Speed | None:
        """Return the speed of the last job on this machine; None where none has finished."""
        return self._speeds.get(machine) if machine is not None else None

    def start_eta(self, machine: str | None, size: JobSize, typical: Speed = TYPICAL) -> Eta:
        """Return the remaining time of a job that begins; when it has finished, its speed is remembered.

        Where no job has finished on this machine, `typical` counts until the job has a speed of its own.
        """
        known = self.speed(machine)
        learn = partial(self.learn, machine) if machine is not None else None
        return Eta(size, known or typical, learn)

    def learn(self, machine: str, speed: Speed) -> None:
        """Remember the speed of a finished job. A file that cannot be written is logged, no more."""
        self._speeds = self._speeds | {machine: speed}
        text = json.dumps({"machines": {name: asdict(known) for name, known in self._speeds.items()}})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as part:
                part.write_text(text, "utf-8")
        except OSError as error:
            logger.warning("the speed of this machine is not kept: %s", error)


def _read(path: Path) -> dict[str, Speed]:
    """Read the file, an earlier version's, too; one that is broken is as good as none."""
    try:
        machines = json.loads(path.read_text("utf-8"))["machines"]
        return {machine: _to_speed(kept) for machine, kept in machines.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        logger.info("no speed of this machine is known: %s", error)
        return {}


def _to_speed(kept: dict[str, float]) -> Speed:
    values = {key: float(kept[key]) for key in Speed.__match_args__ if kept.get(key) is not None}
    speed = Speed(**values)
    if not all(0 <= value < math.inf for value in values.values()) or not speed.computed_step:
        raise ValueError("not seconds")
    return speed
