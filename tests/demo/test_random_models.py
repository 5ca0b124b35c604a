"""The random models: the parts fit each other and make a video; sets are whole and repeatable."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from demo_models import random_models
from demo_models.random_models import build_random_models, is_complete, main, read_json
from diffusers_helper.encoding.prompts import load_tokenizer
from diffusers_helper.media.video import read_frames
from tests.support.fake_hub import files_below
from tests.support.tiny import make_loader, make_request, run

PROMPT = "Steam rises from the cup — 湯気が立つ。"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_models(tmp_path_factory.mktemp("models") / "random")


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


def test_the_engine_makes_a_video_of_more_than_one_colour(models, tmp_path):
    list(run(make_request(prompt=PROMPT), tmp_path / "out", loader=make_loader(models)))
    frames = np.stack(list(read_frames(tmp_path / "out" / "a.mp4")))
    assert frames.shape == (37, 64, 96, 3)
    assert frames[-1].std() > 2, "one colour would look like a fault of the app"


def test_transformer_files_look_like_the_published_ones(models):
    folder = models / random_models.TRANSFORMER
    config = read_json(folder / "config.json")
    index = read_json(folder / "diffusion_pytorch_model.safetensors.index.json")
    shards_of_block: dict[str, set[str]] = {}
    for key, shard in index["weight_map"].items():
        if "transformer_blocks." in key:
            shards_of_block.setdefault(".".join(key.split(".")[:2]), set()).add(shard)
    assert config["_class_name"] == "HunyuanVideoTransformer3DModelPacked"
    assert len(shards_of_block) == 5
    assert any(len(shards) > 1 for shards in shards_of_block.values())


def test_a_complete_set_is_kept(models):
    before = [path.stat().st_mtime_ns for path in models.rglob("*")]
    assert build_random_models(models) == models
    assert [path.stat().st_mtime_ns for path in models.rglob("*")] == before


def test_damaged_or_differently_seeded_set_is_replaced(models, tmp_path):
    first, folder = files_below(models), Path(shutil.copytree(models, tmp_path / "models"))
    (folder / random_models.VAE / "config.json").write_bytes(b"")
    assert not is_complete(folder)
    random_state = torch.get_rng_state()
    build_random_models(folder)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert files_below(folder) == first

    other = files_below(build_random_models(folder, seed=1))
    assert is_complete(folder, seed=1)
    assert other.keys() == first.keys()
    for name in first:
        same = other[name] == first[name]
        assert same == (not name.endswith(".safetensors") and name != random_models.MANIFEST), name
    assert list(tmp_path.iterdir()) == [folder]


def test_build_that_is_stopped_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(folder: Path) -> None:
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(random_models, "_write_transformer", stop)
    with pytest.raises(KeyboardInterrupt):
        build_random_models(tmp_path / "models")
    assert not list(tmp_path.iterdir())


def test_set_finished_by_another_process_meanwhile_is_taken(models, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    monkeypatch.setattr(random_models, "_write_models", lambda *_: shutil.copytree(models, folder))
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
