"""The only loader of models: each is in memory for the length of a `with` block.

Only what is needed is read. The two large models, the text encoder and the transformer, keep their layers
in their files as far as memory is short.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..device import Compute
from ..events import Notice
from ..memory import empty_cache
from ..transformer.attention import AttentionChooser
from ..transformer.compiling import CompiledBlocks, EagerBlocks
from ..vae.decoder import WindowDecoder
from ..weights.filling import fill, find_unknown
from ..weights.model_files import ModelFiles, ModelPart
from .architectures import (
    build_empty,
    import_models,
    make_image_encoder,
    make_text_encoder,
    make_text_encoder_2,
    make_transformer,
    make_vae,
)
from .settings import check_settings
from .streamed import StreamedTransformer, stream_text_encoder, stream_transformer

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo
    from transformers import CLIPTextModel, LlamaModel, SiglipVisionModel


MAX_SHOWN = 3
"""The most names of unknown tensors that a notice shows."""


class ModelLoader:
    """Builds the models of one set on one device, each for the length of a `with` block."""

    def __init__(
        self,
        files: ModelFiles,
        compute: Compute,
        runner: CompiledBlocks | None = None,
    ) -> None:
        """
        Args:
            runner: runs the transformer's blocks; None for the one that `compute` asks for.
        """
        self.files = files
        self.compute = compute
        self._attention = AttentionChooser(compute.device, compute.transformer, compiles=compute.compiles)
        self._runner = runner or (CompiledBlocks() if compute.compiles else EagerBlocks())
        self._notices: list[Notice] | None = None
        self.has_told_int8_attention = False

    def take_compiler_failure(self) -> str | None:
        """Return the reason why blocks are no longer compiled, only once; None if there is none."""
        return self._runner.take_failure()

    def verify(self) -> list[Notice]:
        """Compare every model with the names and shapes in its files, before any weight is read; once.

        Returns:
            Notices of tensors in the files that no model here knows.

        Raises:
            InputError: a config and its weights do not belong together.
            MachineError: the models' libraries cannot be imported.
        """
        if self._notices is not None:
            return self._notices
        import_models()
        notices = []
        for part, make in (
            (self.files.text_encoder, make_text_encoder),
            (self.files.text_encoder_2, make_text_encoder_2),
            (self.files.image_encoder, make_image_encoder),
            (self.files.vae, make_vae),
            (self.files.transformer, make_transformer),
        ):
            model = build_empty(part, make)
            unknown = find_unknown(model, part.checkpoint)
            check_settings(part, model)
            if unknown:
                shown = ", ".join(unknown[:MAX_SHOWN])
                values = {"path": str(part.folder), "number": len(unknown), "tensors": shown}
                notices.append(Notice("weights_unknown", values))
        self._notices = notices
        return notices

    @contextmanager
    def text_encoder(self) -> Iterator["LlamaModel"]:
        with self._clean_up(), stream_text_encoder(self.files.text_encoder, self.compute) as model:
            yield model

    def text_encoder_2(self) -> AbstractContextManager["CLIPTextModel"]:
        return self._loaded(self.files.text_encoder_2, make_text_encoder_2, self.compute.encoders)

    def image_encoder(self) -> AbstractContextManager["SiglipVisionModel"]:
        return self._loaded(self.files.image_encoder, make_image_encoder, self.compute.encoders)

    @contextmanager
    def vae(self, *, encodes: bool = True) -> Iterator["AutoencoderKLHunyuanVideo"]:
        """Load the VAE, whose decoder `WindowDecoder` replaces, without its encoder unless it `encodes`."""
        make = partial(make_vae, encodes=encodes)
        with self._loaded(self.files.vae, make, self.compute.encoders) as model:
            model.decoder = WindowDecoder(model.decoder)
            empty_cache(self.compute.device)  # of the weights as they were, in small pieces
            yield model

    @contextmanager
    def transformer(self, tokens: int) -> Iterator[StreamedTransformer]:
        """Load the transformer, with as many layers in VRAM as leave room to compute `tokens` tokens."""
        config = self.files.transformer.config
        backend = self._attention.choose(
            config.get("num_attention_heads", 24), config.get("attention_head_dim", 128)
        )
        streamed = stream_transformer(self.files.transformer, self.compute, tokens, backend, self._runner)
        with self._clean_up(), streamed as transformer:
            try:
                yield transformer
            finally:
                if backend is not None and transformer.stack.attention.failed:
                    self._attention.exclude(backend)

    @contextmanager
    def _loaded(self, part: ModelPart, make: Callable[[dict], nn.Module], dtype: torch.dtype) -> Iterator:
        module = build_empty(part, make)
        with self._clean_up():
            try:
                fill(module, part.checkpoint, self.compute.device, dtype)
                yield module
            finally:
                module.to("meta")  # frees the weights whoever still holds the module

    @contextmanager
    def _clean_up(self) -> Iterator[None]:
        try:
            yield
        finally:
            gc.collect()
            empty_cache(self.compute.device)
