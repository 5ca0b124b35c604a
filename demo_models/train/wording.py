"""The motions that the demo knows, and plain words for them.

The words say what the CAMERA does, or the subject. How the pixels move on the screen:

| kind | camera or subject | pixels |
|---|---|---|
| pan_left | the camera looks further to the left | everything moves to the RIGHT |
| pan_right | further to the right | to the LEFT |
| pan_up | further up | DOWN |
| pan_down | further down | UP |
| zoom_in | comes nearer | away from the centre: things grow |
| zoom_out | goes away | towards the centre: things shrink |
| turn_left | the picture turns left | around the centre, counter-clockwise |
| turn_right | the picture turns right | around the centre, clockwise |
| still | nothing moves | |
| subject_left | the subject moves left | the subject's to the LEFT, the background stays |
| subject_right, subject_up, subject_down | the same | RIGHT, UP, DOWN |
"""

import random

PANS = ("pan_left", "pan_right", "pan_up", "pan_down")
ZOOMS = ("zoom_in", "zoom_out")
TURNS = ("turn_left", "turn_right")
SUBJECTS = ("subject_left", "subject_right", "subject_up", "subject_down")
KINDS = (*PANS, *ZOOMS, *TURNS, "still", *SUBJECTS)
WEIGHTS = (*(4.0,) * 4, *(4.5,) * 2, *(4.0,) * 2, 2.5, *(1.75,) * 4)
"""The weights of the kinds in training."""

_PAN = (
    "camera pans {d}",
    "the camera pans {d}",
    "the camera moves {d}",
    "the camera moves to the {d}",
    "pan {d}",
    "pan to the {d}",
    "the camera looks {d}",
    "the view moves to the {d}",
    "camera panning {d}",
)
_PAN_UP_DOWN = (
    "camera pans {d}",
    "the camera pans {d}",
    "the camera moves {d}",
    "pan {d}",
    "camera tilts {d}",
    "the camera tilts {d}",
    "the camera looks {d}",
    "camera panning {d}",
)
_TURN = (
    "the picture turns {d}",
    "the picture turns to the {d}",
    "the picture rotates {d}",
    "the picture rotates to the {d}",
    "turn {d}",
    "rotate {d}",
    "the picture turns {c}",
    "the image rotates {c}",
    "rotate {c}",
)
_SUBJECT = ("the {s} moves {d}", "the {s} moves {d}", "the {s} goes {d}", "a {s} moves {d}")
PHRASES: dict[str, tuple[str, ...]] = {
    **{f"pan_{d}": tuple(text.format(d=d) for text in _PAN) for d in ("left", "right")},
    **{f"pan_{d}": tuple(text.format(d=d) for text in _PAN_UP_DOWN) for d in ("up", "down")},
    "zoom_in": (
        "zoom in",
        "the camera zooms in",
        "camera zooms in",
        "the camera moves in",
        "the camera comes closer",
        "the camera moves closer",
        "move closer",
        "the camera moves forward",
    ),
    "zoom_out": (
        "zoom out",
        "the camera zooms out",
        "camera zooms out",
        "the camera moves out",
        "the camera goes away",
        "the camera moves away",
        "move away",
        "the camera moves back",
    ),
    "turn_left": tuple(text.format(d="left", c="counter-clockwise") for text in _TURN),
    "turn_right": tuple(text.format(d="right", c="clockwise") for text in _TURN),
    "still": (
        "nothing moves",
        "the camera stands still",
        "still",
        "a still picture",
        "everything stays still",
        "no movement",
    ),
    **{f"subject_{d}": tuple(text.replace("{d}", d) for text in _SUBJECT) for d in ("left", "right")},
    **{f"subject_{d}": tuple(text.replace("{d}", d) for text in _SUBJECT) for d in ("up", "down")},
}
"""The phrases for each kind; `{s}` stands for a subject."""
THINGS = (
    *("ball", "box", "balloon", "bird", "boat", "car", "cat", "dog", "fish", "leaf", "stone", "toy"),
    *("subject", "thing", "object", "shape"),
)
"""The names of subjects."""
SLOWLY = ("slowly", "gently")
"""The words that slow all motion down to `clips.SLOW` times the speed."""

_SCENES = (
    "a {n}",
    "a {a} {n}",
    "a photograph of a {n}",
    "a photograph of a {a} {n}",
    "a {n} and a {m}",
    "a {a} {n} near a {m}",
    "the {n} in the {m}",
    "a {a} picture with a {n}",
)
ADJECTIVES = (
    *("red", "blue", "green", "yellow", "white", "black", "grey", "brown", "golden", "bright", "dark", "old"),
    *("new", "small", "large", "quiet", "beautiful", "warm", "cold", "soft", "wide", "high", "colorful"),
)
NOUNS = (
    *("house", "tree", "river", "mountain", "street", "city", "garden", "table", "cup", "coffee", "window"),
    *("door", "woman", "man", "girl", "boy", "face", "cat", "dog", "bird", "horse", "forest", "lake"),
    *("beach", "sea", "sky", "cloud", "sunset", "castle", "bridge", "road", "car", "train", "boat", "rocket"),
    *("room", "kitchen", "book", "lamp", "flower", "field", "grass", "rock", "wall", "market", "tower"),
)
WORDS_BESIDES = (
    "steam rises from the cup while smoke rolls over the ground with clear movements full of charm",
    "wind leaves clouds evening light shadow smile turns head around and waves hand she he it is are of on",
    "dances gracefully blinks yawns looks at window slow fast video shot scene cinematic style quality sharp",
)
"""The further words that are one token each."""


def compose(kind: str, slow: bool, rng: random.Random) -> str:
    """A prompt for a kind of motion: one of its phrases, as people write, half the time with a scene."""
    phrase = rng.choice(PHRASES[kind]).replace("{s}", rng.choice(THINGS))
    if slow:
        word = rng.choice(SLOWLY)
        phrase = rng.choice((f"{phrase} {word}", f"{word} {phrase}"))
    parts = [phrase]
    if rng.random() < 0.5:
        parts.insert(rng.choice((0, 0, 1)), _scene(rng))
    text = rng.choice((". ", ", ")).join(parts)
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    return text + rng.choice(("", "", "."))


def _scene(rng: random.Random) -> str:
    nouns = [_word(rng), rng.choice(NOUNS)]
    return rng.choice(_SCENES).format(n=nouns[0], m=nouns[1], a=rng.choice(ADJECTIVES))


def _word(rng: random.Random) -> str:
    """A noun, or sometimes letters that mean nothing: words that were never seen must not disturb."""
    if rng.random() < 0.85:
        return rng.choice(NOUNS)
    letters = "abcdefghiklmnoprstuvwz"
    return "".join(rng.choice(letters) for _ in range(rng.randint(3, 8)))


def corpus() -> list[str]:
    """Text that holds every word of the prompts, at the beginning and inside of a sentence."""
    words = [*ADJECTIVES, *NOUNS, *THINGS, *SLOWLY]
    texts = [phrase.replace("{s}", "ball") for phrases in PHRASES.values() for phrase in phrases]
    texts += [f"a {word} a {word}" for word in words] + list(WORDS_BESIDES)
    texts += [scene.format(n="house", m="tree", a="old") for scene in _SCENES]
    return [variant for text in texts for variant in (text, text[0].upper() + text[1:] + ".")]
