"""The choices of the command line about the engine: which models, on which device, with which weights."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_helper.errors import EngineError
from diffusers_helper.events import Notice
from diffusers_helper.public import (
    ModelFiles,
    OutdatedWeights,
    find_models,
    find_outdated,
    room_for_eight_bit,
)

from .download.model_folders import ModelFolders, find_models_in, take_inventory

if TYPE_CHECKING:
    from diffusers_helper.device import DeviceChoice
    from diffusers_helper.engine import EngineConfig

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADED = ROOT / "webui" / "hf_download"
DEMO = ROOT / "demo_models"
"""The folder of tiny trained models, which come with the app."""
DEMO_RESOLUTION = 192
"""Pixels, which the demo's models were trained for."""


@dataclass(frozen=True)
class EngineOptions:
    """The options of the command line that concern the engine.

    Attributes:
        models: folder of the models; None for the download, or the demo's models before there is one.
        cache: folder for encoded prompts and pictures.
        vram_gb: most GiB of the GPU's memory to use; None for all that is free.
        downloaded: folder of the app's own download.
        eight_bit: use the transformer's 8-bit weights, and convert them first where they are missing.
    """

    models: Path | None
    cache: Path
    device: "DeviceChoice"
    vram_gb: float | None
    downloaded: Path = DOWNLOADED
    eight_bit: bool = False

    @property
    def folders(self) -> ModelFolders:
        """The folders in which the models may lie."""
        return ModelFolders.of_user(self.models, self.downloaded)

    @property
    def uses_demo(self) -> bool:
        """True if the demo's models make the videos: they were requested, or there are no others."""
        return self.models == DEMO or (self.models is None and not self._has_download)

    @property
    def _has_download(self) -> bool:
        """True if there are models, or the app's own download of them was begun."""
        own = self.folders.own
        is_begun = own.is_dir() and any(path.is_dir() for path in own.iterdir())
        return is_begun or take_inventory(self.folders).state == "complete"

    def find_models(self) -> Generator[Notice, None, ModelFiles]:
        """Find the models' files; yields a notice where the demo's serve because nothing was downloaded.

        Raises:
            InputError: the models are not there, or not complete.
        """
        if self.models is None and not self._has_download:
            yield Notice("demo_models", {"path": str(self.folders.own)})
        return self._find_models()

    def find_tokenizer(self) -> Path | None:
        """Return the folder of Llama's tokenizer; None where it is not there yet."""
        try:
            return self._find_models().text_encoder.processor
        except EngineError:
            return None

    def _find_models(self) -> ModelFiles:
        if self.models is not None:
            return find_models(self.models)
        return find_models_in(self.folders) if self._has_download else find_models(DEMO)

    def config_of(self, files: ModelFiles, eight_bit: bool | None = None) -> "EngineConfig":
        """The engine's configuration with these models. Imports torch.

        Args:
            eight_bit: the job's own choice; None for that of the command line.
        """
        from diffusers_helper.engine import EngineConfig

        is_fast = self.eight_bit if eight_bit is None else eight_bit
        roots = self._eight_bit_roots(files.transformer.folder) if is_fast else ()
        return EngineConfig(files, self.cache, self.device, self.vram_gb, roots)

    def room_for_eight_bit(self) -> tuple[Path, int]:
        """Return the folder of the 8-bit weights of the models in use, and the bytes that they still need.

        Raises:
            InputError: the models are not there, or not complete.
            OSError: something cannot be read now.
        """
        transformer = self._find_models().transformer
        return room_for_eight_bit(transformer, self._eight_bit_roots(transformer.folder))

    def find_outdated(self) -> list[OutdatedWeights]:
        """Find the 8-bit weights that an earlier version has left, wherever it made them. Raises OSError."""
        roots = self.folders.target, *self._cached_roots
        return [found for root in roots if (found := find_outdated(root)) is not None]

    @property
    def _cached_roots(self) -> tuple[Path, Path]:
        return self.cache / "eight_bit" / "models", self.cache / "eight_bit" / "demo"

    def _eight_bit_roots(self, transformer: Path) -> tuple[Path, ...]:
        """The folders below which 8-bit weights may lie: that of the models, if it is ours, and the cache.

        Not ours are the demo's models, and folders to which the app downloads nothing (Hugging Face's cache).
        """
        (cached, demo), target = self._cached_roots, self.folders.target
        if transformer.resolve().is_relative_to(DEMO.resolve()):
            return (demo,)
        return (target, cached) if transformer.is_relative_to(target) else (cached,)
