"""Which kernel computes attention: the fastest of those that are there, tried once for the shapes of a job.

PyTorch has several and takes the first that can, not the fastest; xformers is a matter of luck: built for one
version of PyTorch, it may be absent, fail to import, import without its kernels, or refuse the GPU. Whatever
they do, the app works, and tells the log only.
"""

import importlib.metadata
import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ..files.atomic import atomic_write
from ..memory import is_out_of_memory

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

NATIVE = "native"
"""diffusers' name for leaving the choice to PyTorch."""
CANDIDATES = ("_native_cudnn", "_native_flash", "_native_efficient", "xformers")
SAGE = "sage"
"""SageAttention (arXiv 2411.10958), a package of its own. It rounds to 8 bits: only for who asks for it.
A compiler cannot look into it, so blocks with it are not compiled."""
CLEARLY_FASTER = 0.95
"""Another way must take at most this part of PyTorch's own time, so that the choice is always the same."""
TOKENS_STEP = 1024
"""Numbers of tokens that are nearer to each other than this have one choice."""
REPEATS = 3
TOLERANCE = 0.02
"""The most that another way's result may be away, relatively."""
SAGE_TOLERANCE = 0.1


def xformers_computes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether xformers is there and computes something right on the device."""
    states = [torch.ones(1, 16, 1, 128, device=device, dtype=dtype)] * 3
    try:
        return bool(torch.allclose(attend(states, "xformers"), states[0], atol=1e-2))
    except Exception as error:  # noqa: BLE001  (what is missing or broken may raise anything)
        logger.info("xformers cannot be used: %s", error)
        return False


@dataclass(frozen=True)
class AttentionShape:
    """What one call has to do: all tokens of a section see each other."""

    tokens: int
    heads: int
    head_dim: int


class AttentionChooser:
    """Chooses for one device, and remembers what it chose, also in a file: a start later, it is taken without
    a comparison of speeds, if it still works."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compiles: bool = False,
        path: Path | None = None,
        requested: str | None = None,
    ) -> None:
        """
        Args:
            compiles: whether blocks are compiled, which they cannot be around xformers.
            path: where the choices are kept, so that the next start makes the same ones.
            requested: what is taken without a comparison of speeds, if it works.
        """
        self.requested = requested
        self._device, self._dtype = device, dtype
        self._backends = [other for other in CANDIDATES if not (compiles and other == "xformers")]
        self._excluded: set[str] = set()
        self._path = path
        self._chosen = {} if path is None else _read(path)
        self._proved: set[str] = set()
        """For which shapes this process has tried what was chosen."""

    def choose(self, shape: AttentionShape) -> str | None:
        """The name of diffusers' attention backend to use, None for PyTorch's own choice."""
        if self._device.type != "cuda":
            return None
        try:
            chosen = self._choose(shape)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            logger.info("no memory to try out attention of %d tokens", shape.tokens)
            return None
        return None if chosen == NATIVE else chosen

    def _choose(self, shape: AttentionShape) -> str:
        requested = self.requested
        if (
            requested is not None
            and requested not in self._excluded
            and self._works(requested, shape, SAGE_TOLERANCE)
        ):
            return requested
        tokens = -(-shape.tokens // TOKENS_STEP) * TOKENS_STEP
        usual = AttentionShape(tokens, shape.heads, shape.head_dim)
        key = self._key(usual)
        if not self._may_use(key, usual):
            self._chosen[key] = self._try_out(usual)
            self._write()
        self._proved.add(key)
        return self._chosen[key]

    def exclude(self, name: str) -> None:
        """Do not choose a way again, in this process, that failed although it was tried before."""
        self._excluded.add(name)
        self._backends = [way for way in self._backends if way != name]
        if name in self._chosen.values():
            self._chosen = {key: chosen for key, chosen in self._chosen.items() if chosen != name}
            self._write()

    def _key(self, shape: AttentionShape) -> str:
        """What a choice is remembered by: all that it may hang on."""
        card = torch.cuda.get_device_name(self._device)
        dtype = str(self._dtype).removeprefix("torch.")
        size = f"{shape.tokens} x {shape.heads} x {shape.head_dim}"
        return f"{card}, torch {torch.__version__}, xformers {_xformers_version()}, {dtype}, {size}"

    def _may_use(self, key: str, shape: AttentionShape) -> bool:
        """Whether there is a choice, and it works: packages and drivers come and go between two starts."""
        chosen = self._chosen.get(key)
        if chosen == NATIVE or (chosen in self._backends and key in self._proved):
            return True
        return chosen in self._backends and self._works(chosen, shape, TOLERANCE)

    @torch.inference_mode()
    def _works(self, name: str, shape: AttentionShape, tolerance: float) -> bool:
        """Whether a way gives about the numbers of PyTorch's own, for a few of the tokens."""
        few = AttentionShape(min(shape.tokens, TOKENS_STEP), shape.heads, shape.head_dim)
        try:
            states = self._states(few)
            own = attend(states, NATIVE).float()
            error = float((attend(states, name).float() - own).norm() / own.norm())
        except Exception as failure:  # what is missing or broken may raise anything
            if is_out_of_memory(failure):
                raise
            logger.info("attention by %s: %s", name, failure)
            return False
        if not error <= tolerance:
            logger.info("attention by %s is wrong by %.3g", name, error)
        return error <= tolerance

    def _states(self, shape: AttentionShape) -> list[torch.Tensor]:
        """A query, a key and a value."""
        generator = torch.Generator(self._device).manual_seed(0)
        size = (1, shape.tokens, shape.heads, shape.head_dim)
        return [
            torch.randn(size, generator=generator, device=self._device, dtype=self._dtype) for _ in range(3)
        ]

    @torch.inference_mode()
    def _try_out(self, shape: AttentionShape) -> str:
        states = self._states(shape)
        own = attend(states, NATIVE)
        seconds = {NATIVE: _seconds(states, NATIVE)}
        for name in self._backends:
            try:
                difference = attend(states, name).float().sub_(own)
                if float(difference.norm() / own.float().norm()) <= TOLERANCE:
                    seconds[name] = _seconds(states, name)
            except Exception as error:  # noqa: BLE001  (what is missing or broken may raise anything)
                if is_out_of_memory(error):
                    continue
                logger.debug("attention by %s: %s", name, error)
        best = min(seconds, key=lambda name: seconds[name])
        shown = ", ".join(f"{name} {1000 * second:.2f} ms" for name, second in seconds.items())
        chosen = best if seconds[best] <= CLEARLY_FASTER * seconds[NATIVE] else NATIVE
        logger.info("attention of %d tokens: %s; %s is used", shape.tokens, shown, chosen)
        return chosen

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as part:
                part.write_text(json.dumps(self._chosen, indent=1), "utf-8")
        except OSError as error:
            logger.info("the choice of attention is not kept: %s", error)


def attend(states: list[torch.Tensor], backend: str) -> torch.Tensor:
    """Attention `(1, tokens, heads, head_dim)` of query, key and value of that shape, as the blocks ask for
    it."""
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    return dispatch_attention_fn(*states, backend=AttentionBackendName(backend))


class ActiveAttention:
    """A `with` block in which the transformer's blocks use a backend: those that are streamed are in no model
    that could be told. Where it fails although it was tried before, PyTorch's own takes its place."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.is_replaced = False
        """Whether PyTorch's own has taken the place of another."""
        self.failed = False
        """Whether that has helped."""
        self._exits = ExitStack()

    def __enter__(self) -> "ActiveAttention":
        try:
            self._enter()
        except Exception as error:  # noqa: BLE001  (what is missing or broken may raise anything)
            self.replace(str(error))
            self.failed = True
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def guard(self, work: Callable[[], _T]) -> _T:
        """What `work` returns. Where it fails, and not for want of memory, PyTorch's own is taken and it runs
        once more."""
        try:
            return work()
        except Exception as error:
            if self.backend == NATIVE or is_out_of_memory(error):
                raise
            self.replace(str(error))
        result = work()
        self.failed = True
        return result

    def replace(self, reason: str) -> None:
        """Use PyTorch's own from now on."""
        logger.warning("attention by %s is not used any longer: %s", self.backend, reason)
        self._exits.close()
        self.backend, self.is_replaced = NATIVE, True
        self._enter()

    def _enter(self) -> None:
        from diffusers.models.attention_dispatch import attention_backend

        self._exits.enter_context(attention_backend(self.backend))


def _seconds(states: list[torch.Tensor], backend: str) -> float:
    """How long one call takes; there was one before."""
    device = states[0].device
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record(torch.cuda.current_stream(device))
    for _ in range(REPEATS):
        attend(states, backend)
    end.record(torch.cuda.current_stream(device))
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / REPEATS


def _xformers_version() -> str:
    try:
        return importlib.metadata.version("xformers")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _read(path: Path) -> dict[str, str]:
    """The choices in a file; none where there is no such file, or something else is in it."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(values, dict) and all(isinstance(value, str) for value in values.values())
    return values if is_ours else {}
