"""The single files in which ComfyUI keeps the same models: where they lie, and their tensors' names.

All have the names and shapes of the published files, but for Comfy-Org's VAE, whose names are those of Stable
Diffusion, and whose attention is stored as convolutions of one point: the same bytes. They come without
configs and tokenizers, which are taken from the published repositories. Nothing is converted, and nothing
copied: files with fewer bits (FP8, GGUF) cannot be used.
Sources: `LoadFramePackModel` of kijai's ComfyUI-FramePackWrapper, kohya-ss's musubi-tuner, ComfyUI's
`diffusers_convert.py`, and the names in kijai's ComfyUI-HunyuanVideoWrapper, issue 307.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path

from ..errors import InputError
from .checkpoint import Checkpoint, StoredTensor

_RENAMES = (
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.down\.(\d)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"coder\.norm_out\.", "coder.conv_norm_out."),
    *((rf"\.up\.{3 - number}\.block\.", f".up_blocks.{number}.resnets.") for number in range(4)),
    *((rf"\.up\.{3 - number}\.upsample\.", f".up_blocks.{number}.upsamplers.0.") for number in range(4)),
)
"""Parts of the names of Comfy-Org's VAE, and the same in the published one."""
_POINT = (1, 1, 1)


@dataclass(frozen=True)
class SingleFile:
    """ComfyUI's file of a model.

    Attributes:
        folders: the folders below ComfyUI's `models` in which it may lie, also deeper.
        begin: a pattern of the beginning of its name, also of those with fewer bits.
        name: the name of one that can be used.
    """

    folders: tuple[str, ...]
    begin: str
    name: str

    def find(self, root: Path) -> Iterator[Path]:
        """Yield the files below ComfyUI's folder, or its `models`, whose name begins so."""
        pattern = re.compile(rf"({self.begin})([-_.].*)?\.(safetensors|gguf)", re.IGNORECASE)
        for folder in (base / name for base in (root, root / "models") for name in self.folders):
            for parent, _, names in os.walk(folder):
                yield from (Path(parent, name) for name in sorted(names) if pattern.fullmatch(name))

    def open(self, path: Path, folder: Path) -> Checkpoint | None:
        """Read a file's header; None for a file that is another than ComfyUI's. `folder` has its config.

        Raises:
            InputError: its weights have too few bits, or it is damaged.
        """
        if path.suffix.lower() == ".gguf":
            raise InputError("model_file_reduced", path=str(path), kind="GGUF", expected=self.name)
        checkpoint = Checkpoint.open_file(path, folder)
        if any(tensor.dtype.startswith("F8") for tensor in checkpoint.tensors.values()):
            raise InputError("model_file_reduced", path=str(path), kind="FP8", expected=self.name)
        if not re.fullmatch(rf"({self.begin})(_(bf|fp)(16|32))?\.safetensors", path.name, re.IGNORECASE):
            return None
        return replace(checkpoint, tensors=dict(starmap(_published, checkpoint.tensors.items())))


def _published(name: str, tensor: StoredTensor) -> tuple[str, StoredTensor]:
    """Return a tensor with its published name and shape."""
    shape = tensor.shape
    if ".attn_1." in name and shape[-len(_POINT) :] == _POINT:
        shape = shape[: -len(_POINT)]
    for pattern, published in _RENAMES:
        name = re.sub(pattern, published, name)
    return name, replace(tensor, shape=shape)
