"""Training the demo's models at toy size: it learns, resumes exactly, and makes what the engine takes."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from demo_models.random_models import TOKENIZER
from demo_models.train import train
from demo_models.train.clips import ClipSize, draw_clips
from demo_models.train.curves import draw_curves
from demo_models.train.export import export
from demo_models.train.normalize import normalize
from demo_models.train.packing import Ending, SectionTask, draw_ending, draw_task, pack, plan_of
from demo_models.train.seeds import Dice
from demo_models.train.sizes import DEMO, TOY, Size, transformer_config, vae_config
from demo_models.train.state import load_state, read_log, save_state
from demo_models.train.state import pack as pack_state
from demo_models.train.text import encoder_loader, read_bank, see
from demo_models.train.train import Run, run_stage
from demo_models.train.trainer import Trainer
from demo_models.train.transformer import TransformerTask, draw_sigmas
from demo_models.train.vae import VaeTask, fold_single_frames, make_vae
from diffusers_helper.encoding.conditioning import encode_vision
from diffusers_helper.encoding.prompts import load_tokenizer
from diffusers_helper.media.video import read_frames
from diffusers_helper.sampling.denoiser import SectionDenoiser
from diffusers_helper.sampling.schedule import flow_shift_mu, flow_sigmas
from diffusers_helper.sections import HISTORY_FRAMES, SectionSize
from diffusers_helper.vae.preview import preview_latents
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import GOLDEN, load_latents, make_loader, make_request, run

CPU = torch.device("cpu")


def make_run(state: Path, size: Size = TOY) -> Run:
    return Run(state, size, 0, CPU, time.monotonic() + 300, report_steps=5)


@pytest.fixture(scope="module", params=[pytest.param("trained", marks=pytest.mark.slow)])
def trained(tmp_path_factory) -> Path:
    """The state of a toy that went through all stages; the tests that use it are slow."""
    state = tmp_path_factory.mktemp("trained")
    steps = {"text": 10, "vae": 16, "transformer": 8}
    parts = {name: dataclasses.replace(getattr(TOY, name), steps=count) for name, count in steps.items()}
    size = dataclasses.replace(TOY, **parts)
    assert all(run_stage(make_run(state, size), stage) for stage in train.STAGES)
    return state


def test_the_app_makes_a_video_with_an_exported_set(trained, command):
    models = command.folder / "demo"
    size = export(trained / "models", models)
    assert size == sum(path.stat().st_size for path in models.rglob("*") if path.is_file())
    assert find_models(models).vae.config["scaling_factor"] == pytest.approx(1, abs=0.3)
    values = {"prompt": "camera pans left", "seconds": 1.5, "section_seconds": 1, "width": 32, "height": 32}
    assert command(values, models=models).status == 0
    assert len(list(read_frames(command.output / "video.mp4"))) == 37


def test_a_set_that_is_too_large_is_not_exported(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("demo_models.train.export.LARGEST_SET", 1000)
    with pytest.raises(ValueError, match="MB"):
        export(trained / "models", tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(("stage", "steps"), [("vae", 30), ("transformer", 24)])
def test_a_model_learns(stage, steps, trained):
    if stage == "vae":
        trainer = Trainer(VaeTask(dataclasses.replace(TOY.vae, clips_from=999), 0, CPU), 400, 2e-2, 0.8)
    else:
        trainer = Trainer(TransformerTask(TOY, 0, CPU, trained / "models"), 400, 2e-2, 0.5)
    before = trainer.evaluate()
    for _ in range(steps):
        trainer.advance()
    after = trainer.evaluate()
    if stage == "vae":
        assert after["psnr_pictures"] > before["psnr_pictures"] + 1.5
    else:
        assert after["held_out_loss"] < 0.95 * before["held_out_loss"]


@pytest.mark.parametrize("stage", ["vae", "transformer"])
def test_a_resumed_training_is_the_same_to_the_bit(stage, trained, tmp_path):
    vae = dataclasses.replace(TOY.vae, steps=6, clips_from=2, canvas_steps=4)
    transformer = dataclasses.replace(TOY.transformer, steps=6, chunk_steps=4)
    size = dataclasses.replace(TOY, vae=vae, transformer=transformer)
    for name, stops in (("whole", [6]), ("parts", [1, 3, 6])):
        for stop in stops:
            _train_until(stop, make_run(tmp_path / name, size), stage, trained / "models")
    (step, whole), (other_step, parts) = (load_state(tmp_path / name / stage) for name in ("whole", "parts"))
    assert step == other_step
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def _train_until(stop: int, run: Run, stage: str, models: Path) -> None:
    """Run one call of the command, ended after a step instead of a time."""
    size = getattr(run.size, stage)
    task = VaeTask(size, 0, CPU) if stage == "vae" else TransformerTask(run.size, 0, CPU, models)
    trainer = Trainer(task, size.steps, size.rate, size.average)
    train._resume(run, stage, trainer)
    while trainer.step < stop:
        trainer.advance()
    train._save(run, stage, trainer)


def test_a_state_of_another_seed_is_not_resumed(trained):
    other = dataclasses.replace(make_run(trained), seed=1)
    with pytest.raises(SystemExit, match="seed"):
        run_stage(other, "vae")


def test_a_packed_state_is_small_and_can_be_resumed(trained, tmp_path):
    pack_state(trained / "vae", tmp_path / "vae")
    whole, packed = (
        sum(file.stat().st_size for file in (folder / "vae").iterdir()) for folder in (trained, tmp_path)
    )
    assert packed < whole / 7
    progress, tensors = load_state(tmp_path / "vae")
    trainer = Trainer(VaeTask(TOY.vae, 0, CPU), 99, 1e-3, 0.9)
    trainer.resume(progress["step"], tensors)
    assert trainer.step == 16
    assert trainer.advance()["loss"].isfinite()


def test_a_state_comes_in_small_files(tmp_path, monkeypatch):
    monkeypatch.setattr("demo_models.train.state.FILE_BYTES", 1000)
    tensors = {f"t{n}": torch.full((100,), float(n)) for n in range(7)}
    for step in (1, 2):
        save_state(tmp_path / "s", {"step": step}, tensors)
    files = list((tmp_path / "s").glob("*.safetensors"))
    assert len(files) == 4
    progress, found = load_state(tmp_path / "s")
    assert progress == {"step": 2}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_stop_while_saving_leaves_the_last_state(tmp_path):
    save_state(tmp_path / "s", {"step": 1}, {"t": torch.zeros(1)})
    (tmp_path / "s").rename(tmp_path / "s.old")  # killed between the two renames
    assert load_state(tmp_path / "s")[0] == {"step": 1}


def test_the_log_is_drawn(trained, tmp_path):
    lines = read_log(trained)
    assert {line["stage"] for line in lines} == {"text", "vae", "transformer"}
    draw_curves(trained, tmp_path / "curves.png")
    picture = Image.open(tmp_path / "curves.png").convert("RGB")
    assert len(picture.getcolors(1 << 20) or []) > 4
    draw_curves(tmp_path / "nothing", tmp_path / "empty.png")


def test_the_prompts_template_takes_its_95_tokens(trained):
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE

    tokenizer = load_tokenizer(trained / "models" / TOKENIZER)
    head = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")[0]
    assert len(tokenizer(head).input_ids) == DEFAULT_PROMPT_TEMPLATE["crop_start"] == 95
    words = ["the", "camera", "pans", "left", "right", "up", "down", "zoom", "in", "out", "turns", "slowly"]
    ids = [tokenizer(f"a {word}", add_special_tokens=False).input_ids for word in words]
    assert all(len(found) == 2 for found in ids), "each word is one token"
    assert len({found[1] for found in ids}) == len(words)


def test_hidden_states_are_of_a_size_to_learn_from(trained):
    bank = read_bank(trained / "models")
    assert 0.5 < bank["embeds"][0, : bank["lengths"][0]].float().std() < 2


def test_siglip_has_the_same_input_in_training_and_the_engine(trained):
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    loader = encoder_loader(trained / "models")
    expected = encode_vision(picture, loader)
    with loader.image_encoder() as model:
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
        seen = see(model, pixels, TOY.transformer.image_side)[0]
    assert (seen - expected).abs().max() < 0.05


def test_the_transformer_has_the_same_input_as_in_the_engine(trained, tmp_path, monkeypatch):
    shown = []
    original = SectionDenoiser._shared_arguments

    def record(denoiser):
        shown.append(original(denoiser))
        return shown[-1]

    monkeypatch.setattr(SectionDenoiser, "_shared_arguments", record)
    end_image = str(GOLDEN / "end_frame_weak" / "end.png")
    request = make_request(
        seconds=3.4, end_image=end_image, end_frame_strength=0.6, width=32, height=32, prompt="zoom in"
    )
    list(run(request, tmp_path / "out", loader=make_loader(trained / "models"), save_latents=True))
    latents = load_latents(tmp_path / "out" / "a.safetensors")
    plan = plan_of(len(shown), SectionSize.ONE_SECOND)
    assert len(shown) == 3
    end = shown[0]["latents_clean"][:, :, 1:]  # the weakened end image
    ending = Ending(end / 0.6, torch.tensor([0.6]), torch.zeros(1), end)
    for section, arguments in zip(plan.sections, shown, strict=True):
        task = SectionTask(plan, section)
        target, packed = pack(task, latents, latents[:, :, :1], ending)
        assert torch.equal(target, latents[:, :, task.begin : task.begin + 9])
        assert all(torch.allclose(packed[name].float(), arguments[name].float()) for name in packed)
        assert packed.keys() | {"image_embeds", "guidance"} == arguments.keys()


def test_every_task_lies_in_its_video():
    dice = Dice(CPU, 0, "tasks")
    clip = torch.arange(37.0).view(1, 1, 37, 1, 1).expand(3, 16, 37, 4, 4)
    for _ in range(60):
        task = draw_task(dice)
        ending = draw_ending(dice, task, clip, clip)
        target, arguments = pack(task, clip, clip[:, :, :1], ending)
        frames = task.plan.size.latent_frames
        assert target.shape[2] == frames == len(arguments["indices_latents"])
        assert arguments["latents_history_4x"].shape[2] == HISTORY_FRAMES - 3
        plain = target[ending.dissolves == 0]
        expected = torch.arange(task.begin, task.begin + frames).clamp(max=36).float()
        assert all(torch.equal(sample[0, :, 0, 0], expected) for sample in plain)


def test_a_clip_dissolves_into_another_picture():
    plan = plan_of(1, SectionSize.ONE_SECOND)
    clip, still = torch.zeros(1, 16, 37, 2, 2), torch.ones(1, 16, 1, 2, 2)
    ending = Ending(still, torch.ones(1), torch.ones(1), still)
    target, arguments = pack(SectionTask(plan, plan.sections[0]), clip, clip[:, :, :1], ending)
    ramp = target[0, 0, :, 0, 0]
    assert ramp[-1] == 1
    assert ramp[0] < 0.05
    assert (ramp.diff() >= 0).all()
    assert torch.equal(arguments["latents_clean"][:, :, 1:], still)


def test_noise_levels_are_distributed_as_in_the_engine():
    shape = torch.Size((64, 16, 9, 24, 24))
    sigmas = draw_sigmas(Dice(CPU, 0, "sigmas"), shape)
    walked = flow_sigmas(64, flow_shift_mu(tuple(shape))).flip(0)
    assert ((sigmas > walked[:-1] - 1e-4) & (sigmas < walked[1:] + 1e-4)).all()


def test_normalized_latents_have_deviation_1_and_the_pictures_stay():
    vae = make_vae(TOY.vae, 0).eval()
    clips, _ = draw_clips(Dice(CPU, 0, "n"), 4, ClipSize(5, 32, 32, unit=0.2))
    with torch.no_grad():
        before = vae.decode(vae.encode(clips).latent_dist.mode()).sample
        normalize(vae, clips)
        latents = vae.encode(clips).latent_dist.mode()
        after = vae.decode(latents).sample
    latents = latents * vae.config.scaling_factor
    assert latents.std() == pytest.approx(1, abs=0.01)
    colours = functional.interpolate((clips[:, :, 0] + 1) / 2, latents.shape[-2:], mode="area")
    own, real = (
        np.stack([preview_latents(latent[None, :, :1], fit)[0] for latent in latents])
        for fit in (vae.config.latent_rgb, None)
    )
    wanted = colours.permute(0, 2, 3, 1).numpy() * 255
    assert abs(own - wanted).mean() < abs(real - wanted).mean()
    assert torch.allclose(before, after, atol=2e-3)


def test_single_frames_are_folded_without_a_difference():
    vae = make_vae(TOY.vae, 0).eval()
    picture = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        whole = vae(picture).sample
        fold_single_frames(vae)
        folded = vae(picture).sample
    assert torch.allclose(whole, folded, atol=1e-4)


def test_the_demo_fits_into_40_megabytes():
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel

    with torch.device("meta"):
        models = (
            AutoencoderKLHunyuanVideo(**vae_config(DEMO.vae)),
            HunyuanVideoFramepackTransformer3DModel(**transformer_config(DEMO.transformer, DEMO.text)),
        )
    count = sum(parameter.numel() for model in models for parameter in model.parameters())
    assert 2 * count < 38_000_000, "the encoders need 2 MB"


def test_the_command_resumes_its_training(tmp_path, capsys, trained):
    (tmp_path / "models").symlink_to(trained / "models")
    arguments = ["--quick", "--state", str(tmp_path), "--stage", "vae", "--device", "cpu"]
    arguments += ["--set", "vae.steps=3"]
    assert train.main([*arguments, "--minutes", "0"]) == 3
    assert train.main(arguments) == 0
    assert train.main(arguments) == 0
    assert "goes on after step 3 of 3" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no number"):
        train.main([*arguments, "--set", "vae.colour=3"])
