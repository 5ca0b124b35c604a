"""The progress of a download: what is reported and when, and the speed."""

import pytest

from webui.eichi_utils.download.progress import REPORT_SECONDS, DownloadView, Progress


class Recorder:
    """A progress with a clock that is set by hand; 100 of 1100 bytes are there."""

    def __init__(self) -> None:
        self.now = 0.0
        self.views: list[DownloadView] = []
        self.progress = Progress(self.views.append, lambda: self.now)
        self.progress.plan(1100, 1000)

    @property
    def view(self) -> DownloadView:
        return self.views[-1]

    def add(self, num_bytes: int, now: float) -> DownloadView:
        self.now = now
        self.progress.add(num_bytes, "a/b/c")
        return self.view


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_bytes_are_added_to_those_that_were_there(recorder):
    view = recorder.add(200, 1.0)
    assert (view.done_bytes, view.total_bytes, view.needed_bytes) == (300, 1100, 1000)
    assert (view.state, view.file) == ("fetching", "a/b/c")
    recorder.progress.subtract(250)
    assert recorder.view.done_bytes == 50


def test_speed_and_time_left_are_known_after_a_while(recorder):
    assert recorder.add(100, 1.0).speed is None
    view = recorder.add(300, 4.0)
    assert view.speed == pytest.approx(100)
    assert view.seconds_left == pytest.approx((1100 - 500) / 100)


def test_bytes_alone_are_reported_at_intervals(recorder):
    before = len(recorder.views)
    for moment in range(100):
        recorder.add(1, 1.0 + moment * REPORT_SECONDS / 20)
    assert 5 <= len(recorder.views) - before <= 7
    recorder.progress.enter("checking", "d")
    assert recorder.view.done_bytes == 200


def test_an_error_is_reported_until_bytes_come_again(recorder):
    recorder.add(100, 3.0)
    recorder.progress.enter("waiting", "a/b/c", "HTTP 503")
    view = recorder.view
    assert (view.state, view.last_error, view.speed) == ("waiting", "HTTP 503", None)
    assert recorder.add(1, 4.0).last_error is None


def test_the_speed_is_that_of_the_last_seconds(recorder):
    recorder.add(0, 0.0)
    for second in range(1, 101):
        recorder.add(10 if second <= 50 else 1000, float(second))
    assert recorder.view.speed == pytest.approx(1000)


def test_a_pause_does_not_count_as_slowness(recorder):
    recorder.add(0, 0.0)
    recorder.add(1000, 5.0)
    recorder.progress.enter("waiting", "a/b/c", "HTTP 503")
    assert recorder.add(0, 60.0).speed is None
    assert recorder.add(1000, 65.0).speed == pytest.approx(200)
