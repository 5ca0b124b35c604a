"""Random valid requests."""

import random

from diffusers_helper.request import GenerationRequest


def random_request(rng: random.Random) -> GenerationRequest:
    """Any valid request."""
    section_seconds = rng.choice([1, 0.5])
    values = {
        "prompt": random_text(rng),
        "negative_prompt": random_text(rng),
        "seed": rng.choice([None, 0, rng.randrange(2**63)]),
        "seconds": rng.choice([1, 0.1, rng.uniform(0.01, 120)]),
        "section_seconds": section_seconds,
        "steps": rng.randint(1, 100),
        "teacache": rng.random() < 0.5,
        "teacache_threshold": rng.uniform(0, 10),
        "end_frame_strength": rng.random(),
        "distilled_guidance_scale": rng.uniform(0, 32),
        "guidance_scale": rng.choice([1, rng.uniform(0, 32)]),
        "guidance_rescale": rng.random(),
        "all_padding": rng.choice([None, 0, rng.uniform(0, 10)]),
        "loop": rng.random() < 0.5,
        "resolution": rng.randint(64, 1536),
        "crf": rng.randint(1, 51),
        "keep_section_videos": rng.random() < 0.5,
        "save_section_stills": rng.random() < 0.5,
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
    """Text with whatever makes a file format stumble."""
    pieces = [
        "",
        "A cat.",
        "猫が歩く。",
        "é",
        "👩‍👩‍👧",
        '"',
        "'",
        "\\",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "\x1b[31m",
        "\x7f",
    ]
    pieces += ["{", "}", "%s", "=", ";", "#", "<b>", "\u2028", "\ufeff", "\U0010ffff", " ", "x" * 300]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 12)))
