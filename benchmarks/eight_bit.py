"""The difference that 8-bit weights make: in the demo's videos, and in a step of real-sized blocks (CPU).

Each way makes the same videos with the demo's models; what counts is PSNR against the videos of the weights
as they are. The int8 product of GPUs runs here, too, with the same numbers. `--bfloat16` takes all ways
in that dtype as well, which takes four times as long on a processor. Writes
`benchmarks/results/DATE-cpu-eight_bit.json`.

    venv/bin/python -m benchmarks.eight_bit [--only weights step videos] [--bfloat16]
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.random_weights import write_transformer
from demo_models.judging.measure import psnr, video_psnr
from demo_models.judging.motion import camera_kind, measure_camera
from demo_models.judging.pictures import Picture, draw_pictures, load_photograph
from demo_models.judging.runs import Studio, Video
from diffusers_helper.device import choose_compute
from diffusers_helper.eight_bit import linear as scaled_linear
from diffusers_helper.eight_bit.conversion import convert, with_eight_bit
from diffusers_helper.eight_bit.folder import eight_bit_folder
from diffusers_helper.eight_bit.linear import Product, int8_product, quantize
from diffusers_helper.eight_bit.shard_plan import gets_eight_bits
from diffusers_helper.eight_bit.tokens import rotate
from diffusers_helper.encoding.prompts import PromptEmbeds
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.models.streamed import stream_transformer
from diffusers_helper.sampling.denoiser import SectionDenoiser, SectionInputs
from diffusers_helper.sections import section_positions
from diffusers_helper.weights.checkpoint import Checkpoint
from diffusers_helper.weights.model_files import ModelFiles, ModelPart, find_models

ROOT = Path(__file__).resolve().parents[1]
RESOLUTION = 192
SIGMA = 0.7
GUIDANCE = 9.984
"""The app's scale, as bfloat16 rounds it: the step is to differ by the weights and products alone."""
FRAMES, SIDE = 3, 16
"""The latents of the step: 192 tokens of its own, some 500 of history, and those of text and picture."""


@dataclasses.dataclass(frozen=True)
class Way:
    """How the transformer is kept and computed."""

    name: str
    eight_bit: bool
    dtype: torch.dtype
    product: Product | None = None


WAYS = (
    Way("as they are", False, torch.float32),
    Way("8 bit made whole", True, torch.float32),
    Way("8 bit, products in int8", True, torch.float32, int8_product),
)
BFLOAT16_WAYS = tuple(
    dataclasses.replace(way, name=f"{way.name}, bfloat16", dtype=torch.bfloat16) for way in WAYS
)
"""Each way is compared with that of the weights as they are in its dtype, and that with the first."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """A video to be made: its pictures, and the values of its request."""

    name: str
    start: Picture
    values: dict[str, Any]
    end: Picture | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts: dict[str, Callable[[Path, Sequence[Way]], Iterator[dict]]] = {
        "weights": measure_weights,
        "step": measure_step,
        "videos": measure_videos,
    }
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    ways = WAYS + BFLOAT16_WAYS if options.bfloat16 else WAYS
    path = ROOT / "benchmarks" / "results" / f"{date.today()}-cpu-eight_bit.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, CPU, torch {torch.__version__}"
    for name in options.only:
        result[name] = []
        with tempfile.TemporaryDirectory() as folder:
            for row in parts[name](Path(folder), ways):
                print(json.dumps(row), flush=True)
                result[name].append(row)
                path.write_text(json.dumps(result, indent=1) + "\n")


def measure_weights(folder: Path, _ways: Sequence[Way]) -> Iterator[dict]:
    """The mean error of weights, rotated as they are kept, and without the rotation for comparison."""
    trained = find_models(ROOT / "demo_models").transformer.checkpoint
    drawn = write_transformer(folder / "random", num_layers=1, num_single_layers=1).checkpoint
    for name, checkpoint in (("the demo's", trained), ("random, real shapes", drawn)):
        errors = {"rotated": 0.0, "not rotated": 0.0}
        total = 0.0
        for weight in _block_weights(checkpoint):
            numbers, scale = quantize(weight)
            errors["rotated"] += _square(rotate(numbers.float() * scale[:, None]) - weight)
            step = weight.abs().amax(1, keepdim=True) / 127
            errors["not rotated"] += _square((weight / step).round() * step - weight)
            total += _square(weight)
        yield {"weights": name} | {kind: round((error / total) ** 0.5, 5) for kind, error in errors.items()}


def measure_step(folder: Path, ways: Sequence[Way]) -> Iterator[dict]:
    """The relative error of the velocity that a double and a single block give, in the real shapes."""
    part = write_transformer(folder / "random", num_layers=1, num_single_layers=1)
    begin = time.perf_counter()
    for _progress in convert(part, folder / "8bit"):
        pass
    seconds = time.perf_counter() - begin
    sizes = [sum(path.stat().st_size for path in place.iterdir()) for place in (part.folder, folder / "8bit")]
    yield {"converted_bytes": sizes, "seconds": round(seconds, 1)}
    small = ModelPart(part.config, Checkpoint.open(folder / "8bit"), None, is_eight_bit=True)
    made: dict[str, torch.Tensor] = {}
    for way in ways:
        begin = time.perf_counter()
        with computing(way.product):
            velocity = made[way.name] = predict(small if way.eight_bit else part, way.dtype)
        seconds = time.perf_counter() - begin
        reference = made[reference_of(way).name]
        error = float((velocity - reference).norm() / reference.norm())
        yield {"way": way.name, "relative_error": round(error, 5), "seconds": round(seconds, 1)}


def measure_videos(folder: Path, ways: Sequence[Way]) -> Iterator[dict]:
    """PSNR of each way's videos against those of the weights as they are, and against the given pictures."""
    models = folder / "models"
    shutil.copytree(ROOT / "demo_models", models, ignore=shutil.ignore_patterns("train", "judging", "*.py"))
    files = find_models(models)
    for _progress in convert(files.transformer, eight_bit_folder(models)):
        pass
    small = with_eight_bit(files, models)
    for scene in scenes():
        made: dict[str, Video] = {}
        for way in ways:
            begin = time.perf_counter()
            video = make(scene, way, small if way.eight_bit else files, models, folder)
            seconds = round(time.perf_counter() - begin, 1)
            made[way.name] = video
            row = {"scene": scene.name, "way": way.name}
            yield row | judge(scene, video, made[reference_of(way).name]) | {"seconds": seconds}


def scenes() -> list[Scene]:
    """The greeting as the app makes it, and others where no step is left out: all of them computed."""
    photograph = load_photograph(ROOT / "examples" / "coffee.png", RESOLUTION)
    hello = json.loads((ROOT / "examples" / "hello.json").read_text("utf-8"))
    del hello["start_image"]
    first, second = draw_pictures(2, RESOLUTION)
    every = {"teacache": False, "steps": 8}
    return [
        Scene("hello", photograph, hello),
        Scene("pan", photograph, {"prompt": "The camera pans left."} | every),
        Scene("end image", first, {"prompt": "Zoom in."} | every, second),
    ]


def reference_of(way: Way) -> Way:
    """The way that shows what its weights and products change."""
    return BFLOAT16_WAYS[0] if way.eight_bit and way.dtype == torch.bfloat16 else WAYS[0]


def make(scene: Scene, way: Way, files: ModelFiles, models: Path, folder: Path) -> Video:
    compute = dataclasses.replace(choose_compute("cpu"), transformer=way.dtype)
    values = {"seed": 1, "seconds": 1, "crf": 1} | scene.values  # two encodings at 16 are 41 dB apart
    prompt = values.pop("prompt")
    with computing(way.product), tempfile.TemporaryDirectory(dir=folder) as place:
        studio = Studio(models, Path(place), ModelLoader(files, compute))
        return studio.make(scene.start, prompt, scene.end, **values)


def judge(scene: Scene, video: Video, reference: Video) -> dict[str, Any]:
    """The numbers of a video: how near it is to the reference's, and both to what was asked for."""
    height, width = video.frames[0].shape[:2]
    row: dict[str, Any] = {
        "psnr": round(video_psnr(video.frames, reference.frames), 2),
        "worst_frame_psnr": round(_worst(video.frames, reference.frames), 2),
        "first_frame_to_start": round(psnr(video.frames[0], scene.start.pixels), 2),
        "motion": camera_kind(measure_camera(video.frames), height, width),
        "evaluations": video.evaluations,
    }
    if scene.end is not None:
        row["last_frame_to_end"] = round(psnr(video.frames[-1], scene.end.pixels), 2)
    return row


@contextlib.contextmanager
def computing(product: Product | None) -> Iterator[None]:
    """Have scaled layers compute in this way, whatever the device would choose."""
    original = scaled_linear.choose_product
    scaled_linear.choose_product = lambda *_, **__: product  # type: ignore[assignment]
    try:
        yield
    finally:
        scaled_linear.choose_product = original


def predict(part: ModelPart, dtype: torch.dtype) -> torch.Tensor:
    """The velocity at one noise level, of random latents, words and picture."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    config = part.config
    prompt = PromptEmbeds(
        randn(1, 512, config["text_embed_dim"]),
        torch.arange(512)[None] < 40,
        randn(1, config["pooled_projection_dim"]),
    )
    history = randn(1, 16, 20, SIDE, SIDE).split((2, 2, 16), dim=2)
    image = randn(1, 64, config["image_proj_dim"])
    inputs = SectionInputs(prompt, None, image, *history, section_positions(3, FRAMES), GUIDANCE)
    x, sigma = randn(1, 16, FRAMES, SIDE, SIDE), torch.tensor(SIGMA)
    compute = dataclasses.replace(choose_compute("cpu"), transformer=dtype)
    with stream_transformer(part, compute, 1000, None) as transformer:
        denoiser = SectionDenoiser(transformer, inputs, compute, sigma[None])
        return (x - denoiser.predict(x, sigma)) / SIGMA


def _block_weights(checkpoint: Checkpoint) -> Iterator[torch.Tensor]:
    for name, stored in checkpoint.tensors.items():
        if gets_eight_bits(name, stored):
            yield checkpoint.read(name, torch.empty(stored.num_bytes, dtype=torch.uint8)).float()


def _square(values: torch.Tensor) -> float:
    return float(values.square().sum(dtype=torch.float64))


def _worst(frames: list[np.ndarray], others: list[np.ndarray]) -> float:
    return min(psnr(frame, other) for frame, other in zip(frames, others, strict=True))


if __name__ == "__main__":
    main()
