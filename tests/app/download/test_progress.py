"""The progress of a download: what is reported and when, and the speed."""

import pytest

from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download.plan import DownloadPlan
from webui.eichi_utils.download.progress import REPORT_SECONDS, DownloadView, Progress

FILE = RemoteFile("a/b", "c", 100_000)


class Recorder:
    """A progress with a clock that is set by hand; 1,000 bytes and 100 of the file are there."""

    def __init__(self) -> None:
        self.now = 0.0
        self.views: list[DownloadView] = []
        self.progress = Progress(self.views.append, lambda: self.now)
        self.progress.plan(DownloadPlan({FILE: 100}, 101_000))

    def count(self, num_bytes: int, now: float) -> DownloadView:
        self.now = now
        self.progress.count(FILE, num_bytes)
        return self.views[-1]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_bytes_are_counted_with_those_that_were_there(recorder):
    view = recorder.count(300, 1.0)
    assert (view.done_bytes, view.total_bytes, view.needed_bytes) == (1300, 101_000, 99_900)
    assert (view.state, view.file) == ("fetching", "a/b/c")
    assert recorder.count(50, 2.0).done_bytes == 1050


def test_speed_and_time_left_are_known_after_a_while(recorder):
    assert recorder.count(200, 1.0).speed is None
    view = recorder.count(500, 4.0)
    assert view.speed == pytest.approx(100)
    assert view.seconds_left == pytest.approx((101_000 - 1500) / 100)


def test_bytes_alone_are_reported_at_intervals(recorder):
    before = len(recorder.views)
    for moment in range(100):
        recorder.count(101 + moment, 1.0 + moment * REPORT_SECONDS / 20)
    assert 5 <= len(recorder.views) - before <= 7
    recorder.progress.enter("checking", "d")
    assert recorder.views[-1].done_bytes == 1200


def test_a_pause_has_its_reason_and_does_not_count_as_slowness(recorder):
    recorder.count(100, 0.0)
    recorder.count(1100, 5.0)
    recorder.progress.enter("waiting", "a/b/c", "HTTP 503")
    view = recorder.views[-1]
    assert (view.state, view.last_error, view.speed) == ("waiting", "HTTP 503", None)
    view = recorder.count(1100, 60.0)
    assert (view.last_error, view.speed) == (None, None)
    assert recorder.count(2100, 65.0).speed == pytest.approx(200)


def test_the_speed_is_that_of_the_last_seconds(recorder):
    for second in range(101):
        recorder.count(10 * second if second <= 50 else 500 + 1000 * (second - 50), float(second))
    assert recorder.views[-1].speed == pytest.approx(1000)
