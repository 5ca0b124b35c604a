"""Random requests: each is accepted or explained in a sentence, and comes back from the files that carry it.

The same examples at every run.
"""

import dataclasses
import json
import math
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusers_helper.errors import InputError
from diffusers_helper.media.embedded_request import load_request, pack_request, without_start, write_png
from diffusers_helper.media.images import read_image, to_data_uri
from diffusers_helper.media.video import write_mp4
from diffusers_helper.plan import make_plan
from diffusers_helper.request import REQUEST_FIELDS, GenerationRequest, Keyframe, parse_request_json
from tests.support.random_requests import random_request
from webui.eichi_utils.text.error_text import error_text
from webui.eichi_utils.text.translations import LANGUAGES, Translator

WORDS = [Translator(language) for language in LANGUAGES]
FIELDS = [*REQUEST_FIELDS]
KEYFRAME_FIELDS = [field.name for field in dataclasses.fields(Keyframe)]
SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def bounded(examples: int) -> settings:
    """Settings for so many examples, the same at every run, however long one takes."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=SLOW_IS_FINE,
    )


# -- anything at all ---------------------------------------------------------------------------------

HALVES = st.sampled_from(["\ud800", "x\udfff", "\udc00\ud800", "\ud83d"])
TEXTS = st.one_of(st.text(st.characters(codec=None, exclude_categories=()), max_size=12), HALVES)
"""Strategy for any characters, and halves of them."""
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, -0.0, 1, 2**63 - 1, 2**63, 1e308, 5e-324, 0.1 + 0.2]),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=4,
)
"""Strategy for whatever JSON can hold, and what Python's parser takes beyond it."""
PICTURES = st.one_of(
    VALUES,
    st.sampled_from(
        ["a.png", "data:", "data:image/png;base64,", "data:;base64,%%", "\0", " ", "../" * 99 + "x", "con"]
    ),
)
FRAMES = st.one_of(
    VALUES,
    st.lists(
        st.one_of(
            VALUES,
            st.fixed_dictionaries(
                {"section": st.one_of(VALUES, st.integers(-1, 130))},
                optional={"image": PICTURES, "prompt": VALUES, "more": VALUES},
            ),
        ),
        max_size=4,
    ),
)
FULL = st.fixed_dictionaries(
    {"start_image": PICTURES},
    optional={
        **{name: VALUES for name in FIELDS if name not in ("start_image", "end_image", "keyframes")},
        "end_image": PICTURES,
        "keyframes": FRAMES,
    },
)
"""Strategy for known keys with any value."""


def check_sentence(error: InputError) -> None:
    """Check that each language has a sentence for the error that can be shown and sent."""
    for words in WORDS:
        text = error_text(error, words)
        assert text.strip()
        assert text[-1] in ".?。？!！", text
        assert len(text) < 1000
        text.encode("utf-8")
        assert not any(f"{{{name}}}" in text for name in error.values)


def accepted_or_explained(values: object) -> GenerationRequest | None:
    """The usable request that values make; None for a refusal, which has a sentence."""
    try:
        request = GenerationRequest.from_dict(values)
    except InputError as error:
        check_sentence(error)
        return None
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        assert not isinstance(value, float) or math.isfinite(value), field.name
    assert make_plan(request).pixel_frames > 0
    text = json.dumps(request.to_dict(), ensure_ascii=False, allow_nan=False)
    assert GenerationRequest.from_dict(parse_request_json(text.encode("utf-8"))) == request
    return request


def parsed_or_explained(text: str | bytes) -> None:
    try:
        values = parse_request_json(text)
    except InputError as error:
        check_sentence(error)
        return
    accepted_or_explained(values)


@pytest.mark.slow
@bounded(150)
@given(st.one_of(VALUES, FULL))
def test_any_value_is_accepted_or_explained(values):
    accepted_or_explained(values)


@pytest.mark.slow
@bounded(500)
@given(st.sampled_from([*FIELDS, "keyframes[0]"]), VALUES, st.sampled_from(KEYFRAME_FIELDS))
def test_each_key_with_any_value_is_accepted_or_explained(name, value, frame_name):
    if name == "keyframes[0]":
        frame = {"section": 0, "prompt": "x", frame_name: value}
        accepted_or_explained({"start_image": "a.png", "keyframes": [frame]})
    else:
        accepted_or_explained({"start_image": "a.png", name: value})


@bounded(80)
@given(TEXTS.filter(lambda name: name not in FIELDS), VALUES)
def test_unknown_key_is_explained_with_a_known_one(name, value):
    with pytest.raises(InputError) as caught:
        GenerationRequest.from_dict({"start_image": "a.png", name: value})
    assert caught.value.code == "unknown_key"
    assert caught.value.values["nearest"] in FIELDS
    check_sentence(caught.value)


ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])
JSON_LIKE = st.text('{}[]",:0123456789eE+-.\\u dtrufalsn\n', max_size=60)
NUMBERS_OF_ANY_LENGTH = st.builds(
    lambda name, begin, digits: f'{{"start_image": "a.png", "{name}": {begin}{"9" * digits}}}',
    st.sampled_from(FIELDS),
    st.sampled_from(["", "-", "0.", "1e", "-1e-"]),
    st.integers(1, 10_000),
)


@pytest.mark.slow
@bounded(500)
@given(st.one_of(st.binary(max_size=200), TEXTS, JSON_LIKE, NUMBERS_OF_ANY_LENGTH))
def test_any_file_is_accepted_or_explained(text):
    parsed_or_explained(text)


@pytest.mark.slow
@bounded(100)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3), st.integers(0, 99), ENCODINGS)
def test_a_cut_or_reencoded_file_is_accepted_or_explained(values, cut, encoding):
    for plain in (False, True):
        content = json.dumps(values, ensure_ascii=plain).encode(encoding, "replace")
        for piece in (content, content[:cut], content[cut:], content + content[:cut]):
            parsed_or_explained(piece)


@bounded(100)
@given(st.sampled_from(FIELDS), VALUES, VALUES)
def test_the_last_value_of_a_doubled_key_counts(name, first, last):
    text = f'{{"start_image": "a.png", "{name}": {json.dumps(first)}, "{name}": {json.dumps(last)}}}'
    alone = json.dumps({"start_image": "a.png", name: last})
    assert accepted_or_explained(parse_request_json(text)) == accepted_or_explained(parse_request_json(alone))


@pytest.mark.slow
@bounded(30)
@given(st.sampled_from("[{"), st.integers(1, 100_000), st.sampled_from(FIELDS))
def test_nested_lists_and_objects_are_accepted_or_explained(sign, depth, name):
    inner = sign * depth if sign == "[" else '{"a":' * depth
    close = "]" * depth if sign == "[" else "1" + "}" * depth
    for text in (inner, inner + close, f'{{"{name}": {inner}{close}}}', f'{{"{name}": {inner}'):
        parsed_or_explained(text)


# -- there and back ----------------------------------------------------------------------------------

REQUESTS = st.integers(0, 2**32).map(lambda seed: random_request(random.Random(seed)))


@bounded(150)
@given(REQUESTS)
def test_every_valid_request_is_taken_as_it_is(request_):
    assert accepted_or_explained(request_.to_dict()) == request_


@pytest.mark.slow
@bounded(25)
@given(REQUESTS, st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1))
def test_a_request_comes_back_from_a_video_and_a_picture(request_, height, width, noise, seed):
    draw = np.random.default_rng(noise)
    pictures = {
        name: draw.integers(0, 256, (16 * height, 16 * width, 3), dtype=np.uint8)
        for name in dict.fromkeys(all_images(request_))
        if name is not None
    }
    packed = pack_request(request_, pictures, seed)
    start = pictures[request_.start_picture]
    expected = dataclasses.replace(request_, seed=seed, width=16 * width, height=16 * height)
    expected = expected.map_images(lambda name: to_data_uri(pictures[name]))
    with tempfile.TemporaryDirectory() as folder:
        video, own, other = (Path(folder) / name for name in ("a.mp4", "a.png", "b.png"))
        write_mp4(video, [start], crf=40, comment=json.dumps(packed, ensure_ascii=False))
        write_png(other, np.zeros_like(start), packed)
        write_png(own, start, without_start(packed))
        assert load_request(video) == load_request(other) == expected
        loaded = load_request(own)
        assert dataclasses.replace(loaded, start_image=expected.start_image) == expected
        for found, name in zip(all_images(loaded), all_images(request_), strict=True):
            assert (found is None) == (name is None)
            if found is not None and name is not None:
                assert np.array_equal(read_image(found), pictures[name])


def all_images(request: GenerationRequest) -> list[str | None]:
    return [request.start_image, request.end_image, *(keyframe.image for keyframe in request.keyframes)]
