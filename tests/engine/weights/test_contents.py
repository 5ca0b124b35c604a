"""Files of the right length that hold no weights are refused by their names, and good ones are read once."""

import json
import os
import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusers_helper.errors import InputError
from diffusers_helper.events import Stopped
from diffusers_helper.weights import contents
from diffusers_helper.weights.checkpoint import read_header
from diffusers_helper.weights.contents import check_contents, record_in
from diffusers_helper.weights.model_files import FRAMEPACK, HUNYUAN, find_models
from tests.support.tiny import MODELS, VAE_FILE, make_loader, run, small_request

SHARD = f"{FRAMEPACK}/diffusion_pytorch_model-00003-of-00006.safetensors"
TABLE = f"{HUNYUAN}/text_encoder/model-00001-of-00008.safetensors"  # nothing but embeddings
CLIP = f"{HUNYUAN}/text_encoder_2/model.safetensors"
RANDOM = np.random.default_rng(0).bytes(2**21)


@pytest.fixture
def models(tmp_path) -> Path:
    return shutil.copytree(MODELS, tmp_path / "models")


def rewrite(path: Path, change) -> None:
    """Change a file's body, which stays as long as it is."""
    content = path.read_bytes()
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    body = change(content[begin:])
    assert len(content) == begin + len(body)
    path.write_bytes(content[:begin] + body)


def replaced(begin: float, end: float, content: bytes):
    """Return a change of the body between two fractions of it to `content`, again and again."""

    def change(body: bytes) -> bytes:
        first, last = int(len(body) * begin), int(len(body) * end)
        return body[:first] + (content * (last // len(content) + 1))[: last - first] + body[last:]

    return change


def refusal(models: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        check_contents(find_models(models), None)
    return caught.value


BLANK = {
    "zeros": replaced(0, 1, b"\0"),
    "ones": replaced(0, 1, struct.pack("<f", 1)),
    "0xFF": replaced(0, 1, b"\xff"),
    "a zero end": replaced(0.75, 1, b"\0"),
    "a zero middle": replaced(0.4, 0.6, b"\0"),
    "a zero begin": replaced(0, 0.25, b"\0"),
    "a block again and again": replaced(0, 1, RANDOM[:4]),
    "one half twice": lambda body: (body[: len(body) // 8192 * 4096] * 3)[: len(body)],
    "a large block again and again": lambda body: (body[:8192] * 999)[: len(body)],
}
DAMAGED = {
    "noise": replaced(0, 1, RANDOM),
    "noise in the middle": replaced(0.4, 0.6, RANDOM),
    "text": replaced(0, 1, b"<html>Nothing is here, sorry. "),
    "shifted by a byte": lambda body: body[1:] + b"\0",
    "of the other end": lambda body: np.frombuffer(body, ">u4").astype("<u4").tobytes(),
}


@pytest.mark.parametrize("file", [SHARD, VAE_FILE, CLIP, TABLE])
def test_a_file_without_weights_is_named(models, file):
    for code, changes in (("weights_blank", BLANK), ("weights_damaged", DAMAGED)):
        for name, change in changes.items():
            shutil.copy(MODELS / file, models / file)
            rewrite(models / file, change)
            error = refusal(models)
            assert (error.code, error.values["path"]) == (code, str(models / file)), name


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_numbers_of_another_format_are_damaged(tmp_path, dtype):
    """As many bytes in a number: the header fits, and every number is wrong."""
    single = json.dumps({"w": {"dtype": dtype, "shape": [256, 256], "data_offsets": [0, 2**17]}}).encode()
    weights = np.random.default_rng(0).normal(0, 0.02, 2**16)
    bits = {"F16": weights.astype("<f4").view("<u4") >> 16, "BF16": weights.astype("<f2").view("<u2")}[dtype]
    (tmp_path / "w.safetensors").write_bytes(
        struct.pack("<Q", len(single)) + single + bits.astype("<u2").tobytes()
    )
    with pytest.raises(InputError, match="weights_damaged"):
        contents._FileCheck(tmp_path / "w.safetensors").run(read_header(tmp_path / "w.safetensors"))


def check(folder: Path, **matrices: np.ndarray) -> None:
    """Check one file of a few samples, as those of large files lie: far apart."""
    save_file(matrices, folder / "w.safetensors")
    contents._FileCheck(folder / "w.safetensors").run(read_header(folder / "w.safetensors"))


@pytest.fixture
def weights(monkeypatch) -> np.ndarray:
    """Good weights `(1024, 1024)` float32, of which eight samples are read."""
    monkeypatch.setattr(contents, "MIN_SAMPLES", 8)
    return np.random.default_rng(0).normal(0, 0.02, (1024, 1024)).astype(np.float32)


def test_dead_channels_and_tied_weights_are_no_damage(tmp_path, weights):
    weights[500:540] = 0  # 160 KiB around a sample
    check(tmp_path, a=weights, b=weights, bias=np.zeros(4096, np.float32))
    weights[500:600] = 0
    with pytest.raises(InputError, match="weights_blank"):
        check(tmp_path, a=weights)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_damage(tmp_path, weights, number):
    weights[512] = np.where(np.arange(1024) % 99, weights[512], number)
    with pytest.raises(InputError, match="weights_damaged"):
        check(tmp_path, a=weights)


def test_a_blank_table_with_one_sample_is_told(tmp_path, weights):
    table = np.zeros((64, 512), np.float32)
    with pytest.raises(InputError, match=r"weights_blank.*position_embedding"):
        check(tmp_path, position_embedding=table, weights=weights)


def test_rows_that_no_token_uses_are_no_damage(models):
    rewrite(models / TABLE, replaced(0.95, 1, b"\0"))
    check_contents(find_models(models), None)


def test_a_zeroed_file_ends_a_job_before_anything_is_encoded(models, tmp_path):
    rewrite(models / SHARD, BLANK["zeros"])
    with pytest.raises(InputError, match="weights_blank"):
        next(run(small_request(), tmp_path / "out", loader=make_loader(models)))


@pytest.fixture
def checked(models, tmp_path, monkeypatch) -> tuple[Path, list[Path]]:
    """A record of the models, which are not new, and the files that are read from now on."""
    for path in models.rglob("*.safetensors"):
        os.utime(path, (1e9, 1e9))
    check_contents(find_models(models), record_in(tmp_path))
    read: list[Path] = []
    original = contents._FileCheck.run
    monkeypatch.setattr(
        contents._FileCheck, "run", lambda self, tensors: (read.append(self.path), original(self, tensors))
    )
    return record_in(tmp_path), read


def test_a_good_file_is_read_once(models, checked):
    record, read = checked
    check_contents(find_models(models), record)
    assert read == []


def test_a_stop_ends_the_first_reading_and_keeps_what_was_read(models, tmp_path, monkeypatch):
    for path in models.rglob("*.safetensors"):
        os.utime(path, (1e9, 1e9))
    stop, read, original = threading.Event(), [], contents.read_exactly

    def read_and_stop(file: object, path: Path, *place: object) -> None:
        original(file, path, *place)
        read.append(path)
        if path != read[0]:
            stop.set()

    monkeypatch.setattr(contents, "read_exactly", read_and_stop)
    *_, last = run(small_request(), tmp_path / "out", loader=make_loader(models), stop=stop, cache=tmp_path)
    assert isinstance(last, Stopped)
    assert len(set(read)) == 2 and read.count(read[-1]) == 1, "nothing is read behind the stop"
    assert list(json.loads(record_in(tmp_path).read_text())) == [str(read[0])]


def test_a_file_changed_behind_its_time_is_read_again(models, checked):
    record, read = checked
    rewrite(models / SHARD, BLANK["zeros"])
    os.utime(models / SHARD, (1e9, 1e9))
    with pytest.raises(InputError, match="weights_blank"):
        check_contents(find_models(models), record)
    assert read == [models / SHARD]


def test_a_new_file_is_read_until_it_is_on_the_disk(models, checked):
    record, read = checked
    os.utime(models / SHARD)
    for _ in range(2):
        check_contents(find_models(models), record)
    assert read == [models / SHARD] * 2


@pytest.mark.parametrize("content", ["", "[]", "[" * 99_999, '{"a": 1}', "\0"])
def test_a_broken_record_only_costs_time(models, checked, content):
    record, read = checked
    record.write_text(content)
    check_contents(find_models(models), record)
    assert len(read) == len(list(models.rglob("*.safetensors")))
    check_contents(find_models(models), record)
    assert len(read) == len(list(models.rglob("*.safetensors")))
