"""`--eight-bit`: the folder of the 8-bit weights, which are converted once, before the first job."""

import json
import math
import os
import shutil
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from filelock import FileLock

from diffusers_helper import machine_errors
from diffusers_helper.eight_bit import conversion
from diffusers_helper.eight_bit import folder as eight_bit
from diffusers_helper.eight_bit.conversion import CPU, make_eight_bit
from diffusers_helper.eight_bit.folder import LOCK, choose_root, eight_bit_folder, is_converted
from diffusers_helper.engine import Engine, EngineConfig, Target
from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import Event, Finished, Notice, Planned, StageProgress, StageStarted, Stopped
from diffusers_helper.weights.model_files import ModelPart, find_models
from tests.support.command import at_steps
from tests.support.page_state import EMPTY_PREFLIGHT
from tests.support.queue import LONG, wait_until
from tests.support.terminal import Terminal
from tests.support.tiny import make_request
from webui.eichi_utils.engine_options import EngineOptions
from webui.eichi_utils.jobs.queue import JobQueue
from webui.eichi_utils.jobs.runner import JobRunner
from webui.eichi_utils.jobs.view import QueueView
from webui.eichi_utils.page.state import page_state
from webui.eichi_utils.text.translations import Translator

STAGE = StageStarted("eight_bit")


@pytest.fixture
def folder(models) -> Path:
    return eight_bit_folder(models)


@pytest.fixture
def engine(models, tmp_path) -> Engine:
    cache = tmp_path / "cache"
    return Engine(EngineConfig(find_models(models), cache, "cpu", eight_bit_roots=(models, cache)))


@pytest.fixture
def stuck(monkeypatch) -> None:
    """Convert half of the weights, then go no further."""
    stop_at_half(monkeypatch, lambda: None)


def stop_at_half(monkeypatch: pytest.MonkeyPatch, at_half: Callable[[], None]) -> None:
    original = conversion.convert

    def convert(part: ModelPart, target: Path, device: torch.device) -> Iterator[tuple[int, int]]:
        for done, total in original(part, target, device):
            yield done, total
            if 2 * done > total:
                at_half()
                while True:
                    time.sleep(0.01)
                    yield done, total

    monkeypatch.setattr(conversion, "convert", convert)


def run(
    engine: Engine, tmp_path: Path, stop: threading.Event | None = None, **values: object
) -> Iterator[Event]:
    """Make a video of half a second."""
    target = Target(tmp_path / "out", "a", False, False, tmp_path / "work")
    request = make_request(**{"seconds": 0.5} | values)
    return engine.generate(request, target, stop or threading.Event())


# -- where they lie ----------------------------------------------------------------------------------------


def test_a_finished_folder_is_used_wherever_it_is_and_else_a_writable_one(
    source, models, tmp_path, finished, monkeypatch
):
    roots = (models, tmp_path / "cache")
    assert choose_root(source, roots) == models
    with monkeypatch.context() as patch:
        patch.setattr(eight_bit, "_can_write", lambda folder: folder != models)
        assert choose_root(source, roots) == tmp_path / "cache"
        shutil.copytree(finished, eight_bit_folder(models))
        assert choose_root(source, roots) == models
    shutil.move(eight_bit_folder(models), eight_bit_folder(tmp_path / "cache"))
    assert choose_root(source, roots) == tmp_path / "cache"


def test_the_last_folder_is_used_if_none_is_writable(source, tmp_path):
    (tmp_path / "file").write_text("no folder")
    roots = (tmp_path / "file" / "a", tmp_path / "file" / "b")
    assert choose_root(source, roots) in roots


# -- made once ---------------------------------------------------------------------------------------------


def test_the_first_job_converts_and_the_next_reuses(engine, source, folder, tmp_path):
    first = list(run(engine, tmp_path))
    assert first[:2] == [Notice("eight_bit", {"path": str(folder)}), STAGE]
    planned = next(number for number, event in enumerate(first) if isinstance(event, Planned))
    assert all(isinstance(event, StageProgress) for event in first[2:planned])
    fractions = [event.fraction for event in first[2:planned]]
    assert fractions == sorted({*fractions, 0.0, 1.0})
    assert isinstance(first[-1], Finished)
    assert engine.machine.endswith(str(folder))
    assert is_converted(folder, source)
    assert isinstance(next(run(Engine(engine.config), tmp_path)), Planned)


def test_a_missing_picture_is_an_error_before_converting(engine, folder, tmp_path):
    with pytest.raises(InputError, match="image_missing"):
        list(run(engine, tmp_path, start_image=str(tmp_path / "none.png")))
    assert not folder.exists()


# -- ended early -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stuck")
def test_a_stop_keeps_finished_files(engine, folder, tmp_path):
    stop, seen = threading.Event(), []
    for event in run(engine, tmp_path, stop, seconds=2):
        seen.append(event)
        if isinstance(event, StageProgress) and event.fraction >= 0.5:
            stop.set()
    assert seen[-1] == Stopped(None, 0, 2)
    assert [*folder.glob("*.safetensors")]


def test_an_earlier_stop_begins_nothing_and_counts_the_sections_stored_before(engine, folder, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "section_000.frames").touch()
    stop = threading.Event()
    stop.set()
    assert list(run(engine, tmp_path, stop, seconds=3)) == [Stopped(None, 1, 2)]
    assert not folder.exists()


@pytest.mark.usefixtures("stuck")
def test_closing_the_events_ends_the_conversion(source, folder):
    events = make_eight_bit(source, folder, CPU, threading.Event())
    assert any(isinstance(event, StageProgress) and event.fraction >= 0.5 for event in events)
    events.close()
    assert not is_converted(folder, source)
    assert not [*folder.glob("*.part")]
    with FileLock(folder / LOCK, timeout=0):
        pass


def test_two_runs_do_not_convert_at_once(source, folder):
    folder.mkdir()
    with FileLock(folder / LOCK), pytest.raises(InputError, match="eight_bit_busy"):
        list(make_eight_bit(source, folder, CPU, threading.Event()))


# -- damaged -----------------------------------------------------------------------------------------------


def test_numbers_that_go_wrong_start_a_search_for_damage(engine, source, converted, tmp_path):
    shard = next(path for path in sorted(converted.glob("*.safetensors")) if scales_in(path))
    whole, times = shard.read_bytes(), shard.stat()
    damaged = bytearray(whole)
    for offset in scales_in(shard):
        damaged[offset : offset + 4] = struct.pack("<f", math.nan)
    shard.write_bytes(damaged)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(MachineError, match="eight_bit_damaged") as caught:
        list(run(engine, tmp_path))
    assert caught.value.values == {"path": str(converted)}
    assert next(run(engine, tmp_path)) == Notice("eight_bit", {"path": str(converted)})
    list(make_eight_bit(source, converted, CPU, threading.Event()))
    assert shard.read_bytes() == whole


def test_wrong_numbers_with_sound_weights_are_the_usual_error(
    engine, source, converted, tmp_path, monkeypatch
):
    fail = Mock(side_effect=MachineError("not_a_number_in_pixels"))
    monkeypatch.setattr("diffusers_helper.engine.generate", fail)
    with pytest.raises(MachineError, match="not_a_number_in_pixels"):
        list(run(engine, tmp_path))
    assert is_converted(converted, source)


def scales_in(shard: Path) -> list[int]:
    """Return the offset in a file of each weight's first scale."""
    content = shard.read_bytes()
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    tensors = json.loads(content[8:begin])
    return [begin + entry["data_offsets"][0] for name, entry in tensors.items() if name.endswith("scale")]


def test_a_stop_reaches_the_first_reading_of_the_weights(engine, tmp_path, monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr("diffusers_helper.engine.check_contents", lambda *given: given[-1].set())
    assert isinstance(list(run(engine, tmp_path, stop))[-1], Stopped)


# -- on the terminal ---------------------------------------------------------------------------------------


def test_ctrl_c_during_the_conversion_is_a_stop(command, models, source, folder, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    stop_at_half(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    assert command({}, "--eight-bit", models=models).status == 130
    shown = terminal.shown()
    assert f"the 8-bit weights are made in {folder}" in shown
    assert "making the 8-bit weights (0 %)" in shown
    assert "Stopping soon." in shown
    assert "Stopped. No section was finished." in shown
    assert not is_converted(folder, source)


def test_the_command_advises_where_the_disk_is_too_small(command, models, monkeypatch):
    monkeypatch.setattr(machine_errors.shutil, "disk_usage", lambda _: Mock(free=2**19))
    answer = command({}, "--eight-bit", models=models)
    assert answer.status == 1
    assert answer.lines[1].startswith("Error: The 8-bit weights need ")
    assert " 0.5 MB " in answer.lines[1]
    assert answer.lines[1].endswith('Free some space, or set the speed to "Exact" (without --eight-bit).')


def test_a_video_begun_without_8_bit_is_not_continued(command, models, folder, monkeypatch):
    with monkeypatch.context() as patch:
        at_steps(patch, lambda _: signal.raise_signal(signal.SIGINT))
        assert command({"seconds": 1}, models=models).status == 130
    answer = command({"seconds": 1}, "--eight-bit", models=models)
    assert answer.status == 2
    assert "count as different" in answer.lines[-1]
    assert command({"seconds": 1}, models=models).status == 0, "nothing was lost"
    assert not folder.exists(), "nothing was made for that"


# -- on the page -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stuck")
def test_the_page_shows_the_conversion_and_can_stop_it(models, tmp_path):
    options = EngineOptions(models, tmp_path / "cache", "cpu", None, tmp_path / "hf_download", eight_bit=True)
    queue = JobQueue(JobRunner(options), tmp_path / "temp")
    job_id = queue.add(make_request(seconds=0.5), tmp_path / "out")
    is_half_made = lambda view: view.running and (view.running.progress.stage_fraction or 0) >= 0.5  # noqa: E731
    view = wait_until(queue, is_half_made, LONG)
    assert status(view).startswith("Making the 8-bit weights (")
    assert queue.stop(job_id)
    assert status(queue.view()) == "Stopping. The finished part of the 8-bit weights is kept."
    wait_until(queue, lambda view: view.ended, LONG)
    job = queue.find(job_id)
    assert job is not None
    assert (job.state, job.can_finish, job.failure) == ("stopped", False, None)
    assert [notice[0] for notice in job.notices] == ["eight_bit"]
    assert queue.close(LONG)


def status(view: QueueView) -> str:
    return str(page_state(view, EMPTY_PREFLIGHT, Translator("en"), server="s", sound=True)["job"]["status"])
