"""The engine's interface: models are loaded as its options ask, and a request becomes a video and events.

Importing it imports torch, so that an app imports it when its first job begins. Knows no queue and no page.
"""

import logging
import platform
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from .device import Compute, DeviceChoice, choose_compute, why_uncompiled
from .eight_bit.conversion import make_eight_bit, remove_corrupt_shards, with_eight_bit
from .eight_bit.folder import choose_root, eight_bit_folder, is_converted
from .encoding.conditioning import read_pictures
from .encoding.embedding_cache import EmbeddingCache
from .errors import InputError, MachineError, StopRequested
from .events import Event, Stopped
from .files.compiler_failure import installed_versions, read_failure, write_failure
from .job.fingerprint import models_identity
from .job.folder import stored_fingerprint
from .job.output import Target
from .job.section_files import count_stored_sections, holds_sections
from .kernels import FAILED
from .limits import GIB
from .machine_errors import machine_errors
from .models.architectures import import_models
from .models.loading import ModelLoader
from .pipeline import generate
from .plan import make_plan
from .request import GenerationRequest
from .transformer.compiling import CompiledBlocks, keep_compiled
from .transformer.saved_graphs import SavedGraphs
from .weights.contents import check_contents, record_in
from .weights.model_files import ModelFiles

__all__ = ["Engine", "EngineConfig", "Target", "import_models"]

logger = logging.getLogger(__name__)

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
    """

    models: ModelFiles
    cache: Path
    device: DeviceChoice = "auto"
    vram_gb: float | None = None
    eight_bit_roots: tuple[Path, ...] = ()


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
        self._versions = self._compiler_versions()
        FAILED.folder, FAILED.versions = config.cache / "kernels", self._versions
        self.uncompiled = why_uncompiled(self._compute)
        """The reason why blocks are not compiled, in English; None where they are."""
        if self._compute.compiles and (reason := read_failure(config.cache, self._versions)) is not None:
            logger.info("blocks are not compiled, because that failed before: %s", reason)
            self._compute = replace(self._compute, compiles=False)
            self.uncompiled = f"that failed before: {reason}"
        self._cache = EmbeddingCache(config.cache)
        self._loader: ModelLoader | None = None

    @property
    def compute(self) -> Compute:
        """The device and its number formats."""
        return self._compute

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
        return f"{device}{limit}: {self._loader.files.transformer.folder}"

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
            yield from generate(request, target, self.load(files), self._cache, stop)
        except MachineError as error:
            if self.config.eight_bit_roots and error.code in NOT_FINITE:
                folder = files.transformer.folder
                if remove_corrupt_shards(folder):  # the next video converts them again
                    raise MachineError("eight_bit_damaged", path=str(folder)) from error
            raise

    def load(self, files: ModelFiles) -> ModelLoader:
        """Return the loader of these models, which is kept until other models are asked for."""
        if self._loader is None or self._loader.files != files:
            remember = partial(write_failure, self.config.cache, self._versions)
            saved = SavedGraphs(self.config.cache / "compiled")
            compiles = self._compute.compiles
            runner = CompiledBlocks(on_failure=remember, saved=saved) if compiles else None
            self._loader = ModelLoader(files, self._compute, runner)
        return self._loader

    def _compiler_versions(self) -> dict[str, str]:
        """Return all that decides whether the compiler works here."""
        versions = installed_versions(self.config.cache)
        if self._compute.device.type == "cuda":
            ask_driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)
            card = torch.cuda.get_device_name(self._compute.device)
            versions |= {"card": card, "driver": str(ask_driver())}
        return versions

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
                check_contents(files, record_in(self.config.cache), stop)
                stored = stored_fingerprint(work) if holds_sections(work) else None
                if stored is not None and stored.models == models_identity(files):
                    raise InputError("unfinished_other_models", path=str(work))
                yield from make_eight_bit(files.transformer, folder, self._compute.device, stop)
        return with_eight_bit(files, root)
