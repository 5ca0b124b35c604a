"""The strip of the newest videos: plain values, in the page's language, for `strip.js`. Knows no folder."""

from typing import Any

from diffusers_helper.sections import FPS

from ..recent_videos import RecentVideo
from ..text.translations import Translator

SHOWN_PROMPT = 120
ACTIONS = {"settings": "page.take_settings", "continue": "page.continue", "folder": "strip.folder"}
"""The actions on a video beside playing it, with the keys of their words."""


def strip_state(videos: tuple[RecentVideo, ...], words: Translator) -> dict[str, Any]:
    """Return everything that a page shows of the videos, which it plays as it does the results of jobs."""
    return {"title": words("strip.title"), "videos": [_item(video, words) for video in videos]}


def _item(video: RecentVideo, words: Translator) -> dict[str, Any]:
    name = video.path.stem.encode("utf-8", "backslashreplace").decode()  # of bytes that are no UTF-8
    size = {"width": video.width, "height": video.height, "seconds": f"{video.frames / FPS:.2f}"}
    about = " ".join(video.prompt.split())[:SHOWN_PROMPT]
    actions = [action for action in ACTIONS if video.has_settings or action != "settings"]
    return {
        "id": video.id,
        "complete": True,
        "has_settings": video.has_settings,
        "file": f"{name}.mp4",
        "video": f"ichi/recent/{video.id}/video.mp4",
        "thumbnail": f"ichi/recent/{video.id}/thumbnail",
        "caption": words("strip.caption", name=name, frames=video.frames, **size),
        "play": words("strip.play" if about else "strip.play_name", name=name, prompt=about),
        "actions": {action: words(ACTIONS[action]) for action in actions},
    }
