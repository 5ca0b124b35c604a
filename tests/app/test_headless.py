"""The command's output on a terminal, and its end. Bad input has tests of its own."""

import ctypes
import io
import os
import re
import runpy
import signal
import sys
import time
from unittest.mock import Mock

import numpy as np
import pytest
from tqdm import tqdm

from diffusers_helper.events import StepDone
from tests.support.command import SMALL
from tests.support.terminal import Terminal
from webui import endframe_ichi
from webui.eichi_utils import headless
from webui.eichi_utils.jobs.store import delete_stale, work_folder
from webui.eichi_utils.terminal import EXIT_STOPPED, stop_when_closed, write_line
from webui.eichi_utils.text.translations import Translator


def test_a_terminal_shows_progress_and_the_last_line_names_the_result(command, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(sys, "stdout", out := Terminal(is_terminal=False))
    assert command({"seconds": 1, "steps": 3}).status == 0
    shown = terminal.shown()
    for text in ("section 1/2", "section 2/2", "step 1/3", "step 3/3", "6/6"):
        assert text in shown
    assert re.search(r"<\d\d:\d\d", shown)
    video = re.escape(str(command.output / "video.mp4"))
    assert re.fullmatch(rf"{video}: \d+ frames, 1\.\d\d s, 64x64, made in \d+\.\d s\n", out.shown())


def test_without_a_terminal_there_is_a_line_for_each_section(command):
    answer = command({"seconds": 1})
    assert answer.lines[1:] == ("Section 1 of 2 is done.", "Section 2 of 2 is done.")


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


def test_ctrl_c_before_the_handler_ends_without_a_traceback(monkeypatch):
    monkeypatch.setattr(headless, "run_headless", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(sys, "argv", [endframe_ichi.__file__, "--headless", "request.json"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(endframe_ichi.__file__, run_name="__main__")
    assert ended.value.code == EXIT_STOPPED


def test_ctrl_c_stops_after_the_step_and_keeps_what_is_finished(command, monkeypatch):
    def press(_bar, event, _words):
        if (event.section, event.step) == (1, 1):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(headless, "_advance", press)
    answer = command({"seconds": 1, "steps": 3})
    assert answer.status == 130
    assert answer.files == ("video.png", "video_unfinished.mp4")
    assert answer.lines[-3].startswith("Stopping after this step.")
    assert answer.lines[-2].startswith("Stopped. What was finished, the END of the video, can be seen in ")
    assert answer.lines[-1].startswith('1 of 2 sections are kept. The same command with --name "video" goes')


@pytest.mark.parametrize("begin", [0, 1])
def test_the_bar_goes_back_when_a_section_is_sampled_again(begin):
    positions, bar = [], tqdm(file=io.StringIO())
    for section, step in [(begin, 1), (begin, 2), (begin, 1), (begin, 2), (2, 1), (2, 2)]:
        event = StepDone(section, 3, step, 2, computed=True, preview=np.zeros(1))
        headless._advance(bar, event, Translator("en"))
        positions.append((bar.n, bar.total))
    more = 2 * (1 - begin)
    assert positions[:4] == [(1, 4 + more), (2, 4 + more)] * 2
    assert positions[4:] == [(3 + more, 4 + more), (4 + more, 4 + more)]


def test_the_same_name_resumes_where_it_stopped(command, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(headless, "_advance", lambda *_: signal.raise_signal(signal.SIGINT))
        assert command({"seconds": 1, "steps": 1}).status == 130
    answer = command({"seconds": 1, "steps": 1})
    assert answer.status == 0
    assert answer.lines[1] == "Going on: 1 of 2 sections are there already."
    assert answer.files == ("video.mp4", "video.png")
    assert not list((command.home / "temp" / "headless").iterdir())


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


def test_a_second_ctrl_c_ends_at_once(command, monkeypatch):
    def press_twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(headless, "_advance", press_twice)
    before = signal.getsignal(signal.SIGINT)
    answer = command({"steps": 3})
    assert signal.getsignal(signal.SIGINT) is before
    assert answer.status == 130
    assert answer.lines[-1] == "Ended at once."
    assert answer.files == ("video.png",)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "There is not enough memory; close other programs, or choose a smaller resolution."),
        (LookupError("two\nlines"), "does not know: LookupError: two lines (at test_headless.py:"),
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
@pytest.mark.parametrize(("columns", "follows"), [(0, False), (100, True)])
def test_a_terminal_without_a_size_gets_a_default_width(columns, follows):
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    with open(slave, "w") as terminal, open(master, "rb") as shown:  # noqa: PTH123  (no paths)
        options = headless._width(terminal)
        assert options == ({"dynamic_ncols": True} if follows else {"ncols": 80, "nrows": 24})
        assert shown.fileno() == master


def test_closing_the_window_on_windows_is_ctrl_c(windows, monkeypatch):
    monkeypatch.setattr(ctypes, "WINFUNCTYPE", lambda *_: lambda function: function, raising=False)
    monkeypatch.setattr(time, "sleep", Mock())
    stop_when_closed()
    handle = windows.kernel32.SetConsoleCtrlHandler.call_args.args[0]
    assert not handle(0), "what Ctrl-C itself does stays"
    with pytest.raises(KeyboardInterrupt):
        handle(2)
