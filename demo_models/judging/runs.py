"""Making videos for the judge: the engine itself, with the demo's models, on the processor."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusers_helper.device import choose_compute
from diffusers_helper.encoding.embedding_cache import EmbeddingCache
from diffusers_helper.events import StepDone
from diffusers_helper.job.output import Target
from diffusers_helper.media.video import read_frames
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.pipeline import generate
from diffusers_helper.request import GenerationRequest
from diffusers_helper.weights.model_files import find_models

from .pictures import Picture, write_picture

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Video:
    """A video that was made: frames `(h, w, 3)` uint8 as read from its MP4, and how often the blocks ran."""

    frames: list[np.ndarray]
    evaluations: int
    steps: int


class Studio:
    """Makes videos in a folder, one after the other."""

    def __init__(
        self, models: Path, folder: Path, loader: ModelLoader | None = None, **settings: Any
    ) -> None:
        """
        Args:
            loader: of the models, where they are not to be loaded as usual.
            settings: values of every request that are not the request's own.
        """
        self._loader = loader or ModelLoader(find_models(models), choose_compute("cpu"))
        self._models, self._folder, self._settings = models, folder, settings
        self._count = 0

    @property
    def loader(self) -> ModelLoader:
        return self._loader

    def make(self, start: Picture, prompt: str, end: Picture | None = None, **values: Any) -> Video:
        """Make a video from pictures and words; `values` are keys of a request."""
        request = self._request(start, prompt, end, values)
        self._count += 1
        name = f"video_{self._count:03d}"
        target = Target(self._folder, name)
        events = generate(
            GenerationRequest.from_dict(request),
            target,
            self._loader,
            EmbeddingCache(self._folder / "cache"),
            threading.Event(),
        )
        steps = [event.computed for event in events if isinstance(event, StepDone)]
        return Video(list(read_frames(target.file(".mp4"))), sum(steps), len(steps))

    def time_command(self, start: Picture, prompt: str, **values: Any) -> float:
        """Seconds that the command takes, from its call to the MP4, with nothing cached."""
        path = self._folder / "timed.json"
        path.write_text(json.dumps(self._request(start, prompt, None, values)), "utf-8")
        command = [sys.executable, str(ROOT / "webui" / "endframe_ichi.py"), "--headless", str(path)]
        command += ["--models", str(self._models), "--output", str(self._folder), "--name", "timed"]
        command += ["--cache", str(self._folder / "no_cache"), "--device", "cpu"]
        begin = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        return time.monotonic() - begin

    def _request(
        self, start: Picture, prompt: str, end: Picture | None, values: dict[str, Any]
    ) -> dict[str, Any]:
        pictures = self._folder / "pictures"
        request: dict[str, Any] = {"start_image": write_picture(start, pictures), "prompt": prompt}
        if end is not None:
            request["end_image"] = write_picture(end, pictures)
        height, width = start.pixels.shape[:2]
        return request | {"width": width, "height": height, "seed": 1} | self._settings | values
