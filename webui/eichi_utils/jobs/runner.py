"""The engine, as the jobs and the command use it: options become loaded models, a job becomes events.

The one place of the app that makes the engine. torch is imported by the first job, not by this module.
"""

import platform
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_helper.errors import InputError, MachineError, StopRequested
from diffusers_helper.events import Event, Notice, Stopped
from diffusers_helper.job.section_files import count_kept_sections
from diffusers_helper.plan import make_plan
from diffusers_helper.weights.model_files import ModelFiles, find_models

from ..download.model_folders import ModelFolders
from ..engine_options import DEMO, DOWNLOADED, default_models, has_download
from .job import JobSpec

if TYPE_CHECKING:
    from diffusers_helper.device import Compute, DeviceChoice
    from diffusers_helper.models.loading import ModelLoader

NOT_NUMBERS = ("not_a_number_in_latents", "not_a_number_in_pixels")
Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class EngineOptions:
    """What the command line says of the engine.

    Attributes:
        models: folder of the models; None means whatever is there.
        downloaded: folder of the app's own download.
        cache: folder for encoded prompts and pictures.
        vram_gb: most GiB of the card's memory to use; None means all that is free.
        eight_bit: use the transformer with weights of 8 bits, and make those first where they are not there.
        sage_attention: use SageAttention, which is faster and less exact.
    """

    models: Path | None
    cache: Path
    device: "DeviceChoice"
    vram_gb: float | None
    downloaded: Path = DOWNLOADED
    eight_bit: bool = False
    sage_attention: bool = False

    @property
    def places(self) -> ModelFolders:
        """Where the models may lie."""
        return ModelFolders.of_user(self.models, self.downloaded)

    @property
    def uses_demo(self) -> bool:
        """Whether the demo's models make the videos: they were asked for, or there are no others."""
        return self.models == DEMO or (self.models is None and not has_download(self.places))


class JobRunner:
    """Makes the videos of jobs, one after another: not for two threads at a time.

    The models' files are looked at before each job, and what was made of them is kept while they are the
    same. So a download that is completed while the app runs is used by the next job.
    """

    def __init__(
        self, options: EngineOptions, *, progress_videos: bool = False, save_latents: bool = False
    ) -> None:
        self._options = options
        self._progress_videos = progress_videos
        self._save_latents = save_latents
        self._signature: Signature | None = None
        self._loader: ModelLoader | None = None
        self._machine_key: str | None = None

    @property
    def machine_key(self) -> str | None:
        """What decides how fast this runs: the card, its limit and the models. None before the first job."""
        return self._machine_key

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Iterator[Event]:
        """Make one job's video; the events end with Finished or Stopped.

        Raises:
            InputError: a picture, the models or the output folder cannot be used.
            MachineError: the machine was not up to it.
        """
        files = yield from self._find_models()
        if self._options.eight_bit:
            try:
                files = yield from self._with_eight_bit(files, spec, stop)
            except StopRequested:
                sections = len(make_plan(spec.request).sections)
                yield Stopped(None, count_kept_sections(spec.work), sections)
                return
        loader = self._loader_of(files)
        from diffusers_helper.encoding.embedding_cache import EmbeddingCache
        from diffusers_helper.job.output import Target
        from diffusers_helper.pipeline import generate

        target = Target(
            spec.folder,
            spec.name,
            save_latents=self._save_latents,
            progress_videos=self._progress_videos,
            work=spec.work,
        )
        try:
            yield from generate(spec.request, target, loader, EmbeddingCache(self._options.cache), stop)
        except MachineError as error:
            if self._options.eight_bit and error.code in NOT_NUMBERS:
                _look_for_damage(files.transformer.folder)
            raise

    def _find_models(self) -> Generator[Notice, None, ModelFiles]:
        if self._options.models is not None:
            return find_models(self._options.models)
        return (yield from default_models(self._options.places))

    def _with_eight_bit(
        self, files: ModelFiles, spec: JobSpec, stop: threading.Event
    ) -> Generator[Event, None, ModelFiles]:
        """The set with weights of 8 bits; where they are not there, they are made.

        Raises:
            InputError: the job was begun with the weights as they are.
            StopRequested: somebody asked to stop meanwhile; what was made of them stays.
        """
        from diffusers_helper.eight_bit.conversion import eight_bit_folder, look, with_eight_bit
        from diffusers_helper.encoding.conditioning import read_pictures
        from diffusers_helper.job.fingerprint import models_identity
        from diffusers_helper.job.folder import kept_mark
        from diffusers_helper.machine_errors import machine_errors

        from ..eight_bit_models import choose_root, make_eight_bit

        with machine_errors(files.transformer.folder):
            root = choose_root(files.transformer, self._options.places, self._options.cache)
            folder = eight_bit_folder(root)
            if look(folder, files.transformer) != "complete":
                read_pictures(
                    spec.request, make_plan(spec.request)
                )  # what is wrong with the job is told before minutes of work
                kept = kept_mark(spec.work) if count_kept_sections(spec.work) else None
                if kept is not None and kept.models == models_identity(files):
                    raise InputError("unfinished_other_models", path=str(spec.work))
                yield from make_eight_bit(files.transformer, folder, stop)
        return with_eight_bit(files, root)

    def _loader_of(self, files: ModelFiles) -> "ModelLoader":
        """A loader of these files: the last job's where they are the same."""
        signature = _signature(files)
        if self._loader is None or signature != self._signature:
            from diffusers_helper.device import choose_compute
            from diffusers_helper.models.loading import ModelLoader
            from diffusers_helper.transformer.attention import SAGE
            from diffusers_helper.transformer.compiling import keep_compiled

            limit = int(self._options.vram_gb * 2**30) if self._options.vram_gb is not None else None
            keep_compiled(self._options.cache / "compiled")
            compute = choose_compute(self._options.device, limit)
            choices, asked = self._options.cache / "attention.json", self._options.sage_attention
            self._loader = ModelLoader(files, compute, choices=choices, attention=SAGE if asked else None)
            self._signature = signature
            self._machine_key = self._describe_machine(compute, files)
        return self._loader

    def _describe_machine(self, compute: "Compute", files: ModelFiles) -> str:
        import torch

        if compute.device.type == "cuda":
            device = torch.cuda.get_device_name(compute.device)
        else:
            device = f"CPU {platform.processor() or platform.machine()}"
        limit = "" if self._options.vram_gb is None else f" with {self._options.vram_gb:g} GB"
        sage = " with SageAttention" * self._options.sage_attention
        return f"{device}{limit}{sage}: {files.transformer.folder}"


def _look_for_damage(folder: Path) -> None:
    """Numbers went wrong with the weights of 8 bits in a folder: those that are damaged are taken out.

    Raises:
        MachineError: there were some; the next job makes them again.
    """
    from diffusers_helper.eight_bit.conversion import forget_damaged

    if forget_damaged(folder):
        raise MachineError("eight_bit_damaged", path=str(folder))


def _signature(files: ModelFiles) -> Signature:
    """The models' files with their sizes and times."""
    parts = (files.text_encoder, files.text_encoder_2, files.vae, files.image_encoder, files.transformer)
    stats = ((path, path.stat()) for part in parts for path in part.files)
    return tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)
