"""The state of a training on the disk: many small files, and a log that can be drawn.

`STATE/<stage>/` holds `progress.json` and tensors in files of at most 15 MiB, replaced as a whole, so that
a stop at any moment leaves the last one. `STATE/log.jsonl` grows by a line for each report. A packed state
holds only the averaged weights, in half precision: it is small enough to travel, and what goes on from it
is not the same to the bit.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FILE_BYTES = 15 * 2**20
PROGRESS = "progress.json"
LOG = "log.jsonl"


def save_state(folder: Path, progress: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Replace the state in `folder`. Raises OSError where the disk does not take it; the old one stays
    then."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for number, part in enumerate(_parts(tensors)):
        save_file(part, new / f"tensors-{number:03d}.safetensors")
    (new / PROGRESS).write_text(json.dumps(progress, indent=2) + "\n", "utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """The last state that was saved as a whole, None where there is none."""
    for place in (folder, folder.with_name(folder.name + ".old")):
        if (place / PROGRESS).is_file():
            progress = json.loads((place / PROGRESS).read_text("utf-8"))
            tensors: dict[str, torch.Tensor] = {}
            for path in sorted(place.glob("tensors-*.safetensors")):
                tensors |= load_file(path)
            return progress, tensors
    return None


def pack(source: Path, target: Path) -> None:
    """Copy a state for a journey: the averages alone, in half precision."""
    found = load_state(source)
    if found is None:
        raise FileNotFoundError(f"{source} holds no state.")
    progress, tensors = found
    averages = {name: tensor.half() for name, tensor in tensors.items() if name.startswith("average.")}
    save_state(target, progress | {"packed": True}, averages)


def write_log(folder: Path, line: dict[str, Any]) -> None:
    """Add a line to the log, and when it was."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"time": round(time.time(), 1)}) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log; of steps that were done twice, after a stop without a state, the later ones."""
    try:
        texts = (folder / LOG).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for text in texts:
        line = json.loads(text)
        lines[line["stage"], line["what"], line["step"]] = line
    return sorted(lines.values(), key=lambda line: (line["stage"], line["step"]))


def _parts(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Tensors on the CPU, in groups of at most FILE_BYTES (a larger one alone)."""
    parts: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if parts[-1] and filled + size > FILE_BYTES:
            parts.append({})
            filled = 0
        parts[-1][name] = tensor.detach().to("cpu", copy=True).contiguous()
        filled += size
    return parts
