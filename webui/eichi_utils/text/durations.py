"""Lengths of time in words."""

from .translations import Translator

MINUTE, HOUR = 60, 3600


def format_duration(seconds: float, words: Translator) -> str:
    """Format a duration in the coarsest units that still help: "40 s", "3 min 20 s", "19 min", "1 h"."""
    whole = max(round(seconds), 1)
    if whole >= 5 * MINUTE:
        whole = round(whole / MINUTE) * MINUTE
    elif whole >= MINUTE:
        whole = round(whole / 10) * 10
    if whole < MINUTE:
        return words("time.seconds", seconds=whole)
    if whole < HOUR:
        key = "time.minutes" if whole % MINUTE else "time.whole_minutes"
        return words(key, minutes=whole // MINUTE, seconds=whole % MINUTE)
    key = "time.hours" if whole % HOUR else "time.whole_hours"
    return words(key, hours=whole // HOUR, minutes=whole % HOUR // MINUTE)
