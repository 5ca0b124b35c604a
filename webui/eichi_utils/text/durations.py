"""Lengths of time in words."""

from .translations import Translator

MINUTE, HOUR = 60, 3600


def format_duration(seconds: float, words: Translator) -> str:
    """Format a duration in the coarsest units that still help: "40 s", "3 min 20 s", "1 h 5 min"."""
    whole = max(round(seconds), 1)
    if whole >= 10 * MINUTE:
        whole = round(whole / MINUTE) * MINUTE
    elif whole >= MINUTE:
        whole = round(whole / 10) * 10
    if whole < MINUTE:
        return words("time.seconds", seconds=whole)
    if whole < HOUR:
        return words("time.minutes", minutes=whole // MINUTE, seconds=whole % MINUTE)
    return words("time.hours", hours=whole // HOUR, minutes=whole % HOUR // MINUTE)
