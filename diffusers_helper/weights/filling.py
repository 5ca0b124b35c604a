"""The loading of weights into an empty model, from the files to the device, never twice in memory."""

import re

import torch
from torch import nn

from ..errors import InputError
from .checkpoint import Checkpoint

_WHOLE_NUMBERS = ("I64", "I32", "I16", "I8", "U8", "BOOL")
_PREFIXES = ("model.", "text_model.", "vision_model.")
"""The prefixes that releases of transformers put before the same tensors' names."""
_FOREIGN_SCALES = re.compile(
    r"(.*[.:])?(scale_(weight|input)|\w*weight_scale\w*|((in|out)put|[kqv])_scale\w*|\w*scale_inv|w?scales|SCB"
    r"|scaled_fp8|comfy_quant|weight_format|absmax|nested_absmax|quant_(map|state)\w*|qweight|qzeros|qscales"
    r"|g_idx|W_q|weight_(packed|shape|zero_point)|zero_points?|weight[.:]_\w+|\w*qdata)([.:].+)?"
)
"""The names of what other programs keep beside weights of 8 bits or fewer, which are wrong without it."""
_ADAPTERS = re.compile(
    r"(.*[._])?(lora|loha|lokr|hada|dora|oft|ia3)([._].*|[AB](\..*)?)|.*\.(alpha|diff|diff_b)"
)
"""The names of what a LoRA and its like add to weights."""
_UNUSED = re.compile(
    r"lm_head\.weight|norm\.weight|text_projection\.weight|logit_(scale|bias)|head\..+|(.*\.)?position_ids"
    r"|(.*\.)?rotary_emb\.inv_freq|tokenizer"
)
"""The names of tensors in published files of which the models, as they are built here, have none."""
_LAYER = re.compile(r"layers\.\d+\.(.+)")


def match_tensors(module: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the stored name of each tensor that `module` needs, by its name there.

    Raises:
        InputError: one is missing, has another shape or is no fraction; they are another program's 8-bit
            weights, or hold a LoRA.
    """
    if scale := next(filter(_FOREIGN_SCALES.fullmatch, checkpoint.tensors), None):
        raise InputError("weights_scaled", path=str(checkpoint.tensors[scale].path), tensor=scale)
    if adapter := next(filter(_ADAPTERS.fullmatch, checkpoint.tensors), None):
        raise InputError("weights_adapter", path=str(checkpoint.tensors[adapter].path), tensor=adapter)
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
        if (dtype := checkpoint.tensors[stored].dtype) in _WHOLE_NUMBERS and tensor.is_floating_point():
            path, scale = str(checkpoint.tensors[stored].path), stored.removesuffix("weight") + "scale"
            if scale in checkpoint.tensors:
                raise InputError("weights_scaled", path=path, tensor=scale)
            raise InputError("weights_whole_numbers", path=path, tensor=stored, dtype=dtype)
        names[name] = stored
    return names


def find_unknown(module: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """List the stored tensors that neither `module` needs, nor any published file has besides.

    Raises:
        InputError: one is a scale of another program's 8-bit weights.
    """
    needed = module.state_dict()
    found = checkpoint.tensors.keys() - match_tensors(module, checkpoint).values()
    unknown = [name for name in sorted(found) if not _is_unused(name, needed)]
    if scale := next((name for name in unknown if "scale" in name.rpartition(".")[2]), None):
        raise InputError("weights_scaled", path=str(checkpoint.tensors[scale].path), tensor=scale)
    return unknown


def _is_unused(name: str, needed: dict[str, torch.Tensor]) -> bool:
    """Return whether a published file has this tensor, too: also those of layers that are not built."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    layer = _LAYER.fullmatch(name)
    is_left_out = layer is not None and name not in needed and f"layers.0.{layer[1]}" in needed
    return is_left_out or _UNUSED.fullmatch(name) is not None


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
