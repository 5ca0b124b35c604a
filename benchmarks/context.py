"""The difference that decoding less of the section behind makes, against upstream's two whole sections.

Each video is put together from the same latents three ways: upstream's, the app's, and with the "fewest"
latent frames, only the tiles that begin in a section itself, also where they are out of step with what is
there. Random weights with random latents, and the demo's models with videos that the engine makes (or finds
in `--work`, as `NAME.safetensors`).

    venv/bin/python -m benchmarks.context --work DIR
"""

import argparse
import itertools
import json
import tempfile
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from demo_models.judging.measure import SMALLEST_STEP, psnr
from diffusers_helper.device import choose_compute
from diffusers_helper.encoding.embedding_cache import EmbeddingCache
from diffusers_helper.job.folder import JobFolder
from diffusers_helper.job.output import Target
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.pipeline import generate
from diffusers_helper.plan import Plan, Section, make_plan
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sections import TILE_BLEND, TILE_LATENTS, TILE_STRIDE, SectionSize
from diffusers_helper.vae.codec import decode_to
from diffusers_helper.vae.tiling import tilings_of
from diffusers_helper.weights.model_files import find_models

ROOT = Path(__file__).resolve().parents[1]
RANDOM, DEMO = ROOT / "tests" / "golden" / "models", ROOT / "demo_models"
BUDGET = 2**40
LUMA = np.array([0.2126, 0.7152, 0.0722])
DEMO_VIDEOS = {
    "zoom": {"prompt": "The camera moves in.", "seconds": 4, "seed": 1},
    "pan": {"prompt": "The camera pans left.", "seconds": 5, "seed": 3},
    "pan_half": {"prompt": "The camera pans right.", "seconds": 2, "section_seconds": 0.5, "seed": 2},
}
Way = Callable[[Section], tuple[tuple[int, ...], tuple[float, ...]]]
"""The first latent frames of a section's decoded tiles, and the weights of its last frames."""


def ours(section: Section) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return section.decoded_tiles, section.join_weights


def fewest(section: Section) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Only the tiles that begin in the section's own latent frames; the last fades out as into a next one."""
    if section.index == 0:
        return ours(section)
    tiles = tuple(range(0, section.latent_frames, TILE_STRIDE))
    shared = 4 * (tiles[-1] + TILE_LATENTS - section.latent_frames) - 3
    fade = [1 - step / (section.size.overlap_frames - 1) for step in range(shared)]
    blend = [1.0] * (shared - TILE_BLEND) + [1 - step / TILE_BLEND for step in range(TILE_BLEND)]
    return tiles, tuple(a * b for a, b in zip(fade, blend, strict=True))


def join(vae: Any, plan: Plan, latents: list[torch.Tensor], way: Way) -> np.ndarray:
    """The video `(frames, height, width, 3)` uint8 of its sections' latents, the first made first."""
    height, width = (8 * side for side in latents[0].shape[-2:])
    with (
        tempfile.TemporaryDirectory() as place,
        JobFolder(Path(place) / "job", height, width, plan.size.overlap_frames) as folder,
    ):
        for section, seen in zip(plan.sections, _seen(plan, latents), strict=True):
            tiles, weights = way(section)
            seen = seen[:, :, : tiles[-1] + TILE_LATENTS]
            frames = torch.stack([*decode_to(iter, seen, vae, BUDGET, starts=tiles)])
            list(folder.add_frames(frames, len(frames), weights))
        return np.stack(list(folder.frames()))


@torch.inference_mode()
def join_as_upstream(vae: Any, plan: Plan, latents: list[torch.Tensor]) -> np.ndarray:
    """The same video with the library's own decode, of two sections for each, and a linear cross-fade."""
    overlap = plan.size.overlap_frames
    tilings_of(*(8 * side for side in latents[0].shape[-2:]))[0].apply(vae)
    vae.use_framewise_decoding = True
    weights = torch.linspace(1, 0, overlap)[:, None, None, None]
    video = torch.empty(0)
    for section, seen in zip(plan.sections, _seen(plan, latents), strict=True):
        pixels = vae.decode(seen / vae.config.scaling_factor).sample[0]
        new = (pixels.permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5
        if section.index:
            faded = weights * new[-overlap:] + (1 - weights) * video[:overlap]
            new = torch.cat([new[:-overlap], faded, video[overlap:]])
        video = new.round()
    return video.to(torch.uint8).numpy()


def _seen(plan: Plan, latents: list[torch.Tensor]) -> list[torch.Tensor]:
    """For each section the latents that upstream decodes: its own, and one section's behind them."""
    behind = [latents[0][:, :, :0], *(section[:, :, : plan.size.latent_frames] for section in latents)]
    return [torch.cat(pair, dim=2) for pair in zip(latents, behind, strict=False)]


def measure(vae: Any, name: str, plan: Plan, latents: list[torch.Tensor]) -> list[dict]:
    """A row for each way and joint."""
    wanted = join_as_upstream(vae, plan, latents)
    rows = []
    for way in (ours, fewest):
        video = join(vae, plan, latents, way)
        for section in plan.sections[1:]:
            row = {"video": name, "way": way.__name__, "section": section.index, "last": section.is_last}
            place = 4 * sum(part.shape[2] for part in latents[section.index :])
            rows.append(row | _latents_computed(section, way) | _compare(video, wanted, place, plan))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _latents_computed(section: Section, way: Way) -> dict[str, int]:
    """Latent frames that go through the decoder, in all tiles."""
    reach = section.size.latent_frames + section.latent_frames
    computed = sum(min(TILE_LATENTS, reach - tile) for tile in way(section)[0])
    upstream = sum(min(TILE_LATENTS, reach - tile) for tile in range(0, reach, TILE_STRIDE))
    return {"latents_computed": computed, "latents_computed_upstream": upstream}


def _compare(video: np.ndarray, wanted: np.ndarray, place: int, plan: Plan) -> dict[str, float]:
    """The frames that upstream fades at a joint, which begins at frame `place`."""
    joint = slice(place, place + plan.size.overlap_frames)
    difference = np.abs(video[joint].astype(np.float32) - wanted[joint])
    pairs = zip(video[joint] @ LUMA, wanted[joint] @ LUMA, strict=True)
    return {
        "largest": int(difference.max()),
        "mean": round(float(difference.mean()), 4),
        "luma_psnr_worst_frame": round(min(psnr(a, b) for a, b in pairs), 1),
        "seam": _seam(video, joint),
        "seam_upstream": _seam(wanted, joint),
    }


def _seam(video: np.ndarray, joint: slice) -> float:
    """The largest step from frame to frame at a joint, by the median of all of the video's."""
    steps = np.array([np.abs(b.astype(np.float32) - a).mean() for a, b in itertools.pairwise(video)])
    at_joint = steps[joint.start - 1 : joint.stop]
    return round(float(at_joint.max() / max(np.median(steps), SMALLEST_STEP)), 3)


def make_demo_latents(work: Path, name: str) -> list[torch.Tensor]:
    """The latents of a video's sections, the first made first; the video is made unless it is there."""
    request = demo_request(name)
    latents, plan = demo_latents(work, name, request), make_plan(request)
    sizes = [section.latent_frames for section in reversed(plan.sections)]
    return list(reversed(latents.split(sizes, dim=2)))


def demo_latents(work: Path, name: str, request: GenerationRequest) -> torch.Tensor:
    """The latents `(1, 16, t, h, w)` of the demo's video of that name, which is made unless it is there."""
    path = work / f"{name}.safetensors"
    if not path.exists():
        loader = ModelLoader(find_models(DEMO), choose_compute("cpu"))
        target = Target(work, name, save_latents=True)
        list(generate(request, target, loader, EmbeddingCache(work / "cache"), threading.Event()))
    return load_file(path)["latents"]


def demo_request(name: str) -> GenerationRequest:
    picture = str(ROOT / "examples" / "coffee.png")
    return GenerationRequest.from_dict({"start_image": picture, "resolution": 192, **DEMO_VIDEOS[name]})


def random_case(sections: int, size: SectionSize) -> tuple[Plan, list[torch.Tensor]]:
    """Sections of random latents for a picture of 96x64."""
    seconds = sections * size.overlap_frames / 30
    values = {"start_image": "a.png", "seconds": seconds, "section_seconds": size.value}
    plan = make_plan(GenerationRequest.from_dict(values))
    assert len(plan.sections) == sections
    generator = torch.Generator().manual_seed(sections)
    counts = [section.latent_frames for section in plan.sections]
    return plan, [torch.randn(1, 16, count, 8, 12, generator=generator) for count in counts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the demo's videos lie or are made")
    options = parser.parse_args()
    rows = []
    with ModelLoader(find_models(RANDOM), choose_compute("cpu")).vae() as vae:
        for size in SectionSize:
            for sections in (2, 4):
                plan, latents = random_case(sections, size)
                rows += measure(vae, f"random, {size.name.lower()}, {sections} sections", plan, latents)
    with ModelLoader(find_models(DEMO), choose_compute("cpu")).vae() as vae:
        for name in DEMO_VIDEOS:
            latents = make_demo_latents(options.work, name)
            rows += measure(vae, f"demo, {name}", make_plan(demo_request(name)), latents)
    path = ROOT / "benchmarks" / "results" / f"{date.today()}-cpu-context.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
