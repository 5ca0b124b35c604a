"""The runner of jobs: finds the models and hands each job to the engine, which the first one imports."""

import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffusers_helper.events import Event

from ..engine_options import EngineOptions
from .job import JobSpec

if TYPE_CHECKING:
    from diffusers_helper.engine import Engine


@dataclass
class JobRunner:
    """Makes the videos of jobs, one after another: not for two threads at a time.

    The models' files are checked before each job, and the engine is kept while they are the same. So a
    download that is completed while the app runs is used by the next job.
    """

    options: EngineOptions
    partial_videos: bool = False
    save_latents: bool = False
    _engine: "Engine | None" = field(default=None, init=False)

    @property
    def machine_key(self) -> str | None:
        """The GPU, its memory limit and the models: they decide the speed. None before the first job."""
        return None if self._engine is None else self._engine.machine

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        """Make one job's video; the events end with Finished or Stopped.

        Raises:
            InputError: a picture, the models or the output folder cannot be used.
            MachineError: the machine was not up to it.
        """
        files = yield from self.options.find_models()
        from diffusers_helper.engine import Engine, Target

        config = self.options.config_of(files)
        if self._engine is None or self._engine.config != config:
            self._engine = Engine(config)
        target = Target(spec.folder, spec.name, self.save_latents, self.partial_videos, spec.work)
        yield from self._engine.generate(spec.request, target, stop)
