"""The engine's interface: models are loaded as its options ask, and a request becomes a video and events.

Importing it imports torch, so that an app imports it when its first job begins. Knows no queue and no page.
"""

import platform
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .device import DeviceChoice, choose_compute
from .eight_bit.conversion import (
    choose_root,
    eight_bit_folder,
    is_converted,
    make_eight_bit,
    remove_corrupt_shards,
    with_eight_bit,
)
from .encoding.conditioning import read_pictures
from .encoding.embedding_cache import EmbeddingCache
from .errors import InputError, MachineError, StopRequested
from .events import Event, Stopped
from .job.fingerprint import models_identity
from .job.folder import stored_fingerprint
from .job.output import Target
from .job.section_files import count_stored_sections
from .limits import GIB
from .machine_errors import machine_errors
from .models.loading import ModelLoader
from .pipeline import generate
from .plan import make_plan
from .request import GenerationRequest
from .transformer.attention import SAGE, xformers_computes
from .transformer.compiling import keep_compiled
from .weights.model_files import ModelFiles

__all__ = ["Engine", "EngineConfig", "Target", "xformers_computes"]

NOT_FINITE = ("not_a_number_in_latents", "not_a_number_in_pixels")


@dataclass(frozen=True)
class EngineConfig:
    """The models of an engine and the way they run. Equal ones load the same weights.

    Attributes:
        models: the files of the models.
        cache: folder for embeddings and for compiled blocks.
        vram_gb: most GiB of the GPU's memory to use; None for all that is free.
        eight_bit_roots: folders below which the transformer's 8-bit weights may be, the preferred one first;
            none for the weights as they are.
        sage_attention: use SageAttention, which is faster and less exact.
    """

    models: ModelFiles
    cache: Path
    device: DeviceChoice = "auto"
    vram_gb: float | None = None
    eight_bit_roots: tuple[Path, ...] = ()
    sage_attention: bool = False


class Engine:
    """Makes videos one after another, on one device. Not thread-safe.

    Raises:
        InputError: CUDA was requested and there is none.
        MachineError: the GPU is too old, or this PyTorch has no kernels for it.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        keep_compiled(config.cache / "compiled")
        limit = None if config.vram_gb is None else int(config.vram_gb * GIB)
        self._compute = choose_compute(config.device, limit)
        self._cache = EmbeddingCache(config.cache)
        self._loader: ModelLoader | None = None

    @property
    def machine(self) -> str | None:
        """The GPU, its memory limit and the models: they decide the speed. None before the first video."""
        if self._loader is None:
            return None
        if self._compute.device.type == "cuda":
            device = torch.cuda.get_device_name(self._compute.device)
        else:
            device = f"CPU {platform.processor() or platform.machine()}"
        limit = "" if self.config.vram_gb is None else f" with {self.config.vram_gb:g} GB"
        sage = " with SageAttention" * self.config.sage_attention
        return f"{device}{limit}{sage}: {self._loader.files.transformer.folder}"

    def generate(self, request: GenerationRequest, target: Target, stop: threading.Event) -> Iterator[Event]:
        """Make one video; the events end with Finished or Stopped. See `pipeline.generate`.

        8-bit weights that are not there yet are converted first.

        Raises:
            InputError: a picture, the models or the output folder cannot be used.
            MachineError: the machine failed: disk full, out of memory, numbers that are not finite.
        """
        files = self.config.models
        if self.config.eight_bit_roots:
            try:
                files = yield from self._with_eight_bit(request, target, stop)
            except StopRequested:
                stored = count_stored_sections(target.working_folder)
                yield Stopped(None, stored, len(make_plan(request).sections))
                return
        try:
            if self._loader is None or self._loader.files != files:
                attention = SAGE if self.config.sage_attention else None
                self._loader = ModelLoader(files, self._compute, attention=attention)
            yield from generate(request, target, self._loader, self._cache, stop)
        except MachineError as error:
            if self.config.eight_bit_roots and error.code in NOT_FINITE:
                folder = files.transformer.folder
                if remove_corrupt_shards(folder):  # the next video converts them again
                    raise MachineError("eight_bit_damaged", path=str(folder)) from error
            raise

    def _with_eight_bit(
        self, request: GenerationRequest, target: Target, stop: threading.Event
    ) -> Generator[Event, None, ModelFiles]:
        """Return the models with the transformer's 8-bit weights, converting them where they are missing.

        Raises InputError if the job's sections were made without them.
        """
        files, work = self.config.models, target.working_folder
        with machine_errors(files.transformer.folder):
            root = choose_root(files.transformer, self.config.eight_bit_roots)
            folder = eight_bit_folder(root)
            if not is_converted(folder, files.transformer):
                read_pictures(request, make_plan(request))  # a bad picture fails before minutes of work
                stored = stored_fingerprint(work) if count_stored_sections(work) else None
                if stored is not None and stored.models == models_identity(files):
                    raise InputError("unfinished_other_models", path=str(work))
                yield from make_eight_bit(files.transformer, folder, self._compute.device, stop)
        return with_eight_bit(files, root)
