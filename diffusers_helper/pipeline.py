"""From a request to a video: the recipe. A generator of events; who listens is not its business."""

import contextlib
import errno
import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from .conditioning import Conditioning, encode_all, read_pictures
from .embedding_cache import EmbeddingCache
from .errors import InputError, MachineError, StopRequested
from .events import Event, Finished, Planned, SectionDone, StageStarted, StepDone, Stopped
from .job_folder import JobFolder, bytes_needed
from .loading import ModelLoader
from .output import Output, Target
from .progress_video import ProgressVideo
from .recording import pack_request, without_start, write_png
from .request import GenerationRequest
from .schedule import flow_shift_mu, flow_sigmas, sample_unipc
from .sections import (
    HISTORY_1X,
    HISTORY_2X,
    HISTORY_4X,
    HISTORY_FRAMES,
    Plan,
    Section,
    decoded_latent_frames,
    end_picture,
    make_plan,
    pixel_frames,
    start_picture,
)
from .streamed_models import StreamedTransformer, count_tokens
from .system_memory import is_out_of_memory
from .teacache import TeaCache
from .transformer import Guidance, SectionDenoiser, SectionInputs
from .vae import check_not_black, decode_latents, preview_latents

logger = logging.getLogger(__name__)

LATENT_CHANNELS = 16
_T = TypeVar("_T")


@dataclass
class _Job:
    """One job under way: what was decided at its beginning, and the newest latents."""

    request: GenerationRequest
    plan: Plan
    target: Target
    pictures: dict[str, np.ndarray]
    seed: int
    stop: threading.Event
    output: Output
    started: float = field(default_factory=time.monotonic)
    evaluations: list[list[int]] = field(default_factory=list)
    """For each section and step whether the blocks ran."""

    @property
    def start(self) -> str:
        return start_picture(self.request)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.pictures[self.start].shape[:2]
        return height, width

    def check_stop(self) -> None:
        if self.stop.is_set():
            raise StopRequested


def generate(
    request: GenerationRequest,
    target: Target,
    loader: ModelLoader,
    cache: EmbeddingCache,
    stop: threading.Event,
) -> Iterator[Event]:
    """Make a video: encode, then section by section sample, decode and keep, then write the MP4.

    Setting `stop` ends the work before the next step; what is finished then, or when something fails, is
    kept as `NAME_unfinished.mp4`. The last event is Finished or Stopped.

    Raises:
        InputError: a picture, the models or the output folder cannot be used.
        MachineError: disk full, out of memory, numbers that are not numbers.
    """
    with _machine_errors(target.folder):
        job = _begin(request, target, stop)
        loader.verify()
    with _machine_errors(target.folder), _job_folder(job) as folder:
        height, width = job.size
        yield Planned(job.plan, width, height, job.seed)
        try:
            conditioning = yield from _until_stopped(
                encode_all(request, job.plan, job.pictures, loader, cache), job
            )
            write_png(target.file(".png"), job.pictures[job.start], without_start(job.output.packed))
            yield from _make_sections(job, conditioning, loader, folder)
            yield StageStarted("saving")
            end: Event = _finish(job, folder)
        except StopRequested:
            end = yield from _keep_stopped(job, folder)
        except BaseException:  # whatever ends the job, what is finished stays
            job.output.keep_finished(folder)
            raise
        yield end  # before the folder goes, with the video so far that somebody may be watching


def _begin(request: GenerationRequest, target: Target, stop: threading.Event) -> _Job:
    pictures = read_pictures(request)
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    plan = make_plan(request)
    output = Output(target, request, plan, pack_request(request, pictures, seed))
    return _Job(request, plan, target, pictures, seed, stop, output)


def _make_sections(
    job: _Job, conditioning: Conditioning, loader: ModelLoader, folder: JobFolder
) -> Generator[Event, None, None]:
    request, size = job.request, job.plan.size
    generator = torch.Generator("cpu").manual_seed(job.seed)
    start_latent = conditioning.latents[job.start]
    history = start_latent.new_zeros(1, LATENT_CHANNELS, HISTORY_FRAMES, *start_latent.shape[-2:])
    if (end := end_picture(request)) is not None:
        history[:, :, :1] = conditioning.latents[end] * request.end_frame_strength
    newest = history[:, :, :0]  # the front of what is generated, as far as decoding needs it
    progress = ProgressVideo(folder) if job.target.progress_videos else None
    yield StageStarted("transformer")
    noise_shape = (1, LATENT_CHANNELS, size.latent_frames, *history.shape[-2:])
    sigmas = flow_sigmas(request.steps, flow_shift_mu(noise_shape))
    tokens = count_tokens(*noise_shape[-3:])
    with loader.transformer(tokens) as transformer:
        for section in job.plan.sections:
            noise = torch.randn(noise_shape, generator=generator, dtype=torch.float32)
            inputs = _section_inputs(job, section, conditioning, history)
            guidance = Guidance(
                request.distilled_guidance_scale, request.guidance_scale, request.guidance_rescale
            )
            caches = _teacaches(request)
            yield StageStarted("sampling", section.index)
            denoiser = SectionDenoiser(transformer, inputs, guidance, loader.compute, sigmas[:-1], caches)
            latents = yield from _sample(job, section, denoiser, noise.to(loader.compute.device), sigmas)
            if section.is_last:
                latents = torch.cat([start_latent, latents], dim=2)
            newest = torch.cat([latents, newest], dim=2)[:, :, : decoded_latent_frames(section, size)]
            history = torch.cat([latents, history], dim=2)[:, :, :HISTORY_FRAMES]
            yield from _decode(job, section, newest, loader, transformer, folder, progress)
            folder.add_latents(latents)


def _section_inputs(
    job: _Job, section: Section, conditioning: Conditioning, history: torch.Tensor
) -> SectionInputs:
    keyframes = {keyframe.section: keyframe.image for keyframe in job.request.keyframes}
    picture = keyframes[section.keyframe] if section.keyframe is not None else job.start
    assert picture is not None
    history_1x, history_2x, history_4x = history.split([HISTORY_1X, HISTORY_2X, HISTORY_4X], dim=2)
    has_negative = job.request.guidance_scale != 1
    return SectionInputs(
        positive=conditioning.prompts[section.prompt],
        negative=conditioning.prompts[job.request.negative_prompt] if has_negative else None,
        image_embeds=conditioning.image_embeds,
        clean=torch.cat([conditioning.latents[picture], history_1x], dim=2),
        history_2x=history_2x,
        history_4x=history_4x,
        positions=section.positions,
    )


def _teacaches(request: GenerationRequest) -> tuple[TeaCache, TeaCache] | None:
    """A state for the positive and one for the negative pass of a section."""
    if not request.teacache:
        return None
    positive, negative = (TeaCache(request.teacache_threshold, request.steps) for _ in range(2))
    return positive, negative


def _sample(
    job: _Job, section: Section, denoiser: SectionDenoiser, noise: torch.Tensor, sigmas: torch.Tensor
) -> Generator[Event, None, torch.Tensor]:
    steps = job.request.steps
    evaluations: list[int] = []
    job.check_stop()
    latents = noise
    for step, latents in enumerate(sample_unipc(denoiser.predict, noise, sigmas), 1):
        if not torch.isfinite(latents).all():
            raise MachineError("not_a_number_in_latents", step=step, section=section.index + 1)
        evaluations.append(int(denoiser.computed))
        yield StepDone(
            section.index, len(job.plan.sections), step, steps, denoiser.computed, preview_latents(latents)
        )
        if step < steps:
            job.check_stop()
    job.evaluations.append(evaluations)
    logger.info("section %d: blocks computed in %d of %d steps", section.index, sum(evaluations), steps)
    return latents.cpu()


def _decode(
    job: _Job,
    section: Section,
    latents: torch.Tensor,
    loader: ModelLoader,
    transformer: StreamedTransformer,
    folder: JobFolder,
    progress: ProgressVideo | None,
) -> Generator[Event, None, None]:
    yield StageStarted("decoding", section.index)

    def decode() -> torch.Tensor:
        with loader.vae() as vae:
            may_shrink = not transformer.stack.layers.num_resident  # layers are given up before
            return decode_latents(latents, vae, loader.vae_budget(), may_shrink)

    frames = transformer.making_room(decode)
    check_not_black(frames[: pixel_frames(job.plan.size.latent_frames)], job.pictures.values())
    folder.add_frames(frames)
    video = progress.write() if progress is not None else None
    yield SectionDone(section.index, len(job.plan.sections), folder.num_frames, video)


def _finish(job: _Job, folder: JobFolder) -> Finished:
    """Write the section files asked for, the latents, and last, when nothing can be missing, the video."""
    job.output.write_sections(folder)
    if job.target.save_latents:
        metadata = {"transformer_evaluations": json.dumps(job.evaluations), "seed": str(job.seed)}
        folder.save_latents(job.target.file(".safetensors"), LATENT_CHANNELS, metadata)
    video, count = job.output.write_video(folder)
    height, width = job.size
    elapsed = time.monotonic() - job.started
    return Finished(video, count, job.plan.seconds, width, height, elapsed)


def _keep_stopped(job: _Job, folder: JobFolder) -> Generator[Event, None, Stopped]:
    """Keep what is finished; who leaves meanwhile loses nothing."""
    try:
        if folder.num_sections:
            yield StageStarted("saving")
    finally:
        kept = job.output.keep_finished(folder)
    return Stopped(kept, folder.num_sections, len(job.plan.sections))


def _until_stopped(events: Generator[Event, None, _T], job: _Job) -> Generator[Event, None, _T]:
    """Pass on a generator's events and its result, looking at the stop before each."""
    try:
        while True:
            job.check_stop()
            yield next(events)
    except StopIteration as end:
        return end.value


@contextlib.contextmanager
def _job_folder(job: _Job) -> Iterator[JobFolder]:
    """The working folder, after a look whether the output folder can be written and has the room."""
    height, width = job.size
    overlap = job.plan.size.overlap_frames
    folder = JobFolder(job.target.file(".job"), height, width, overlap)
    try:
        if job.target.file(".mp4").is_dir():
            raise InputError("output_taken", path=str(job.target.file(".mp4")))
        folder.__enter__()
        free = shutil.disk_usage(job.target.folder).free
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        reason = error.strerror or str(error)
        raise InputError("output_not_writable", path=str(job.target.folder), reason=reason) from error
    with contextlib.ExitStack() as stack:
        stack.push(folder)
        needed = bytes_needed(job.plan.pixel_frames, len(job.plan.sections), overlap, height, width)
        if free < needed:
            raise MachineError(
                "disk_too_small",
                path=str(job.target.folder),
                needed=f"{needed / 2**30:.2f}",
                free=f"{free / 2**30:.2f}",
            )
        yield folder


@contextlib.contextmanager
def _machine_errors(folder: Path) -> Iterator[None]:
    """Give the machine's own errors a name that a person can act on."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise MachineError("out_of_memory") from error
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MachineError("disk_full", path=str(folder)) from error
        reason = error.strerror or str(error)
        raise MachineError("cannot_write", path=str(error.filename or folder), reason=reason) from error
