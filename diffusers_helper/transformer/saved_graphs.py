"""Compiled functions of blocks that outlive the process, so that the next start traces nothing again.

They are made ahead of time (`torch.compile(...).aot_compile`, torch 2.9 and later), each for one kind of
block, one attention backend and one machine. What cannot be made or read is only logged: blocks are then
compiled when they are called.
"""

import hashlib
import io
import logging
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files.checksummed import read_metadata, write_checksummed
from ..files.compiler_failure import installed_versions
from ..memory import is_out_of_memory

logger = logging.getLogger(__name__)

COMPILED_FORWARD = "compiled_forward"
"""The attribute of a block that holds a function of it and its arguments, which is compiled in its place."""
ENGINE = Path(__file__).resolve().parents[1]
CODE = ("transformer", "eight_bit")
"""The rooms whose code is compiled."""
CHECKED_GUARDS = ("SHAPE_ENV", "TENSOR_MATCH")
"""The kinds of guards that are kept: what else a graph depends on is in its name."""


class SavedGraphs:
    """The files of compiled functions in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(
        self, function: Callable[..., Any], block: nn.Module, arguments: Sequence[Any], attention: str
    ) -> Callable[..., Any] | None:
        """Return `function` compiled for a block with such arguments, from its file or made and stored now.

        Any failure is logged, none is raised but one: None where it cannot be had this way.

        Raises:
            torch.OutOfMemoryError: there is too little memory.
        """
        try:
            path = self._folder / f"{type(block).__name__}-{_key(block, arguments, attention)}.graph"
            return self._load(path) or self._make(path, function, (block, *arguments))
        except Exception as error:  # a compiler may raise anything
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            logger.info("no graph is made ahead of time: %s", reason)
            return None

    def _load(self, path: Path) -> Callable[..., Any] | None:
        """Return the function in a file; None where the file is not there, damaged, or refused by PyTorch."""
        try:
            if read_metadata(path) is None:
                return None
            loaded = torch.compiler.load_compiled_function(io.BytesIO(path.read_bytes()))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            logger.info("%s cannot be read: %s", path.name, error)
            return None
        logger.info("%s is read", path.name)
        return loaded

    def _make(
        self, path: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Callable[..., Any]:
        options: dict[str, Any] = {"guard_filter_fn": _are_checked}
        # A float that is no constant has the compiler begin anew, which this way of compiling cannot.
        settings = {"specialize_float": True, "enable_aot_compile": True}  # the second until torch 2.11
        config: Any = torch._dynamo.config
        with config.patch({name: value for name, value in settings.items() if hasattr(config, name)}):
            lazy: Any = torch.compile(function, fullgraph=True, dynamic=True, options=options)
            made = lazy.aot_compile((arguments, {}))
        try:
            _store(made, path)
        except Exception:  # what holds objects that cannot be written serves until the end of this process
            logger.info("%s is not kept", path.name, exc_info=True)
        return made


def _are_checked(guards: Sequence[Any]) -> list[bool]:
    return [guard.guard_type in CHECKED_GUARDS for guard in guards]


def _store(made: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix(".plain")
    try:
        made.save_compiled_function(str(plain))
        write_checksummed(path, [plain.read_bytes()], {})
    finally:
        plain.unlink(missing_ok=True)


def _key(block: nn.Module, arguments: Sequence[Any], attention: str) -> str:
    """Return a digest of everything that decides a block's graph, or the code that is made from it."""
    tensors = [(name, *_described(tensor)) for name, tensor in block.state_dict().items()]
    products = [str(getattr(module, "product", "")).partition(" at ")[0] for module in block.modules()]
    forward = getattr(block, COMPILED_FORWARD, None)
    functions = [getattr(each, "__name__", "") for each in forward.args] if forward else None
    facts: list[Any] = [functions, sys.version, platform.machine(), attention, tensors, products]
    facts += [installed_versions(Path()), version("diffusers")]
    facts += [_described(each)[1:] if isinstance(each, torch.Tensor) else None for each in arguments]
    if next(block.parameters()).is_cuda:
        properties = torch.cuda.get_device_properties(next(block.parameters()).device)
        facts += [properties.name, properties.major, properties.minor, torch.version.cuda]
    digest = hashlib.sha256(repr(facts).encode())
    for room in CODE:
        for source in sorted((ENGINE / room).glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _described(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.device.type
