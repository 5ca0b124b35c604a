"""The loading of weights into an empty model, from the files to the device, never twice in memory."""

import re

import torch
from torch import nn

from ..errors import InputError
from .checkpoint import Checkpoint

_PREFIXES = ("model.", "text_model.", "vision_model.")
"""The prefixes that releases of transformers put before the same tensors' names."""
_FOREIGN_SCALES = re.compile(r"(.*\.)?(scale_weight|weight_scale\w*|SCB|weight\.absmax|scaled_fp8)")
"""The names of what other programs keep beside 8-bit weights, which are wrong without it."""


def match_tensors(module: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the stored name of each tensor that `module` needs, by its name there.

    Raises:
        InputError: one is missing or has another shape, or they are another program's 8-bit weights.
    """
    if scale := next(filter(_FOREIGN_SCALES.fullmatch, checkpoint.tensors), None):
        raise InputError("weights_scaled", path=str(checkpoint.tensors[scale].path), tensor=scale)
    names = {}
    for name, tensor in module.state_dict().items():
        others = [prefix + name for prefix in _PREFIXES] + [name.removeprefix(prefix) for prefix in _PREFIXES]
        stored = next((other for other in (name, *others) if other in checkpoint.tensors), None)
        if stored is None:
            raise InputError("weights_missing", path=str(checkpoint.folder), tensor=name)
        shape = checkpoint.tensors[stored].shape
        if shape != tuple(tensor.shape):
            found, expected, path = list(shape), list(tensor.shape), str(checkpoint.folder)
            raise InputError("weights_shape", path=path, tensor=stored, found=found, expected=expected)
        names[name] = stored
    return names


def names_below(prefix: str, names: dict[str, str]) -> dict[str, str]:
    """Return the stored names of the tensors below a module, by their names in it."""
    return {name.removeprefix(prefix): stored for name, stored in names.items() if name.startswith(prefix)}


def fill(module: nn.Module, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    """Read every tensor of `module`, which is on the meta device, as `dtype` onto `device`.

    Raises the errors of `match_tensors` and of `Checkpoint.read`.
    """
    names = match_tensors(module, checkpoint)
    longest = max(checkpoint.tensors[stored].num_bytes for stored in names.values())
    staging = torch.empty(longest, dtype=torch.uint8)
    weights = {
        name: checkpoint.read(stored, staging).to(device, dtype, copy=True) for name, stored in names.items()
    }
    module.load_state_dict(weights, assign=True)
    _fill_buffers(module)
    module.to(device)


def _fill_buffers(module: nn.Module) -> None:
    """Create the buffers that no file holds: the encoders' position indices."""
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_meta:
                if name != "position_ids":
                    raise NotImplementedError(f"no rule for the buffer {name} of {type(owner).__name__}")
                owner.register_buffer(name, torch.arange(buffer.shape[-1])[None], persistent=False)
