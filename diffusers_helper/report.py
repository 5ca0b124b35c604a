"""The measurements behind a report on this machine: real steps, short videos, the engine's own choices.

Yields the figures of part after part as plain values under English names, for those who help from afar. What
fails is a figure, too, and the rest goes on. Importing it imports torch. Knows no page and writes no report.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .eight_bit.conversion import make_eight_bit, with_eight_bit
from .eight_bit.folder import choose_root, eight_bit_folder, is_converted, room_for_eight_bit
from .encoding.conditioning import encode_all, read_pictures
from .encoding.embedding_cache import EmbeddingCache
from .engine import Engine, EngineConfig
from .errors import StopRequested
from .events import StageProgress
from .job.folder import LATENT_CHANNELS
from .kernels import relative_error
from .limits import GIB
from .measuring.machine import describe_device, list_versions, measure_memory
from .measuring.steps import Case, Step, Values, WatchedBlocks, describe_choices, measure_steps
from .measuring.videos import Stopwatch, make_video, psnr
from .models.loading import ModelLoader
from .models.streamed import StreamedTransformer
from .plan import make_plan
from .request import GenerationRequest, field_limits
from .sampling.section import section_inputs
from .sections import HISTORY_FRAMES
from .vae.feature_maps import choose_unfold_frames
from .weights.checkpoint import Checkpoint
from .weights.model_files import ModelFiles

__all__ = ["Figures", "PartStarted", "ReportOptions", "StageProgress", "Step", "measure"]

logger = logging.getLogger(__name__)

Part = Literal[
    "machine", "encoding", "exact_steps", "exact_videos", "eight_bit_steps", "eight_bit_video", "memory"
]
PROMPT = "The camera pans left."
SEED = 1
THRESHOLDS = (None, 0.15, 0.40)
"""TeaCache's thresholds of the videos; None is off."""
SIZES = (1.0, 0.75, 0.5, 0.4)
"""The sizes of the videos in units of the steps' resolution: the largest with fast steps is taken."""
STEP_SECONDS = 4.0
"""Seconds of a video's step at most, as far as the smallest size allows it: there are about 50."""
FIRST_WAY_STEPS, NEXT_WAY_STEPS = 3, 2
"""The fewest steps of the first way, in which layers may be kept in RAM after the second, and of others."""


@dataclass(frozen=True)
class ReportOptions:
    """The case to measure: a picture, the resolution of its steps, a folder for what is made meanwhile.

    With `makes_eight_bit`, 8-bit weights are made where they are not there.
    """

    picture: Path
    resolution: int
    work: Path
    makes_eight_bit: bool = False


@dataclass(frozen=True)
class PartStarted:
    """A part of the measurements begins; `number` counts from 1."""

    part: Part
    number: int
    parts: int


@dataclass(frozen=True)
class Figures:
    """The figures of one part, as far as they could be had."""

    part: Part
    values: Values


class NotMeasured(Exception):  # noqa: N818  (an ordinary outcome, not an error)
    """Ends a part that cannot be measured here; its text says why."""


Work = Generator[Step | StageProgress, None, None]
Progress = PartStarted | Step | StageProgress | Figures


def measure(config: EngineConfig, options: ReportOptions, stop: threading.Event) -> Iterator[Progress]:
    """Measure part after part; setting `stop` ends it after the next step with the figures until then.

    `config` says where 8-bit weights may be; what it names is used as jobs use it, and nothing is left behind
    but compiled blocks, and 8-bit weights where they were asked for.
    """
    measuring = _Measuring(config, options, stop)
    works: dict[Part, Callable[[Values], Work]] = {
        "machine": measuring.machine,
        "encoding": measuring.encoding,
        "exact_steps": measuring.exact_steps,
        "exact_videos": measuring.exact_videos,
        "eight_bit_steps": measuring.eight_bit_steps,
        "eight_bit_video": measuring.eight_bit_video,
        "memory": measuring.memory,
    }
    for number, (part, work) in enumerate(works.items(), start=1):
        yield PartStarted(part, number, len(works))
        values: Values = {}
        try:
            with _noting_failure(values):
                yield from work(values)
        except StopRequested:
            yield Figures(part, values)
            return
        yield Figures(part, values)


@contextlib.contextmanager
def _noting_failure(values: Values) -> Iterator[None]:
    """Put what the block raises into the figures, but for a stop."""
    try:
        yield
    except StopRequested:
        raise
    except NotMeasured as reason:
        values["not measured"] = str(reason)
    except Exception as error:
        logger.info("a part of the report failed", exc_info=True)
        values["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]


class _Measuring:
    """The parts of one report; later ones use what earlier ones have found."""

    def __init__(self, config: EngineConfig, options: ReportOptions, stop: threading.Event) -> None:
        self._config, self._options, self._stop = config, options, stop
        self._cache = EmbeddingCache(options.work / "cache")
        self._engine: Engine | None = None
        self._request = self._make_request(options.resolution)
        self._case: Case | None = None
        self._step_seconds = math.inf
        self._first_x0: torch.Tensor | None = None
        self._video_request: GenerationRequest | None = None
        self._exact_frames: np.ndarray | None = None
        self._eight_bit: ModelFiles | None = None

    @property
    def engine(self) -> Engine:
        """The engine, whose models are the exact ones until others are asked for."""
        if self._engine is None:
            raise NotMeasured("the engine cannot use this machine")
        return self._engine

    def machine(self, values: Values) -> Work:
        values["versions"] = list_versions()
        self._engine = Engine(replace(self._config, eight_bit_roots=()))
        values |= describe_device(self._engine.compute)
        values["blocks are compiled"] = self._engine.uncompiled or "yes"
        values["VAE unfolds with"] = choose_unfold_frames(self._engine.compute.device).__name__
        yield from ()

    def encoding(self, values: Values) -> Work:
        """Encode prompt and picture as a job does."""
        loader = self.engine.load(self._config.models)
        plan, watch = make_plan(self._request), Stopwatch()
        pictures = read_pictures(self._request, plan)
        values["seconds by stage"] = watch.seconds
        encoding = encode_all(self._request, plan, pictures, loader, self._cache)
        while True:
            self._check_stop()
            try:
                watch.see(next(encoding))
            except StopIteration as end:
                conditioning = end.value
                break
        watch.see(None)
        start = conditioning.latents[plan.start]
        history = start.new_zeros(1, LATENT_CHANNELS, HISTORY_FRAMES, *start.shape[-2:])
        (section,) = plan.sections
        generator = torch.Generator("cpu").manual_seed(SEED)
        shape = 1, LATENT_CHANNELS, plan.size.latent_frames, *start.shape[-2:]
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        self._case = Case(section_inputs(self._request, conditioning, section, history), noise)
        values["size"] = f"{start.shape[-1] * 8}x{start.shape[-2] * 8}"
        values["tokens"] = self._case.tokens
        yield from ()

    def exact_steps(self, values: Values) -> Work:
        yield from self._steps(self.engine.load(self._config.models), values)

    def exact_videos(self, values: Values) -> Work:
        """Make the video without TeaCache, and with it at each threshold."""
        loader = self.engine.load(self._config.models)
        resolution = self._choose_resolution()
        for threshold in THRESHOLDS:
            name = "TeaCache off" if threshold is None else f"TeaCache {threshold:.2f}"
            values[name] = video = Values()
            with _noting_failure(video):
                request = self._make_request(resolution, threshold)
                frames = yield from self._video(request, loader, video)
                if threshold is None:
                    self._exact_frames, self._video_request = frames, request

    def eight_bit_steps(self, values: Values) -> Work:
        files = yield from self._find_eight_bit(values)
        values["largest row scale"] = largest_row_scale(files.transformer.checkpoint)
        self._eight_bit = files
        yield from self._steps(self.engine.load(files), values)

    def eight_bit_video(self, values: Values) -> Work:
        if self._eight_bit is None:
            raise NotMeasured("there are no 8-bit weights")
        request = self._video_request or self._make_request(self._choose_resolution())
        yield from self._video(request, self.engine.load(self._eight_bit), values)

    def memory(self, values: Values) -> Work:
        values |= measure_memory()
        yield from ()

    # -- what parts share ----------------------------------------------------------------------------------

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StopRequested

    def _make_request(self, resolution: int, threshold: float | None = None) -> GenerationRequest:
        values = {"start_image": str(self._options.picture), "prompt": PROMPT, "seed": SEED}
        teacache = {"teacache": threshold is not None, "teacache_threshold": threshold or 0.4}
        return GenerationRequest.from_dict({**values, "seconds": 1, "resolution": resolution, **teacache})

    def _choose_resolution(self) -> int:
        """Choose the largest resolution at which a video takes not too long; tokens go by its square."""
        fitting = (size for size in SIZES if self._step_seconds * size**2 <= STEP_SECONDS)
        chosen = round(self._options.resolution * next(fitting, SIZES[-1]))
        return max(chosen, int(field_limits("resolution")[0]))

    def _steps(self, loader: ModelLoader, values: Values) -> Work:
        """Measure steps with the blocks as they are, then with compiled ones."""
        if self._case is None:
            raise NotMeasured("prompt and picture could not be encoded")
        case, compute, engine = self._case, self.engine.compute, self.engine
        with loader.vae(encodes=False), loader.transformer(case.tokens) as transformer:  # as a job does
            stack, runner = transformer.stack, transformer.stack.runner
            values["choices"] = choices = describe_choices(transformer)
            values["not compiled"], values["compiled"] = plain, compiled = Values(), Values()
            stack.runner = watched = WatchedBlocks([layer.kind for layer in stack.layers.layers])
            with _noting_failure(plain):
                yield from self._way(transformer, plain, FIRST_WAY_STEPS)
            choices["8-bit products"] = watched.products or "none"
            values["largest |x| behind a block, latents and text"] = watched.largest()
            stack.runner = runner
            with _noting_failure(compiled):
                if engine.uncompiled is not None:
                    raise NotMeasured(engine.uncompiled)
                begin = time.perf_counter()
                transformer.prepare_blocks(case.tokens, compute)
                compiled["seconds of compiling"] = round(time.perf_counter() - begin, 1)
                if not stack.runner.is_compiling:
                    raise NotMeasured(loader.take_compiler_failure() or "memory ran out while compiling")
                yield from self._way(transformer, compiled, NEXT_WAY_STEPS)

    def _way(self, transformer: StreamedTransformer, values: Values, fewest: int) -> Work:
        assert self._case is not None
        case, compute = self._case, self.engine.compute
        first = yield from measure_steps(transformer, case, compute, self._check_stop, values, fewest)
        self._step_seconds = min(self._step_seconds, values["seconds a step"][-1])
        if self._first_x0 is None:
            self._first_x0 = first
        values["error of the first step"] = round(relative_error(first, self._first_x0), 5)

    def _video(
        self, request: GenerationRequest, loader: ModelLoader, values: Values
    ) -> Generator[Step, None, np.ndarray]:
        frames = yield from make_video(request, loader, self._options.work, self._cache, self._stop, values)
        if self._exact_frames is not None:
            decibels = psnr(frames, self._exact_frames)
            values["PSNR to the exact video"] = "equal" if math.isinf(decibels) else round(decibels, 2)
        return frames

    def _find_eight_bit(self, values: Values) -> Generator[StageProgress, None, ModelFiles]:
        """Return the models with 8-bit weights, made now where that was asked for."""
        files, roots = self._config.models, self._config.eight_bit_roots
        source, root = files.transformer, choose_root(files.transformer, roots)
        if not is_converted(folder := eight_bit_folder(root), source):
            if not self._options.makes_eight_bit:
                size = f"{room_for_eight_bit(source, roots)[1] / GIB:.1f} GiB"
                raise NotMeasured(f"there are no 8-bit weights; --eight-bit makes them first ({size})")
            begin = time.perf_counter()
            for event in make_eight_bit(source, folder, self.engine.compute.device, self._stop):
                if isinstance(event, StageProgress):
                    yield event
            values["seconds of making them"] = round(time.perf_counter() - begin, 1)
        return with_eight_bit(files, root)


def largest_row_scale(checkpoint: Checkpoint) -> dict[str, float]:
    """Return the largest scale of a row in 8-bit weights, by the name of its tensor."""
    scales = {
        name: checkpoint.read(name, torch.empty(stored.num_bytes, dtype=torch.uint8)).max().item()
        for name, stored in checkpoint.tensors.items()
        if name.endswith(".scale")
    }
    name = max(scales, key=scales.__getitem__)
    return {name: scales[name]}
