"""A process of its own that makes one small video after another and tells after each what it holds.

Run by `test_streamed.py`, with settings of the C library's allocator under which memory that is freed goes
back to the system at once: then what is left is what somebody holds, to some ten kilobytes.
"""

import ctypes
import dataclasses
import gc
import json
import os
import sys
import threading
from pathlib import Path

import torch

from diffusers_helper.device import choose_compute
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import MODELS, make_request, run

ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
WARM_UP = 2
"""Jobs until everything is imported and every cache is filled."""


def main(folder: Path, jobs: int) -> None:
    torch.set_num_threads(1)
    compute = dataclasses.replace(choose_compute("cpu"), memory_limit=0)
    loader = ModelLoader(find_models(MODELS), compute)
    request = make_request(section_seconds=0.5, width=32, height=32, loop=True)
    for number in range(jobs):
        for _ in run(request, folder, loader=loader, partial_videos=True):
            pass
        if number == WARM_UP - 1:
            gc.collect()
            gc.freeze()  # what is there by now need not be looked through again and again
        sys.stdout.write(json.dumps(held()) + "\n")


def held() -> dict[str, int]:
    """Count the bytes and pieces that this process holds now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # By their types: isinstance asks the things themselves, and some of torch's then warn of their age.
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {
        "memory": int(status["RssAnon"].split()[0]) * 1024,
        "tensors": sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  (of numbers, not of paths)
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
