"""Lengths of time in words."""

import pytest

from webui.eichi_utils.text.durations import format_duration
from webui.eichi_utils.text.translations import Translator


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        ((-3, 0, 0.4), "1 s"),
        ((1.6,), "2 s"),
        ((59.4,), "59 s"),
        ((59.6, 64), "1 min 0 s"),
        ((66,), "1 min 10 s"),
        ((599, 600, 629), "10 min 0 s"),
        ((3569,), "59 min 0 s"),
        ((3571, 3600), "1 h 0 min"),
        ((5430,), "1 h 30 min"),
        ((86400,), "24 h 0 min"),
    ],
)
def test_a_length_is_told_in_units_that_still_help(lengths, text):
    assert {format_duration(seconds, Translator("en")) for seconds in lengths} == {text}
