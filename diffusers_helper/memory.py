"""The memory that may still be used on the device, and the errors that mean that it ran out."""

import torch

from .ram import read_ram


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: PyTorch's error, or a library's message in a RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("ALLOC_FAILED", "CUDA error: out of memory", "DefaultCPUAllocator")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def free_vram(device: torch.device, limit: int | None) -> int:
    """Return the bytes of VRAM that this process may still allocate, what its allocator caches included.

    For the CPU these are the free bytes of RAM. `limit` is the most that the process may use in all.
    """
    if device.type == "cuda":
        allocated = torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - allocated
    else:
        free, allocated = read_ram().available, 0
    return free if limit is None else min(free, limit - allocated)


def empty_cache(device: torch.device) -> None:
    """Release what PyTorch's allocator caches on a GPU, which waits for it; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
