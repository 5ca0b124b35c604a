"""The bar on a terminal, and the words of the progress."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from tqdm import tqdm

from diffusers_helper.events import StepDone
from webui.eichi_utils import progress_line
from webui.eichi_utils.jobs.job import Progress
from webui.eichi_utils.text.translations import Translator

STEP = Progress(stage="sampling", section=0, sections=2, step=3, steps=16, seconds_left=40.0)


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (STEP, "section 1/2, step 3/16, about 40 s left"),
        (replace(STEP, step=0, seconds_left=None), "section 1/2, sampling"),
        (
            replace(STEP, stage="decoding", stage_fraction=0.4),
            "section 1/2, decoding (40 %), about 40 s left",
        ),
        (Progress(stage="prompt"), "reading the prompt"),
    ],
)
def test_the_progress_is_put_into_words(progress, text):
    assert progress_line.progress_text(progress, Translator("en")) == text


@pytest.mark.parametrize("begin", [0, 1])
def test_the_bar_goes_back_when_a_section_is_sampled_again(begin):
    positions, bar = [], tqdm(file=io.StringIO())
    for section, step in [(begin, 1), (begin, 2), (begin, 1), (begin, 2), (2, 1), (2, 2)]:
        event = StepDone(section, 3, step, 2, computed=True, preview=np.zeros(1))
        progress_line.advance(bar, event)
        positions.append((bar.n, bar.total))
    more = 2 * (1 - begin)
    assert positions[:4] == [(1, 4 + more), (2, 4 + more)] * 2
    assert positions[4:] == [(3 + more, 4 + more), (4 + more, 4 + more)]


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
        options = progress_line._width(terminal)
        assert options == ({"dynamic_ncols": True} if follows else {"ncols": 80, "nrows": 24})
        assert shown.fileno() == master
