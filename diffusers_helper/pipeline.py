"""From a request to a video: the recipe. A generator of events; who listens is not its business."""

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from .encoding.conditioning import Conditioning, encode_all, read_pictures
from .encoding.embedding_cache import EmbeddingCache
from .errors import InputError, StopRequested
from .events import (
    Event,
    Finished,
    Notice,
    Planned,
    Resumed,
    SectionDone,
    StageStarted,
    Stopped,
)
from .job.fingerprint import models_identity, request_identity
from .job.folder import JobFolder, JobMark, bytes_needed
from .job.output import Output, Target
from .job.partial_video import ProgressVideo
from .job.section_files import count_kept_sections
from .machine_errors import check_room, machine_errors
from .media.embedded_request import pack_request
from .models.loading import ModelLoader
from .models.streamed_transformer import StreamedTransformer, count_tokens
from .plan import Plan, Section, decoded_latent_frames, decoded_tiles, join_weights, make_plan
from .request import GenerationRequest
from .sampling.section import SectionSampler, section_inputs
from .sections import HISTORY_FRAMES, pixel_frames
from .vae.codec import decode_to, watch_for_black

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

logger = logging.getLogger(__name__)

LATENT_CHANNELS = 16
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Job:
    """One job under way: what was decided at its beginning."""

    request: GenerationRequest
    plan: Plan
    target: Target
    pictures: dict[str, np.ndarray]
    seed: int
    stop: threading.Event
    output: Output
    started: float = field(default_factory=time.monotonic)

    @property
    def start(self) -> str:
        return self.plan.start

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return _size_of(self.pictures[self.start])

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

    Sections are kept in the target's working folder as soon as they are made. Whatever ends the work, the
    next run with the same request and target goes on behind them, to the same video. Setting `stop` ends it
    before the next step; what is finished then, or when something fails, is also written as
    `NAME_unfinished.mp4`. The last event is Finished or Stopped.

    Raises:
        InputError: a picture, the models or the output folder cannot be used; the working folder holds
            sections of another request.
        MachineError: disk full, out of memory, numbers that are not numbers.
    """
    with machine_errors(target.folder):
        plan = make_plan(request)
        pictures = read_pictures(request, plan)
        if not stop.is_set():  # which takes a while
            loader.verify()
        target.check()
    with machine_errors(target.working_folder), _job_folder(plan, target, pictures) as folder:
        job, damaged = _begin(request, plan, target, pictures, loader, stop, folder)
        height, width = job.size
        yield Planned(plan, width, height, job.seed)
        try:
            progress = yield from _tell_kept(job, folder, damaged)
            if folder.num_sections < len(plan.sections):
                conditioning = yield from _until_stopped(
                    encode_all(request, plan, pictures, loader, cache), job
                )
                with machine_errors(target.folder):
                    job.output.write_start(pictures[job.start])
                yield from _make_sections(job, conditioning, loader, folder, progress)
            yield StageStarted("saving")
            end: Event = _finish(job, folder)
        except StopRequested:
            end = yield from _keep_stopped(job, folder)
        except BaseException:  # whatever ends the job, what is finished can be seen
            job.output.keep_finished(folder)
            raise
        yield end  # before the folder goes, with the video so far that somebody may be watching


def _begin(
    request: GenerationRequest,
    plan: Plan,
    target: Target,
    pictures: dict[str, np.ndarray],
    loader: ModelLoader,
    stop: threading.Event,
    folder: JobFolder,
) -> tuple[_Job, int | None]:
    """The job, and the number of a kept section that was damaged, if one was."""
    mark = _mark_of(request, pictures, loader, folder)
    damaged = folder.take_up(mark, [section.is_last for section in plan.sections])
    packed = pack_request(request, pictures, mark.seed)
    folder.write_request(packed)
    output = Output(target, request, plan, packed)
    return _Job(request, plan, target, pictures, mark.seed, stop, output), damaged


def _mark_of(
    request: GenerationRequest, pictures: dict[str, np.ndarray], loader: ModelLoader, folder: JobFolder
) -> JobMark:
    """What the job's files are told by: with the seed of what is kept, where the request leaves it open.

    Raises:
        InputError: what is kept belongs to another job, or was made by other models.
    """
    identity, models = request_identity(request, pictures), models_identity(loader.files)
    kept = folder.kept_mark()
    if kept is not None:
        is_same = kept.identity == identity and request.seed in (None, kept.seed)
        if is_same and kept.models == models:
            return kept
        if is_same and count_kept_sections(folder.path):
            raise InputError("unfinished_other_models", path=str(folder.path))
        if count_kept_sections(folder.path):  # else nothing is lost
            raise InputError("unfinished_other", path=str(folder.path))
    return JobMark(identity, models, secrets.randbelow(2**32) if request.seed is None else request.seed)


def _tell_kept(
    job: _Job, folder: JobFolder, damaged: int | None
) -> Generator[Event, None, ProgressVideo | None]:
    """Tell what an earlier run has left; returns the writer of the video so far, where there shall be one."""
    done, sections = folder.num_sections, len(job.plan.sections)
    progress = ProgressVideo(folder) if job.target.progress_videos else None
    if damaged is not None:
        yield Notice("section_damaged", {"section": damaged + 1, "sections": sections})
    if done:
        video = progress.write() if progress is not None else None
        yield Resumed(done, sections, folder.num_frames, video)
    return progress


def _make_sections(
    job: _Job,
    conditioning: Conditioning,
    loader: ModelLoader,
    folder: JobFolder,
    progress: ProgressVideo | None,
) -> Generator[Event, None, None]:
    request, size = job.request, job.plan.size
    generator = torch.Generator("cpu").manual_seed(job.seed)
    start_latent = conditioning.latents[job.start]
    history = start_latent.new_zeros(1, LATENT_CHANNELS, HISTORY_FRAMES, *start_latent.shape[-2:])
    if (end := job.plan.end) is not None:
        history[:, :, :1] = conditioning.latents[end] * request.end_frame_strength
    newest = history[:, :, :0]  # the front of what is generated, as far as decoding needs it
    yield StageStarted("transformer")
    noise_shape = (1, LATENT_CHANNELS, size.latent_frames, *history.shape[-2:])
    tokens = count_tokens(*noise_shape[-3:])
    with loader.vae_decoder() as vae, loader.transformer(tokens) as transformer:  # which takes what is left
        is_refused = yield from _tell_refused(loader, transformer)
        if folder.num_latents < len(job.plan.sections) and not transformer.is_prepared:
            yield StageStarted("compiling")
            transformer.prepare_blocks(tokens, loader.compute)
        sampler = SectionSampler(request, len(job.plan.sections), transformer, loader.compute, job.check_stop)
        for section in job.plan.sections:
            noise = torch.randn(noise_shape, generator=generator, dtype=torch.float32)
            if section.index == folder.num_latents:
                inputs = section_inputs(request, section, conditioning, history)
                sampled = yield from sampler.sample(section, inputs, noise)
                is_refused = is_refused or (yield from _tell_refused(loader, transformer))
                whole = torch.cat([*[start_latent] * section.is_last, sampled.latents], dim=2)
                folder.add_latents(whole, section.is_last, sampled.evaluations)
            latents = folder.latents(section.index, LATENT_CHANNELS)
            newest = torch.cat([latents, newest], dim=2)[:, :, : decoded_latent_frames(section, size)]
            history = torch.cat([latents, history], dim=2)[:, :, :HISTORY_FRAMES]
            if section.index == folder.num_sections:
                yield from _decode(job, section, newest, loader, transformer, vae, folder, progress)


def _tell_refused(loader: ModelLoader, transformer: StreamedTransformer) -> Generator[Event, None, bool]:
    """Tell where the attention that was asked for is not used."""
    is_refused = loader.asked_attention not in (None, transformer.attention)
    if is_refused:
        yield Notice("attention_refused", {})
    return is_refused


def _decode(
    job: _Job,
    section: Section,
    latents: torch.Tensor,
    loader: ModelLoader,
    transformer: StreamedTransformer,
    vae: "AutoencoderKLHunyuanVideo",
    folder: JobFolder,
    progress: ProgressVideo | None,
) -> Generator[Event, None, None]:
    yield StageStarted("decoding", section.index)
    size = job.plan.size

    def keep(frames: Iterator[torch.Tensor]) -> None:
        seen = watch_for_black(frames, pixel_frames(size.latent_frames), job.pictures.values())
        folder.add_frames(seen, pixel_frames(latents.shape[2]), join_weights(section, size))

    def decode() -> None:
        may_shrink = not transformer.stack.layers.num_resident  # layers are given up before
        starts = decoded_tiles(section, size)
        decode_to(keep, latents, vae, loader.vae_budget(), may_shrink, starts)

    transformer.making_room(decode)
    video = progress.write() if progress is not None else None
    yield SectionDone(section.index, len(job.plan.sections), folder.num_frames, video)


def _finish(job: _Job, folder: JobFolder) -> Finished:
    """Write the section files asked for, the latents, and last, when nothing can be missing, the video."""
    with machine_errors(job.target.folder):
        job.output.write_start(job.pictures[job.start])
        job.output.write_sections(folder)
        if job.target.save_latents:
            metadata = {"transformer_evaluations": json.dumps(folder.evaluations), "seed": str(job.seed)}
            folder.save_latents(job.target.file(".safetensors"), LATENT_CHANNELS, metadata)
        video, count = job.output.write_video(folder)
        job.output.drop_unfinished()
    folder.done = True
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
def _job_folder(plan: Plan, target: Target, pictures: dict[str, np.ndarray]) -> Iterator[JobFolder]:
    """The working folder, after a look whether the disk has room for what will lie in it."""
    height, width = _size_of(pictures[plan.start])
    with JobFolder(target.working_folder, height, width, plan.size.overlap_frames) as folder:
        needed = bytes_needed(plan.decoded_frames, height, width)
        check_room(folder.path, needed - folder.num_bytes)
        check_room(target.folder, needed // 10)
        yield folder


def _size_of(picture: np.ndarray) -> tuple[int, int]:
    height, width = picture.shape[:2]
    return height, width
