"""Of a repository, exactly the files that the finder needs are chosen."""

from pathlib import PurePosixPath

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN, PARTS
from webui.eichi_utils.download.needed_files import (
    REPOSITORIES,
    Listing,
    RemoteFile,
    files_of,
    may_be_part_of,
)

HUNYUAN_FILES = [
    ".gitattributes",
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors.index.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model-q8_0.gguf",
    "text_encoder/model.fp16.safetensors.index.json",
    "text_encoder/model.fp16-00001-of-00001.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "text_encoder_2/flax_model.msgpack",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00001.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
]


def listing(names: list[str], repository: str = HUNYUAN) -> Listing:
    return Listing(repository, "c0ffee", tuple(RemoteFile(repository, name, 1) for name in names))


def chosen(part: str, names: list[str]) -> set[str]:
    return {file.path for file in files_of(PARTS[part], listing(names, PARTS[part].repository))}


def test_the_repositories_are_the_three_of_the_readme():
    assert REPOSITORIES == (HUNYUAN, FLUX_REDUX, FRAMEPACK)


def test_shards_are_taken_with_their_index_and_no_other_format():
    assert chosen("text_encoder", HUNYUAN_FILES) == {
        "text_encoder/config.json",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }


def test_a_tokenizer_may_be_a_vocabulary_with_merges():
    assert chosen("text_encoder_2", HUNYUAN_FILES) == {
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors",
        "tokenizer_2/merges.txt",
        "tokenizer_2/special_tokens_map.json",
        "tokenizer_2/tokenizer_config.json",
        "tokenizer_2/vocab.json",
    }


def test_a_single_file_is_taken_without_its_half_precision_twin():
    assert chosen("vae", HUNYUAN_FILES) == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}


def test_the_transformer_lies_at_the_top_of_its_repository():
    names = ["README.md", "config.json", "diffusion_pytorch_model.safetensors.index.json"]
    names += [f"diffusion_pytorch_model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    names += ["diffusion_pytorch_model-00001-of-00006.safetensors", "old/config.json"]
    assert chosen("transformer", names) == {*names[1:6]}


def test_shards_that_lack_their_last_are_not_taken_for_whole_weights():
    names = ["config.json", "diffusion_pytorch_model.safetensors.index.json"]
    names += ["diffusion_pytorch_model-00001-of-00002.safetensors"]
    with pytest.raises(MachineError, match="download_repository_changed"):
        chosen("transformer", names)


@pytest.mark.parametrize(
    "lost", ["vae/config.json", "text_encoder_2/model.safetensors", "tokenizer/tokenizer.json"]
)
def test_a_repository_without_a_file_that_is_needed_is_refused_with_its_name(lost):
    names = [name for name in HUNYUAN_FILES if name != lost]
    part = next(
        name for name, spec in PARTS.items() if lost.partition("/")[0] in (spec.folder, spec.processor)
    )
    with pytest.raises(MachineError) as caught:
        chosen(part, names)
    assert caught.value.code == "download_repository_changed"
    assert caught.value.values == {"repository": HUNYUAN, "file": lost}


def test_the_weights_come_last_so_that_small_mistakes_show_early():
    files = files_of(PARTS["text_encoder"], listing(HUNYUAN_FILES))
    assert files[-1].path == "text_encoder/model-00002-of-00002.safetensors"
    assert files[0].path == "tokenizer/tokenizer_config.json"


def test_all_chosen_files_are_known_again_as_belonging_and_no_others():
    for name in ("text_encoder", "text_encoder_2", "vae"):
        belonging = {path for path in HUNYUAN_FILES if may_be_part_of(PARTS[name], PurePosixPath(path))}
        assert belonging == chosen(name, HUNYUAN_FILES)
