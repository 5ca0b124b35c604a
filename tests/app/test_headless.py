"""The command's output on a terminal, and its end. Bad input has tests of its own."""

import ctypes
import hashlib
import os
import re
import runpy
import signal
import sys
import time
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest
from tqdm import tqdm

from diffusers_helper.media.video import count_frames, read_frames
from tests.support.command import SMALL, at_steps
from tests.support.terminal import Terminal
from webui import endframe_ichi
from webui.eichi_utils import headless
from webui.eichi_utils.jobs.store import delete_stale, work_folder
from webui.eichi_utils.terminal import EXIT_STOPPED, stop_when_closed, write_line


def test_a_terminal_shows_progress_and_the_last_line_names_the_result(command, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(sys, "stdout", out := Terminal(is_terminal=False))
    monkeypatch.setattr("webui.eichi_utils.progress_line.tqdm", partial(tqdm, mininterval=0))
    assert command({"seconds": 1, "steps": 3}).status == 0
    shown = terminal.shown()
    for text in ("section 1/2", "section 2/2", "step 1/3", "step 3/3", "6/6"):
        assert text in shown
    assert re.search(r"step 3/3, about \d+ (min \d+ )?s left", shown)
    assert "0/6" not in shown, "loading is no step"
    video = re.escape(str(command.output / "video.mp4"))
    assert re.fullmatch(rf"{video}: \d+ frames, 1\.\d\d s, 64x64, made in \d+\.\d s\n", out.shown())


def test_without_a_terminal_there_is_a_line_for_each_section(command):
    lines = [line for line in command({"seconds": 1}).lines if line.startswith("Section ")]
    assert lines == ["Section 1 of 2 is done.", "Section 2 of 2 is done."]


def test_without_a_terminal_work_is_told_every_few_seconds(command, monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr("webui.eichi_utils.progress_line.time", Mock(monotonic=lambda: next(ticks)))
    lines = command({"seconds": 1, "steps": 8}).lines
    pattern = r"section 1/2, step \d/8(, about [0-9a-z ]+ left)?"
    steps = [line for line in lines if re.fullmatch(pattern, line)]
    assert 1 <= len(steps) <= 2, "one in five seconds, which pass here with as many events"


def test_a_line_has_codes_for_letters_that_a_terminal_lacks_and_for_controls():
    write_line("猫 é\x1b[2J\u202e\x9b.mp4\n", terminal := Terminal("latin-1", is_terminal=False))
    assert terminal.shown() == "\\u732b é\\x1b[2J\\u202e\\x9b.mp4\\n\n"


@pytest.mark.parametrize("has_streams", [False, True])
def test_a_video_is_made_though_nobody_reads(command, monkeypatch, has_streams):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, broken if has_streams else None)
        assert command().status == 0
        sys.stdout.close(), sys.stderr.close()  # what was held back goes nowhere, too


@pytest.mark.parametrize(("free", "is_full"), [(10**12, False), (10**6, True)])
def test_a_full_disk_keeps_no_half_of_a_compiled_module(monkeypatch, free, is_full):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr("shutil.disk_usage", Mock(return_value=Mock(free=free)))
    runpy.run_path(endframe_ichi.__file__)
    assert sys.dont_write_bytecode is is_full


def test_ctrl_c_before_the_handler_ends_without_a_traceback(monkeypatch):
    monkeypatch.setattr(headless, "run_headless", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(sys, "argv", [endframe_ichi.__file__, "--headless", "request.json"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(endframe_ichi.__file__, run_name="__main__")
    assert ended.value.code == EXIT_STOPPED


def test_ctrl_c_stops_after_the_step_and_keeps_what_is_finished(command, monkeypatch):
    def press(event):
        if (event.section, event.step) == (1, 1):
            signal.raise_signal(signal.SIGINT)

    at_steps(monkeypatch, press)
    answer = command({"seconds": 1, "steps": 3})
    assert answer.status == 130
    assert answer.files == ("video.png", "video_unfinished.mp4")
    assert answer.lines[-3].startswith("Stopping soon.")
    assert answer.lines[-2].startswith("Stopped. The finished part (the END of the video) is in ")
    assert answer.lines[-1].startswith("1 of 2 sections are kept. To continue, run ")


def test_the_same_name_resumes_where_it_stopped(command, monkeypatch):
    with monkeypatch.context() as patch:
        at_steps(patch, lambda event: event.section and signal.raise_signal(signal.SIGINT))
        assert command({"seconds": 1, "steps": 1}).status == 130
    answer = command({"seconds": 1, "steps": 1})
    assert answer.status == 0
    assert answer.lines[1] == "Continuing: 1 of 2 sections are already done."
    assert answer.files == ("video.mp4", "video.png")
    assert not list((command.home / "temp" / "headless").iterdir())


def test_a_stop_after_the_first_sections_steps_keeps_them(command, monkeypatch):
    with monkeypatch.context() as patch:
        at_steps(patch, lambda _: signal.raise_signal(signal.SIGINT))
        answer = command({"seconds": 1, "steps": 1})
    assert answer.lines[-2:] == (
        "Stopped. No section was finished.",
        'The steps of the first section are kept. To continue, run the same command with --name "video".',
    )
    steps = []
    at_steps(monkeypatch, lambda event: steps.append(event.section))
    assert command({"seconds": 1, "steps": 1}).status == 0
    assert steps == [1]


def test_old_unfinished_videos_are_deleted_but_for_the_newest(tmp_path):
    works = [work_folder(tmp_path, tmp_path / "out", name) for name in "abcde"]
    assert len(set(works)) == 5
    for days, work in zip((31, 400, 29, 35, 500), works, strict=True):
        work.mkdir(parents=True)
        (work / "section_000.frames").touch()
        then = time.time() - days * 24 * 3600
        for path in (*work.iterdir(), work):
            os.utime(path, (then, then))
    (tmp_path / "headless" / ".DS_Store").touch()  # a file manager was here
    delete_stale(tmp_path)
    assert [work.exists() for work in works] == [True, False, True, True, False]


def test_the_work_of_a_video_moves_with_its_home(tmp_path):
    home, moved = tmp_path / "home", tmp_path / "moved"
    work = work_folder(home / "temp", home / "outputs", "a")
    work.mkdir(parents=True)
    other = work_folder(home / "temp", tmp_path / "elsewhere", "a")
    home.rename(moved)
    assert work_folder(moved / "temp", moved / "outputs", "a") == moved / work.relative_to(home)
    assert work_folder(moved / "temp", tmp_path / "elsewhere", "a") == moved / other.relative_to(home)
    assert len({work.name, other.name, work_folder(moved / "temp", moved / "outputs", "b").name}) == 3


def test_the_work_of_an_earlier_version_is_used(tmp_path):
    target = os.path.normcase(os.path.realpath(tmp_path / "outputs" / "a"))
    before = tmp_path / "temp" / "headless" / hashlib.sha256(os.fsencode(target)).hexdigest()[:12]
    assert work_folder(tmp_path / "temp", tmp_path / "outputs", "a") != before
    before.mkdir(parents=True)
    assert work_folder(tmp_path / "temp", tmp_path / "outputs", "a") == before


def test_a_second_ctrl_c_ends_at_once(command, monkeypatch):
    def press_twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_steps(monkeypatch, press_twice)
    before = signal.getsignal(signal.SIGINT)
    answer = command({"steps": 3})
    assert signal.getsignal(signal.SIGINT) is before
    assert answer.status == 130
    assert answer.lines[-1] == "Quit immediately."
    assert answer.files == ("video.png",)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "There is not enough memory. Close other programs, or choose a smaller size."),
        (LookupError("two\nlines"), "error occurred: LookupError: two lines (at test_headless.py:"),
    ],
)
def test_an_unexpected_error_is_one_sentence_too(command, monkeypatch, error, sentence):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("webui.eichi_utils.headless.load_request", fail)
    answer = command(SMALL)
    assert answer.status == 1
    assert len(answer.lines) == 1
    assert sentence in answer.lines[0]


def test_closing_the_window_on_windows_is_ctrl_c(windows, monkeypatch):
    monkeypatch.setattr(ctypes, "WINFUNCTYPE", lambda *_: lambda function: function, raising=False)
    monkeypatch.setattr(time, "sleep", Mock())
    stop_when_closed()
    handle = windows.kernel32.SetConsoleCtrlHandler.call_args.args[0]
    assert not handle(0), "what Ctrl-C itself does stays"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            handle(2)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_video_is_continued_at_its_end_and_both_are_joined(command, monkeypatch):
    assert command().status == 0
    first = command.output / "video.mp4"
    short = {"start_image": None, "width": None, "height": None, "previous_video": str(first)}
    monkeypatch.setattr(sys, "stdout", out := Terminal(is_terminal=False))
    assert command(short, "--name", "next").status == 0
    joined, frames = command.output / "next_joined.mp4", count_frames(first)
    assert count_frames(joined) == frames + count_frames(command.output / "next.mp4") - 1
    assert np.array_equal(next(read_frames(joined)), next(read_frames(first)))
    told = rf"{re.escape(str(joined))}: {count_frames(joined)} frames, \d\.\d\d s, joined with the previous"
    assert re.search(told, out.shown())
    assert command(command.output / "next_joined.mp4", "--name", "again").status == 0, "with its request"
    assert count_frames(command.output / "again_joined.mp4") == count_frames(joined)


@pytest.mark.parametrize("name", ["video.mp4", "a" * 300])  # the second cannot even be looked for
def test_a_run_that_continues_a_video_is_resumed_without_it(command, monkeypatch, name):
    assert command().status == 0
    first = command.output / "video.mp4"
    request = {"previous_video": str(first)}
    monkeypatch.setattr("diffusers_helper.job.output.encode_mp4", Mock(side_effect=KeyboardInterrupt))
    assert command(request, "--name", "next").status == EXIT_STOPPED
    monkeypatch.undo()
    first.unlink()
    request = {"previous_video": str(first := first.with_name(name))}
    incomplete = command(request | {"start_image": None}, "--name", "next")
    assert str(first) in incomplete.lines[-1]
    answer = command(request, "--name", "next")
    assert answer.status == 0
    assert any(f"{first}, no longer exists" in line for line in answer.lines)
    assert "next.mp4" in answer.files
    assert "next_joined.mp4" not in answer.files
