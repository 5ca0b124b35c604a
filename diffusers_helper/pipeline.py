"""The pipeline from a request to a video: a generator of events that knows no listener."""

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
from .events import Event, Finished, Notice, Planned, Resumed, SectionDone, StageStarted, Stopped
from .job.fingerprint import JobFingerprint, models_identity, request_identity
from .job.folder import LATENT_CHANNELS, JobFolder, bytes_needed, stored_fingerprint
from .job.output import Output, Target
from .job.partial_video import PartialVideo
from .job.section_files import count_stored_sections
from .machine_errors import check_room, machine_errors
from .media.embedded_request import pack_request
from .models.loading import ModelLoader
from .models.streamed_transformer import StreamedTransformer
from .models.vram_budget import count_tokens, vae_budget
from .plan import Plan, Section, make_plan
from .request import GenerationRequest
from .sampling.section import SectionSampler, section_inputs
from .sections import HISTORY_FRAMES, pixel_frames
from .vae.codec import decode_to, watch_for_black

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Job:
    """The decisions made at the beginning of a job, and the objects that write its files."""

    request: GenerationRequest
    plan: Plan
    target: Target
    pictures: dict[str, np.ndarray]
    seed: int
    stop: threading.Event
    folder: JobFolder
    output: Output
    progress: PartialVideo | None
    started: float = field(default_factory=time.monotonic)

    @property
    def num_sections(self) -> int:
        return len(self.plan.sections)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width in pixels."""
        height, width = self.pictures[self.plan.start].shape[:2]
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
    """Make a video: encode, then section by section sample, decode and store, then write the MP4.

    Sections are stored in the target's working folder as soon as they are made. However the work ends, the
    next run with the same request and target goes on behind them, to the same video. Setting `stop` ends it
    before the next step; the sections finished by then, or before a failure, are also written as
    `NAME_unfinished.mp4`. The last event is Finished or Stopped.

    Raises:
        InputError: a picture, the models or the output folder cannot be used; the working folder holds
            sections of another request.
        MachineError: the disk is full, memory ran out, or numbers are not finite.
    """
    plan = make_plan(request)
    with machine_errors(target.folder):
        pictures = read_pictures(request, plan)
        if not stop.is_set():  # verifying takes a while
            loader.verify()
        target.check()
    with machine_errors(target.working_folder), _job_folder(plan, target, pictures) as folder:
        job, damaged = _begin(request, plan, target, pictures, loader, stop, folder)
        height, width = job.size
        yield Planned(plan, width, height, job.seed)
        try:
            yield from _report_stored(job, damaged)
            if folder.num_sections < job.num_sections:
                encoding = encode_all(request, plan, pictures, loader, cache)
                conditioning = yield from _until_stopped(encoding, job)
                with machine_errors(target.folder):
                    job.output.write_start(pictures[plan.start])
                yield from _make_sections(job, conditioning, loader)
            yield StageStarted("saving")
            end: Event = _finish(job)
        except StopRequested:
            end = yield from _keep_stopped(job)
        except BaseException:  # finished sections can be watched however the job ends
            job.output.write_unfinished(folder)
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
    """Open the job; return it and the index of a stored section that was damaged, if one was."""
    fingerprint = _fingerprint_of(request, pictures, loader, folder)
    damaged = folder.resume(fingerprint, [section.is_last for section in plan.sections])
    packed = pack_request(request, pictures, fingerprint.seed)
    folder.write_request(packed)
    output = Output(target, request, plan, packed)
    progress = PartialVideo(folder) if target.partial_videos else None
    return _Job(request, plan, target, pictures, fingerprint.seed, stop, folder, output, progress), damaged


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
        if is_same and count_stored_sections(folder.path):
            raise InputError("unfinished_other_models", path=str(folder.path))
        if count_stored_sections(folder.path):  # else nothing is lost
            raise InputError("unfinished_other", path=str(folder.path))
    return JobFingerprint(
        identity, models, secrets.randbelow(2**32) if request.seed is None else request.seed
    )


def _report_stored(job: _Job, damaged: int | None) -> Generator[Event, None, None]:
    """Report the sections that an earlier run has left, and one that was damaged."""
    done = job.folder.num_sections
    if damaged is not None:
        yield Notice("section_damaged", {"section": damaged + 1, "sections": job.num_sections})
    if done:
        video = job.progress.write() if job.progress is not None else None
        yield Resumed(done, job.num_sections, job.folder.num_frames, video)


def _make_sections(
    job: _Job, conditioning: Conditioning, loader: ModelLoader
) -> Generator[Event, None, None]:
    """Sample, decode and store each section that is not there yet, from the video's end backwards."""
    latents = _Latents.at_the_end(job, conditioning)
    noise_shape = (1, LATENT_CHANNELS, job.plan.size.latent_frames, *latents.start.shape[-2:])
    tokens = count_tokens(*noise_shape[-3:])
    generator = torch.Generator("cpu").manual_seed(job.seed)
    yield StageStarted("transformer")
    with loader.vae_decoder() as vae, loader.transformer(tokens) as transformer:  # which takes what is left
        is_refused = yield from _report_refused(loader, transformer)
        if job.folder.num_latents < job.num_sections and not transformer.is_prepared:
            yield StageStarted("compiling")
            transformer.prepare_blocks(tokens, loader.compute)
        sampler = SectionSampler(job.request, job.num_sections, transformer, loader.compute, job.check_stop)
        for section in job.plan.sections:
            noise = torch.randn(noise_shape, generator=generator, dtype=torch.float32)
            if section.index == job.folder.num_latents:
                inputs = section_inputs(job.request, section, conditioning, latents.history)
                sampled, evaluations = yield from sampler.sample(section, inputs, noise)
                is_refused = is_refused or (yield from _report_refused(loader, transformer))
                whole = torch.cat([*[latents.start] * section.is_last, sampled], dim=2)
                job.folder.add_latents(whole, section.is_last, evaluations)
            latents.prepend(job.folder.latents(section.index), section)
            if section.index == job.folder.num_sections:
                yield from _decode(job, section, latents.front, loader, transformer, vae)


@dataclass
class _Latents:
    """The latents of the video's end so far, as the next section needs them: `(1, channels, t, h, w)`.

    Attributes:
        start: the start picture's, of one frame.
        history: the first `HISTORY_FRAMES`; before there are as many, the end picture's and zeros.
        front: the first ones, as many as decoding the newest section needs.
    """

    start: torch.Tensor
    history: torch.Tensor
    front: torch.Tensor

    @classmethod
    def at_the_end(cls, job: _Job, conditioning: Conditioning) -> "_Latents":
        """The latents before any section is made."""
        start = conditioning.latents[job.plan.start]
        history = start.new_zeros(1, LATENT_CHANNELS, HISTORY_FRAMES, *start.shape[-2:])
        if job.plan.end is not None:
            history[:, :, :1] = conditioning.latents[job.plan.end] * job.request.end_frame_strength
        return cls(start, history, history[:, :, :0])

    def prepend(self, latents: torch.Tensor, section: Section) -> None:
        """Put a section's latents in front."""
        self.front = torch.cat([latents, self.front], dim=2)[:, :, : section.decoded_latent_frames]
        self.history = torch.cat([latents, self.history], dim=2)[:, :, :HISTORY_FRAMES]


def _report_refused(loader: ModelLoader, transformer: StreamedTransformer) -> Generator[Event, None, bool]:
    """Report if the requested attention is not used; return whether it was reported."""
    is_refused = loader.requested_attention not in (None, transformer.attention)
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
) -> Generator[Event, None, None]:
    """Decode a section's latents `(1, channels, t, h, w)` and store its frames."""
    yield StageStarted("decoding", section.index)

    def store(frames: Iterator[torch.Tensor]) -> None:
        checked = watch_for_black(frames, section.size.overlap_frames, job.pictures.values())
        job.folder.add_frames(checked, pixel_frames(latents.shape[2]), section.join_weights)

    def decode() -> None:
        may_shrink = not transformer.stack.layers.num_resident  # resident layers are evicted before
        decode_to(store, latents, vae, vae_budget(loader.compute), may_shrink, section.decoded_tiles)

    transformer.budget.retry_on_oom(decode)
    video = job.progress.write() if job.progress is not None else None
    yield SectionDone(section.index, job.num_sections, job.folder.num_frames, video)


def _finish(job: _Job) -> Finished:
    """Write the section files asked for, the latents, and last, when nothing can be missing, the video."""
    with machine_errors(job.target.folder):
        job.output.write_start(job.pictures[job.plan.start])
        job.output.write_sections(job.folder)
        if job.target.save_latents:
            metadata = {"transformer_evaluations": json.dumps(job.folder.evaluations), "seed": str(job.seed)}
            job.folder.save_latents(job.target.file(".safetensors"), metadata)
        video, count = job.output.write_video(job.folder)
        job.output.delete_unfinished()
    job.folder.done = True
    height, width = job.size
    elapsed = time.monotonic() - job.started
    return Finished(video, count, job.plan.seconds, width, height, elapsed)


def _keep_stopped(job: _Job) -> Generator[Event, None, Stopped]:
    """Keep the finished sections as a video; a listener that leaves meanwhile loses nothing."""
    try:
        if job.folder.num_sections:
            yield StageStarted("saving")
    finally:
        kept = job.output.write_unfinished(job.folder)
    return Stopped(kept, job.folder.num_sections, job.num_sections)


def _until_stopped(events: Generator[Event, None, _T], job: _Job) -> Generator[Event, None, _T]:
    """Pass on a generator's events and its result, checking for a stop before each."""
    try:
        while True:
            job.check_stop()
            yield next(events)
    except StopIteration as end:
        return end.value


@contextlib.contextmanager
def _job_folder(plan: Plan, target: Target, pictures: dict[str, np.ndarray]) -> Iterator[JobFolder]:
    """Open the working folder, if the disk has room for its sections."""
    height, width = pictures[plan.start].shape[:2]
    with JobFolder(target.working_folder, height, width, plan.size.overlap_frames) as folder:
        needed = bytes_needed(plan.decoded_frames, height, width)
        check_room(folder.path, needed - folder.num_bytes)
        check_room(target.folder, needed // 10)
        yield folder
