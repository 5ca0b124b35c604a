"""The pipeline from a request to a video: a generator of events that knows no listener."""

import secrets
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .encoding.conditioning import Conditioning, encode_all, read_pictures
from .encoding.embedding_cache import EmbeddingCache
from .errors import ErrorCode, InputError, StopRequested
from .events import (
    Event,
    Finished,
    Notice,
    Planned,
    Resumed,
    SectionDone,
    StageProgress,
    StageStarted,
    Stopped,
)
from .job.fingerprint import JobFingerprint, models_identity, request_identity
from .job.folder import LATENT_CHANNELS, JobFolder, stored_fingerprint
from .job.output import Output, Target
from .job.partial_video import PartialVideo
from .job.section_files import holds_sections
from .machine_errors import check_room, machine_errors
from .media.embedded_request import pack_request
from .media.visible import judge
from .models.loading import ModelLoader
from .models.streamed import StreamedTransformer
from .models.vram_budget import count_tokens, vae_budget
from .plan import Plan, Section, make_plan
from .request import GenerationRequest
from .sampling.section import SectionSampler
from .sections import FRAMES_PER_LATENT, HISTORY_FRAMES, TILE_STRIDE, pixel_frames
from .vae.codec import decode_to, watch_for_black
from .weights.contents import check_contents, record_in

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo


TILE_FRAMES = TILE_STRIDE * FRAMES_PER_LATENT
"""The frames that each of the VAE's tiles adds to those before."""
NUM_JUDGED = 5
"""The number of frames of the first section by which it is judged."""


@dataclass(frozen=True)
class _Job:
    """The decisions made at the beginning of a job, and the objects that write its files."""

    request: GenerationRequest
    plan: Plan
    pictures: dict[str, np.ndarray]
    seed: int
    loader: ModelLoader
    stop: threading.Event
    folder: JobFolder
    output: Output
    partial: PartialVideo | None
    started: float = field(default_factory=time.monotonic)

    @property
    def num_sections(self) -> int:
        return len(self.plan.sections)

    def write_partial(self) -> Path | None:
        """Write the partial video where one is asked for; after the last section, the whole one is next."""
        if self.partial is None or self.folder.num_sections == self.num_sections:
            return None
        return self.partial.write()

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
    """Make a video: encode, then section by section sample, decode and store, then write the MP4.

    Sections are stored in the target's working folder as soon as they are made. However the work ends, the
    next run with the same request and target goes on behind them, to the same video. Setting `stop` ends it
    before the next step; the sections finished by then, or before a failure, are also written as
    `NAME_unfinished.mp4`. A stop before there is anything to keep leaves nothing. The last event is Finished
    or Stopped.

    Raises:
        InputError: a picture, the models or the output folder cannot be used; the working folder holds
            sections of another request.
        MachineError: the disk is full, memory ran out, or numbers are not finite.
    """
    plan = make_plan(request)
    with machine_errors(target.folder):
        pictures = read_pictures(request, plan)
        notices: list[Notice] = []
        if not stop.is_set():  # verifying takes a while
            notices += loader.verify()
            check_contents(loader.files, record_in(cache.folder), stop)
        target.check()
    height, width = pictures[plan.start].shape[:2]
    work = target.working_folder
    with machine_errors(work), JobFolder(work, height, width, plan.size.overlap_frames) as folder:
        num_bytes = plan.decoded_frames * pictures[plan.start].nbytes
        check_room(folder.path, num_bytes - folder.num_bytes)
        check_room(target.folder, num_bytes // 10)
        fingerprint = _fingerprint_of(request, pictures, loader, folder)
        damaged = folder.resume(fingerprint, [section.is_last for section in plan.sections])
        packed = pack_request(target.portable(request), pictures, fingerprint.seed)
        output = Output(target, request, plan, folder, packed)
        folder.write_request(output.packed)
        partial = PartialVideo(folder) if target.partial_videos else None
        job = _Job(request, plan, pictures, fingerprint.seed, loader, stop, folder, output, partial)
        yield Planned(plan, width, height, job.seed)
        if damaged is not None:
            notices.append(Notice("section_damaged", {"section": damaged + 1, "sections": job.num_sections}))
        try:
            yield from notices
            end: Event = yield from _make_video(job, cache)
        except StopRequested:
            end = yield from _keep_stopped(job)
        except BaseException:  # finished sections can be watched however the job ends
            output.write_unfinished()
            raise
        yield end  # before the folder goes, with the video so far that somebody may be watching


def _make_video(job: _Job, cache: EmbeddingCache) -> Generator[Event, None, Finished]:
    """Make the sections that are not stored yet, then the job's files."""
    folder, output = job.folder, job.output
    if folder.num_sections:
        yield Resumed(folder.num_sections, job.num_sections, folder.num_frames, job.write_partial())
    if folder.num_sections < job.num_sections:
        conditioning = yield from _encode(job, cache)
        with machine_errors(output.target.folder):
            output.write_start(job.pictures[job.plan.start])
        try:
            yield from _make_sections(job, conditioning)
        except StopRequested:
            if not holds_sections(folder.path):
                output.delete_start()
            raise
    yield StageStarted("saving")
    return (yield from _finish(job))


def _fingerprint_of(
    request: GenerationRequest, pictures: dict[str, np.ndarray], loader: ModelLoader, folder: JobFolder
) -> JobFingerprint:
    """Return the job's fingerprint, with the stored sections' seed where the request leaves it open.

    Raises InputError if the stored sections belong to another job, or were made by other models.
    """
    identity, models = request_identity(request, pictures), models_identity(loader.files)
    kept = stored_fingerprint(folder.path)
    if kept is not None:
        is_same = kept.identity == identity and request.seed in (None, kept.seed)
        if is_same and kept.models == models:
            return kept
        if holds_sections(folder.path):  # else nothing is lost
            code: ErrorCode = "unfinished_other_models" if is_same else "unfinished_other"
            raise InputError(code, path=str(folder.path))
    return JobFingerprint(
        identity, models, secrets.randbelow(2**32) if request.seed is None else request.seed
    )


def _make_sections(job: _Job, conditioning: Conditioning) -> Generator[Event, None, None]:
    """Sample, decode and store each section that is not there yet, from the video's end backwards."""
    folder, loader, compute = job.folder, job.loader, job.loader.compute
    start, history = conditioning.latents[job.plan.start], _first_history(job, conditioning)
    front = history[:, :, :0]  # as many of the video's first latents as decoding the newest section needs
    noise_shape = (1, LATENT_CHANNELS, job.plan.size.latent_frames, *start.shape[-2:])
    tokens = count_tokens(*noise_shape[-3:])
    generator = torch.Generator("cpu").manual_seed(job.seed)
    yield StageStarted("transformer")
    # The transformer takes what memory is left.
    with loader.vae(encodes=False) as vae, loader.transformer(tokens) as transformer:
        if folder.num_latents < job.num_sections and not transformer.is_prepared:
            yield StageStarted("compiling")
            transformer.prepare_blocks(tokens, compute)
            yield from _report_uncompiled(loader)
        yield from _report_int8_attention(loader, transformer)
        sampler = SectionSampler(
            *(job.request, job.num_sections, conditioning, transformer, compute, job.check_stop),
            preview_fit=loader.files.vae.config.get("latent_rgb"),
        )
        for section in job.plan.sections:
            noise = torch.randn(noise_shape, generator=generator, dtype=torch.float32)
            if section.index == folder.num_latents:
                sampled, evaluations = yield from sampler.sample(section, history, noise)
                yield from _report_uncompiled(loader)
                whole = torch.cat([*[start] * section.is_last, sampled], dim=2)
                folder.add_latents(whole, section.is_last, evaluations)
            newest = folder.latents(section.index)
            front = torch.cat([newest, front], dim=2)[:, :, : section.decoded_latent_frames]
            history = torch.cat([newest, history], dim=2)[:, :, :HISTORY_FRAMES]
            if section.index == folder.num_sections:
                yield from _decode(job, section, front, transformer, vae)


def _first_history(job: _Job, conditioning: Conditioning) -> torch.Tensor:
    """Return the history `(1, channels, HISTORY_FRAMES, h, w)` of section 0: the end picture's and zeros."""
    start = conditioning.latents[job.plan.start]
    history = start.new_zeros(1, LATENT_CHANNELS, HISTORY_FRAMES, *start.shape[-2:])
    if job.plan.end is not None:
        history[:, :, :1] = conditioning.latents[job.plan.end] * job.request.end_frame_strength
    return history


def _report_int8_attention(
    loader: ModelLoader, transformer: StreamedTransformer
) -> Generator[Event, None, None]:
    """Report, once, that attention is computed in int8."""
    if transformer.has_int8_attention and not loader.has_told_int8_attention:
        loader.has_told_int8_attention = True
        yield Notice("int8_attention", {})


def _report_uncompiled(loader: ModelLoader) -> Generator[Event, None, None]:
    """Report once why blocks are no longer compiled."""
    if (reason := loader.take_compiler_failure()) is not None:
        yield Notice("not_compiled", {"reason": reason})


def _decode(
    job: _Job,
    section: Section,
    latents: torch.Tensor,
    transformer: StreamedTransformer,
    vae: "AutoencoderKLHunyuanVideo",
) -> Generator[Event, None, None]:
    """Decode a section's latents `(1, channels, t, h, w)` and store its frames.

    A stop ends it between two windows of the VAE. It costs no step: the latents are stored.
    """
    yield StageStarted("decoding", section.index)
    job.check_stop()
    count = pixel_frames(latents.shape[2])

    def store(frames: Iterator[torch.Tensor]) -> Generator[Event, None, None]:
        checked = watch_for_black(frames, section.size.overlap_frames, job.pictures.values())
        for number in job.folder.add_frames(checked, count, section.join_weights):
            if number % TILE_FRAMES == 1 < number:  # those of one of the VAE's tiles come all at once
                yield StageProgress(number / count)
            if number < count:
                job.check_stop()

    while True:
        may_shrink = not transformer.stack.layers.num_resident  # resident layers are evicted before
        budget = vae_budget(job.loader.compute)
        try:
            yield from decode_to(store, latents, vae, budget, may_shrink, section.decoded_tiles)
            break
        except RuntimeError as error:
            if not transformer.budget.can_free_after(error):
                raise
        transformer.budget.free_some()
    if section.index == 0:
        yield from _report_looks(job)
    yield SectionDone(section.index, job.num_sections, job.folder.num_frames, job.write_partial())


def _report_looks(job: _Job) -> Iterator[Notice]:
    """Report a first section that shows nothing, hours before the others are made: no error tells of it."""
    count = job.folder.num_frames
    places = range(0, count, max(count // NUM_JUDGED, 1))
    frames = [frame for place in places for frame in job.folder.frames(place, place + 1)]
    files = job.loader.files
    match judge(frames, job.pictures.values()):
        case "flat":
            yield Notice("video_flat", {"path": str(files.vae.folder)})
        case "noise":
            yield Notice("video_noise", {"path": str(files.transformer.folder)})


def _finish(job: _Job) -> Generator[Event, None, Finished]:
    """Write the section files asked for, the latents, and last, when nothing can be missing, the video."""
    output, start = job.output, job.pictures[job.plan.start]
    with machine_errors(output.target.folder):
        output.write_start(start)
        output.write_sections()
        if output.target.save_latents:
            job.folder.save_latents(output.target.file(".safetensors"))
        written = output.write_video()
        output.delete_unfinished()
    job.folder.done = True
    if written.notice is not None:
        yield written.notice
    (height, width), elapsed = start.shape[:2], time.monotonic() - job.started
    joined = written.joined, written.joined_frames
    return Finished(written.path, written.frames, job.plan.seconds, width, height, elapsed, *joined)


def _keep_stopped(job: _Job) -> Generator[Event, None, Stopped]:
    """Keep the finished sections as a video; a listener that leaves meanwhile loses nothing."""
    try:
        if job.folder.num_sections:
            yield StageStarted("saving")
    finally:
        kept = job.output.write_unfinished()
    return Stopped(kept, job.folder.num_sections, job.num_sections)


def _encode(job: _Job, cache: EmbeddingCache) -> Generator[Event, None, Conditioning]:
    """Encode a job's prompts and pictures, checking for a stop before each event."""
    events = encode_all(job.request, job.plan, job.pictures, job.loader, cache)
    try:
        while True:
            job.check_stop()
            yield next(events)
    except StopIteration as end:
        return end.value
