"""The start picture becomes embeddings by the vision encoder, SigLIP."""

import numpy as np
import torch

from ..errors import InputError
from ..models.loading import ModelLoader


@torch.inference_mode()
def encode_vision(picture: np.ndarray, loader: ModelLoader) -> torch.Tensor:
    """Encode a cropped picture `(height, width, 3)` uint8 as SigLIP's last hidden states `(tokens, dim)`.

    Raises:
        InputError: the image processor's config is broken.
    """
    from transformers import SiglipImageProcessorPil

    folder = loader.files.image_encoder.processor
    assert folder is not None
    try:
        processor = SiglipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError("model_file_broken", path=str(folder / "preprocessor_config.json")) from error
    pixels = processor.preprocess(images=picture, return_tensors="pt").pixel_values
    with loader.image_encoder() as model:
        pixels = pixels.to(loader.compute.device, loader.compute.encoders)
        return model(pixel_values=pixels).last_hidden_state[0].cpu()
