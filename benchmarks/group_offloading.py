"""Group offloading of blocks with a stream, the way of diffusers to run on a small GPU, for comparison."""

import contextlib
import time

import torch

from benchmarks.measuring import GIB, ProcessPeak, taken_away
from diffusers_helper.device import Compute
from diffusers_helper.sampling.denoiser import SectionInputs
from diffusers_helper.weights.model_files import ModelPart


def measure_group_offloading(
    part: ModelPart,
    compute: Compute,
    inputs: SectionInputs,
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    vram: str,
) -> tuple[dict, torch.Tensor]:
    """Run the steps with `enable_group_offload`; a row and the last prediction as `measure` gives them."""
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    with contextlib.ExitStack() as exits:
        process = exits.enter_context(ProcessPeak())
        model = HunyuanVideoFramepackTransformer3DModel.from_pretrained(
            part.folder, torch_dtype=torch.bfloat16
        )
        dummy_bytes = exits.enter_context(taken_away(vram, compute.device))
        exits.enter_context(torch.inference_mode())
        free = torch.cuda.mem_get_info()[0] / GIB
        torch.cuda.reset_peak_memory_stats()
        model.enable_group_offload(
            onload_device=compute.device,
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=True,
        )
        x, seconds = noise.to(compute.device), []
        for sigma in sigmas[:-1]:
            begin = time.perf_counter()
            result = x - float(sigma) * _velocity(model, x, sigma, inputs, compute)
            torch.cuda.synchronize()
            seconds.append(round(time.perf_counter() - begin, 4))
        row = {
            "name": "group offloading",
            "gpu": torch.cuda.get_device_name(),
            "free_vram_gib": round(free, 2),
            "seconds_per_step": seconds,
            "vram_peak_gib": round((torch.cuda.max_memory_allocated() - dummy_bytes) / GIB, 3),
            "process_peak_gib": round(process.peak_bytes() / GIB, 3),
        }
        return row, result.cpu()


def _velocity(
    model: torch.nn.Module, x: torch.Tensor, sigma: torch.Tensor, inputs: SectionInputs, compute: Compute
) -> torch.Tensor:
    def on(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(compute.device, compute.transformer)

    positions = inputs.positions
    (velocity,) = model(
        hidden_states=on(x),
        timestep=on((sigma * 1000)[None]),
        encoder_hidden_states=on(inputs.positive.embeds),
        encoder_attention_mask=inputs.positive.mask.to(compute.device),
        pooled_projections=on(inputs.positive.pooled),
        image_embeds=on(inputs.image_embeds),
        guidance=on(torch.tensor([10000.0])),
        indices_latents=torch.tensor(positions.latents),
        latents_clean=on(inputs.clean),
        indices_latents_clean=torch.tensor(positions.clean),
        latents_history_2x=on(inputs.history_2x),
        indices_latents_history_2x=torch.tensor(positions.history_2x),
        latents_history_4x=on(inputs.history_4x),
        indices_latents_history_4x=torch.tensor(positions.history_4x),
        return_dict=False,
    )
    return velocity.float()
