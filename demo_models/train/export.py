"""Writing trained models in the layout, names and files of the real ones, in half precision, sharded like
them."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from demo_models.random_models import TRANSFORMER, VAE, no_progress_bars, read_json, write_json
from diffusers_helper.weights.model_files import find_models

from .clips import ClipSize, draw_clips
from .normalize import normalize
from .seeds import Dice
from .sizes import Size

MODELS = "models"
"""The folder of finished models in a training's state."""
LARGEST_SET = 40_000_000
SHARD = "7MB"
REPOSITORIES = ("hunyuanvideo-community", "lllyasviel")
NORMALIZING_CLIPS = 16


def write_vae(folder: Path, vae: Any, size: Size, seed: int, device: torch.device) -> float:
    """Normalize the latents of a trained VAE and write it below `folder`; returns their deviation before."""
    dice = Dice(device, seed, "normalize")
    clip = ClipSize(17, size.vae.picture_side, size.vae.picture_side, size.transformer.unit)
    clips, _ = draw_clips(dice, NORMALIZING_CLIPS, clip)
    spread = normalize(vae, clips)
    with no_progress_bars():
        vae.half().save_pretrained(folder / VAE)
    vae.float()
    return spread


def load_vae(folder: Path, device: torch.device) -> Any:
    """The VAE as the engine computes with it: the numbers of its file."""
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo.from_pretrained(
        folder / VAE, torch_dtype=torch.float32, low_cpu_mem_usage=False
    )
    return vae.to(device).eval().requires_grad_(False)


def has_vae(folder: Path) -> bool:
    return (folder / VAE / "config.json").is_file()


def write_transformer(folder: Path, transformer: Any) -> None:
    """Write it in shards that blocks lie across, under the class name of the published checkpoint."""
    target = folder / TRANSFORMER
    shutil.rmtree(target, ignore_errors=True)
    with no_progress_bars():
        transformer.half().save_pretrained(target, max_shard_size=SHARD)
    transformer.float()
    config = read_json(target / "config.json")
    write_json(target / "config.json", config | {"_class_name": "HunyuanVideoTransformer3DModelPacked"})


def export(models: Path, target: Path) -> int:
    """Copy a complete set of models to `target`, replacing one that is there; returns its size in bytes.

    Raises:
        InputError: the set is not complete.
        ValueError: it is too large.
    """
    find_models(models)
    files = [path for name in REPOSITORIES for path in sorted((models / name).rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST_SET:
        raise ValueError(f"The models take {size / 1e6:.1f} MB; {LARGEST_SET / 1e6:.0f} are allowed.")
    for name in REPOSITORIES:
        shutil.rmtree(target / name, ignore_errors=True)
    for path in files:
        copy = target / path.relative_to(models)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    find_models(target)
    return size


def main(arguments: list[str] | None = None) -> int:
    """The command line: from a training's state to the demo's models."""
    parser = argparse.ArgumentParser(description="Copy trained models to where the app finds them.")
    parser.add_argument("--state", type=Path, required=True, help="the training's folder")
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1], help="default: demo_models")
    options = parser.parse_args(arguments)
    size = export(options.state / MODELS, options.to)
    print(f"{options.to}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
