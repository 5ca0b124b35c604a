"""The count of a download: its views, its versions, its speed."""

import threading

import pytest

from webui.eichi_utils.download.progress import SPEED_SECONDS, DownloadView, SpeedMeter, Tally
from webui.eichi_utils.support.failures import Failure

FAILURE = Failure("disk_full", {"path": "/"}, "details")


@pytest.fixture
def tally() -> Tally:
    tally = Tally()
    tally.begin()
    tally.plan(100, 1100)
    tally.say("fetching", 0.0, "a/b/c")
    return tally


def test_before_anything_it_is_idle():
    view = Tally().view()
    assert view == DownloadView(0)
    assert not view.is_running


def test_one_begins_only_after_the_other_has_ended(tally):
    assert not tally.begin()
    tally.end("failed", FAILURE)
    assert tally.view().failure == FAILURE
    assert tally.begin()
    assert tally.view().failure is None
    assert tally.view().state == "asking"


def test_bytes_are_counted_onto_what_was_there(tally):
    tally.add(200, 1.0)
    view = tally.view()
    assert (view.done_bytes, view.total_bytes) == (300, 1100)
    tally.take_back(250)
    assert tally.view().done_bytes == 50


def test_speed_and_time_left_are_told_after_a_while(tally):
    tally.add(100, 1.0)
    assert tally.view().speed is None
    tally.add(300, 4.0)
    view = tally.view()
    assert view.speed == pytest.approx(100)
    assert view.seconds_left == pytest.approx((1100 - 500) / 100)


def test_each_view_differs_in_version_but_bytes_alone_not_too_often(tally):
    before = tally.view().version
    for moment in range(100):
        tally.add(1, 1.0 + moment * 0.01)
    assert tally.view().done_bytes == 200
    assert 5 <= tally.view().version - before <= 7


def test_trouble_is_told_until_bytes_come_again(tally):
    tally.add(100, 3.0)
    tally.say("waiting", 3.0, "a/b/c", "HTTP 503")
    view = tally.view()
    assert (view.state, view.last_error, view.speed) == ("waiting", "HTTP 503", None)
    tally.say("fetching", 4.0, "a/b/c")
    tally.add(1, 4.0)
    assert tally.view().last_error is None


def test_that_it_is_stopping_is_told_until_it_has_ended(tally):
    tally.stopping()
    assert tally.view().is_stopping
    tally.end("stopped")
    view = tally.view()
    assert (view.state, view.is_stopping, view.is_running, view.file) == ("stopped", False, False, None)


def test_who_waits_is_woken_by_a_change(tally):
    version = tally.view().version
    assert tally.wait(version, 0.01) == version
    threading.Timer(0.05, tally.stopping).start()
    assert tally.wait(version, 20) == version + 1


def test_the_speed_is_that_of_the_last_while():
    meter = SpeedMeter()
    meter.pause(0.0)
    for second in range(1, 101):
        meter.add(10 if second <= 50 else 1000, float(second))
    assert meter.value(100.0) == pytest.approx(1000)
    assert meter.value(100.0 + SPEED_SECONDS) == pytest.approx(500, rel=0.1)


def test_a_long_pause_does_not_count_as_slowness():
    meter = SpeedMeter()
    meter.pause(0.0)
    meter.add(1000, 5.0)
    meter.pause(60.0)
    assert meter.value(60.0) is None
    meter.add(1000, 65.0)
    assert meter.value(65.0) == pytest.approx(200)
