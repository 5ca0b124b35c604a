"""`--eight-bit`: the folder of the 8-bit weights, which are converted once, before the first job."""

import json
import math
import os
import shutil
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from diffusers_helper import machine_errors
from diffusers_helper.eight_bit import conversion as eight_bit
from diffusers_helper.eight_bit import making
from diffusers_helper.eight_bit import shards as eight_bit_shards
from diffusers_helper.eight_bit.conversion import conversion_state, eight_bit_folder
from diffusers_helper.eight_bit.making import LOCK, choose_root, make_eight_bit
from diffusers_helper.errors import InputError, MachineError, StopRequested
from diffusers_helper.events import Event, Finished, Notice, Planned, StageProgress, StageStarted, Stopped
from diffusers_helper.weights.model_files import find_models
from tests.support.job_runs import LONG, wait_until
from tests.support.preflight_views import EMPTY_PREFLIGHT
from tests.support.terminal import Terminal
from tests.support.tiny import MODELS, make_request
from webui.eichi_utils.engine_options import DEMO, EngineOptions
from webui.eichi_utils.jobs.job import JobSpec
from webui.eichi_utils.jobs.queue import JobQueue
from webui.eichi_utils.jobs.runner import JobRunner
from webui.eichi_utils.page.state import page_state
from webui.eichi_utils.text.translations import Translator

STAGE = StageStarted("eight_bit")


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Make several files, as the real weights do."""
    monkeypatch.setattr(eight_bit_shards, "SHARD_BYTES", 250_000)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The tiny models where files may be written."""
    return Path(shutil.copytree(MODELS, tmp_path / "models"))


@pytest.fixture
def stuck(monkeypatch) -> None:
    """Convert half of the weights, then wait for a stop."""
    stop_at_half(monkeypatch, lambda: None)


def stop_at_half(monkeypatch: pytest.MonkeyPatch, at_half: Any) -> None:
    def convert(part, target, on_progress, stop):
        def tell(done: int, total: int) -> None:
            on_progress(done, total)
            if 2 * done > total:
                at_half()
                assert stop.wait(LONG)

        eight_bit.convert(part, target, tell, stop)

    monkeypatch.setattr(making, "convert", convert)


def options(models: Path, tmp_path: Path) -> EngineOptions:
    return EngineOptions(models, tmp_path / "cache", "cpu", None, tmp_path / "hf_download", eight_bit=True)


def spec(tmp_path: Path, name: str = "a", **values: Any) -> JobSpec:
    request = make_request(**{"seconds": 0.5} | values)
    return JobSpec(name, name, tmp_path / "out", request, tmp_path / "work")


def run(runner: JobRunner, job: JobSpec, stop: threading.Event | None = None) -> Iterator[Event]:
    return runner(job, stop or threading.Event())


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}


def is_told(events: list[Event]) -> bool:
    return STAGE in events


def a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(2**40, 2**40 - 2**19, 2**19)  # type: ignore[attr-defined]
    monkeypatch.setattr(machine_errors.shutil, "disk_usage", lambda _: usage)


# -- where they lie ----------------------------------------------------------------------------------------


def test_a_read_only_folder_is_used_only_if_it_is_complete(models, tmp_path, monkeypatch):
    source, roots = find_models(models).transformer, (models, tmp_path / "cache")
    assert choose_root(source, roots) == models
    monkeypatch.setattr(making, "_can_write", lambda folder: folder != models)
    assert choose_root(source, roots) == tmp_path / "cache"
    list(make_eight_bit(source, eight_bit_folder(models), threading.Event()))
    assert choose_root(source, roots) == models


def test_weights_finished_elsewhere_stay_in_use(models, tmp_path):
    source, elsewhere = find_models(models).transformer, tmp_path / "cache"
    list(make_eight_bit(source, eight_bit_folder(elsewhere), threading.Event()))
    assert choose_root(source, (models, elsewhere)) == elsewhere


def test_the_last_folder_is_used_if_none_is_writable(models, tmp_path):
    (tmp_path / "file").write_text("no folder")
    roots = (tmp_path / "file" / "a", tmp_path / "file" / "b")
    assert choose_root(find_models(models).transformer, roots) in roots


# -- made once ---------------------------------------------------------------------------------------------


def test_the_first_job_converts_and_the_next_reuses(models, tmp_path):
    folder = eight_bit_folder(models)
    runner = JobRunner(options(models, tmp_path))
    first = list(run(runner, spec(tmp_path, "a")))
    assert first[:2] == [Notice("eight_bit", {"path": str(folder)}), STAGE]
    planned = next(number for number, event in enumerate(first) if isinstance(event, Planned))
    assert all(isinstance(event, StageProgress) for event in first[2:planned])
    assert isinstance(first[-1], Finished)
    assert runner.machine_key is not None
    assert runner.machine_key.endswith(str(folder))
    made = times(folder)
    second = list(run(JobRunner(options(models, tmp_path)), spec(tmp_path, "b")))
    assert not is_told(second)
    assert isinstance(second[-1], Finished)
    assert times(folder) == made


def test_without_the_option_nothing_is_converted(models, tmp_path):
    runner = JobRunner(EngineOptions(models, tmp_path / "cache", "cpu", None))
    assert not is_told(list(run(runner, spec(tmp_path))))
    assert not eight_bit_folder(models).exists()


def test_the_demos_8_bit_weights_are_in_the_cache(tmp_path):
    stop = threading.Event()
    for event in run(JobRunner(options(DEMO, tmp_path)), spec(tmp_path), stop):
        if isinstance(event, Planned):
            stop.set()
    assert not eight_bit_folder(DEMO).exists()
    folder = eight_bit_folder(tmp_path / "cache" / "eight_bit" / "demo")
    assert conversion_state(folder, find_models(DEMO).transformer) == "complete"


@pytest.mark.parametrize("harm", ["damaged", "stale"])
def test_damaged_and_stale_weights_are_converted_again(models, tmp_path, harm):
    list(run(JobRunner(options(models, tmp_path)), spec(tmp_path, "a")))
    folder = eight_bit_folder(models)
    if harm == "damaged":
        path = sorted(folder.glob("*.safetensors"))[2]
        path.write_bytes(path.read_bytes()[:-1])
    else:
        config = find_models(models).transformer.folder / "config.json"
        config.write_text(config.read_text("utf-8") + "\n", "utf-8")
    events = list(run(JobRunner(options(models, tmp_path)), spec(tmp_path, "b")))
    assert is_told(events)
    assert isinstance(events[-1], Finished)
    assert conversion_state(folder, find_models(models).transformer) == "complete"


def test_a_missing_picture_is_an_error_before_converting(models, tmp_path):
    job = spec(tmp_path, start_image=str(tmp_path / "none.png"))
    with pytest.raises(InputError) as caught:
        list(run(JobRunner(options(models, tmp_path)), job))
    assert caught.value.code == "image_missing"
    assert not eight_bit_folder(models).exists()


# -- ended early -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stuck")
def test_a_stop_keeps_finished_files_for_the_next_job(models, tmp_path, monkeypatch):
    stop = threading.Event()
    seen = []
    for event in run(JobRunner(options(models, tmp_path)), spec(tmp_path, seconds=2), stop):
        seen.append(event)
        if isinstance(event, StageProgress) and event.fraction >= 0.5:
            stop.set()
    assert seen[-1] == Stopped(None, 0, 2)
    kept = times(eight_bit_folder(models))
    assert kept
    monkeypatch.undo()
    monkeypatch.setattr(eight_bit_shards, "SHARD_BYTES", 250_000)
    events = list(run(JobRunner(options(models, tmp_path)), spec(tmp_path)))
    assert isinstance(events[-1], Finished)
    assert kept.items() <= times(eight_bit_folder(models)).items()


def test_a_stop_counts_the_sections_stored_before(models, tmp_path):
    job, stop = spec(tmp_path, seconds=3), threading.Event()
    job.work.mkdir()
    (job.work / "section_000.frames").touch()
    stop.set()
    assert list(run(JobRunner(options(models, tmp_path)), job, stop)) == [Stopped(None, 1, 2)]


@pytest.mark.usefixtures("stuck")
def test_closing_the_events_ends_the_conversion(models):
    source, folder = find_models(models).transformer, eight_bit_folder(models)
    events = make_eight_bit(source, folder, threading.Event())
    assert any(isinstance(event, StageProgress) and event.fraction >= 0.5 for event in events)
    events.close()
    assert conversion_state(folder, source) == "incomplete"
    with FileLock(folder / LOCK, timeout=0):
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("eight-bit")]


def test_two_runs_do_not_convert_at_once(models):
    source, folder = find_models(models).transformer, eight_bit_folder(models)
    folder.mkdir()
    with FileLock(folder / LOCK), pytest.raises(InputError) as caught:
        list(make_eight_bit(source, folder, threading.Event()))
    assert caught.value.code == "eight_bit_busy"


def test_an_earlier_stop_begins_no_conversion(models):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StopRequested):
        list(make_eight_bit(find_models(models).transformer, eight_bit_folder(models), stop))
    assert not eight_bit_folder(models).exists()


def test_a_disk_too_small_is_reported_with_the_purpose(models, monkeypatch):
    a_full_disk(monkeypatch)
    with pytest.raises(MachineError) as caught:
        list(make_eight_bit(find_models(models).transformer, eight_bit_folder(models), threading.Event()))
    assert caught.value.code == "eight_bit_disk_too_small"
    assert caught.value.values["free"] == "0.5 MB"


# -- on the terminal ---------------------------------------------------------------------------------------


def test_the_command_converts_once(command, models):
    first = command({}, "--eight-bit", models=models)
    assert first.status == 0
    assert first.lines[0].startswith(f"The 8-bit weights are made in {eight_bit_folder(models)} before")
    assert first.lines[1].startswith("Making 21 frames")
    second = command({}, "--eight-bit", models=models)
    assert second.lines[0].startswith("Making 21 frames")


def test_a_terminal_shows_the_conversions_progress(command, models, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    stop_at_half(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    command({}, "--eight-bit", models=models)
    assert "making the 8-bit weights (0 %)" in terminal.shown()


def test_ctrl_c_during_the_conversion_is_a_stop(command, models, monkeypatch):
    stop_at_half(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    answer = command({}, "--eight-bit", models=models)
    assert answer.status == 130
    assert answer.lines[1].startswith("Stopping after this step.")
    assert answer.lines[2:] == ("Stopped. No section was finished as a video.",)
    assert conversion_state(eight_bit_folder(models), find_models(models).transformer) == "incomplete"


def test_the_command_advises_where_the_disk_is_too_small(command, models, monkeypatch):
    a_full_disk(monkeypatch)
    answer = command({}, "--eight-bit", models=models)
    assert answer.status == 1
    assert answer.lines[1].startswith("Error: The 8-bit weights need ")
    assert answer.lines[1].endswith("free some space, or start the app without --eight-bit.")


def test_a_video_begun_without_8_bit_is_not_continued(command, models, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("webui.eichi_utils.headless._advance", lambda *_: signal.raise_signal(signal.SIGINT))
        assert command({"seconds": 1}, models=models).status == 130
    answer = command({"seconds": 1}, "--eight-bit", models=models)
    assert answer.status == 2
    assert "(weights with and without --eight-bit are two)" in answer.lines[-1]
    assert not eight_bit_folder(models).exists(), "nothing was made for that"
    assert command({"seconds": 1}, models=models).status == 0, "nothing was lost"


def test_numbers_that_go_wrong_start_a_search_for_damage(models, tmp_path):
    runner, folder = JobRunner(options(models, tmp_path)), eight_bit_folder(models)
    list(run(runner, spec(tmp_path, "a")))
    shard = next(path for path in sorted(folder.glob("*.safetensors")) if scales_in(path))
    whole, times = shard.read_bytes(), shard.stat()
    damaged = bytearray(whole)
    for place in scales_in(shard):
        damaged[place : place + 4] = struct.pack("<f", math.nan)
    shard.write_bytes(damaged)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(MachineError) as caught:
        list(run(runner, spec(tmp_path, "b")))
    assert caught.value.code == "eight_bit_damaged"
    assert caught.value.values == {"path": str(folder)}
    again = list(run(runner, spec(tmp_path, "b")))
    assert again[0] == Notice("eight_bit", {"path": str(folder)})
    assert isinstance(again[-1], Finished)
    assert shard.read_bytes() == whole


def test_wrong_numbers_with_sound_weights_are_the_usual_error(models, tmp_path, monkeypatch):
    def fail(*_args):
        raise MachineError("not_a_number_in_pixels")

    monkeypatch.setattr("diffusers_helper.pipeline.decode_to", fail)
    with pytest.raises(MachineError) as caught:
        list(run(JobRunner(options(models, tmp_path)), spec(tmp_path)))
    assert caught.value.code == "not_a_number_in_pixels"
    assert conversion_state(eight_bit_folder(models), find_models(models).transformer) == "complete"


def scales_in(shard: Path) -> list[int]:
    """Return the offset in a file of each weight's first scale."""
    content = shard.read_bytes()
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    tensors = json.loads(content[8:begin])
    return [begin + entry["data_offsets"][0] for name, entry in tensors.items() if name.endswith("scale")]


# -- on the page -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stuck")
def test_the_page_shows_the_conversion_and_can_stop_it(models, tmp_path):
    queue = JobQueue(JobRunner(options(models, tmp_path)), tmp_path / "temp")
    job_id = queue.add(make_request(seconds=0.5), tmp_path / "out")
    view = wait_until(queue, lambda view: view.running and (view.running.progress.stage_fraction or 0) >= 0.5)
    assert status(view).startswith("making the 8-bit weights (")
    assert queue.stop(job_id)
    assert status(queue.view()) == "Stopping. What is made of the 8-bit weights is kept."
    wait_until(queue, lambda view: view.ended)
    job = queue.find(job_id)
    assert job is not None
    assert (job.state, job.can_finish, job.failure) == ("stopped", False, None)
    assert queue.close(LONG)


def test_a_job_of_the_page_uses_8_bit_weights(models, tmp_path):
    queue = JobQueue(JobRunner(options(models, tmp_path)), tmp_path / "temp")
    queue.add(make_request(seconds=0.5), tmp_path / "out")
    view = wait_until(queue, lambda view: view.ended)
    (job,) = view.ended
    assert (job.state, job.notices[0][0]) == ("done", "eight_bit")
    assert queue.close(LONG)


def status(view: Any) -> str:
    return str(page_state(view, EMPTY_PREFLIGHT, Translator("en"), server="s", sound=True)["job"]["status"])
