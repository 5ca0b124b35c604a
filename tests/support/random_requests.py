"""Random valid requests."""

import random

from diffusers_helper.request import GenerationRequest, field_limits

WHOLE = ("steps", "resolution", "crf")
NUMBERS = ("teacache_threshold", "end_frame_strength", "distilled_guidance_scale", "guidance_rescale")
FLAGS = ("teacache", "loop", "keep_section_videos", "save_section_stills", "embed_request")
PIECES = (
    *("", "A cat.", "猫が歩く。", "é", "👩\u200d👩\u200d👧", '"', "'", "\\", "\n", "\r\n", "\t", "\0"),
    *("\x1b[31m", "\x7f", "{", "}", "%s", "=", ";", "#", "<b>", "\u2028", "\ufeff", "\U0010ffff", " "),
    "x" * 300,
)
"""Pieces of text that make a file format stumble."""


def random_request(rng: random.Random) -> GenerationRequest:
    """Any valid request."""
    values = {name: rng.randint(*map(int, field_limits(name))) for name in WHOLE}
    values |= {name: rng.uniform(*field_limits(name)) for name in NUMBERS}
    values |= {name: rng.random() < 0.5 for name in FLAGS}
    values |= {name: random_text(rng) for name in ("prompt", "negative_prompt")}
    values |= {
        "seed": rng.choice([None, 0, rng.randrange(2**63)]),
        "seconds": rng.choice([1, 0.1, rng.uniform(0.01, 120)]),
        "section_seconds": rng.choice([1, 0.5]),
        "guidance_scale": rng.choice([1, rng.uniform(0, 32)]),
        "all_padding": rng.choice([None, 0, rng.uniform(0, 10)]),
        "start_image": rng.choice([None, "start.png"]),
        "end_image": rng.choice([None, "end.png"]),
    }
    if rng.random() < 0.5:
        values |= {"width": rng.randint(1, 128) * 16, "height": rng.randint(1, 128) * 16}
    sections = GenerationRequest.from_dict(values | {"start_image": "a"}).num_sections
    chosen = rng.sample(range(sections), min(rng.randint(0, 4), sections))
    pictures = [{"section": n, "image": f"key_{n}.png"} for n in chosen]
    values["keyframes"] = [frame | {"prompt": random_text(rng)} for frame in pictures]
    if values["start_image"] is None and not pictures:
        values["start_image"] = "start.png"
    return GenerationRequest.from_dict(values)


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 12)))
