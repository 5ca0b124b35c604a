"""Lengths of time in words."""

from .translations import Translator

MINUTE, HOUR = 60, 3600


def shown_seconds(seconds: float) -> int:
    """Round a duration to the seconds that its words say."""
    whole = max(round(seconds), 1)
    if whole >= 5 * MINUTE:
        return round(whole / MINUTE) * MINUTE
    return round(whole / 10) * 10 if whole >= MINUTE else whole


def format_duration(seconds: float, words: Translator) -> str:
    """Format a duration in the coarsest units that still help: "40 s", "3 min 20 s", "19 min", "1 h"."""
    whole = shown_seconds(seconds)
    if whole < MINUTE:
        return words("time.seconds", seconds=whole)
    if whole < HOUR:
        key = "time.minutes" if whole % MINUTE else "time.whole_minutes"
        return words(key, minutes=whole // MINUTE, seconds=whole % MINUTE)
    key = "time.hours" if whole % HOUR else "time.whole_hours"
    return words(key, hours=whole // HOUR, minutes=whole % HOUR // MINUTE)
