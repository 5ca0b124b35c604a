"""The cache of embeddings on the disk: found again, bounded, harmless."""

import os
import shutil

import pytest
import torch

from diffusers_helper.encoding import embedding_cache
from diffusers_helper.encoding.embedding_cache import EmbeddingCache, embedding_keys
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import LAST_SHARD, MODELS, copy_models


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "cache")


def test_tensors_are_read_as_they_were_put(cache):
    assert cache.get("a") is None
    tensors = {"embeds": torch.randn(5, 8, dtype=torch.float16), "num_dropped": torch.tensor(3)}
    cache.put("a", tensors)
    found = EmbeddingCache(cache.folder).get("a")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_damaged_entry_counts_as_none_and_can_be_put_again(cache):
    cache.put("a", {"x": torch.ones(100)})
    path = next(cache.folder.iterdir())
    path.write_bytes(path.read_bytes()[:100])
    assert cache.get("a") is None
    cache.put("a", {"x": torch.ones(100)})
    assert cache.get("a") is not None


def test_the_least_recently_used_entry_is_evicted_and_what_a_killed_run_left(cache, monkeypatch):
    monkeypatch.setattr(embedding_cache, "MAX_BYTES", 3 * 4200)
    cache.folder.mkdir()
    (part := cache.folder / "e.safetensors.part").write_bytes(bytes(4000))
    os.utime(part, (1, 1))
    for age, name in enumerate("abc"):
        cache.put(name, {"x": torch.ones(1000)})
        os.utime(cache.folder / f"{name}.safetensors", (1000 + age, 1000 + age))
    assert cache.get("a") is not None  # used just now
    cache.put("d", {"x": torch.ones(1000)})
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    assert not part.exists()


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("")
    cache = EmbeddingCache(tmp_path / "file" / "cache")
    cache.put("a", {"x": torch.ones(1)})
    assert cache.get("a") is None


def key_of(part, content=b"a", dtype=torch.float32):
    return embedding_keys([content], [part], dtype)[0]


def test_a_key_differs_by_content_dtype_and_weights(tmp_path):
    part = find_models(MODELS).transformer
    other = find_models(copy_models(tmp_path / "m", LAST_SHARD, proj_out__bias=1.0)).transformer
    a, b = embedding_keys([b"a", b"b"], [part], torch.float32)
    (twice,) = embedding_keys([b"a"], [part, part], torch.float32)
    assert len({a, b, twice, key_of(part, dtype=torch.float16), key_of(other)}) == 5
    assert key_of(part) == a


def test_weights_changed_in_place_are_noticed_despite_their_old_time(tmp_path):
    shutil.copytree(MODELS, tmp_path / "m")
    path = tmp_path / "m" / "hunyuanvideo-community/HunyuanVideo/text_encoder_2/model.safetensors"
    before = key_of(find_models(tmp_path / "m").text_encoder_2)
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert key_of(find_models(tmp_path / "m").text_encoder_2) != before
