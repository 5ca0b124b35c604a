"""Random values and files: each is accepted as a request, or explained in a sentence.

The same examples at every run.
"""

import dataclasses
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusers_helper.errors import InputError
from diffusers_helper.plan import make_plan
from diffusers_helper.request import REQUEST_FIELDS, GenerationRequest, Keyframe, parse_request_json
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


def check_sentence(error: InputError) -> None:
    """Check that each language has a sentence for the error that can be shown and sent."""
    for words in WORDS:
        text = error_text(error, words)
        assert text.strip()
        assert text[-1] in ".?。？!！", text
        assert len(text) < 1000
        text.encode("utf-8")
        assert not any(f"{{{name}}}" in text for name in error.values)


def accepted_or_explained(values: object) -> None:
    """Check that values make a usable request, or are refused with a sentence."""
    try:
        request = GenerationRequest.from_dict(values)
    except InputError as error:
        check_sentence(error)
        return
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        assert not isinstance(value, float) or math.isfinite(value), field.name
    assert make_plan(request).pixel_frames > 0
    text = json.dumps(request.to_dict(), ensure_ascii=False, allow_nan=False)
    assert GenerationRequest.from_dict(parse_request_json(text.encode("utf-8"))) == request


ONE_KEY = st.builds(
    lambda name, value: {"start_image": "a.png", name: value}, st.sampled_from(FIELDS), VALUES
)
ONE_FRAME = st.builds(
    lambda name, value: {"start_image": "a.png", "keyframes": [{"section": 0, "prompt": "x", name: value}]},
    st.sampled_from(KEYFRAME_FIELDS),
    VALUES,
)


@pytest.mark.slow
@bounded(600)
@given(st.one_of(VALUES, ONE_KEY, ONE_FRAME))
def test_any_value_is_accepted_or_explained(values):
    accepted_or_explained(values)


ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])
JSON_LIKE = st.text('{}[]",:0123456789eE+-.\\u dtrufalsn\n', max_size=60)
NUMBERS_OF_ANY_LENGTH = st.builds(
    lambda name, begin, digits: f'{{"start_image": "a.png", "{name}": {begin}{"9" * digits}}}',
    st.sampled_from(FIELDS),
    st.sampled_from(["", "-", "0.", "1e", "-1e-"]),
    st.integers(1, 10_000),
)


CUT = st.builds(
    lambda values, cut, encoding: json.dumps(values, ensure_ascii=False).encode(encoding, "replace")[cut],
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
    st.builds(slice, st.integers(0, 9), st.integers(0, 99)),
    ENCODINGS,
)
"""Strategy for a file of any encoding with its end, or its beginning, cut off."""


@pytest.mark.slow
@bounded(600)
@given(st.one_of(st.binary(max_size=200), TEXTS, JSON_LIKE, NUMBERS_OF_ANY_LENGTH, CUT))
def test_any_file_is_accepted_or_explained(text):
    try:
        values = parse_request_json(text)
    except InputError as error:
        check_sentence(error)
    else:
        accepted_or_explained(values)
