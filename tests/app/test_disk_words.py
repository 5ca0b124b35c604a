"""Disks that take nothing: a sentence of its own for each reason, in each place that writes."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_helper.encoding.embedding_cache import EmbeddingCache
from diffusers_helper.errors import EngineError
from diffusers_helper.files import atomic
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.request import GenerationRequest
from webui.eichi_utils.app import SETTINGS_FIELDS
from webui.eichi_utils.form import _as_file
from webui.eichi_utils.jobs.eta import Speed, SpeedHistory
from webui.eichi_utils.jobs.store import JobStore
from webui.eichi_utils.settings.presets import PresetStore
from webui.eichi_utils.settings.settings import SettingsStore
from webui.eichi_utils.support.failures import as_engine_error, describe_failure
from webui.eichi_utils.support.log_file import LogFile
from webui.eichi_utils.text.translations import Translator
from webui.eichi_utils.uploads.files import checked_picture

WORDS = Translator("en")
REASONS = {
    errno.ENOSPC: "disk is full",
    errno.EDQUOT: "disk quota is used up",
    errno.EFBIG: "FAT32 allows up to 4 GB",
    errno.EROFS: "is read-only",
    errno.EHOSTDOWN: "does not respond",
    errno.ESTALE: "does not respond",
    errno.EACCES: "permission is missing",
    errno.ENOENT: "is gone",
    errno.ENAMETOOLONG: "is too long",
    errno.EILSEQ: "does not allow the name",
}


def picture(folder: Path, kind: str) -> Path:
    path = folder / f"cat.{kind}"
    Image.new("RGB", (32, 32), "red").save(path)
    return path


def queue_job(folder: Path) -> None:
    request = GenerationRequest(start_image=str(picture(folder, "png")), seed=1)
    JobStore(folder / "temp").add("a", folder / "outputs", request, 0)


PLACES: dict[str, Callable[[Path], object]] = {
    "settings": lambda folder: SettingsStore(folder / "a.json", SETTINGS_FIELDS).update(prompt="x"),
    "presets": lambda folder: PresetStore(folder / "b.json").save("a", "b"),
    "job": queue_job,
    "upload": lambda folder: checked_picture(str(picture(folder, "tif"))),
    "picture of a video": lambda folder: _as_file(to_data_uri(np.zeros((8, 8, 3), np.uint8)), folder),
}


@pytest.fixture
def broken(monkeypatch, tmp_path) -> Callable[[int], None]:
    """Lets every file that is written fail where it would get its name."""

    def break_with(number: int) -> None:
        error = OSError(number, "system's words", str(tmp_path / "file"))
        monkeypatch.setattr(atomic, "replace_file", Mock(side_effect=error))

    return break_with


@pytest.mark.parametrize("number", REASONS, ids=errno.errorcode.get)
@pytest.mark.parametrize("place", PLACES)
def test_each_place_says_why_it_cannot_be_written(tmp_path, broken, place, number):
    broken(number)
    with pytest.raises(EngineError) as caught:
        PLACES[place](tmp_path)
    error = caught.value
    assert REASONS[number] in WORDS(f"error.{error.code}", **error.values)
    assert str(tmp_path) in str(error.values["path"])
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize("number", REASONS, ids=errno.errorcode.get)
def test_what_can_be_made_again_is_no_failure(tmp_path, broken, caplog, number):
    broken(number)
    EmbeddingCache(tmp_path).put("key", {"a": torch.zeros(2)})
    SpeedHistory(tmp_path / "speed.json").learn("CPU", Speed(1.0, 1.0, 1.0, 1.0))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_is_no_failure(tmp_path, monkeypatch):
    for number in REASONS:
        monkeypatch.setattr(
            Path, "open", lambda *_, number=number, **__: (_ for _ in ()).throw(OSError(number, "x"))
        )
        LogFile(tmp_path / "logs").handle(logging.LogRecord("a", logging.INFO, "a", 1, "text", None, None))


ALSO = [
    (errno.EFBIG, ".mp4"),
    (errno.EDQUOT, ".frames"),
    (errno.EHOSTDOWN, ".mp4"),
    (errno.EHOSTDOWN, ".frames"),
]


@pytest.mark.parametrize(
    ("number", "ending"),
    [
        (errno.EFBIG, ".frames"),
        (errno.EDQUOT, ".mp4"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ALSO),
    ],
)
def test_a_section_or_a_video_that_cannot_be_written_says_why(command, monkeypatch, number, ending):
    replace = atomic.replace_file

    def fail(source: Path, target: Path) -> None:
        if target.name.endswith(ending):
            raise OSError(number, "system's words")
        replace(source, target)

    monkeypatch.setattr(atomic, "replace_file", fail)
    answer = command({})
    assert (answer.status, answer.lines[-1].startswith("Error: ")) == (1, True)
    assert REASONS[number] in answer.lines[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_full_disk_is_named_wherever_it_is_noticed(number):
    failure = describe_failure(OSError(number, "x", "/videos/a"))
    assert REASONS[number] in WORDS(f"error.{failure.code}", **failure.values)
    assert as_engine_error(TimeoutError(errno.ETIMEDOUT, "x")).code == "unexpected"
