"""The transformer with its weights streamed: the same videos to the bit, and nothing left behind."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusers_helper.device import choose_compute
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.models import vram_budget
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.sampling.denoiser import SectionDenoiser
from diffusers_helper.streaming import ram_tier
from diffusers_helper.streaming.layers import StreamedLayers
from diffusers_helper.weights.model_files import find_models
from tests.support import repeated_jobs
from tests.support.tiny import GOLDEN, MODELS, load_latents, random_step, run, small_request

ROOT = Path(__file__).parents[3]


def limited_loader(limit):
    compute = dataclasses.replace(choose_compute("cpu"), memory_limit=limit)
    return ModelLoader(find_models(MODELS), compute)


def golden_request(case):
    return load_request(GOLDEN / case / "request.json")


def make(folder, name, case, loader=None):
    list(run(golden_request(case), folder, name=name, loader=loader, save_latents=True))
    return load_latents(folder / f"{name}.safetensors")


@pytest.mark.parametrize("case", [pytest.param("teacache_16", marks=pytest.mark.slow), "true_cfg"])
def test_video_is_the_same_to_the_bit_with_any_memory(tmp_path, case):
    everything, some, nothing = (
        make(tmp_path / "out", str(limit), case, limited_loader(limit)) for limit in (None, 20_000_000, 0)
    )
    assert torch.equal(everything, nothing)
    assert torch.equal(everything, some)


def test_transformer_equals_diffusers_to_the_bit():
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    (inputs, x), sigma = random_step(), torch.tensor(0.7)
    loader = limited_loader(0)
    with loader.transformer(500) as transformer:
        assert transformer.stack.layers.num_resident == 0
        denoiser = SectionDenoiser(transformer, inputs, loader.compute, sigma[None])
        found = denoiser.predict(x, sigma)
    folder = MODELS / "lllyasviel" / "FramePackI2V_HY"
    own = HunyuanVideoFramepackTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32)
    for parameter in own.parameters():
        parameter.data = parameter.data.clone()  # aligned: the CPU's kernels round otherwise where it is not
    with torch.inference_mode():
        velocity = own(
            hidden_states=x,
            timestep=(sigma * 1000)[None],
            encoder_hidden_states=inputs.positive.embeds,
            encoder_attention_mask=inputs.positive.mask,
            pooled_projections=inputs.positive.pooled,
            **denoiser._shared_arguments(),
        ).sample
    assert torch.equal(found, x - float(sigma) * velocity)


def test_layers_kept_in_ram_serve_every_section_and_change_no_bit(tmp_path, monkeypatch):
    request = small_request(seconds=1, steps=3)
    kept, served = [], []
    keep, close = StreamedLayers.keep_in_ram, vram_budget.VramBudget.close_ring

    def watch(budget):
        served.append(sorted(budget._layers.ring.kept))
        close(budget)

    monkeypatch.setattr(ram_tier, "plan_ram", lambda *_: ([0, 2, 3], "asked to"))
    monkeypatch.setattr(
        StreamedLayers, "keep_in_ram", lambda self, indices: (kept.append(indices), keep(self, indices))
    )
    monkeypatch.setattr(vram_budget.VramBudget, "close_ring", watch)
    for name, limit in (("a", 0), ("b", None)):
        list(run(request, tmp_path / "out", name=name, loader=limited_loader(limit), save_latents=True))
        monkeypatch.undo()
    assert kept == [[0, 2, 3]]
    assert served == [[0, 2, 3]] * 2
    a, b = (load_latents(tmp_path / "out" / f"{name}.safetensors") for name in "ab")
    assert torch.equal(a, b)


@pytest.mark.slow
def test_job_after_job_holds_no_more_memory(tmp_path):
    # One section's frames, left behind by each job, would be 3 times this; its weights 100 times.
    allowed, jobs = 150 * 1024, 7
    if not Path("/proc/self/status").exists() or platform.libc_ver()[0] != "glibc":
        pytest.skip("reads Linux's own figures, with glibc's allocator")
    command = [sys.executable, "-m", "tests.support.repeated_jobs", str(tmp_path / "out"), str(jobs)]
    environment = os.environ | repeated_jobs.ALLOCATOR
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(held) == jobs
    settled, last = held[repeated_jobs.WARM_UP], held[-1]
    assert last["memory"] - settled["memory"] < allowed, held
    assert {key: last[key] for key in ("tensors", "threads", "files")} == {
        key: settled[key] for key in ("tensors", "threads", "files")
    }
