"""The random models: each part loads with the library's own class and runs; sets are whole and repeatable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from demo_models import random_models
from demo_models.random_models import build_random_models, is_complete, main

PROMPT = "Steam rises from the cup — 湯気が立つ。"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_models(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def load_tokenizer(folder: Path):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, padding_side="right")


def test_text_encoder_reads_what_its_tokenizer_writes(models):
    from transformers import LlamaModel

    tokenizer = load_tokenizer(models / random_models.TOKENIZER)
    encoder = LlamaModel.from_pretrained(models / random_models.TEXT_ENCODER).eval()
    tokens = tokenizer(PROMPT, padding="max_length", max_length=100, return_tensors="pt")
    used = int(tokens.attention_mask.sum())
    assert tokens.input_ids[0, 0] == tokenizer.bos_token_id
    assert tokens.input_ids[0, used:].unique().tolist() == [tokenizer.pad_token_id]
    assert tokenizer.decode(tokens.input_ids[0, 1:used]) == PROMPT
    states = encoder(**tokens, output_hidden_states=True, use_cache=False).hidden_states
    assert len(states) == 5
    assert states[-3].shape == (1, 100, random_models.TEXT_WIDTH)
    assert states[-3].isfinite().all()


def test_special_tokens_of_the_prompt_template_are_single_tokens(models):
    tokenizer = load_tokenizer(models / random_models.TOKENIZER)
    assert tokenizer(list(random_models.LLAMA_SPECIAL), add_special_tokens=False).input_ids == [
        [number] for number in range(len(random_models.LLAMA_SPECIAL))
    ]


def test_second_text_encoder_pools_at_the_end_token(models):
    from transformers import CLIPTextModel

    tokenizer = load_tokenizer(models / random_models.TOKENIZER_2)
    encoder = CLIPTextModel.from_pretrained(models / random_models.TEXT_ENCODER_2).eval()
    ids = tokenizer(
        PROMPT, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    end = ids[0].tolist().index(tokenizer.eos_token_id)
    assert ids[0, 0] == tokenizer.bos_token_id
    assert ids[0, end:].unique().tolist() == [tokenizer.pad_token_id]
    output = encoder(ids)
    assert output.pooler_output.shape == (1, random_models.POOLED_WIDTH)
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, end])


def test_image_encoder_sees_a_picture_of_any_size(models):
    from transformers import SiglipImageProcessorPil, SiglipVisionModel

    processor = SiglipImageProcessorPil.from_pretrained(models / random_models.FEATURE_EXTRACTOR)
    encoder = SiglipVisionModel.from_pretrained(models / random_models.IMAGE_ENCODER).eval()
    picture = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    pixels = processor.preprocess(images=picture, return_tensors="pt")
    states = encoder(**pixels).last_hidden_state
    assert states.shape == (1, 16, random_models.IMAGE_WIDTH)
    assert states.isfinite().all()


def test_vae_turns_frames_to_latents_and_back(models):
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo.from_pretrained(models / random_models.VAE).eval()
    frames = torch.rand(1, 3, 5, 32, 48) * 2 - 1
    latents = vae.encode(frames).latent_dist.mode()
    assert latents.shape == (1, 16, 2, 4, 6)
    decoded = vae.decode(latents).sample
    assert decoded.shape == frames.shape
    assert decoded.std() > 0.01, "a video of one colour would look like a fault of the app"


def test_transformer_takes_all_of_framepacks_inputs(models):
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    transformer = HunyuanVideoFramepackTransformer3DModel.from_pretrained(
        models / random_models.TRANSFORMER
    ).eval()
    latents = torch.randn(1, 16, 23, 4, 6)
    output = transformer(
        hidden_states=latents[:, :, :3],
        timestep=torch.tensor([500]),
        encoder_hidden_states=torch.randn(1, 7, random_models.TEXT_WIDTH),
        encoder_attention_mask=torch.ones(1, 7),
        pooled_projections=torch.randn(1, random_models.POOLED_WIDTH),
        image_embeds=torch.randn(1, 16, random_models.IMAGE_WIDTH),
        guidance=torch.tensor([10000.0]),
        indices_latents=torch.arange(1, 4),
        latents_clean=latents[:, :, :2],
        indices_latents_clean=torch.tensor([0, 4]),
        latents_history_2x=latents[:, :, 2:4],
        indices_latents_history_2x=torch.arange(5, 7),
        latents_history_4x=latents[:, :, 4:20],
        indices_latents_history_4x=torch.arange(7, 23),
    ).sample
    assert output.shape == (1, 16, 3, 4, 6)
    assert output.isfinite().all()


def test_transformer_files_look_like_the_published_ones(models):
    folder = models / random_models.TRANSFORMER
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    index = json.loads(
        (folder / "diffusion_pytorch_model.safetensors.index.json").read_text(encoding="utf-8")
    )
    shards_of_block: dict[str, set[str]] = {}
    for key, shard in index["weight_map"].items():
        if "transformer_blocks." in key:
            shards_of_block.setdefault(".".join(key.split(".")[:2]), set()).add(shard)
    assert config["_class_name"] == "HunyuanVideoTransformer3DModelPacked"
    assert len(shards_of_block) == 5
    assert any(len(shards) > 1 for shards in shards_of_block.values())


def test_the_same_seed_gives_the_same_files(models, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = build_random_models(tmp_path / "again")
    assert torch.equal(torch.rand(3), expected)
    assert contents(again) == contents(models)


def test_another_seed_gives_other_weights_in_all_parts(models, tmp_path):
    other, first = contents(build_random_models(tmp_path / "other", seed=1)), contents(models)
    assert other.keys() == first.keys()
    for name in first:
        same = other[name] == first[name]
        assert same == (not name.endswith(".safetensors") and name != random_models.MANIFEST), name


def test_a_complete_set_is_kept(models):
    before = stamps(models)
    assert build_random_models(models) == models
    assert stamps(models) == before


def test_damaged_or_differently_seeded_set_is_replaced(tmp_path):
    folder = build_random_models(tmp_path / "models", seed=1)
    (folder / random_models.VAE / "config.json").write_bytes(b"")
    assert not is_complete(folder, seed=1)
    build_random_models(folder, seed=1)
    assert is_complete(folder, seed=1)
    build_random_models(folder, seed=0)
    assert is_complete(folder, seed=0)
    assert list(tmp_path.iterdir()) == [folder]


def test_build_that_is_stopped_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(folder: Path) -> None:
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(random_models, "_write_transformer", stop)
    with pytest.raises(KeyboardInterrupt):
        build_random_models(tmp_path / "models")
    assert not list(tmp_path.iterdir())


def test_set_finished_by_another_process_meanwhile_is_taken(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    write_models = random_models._write_models

    def write_while_another_finishes(built: Path, seed: int) -> None:
        monkeypatch.setattr(random_models, "_write_models", write_models)
        build_random_models(folder, seed=seed)
        write_models(built, seed)

    monkeypatch.setattr(random_models, "_write_models", write_while_another_finishes)
    build_random_models(folder)
    assert is_complete(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_folder_of_the_user_is_refused_and_kept(tmp_path, capsys):
    (tmp_path / "holiday.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="choose another folder"):
        build_random_models(tmp_path)
    assert main([str(tmp_path)]) == 1
    assert "choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_the_command_prints_the_set(models, capsys):
    assert main([str(models)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{models}: ")
    assert said.endswith("MB, random weights (seed 0).\n")


def test_importing_the_builder_imports_no_torch():
    code = "import sys, demo_models.random_models; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
